//! Compares what is in a database with what a dump held: not "pg_restore said 0" but "these are
//! the same rows".
//!
//! Every table is read once by `COPY … TO STDOUT`, written as `pg_dump` writes it, and summed as it
//! streams by: XXH3-128 of each row's text, added modulo 2^128, so the order of rows does not
//! matter and every row counts as often as it is there. The promise: constant memory, the exact set
//! of tables and sequences (missing and additional ones are differences), and no difference means
//! that everything was read to its end.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde::Serialize;
use tokio_postgres::{Client, Error};
use twox_hash::xxhash3_128::Hasher;

use super::connect::{Connector, dial};
use super::create::{identifier, literal, names};
use super::inventory::{self, Relation};
use super::trouble;
use super::url::DatabaseUrl;
use crate::dump::{LargeObjects, Sequence, Table};
use crate::failure::{Failure, OrFail, Result};

/// At most this many connections read side by side.
pub const MAX_JOBS: usize = 8;
/// Without a byte for this long the comparison is given up.
const STALL_LIMIT: Duration = Duration::from_secs(600);
/// Large objects are read in pieces of this many bytes …
const PIECE_BYTES: i32 = 1 << 20;
/// … of so many objects at a time.
const PIECES: i64 = 8;

/// What a dump held.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The encoding of the dump's text; the database's own where it is not known.
    pub encoding: Option<&'a str>,
    /// The dumped server's `lc_monetary`, which the text of `money` depends on.
    pub lc_monetary: Option<&'a str>,
    /// Every table whose rows were in the dump.
    pub tables: &'a [Table],
    /// Every sequence.
    pub sequences: &'a [Sequence],
    /// The large objects.
    pub large_objects: &'a LargeObjects,
}

/// One thing that is not as in the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
// The variants' sentences say what their fields are.
#[allow(missing_docs)]
pub enum Difference {
    /// A table of the dump is not in the database.
    MissingTable { table: String },
    /// A table of the database was not in the dump.
    AdditionalTable { table: String },
    /// A table has other columns.
    Columns {
        table: String,
        expected: String,
        found: String,
    },
    /// A table has more or fewer rows.
    Rows {
        table: String,
        expected: u64,
        found: u64,
    },
    /// A table has as many rows, but not the same ones.
    Content { table: String, rows: u64 },
    /// A sequence of the dump is not in the database.
    MissingSequence { sequence: String },
    /// A sequence of the database was not in the dump.
    AdditionalSequence { sequence: String },
    /// A sequence stands elsewhere.
    SequenceValue {
        sequence: String,
        expected: String,
        found: String,
    },
    /// There are more or fewer large objects.
    LargeObjects { expected: u64, found: u64 },
    /// There are as many large objects, but not the same ones.
    LargeObjectContent { count: u64 },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::MissingTable { table } => write!(f, "table {table} is missing"),
            Difference::AdditionalTable { table } => {
                write!(f, "table {table} is not in the backup")
            }
            Difference::Columns {
                table,
                expected,
                found,
            } => write!(
                f,
                "table {table} has the columns ({found}) instead of ({expected})"
            ),
            Difference::Rows {
                table,
                expected,
                found,
            } => write!(f, "table {table} has {found} rows instead of {expected}"),
            Difference::Content { table, rows } => write!(
                f,
                "table {table} has {rows} rows as in the backup, but their content differs"
            ),
            Difference::MissingSequence { sequence } => {
                write!(f, "sequence {sequence} is missing")
            }
            Difference::AdditionalSequence { sequence } => {
                write!(f, "sequence {sequence} is not in the backup")
            }
            Difference::SequenceValue {
                sequence,
                expected,
                found,
            } => write!(
                f,
                "sequence {sequence} stands at {found} instead of {expected}"
            ),
            Difference::LargeObjects { expected, found } => {
                write!(f, "there are {found} large objects instead of {expected}")
            }
            Difference::LargeObjectContent { count } => write!(
                f,
                "there are {count} large objects as in the backup, but their content differs"
            ),
        }
    }
}

