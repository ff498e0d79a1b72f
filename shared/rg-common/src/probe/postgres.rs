//! A database as its app sees it: through the app's own URL, with the app's own role.
//!
//! A server that refuses us, or does not answer, is bad news. So is a database that answers and is
//! empty: required tables and the operator's own questions tell a lost and newly made one from the
//! one that was.

use std::time::{Duration, Instant};

use super::quote;
use super::tally::Tally;
use crate::check::{Figure, Unit, Verdict};
use crate::config::SqlExpectation;
use crate::failure::{Failure, Result};
use crate::postgres::connect::ServerVersion;
use crate::postgres::facts::installed_extensions;
use crate::postgres::question::{self, Answer};
use crate::postgres::{Connector, DatabaseUrl, Session, pooler};
use crate::report;

/// A connection must be made within this time; a shorter `connect_timeout` of the URL holds.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A question must have been answered within this time.
pub const QUESTION_LIMIT: Duration = Duration::from_secs(8);
/// Of the connections that an ordinary role may use, so many percent are a warning.
pub const CONNECTIONS_WARN_PERCENT: f64 = 80.0;
/// See [`CONNECTIONS_WARN_PERCENT`].
pub const CONNECTIONS_FAIL_PERCENT: f64 = 95.0;
/// A transaction that works for longer than this is a warning.
pub const LONG_SECONDS: f64 = 600.0;
/// A transaction that is open and idle for longer than this is a warning.
pub const IDLE_SECONDS: f64 = 300.0;
/// Transaction numbers used, in percent of what there are before PostgreSQL takes no more writes.
pub const WRAPAROUND_WARN_PERCENT: f64 = 40.0;
/// See [`WRAPAROUND_WARN_PERCENT`].
pub const WRAPAROUND_FAIL_PERCENT: f64 = 80.0;
/// A replication slot that nobody reads keeps so many bytes: a warning.
pub const SLOT_WARN_BYTES: u64 = 1 << 30;
/// See [`SLOT_WARN_BYTES`].
pub const SLOT_FAIL_BYTES: u64 = 10 << 30;
/// PostgreSQL stops three million before 2^31.
const TRANSACTIONS_MAX: f64 = 2_144_483_648.0;
/// What lies this much in the future lies in another time zone, or by a wrong clock.
const FUTURE_SECONDS: f64 = 300.0;

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

/// Judges a database and its server.
pub fn judge(database: &Database) -> Verdict {
    let facts = match database {
        Database::Down { why, fix } => return Verdict::fail(why, fix),
        Database::Up(facts) => facts,
    };
    let mut tally = Tally::default();
    tally.figure(Figure::new("connect", facts.connect_seconds, Unit::Seconds));
    tally.figure(Figure::new("size", facts.bytes as f64, Unit::Bytes));
    judge_contents(facts, &mut tally);
    judge_connections(facts, &mut tally);
    judge_transactions(facts, &mut tally);
    judge_slots(facts, &mut tally);
    tally.settle(format!(
        "PostgreSQL {} answers: {}, {} of {} connections",
        facts.version,
        report::bytes(facts.bytes),
        facts.connections,
        facts.connections_max
    ))
}

fn judge_contents(facts: &Facts, tally: &mut Tally) {
    let missing = facts.missing_tables.len();
    let restore = "if it was lost: rg-restore list; if it is new: run the app's migrations";
    if missing > 0 && missing == facts.required_tables {
        tally.fail(
            "the database is empty: none of its required tables is there",
            restore,
        );
    } else if missing == 1 {
        tally.fail(
            format!("table {} is missing", facts.missing_tables[0]),
            restore,
        );
    } else if missing > 0 {
        tally.fail(
            format!("tables are missing: {}", facts.missing_tables.join(", ")),
            restore,
        );
    }
    for extension in &facts.missing_extensions {
        tally.fail(
            format!("extension {extension} is missing"),
            format!("psql -c 'CREATE EXTENSION \"{extension}\"'"),
        );
    }
}

fn judge_connections(facts: &Facts, tally: &mut Tally) {
    let used = facts.connections as f64 * 100.0 / facts.connections_max.max(1) as f64;
    let figure = Figure::new("connections_used", used, Unit::Percent);
    tally.figure(figure.bounds(
        Some(CONNECTIONS_WARN_PERCENT),
        Some(CONNECTIONS_FAIL_PERCENT),
    ));
    let said = format!(
        "{} of {} connections are in use",
        facts.connections, facts.connections_max
    );
    let fix = "psql -c 'SELECT usename, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC'";
    if used >= CONNECTIONS_FAIL_PERCENT {
        tally.fail(said, fix);
    } else if used >= CONNECTIONS_WARN_PERCENT {
        tally.warn(said, fix);
    }
}

