//! What stands around a table's rows and is in the way of replacing them: foreign keys from and to
//! it, triggers, sequences.
//!
//! The promise: after [`Around::put_back`] the same foreign keys are there, checked against the new
//! rows, and every trigger is as it was; if one cannot be, that is an error, before `COMMIT`.

use rg_common::dump::Sequence;
use rg_common::failure::{Failure, Result};
use rg_common::postgres::Session;
use rg_common::postgres::create::{identifier, literal};

use super::{BESIDE, WORK_LIMIT};

/// How long each lock is waited for, in milliseconds. Whoever comes later queues behind us.
pub(super) const LOCK_LIMIT_MS: u32 = 10_000;

/// A live table, locked.
pub(super) struct LiveTable {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// `"schema"."table"`, for SQL.
    pub quoted: String,
    /// `schema.table`, for people.
    pub shown: String,
    /// Names of the columns that hold values of their own: no generated ones.
    pub columns: Vec<String>,
}

impl LiveTable {
    /// The columns as SQL wants them; nothing for a table without any.
    pub fn column_list(&self) -> String {
        let quoted: Vec<String> = self.columns.iter().map(|name| identifier(name)).collect();
        quoted.join(", ")
    }
}

/// Finds the tables and locks them against everybody until the transaction ends.
pub(super) fn lock<'a>(
    session: &Session,
    names: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<LiveTable>> {
    let mut names: Vec<(usize, &str, &str)> = names
        .enumerate()
        .map(|(index, (schema, name))| (index, schema, name))
        .collect();
    // Always in one order, so that two restores wait for each other and do not deadlock.
    names.sort_by_key(|(_, schema, name)| (*schema, *name));
    let mut tables = Vec::with_capacity(names.len());
    for (index, schema, name) in names {
        let found = look(session, schema, name)?;
        let sql = format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", found.quoted);
        session.execute(&sql).map_err(busy)?;
        // The columns may have changed until the lock was ours.
        tables.push((index, look(session, schema, name)?));
    }
    tables.sort_by_key(|(index, _)| *index);
    Ok(tables.into_iter().map(|(_, table)| table).collect())
}

/// Finds a table that can be restored into.
pub(super) fn look(session: &Session, schema: &str, name: &str) -> Result<LiveTable> {
    let shown = format!("{schema}.{name}");
    let rows = session.rows(
        "SELECT c.oid, c.relkind::text, pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text,
                EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                        AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'),
                ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid
                      AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                      ORDER BY a.attnum)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2",
        &[&schema, &name],
    )?;
    let Some(row) = rows.first() else {
        return Err(
            Failure::new(format!("the live database has no table {shown}"))
                .hint("it was dropped or renamed since the backup was made")
                .hint(BESIDE),
        );
    };
    let kind: String = row.get(1);
    if kind != "r" {
        return Err(
            Failure::new(format!("{shown} is no ordinary table in the live database"))
                .hint("of a partitioned table its partitions are restored")
                .hint(BESIDE),
        );
    }
    if row.get(4) {
        return Err(Failure::new(format!(
            "table {shown} belongs to an extension, and the backup holds only a part of its rows"
        ))
        .hint(BESIDE));
    }
    if !row.get::<_, bool>(2) {
        let owner: String = row.get(3);
        return Err(Failure::new(format!(
            "role `{}` does not own table {shown}, `{owner}` does",
            session.url().user
        ))
        .hint("only the owner may switch off triggers and foreign keys: use its URL"));
    }
    Ok(LiveTable {
        oid: row.get(0),
        quoted: format!("{}.{}", identifier(schema), identifier(name)),
        schema: schema.to_owned(),
        name: name.to_owned(),
        shown,
        columns: row.get(5),
    })
}

/// A foreign key as it was.
struct ForeignKey {
    table: String,
    name: String,
    definition: String,
    comment: Option<String>,
}

/// A trigger that would fire.
struct Trigger {
    table: String,
    name: String,
    always: bool,
}

/// What was taken away, and is put back.
pub(super) struct Around {
    oids: Vec<u32>,
    keys: Vec<ForeignKey>,
    triggers: Vec<Trigger>,
}

impl Around {
    /// Takes everything out of the way.
    pub fn clear(session: &Session, tables: &[LiveTable]) -> Result<Around> {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        let keys = foreign_keys(session, &oids)?;
        for key in &keys {
            let sql = format!(
                "ALTER TABLE {} DROP CONSTRAINT {}",
                key.table,
                identifier(&key.name)
            );
            session.execute(&sql).map_err(|failure| {
                busy(failure).context(format!(
                    "the foreign key `{}` of {} is in the way and cannot be taken off for a moment",
                    key.name, key.table
                ))
            })?;
        }
        let triggers = triggers(session, &oids)?;
        for trigger in &triggers {
            session.execute(&format!(
                "ALTER TABLE ONLY {} DISABLE TRIGGER {}",
                trigger.table,
                identifier(&trigger.name)
            ))?;
        }
        Ok(Around {
            oids,
            keys,
            triggers,
        })
    }

