//! Compares what is in a database with what a dump held: not "pg_restore said 0" but "these are
//! the same rows".
//!
//! Every table is read once by `COPY … TO STDOUT`, written as `pg_dump` writes it, and summed as it
//! streams by: XXH3-128 of each row's text, added modulo 2^128, so the order of rows does not
//! matter and every row counts as often as it is there. The promise: constant memory, the exact set
//! of tables and sequences (missing and additional ones are differences), and no difference means
//! that everything was read to its end.

mod difference;
mod reading;

use std::collections::BTreeMap;

use super::connect::Connector;
use super::create::{identifier, names};
use super::inventory::{self, Relation};
use super::url::DatabaseUrl;
use crate::dump::{LargeObjects, Sequence, Table};
use crate::failure::Result;

pub use difference::Difference;
use reading::{Reading, TableToRead};

/// At most this many connections read side by side.
pub const MAX_JOBS: usize = 8;

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

/// Reads the whole database over `jobs` connections (at most [`MAX_JOBS`]) and says what is not as
/// expected, in the order of names. The database should not be in use meanwhile.
pub fn compare(
    connector: &Connector,
    url: &DatabaseUrl,
    expected: &Expected<'_>,
    jobs: usize,
) -> Result<Vec<Difference>> {
    Comparison::begin(connector, url, expected, jobs)?.finish()
}

/// A comparison that follows a load: it reads on the runtime's threads what is there already while
/// the rest is still being loaded. Dropped before [`Comparison::finish`] it ends its connections.
pub struct Comparison<'a> {
    connector: &'a Connector,
    url: DatabaseUrl,
    expected: Expected<'a>,
    differences: Vec<Difference>,
    /// Tables whose rows are not there yet.
    waiting: BTreeMap<(String, String), TableToRead>,
    /// Whether the large objects are not there yet.
    incomplete: bool,
    reading: Reading,
}

impl<'a> Comparison<'a> {
    /// Looks which tables there are; from now on none may come or go. Connects, reads nothing yet.
    pub fn begin(
        connector: &'a Connector,
        url: &DatabaseUrl,
        expected: &Expected<'a>,
        jobs: usize,
    ) -> Result<Comparison<'a>> {
        let session = connector.open(url)?;
        let mut differences = Vec::new();
        let found = inventory::tables(&session)?;
        let waiting = tables_to_read(expected, found, &mut differences);
        let version = session.version();
        session.close();
        let jobs = jobs.clamp(1, MAX_JOBS).min(waiting.len() + 1);
        Ok(Comparison {
            connector,
            url: url.clone(),
            expected: *expected,
            differences,
            waiting,
            incomplete: true,
            reading: Reading::begin(connector, url, expected, version, jobs),
        })
    }

    /// All rows of this table are there, and committed: it is read as soon as a connection is free.
    pub fn loaded(&mut self, schema: &str, name: &str) {
        let key = (schema.to_owned(), name.to_owned());
        if let Some(table) = self.waiting.remove(&key) {
            self.reading.table(table);
        }
    }

    /// All rows of all tables are there, and the large objects.
    pub fn all_loaded(&mut self) {
        let mut tables: Vec<TableToRead> =
            std::mem::take(&mut self.waiting).into_values().collect();
        // The largest first, so that the connections end at about the same time.
        tables.sort_by_key(|table| std::cmp::Reverse(table.bytes));
        for table in tables {
            self.reading.table(table);
        }
        if std::mem::take(&mut self.incomplete) {
            self.reading.large_objects(self.expected.large_objects);
        }
    }

    /// Everything is there: waits until all of it was read, and says what is not as expected, in
    /// the order of names.
    pub fn finish(mut self) -> Result<Vec<Difference>> {
        self.all_loaded();
        let session = self.connector.open(&self.url)?;
        let sequences = inventory::sequences(&session)?;
        session.close();
        let mut differences = self.differences;
        compare_sequences(&self.expected, sequences, &mut differences);
        differences.extend(self.reading.finish()?);
        differences.sort_by_key(ToString::to_string);
        Ok(differences)
    }
}

fn tables_to_read(
    expected: &Expected<'_>,
    found: Vec<Relation>,
    differences: &mut Vec<Difference>,
) -> BTreeMap<(String, String), TableToRead> {
    let mut found: BTreeMap<(String, String), Relation> = found
        .into_iter()
        .map(|one| ((one.schema.clone(), one.name.clone()), one))
        .collect();
    let mut to_read = BTreeMap::new();
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
        let table = TableToRead {
            sql: copy_statement(table, relation.condition.as_deref()),
            shown,
            rows: table.rows,
            checksum: table.checksum.clone(),
            bytes: table.bytes,
        };
        to_read.insert(key, table);
    }
    differences.extend(found.into_values().map(|one| Difference::AdditionalTable {
        table: format!("{}.{}", one.schema, one.name),
    }));
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

#[cfg(test)]
mod tests;