/// Reads the whole database over `jobs` connections (at most [`MAX_JOBS`]) and says what is not as
/// expected, in the order of names. The database should not be in use meanwhile.
pub fn compare(
    connector: &Connector,
    url: &DatabaseUrl,
    expected: &Expected<'_>,
    jobs: usize,
) -> Result<Vec<Difference>> {
    let session = connector.open(url)?;
    let mut differences = Vec::new();
    let tables = tables_to_read(expected, inventory::tables(&session)?, &mut differences);
    compare_sequences(expected, inventory::sequences(&session)?, &mut differences);
    session.close();
    let mut queue: VecDeque<Work> = tables.into_iter().map(Work::Table).collect();
    queue.push_back(Work::LargeObjects(expected.large_objects.clone()));
    let jobs = jobs.clamp(1, MAX_JOBS).min(queue.len());
    let reading = Arc::new(Reading {
        url: url.clone(),
        application: connector.application().to_owned(),
        settings: settings(expected),
        encoding: expected.encoding.map(str::to_owned),
        queue: Mutex::new(queue),
        bytes: AtomicU64::new(0),
    });
    let found = connector.handle().block_on(read_all(reading, jobs))?;
    differences.extend(found);
    differences.sort_by_key(ToString::to_string);
    Ok(differences)
}

fn tables_to_read(
    expected: &Expected<'_>,
    found: Vec<Relation>,
    differences: &mut Vec<Difference>,
) -> Vec<TableToRead> {
    let mut found: BTreeMap<(String, String), Relation> = found
        .into_iter()
        .map(|one| ((one.schema.clone(), one.name.clone()), one))
        .collect();
    let mut to_read = Vec::new();
    for table in expected.tables {
        let shown = format!("{}.{}", table.schema, table.name);
        let key = (table.schema.clone(), table.name.clone());
        let Some(relation) = found.remove(&key) else {
            differences.push(Difference::MissingTable { table: shown });
            continue;
        };
        let mut wanted = names(&table.columns);
        let mut present = relation.columns.clone();
        wanted.sort();
        present.sort();
        if wanted != present {
            differences.push(Difference::Columns {
                table: shown,
                expected: names(&table.columns).join(", "),
                found: relation.columns.join(", "),
            });
            continue;
        }
        to_read.push(TableToRead {
            sql: copy_statement(table, relation.condition.as_deref()),
            shown,
            rows: table.rows,
            checksum: table.checksum.clone(),
            bytes: table.bytes,
        });
    }
    differences.extend(found.into_values().map(|one| Difference::AdditionalTable {
        table: format!("{}.{}", one.schema, one.name),
    }));
    // The largest first, so that the connections end at about the same time.
    to_read.sort_by(|a, b| b.bytes.cmp(&a.bytes));
    to_read
}

/// As `pg_dump` asks: an extension's own table only has the rows that the extension says.
fn copy_statement(table: &Table, condition: Option<&str>) -> String {
    let name = format!("{}.{}", identifier(&table.schema), identifier(&table.name));
    let columns = names(&table.columns)
        .iter()
        .map(|column| identifier(column))
        .collect::<Vec<_>>()
        .join(", ");
    match condition.filter(|condition| !condition.is_empty()) {
        Some(condition) => format!("COPY (SELECT {columns} FROM {name} {condition}) TO STDOUT"),
        None if columns.is_empty() => format!("COPY {name} TO STDOUT"),
        None => format!("COPY {name} ({columns}) TO STDOUT"),
    }
}

