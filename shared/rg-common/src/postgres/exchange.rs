//! Exchanges the live database for a fresh one: two renames in one transaction.
//!
//! `ALTER DATABASE … RENAME` first locks the database's name: whoever arrives from then on waits,
//! gets one refusal when the transaction is over, and the new database at the next try. It then
//! waits up to 5 s (PostgreSQL's own limit) for the sessions to end, which are ended from a second
//! connection, and not before the name is locked, so that nobody can come back in between. The
//! promise: the old or the new database under the live name at every moment, and after a failure or
//! a kill everything as before. `ALLOW_CONNECTIONS` is never touched.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::connect::{Connector, Session};
use super::create::identifier;
use super::trouble;
use super::url::DatabaseUrl;
use crate::failure::{Failure, Result};

/// So often the exchange is tried, some 5 s each, while sessions that we may end do not end.
const ATTEMPTS: usize = 3;
/// The longest wait for one attempt: the lock, and 5 s for each of the two renames.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// The longest wait for the lock on a database's name.
const LOCK_LIMIT_MS: u32 = 10_000;
/// Sessions are looked for and ended this often while the rename waits.
const ENDING_PAUSE: Duration = Duration::from_millis(20);
/// A message names up to this many sessions.
const NAMED_SESSIONS: i64 = 5;
/// Databases that exist nearly everywhere, to stand in while others are renamed.
const MAINTENANCE: &[&str] = &["postgres", "template1"];

/// A session with the server's maintenance database, from which others can be made and renamed.
pub fn maintenance(connector: &Connector, url: &DatabaseUrl) -> Result<Session> {
    let mut first = None;
    for name in MAINTENANCE.iter().filter(|name| **name != url.database) {
        match connector.open(&url.with_database(name)) {
            Ok(session) => return Ok(session),
            Err(failure) => first = first.or(Some(failure)),
        }
    }
    Err(first
        .unwrap_or_else(|| Failure::new("there is no maintenance database"))
        .hint(format!(
            "databases are made and renamed from `postgres`: GRANT CONNECT ON DATABASE postgres TO \"{}\"",
            url.user
        )))
}

/// Puts `fresh` under the name `live`; what was there is called `aside` from then on. On a server
/// without `live` it is a plain rename. `admin` is connected to neither of them.
pub fn exchange(admin: &Session, live: &str, fresh: &str, aside: &str) -> Result<()> {
    let what = || format!("cannot exchange database `{live}` for `{fresh}`");
    let plan = plan(admin, live, fresh, aside).map_err(|failure| failure.context(what()))?;
    let watcher = admin.beside(&admin.url().database)?;
    let mut not_ours = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        match attempt(admin, &watcher, &plan).map_err(|failure| failure.context(what()))? {
            Outcome::Done => return Ok(()),
            Outcome::Blocked(pids) => not_ours = pids,
        }
        // Trying again does not give us the right to end them.
        if !not_ours.is_empty() {
            break;
        }
    }
    Err(blockers(&watcher, &plan, &not_ours)
        .unwrap_or_else(|failure| failure)
        .context(what()))
}

/// What is to be renamed; the oids tell afterwards what happened.
struct Plan {
    live: String,
    fresh: String,
    fresh_oid: u32,
    oids: Vec<u32>,
    admin_pid: i32,
    renames: String,
}

fn plan(admin: &Session, live: &str, fresh: &str, aside: &str) -> Result<Plan> {
    let oid = |name: &str| -> Result<Option<u32>> {
        let rows = admin.rows("SELECT oid FROM pg_database WHERE datname = $1", &[&name])?;
        Ok(rows.first().map(|row| row.get(0)))
    };
    let here = &admin.url().database;
    if here == live || here == fresh {
        return Err(Failure::new(format!(
            "the session that renames is connected to `{here}` itself"
        ))
        .hint("a database cannot be renamed from within; the maintenance database is `postgres`"));
    }
    let Some(fresh_oid) = oid(fresh)? else {
        return Err(Failure::new(format!("there is no database `{fresh}`")));
    };
    let live_oid = oid(live)?;
    let (from, to, name) = (identifier(fresh), identifier(live), identifier(aside));
    let mut renames = String::new();
    if live_oid.is_some() {
        refuse_what_hangs_on_it(admin, live)?;
        renames = format!("ALTER DATABASE {to} RENAME TO {name}; ");
    }
    refuse_what_hangs_on_it(admin, fresh)?;
    renames.push_str(&format!("ALTER DATABASE {from} RENAME TO {to}"));
    Ok(Plan {
        live: live.to_owned(),
        fresh: fresh.to_owned(),
        fresh_oid,
        oids: live_oid.into_iter().chain([fresh_oid]).collect(),
        admin_pid: admin.value("SELECT pg_backend_pid()", &[])?,
        renames,
    })
}

