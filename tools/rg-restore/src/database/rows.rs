//! An archive's rows loaded without a detour: as they are decompressed they go into `COPY`, and each
//! table is compared with what was recorded while the next one is loaded.
//!
//! `pg_restore` does everything else, before and after, from a file that holds the archive's table of
//! contents alone. The promise: the same database as `pg_restore` makes, ended by the first error;
//! an archive with anything unusual among its data is left to `pg_restore`, before a row is loaded.
//! The rows are the backup's, byte for byte: loading ends well only when the stream did, whose digests
//! the manifest holds. New rows are frozen, which nobody can see in a database that nobody uses yet,
//! and which spares the server to write each page once more when the rows are read back.

use std::collections::HashMap;
use std::time::Duration;

use rg_common::ahead::Ahead;
use rg_common::dump::{ArchiveReader, ArchivedTable, Sequence};
use rg_common::postgres::compare::Comparison;
use rg_common::postgres::create::{identifier, literal};
use rg_common::postgres::{Place, Session};
use rg_common::{Failure, OrFail, Result};

use super::Load;
use super::indexes::Indexes;
use super::programs::Parts;
use crate::proof;
use crate::source::Checked;

/// A table's commit may take this long: with `wal_level = minimal` it flushes all of its rows.
const COMMIT_LIMIT: Duration = Duration::from_secs(3600);
/// So many sequences are set by one statement.
const SEQUENCES_AT_ONCE: usize = 100;
/// As `pg_restore` sets it, and what is safe in a database that is thrown away when anything fails.
const SETTINGS: &str = "SET synchronous_commit = off; SET xmloption = content; \
    SET row_security = off; SET client_min_messages = warning";

/// Rows that are loaded, and the rest that is to be done.
pub struct Loaded<'a> {
    /// Indexes, constraints, triggers: what was not made yet.
    pub rest: Indexes,
    /// Under way, unless the backup recorded no rows.
    pub comparison: Option<Comparison<'a>>,
}

/// Why it was not done.
pub enum NotLoaded {
    /// It is for `pg_restore`.
    Unusual {
        /// For the log.
        why: String,
        /// The database is no longer empty.
        begun: bool,
    },
    /// The backup, or the world: to be told.
    Failed(Failure),
    /// Certainly not the backup.
    Unknown(Failure),
}

impl NotLoaded {
    fn unusual(why: impl Into<String>) -> NotLoaded {
        NotLoaded::Unusual {
            why: why.into(),
            begun: false,
        }
    }
}

impl From<Failure> for NotLoaded {
    fn from(failure: Failure) -> Self {
        NotLoaded::Failed(failure)
    }
}

/// Loads everything up to the state of sequences.
pub fn load<'a>(load: &Load<'a>) -> Result<Loaded<'a>, NotLoaded> {
    let inventory = &load.content.inventory;
    if load.server.place != Place::Local || load.jobs < 2 {
        return Err(NotLoaded::unusual("one job, or a container"));
    }
    if inventory.archive_version.as_deref() == Some("1.12") {
        // Names in functions that a check calls would be looked up along another path.
        return Err(NotLoaded::unusual("the dump is older than PostgreSQL 10.3"));
    }
    let parts = Parts::new(load)?;
    let mut archive = ArchiveReader::open(load.open()?, &mut parts.create()?)?;
    let encoding = inventory.encoding.as_deref().unwrap_or_default();
    let tables = archive.tables();
    if let Some(unusual) = archive.unusual() {
        return Err(NotLoaded::unusual(format!("the dump holds {unusual}")));
    }
    // Names are in the dump's encoding, and in messages and statements of ours they are in UTF-8.
    let foreign = |table: &ArchivedTable| {
        let names = [&table.schema, &table.name, &table.columns];
        names.iter().any(|name| !name.is_ascii())
    };
    if encoding != "UTF8" && (encoding.is_empty() || tables.iter().any(foreign)) {
        return Err(NotLoaded::unusual(format!(
            "the dump's encoding is `{encoding}`"
        )));
    }

    parts.run(&["pre-data"])?;
    let session = load
        .server
        .connector
        .open(&load.url())
        .and_then(|session| session.execute(SETTINGS).map(|()| session))
        .map_err(NotLoaded::Unknown)?;
    let targets = targets(&session, &tables)?;
    let mut comparison = proof::begin(load.server, load.content, load.name, load.jobs)
        .map_err(NotLoaded::Unknown)?;
    let mut rest = Indexes::new(load, parts, &archive)?;
    while let Some(table) = archive.next_table()? {
        let way = targets.get(&key(&table)).copied().unwrap_or(Way::Append);
        fill(&session, &mut archive, &table, way, encoding)?;
        if way == Way::Anew {
            rest.loaded(&table)?;
            if let Some(comparison) = &mut comparison {
                comparison.loaded(&table.schema, &table.name);
            }
        }
    }
    set_sequences(&session, &inventory.sequences)?;
    session.close();
    Ok(Loaded { rest, comparison })
}

