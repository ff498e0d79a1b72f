//! The rows of single tables, put back into the live database in one transaction.
//!
//! The promise: the chosen tables hold exactly the backup's rows, nothing else is changed, and until
//! `COMMIT` nobody sees anything; whatever goes wrong before, the kill of this process included,
//! leaves the live rows as they were. What was replaced is kept in a schema of the same database
//! until [`discard`], and [`undo`] puts it back. Works as the tables' owner.

use std::io::Read;
use std::time::Duration;

use rg_common::config::nearest;
use rg_common::dump::{Inventory, Table};
use rg_common::failure::{Failure, OrFail, Result};
use rg_common::names::Stamp;
use rg_common::postgres::{Connector, DatabaseUrl, Session};
use serde::Serialize;

mod around;
mod columns;
mod fill;
mod kept;

use around::{Around, LiveTable};
pub use kept::{Kept, PREFIX, Replaced, discard, list, undo};

/// One statement over all rows of a table (keep, truncate, validate) may take this long.
const WORK_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// Which tables, from which backup, into which database.
pub struct TableRestore<'a> {
    /// The live database.
    pub url: &'a DatabaseUrl,
    /// Opens the session.
    pub connector: &'a Connector,
    /// What the backup holds, from its manifest.
    pub inventory: &'a Inventory,
    /// `table` or `schema.table`, without quotes.
    pub tables: &'a [String],
    /// Names the schema of the replaced rows: `rg_before_STAMP`.
    pub stamp: Stamp,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TablePlan {
    /// The tables, as `schema.table`, with the number of rows that the backup has of each.
    pub tables: Vec<(String, u64)>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// The schema that keeps the replaced rows, for [`undo`] and [`discard`].
    pub schema: String,
    /// Every table with its rows before and after.
    pub tables: Vec<Replaced>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Looks whether [`replace`] could be done, without changing or locking anything. Foreign keys that
/// would not hold are only found by doing it.
pub fn plan(request: &TableRestore<'_>) -> Result<TablePlan> {
    let wanted = resolve(request.inventory, request.tables)?;
    let session = request.connector.open(request.url)?;
    let mut notes = Vec::new();
    for table in &wanted {
        let live = around::look(&session, &table.schema, &table.name)?;
        notes.extend(columns::check(table, &live)?);
    }
    session.close();
    let named = |table: &&Table| (format!("{}.{}", table.schema, table.name), table.rows);
    Ok(TablePlan {
        tables: wanted.iter().map(named).collect(),
        notes,
    })
}

/// Replaces the tables' rows by the backup's. `open_dump` gives the plain dump from its beginning
/// and is called once; a stream that breaks leaves everything as it was.
pub fn replace(
    request: &TableRestore<'_>,
    open_dump: &dyn Fn() -> Result<Box<dyn Read + Send>>,
) -> Result<TableReport> {
    let wanted = resolve(request.inventory, request.tables)?;
    let session = request.connector.open(request.url)?;
    let outcome = replaced(&session, request, &wanted, open_dump);
    // Without a `COMMIT` the server rolls back when the session ends.
    session.close();
    outcome.map_err(|failure| {
        failure.context(format!(
            "cannot restore tables into the live database {}",
            request.url.database
        ))
    })
}

fn replaced(
    session: &Session,
    request: &TableRestore<'_>,
    wanted: &[&Table],
    open_dump: &dyn Fn() -> Result<Box<dyn Read + Send>>,
) -> Result<TableReport> {
    begin(session)?;
    let names = wanted.iter().map(|t| (t.schema.as_str(), t.name.as_str()));
    let tables = around::lock(session, names)?;
    let mut notes = Vec::new();
    for (table, live) in wanted.iter().zip(&tables) {
        notes.extend(columns::check(table, live)?);
    }
    let around = Around::clear(session, &tables)?;
    let schema = kept::schema_name(request.stamp);
    let mut report = TableReport {
        tables: kept::keep(session, &schema, &tables)?,
        schema,
        notes,
    };
    let encoding = request.inventory.encoding.as_deref();
    let pairs: Vec<Pair<'_>> = wanted.iter().copied().zip(&tables).collect();
    let taken = fill::fill(session, &pairs, encoding, open_dump)?;
    for (index, (table, live)) in pairs.iter().enumerate() {
        fill::compare(session, table, live, encoding, taken[index])
            .map_err(|failure| failure.context(format!("table {}", live.shown)))?;
        report.tables[index].rows_after = table.rows;
    }
    around.put_back(session)?;
    around.advance_sequences(session, &request.inventory.sequences)?;
    commit(session, &report.schema)?;
    report.notes.extend(analyze(session, &tables));
    Ok(report)
}

/// A table of the backup, and the live one that gets its rows.
type Pair<'a> = (&'a Table, &'a LiveTable);

/// What helps where the live tables are no longer those of the backup.
const BESIDE: &str =
    "restore the whole backup beside the live database with --beside NAME and copy what you need";

/// The tables of the backup that are meant, each once.
fn resolve<'a>(inventory: &'a Inventory, wanted: &[String]) -> Result<Vec<&'a Table>> {
    if let Some(because) = &inventory.uncounted_because {
        return Err(Failure::new(format!(
            "single tables cannot be taken out of this backup: {because}"
        ))
        .hint(BESIDE));
    }
    let mut chosen: Vec<&Table> = Vec::new();
    for name in wanted {
        let full = |table: &Table| format!("{}.{}", table.schema, table.name);
        // The backup may hold what an earlier restore kept: meant only where it is said in full.
        let fits = |table: &&Table| {
            full(table) == *name || table.name == *name && !table.schema.starts_with(kept::PREFIX)
        };
        let found: Vec<&Table> = inventory.tables.iter().filter(fits).collect();
        match found[..] {
            [table] if chosen.contains(&table) => {}
            [table] => chosen.push(table),
            [] => return Err(unknown(inventory, name)),
            _ => {
                let names: Vec<String> = found.iter().map(|table| full(table)).collect();
                return Err(Failure::new(format!(
                    "table `{name}` is in several schemas of the backup"
                ))
                .hint(format!("say which: {}", names.join(", "))));
            }
        }
    }
    match chosen.is_empty() {
        true => Err(Failure::new("no table was named")),
        false => Ok(chosen),
    }
}