fn judge_transactions(facts: &Facts, tally: &mut Tally) {
    let named = |transaction: &Transaction| match transaction.application.as_str() {
        "" => format!("process {}", transaction.pid),
        application => format!("{application} (process {})", transaction.pid),
    };
    let end = |pid: i32| format!("psql -c 'SELECT pg_terminate_backend({pid})'");
    if let Some(longest) = &facts.longest {
        let figure = Figure::new("longest_transaction", longest.seconds, Unit::Seconds);
        tally.figure(figure.bounds(Some(LONG_SECONDS), None));
        if longest.seconds >= LONG_SECONDS {
            let span = report::span(longest.seconds as u64);
            tally.warn(
                format!("a transaction of {} works since {span}", named(longest)),
                end(longest.pid),
            );
        }
    }
    if let Some(idlest) = &facts.idlest {
        let figure = Figure::new("idle_in_transaction", idlest.seconds, Unit::Seconds);
        tally.figure(figure.bounds(Some(IDLE_SECONDS), None));
        if idlest.seconds >= IDLE_SECONDS {
            let span = report::span(idlest.seconds as u64);
            tally.warn(
                format!(
                    "a transaction of {} is open and idle since {span}: it holds its locks",
                    named(idlest)
                ),
                end(idlest.pid),
            );
        }
    }
    let used = facts.oldest_transaction as f64 * 100.0 / TRANSACTIONS_MAX;
    let figure = Figure::new("transaction_numbers_used", used, Unit::Percent);
    tally.figure(figure.bounds(Some(WRAPAROUND_WARN_PERCENT), Some(WRAPAROUND_FAIL_PERCENT)));
    let said = format!(
        "{used:.0} % of the transaction numbers are used in database {}: without a vacuum writes will stop",
        facts.oldest_database
    );
    let fix = format!("vacuumdb --freeze --jobs=2 {}", facts.oldest_database);
    if used >= WRAPAROUND_FAIL_PERCENT {
        tally.fail(said, fix);
    } else if used >= WRAPAROUND_WARN_PERCENT {
        tally.warn(said, fix);
    }
}

fn judge_slots(facts: &Facts, tally: &mut Tally) {
    let most = facts.slots.iter().map(|slot| slot.kept).max();
    if let Some(most) = most {
        let figure = Figure::new("slot_kept", most as f64, Unit::Bytes);
        tally.figure(figure.bounds(Some(SLOT_WARN_BYTES as f64), Some(SLOT_FAIL_BYTES as f64)));
    }
    for slot in &facts.slots {
        let read = if slot.active {
            "is behind"
        } else {
            "is read by nobody"
        };
        let said = format!(
            "replication slot {} {read}: it keeps {} of WAL",
            slot.name,
            report::bytes(slot.kept)
        );
        let fix = format!(
            "psql -c \"SELECT pg_drop_replication_slot('{}')\"",
            slot.name
        );
        if slot.kept >= SLOT_FAIL_BYTES {
            tally.fail(said, fix);
        } else if slot.kept >= SLOT_WARN_BYTES {
            tally.warn(said, fix);
        }
    }
}

/// Judges the answer to the operator's own question. An error is an answer that the expectation
/// cannot be held against: a text where a number is wanted, a time in the future.
pub fn judge_question(
    question: &Question,
    query: &str,
    expect: &SqlExpectation,
) -> Result<Verdict> {
    let fix = format!("psql -c \"{}\"", query.trim());
    let answer = match question {
        Question::Down { why, fix } => return Ok(Verdict::fail(why, fix)),
        Question::Answered(answer) => answer,
    };
    let (text, age) = match answer {
        Answer::Nothing => return Ok(Verdict::fail("there is no row", fix)),
        Answer::Null => return Ok(Verdict::fail("there is nothing: the answer is NULL", fix)),
        Answer::Refused(said) => {
            return Ok(Verdict::fail(
                format!("the server refused: {}", quote::line(said)),
                fix,
            ));
        }
        Answer::Value { text, age } => (text, age),
    };
    let shown = quote::short(&quote::line(text), 80);
    match expect {
        SqlExpectation::AtLeast(least) => {
            let number = number(text)?;
            let figure = Figure::new("value", number, Unit::Count);
            Ok(if number >= *least {
                Verdict::pass(shown)
            } else {
                Verdict::fail(format!("{shown}, less than {least}"), fix)
            }
            .figure(figure))
        }
        SqlExpectation::AtMost(most) => {
            let number = number(text)?;
            let figure = Figure::new("value", number, Unit::Count).bounds(None, Some(*most));
            Ok(if number <= *most {
                Verdict::pass(shown)
            } else {
                Verdict::fail(format!("{shown}, more than {most}"), fix)
            }
            .figure(figure))
        }
        SqlExpectation::NewerThan(limit) => {
            let age = age.ok_or_else(|| {
                Failure::new(format!("the answer `{shown}` is not a time"))
                    .hint("newer_than wants a column of type timestamptz, timestamp or date")
            })?;
            if age < -FUTURE_SECONDS {
                return Err(Failure::new(format!("the answer {shown} lies in the future"))
                    .hint("a timestamp without time zone? say which it has: max(at) AT TIME ZONE 'UTC'"));
            }
            let figure = Figure::new("age", age.max(0.0), Unit::Seconds);
            let figure = figure.bounds(None, Some(limit.as_secs_f64()));
            let said = format!("the newest is {} old", report::span(age.max(0.0) as u64));
            Ok(if age <= limit.as_secs_f64() {
                Verdict::pass(said)
            } else {
                let limit = report::span(limit.as_secs());
                Verdict::fail(format!("{said}, older than {limit}"), fix)
            }
            .figure(figure))
        }
        SqlExpectation::Equals(wanted) => Ok(if text == wanted {
            Verdict::pass(shown)
        } else {
            Verdict::fail(format!("`{shown}`, not `{wanted}`"), fix)
        }),
    }
}

fn number(text: &str) -> Result<f64> {
    text.trim()
        .parse()
        .ok()
        .filter(|n: &f64| !n.is_nan())
        .ok_or_else(|| {
            let shown = quote::short(&quote::line(text), 80);
            Failure::new(format!("the answer `{shown}` is not a number"))
                .hint("at_least and at_most want a number, such as count(*)")
        })
}

#[cfg(test)]
mod tests;