fn compare_sequences(
    expected: &Expected<'_>,
    found: Vec<inventory::SequenceState>,
    differences: &mut Vec<Difference>,
) {
    let mut found: BTreeMap<(String, String), (i64, bool)> = found
        .into_iter()
        .map(|one| ((one.schema, one.name), (one.last_value, one.is_called)))
        .collect();
    for sequence in expected.sequences {
        let shown = format!("{}.{}", sequence.schema, sequence.name);
        match found.remove(&(sequence.schema.clone(), sequence.name.clone())) {
            None => differences.push(Difference::MissingSequence { sequence: shown }),
            Some(state) if state == (sequence.last_value, sequence.is_called) => {}
            Some((last_value, is_called)) => differences.push(Difference::SequenceValue {
                sequence: shown,
                expected: position(sequence.last_value, sequence.is_called),
                found: position(last_value, is_called),
            }),
        }
    }
    differences.extend(
        found
            .into_keys()
            .map(|(schema, name)| Difference::AdditionalSequence {
                sequence: format!("{schema}.{name}"),
            }),
    );
}

fn position(last_value: i64, is_called: bool) -> String {
    let word = if is_called { "used" } else { "not yet used" };
    format!("{last_value} ({word})")
}

/// One connection's settings: those of `pg_dump`, so that every value has the same text.
fn settings(expected: &Expected<'_>) -> String {
    let mut sql = "SET datestyle = 'ISO, YMD'; SET intervalstyle = postgres; \
        SET extra_float_digits = 3; SET timezone = 'UTC'; SET bytea_output = hex; \
        SET xmloption = content; SET row_security = off; SET statement_timeout = 0; \
        SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
        SET synchronize_seqscans = off; SET search_path = ''; "
        .to_owned();
    if let Some(lc_monetary) = expected.lc_monetary {
        sql.push_str(&format!("SET lc_monetary = {}; ", literal(lc_monetary)));
    }
    sql.push_str("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    sql
}

struct TableToRead {
    sql: String,
    shown: String,
    rows: u64,
    checksum: String,
    bytes: u64,
}

enum Work {
    Table(TableToRead),
    LargeObjects(LargeObjects),
}

/// What the connections share.
struct Reading {
    url: DatabaseUrl,
    application: String,
    settings: String,
    encoding: Option<String>,
    queue: Mutex<VecDeque<Work>>,
    /// Bytes read so far by all, to notice when nothing comes any more.
    bytes: AtomicU64,
}

async fn read_all(reading: Arc<Reading>, jobs: usize) -> Result<Vec<Difference>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..jobs {
        tasks.spawn(one_connection(Arc::clone(&reading)));
    }
    let all = async {
        let mut differences = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            // The first failure ends the others: dropping the set aborts them.
            differences.extend(ended.or_fail(|| "a comparison was broken off".to_owned())??);
        }
        Ok(differences)
    };
    tokio::select! {
        found = all => found,
        failure = stalled(&reading) => Err(failure),
    }
}

async fn stalled(reading: &Reading) -> Failure {
    let mut before = reading.bytes.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(STALL_LIMIT).await;
        let now = reading.bytes.load(Ordering::Relaxed);
        if now == before {
            return Failure::new(format!(
                "{} sent nothing for {} s while its content was compared",
                reading.url,
                STALL_LIMIT.as_secs()
            ))
            .hint("look for locks: SELECT pid, wait_event, query FROM pg_stat_activity");
        }
        before = now;
    }
}

/// Connection and reader are one task: a chunk goes from the socket to the sum without a change
/// of threads.
async fn one_connection(reading: Arc<Reading>) -> Result<Vec<Difference>> {
    let (client, connection) = dial(&reading.url, &reading.application, None).await?;
    let drive = async {
        // Its error reaches the reader as an answer that does not come to its end.
        drop(connection.await);
        std::future::pending::<Failure>().await
    };
    let read = async {
        let what = || format!("cannot read {}", reading.url.database);
        client
            .batch_execute(&reading.settings)
            .await
            .map_err(|error| trouble::asking(&reading.url, "SET …", error))?;
        let mut differences = Vec::new();
        loop {
            let next = reading
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let found = match next {
                None => return Ok(differences),
                Some(Work::Table(table)) => read_table(&client, &reading, &table).await,
                Some(Work::LargeObjects(expected)) => {
                    read_large_objects(&client, &reading, &expected).await
                }
            };
            differences.extend(found.map_err(|failure| failure.context(what()))?);
        }
    };
    tokio::select! {
        biased;
        read = read => read,
        failure = drive => Err(failure),
    }
}

