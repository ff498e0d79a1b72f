//! A database as its app sees it: through the app's own URL, with the app's own role.
//!
//! A server that refuses us, or does not answer, is bad news. So is a database that answers and is
//! empty: required tables and the operator's own questions tell a lost and newly made one from the
//! one that was.

mod judge;

use std::time::{Duration, Instant};

use super::quote;
use crate::failure::{Failure, Result};
use crate::postgres::connect::ServerVersion;
use crate::postgres::facts::installed_extensions;
use crate::postgres::question::{self, Answer};
use crate::postgres::{Connector, DatabaseUrl, Session, pooler};
pub use judge::{judge, judge_question};

/// A connection must be made within this time; a shorter `connect_timeout` of the URL holds.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A question must have been answered within this time.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(8);
/// What is known of a database.
#[derive(Debug, Clone, PartialEq)]
pub enum Database {
    /// It could not be connected to.
    Down {
        /// Why, in words.
        why: String,
        /// What to do.
        fix: String,
    },
    /// It answers.
    Up(Box<Facts>),
}

/// What a database says of itself and of its server.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The server's version.
    pub version: ServerVersion,
    /// From the first packet to the first answer.
    pub connect_seconds: f64,
    /// Bytes of the database.
    pub bytes: u64,
    /// Required tables that are not there.
    pub missing_tables: Vec<String>,
    /// How many tables are required.
    pub required_tables: usize,
    /// Required extensions that are not there.
    pub missing_extensions: Vec<String>,
    /// Connections in use, of all databases.
    pub connections: u64,
    /// Connections that an ordinary role may use.
    pub connections_max: u64,
    /// The transaction that works for longest; none, or none that this role may see.
    pub longest: Option<Transaction>,
    /// The transaction that is open and idle for longest.
    pub idlest: Option<Transaction>,
    /// The age of the oldest transaction number that is in use.
    pub oldest_transaction: u64,
    /// The database in which that is.
    pub oldest_database: String,
    /// The replication slots.
    pub slots: Vec<Slot>,
}

/// An open transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Transaction {
    /// The server's process.
    pub pid: i32,
    /// What calls itself so.
    pub application: String,
    /// For how long, in seconds.
    pub seconds: f64,
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether somebody reads it.
    pub active: bool,
    /// Bytes of WAL that are kept for it.
    pub kept: u64,
}

/// Connects and asks. An error is our inability to ask: the address is a pooler's, which hides the
/// server, or the server's catalog answers otherwise than known ones do.
pub fn collect(
    connector: &Connector,
    url: &DatabaseUrl,
    tables: &[String],
    extensions: &[String],
) -> Result<Database> {
    let begun = Instant::now();
    let session = match open(connector, url)? {
        Ok(session) => session,
        Err(down) => return Ok(down),
    };
    let connect_seconds = begun.elapsed().as_secs_f64();
    let facts = facts(&session, tables, extensions, connect_seconds);
    session.close();
    Ok(Database::Up(Box::new(facts?)))
}

/// Asks the operator's own question of a database.
pub fn ask(connector: &Connector, url: &DatabaseUrl, query: &str) -> Result<Question> {
    let session = match open(connector, url)? {
        Ok(session) => session,
        Err(Database::Down { why, fix }) => return Ok(Question::Down { why, fix }),
        Err(Database::Up(_)) => unreachable!("what could not be opened is not up"),
    };
    let answer = question::ask(&session, query, QUESTION_LIMIT);
    session.close();
    Ok(Question::Answered(answer?))
}

/// What came of the operator's own question.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// The database could not be connected to.
    Down {
        /// Why, in words.
        why: String,
        /// What to do.
        fix: String,
    },
    /// The server's answer.
    Answered(Answer),
}

/// Outside whether it could be tried, inside whether the server took us.
fn open(connector: &Connector, url: &DatabaseUrl) -> Result<Result<Session, Database>> {
    let mut url = url.clone();
    url.connect_timeout = url.connect_timeout.min(CONNECT_LIMIT);
    if let Some(failure) = pooler::by_name(&url) {
        return Err(failure);
    }
    match connector.open(&url) {
        Ok(session) => {
            session.execute(&format!(
                "SET statement_timeout = {}",
                QUESTION_LIMIT.as_millis()
            ))?;
            Ok(Ok(session))
        }
        Err(failure) if pooler::is_refusal(&failure) => Err(failure),
        Err(failure) => Ok(Err(down(&url, &failure))),
    }
}

