//! What the server, the network and TLS said, in an operator's words and with a remedy.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::pooler;
use super::url::{DatabaseUrl, Host};
use crate::failure::Failure;

/// A statement is quoted in a message up to this many characters.
const QUOTED_SQL: usize = 120;

/// The failure of a connection.
pub(super) fn connecting(url: &DatabaseUrl, error: Error) -> Failure {
    let what = format!("cannot connect to {url}");
    if let Some(db) = error.as_db_error() {
        if pooler::says_so(db.message()) {
            return pooler::by_behaviour(url, db.message());
        }
        let failure = Failure::because(what, db.message().to_owned());
        return match refusal_hint(url, db.code(), db.message()) {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
    }
    if let Some(tls) = cause::<rustls::Error>(&error) {
        let text = tls_words(tls);
        let failure = Failure::because(what, format!("TLS: {text}"));
        return match tls_hint(url, tls) {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
    }
    let text = error.to_string();
    if text.contains("server does not support TLS") {
        return Failure::because(what, "the server does not offer TLS").hint(format!(
            "sslmode={} asks for it: set `ssl = on` in postgresql.conf, or sslmode=disable on a private network",
            url.tls.word()
        ));
    }
    if text.contains("password missing") || cause_text(&error).contains("password missing") {
        return Failure::because(what, "the server asks for a password and the URL has none")
            .hint("add it: postgresql://user:password@host/database");
    }
    match cause::<io::Error>(&error) {
        Some(io) => network(url, what, io),
        None if error.is_closed() => Failure::because(what, "the connection was closed").hint(
            "is this really PostgreSQL's port? if it is, the server's log says why it closed",
        ),
        None => Failure::because(what, error),
    }
}

fn network(url: &DatabaseUrl, what: String, io: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let because = Failure::because(what, io.to_string());
    match (&url.host, io.kind()) {
        (Host::Socket(_), Kind::NotFound) => because.hint(format!(
            "no server has its socket at {}: is it running, and is this its port?",
            url.server()
        )),
        (Host::Socket(_), Kind::PermissionDenied) => {
            because.hint(format!("this user may not open {}", url.server()))
        }
        (_, Kind::ConnectionRefused) => because.hint(format!(
            "nothing listens at {}: is PostgreSQL running, and is this its port?",
            url.server()
        )),
        (_, Kind::ConnectionReset | Kind::UnexpectedEof | Kind::BrokenPipe) => because.hint(
            "the connection was cut: is this really PostgreSQL's port, and does a firewall allow it?",
        ),
        (_, Kind::NetworkUnreachable | Kind::HostUnreachable) => {
            because.hint("the network does not reach that host; an IPv6-only address needs IPv6 here")
        }
        (Host::Tcp(host), _) if io.to_string().contains("lookup") => because.hint(format!(
            "`{host}` is not known to the name servers: check its spelling, or try `getent hosts {host}`"
        )),
        _ => because,
    }
}

fn refusal_hint(url: &DatabaseUrl, code: &SqlState, message: &str) -> Option<String> {
    let user = &url.user;
    Some(match *code {
        SqlState::INVALID_PASSWORD => {
            format!("check the password of role `{user}` in the URL; special characters are percent-encoded")
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("pg_hba.conf") => {
            "add a line for this host, role and database to the server's pg_hba.conf and reload it; `no encryption` in the message means that TLS is asked for (sslmode=require)".to_owned()
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("does not exist") => {
            format!("create it: CREATE ROLE \"{user}\" LOGIN PASSWORD '…'; or restore the globals first")
        }
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION if message.contains("Peer authentication") => {
            format!("peer authentication wants the system's user `{user}`; use host=127.0.0.1 and a password")
        }
        SqlState::INVALID_CATALOG_NAME => format!(
            "no database `{}` on this server; `psql -l` lists them",
            url.database
        ),
        SqlState::TOO_MANY_CONNECTIONS => {
            "all of the server's connections are in use: try again, or raise max_connections or the role's or database's CONNECTION LIMIT".to_owned()
        }
        SqlState::CANNOT_CONNECT_NOW => "the server is starting up or shutting down: try again soon".to_owned(),
        SqlState::INSUFFICIENT_PRIVILEGE => format!(
            "GRANT CONNECT ON DATABASE \"{}\" TO \"{user}\"",
            url.database
        ),
        _ if message.contains("Tenant or user not found") => {
            "the pooler does not know this project: check the user `postgres.PROJECT` and the region in the host".to_owned()
        }
        _ => return None,
    })
}

fn tls_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the server's certificate comes from an unknown authority".to_owned()
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the server's certificate is for another name".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the server's certificate has expired".to_owned(),
        other => other.to_string(),
    }
}

fn tls_hint(url: &DatabaseUrl, error: &rustls::Error) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(format!(
            "name the authority's certificate with sslrootcert=/path (now trusted: {})",
            match &url.root_certificates {
                Some(path) => path.display().to_string(),
                None => "the system's".to_owned(),
            }
        )),
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        }) if presented.is_empty() => Some(
            "it names no host in its subjectAltName, only perhaps in its common name: issue it anew with subjectAltName, or use sslmode=verify-ca".to_owned(),
        ),
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        }) => Some(format!(
            "it is for {}: use that host name, or sslmode=verify-ca",
            presented
                .iter()
                .map(|name| name.trim_start_matches("DnsName(\"").trim_end_matches("\")"))
                .collect::<Vec<_>>()
                .join(", ")
        )),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Some("renew it on the server, and look at this machine's clock".to_owned()),
        _ => None,
    }
}

