//! Reads tables and large objects over several connections and sums what streams by.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::{Client, Error};

use super::super::connect::{Connector, ServerVersion, dial, own_settings};
use super::super::create::literal;
use super::super::trouble;
use super::super::url::DatabaseUrl;
use super::{Difference, Expected, LargeObjects};
use crate::dump::{RowPieces, RowSum};
use crate::failure::{Failure, OrFail, Result};

/// Without a byte for this long the comparison is given up.
const STALL_LIMIT: Duration = Duration::from_secs(600);
/// Large objects are read in pieces of this many bytes …
const PIECE_BYTES: i32 = 1 << 20;
/// … of so many objects at a time.
const PIECES: i64 = 8;

/// Connections that read what is there, as they are told.
pub(super) struct Reading {
    work: Option<mpsc::UnboundedSender<Work>>,
    task: JoinHandle<Result<Vec<Difference>>>,
    handle: Handle,
}

impl Reading {
    /// Connects on the runtime, `jobs` times.
    pub fn begin(
        connector: &Connector,
        url: &DatabaseUrl,
        expected: &Expected<'_>,
        version: ServerVersion,
        jobs: usize,
    ) -> Reading {
        let (work, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            url: url.clone(),
            application: connector.application().to_owned(),
            settings: settings(expected, version),
            encoding: expected.encoding.map(str::to_owned),
            queue: Mutex::new(queue),
            busy: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        });
        Reading {
            work: Some(work),
            task: connector.handle().spawn(read_all(shared, jobs)),
            handle: connector.handle().clone(),
        }
    }

    /// Has a table read.
    pub fn table(&self, table: TableToRead) {
        self.send(Work::Table(table));
    }

    /// Has all large objects read.
    pub fn large_objects(&self, expected: &LargeObjects) {
        self.send(Work::LargeObjects(expected.clone()));
    }

    fn send(&self, work: Work) {
        if let Some(queue) = &self.work {
            // Nobody takes it any more when reading has failed, which `finish` says.
            queue.send(work).ok();
        }
    }

    /// Waits until all of it was read; what differs.
    pub fn finish(mut self) -> Result<Vec<Difference>> {
        self.work = None;
        let ended = self.handle.block_on(&mut self.task);
        ended.or_fail(|| "the comparison was broken off".to_owned())?
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A table of the dump that the database has too.
pub(super) struct TableToRead {
    pub sql: String,
    /// Its name, for messages.
    pub shown: String,
    pub rows: u64,
    pub checksum: String,
    pub bytes: u64,
}

enum Work {
    Table(TableToRead),
    LargeObjects(LargeObjects),
}

/// What the connections share.
struct Shared {
    url: DatabaseUrl,
    application: String,
    settings: String,
    encoding: Option<String>,
    queue: Mutex<mpsc::UnboundedReceiver<Work>>,
    /// How many of them are reading, not waiting for something to read.
    busy: AtomicUsize,
    /// Bytes read so far by all, to notice when nothing comes any more.
    bytes: AtomicU64,
}

async fn read_all(shared: Arc<Shared>, jobs: usize) -> Result<Vec<Difference>> {
    let mut tasks = JoinSet::new();
    for _ in 0..jobs {
        tasks.spawn(one_connection(Arc::clone(&shared)));
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
        failure = stalled(&shared) => Err(failure),
    }
}

async fn stalled(shared: &Shared) -> Failure {
    let now = || {
        let busy = shared.busy.load(Ordering::Relaxed) > 0;
        busy.then(|| shared.bytes.load(Ordering::Relaxed))
    };
    let mut before = now();
    loop {
        tokio::time::sleep(STALL_LIMIT).await;
        let now = now();
        if now.is_some() && now == before {
            return Failure::new(format!(
                "{} sent nothing for {} s while its content was compared",
                shared.url,
                STALL_LIMIT.as_secs()
            ))
            .hint("look for locks: SELECT pid, wait_event, query FROM pg_stat_activity");
        }
        before = now;
    }
}

/// Connection and reader are one task: a chunk goes from the socket to the sum without a change
/// of threads.
async fn one_connection(reading: Arc<Shared>) -> Result<Vec<Difference>> {
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
            let next = reading.queue.lock().await.recv().await;
            let Some(work) = next else {
                return Ok(differences);
            };
            reading.busy.fetch_add(1, Ordering::Relaxed);
            let found = match work {
                Work::Table(table) => read_table(&client, &reading, &table).await,
                Work::LargeObjects(expected) => {
                    read_large_objects(&client, &reading, &expected).await
                }
            };
            differences.extend(found.map_err(|failure| failure.context(what()))?);
            reading.busy.fetch_sub(1, Ordering::Relaxed);
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
    reading: &Shared,
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
        sum.add_row(row);
        reading
            .bytes
            .fetch_add(message.len() as u64, Ordering::Relaxed);
    }
    if other_encoding.is_some() {
        set_encoding(client, "UTF8").await.map_err(failed)?;
    }
    Ok(if sum.rows() != table.rows {
        Some(Difference::Rows {
            table: table.shown.clone(),
            expected: table.rows,
            found: sum.rows(),
        })
    } else if sum.checksum() != table.checksum {
        Some(Difference::Content {
            table: table.shown.clone(),
            rows: sum.rows(),
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
    reading: &Shared,
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
            let mut hasher = RowPieces::new();
            hasher.push(&oid.to_le_bytes());
            let mut piece: Vec<u8> = object.get(1);
            let mut offset = 0i64;
            while !piece.is_empty() {
                hasher.push(&piece);
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
            sum.add_pieces(&hasher);
            last = oid;
        }
    }
    Ok(if sum.rows() != expected.count {
        Some(Difference::LargeObjects {
            expected: expected.count,
            found: sum.rows(),
        })
    } else if sum.checksum() != expected.checksum {
        Some(Difference::LargeObjectContent { count: sum.rows() })
    } else {
        None
    })
}

/// One connection's settings: those of `pg_dump`, so that every value has the same text.
fn settings(expected: &Expected<'_>, version: ServerVersion) -> String {
    let mut sql = "SET datestyle = 'ISO, YMD'; SET intervalstyle = postgres; \
        SET extra_float_digits = 3; SET timezone = 'UTC'; SET bytea_output = hex; \
        SET xmloption = content; SET row_security = off; SET synchronize_seqscans = off; "
        .to_owned();
    sql.push_str(&own_settings(version));
    sql.push_str("; ");
    if let Some(lc_monetary) = expected.lc_monetary {
        sql.push_str(&format!("SET lc_monetary = {}; ", literal(lc_monetary)));
    }
    // No transaction over several tables: its locks would hold up whoever adds constraints meanwhile.
    sql.push_str("SET default_transaction_read_only = on");
    sql
}