fn down(url: &DatabaseUrl, failure: &Failure) -> Database {
    let hints = failure.hints().join("; ");
    Database::Down {
        why: failure.to_string(),
        fix: if hints.is_empty() {
            format!(
                "pg_isready -h {} -p {}; pg_lsclusters",
                url.server(),
                url.port
            )
        } else {
            hints
        },
    }
}

const CONNECTIONS: &str = "SELECT
    (SELECT count(*) FROM pg_catalog.pg_stat_activity
      WHERE backend_type = 'client backend'),
    pg_catalog.current_setting('max_connections')::int8
      - pg_catalog.current_setting('superuser_reserved_connections')::int8
      - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int8";

/// Dumps take as long as they take, and are ours.
const TRANSACTIONS: &str = "SELECT pid, coalesce(application_name, ''),
    coalesce(state, '') LIKE 'idle in transaction%',
    extract(epoch FROM pg_catalog.clock_timestamp()
      - CASE WHEN state LIKE 'idle in transaction%' THEN state_change ELSE xact_start END)::float8
  FROM pg_catalog.pg_stat_activity
  WHERE xact_start IS NOT NULL AND backend_type = 'client backend'
    AND pid <> pg_catalog.pg_backend_pid()
    AND application_name NOT IN ('pg_dump', 'pg_restore', 'pg_basebackup')
    AND application_name NOT LIKE 'rg-%'
  ORDER BY 4 DESC LIMIT 200";

const OLDEST: &str = "SELECT pg_catalog.age(datfrozenxid)::int8, datname::text
  FROM pg_catalog.pg_database ORDER BY 1 DESC LIMIT 1";

const SLOTS: &str = "SELECT slot_name::text, active,
    coalesce(pg_catalog.pg_wal_lsn_diff(
      CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
           ELSE pg_catalog.pg_current_wal_lsn() END, restart_lsn), 0)::int8
  FROM pg_catalog.pg_replication_slots LIMIT 200";

/// Whatever schema they are in; a name with a dot names its schema.
const TABLES: &str = "SELECT wanted FROM pg_catalog.unnest($1::text[]) AS wanted
  WHERE NOT EXISTS (
    SELECT FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
      AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND wanted IN (c.relname::text, n.nspname::text || '.' || c.relname::text))";

fn facts(
    session: &Session,
    tables: &[String],
    extensions: &[String],
    connect_seconds: f64,
) -> Result<Facts> {
    let missing_tables = session.rows(TABLES, &[&tables])?;
    let installed = installed_extensions(session)?;
    let connections = session.row(CONNECTIONS, &[])?;
    let open = session.rows(TRANSACTIONS, &[])?;
    let longest = |idle: bool| {
        let row = open.iter().find(|row| row.get::<_, bool>(2) == idle)?;
        Some(Transaction {
            pid: row.get(0),
            application: quote::line(row.get(1)),
            seconds: row.get(3),
        })
    };
    let oldest = session.row(OLDEST, &[])?;
    let slots = session.rows(SLOTS, &[])?;
    let bytes: i64 = session.value(
        "SELECT pg_catalog.pg_database_size(pg_catalog.current_database())",
        &[],
    )?;
    Ok(Facts {
        version: session.version(),
        connect_seconds,
        bytes: natural(bytes),
        missing_tables: missing_tables.iter().map(|row| row.get(0)).collect(),
        required_tables: tables.len(),
        missing_extensions: extensions
            .iter()
            .filter(|wanted| installed.iter().all(|one| one.name != **wanted))
            .cloned()
            .collect(),
        connections: natural(connections.get(0)),
        connections_max: natural(connections.get(1)),
        longest: longest(false),
        idlest: longest(true),
        oldest_transaction: natural(oldest.get(0)),
        oldest_database: oldest.get(1),
        slots: slots
            .iter()
            .map(|row| Slot {
                name: row.get(0),
                active: row.get(1),
                kept: natural(row.get(2)),
            })
            .collect(),
    })
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests;
