//! Makes and drops databases, and gives one the settings of another.
//!
//! The promise: a new database has the old one's encoding and locale and is made from `template0`,
//! so nothing local slips in, and what could not be carried over is said.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connect::Session;
use super::facts::{DatabaseSettings, DatabaseShape, Grant, Setting};
use super::trouble;
use crate::failure::{Failure, Result};

/// The longest wait for a database to be made or dropped (its files are copied or removed).
const CREATE_LIMIT: Duration = Duration::from_secs(300);

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
    if let Some(tablespace) = &like.tablespace {
        let usable = session.rows(
            "SELECT 1 FROM pg_tablespace WHERE spcname = $1 AND has_tablespace_privilege(oid, 'CREATE')",
            &[tablespace],
        )?;
        if usable.is_empty() {
            tracing::warn!(
                "the tablespace {tablespace} is not there, or not for role {}: the server's own is taken",
                session.url().user
            );
        } else {
            sql.push_str(&format!(" TABLESPACE {}", identifier(tablespace)));
        }
    }
    let Err(error) = session.attempt(CREATE_LIMIT, &sql)? else {
        return Ok(());
    };
    let code = error.code().cloned();
    let message = error.as_db_error().map_or("", |db| db.message()).to_owned();
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

/// Drops a database, if it exists; with `force` its sessions are ended first. To a role that is no
/// superuser the server refuses the force while autovacuum is at work in it; without the force it
/// ends autovacuum itself, so that is what is tried then.
pub fn drop_database(session: &Session, name: &str, force: bool) -> Result<()> {
    let plain = format!("DROP DATABASE IF EXISTS {}", identifier(name));
    if !force {
        return session.execute_within(CREATE_LIMIT, &plain);
    }
    session
        .execute_within(CREATE_LIMIT, &format!("{plain} WITH (FORCE)"))
        .or_else(|refused| {
            session
                .execute_within(CREATE_LIMIT, &plain)
                .map_err(|_| refused)
        })
}

/// Gives a database another name, which must be free. Sessions in it make it fail after 5 s.
pub fn rename_database(session: &Session, from: &str, to: &str) -> Result<()> {
    session.execute_within(
        CREATE_LIMIT,
        &format!(
            "ALTER DATABASE {} RENAME TO {}",
            identifier(from),
            identifier(to)
        ),
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

#[cfg(test)]
mod tests;