/// What ends with no session and would stay with the old database, or hold up its renaming.
fn refuse_what_hangs_on_it(admin: &Session, name: &str) -> Result<()> {
    for (sql, what, remedy) in [
        (
            "SELECT gid::text FROM pg_prepared_xacts WHERE database = $1",
            "prepared transactions",
            "end each in that database: COMMIT PREPARED '…' or ROLLBACK PREPARED '…'",
        ),
        (
            "SELECT s.slot_name::text FROM pg_replication_slots s
             JOIN pg_database d ON d.datname = s.database WHERE d.datname = $1",
            "logical replication slots",
            "subscribers would go on with the old database: SELECT pg_drop_replication_slot('…') and set them up anew afterwards",
        ),
        (
            "SELECT s.subname::text FROM pg_subscription s
             JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1 AND s.subenabled",
            "active subscriptions",
            "in that database: ALTER SUBSCRIPTION … DISABLE",
        ),
    ] {
        let rows = admin.rows(sql, &[&name])?;
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if !found.is_empty() {
            return Err(Failure::new(format!(
                "database `{name}` has {what}: {}",
                found.join(", ")
            ))
            .hint(remedy));
        }
    }
    Ok(())
}

enum Outcome {
    Done,
    /// Sessions did not end in time; these we may not end.
    Blocked(BTreeSet<i32>),
}

fn attempt(admin: &Session, watcher: &Session, plan: &Plan) -> Result<Outcome> {
    // One statement after the other, in one message: the commit only comes on good news.
    let begin = format!(
        "BEGIN; SET LOCAL lock_timeout = {LOCK_LIMIT_MS}; SET LOCAL synchronous_commit = on; {}",
        plan.renames
    );
    let mut not_ours = BTreeSet::new();
    let renaming = admin.connector().handle().block_on(async {
        tokio::select! {
            biased;
            renamed = tokio::time::timeout(ATTEMPT_LIMIT, admin.client().batch_execute(&begin)) => Ok(renamed),
            ended = end_sessions(watcher.client(), plan, &mut not_ours) => Err(ended),
        }
    });
    match renaming {
        Ok(Ok(Ok(()))) => commit(admin, watcher, plan),
        Ok(Ok(Err(error))) => {
            roll_back(admin);
            if error.code() == Some(&SqlState::OBJECT_IN_USE) {
                return Ok(Outcome::Blocked(not_ours));
            }
            Err(refused(admin, plan, error))
        }
        Ok(Err(_)) => {
            roll_back(admin);
            Err(trouble::too_late(admin.url(), &plan.renames, ATTEMPT_LIMIT))
        }
        Err(error) => {
            roll_back(admin);
            Err(trouble::asking(
                watcher.url(),
                "SELECT … FROM pg_stat_activity",
                error,
            ))
        }
    }
}

fn roll_back(admin: &Session) {
    // Where it fails the connection has gone, and the server has rolled back itself.
    if let Err(failure) = admin.execute("ROLLBACK") {
        tracing::debug!("{failure}");
    }
}