/// The failure of a question.
pub(super) fn asking(url: &DatabaseUrl, sql: &str, error: Error) -> Failure {
    let what = format!("{} at {} failed", quoted(sql), url.database);
    let Some(db) = error.as_db_error() else {
        let failure = Failure::because(what, cause_text(&error));
        return if error.is_closed() || cause::<io::Error>(&error).is_some() {
            failure.hint("the server closed the connection: look at its log")
        } else {
            failure
        };
    };
    let mut said = db.message().to_owned();
    if let Some(detail) = db.detail() {
        said.push_str(&format!(" ({detail})"));
    }
    // The table, the line and the column of a row that the server does not take.
    if let Some(place) = db.where_().and_then(|place| place.lines().next())
        && place.starts_with("COPY ")
    {
        said.push_str(&format!(" ({place})"));
    }
    let failure = Failure::because(what, said);
    let failure = match db.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    match *db.code() {
        SqlState::DISK_FULL => {
            failure.hint("the server's disk is full: `df -h` on its data directory")
        }
        SqlState::ADMIN_SHUTDOWN => failure.hint("an administrator or a restart ended the session"),
        _ => failure,
    }
}

/// The failure of a question without an answer in time.
pub(super) fn too_late(url: &DatabaseUrl, sql: &str, limit: Duration) -> Failure {
    Failure::new(format!(
        "{} at {} had no answer within {} s",
        quoted(sql),
        url.database,
        limit.as_secs()
    ))
    .hint("look for locks: SELECT pid, wait_event, query FROM pg_stat_activity")
}

/// The failure of a connection that came to nothing in time.
pub(super) fn no_connection(url: &DatabaseUrl) -> Failure {
    Failure::new(format!(
        "cannot connect to {url}: no answer within {} s",
        url.connect_timeout.as_secs()
    ))
    .hint(
        "a firewall that drops packets looks like this; connect_timeout=30 in the URL waits longer",
    )
}

/// Whether libpq would try again with, or without, TLS.
pub(super) fn other_encryption_may_help(error: &Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => {
            cause::<rustls::Error>(error).is_some() || error.to_string().contains("TLS handshake")
        }
    }
}

pub(super) fn quoted(sql: &str) -> String {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(QUOTED_SQL) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None => format!("`{line}`"),
    }
}

fn cause_text(error: &Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// The first cause of a type, also inside I/O errors.
fn cause<T: std::error::Error + 'static>(error: &Error) -> Option<&T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.source();
    while let Some(one) = next {
        if let Some(found) = one.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error's `source` skips what it carries.
        next = match one.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => match inner.downcast_ref::<T>() {
                Some(found) => return Some(found),
                None => inner.source(),
            },
            None => one.source(),
        };
    }
    None
}
