//! The address of a database as applications write it.
//!
//! Understands libpq's URLs, SQLAlchemy's driver suffixes (`postgresql+asyncpg://`) and the options
//! that applications' libraries add. The promise: what is not understood is an error that names it,
//! and neither `Debug` nor `Display` nor an error shows the password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// The port where none is given, as in libpq.
const DEFAULT_PORT: u16 = 5432;
/// The wait for a connection where none is given.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for a connection that a URL may ask for.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// The address of one database and how to reach it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// Where the server listens.
    pub host: Host,
    /// Its port; for a socket the number in the socket's name.
    pub port: u16,
    /// The role to log in as.
    pub user: String,
    /// Its password, if the server asks for one.
    pub password: Option<Secret>,
    /// The database's name.
    pub database: String,
    /// Whether and how far TLS is wanted, in libpq's meaning.
    pub tls: TlsMode,
    /// The certificates to trust: a file, or the system's (`None`).
    pub root_certificates: Option<PathBuf>,
    /// Start-up options for the server (`-c name=value …`).
    pub options: Option<String>,
    /// How long a connection may take; at most 60 s.
    pub connect_timeout: Duration,
    /// What was left out of the URL because only the application's library knows it, for `-v`.
    pub notes: Vec<String>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name or an IP address (IPv6 without brackets).
    Tcp(String),
    /// The directory of a unix socket.
    Socket(String),
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server refuses an unencrypted connection.
    Allow,
    /// If the server can; the default.
    Prefer,
    /// Always, but without looking at the certificate unless `sslrootcert` is given.
    Require,
    /// Always, and the certificate must come from a trusted authority.
    VerifyCa,
    /// As `verify-ca`, and the certificate must be for this host.
    VerifyFull,
}

impl TlsMode {
    /// The word that libpq uses.
    pub fn word(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Allow => "allow",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }

    fn parse(option: &str, value: &str) -> Result<TlsMode> {
        Ok(match value.to_ascii_lowercase().as_str() {
            "disable" | "false" | "0" => TlsMode::Disable,
            "allow" => TlsMode::Allow,
            "prefer" => TlsMode::Prefer,
            // `no-verify` is node-postgres's word, `true` what people write for asyncpg.
            "require" | "true" | "1" | "no-verify" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => {
                return Err(Failure::new(format!(
                    "the database URL's option `{option}` is `{value}`, which is no TLS mode"
                ))
                .hint("one of disable, allow, prefer, require, verify-ca, verify-full"));
            }
        })
    }
}

/// Options with a meaning for us.
const KNOWN: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "database",
    "dbname",
    "host",
    "options",
    "password",
    "port",
    "ssl",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Options that change nothing about what is in the database, with whose they are.
const LEFT_OUT: &[(&str, &str)] = &[
    ("async_fallback", "SQLAlchemy"),
    ("charset", "an ORM"),
    ("client_encoding", "a driver"),
    ("command_timeout", "asyncpg"),
    ("connection_limit", "Prisma"),
    ("fallback_application_name", "libpq"),
    ("gssencmode", "libpq"),
    ("keepalives", "libpq"),
    ("keepalives_count", "libpq"),
    ("keepalives_idle", "libpq"),
    ("keepalives_interval", "libpq"),
    ("max_cached_statement_lifetime", "asyncpg"),
    ("max_cacheable_statement_size", "asyncpg"),
    ("max_overflow", "SQLAlchemy"),
    ("pgbouncer", "Prisma"),
    ("pool", "an ORM"),
    ("pool_max_conns", "pgx"),
    ("pool_min_conns", "pgx"),
    ("pool_mode", "a driver"),
    ("pool_pre_ping", "SQLAlchemy"),
    ("pool_recycle", "SQLAlchemy"),
    ("pool_size", "SQLAlchemy"),
    ("pool_timeout", "Prisma"),
    ("prepare_threshold", "psycopg"),
    ("prepared_statement_cache_size", "SQLAlchemy"),
    ("prepared_statement_name_func", "SQLAlchemy"),
    ("schema", "Prisma"),
    ("search_path", "a driver"),
    ("server_settings", "asyncpg"),
    ("serverversion", "Doctrine"),
    ("socket_timeout", "Prisma"),
    ("sslsni", "libpq"),
    ("statement_cache_size", "asyncpg"),
    ("supa", "Supabase"),
    ("target_session_attrs", "libpq"),
    ("tcp_user_timeout", "libpq"),
    ("timezone", "a driver"),
    ("workaround", "Supabase"),
];

