//! The tables and sequences of a database that a dump has the contents of.
//!
//! The same ones as `pg_dump` takes: ordinary and unlogged tables and partitions, none of
//! PostgreSQL's own, of an extension's only those that it declares as configuration.

use super::connect::Session;
use super::create::identifier;
use crate::failure::Result;

/// So many sequences are asked in one question.
const SEQUENCES_AT_ONCE: usize = 100;

/// A table with rows of its own.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    pub schema: String,
    pub name: String,
    /// Without generated columns, which are never dumped.
    pub columns: Vec<String>,
    /// `WHERE …` for an extension's configuration table, else nothing.
    pub condition: Option<String>,
}

/// Where a sequence stands.
#[derive(Debug, Clone)]
pub(super) struct SequenceState {
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
}

const OURS: &str = "
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN LATERAL (
        SELECT x.extconfig IS NOT NULL AND c.oid = ANY (x.extconfig) AS config,
               x.extcondition[array_position(x.extconfig, c.oid)] AS condition
        FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
    ) e ON true
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND c.relpersistence <> 't' AND coalesce(e.config, true)";

/// The tables of the session's database.
pub(super) fn tables(session: &Session) -> Result<Vec<Relation>> {
    let rows = session.rows(
        &format!(
            "SELECT n.nspname::text, c.relname::text, e.condition,
                    ARRAY(SELECT a.attname::text FROM pg_attribute a
                          WHERE a.attrelid = c.oid AND a.attnum > 0
                            AND NOT a.attisdropped AND a.attgenerated = ''
                          ORDER BY a.attnum)
             {OURS} AND c.relkind = 'r'"
        ),
        &[],
    )?;
    Ok(rows
        .iter()
        .map(|row| Relation {
            schema: row.get(0),
            name: row.get(1),
            condition: row.get(2),
            columns: row.get(3),
        })
        .collect())
}

/// The sequences of the session's database.
pub(super) fn sequences(session: &Session) -> Result<Vec<SequenceState>> {
    let rows = session.rows(
        &format!("SELECT n.nspname::text, c.relname::text {OURS} AND c.relkind = 'S'"),
        &[],
    )?;
    let names: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut all = Vec::with_capacity(names.len());
    for some in names.chunks(SEQUENCES_AT_ONCE) {
        let questions: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(index, (schema, name))| {
                format!(
                    "SELECT {index}, last_value, is_called FROM {}.{}",
                    identifier(schema),
                    identifier(name)
                )
            })
            .collect();
        let states = session.rows(
            &format!("{} ORDER BY 1", questions.join(" UNION ALL ")),
            &[],
        )?;
        for ((schema, name), state) in some.iter().zip(&states) {
            all.push(SequenceState {
                schema: schema.clone(),
                name: name.clone(),
                last_value: state.get(1),
                is_called: state.get(2),
            });
        }
    }
    Ok(all)
}
