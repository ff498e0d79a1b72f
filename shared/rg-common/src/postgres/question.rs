//! An operator's own question: a SELECT of one row and one column, asked so that it can change nothing
//! and does not take long.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::connect::Session;
use super::trouble;
use crate::failure::{Failure, Result};

/// The answer's text is read up to so many characters.
const TEXT_CHARS: usize = 1000;
/// So much longer than the server's own limit is waited for its answer.
const SLACK: Duration = Duration::from_secs(2);

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// No row.
    Nothing,
    /// One row whose value is NULL.
    Null,
    /// The value as the server writes it, up to 1,000 characters; for a time also how many seconds
    /// ago it was, by the server's clock and the session's time zone.
    Value {
        /// As text.
        text: String,
        /// For a time, seconds until now; less than 0 for what is to come.
        age: Option<f64>,
    },
    /// The server refused, or gave up after the limit: its words.
    Refused(String),
}

/// Asks. The question is run in a read-only transaction with the role's own `search_path`. An error
/// is a question that cannot be asked: several statements, parameters, more than one column or row,
/// wrong syntax.
pub fn ask(session: &Session, question: &str, limit: Duration) -> Result<Answer> {
    session.execute(&format!(
        "BEGIN READ ONLY; SET LOCAL search_path TO DEFAULT; SET LOCAL statement_timeout = {}",
        limit.as_millis()
    ))?;
    let answer = inside(session, question, limit);
    // Fails only with the connection, which is given up then.
    let ended = session.execute("ROLLBACK");
    let answer = answer?;
    ended.map(|()| answer)
}

fn inside(session: &Session, question: &str, limit: Duration) -> Result<Answer> {
    let question = question.trim().trim_end_matches(';');
    let wait = limit + SLACK;
    let wrong = |what: String| {
        Failure::new(format!("{} {what}", trouble::quoted(question)))
            .hint("a question in rg.toml is one SELECT of one row and one column")
    };
    let prepared = session.within(wait, question, session.client().prepare(question))?;
    let statement = match prepared {
        Ok(statement) => statement,
        Err(error) if error.code() == Some(&SqlState::SYNTAX_ERROR) => {
            return Err(trouble::asking(session.url(), question, error));
        }
        Err(error) => return refused(session, question, error),
    };
    if !statement.params().is_empty() {
        return Err(wrong("has parameters".to_owned()));
    }
    let [column] = statement.columns() else {
        return Err(wrong(format!("has {} columns", statement.columns().len())));
    };
    let is_time = [Type::TIMESTAMPTZ, Type::TIMESTAMP, Type::DATE].contains(column.type_());
    let age = if is_time {
        "extract(epoch FROM pg_catalog.now() - rg.value::timestamptz)::float8"
    } else {
        "NULL::float8"
    };
    // A comment at the question's end must not swallow the bracket.
    let sql = format!(
        "SELECT pg_catalog.left(rg.value::text, {TEXT_CHARS}), {age} FROM ({question}\n) AS rg(value) LIMIT 2"
    );
    let rows = match session.within(wait, question, session.client().query(&sql, &[]))? {
        Ok(rows) => rows,
        Err(error) => return refused(session, question, error),
    };
    match rows.as_slice() {
        [] => Ok(Answer::Nothing),
        [row] => Ok(match row.get::<_, Option<String>>(0) {
            None => Answer::Null,
            Some(text) => Answer::Value {
                text,
                age: row.get(1),
            },
        }),
        _ => Err(wrong("has more than one row".to_owned())),
    }
}

/// What the server said is an answer; a connection that broke is not.
fn refused(session: &Session, question: &str, error: tokio_postgres::Error) -> Result<Answer> {
    match error.as_db_error() {
        Some(said) => Ok(Answer::Refused(said.message().to_owned())),
        None => Err(trouble::asking(session.url(), question, error)),
    }
}
