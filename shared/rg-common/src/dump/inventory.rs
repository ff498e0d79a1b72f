//! What a dump holds, and the ledger in which a parser writes it down.
//!
//! The same database gives the same tables, sequences and large objects whatever the dump's format,
//! version and compression. Only the objects differ: a custom archive always describes its
//! `DATABASE`, a plain dump only when made with `--create`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::rows::{CopyText, RowPieces, RowSink, RowSum};
use crate::failure::{Failure, Result};

/// What the parser keeps of a dump's description (names, columns, definitions it must look into)
/// may take this many bytes: some 300,000 tables.
pub(super) const KEPT_BYTES_MAX: usize = 64 << 20;
/// What one kept thing takes beside its text, as counted against [`KEPT_BYTES_MAX`].
const KEPT_OVERHEAD: usize = 64;

/// The way a dump is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpFormat {
    /// `pg_dump -Fc`: an archive for `pg_restore`.
    Custom,
    /// `pg_dump -Fp`: SQL for `psql`.
    Plain,
}

/// What a dump holds. Goes into manifests: the names of the fields are part of the stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// How it was written.
    pub format: DumpFormat,
    /// The custom archive's own version, such as `1.14`; absent in a plain dump.
    pub archive_version: Option<String>,
    /// The dumped server's version as `pg_dump` wrote it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// The version of the `pg_dump` that wrote it.
    pub pg_dump_version: String,
    /// The encoding of the text in it, such as `UTF8`.
    pub encoding: Option<String>,
    /// The dumped database's name; in a plain dump only known if made with `--create`.
    pub database: Option<String>,
    /// Whether rows could be counted. Not so in a dump made with `--inserts`, or compressed with
    /// lz4: then `tables` is empty, and `uncounted_because` says why.
    pub counted: bool,
    /// Why `counted` is false, in words for the operator.
    pub uncounted_because: Option<String>,
    /// Every table that has data in the dump, empty ones too, by schema and name.
    pub tables: Vec<Table>,
    /// Where every sequence stands, by schema and name.
    pub sequences: Vec<Sequence>,
    /// The large objects.
    pub large_objects: LargeObjects,
    /// How many objects of each kind, by `pg_dump`'s words (`TABLE`, `INDEX`, `FK CONSTRAINT`).
    pub objects: BTreeMap<String, u64>,
    /// The roles a restore needs: owners, grantees, roles of policies.
    pub roles: BTreeSet<String>,
    /// The extensions a restore needs.
    pub extensions: Vec<String>,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The schema's name, not quoted.
    pub schema: String,
    /// The table's name, not quoted.
    pub name: String,
    /// The text between the parentheses of `COPY`, quoted as `pg_dump` wrote it; generated columns
    /// are not in it.
    pub columns: String,
    /// How many rows.
    pub rows: u64,
    /// The [`RowSum`] over all rows: 32 hexadecimal digits.
    pub checksum: String,
    /// The bytes of the rows' `COPY` text, newlines included.
    pub bytes: u64,
}

/// Where one sequence stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The schema's name, not quoted.
    pub schema: String,
    /// The sequence's name, not quoted.
    pub name: String,
    /// Its last value.
    pub last_value: i64,
    /// Whether that value was handed out: if not, it is the next one.
    pub is_called: bool,
}

/// All large objects of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Like [`RowSum`], over one "row" for each object: its oid as four bytes, the lowest first,
    /// and its content.
    pub checksum: String,
}

/// The rows of one table while they go by.
pub(super) struct OpenTable {
    index: usize,
    /// Its place among the wanted ones.
    wanted: Option<usize>,
    pub text: CopyText,
}

/// One table's place in the ledger.
struct Entry {
    schema: String,
    name: String,
    columns: String,
    sum: RowSum,
    bytes: u64,
}

/// A table whose rows somebody wants.
pub(super) struct Wanted {
    pub schema: String,
    pub name: String,
    pub sink: Box<dyn RowSink>,
    pub found: bool,
}

/// An inventory that is being taken.
#[derive(Default)]
pub(super) struct Ledger {
    pub archive_version: Option<String>,
    pub server_version: String,
    pub pg_dump_version: String,
    pub encoding: Option<String>,
    pub database: Option<String>,
    pub wanted: Vec<Wanted>,
    uncounted_because: Option<String>,
    tables: Vec<Entry>,
    by_name: HashMap<(String, String), usize>,
    sequences: BTreeMap<(String, String), (i64, bool)>,
    large_objects: RowSum,
    objects: BTreeMap<String, u64>,
    roles: BTreeSet<String>,
    extensions: BTreeSet<String>,
    kept: usize,
}

impl Ledger {
    /// Counts text that will be kept against [`KEPT_BYTES_MAX`].
    pub fn keep(&mut self, bytes: usize) -> Result<()> {
        self.kept = self.kept.saturating_add(bytes + KEPT_OVERHEAD);
        if self.kept > KEPT_BYTES_MAX {
            return Err(Failure::new(format!(
                "the dump's description of its objects is beyond {} MiB",
                KEPT_BYTES_MAX >> 20
            ))
            .hint("is this really a dump made by pg_dump? try `pg_restore --list` on it"));
        }
        Ok(())
    }