impl DatabaseUrl {
    /// Reads a URL. Host, user and database must be named: a backup must not depend on who runs it.
    pub fn parse(text: &str) -> Result<DatabaseUrl> {
        refuse_blanks(text)?;
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Failure::new("the database URL has no `://`, so it is no URL").hint(SHAPE));
        };
        let (kind, _driver) = scheme.split_once('+').unwrap_or((scheme, ""));
        if !matches!(kind, "postgresql" | "postgres") {
            return Err(Failure::new(format!(
                "the database URL begins with `{}://`, which is not PostgreSQL",
                shorten(scheme)
            ))
            .hint(SHAPE));
        }
        let whole = rest;
        let rest = whole.split_once('#').map_or(whole, |(before, _)| before);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let before_options = whole.split_once('=').map_or(whole, |(before, _)| before);
        if !authority.contains('@') && before_options.contains('@') {
            return Err(Failure::new(
                "the database URL's user or password holds a `/`, `?` or `#` as such",
            )
            .hint("write `/` as %2F, `?` as %3F, `#` as %23, `%` as %25"));
        }
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (login, address),
            None => ("", authority),
        };
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let (host, port) = split_address(address)?;
        let mut draft = Draft {
            host: decoded("host", host)?,
            port: port.to_owned(),
            user: decoded("user", user)?,
            password: match password {
                Some(password) => Some(Secret::new(decoded("password", password)?)),
                None => None,
            },
            database: decoded("database", database)?,
            ..Draft::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            draft.option(pair)?;
        }
        draft.finish()
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> DatabaseUrl {
        DatabaseUrl {
            database: name.to_owned(),
            ..self.clone()
        }
    }

    /// `host:port`, or the socket's path, as an operator would say it.
    pub fn server(&self) -> String {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
            Host::Socket(directory) => format!("{directory}/.s.PGSQL.{}", self.port),
        }
    }
}

const SHAPE: &str = "it looks like postgresql://user:password@host:5432/database";

/// What has been read so far.
#[derive(Default)]
struct Draft {
    host: String,
    port: String,
    user: String,
    password: Option<Secret>,
    database: String,
    tls: Option<TlsMode>,
    roots: Option<String>,
    options: Option<String>,
    connect_timeout: Option<Duration>,
    notes: Vec<String>,
}

impl Draft {
    fn option(&mut self, pair: &str) -> Result<()> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded("options", name)?.to_ascii_lowercase();
        if let Some((_, whose)) = LEFT_OUT.iter().find(|(known, _)| *known == name) {
            self.notes
                .push(format!("`{name}` is an option of {whose}; left out"));
            return Ok(());
        }
        // A `+` in a query is a plus sign to libpq, so it stays one.
        let value = decoded(&name, value)?;
        match name.as_str() {
            "host" => self.host = value,
            "port" => self.port = value,
            "user" => self.user = value,
            "password" => self.password = Some(Secret::new(value)),
            "dbname" | "database" => self.database = value,
            "sslmode" | "ssl" => self.tls = Some(TlsMode::parse(&name, &value)?),
            "sslrootcert" => self.roots = Some(value),
            "options" => self.options = Some(value),
            "connect_timeout" => self.connect_timeout = Some(seconds(&value)?),
            // Ours says which tool is at work.
            "application_name" => {}
            // Used whenever the server offers it.
            "channel_binding" => {}
            "sslcert" | "sslkey" | "sslpassword" | "sslidentity" | "service" | "passfile"
            | "hostaddr" | "sslnegotiation" => {
                return Err(Failure::new(format!(
                    "the database URL's option `{name}` is not supported"
                ))
                .hint("use a URL with host, user and password for backups"));
            }
            _ => return Err(unknown(&name)),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<DatabaseUrl> {
        if self.host.contains(',') {
            return Err(Failure::new("the database URL names several hosts")
                .hint("name the one to back up: the primary, or one replica"));
        }
        let host = match self.host {
            host if host.is_empty() => {
                return Err(Failure::new("the database URL names no host")
                    .hint("for a unix socket: postgresql://user@/database?host=/run/postgresql"));
            }
            host if host.starts_with('/') => Host::Socket(host),
            host => Host::Tcp(host),
        };
        let port = match self.port.as_str() {
            "" => DEFAULT_PORT,
            text => text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                // Not shown: it may be a part of the password.
                Failure::new("the database URL's port is no number from 1 to 65535")
                    .hint("a `:` or `@` in the password is written %3A or %40")
            })?,
        };
        if self.user.is_empty() {
            return Err(Failure::new("the database URL names no user").hint(SHAPE));
        }
        if self.database.is_empty() {
            return Err(Failure::new("the database URL names no database").hint(SHAPE));
        }
        let mut tls = self.tls.unwrap_or(TlsMode::Prefer);
        let root_certificates = match self.roots.take() {
            // libpq 16: the system's certificates, and then nothing weaker makes sense.
            Some(word) if word == "system" => {
                tls = TlsMode::VerifyFull;
                None
            }
            Some(path) if path.is_empty() => None,
            Some(path) => Some(PathBuf::from(path)),
            None => None,
        };
        Ok(DatabaseUrl {
            host,
            port,
            user: self.user,
            password: self.password,
            database: self.database,
            tls,
            root_certificates,
            options: self.options.filter(|options| !options.is_empty()),
            connect_timeout: self.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            notes: self.notes,
        })
    }
}

