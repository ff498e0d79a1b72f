//! The rows that were replaced, kept in a schema of the same database.
//!
//! `rg_before_STAMP` holds a plain copy of each table as it was, and a list `rg_replaced` of what
//! they are copies of. The promise: the schema is there if and only if the replacement took effect;
//! [`undo`] exchanges its rows for the live ones, so that nothing is lost and a second `undo` is the
//! way back.

use rg_common::failure::{Failure, Result};
use rg_common::names::Stamp;
use rg_common::postgres::create::{identifier, literal};
use rg_common::postgres::{Connector, DatabaseUrl, Session};
use serde::Serialize;

use super::around::{self, Around, LiveTable};
use super::{WORK_LIMIT, analyze, begin};

/// What the names of the schemas of kept rows begin with.
pub const PREFIX: &str = "rg_before_";
const LIST: &str = "rg_replaced";
/// A kept copy on its way to the live table again.
const LEAVING: &str = "rg_leaving";
/// The longest name, in bytes (`NAMEDATALEN` less one).
const NAME_BYTES_MAX: usize = 63;

/// One table whose rows were replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// The schema's name, not quoted.
    pub schema: String,
    /// The table's name, not quoted.
    pub name: String,
    /// Its rows before, now in the kept copy.
    pub rows_before: u64,
    /// Its rows now.
    pub rows_after: u64,
}

/// A schema of kept rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its name: `rg_before_STAMP`.
    pub schema: String,
    /// The tables in it, as `schema.table`.
    pub tables: Vec<String>,
}

/// What a restore of that time keeps its replaced rows under.
pub(super) fn schema_name(stamp: Stamp) -> String {
    format!("{PREFIX}{stamp}")
}

/// Whether a schema is there.
pub(super) fn exists(session: &Session, schema: &str) -> Result<bool> {
    session.value(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)",
        &[&schema],
    )
}

/// Copies the tables' rows, which are about to be replaced, into a new schema.
pub(super) fn keep(session: &Session, schema: &str, tables: &[LiveTable]) -> Result<Vec<Replaced>> {
    let quoted = identifier(schema);
    let made = session.execute(&format!(
        "CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{LIST}
         (schema text, name text, kept text PRIMARY KEY)"
    ));
    made.map_err(|failure| {
        let user = identifier(&session.url().user);
        let database = identifier(&session.url().database);
        failure
            .context(format!(
                "cannot make the schema {schema} that keeps the replaced rows"
            ))
            .hint(format!(
                "if it may not: GRANT CREATE ON DATABASE {database} TO {user}"
            ))
    })?;
    let mut names = vec![LIST.to_owned(), LEAVING.to_owned()];
    let mut replaced = Vec::with_capacity(tables.len());
    for table in tables {
        let name = free_name(&table.name, &names);
        copy(session, schema, &name, table)?;
        session.execute(&format!(
            "INSERT INTO {quoted}.{LIST} VALUES ({}, {}, {})",
            literal(&table.schema),
            literal(&table.name),
            literal(&name)
        ))?;
        replaced.push(Replaced {
            schema: table.schema.clone(),
            name: table.name.clone(),
            rows_before: count(session, &format!("{quoted}.{}", identifier(&name)))?,
            rows_after: 0,
        });
        names.push(name);
    }
    Ok(replaced)
}

fn copy(session: &Session, schema: &str, name: &str, table: &LiveTable) -> Result<()> {
    session
        .execute_within(
            WORK_LIMIT,
            &format!(
                "CREATE TABLE {}.{} AS SELECT {} FROM ONLY {}",
                identifier(schema),
                identifier(name),
                table.column_list(),
                table.quoted
            ),
        )
        .map_err(|failure| {
            failure.context(format!("cannot keep the rows of {} aside", table.shown))
        })
}

fn count(session: &Session, quoted: &str) -> Result<u64> {
    // Not `SELECT count(*)`: a question is given up after a minute, this only when nothing moves.
    let sum = session.copy_sum(&format!("COPY (SELECT FROM {quoted}) TO STDOUT"))?;
    Ok(sum.rows())
}

/// The table's own name; with a number before it where two schemas have a table of that name.
fn free_name(name: &str, taken: &[String]) -> String {
    if !taken.iter().any(|one| one == name) {
        return name.to_owned();
    }
    let mut long = format!("{}_{name}", taken.len());
    while long.len() > NAME_BYTES_MAX {
        long.pop();
    }
    long
}

/// The schemas of kept rows in a database, the oldest first.
pub fn list(url: &DatabaseUrl, connector: &Connector) -> Result<Vec<Kept>> {
    let session = connector.open(url)?;
    let rows = session.rows(
        &format!(
            "SELECT n.nspname::text FROM pg_namespace n
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = '{LIST}'
             WHERE starts_with(n.nspname::text, '{PREFIX}') AND pg_has_role(n.nspowner, 'USAGE')
             ORDER BY 1"
        ),
        &[],
    )?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let schema: String = row.get(0);
        let tables = contents(&session, &schema)?;
        all.push(Kept {
            tables: tables
                .iter()
                .map(|(schema, name, _)| format!("{schema}.{name}"))
                .collect(),
            schema,
        });
    }
    session.close();
    Ok(all)
}