/// A commit without an answer may have happened: then the names tell.
fn commit(admin: &Session, watcher: &Session, plan: &Plan) -> Result<Outcome> {
    let Err(failure) = admin.execute("COMMIT") else {
        return Ok(Outcome::Done);
    };
    let under_the_name: Option<u32> = watcher
        .rows(
            "SELECT oid FROM pg_database WHERE datname = $1",
            &[&plan.live],
        )?
        .first()
        .map(|row| row.get(0));
    if under_the_name == Some(plan.fresh_oid) {
        tracing::warn!("the exchange was done, but its answer was lost: {failure}");
        return Ok(Outcome::Done);
    }
    Err(failure)
}

/// Ends the sessions of both databases, again and again, once their names are locked by `admin`.
/// Returns only if it cannot even look.
async fn end_sessions(client: &Client, plan: &Plan, not_ours: &mut BTreeSet<i32>) -> Error {
    // Autovacuum's workers are ended by the rename itself. What kind another role's session is, is
    // hidden from an ordinary role.
    const SESSIONS: &str = "
        SELECT a.pid FROM pg_stat_activity a
        WHERE a.datid = ANY ($1) AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
          AND EXISTS (SELECT FROM pg_locks l
                      WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass
                        AND l.objid = a.datid AND l.pid = $2 AND l.granted
                        AND l.mode = 'AccessExclusiveLock')";
    loop {
        let rows = match client.query(SESSIONS, &[&plan.oids, &plan.admin_pid]).await {
            Ok(rows) => rows,
            Err(error) => return error,
        };
        for row in &rows {
            let pid: i32 = row.get(0);
            let ended = client
                .query("SELECT pg_terminate_backend($1)", &[&pid])
                .await;
            match ended {
                Ok(_) => tracing::debug!(pid, "ended a session for the exchange"),
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    not_ours.insert(pid);
                }
                Err(error) => return error,
            }
        }
        tokio::time::sleep(ENDING_PAUSE).await;
    }
}

fn refused(admin: &Session, plan: &Plan, error: Error) -> Failure {
    let code = error.code().cloned();
    let user = &admin.url().user;
    let failure = trouble::asking(admin.url(), &plan.renames, error);
    match code {
        Some(SqlState::INSUFFICIENT_PRIVILEGE) => failure.hint(format!(
            "renaming needs the ownership of both databases and, as a superuser: ALTER ROLE \"{user}\" CREATEDB"
        )),
        Some(SqlState::LOCK_NOT_AVAILABLE) => failure.hint(
            "another ALTER, CREATE or DROP DATABASE is at work: SELECT pid, query FROM pg_stat_activity",
        ),
        Some(SqlState::DUPLICATE_DATABASE) => {
            failure.hint("a database of that name is there already: drop or rename it first")
        }
        _ => failure,
    }
}

/// The failure that names the sessions which are still there.
fn blockers(watcher: &Session, plan: &Plan, not_ours: &BTreeSet<i32>) -> Result<Failure> {
    let rows = watcher.rows(
        "SELECT pid, format('pid %s (%s%s%s)', pid, coalesce('role ' || usename, backend_type),
                CASE WHEN application_name <> '' THEN ', ' || application_name ELSE '' END,
                coalesce(', from ' || host(client_addr), '')),
                coalesce((SELECT rolsuper FROM pg_roles WHERE oid = usesysid), false)
         FROM pg_stat_activity WHERE datid = ANY ($1) ORDER BY pid LIMIT $2",
        &[&plan.oids, &NAMED_SESSIONS],
    )?;
    let named: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
    let which = if named.is_empty() {
        format!("in {ATTEMPTS} attempts others came in their place")
    } else {
        named.join(", ")
    };
    let failure = Failure::new(format!(
        "sessions of `{}` or `{}` did not end: {which}",
        plan.live, plan.fresh
    ));
    let user = &watcher.url().user;
    let superusers = rows.iter().any(|row| row.get(2));
    Ok(if superusers && !not_ours.is_empty() {
        failure.hint(
            "a superuser's session can only be ended by a superuser: SELECT pg_terminate_backend(PID)",
        )
    } else if !not_ours.is_empty() {
        failure.hint(format!(
            "as a superuser: GRANT pg_signal_backend TO \"{user}\""
        ))
    } else {
        failure.hint("stop the application that holds them, and try again")
    })
}

#[cfg(test)]
mod tests;