    /// One more object of a kind.
    pub fn object(&mut self, kind: &str) -> Result<()> {
        if let Some(count) = self.objects.get_mut(kind) {
            *count += 1;
            return Ok(());
        }
        self.keep(kind.len())?;
        self.objects.insert(kind.to_owned(), 1);
        Ok(())
    }

    /// A role that a restore needs. Empty names and `-` stand for none.
    pub fn role(&mut self, name: &str) -> Result<()> {
        if !name.is_empty() && name != "-" && !self.roles.contains(name) {
            self.keep(name.len())?;
            self.roles.insert(name.to_owned());
        }
        Ok(())
    }

    /// An extension that a restore needs.
    pub fn extension(&mut self, name: &str) -> Result<()> {
        self.keep(name.len())?;
        self.extensions.insert(name.to_owned());
        Ok(())
    }

    /// Where a sequence stands; the last word counts.
    pub fn sequence(&mut self, schema: String, name: String, at: (i64, bool)) -> Result<()> {
        self.keep(schema.len() + name.len())?;
        self.sequences.insert((schema, name), at);
        Ok(())
    }

    /// Rows cannot be counted; the first reason stands.
    pub fn uncounted(&mut self, because: impl FnOnce() -> String) {
        self.uncounted_because.get_or_insert_with(because);
    }

    /// A large object that has gone by whole.
    pub fn large_object(&mut self, object: &RowPieces) {
        self.large_objects.add_pieces(object);
    }

    /// The data of a table begins. A table may come in several parts.
    pub fn open(
        &mut self,
        schema: String,
        name: String,
        columns: String,
        crlf: bool,
    ) -> Result<OpenTable> {
        let is_it = |want: &Wanted| want.schema == schema && want.name == name;
        let wanted = self.wanted.iter().position(is_it);
        if let Some(want) = wanted.and_then(|at| self.wanted.get_mut(at))
            && !want.found
        {
            want.found = true;
            want.sink.begin(&columns).map_err(|error| {
                Failure::from_io("cannot pass on the rows of the wanted table", error)
            })?;
        }
        let key = (schema, name);
        let index = match self.by_name.get(&key) {
            Some(&index) => index,
            None => {
                self.keep(2 * (key.0.len() + key.1.len()) + columns.len() + KEPT_OVERHEAD)?;
                self.tables.push(Entry {
                    schema: key.0.clone(),
                    name: key.1.clone(),
                    columns,
                    sum: RowSum::new(),
                    bytes: 0,
                });
                self.by_name.insert(key, self.tables.len() - 1);
                self.tables.len() - 1
            }
        };
        Ok(OpenTable {
            index,
            wanted,
            text: CopyText::new(crlf),
        })
    }

    /// More of a table's `COPY` text; says how much of it belonged to the table.
    pub fn rows(&mut self, table: &mut OpenTable, text: &[u8]) -> Result<usize> {
        let wanted = table.wanted.and_then(|at| self.wanted.get_mut(at));
        table.text.push(text, wanted.map(|wanted| &mut wanted.sink))
    }

    /// The data of a table has gone by whole.
    pub fn close(&mut self, table: &OpenTable) {
        let entry = &mut self.tables[table.index];
        entry.sum.add_all(&table.text.sum);
        entry.bytes += table.text.bytes;
    }

    /// A table's name for messages.
    pub fn name(&self, table: &OpenTable) -> String {
        let entry = &self.tables[table.index];
        format!("`{}.{}`", entry.schema, entry.name)
    }

    /// The inventory, once the parser has found the dump to be complete.
    pub fn finish(self, format: DumpFormat) -> Result<Inventory> {
        for wanted in &self.wanted {
            let table = format!("`{}.{}`", wanted.schema, wanted.name);
            if let Some(because) = &self.uncounted_because {
                return Err(Failure::new(format!(
                    "cannot take the rows of {table} out of this dump: {because}"
                ))
                .hint(
                    "restore the whole dump beside the live database and copy the table from there",
                ));
            }
            if !wanted.found {
                return Err(Failure::new(format!("the dump has no rows of a table {table}"))
                    .hint("names are case-sensitive and include the schema; a partitioned table's rows are in its partitions"));
            }
        }
        let mut tables: Vec<Table> = match self.uncounted_because {
            Some(_) => Vec::new(),
            None => self.tables.into_iter().map(Entry::into_table).collect(),
        };
        tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        let sequences = self.sequences.into_iter();
        Ok(Inventory {
            format,
            archive_version: self.archive_version,
            server_version: self.server_version,
            pg_dump_version: self.pg_dump_version,
            encoding: self.encoding,
            database: self.database,
            counted: self.uncounted_because.is_none(),
            uncounted_because: self.uncounted_because,
            tables,
            sequences: sequences
                .map(|((schema, name), (last_value, is_called))| Sequence {
                    schema,
                    name,
                    last_value,
                    is_called,
                })
                .collect(),
            large_objects: LargeObjects {
                count: self.large_objects.rows(),
                checksum: self.large_objects.checksum(),
            },
            objects: self.objects,
            roles: self.roles,
            extensions: self.extensions.into_iter().collect(),
        })
    }
}

impl Entry {
    fn into_table(self) -> Table {
        Table {
            rows: self.sum.rows(),
            checksum: self.sum.checksum(),
            schema: self.schema,
            name: self.name,
            columns: self.columns,
            bytes: self.bytes,
        }
    }
}