/// What a schema keeps: schema and name of each table, and the copy's name.
fn contents(session: &Session, schema: &str) -> Result<Vec<(String, String, String)>> {
    let rows = session.rows(
        &format!(
            "SELECT schema, name, kept FROM {}.{LIST} ORDER BY 1, 2",
            identifier(schema)
        ),
        &[],
    )?;
    Ok(rows
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect())
}

/// Exchanges the rows kept in `schema` for the live ones, in one transaction as safe as the restore;
/// the rows that were live are kept in their place.
pub fn undo(url: &DatabaseUrl, connector: &Connector, schema: &str) -> Result<Vec<Replaced>> {
    let session = connector.open(url)?;
    let outcome = undone(&session, schema);
    session.close();
    outcome.map_err(|failure| failure.context(format!("cannot put back the rows kept in {schema}")))
}

fn undone(session: &Session, schema: &str) -> Result<Vec<Replaced>> {
    known(session, schema)?;
    begin(session)?;
    // Two at once would exchange twice.
    session.execute(&format!(
        "LOCK TABLE {}.{LIST} IN ACCESS EXCLUSIVE MODE",
        identifier(schema)
    ))?;
    let kept = contents(session, schema)?;
    let names = kept.iter().map(|(schema, name, _)| (&**schema, &**name));
    let tables = around::lock(session, names)?;
    let around = Around::clear(session, &tables)?;
    let mut replaced = Vec::with_capacity(tables.len());
    for (table, (_, _, name)) in tables.iter().zip(&kept) {
        replaced.push(
            exchange(session, schema, name, table)
                .map_err(|failure| failure.context(format!("table {}", table.shown)))?,
        );
    }
    around.put_back(session)?;
    session.execute_within(WORK_LIMIT, "COMMIT")?;
    // Statistics are a courtesy: the rows are back.
    drop(analyze(session, &tables));
    Ok(replaced)
}

fn exchange(session: &Session, schema: &str, name: &str, table: &LiveTable) -> Result<Replaced> {
    let quoted = identifier(schema);
    let leaving = format!("{quoted}.{LEAVING}");
    let kept_columns: Vec<String> = session.value(
        "SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a
         JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
         ORDER BY a.attnum)",
        &[&schema, &name],
    )?;
    let list: Vec<String> = kept_columns.iter().map(|name| identifier(name)).collect();
    let columns = list.join(", ");
    session.execute(&format!(
        "ALTER TABLE {quoted}.{} RENAME TO {LEAVING}",
        identifier(name)
    ))?;
    copy(session, schema, name, table)?;
    session.execute_within(WORK_LIMIT, &format!("TRUNCATE ONLY {}", table.quoted))?;
    session.execute("SET LOCAL search_path TO DEFAULT")?;
    let insert = match columns.as_str() {
        "" => format!("INSERT INTO {} SELECT FROM {leaving}", table.quoted),
        _ => format!(
            "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {leaving}",
            table.quoted
        ),
    };
    session.execute_within(WORK_LIMIT, &insert)?;
    session.execute("SET LOCAL search_path TO ''")?;
    let parentheses = match columns.as_str() {
        "" => String::new(),
        _ => format!(" ({columns})"),
    };
    let was = session.copy_sum(&format!("COPY {leaving}{parentheses} TO STDOUT"))?;
    let is = session.copy_sum(&format!("COPY {}{parentheses} TO STDOUT", table.quoted))?;
    if was != is {
        return Err(Failure::new(format!(
            "its rows came out different: {} instead of {}",
            is.rows(),
            was.rows()
        ))
        .hint("is there a rule on the table?"));
    }
    session.execute(&format!("DROP TABLE {leaving}"))?;
    Ok(Replaced {
        schema: table.schema.clone(),
        name: table.name.clone(),
        rows_before: count(session, &format!("{quoted}.{}", identifier(name)))?,
        rows_after: is.rows(),
    })
}

/// Removes the rows kept in `schema`; after that there is no [`undo`].
pub fn discard(url: &DatabaseUrl, connector: &Connector, schema: &str) -> Result<()> {
    let session = connector.open(url)?;
    known(&session, schema)?;
    // No CASCADE: what somebody has built on the copies stops it.
    let mut sql = String::from("BEGIN;");
    for (_, _, name) in contents(&session, schema)? {
        sql.push_str(&format!(
            "DROP TABLE {}.{};",
            identifier(schema),
            identifier(&name)
        ));
    }
    sql.push_str(&format!(
        "DROP TABLE {0}.{LIST}; DROP SCHEMA {0}; COMMIT",
        identifier(schema)
    ));
    session.execute(&sql)?;
    session.close();
    Ok(())
}

/// A failure unless the schema was made by a restore of tables.
fn known(session: &Session, schema: &str) -> Result<()> {
    let there: bool = session.value(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2)",
        &[&schema, &LIST],
    )?;
    if there && schema.starts_with(PREFIX) {
        return Ok(());
    }
    Err(
        Failure::new(format!("no replaced rows are kept in a schema `{schema}`"))
            .hint("`\\dn rg_before_*` in psql lists them"),
    )
}
