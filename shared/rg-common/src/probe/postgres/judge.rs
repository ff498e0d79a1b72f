//! What is bad about a database, and about the answer to the operator's own question.

use super::{Database, Facts, Question, Transaction};
use crate::check::{Figure, Unit, Verdict};
use crate::config::SqlExpectation;
use crate::failure::{Failure, Result};
use crate::postgres::question::Answer;
use crate::probe::quote;
use crate::probe::tally::Tally;
use crate::report;

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