fn unknown(inventory: &Inventory, name: &str) -> Failure {
    let failure = Failure::new(format!("the backup has no rows of a table `{name}`"));
    let full: Vec<String> = inventory
        .tables
        .iter()
        .map(|table| format!("{}.{}", table.schema, table.name))
        .collect();
    let short = inventory.tables.iter().map(|table| table.name.as_str());
    match nearest(name, short.chain(full.iter().map(String::as_str))) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(
            "names are case-sensitive; the rows of a partitioned table are in its partitions",
        ),
    }
}

/// A transaction in which values are written as `pg_dump` writes them, and nobody's time-outs end it.
fn begin(session: &Session) -> Result<()> {
    let newer = match session.version().major() {
        17.. => "SET LOCAL transaction_timeout = 0;",
        _ => "",
    };
    session.execute(&format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
         SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; {newer}
         SET LOCAL lock_timeout = '{}ms'; SET LOCAL row_security = off;
         SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = postgres;
         SET LOCAL extra_float_digits = 3; SET LOCAL timezone = 'UTC';
         SET LOCAL bytea_output = hex; SET LOCAL xmloption = content;
         SET LOCAL synchronize_seqscans = off; SET LOCAL search_path TO '';
         SET CONSTRAINTS ALL IMMEDIATE",
        around::LOCK_LIMIT_MS
    ))
}

/// Ends the transaction. An answer that does not come leaves the question whether it took effect:
/// the schema with the replaced rows is there if and only if it did.
fn commit(session: &Session, schema: &str) -> Result<()> {
    let Err(failure) = session.execute_within(WORK_LIMIT, "COMMIT") else {
        return Ok(());
    };
    let there = session
        .connector()
        .open(session.url())
        .and_then(|second| kept::exists(&second, schema));
    match there {
        Ok(true) => Ok(()),
        Ok(false) => Err(failure.context("nothing was changed")),
        Err(_) => Err(failure
            .context(
                "the server did not answer to COMMIT: the restore may have taken effect or not",
            )
            .hint(format!(
                "it has if there is a schema {schema}: psql -c '\\dn'"
            ))),
    }
}

/// Fresh statistics: without them the next queries are planned for an empty table.
fn analyze(session: &Session, tables: &[LiveTable]) -> Vec<String> {
    let one = |table: &LiveTable| {
        session
            .execute_within(WORK_LIMIT, &format!("ANALYZE {}", table.quoted))
            .or_fail(|| format!("run ANALYZE {} by hand", table.shown))
            .err()
            .map(|failure| failure.to_string())
    };
    tables.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests;