/// How rows come into a table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It was made just now and all of its rows come in one go.
    Anew,
    /// It may hold rows, or is of a kind that cannot be emptied or frozen.
    Append,
}

fn key(table: &ArchivedTable) -> (String, String) {
    (table.schema.clone(), table.name.clone())
}

/// How the rows of each table are loaded. What `pg_restore` made is empty and may be emptied once
/// more, which `FREEZE` demands; an extension's own table holds what the extension put there.
fn targets(
    session: &Session,
    tables: &[ArchivedTable],
) -> Result<HashMap<(String, String), Way>, NotLoaded> {
    let rows = session
        .rows(
            "SELECT n.nspname::text, c.relname::text,
                    has_table_privilege(c.oid, 'INSERT'),
                    c.relkind = 'r' AND has_table_privilege(c.oid, 'TRUNCATE')
                    AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'heap')
                    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                    AND d.objid = c.oid AND d.deptype = 'e')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'f')",
            &[],
        )
        .map_err(NotLoaded::Unknown)?;
    let found: HashMap<(String, String), (bool, bool)> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1)), (row.get(2), row.get(3))))
        .collect();
    let mut ways = HashMap::with_capacity(tables.len());
    for table in tables {
        let shown = format!("{}.{}", table.schema, table.name);
        let Some((may_insert, may_freeze)) = found.get(&key(table)) else {
            return Err(NotLoaded::Failed(Failure::new(format!(
                "table {shown} is not there, although pg_restore said that it was made"
            ))));
        };
        if !may_insert {
            // To pg_restore the owner's own grants come after the rows.
            return Err(NotLoaded::Unusual {
                why: format!("no right to fill {shown}"),
                begun: true,
            });
        }
        let way = match may_freeze {
            true => Way::Anew,
            false => Way::Append,
        };
        ways.entry(key(table))
            .and_modify(|way| *way = Way::Append)
            .or_insert(way);
    }
    Ok(ways)
}

/// One table's rows, in a transaction of their own.
fn fill(
    session: &Session,
    archive: &mut ArchiveReader<Ahead<Checked>>,
    table: &ArchivedTable,
    way: Way,
    encoding: &str,
) -> Result<()> {
    let name = format!("{}.{}", identifier(&table.schema), identifier(&table.name));
    let columns = match table.columns.as_str() {
        "" => String::new(),
        columns => format!(" ({columns})"),
    };
    let (begin, freeze) = match way {
        Way::Anew => (format!("BEGIN; TRUNCATE ONLY {name}"), "FREEZE, "),
        Way::Append => ("BEGIN".to_owned(), ""),
    };
    let what = || format!("cannot load table {}.{}", table.schema, table.name);
    session.execute(&begin).or_fail(what)?;
    let mut copy = session
        .copy_in(&format!(
            "COPY {name}{columns} FROM STDIN WITH ({freeze}ENCODING {})",
            literal(encoding)
        ))
        .or_fail(what)?;
    while let Some(rows) = archive.rows()? {
        copy.piece(rows).or_fail(what)?;
    }
    copy.finish().or_fail(what)?;
    session.execute_within(COMMIT_LIMIT, "COMMIT").or_fail(what)
}

/// Sequences stand where the dump's own `setval` would put them.
fn set_sequences(session: &Session, sequences: &[Sequence]) -> Result<()> {
    for some in sequences.chunks(SEQUENCES_AT_ONCE) {
        let set = some.iter().map(|one| {
            let name = format!("{}.{}", identifier(&one.schema), identifier(&one.name));
            format!(
                "pg_catalog.setval({}, {}, {})",
                literal(&name),
                one.last_value,
                one.is_called
            )
        });
        let set: Vec<String> = set.collect();
        session.rows(&format!("SELECT {}", set.join(", ")), &[])?;
    }
    Ok(())
}