async fn read_table(
    client: &Client,
    reading: &Reading,
    table: &TableToRead,
) -> Result<Option<Difference>> {
    let failed = |error: Error| trouble::asking(&reading.url, &table.sql, error);
    // Parsed as UTF-8, which names are written in here; answered in the dump's encoding.
    let statement = client.prepare(&table.sql).await.map_err(failed)?;
    let other_encoding = reading.encoding.as_deref().filter(|name| *name != "UTF8");
    if let Some(encoding) = other_encoding {
        set_encoding(client, encoding).await.map_err(failed)?;
    }
    let mut rows = pin!(client.copy_out(&statement).await.map_err(failed)?);
    let mut sum = RowSum::default();
    while let Some(message) = rows.next().await {
        let message = message.map_err(failed)?;
        // "always one per row", says the protocol's description of CopyData from the server.
        let Some((b'\n', row)) = message.split_last() else {
            return Err(Failure::new(format!(
                "table {} was not sent row by row",
                table.shown
            )));
        };
        sum.add(Hasher::oneshot(row));
        reading
            .bytes
            .fetch_add(message.len() as u64, Ordering::Relaxed);
    }
    if other_encoding.is_some() {
        set_encoding(client, "UTF8").await.map_err(failed)?;
    }
    Ok(if sum.rows != table.rows {
        Some(Difference::Rows {
            table: table.shown.clone(),
            expected: table.rows,
            found: sum.rows,
        })
    } else if sum.checksum() != table.checksum {
        Some(Difference::Content {
            table: table.shown.clone(),
            rows: sum.rows,
        })
    } else {
        None
    })
}

async fn set_encoding(client: &Client, encoding: &str) -> Result<(), Error> {
    client
        .batch_execute(&format!("SET client_encoding = {}", literal(encoding)))
        .await
}

async fn read_large_objects(
    client: &Client,
    reading: &Reading,
    expected: &LargeObjects,
) -> Result<Option<Difference>> {
    const FIRST: &str = "SELECT oid, lo_get(oid, 0, $2) FROM pg_catalog.pg_largeobject_metadata
        WHERE oid > $1 ORDER BY oid LIMIT $3";
    const NEXT: &str = "SELECT lo_get($1, $2, $3)";
    let failed = |error: Error| trouble::asking(&reading.url, FIRST, error);
    let mut sum = RowSum::default();
    let mut last = 0u32;
    loop {
        let objects = client
            .query(FIRST, &[&last, &PIECE_BYTES, &PIECES])
            .await
            .map_err(failed)?;
        if objects.is_empty() {
            break;
        }
        for object in &objects {
            let oid: u32 = object.get(0);
            let mut hasher = Hasher::new();
            hasher.write(&oid.to_le_bytes());
            let mut piece: Vec<u8> = object.get(1);
            let mut offset = 0i64;
            while !piece.is_empty() {
                hasher.write(&piece);
                reading
                    .bytes
                    .fetch_add(piece.len() as u64, Ordering::Relaxed);
                if piece.len() < PIECE_BYTES as usize {
                    break;
                }
                offset += i64::from(PIECE_BYTES);
                piece = client
                    .query_one(NEXT, &[&oid, &offset, &PIECE_BYTES])
                    .await
                    .map_err(failed)?
                    .get(0);
            }
            sum.add(hasher.finish_128());
            last = oid;
        }
    }
    Ok(if sum.rows != expected.count {
        Some(Difference::LargeObjects {
            expected: expected.count,
            found: sum.rows,
        })
    } else if sum.checksum() != expected.checksum {
        Some(Difference::LargeObjectContent { count: sum.rows })
    } else {
        None
    })
}

/// Rows counted and summed, in no order.
#[derive(Default)]
struct RowSum {
    rows: u64,
    sum: u128,
}

impl RowSum {
    fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    fn checksum(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

#[cfg(test)]
mod tests;