fn unknown(name: &str) -> Failure {
    let near = KNOWN
        .iter()
        .copied()
        .chain(LEFT_OUT.iter().map(|(known, _)| *known))
        .map(|known| (strsim::damerau_levenshtein(known, name), known))
        .filter(|(distance, _)| *distance <= 3)
        .min();
    let failure = Failure::new(format!(
        "the database URL has an unknown option `{}`",
        shorten(name)
    ));
    match near {
        Some((_, known)) => failure.hint(format!("is `{known}` meant?")),
        None => failure.hint(format!("known are {}", KNOWN.join(", "))),
    }
}

fn refuse_blanks(text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Failure::new("the database URL is empty").hint(SHAPE));
    }
    for (index, character) in text.chars().enumerate() {
        let what = match character {
            ' ' => "a blank",
            '\t' => "a tab",
            '\n' | '\r' => "a line break",
            other if other.is_control() => "a control character",
            '"' | '\'' if index == 0 => "a quotation mark",
            _ => continue,
        };
        return Err(Failure::new(format!(
            "the database URL has {what} at position {}",
            index + 1
        ))
        .hint("a blank in a password is written %20"));
    }
    Ok(())
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`.
fn split_address(address: &str) -> Result<(&str, &str)> {
    if let Some(rest) = address.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(
                Failure::new("the database URL's IPv6 address has no closing `]`")
                    .hint("it looks like postgresql://user@[::1]:5432/database"),
            );
        };
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(Failure::new(
                "the database URL has something between `]` and its port",
            )),
        };
    }
    if address.contains(',') {
        return Ok((address, ""));
    }
    match address.split_once(':') {
        Some((_, port)) if port.contains(':') => Err(Failure::new(
            "the database URL's host holds more than one `:`",
        )
        .hint("an IPv6 address stands in brackets: [::1]:5432")
        .hint("a `:` or `@` in the password is written %3A or %40")),
        Some((host, port)) => Ok((host, port)),
        None => Ok((address, "")),
    }
}

/// Percent-decoding; the failure names the part and never shows it.
fn decoded(part: &str, text: &str) -> Result<String> {
    let bad = || {
        Failure::new(format!(
            "the database URL's {part} has a `%` that is not followed by two hexadecimal digits"
        ))
        .hint("a `%` itself is written %25")
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().map(char::from).and_then(|c| c.to_digit(16));
            digit.ok_or_else(bad)
        };
        let value = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(value).map_err(|_| bad())?);
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Failure::new(format!(
            "the database URL's {part} is not UTF-8 text once decoded"
        ))),
    }
}

fn seconds(value: &str) -> Result<Duration> {
    let seconds: u64 = value.parse().map_err(|_| {
        Failure::new(format!(
            "the database URL's connect_timeout `{}` is no number of seconds",
            shorten(value)
        ))
    })?;
    // Zero is libpq's "for ever"; no wait here is without a limit.
    Ok(match seconds {
        0 => MAX_CONNECT_TIMEOUT,
        given => Duration::from_secs(given).min(MAX_CONNECT_TIMEOUT),
    })
}

/// A piece of the URL for a message: it may be a mis-parsed password, so only its beginning.
fn shorten(text: &str) -> String {
    let start: String = text.chars().take(12).collect();
    if start.len() < text.len() {
        format!("{start}…")
    } else {
        start
    }
}

/// The address without its password: `postgresql://user:***@host:5432/database`.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mask = if self.password.is_some() { ":***" } else { "" };
        let (user, database) = (&self.user, &self.database);
        match &self.host {
            Host::Tcp(_) => write!(f, "postgresql://{user}{mask}@{}/{database}", self.server()),
            Host::Socket(directory) if self.port == DEFAULT_PORT => {
                write!(f, "postgresql://{user}{mask}@/{database}?host={directory}")
            }
            Host::Socket(directory) => write!(
                f,
                "postgresql://{user}{mask}@/{database}?host={directory}&port={}",
                self.port
            ),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests;
