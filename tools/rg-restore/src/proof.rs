//! Whether a restored database is what was backed up: the same rows, sequences and large objects,
//! and nothing missing of what is made after them.

use rg_common::catalog::manifest::DatabaseContent;
use rg_common::postgres::compare::{Comparison, Expected};
use rg_common::{Failure, Result};

use crate::database::Server;
use crate::source::Source;

/// How many differences a message names.
const NAMED_DIFFERENCES: usize = 8;

/// Begins to compare a database's content with what a backup recorded; nothing is read before it is
/// said to be there. `None` when no rows were recorded.
pub fn begin<'a>(
    server: &'a Server<'_>,
    content: &'a DatabaseContent,
    name: &str,
    jobs: usize,
) -> Result<Option<Comparison<'a>>> {
    let inventory = &content.inventory;
    if !inventory.counted {
        tracing::warn!("the backup recorded no rows: its content cannot be compared");
        return Ok(None);
    }
    let expected = Expected {
        encoding: inventory.encoding.as_deref(),
        lc_monetary: None,
        tables: &inventory.tables,
        sequences: &inventory.sequences,
        large_objects: &inventory.large_objects,
    };
    let url = server.url.with_database(name);
    Comparison::begin(&server.connector, &url, &expected, jobs).map(Some)
}

/// What is made after the rows and no row tells of: by pg_dump's words, and how it is counted. An
/// extension's own may be among what is found, never among what is expected.
const OBJECTS: &[(&str, &str)] = &[
    (
        "INDEX",
        "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = ANY (SELECT oid FROM spaces) AND NOT EXISTS
         (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))",
    ),
    (
        "CONSTRAINT",
        "SELECT count(*) FROM pg_constraint
         WHERE connamespace = ANY (SELECT oid FROM spaces) AND contype IN ('p', 'u', 'x')",
    ),
    (
        "FK CONSTRAINT",
        "SELECT count(*) FROM pg_constraint
         WHERE connamespace = ANY (SELECT oid FROM spaces) AND contype = 'f' AND conparentid = 0",
    ),
    (
        "TRIGGER",
        "SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.relnamespace = ANY (SELECT oid FROM spaces) AND NOT t.tgisinternal",
    ),
    (
        "VIEW",
        "SELECT count(*) FROM pg_class
         WHERE relnamespace = ANY (SELECT oid FROM spaces) AND relkind = 'v'",
    ),
    (
        "MATERIALIZED VIEW",
        "SELECT count(*) FROM pg_class
         WHERE relnamespace = ANY (SELECT oid FROM spaces) AND relkind = 'm'",
    ),
];

/// Kinds of objects of which there are fewer than in the backup: a pg_restore that says that all
/// is well is not taken at its word for these either.
pub fn missing_objects(
    server: &Server<'_>,
    content: &DatabaseContent,
    name: &str,
) -> Result<Vec<String>> {
    let session = server.admin.beside(name)?;
    let mut missing = Vec::new();
    for (kind, count) in OBJECTS {
        let expected = content.inventory.objects.get(*kind).copied().unwrap_or(0);
        let found: i64 = session.value(
            &format!(
                "WITH spaces AS (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_'
                 AND nspname <> 'information_schema') {count}"
            ),
            &[],
        )?;
        if found.unsigned_abs() < expected {
            missing.push(format!("{kind}: {found} instead of {expected}"));
        }
    }
    session.close();
    Ok(missing)
}

/// The differences as one failure, the first ones named.
pub fn describe(source: &Source, differences: &[String]) -> Failure {
    let named = &differences[..differences.len().min(NAMED_DIFFERENCES)];
    let more = match differences.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Failure::new(format!(
        "what was restored from {} is not what was recorded: {}{more}",
        source.name(),
        named.join("; ")
    ))
}
