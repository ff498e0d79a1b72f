//! Makes and drops databases, and gives one the settings of another.
//!
//! The promise: a new database has the old one's encoding and locale and is made from `template0`,
//! so nothing local slips in; a name that these tools make says what it is for and when it was
//! made, and can be found again after a kill.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connect::Session;
use super::facts::{DatabaseSettings, DatabaseShape, Grant, Setting};
use super::trouble;
use crate::failure::{Failure, Result};

/// PostgreSQL's limit for a name, in bytes (`NAMEDATALEN - 1`).
const NAME_BYTES: usize = 63;
/// The longest wait for a database to be made or dropped (its files are copied or removed).
const CREATE_LIMIT: Duration = Duration::from_secs(300);
/// What stands between the parts of a name made here.
const MARK: &str = "_rg_";
/// `YYYYmmdd_HHMMSS`.
const STAMP_BYTES: usize = 15;

/// Makes an empty database from `template0`, with encoding, locale and owner as in `like`.
pub fn create_database(session: &Session, name: &str, like: &DatabaseShape) -> Result<()> {
    let major = session.version().major();
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} OWNER {}",
        identifier(name),
        literal(&like.encoding),
        literal(&like.collate),
        literal(&like.ctype),
        identifier(&like.owner),
    );
    if like.provider != "libc" {
        let oldest = if like.provider == "builtin" { 17 } else { 15 };
        if major < oldest {
            return Err(Failure::new(format!(
                "the database to restore uses {} locales, which the server ({}) does not know",
                like.provider,
                session.version()
            ))
            .hint(format!(
                "restore into a server of version {oldest} or newer"
            )));
        }
        sql.push_str(&format!(" LOCALE_PROVIDER {}", like.provider));
        if let Some(locale) = &like.locale {
            let word = if like.provider == "icu" {
                "ICU_LOCALE"
            } else {
                "BUILTIN_LOCALE"
            };
            sql.push_str(&format!(" {word} {}", literal(locale)));
        }
        if let Some(rules) = like.icu_rules.as_ref().filter(|_| major >= 16) {
            sql.push_str(&format!(" ICU_RULES {}", literal(rules)));
        }
    } else if major >= 15 {
        sql.push_str(" LOCALE_PROVIDER libc");
    }
    let Err(error) = session.attempt(CREATE_LIMIT, &sql)? else {
        return Ok(());
    };
    let code = error.code().cloned();
    let message = error.to_string() + &error.as_db_error().map_or("", |e| e.message()).to_owned();
    let failure = trouble::asking(session.url(), &sql, error);
    let user = &session.url().user;
    Err(match code {
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => failure.hint(format!(
            "as a superuser: ALTER ROLE \"{user}\" CREATEDB; and the role must be a member of \"{}\"",
            like.owner
        )),
        Some(SqlState::UNDEFINED_OBJECT) => failure.hint(format!(
            "restore the globals first, or CREATE ROLE \"{}\"",
            like.owner
        )),
        _ if message.contains("locale") => failure.hint(format!(
            "the server's machine lacks the locale {}: `locale -a` lists them, locale-gen makes them",
            like.collate
        )),
        _ => failure,
    })
}

/// Drops a database, if it exists; with `force` its sessions are ended first.
pub fn drop_database(session: &Session, name: &str, force: bool) -> Result<()> {
    let force = if force { " WITH (FORCE)" } else { "" };
    session.execute_within(
        CREATE_LIMIT,
        &format!("DROP DATABASE IF EXISTS {}{force}", identifier(name)),
    )
}

/// Gives a database these settings. What could not be given, because a role is missing or only a
/// superuser may, comes back as sentences for the operator; anything else is a failure.
pub fn apply(
    session: &Session,
    settings: &DatabaseSettings,
    database: &str,
) -> Result<Vec<String>> {
    let mut left_out = Vec::new();
    for statement in statements(settings, database) {
        let Err(error) = session.attempt(CREATE_LIMIT, &statement)? else {
            continue;
        };
        let forgivable = matches!(
            error.code(),
            Some(
                &SqlState::INSUFFICIENT_PRIVILEGE
                    | &SqlState::UNDEFINED_OBJECT
                    | &SqlState::INVALID_PARAMETER_VALUE
            )
        );
        let failure = trouble::asking(session.url(), &statement, error);
        if !forgivable {
            return Err(failure);
        }
        left_out.push(failure.to_string());
    }
    Ok(left_out)
}

/// The statements that give a database these settings, in order.
fn statements(settings: &DatabaseSettings, database: &str) -> Vec<String> {
    let name = identifier(database);
    let mut all = vec![format!(
        "ALTER DATABASE {name} OWNER TO {}",
        identifier(&settings.owner)
    )];
    if let Some(grants) = &settings.grants {
        all.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
        all.push(format!(
            "REVOKE ALL ON DATABASE {name} FROM {}",
            identifier(&settings.owner)
        ));
        all.extend(grants.iter().map(|grant| granting(grant, &name)));
    }
    for Setting {
        role,
        name: parameter,
        value,
    } in &settings.settings
    {
        let target = match role {
            Some(role) => format!("ROLE {} IN DATABASE {name}", identifier(role)),
            None => format!("DATABASE {name}"),
        };
        all.push(format!(
            "ALTER {target} SET {} = {}",
            parameter_name(parameter),
            parameter_value(parameter, value)
        ));
    }
    if let Some(comment) = &settings.comment {
        all.push(format!(
            "COMMENT ON DATABASE {name} IS {}",
            literal(comment)
        ));
    }
    all.push(format!(
        "ALTER DATABASE {name} WITH CONNECTION LIMIT {} IS_TEMPLATE {}",
        settings.connection_limit, settings.is_template
    ));
    all
}