    /// Puts triggers and foreign keys back; the foreign keys are checked against every row.
    pub fn put_back(&self, session: &Session) -> Result<()> {
        for trigger in &self.triggers {
            let word = if trigger.always {
                "ENABLE ALWAYS"
            } else {
                "ENABLE"
            };
            session.execute(&format!(
                "ALTER TABLE ONLY {} {word} TRIGGER {}",
                trigger.table,
                identifier(&trigger.name)
            ))?;
        }
        for key in &self.keys {
            let name = identifier(&key.name);
            let sql = format!(
                "ALTER TABLE {} ADD CONSTRAINT {name} {}",
                key.table, key.definition
            );
            session
                .execute_within(WORK_LIMIT, &sql)
                .map_err(|failure| {
                    failure
                        .context(format!(
                            "the foreign key `{}` of {} does not hold with these rows",
                            key.name, key.table
                        ))
                        .hint("restore the table at its other end too: one more --table")
                        .hint(BESIDE)
                })?;
            if let Some(comment) = &key.comment {
                session.execute(&format!(
                    "COMMENT ON CONSTRAINT {name} ON {} IS {}",
                    key.table,
                    literal(comment)
                ))?;
            }
        }
        Ok(())
    }

    /// Moves the tables' own sequences on to where the backup says, where they stand behind it: no
    /// new id may be one that is in the rows. Not undone by a rollback, so it comes last.
    pub fn advance_sequences(&self, session: &Session, recorded: &[Sequence]) -> Result<()> {
        let owned = session.rows(
            "SELECT n.nspname::text, s.relname::text, q.seqincrement
             FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_namespace n ON n.oid = s.relnamespace
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
               AND d.refobjid = ANY ($1) AND d.deptype IN ('a', 'i')",
            &[&self.oids],
        )?;
        for row in &owned {
            let (schema, name): (String, String) = (row.get(0), row.get(1));
            let at = recorded
                .iter()
                .find(|one| one.schema == schema && one.name == name);
            let Some(at) = at else { continue };
            let quoted = format!("{}.{}", identifier(&schema), identifier(&name));
            let order = if row.get::<_, i64>(2) > 0 { "<" } else { ">" };
            session.rows(
                &format!(
                    "SELECT pg_catalog.setval({}::regclass, $1, $2) FROM {quoted}
                     WHERE last_value {order} $1 OR (last_value = $1 AND $2 AND NOT is_called)",
                    literal(&quoted)
                ),
                &[&at.last_value, &at.is_called],
            )?;
        }
        Ok(())
    }
}

/// The foreign keys at either end; of one that a partition has from its parent, the parent's.
fn foreign_keys(session: &Session, oids: &Vec<u32>) -> Result<Vec<ForeignKey>> {
    let rows = session.rows(
        "WITH RECURSIVE up AS (
             SELECT k.oid, k.conparentid FROM pg_constraint k
             WHERE k.contype = 'f' AND (k.conrelid = ANY ($1) OR k.confrelid = ANY ($1))
             UNION
             SELECT k.oid, k.conparentid FROM pg_constraint k JOIN up ON k.oid = up.conparentid)
         SELECT format('%I.%I', n.nspname, c.relname), k.conname::text,
                pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint')
         FROM up JOIN pg_constraint k ON k.oid = up.oid
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE k.conparentid = 0 ORDER BY 1, 2",
        &[oids],
    )?;
    Ok(rows
        .iter()
        .map(|row| ForeignKey {
            table: row.get(0),
            name: row.get(1),
            definition: row.get(2),
            comment: row.get(3),
        })
        .collect())
}

/// The triggers that fire for ordinary sessions; those switched off or for replicas stay so.
fn triggers(session: &Session, oids: &Vec<u32>) -> Result<Vec<Trigger>> {
    let rows = session.rows(
        "SELECT format('%I.%I', n.nspname, c.relname), t.tgname::text, t.tgenabled = 'A'
         FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE t.tgrelid = ANY ($1) AND t.tgenabled IN ('O', 'A')
           AND (NOT t.tgisinternal OR t.tgconstraint = 0) ORDER BY 1, 2",
        &[oids],
    )?;
    Ok(rows
        .iter()
        .map(|row| Trigger {
            table: row.get(0),
            name: row.get(1),
            always: row.get(2),
        })
        .collect())
}

/// Says what to do about a lock that others hold.
fn busy(failure: Failure) -> Failure {
    if !failure.to_string().contains("lock timeout") {
        return failure;
    }
    failure
        .context(format!(
            "other sessions have used the table for the last {} s",
            LOCK_LIMIT_MS / 1000
        ))
        .hint("stop the app for the moment, or look for long transactions: SELECT pid, state, query FROM pg_stat_activity")
}