fn granting(grant: &Grant, database: &str) -> String {
    let to = grant.to.as_deref().map_or("PUBLIC".to_owned(), identifier);
    let option = if grant.grantable {
        " WITH GRANT OPTION"
    } else {
        ""
    };
    // The word comes from the catalog by way of a file: only the known ones become SQL.
    let privilege = match grant.privilege.as_str() {
        "CREATE" => "CREATE",
        "TEMPORARY" => "TEMPORARY",
        _ => "CONNECT",
    };
    format!("GRANT {privilege} ON DATABASE {database} TO {to}{option}")
}

/// A parameter's name; extensions' have dots between their parts.
fn parameter_name(name: &str) -> String {
    name.split('.')
        .map(identifier)
        .collect::<Vec<_>>()
        .join(".")
}

/// Parameters that are lists of names are held with the names quoted (PostgreSQL's
/// `GUC_LIST_QUOTE`); as one literal they would become one name.
fn parameter_value(name: &str, value: &str) -> String {
    const LISTS: &[&str] = &[
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    if !LISTS.contains(&name.to_ascii_lowercase().as_str()) || value.is_empty() {
        return literal(value);
    }
    let literals = names(value)
        .iter()
        .map(|name| literal(name))
        .collect::<Vec<_>>();
    literals.join(", ")
}

/// The names in a list like `a, "B, ""c"`, without their quotes; none in an empty one.
pub(super) fn names(list: &str) -> Vec<String> {
    if list.trim().is_empty() {
        return Vec::new();
    }
    let mut names = vec![String::new()];
    let mut quoted = false;
    let mut characters = list.chars().peekable();
    while let Some(character) = characters.next() {
        let last = names.last_mut().expect("there is always one");
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                last.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(String::new()),
            blank if blank.is_whitespace() && !quoted => {}
            other => last.push(other),
        }
    }
    names
}

/// A name as SQL wants it: always quoted.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string as SQL wants it, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// What a database that these tools made is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A restore is filling it.
    Restoring,
    /// A drill is filling it.
    Drill,
    /// It was the live one before a restore; `undo` brings it back.
    Before,
}

impl Purpose {
    const ALL: [Purpose; 3] = [Purpose::Restoring, Purpose::Drill, Purpose::Before];

    /// The word in the name.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Restoring => "restoring",
            Purpose::Drill => "drill",
            Purpose::Before => "before",
        }
    }
}

/// A database that these tools made, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// The database's name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made, `YYYYmmdd_HHMMSS` in UTC.
    pub stamp: String,
}

/// `BASE_rg_before_20260123_020000`, within PostgreSQL's 63 bytes: a base that is too long is cut
/// and given a digest of the whole, so that two long names do not become one.
pub fn scratch_name(base: &str, purpose: Purpose, stamp: &str) -> String {
    let tail = format!("{MARK}{}_{stamp}", purpose.word());
    format!(
        "{}{tail}",
        fitted(base, NAME_BYTES.saturating_sub(tail.len()))
    )
}

fn fitted(base: &str, bytes: usize) -> String {
    if base.len() <= bytes {
        return base.to_owned();
    }
    let digest = twox_hash::XxHash3_128::oneshot(base.as_bytes()) as u32;
    let mut end = bytes.saturating_sub(9);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{digest:08x}", &base[..end])
}

/// The databases that these tools made for `base`, the oldest first: leftovers of killed runs among them.
pub fn list_scratch(session: &Session, base: &str) -> Result<Vec<Scratch>> {
    let rows = session.rows("SELECT datname::text FROM pg_database", &[])?;
    let mut found: Vec<Scratch> = rows
        .iter()
        .filter_map(|row| read_scratch(base, row.get(0)))
        .collect();
    found.sort_by(|a, b| (&a.stamp, &a.name).cmp(&(&b.stamp, &b.name)));
    Ok(found)
}

fn read_scratch(base: &str, name: &str) -> Option<Scratch> {
    let stamp = name.get(name.len().checked_sub(STAMP_BYTES)?..)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, time) = stamp.split_once('_')?;
    if day.len() != 8 || !digits(day) || !digits(time) {
        return None;
    }
    let of = |purpose: &Purpose| scratch_name(base, *purpose, stamp) == name;
    Some(Scratch {
        name: name.to_owned(),
        purpose: Purpose::ALL.into_iter().find(of)?,
        stamp: stamp.to_owned(),
    })
}

#[cfg(test)]
mod tests;
