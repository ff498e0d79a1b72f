//! A whole database restored into itself, for roles that may not create databases.
//!
//! One `psql`, one transaction: everything the role owns is dropped, the dump's SQL is run, and then
//! every table's rows, every sequence and the large objects are compared with what the backup
//! recorded. The promise: `COMMIT` is sent only when all of it is equal; whatever goes wrong before
//! (a dump that breaks, an SQL error, a difference, a kill) leaves the database as it was. The
//! caller makes a safety dump first. Should the dump's text hold a `COMMIT` of its own, the server
//! refuses it.

use std::io::Read;
use std::time::{Duration, Instant};

use rg_common::dump::{DumpFormat, Inventory};
use rg_common::failure::{Failure, OrFail, Result};
use rg_common::postgres::connect::ServerVersion;
use rg_common::postgres::facts::refuse_older_target;
use rg_common::postgres::{Connector, DatabaseUrl, Place, Session};
use rg_common::program::Program;
use rg_common::stop;
use serde::Serialize;

mod clear;
mod compare;
mod feed;
mod sieve;
mod talk;

use feed::{Broken, Feed};
use sieve::Sieve;
use talk::Talk;

/// How long dropping waits for each lock that the app's sessions hold, in milliseconds.
const LOCK_LIMIT_MS: u32 = 30_000;

/// How long the server may take to end the transaction of a client that is gone.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const SETTLE_LOOK: Duration = Duration::from_millis(100);

/// Which database, and what the backup says of its dump.
pub struct InPlace<'a> {
    /// The live database.
    pub url: &'a DatabaseUrl,
    /// Where `psql` and `pg_restore` run.
    pub place: &'a Place,
    /// Opens sessions for facts before, and for the proof of the `COMMIT` after.
    pub connector: &'a Connector,
    /// What the dump holds, from the manifest; its format too.
    pub inventory: &'a Inventory,
}

/// What was restored and compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InPlaceReport {
    /// Tables whose rows are the backup's.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Sequences that stand where the backup says.
    pub sequences: u64,
    /// Large objects with the backup's content.
    pub large_objects: u64,
}

/// Why a database was not restored in place.
pub struct NotRestored {
    /// What went wrong.
    pub failure: Failure,
    /// Whether the database is certainly as it was; otherwise nobody could tell, or a part took effect.
    pub unchanged: bool,
}

/// What fails before `COMMIT` is sent leaves everything as it was.
impl From<Failure> for NotRestored {
    fn from(failure: Failure) -> Self {
        NotRestored {
            failure,
            unchanged: true,
        }
    }
}

/// Replaces the database's content by that of the dump, in one transaction. `dump` is the plain
/// dump from its beginning; an error means that the database is as it was, or says otherwise.
pub fn restore_in_place(
    request: &InPlace<'_>,
    dump: Box<dyn Read + Send>,
) -> Result<InPlaceReport, NotRestored> {
    restored(request, dump).map_err(|broken| NotRestored {
        failure: broken
            .failure
            .context(format!("cannot restore {} in place", request.url.database)),
        ..broken
    })
}

fn restored(
    request: &InPlace<'_>,
    dump: Box<dyn Read + Send>,
) -> Result<InPlaceReport, NotRestored> {
    let inventory = request.inventory;
    let session = request.connector.open(request.url)?;
    let version = session.version();
    check(&session, inventory, version)?;
    let sieve = Sieve::new(&session, inventory.large_objects.count > 0)?;
    session.close();

    let psql = request.place.program("psql", request.url, version)?;
    let pg_restore = match inventory.format {
        DumpFormat::Plain => None,
        DumpFormat::Custom => Some(
            request
                .place
                .program("pg_restore", request.url, version)?
                .arg("--file=-"),
        ),
    };
    let mut talk = Talk::begin(psql, |marker| clear::statements(LOCK_LIMIT_MS, marker))?;
    let transaction = talk
        .answer()
        .map_err(|failure| unchanged(failure, request))?;
    let outcome = fill(&mut talk, request, dump, sieve, pg_restore)
        .and_then(|()| compare::compare(&mut talk, inventory, &transaction));
    let report = match outcome {
        Ok(report) => report,
        Err(failure) => {
            // Without a `COMMIT` the end is a rollback; the failure is already known.
            drop(talk.finish());
            return Err(match status(request, &transaction) {
                Ok(Some(status)) if status == "committed" => NotRestored {
                    failure: failure
                        .context("the dump itself ended the transaction: a part of it took effect")
                        .hint("restore the safety dump, or the backup into an empty database"),
                    unchanged: false,
                },
                _ => unchanged(failure, request).into(),
            });
        }
    };
    let committed = talk
        .ask(&clear::commit(talk.marker()), |_| {})
        .and_then(|()| talk.finish());
    prove(request, &transaction, committed)?;
    Ok(report)
}

/// The dump into the emptied database.
fn fill(
    talk: &mut Talk,
    request: &InPlace<'_>,
    dump: Box<dyn Read + Send>,
    sieve: Sieve,
    pg_restore: Option<Program>,
) -> Result<()> {
    let feed = match pg_restore {
        None => Feed::Plain,
        Some(program) => Feed::Custom(Box::new(program.conversation()?)),
    };
    let poured = talk.pour(|stdin, marker| feed.run(dump, request.inventory, sieve, stdin, marker));
    poured.map_err(|broken| match broken {
        Broken::Before(failure) => failure,
        Broken::Psql => talk.ended(),
    })
}

/// What can be known to fail before anything is touched.
fn check(session: &Session, inventory: &Inventory, target: ServerVersion) -> Result<()> {
    if let Some(because) = &inventory.uncounted_because {
        return Err(Failure::new(format!(
            "what comes out could not be compared with the backup: {because}"
        ))
        .hint("restore it by hand into a database of its own, and look at it there"));
    }
    if inventory.format == DumpFormat::Plain
        && let Some(database) = &inventory.database
    {
        return Err(Failure::new(format!(
            "the dump was made with --create: it would make and enter a database `{database}`"
        ))
        .hint("run it with psql against another server"));
    }
    let major = inventory.server_version.split(['.', ' ']).next();
    if let Some(major) = major.and_then(|word| word.parse::<u32>().ok()) {
        refuse_older_target(ServerVersion(major.saturating_mul(10_000)), target)?;
    }
    let roles: Vec<&str> = inventory.roles.iter().map(String::as_str).collect();
    let missing = session.rows(
        "SELECT wanted FROM unnest($1::text[]) wanted
         WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)",
        &[&roles],
    )?;
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|row| row.get(0)).collect();
        return Err(Failure::new(format!(
            "the backup's objects belong or are granted to roles that this server lacks: {}",
            names.join(", ")
        ))
        .hint("restore `globals` first, or CREATE ROLE them"));
    }
    Ok(())
}

/// The server's own word on whether the transaction took effect.
fn prove(
    request: &InPlace<'_>,
    transaction: &str,
    committed: Result<()>,
) -> Result<(), NotRestored> {
    let failure = match (settled(request, transaction), committed) {
        (Ok(Some(status)), _) if status == "committed" => return Ok(()),
        (Ok(Some(status)), Err(failure)) if status == "aborted" => {
            return Err(failure.context("nothing was changed").into());
        }
        (Ok(_), Err(failure)) => failure.context("the restore may have taken effect or not"),
        (Ok(status), Ok(())) => Failure::new(format!(
            "the server says that the transaction is {}",
            status.as_deref().unwrap_or("not known")
        )),
        (Err(_), Ok(())) => return Ok(()),
        (Err(unknown), Err(failure)) => failure
            .context("the restore may have taken effect or not")
            .hint(format!("the server could not be asked now: {unknown}")),
    };
    Err(NotRestored {
        failure: failure.hint(format!("ask the server: SELECT txid_status({transaction})")),
        unchanged: false,
    })
}

/// The same when the server has had the time to notice that its client is gone.
fn settled(request: &InPlace<'_>, transaction: &str) -> Result<Option<String>> {
    let began = Instant::now();
    loop {
        let status = status(request, transaction)?;
        if status.as_deref() != Some("in progress") || began.elapsed() >= SETTLE_LIMIT {
            return Ok(status);
        }
        stop::pause(SETTLE_LOOK)?;
    }
}

/// What became of a transaction: `committed`, `aborted`, `in progress`.
fn status(request: &InPlace<'_>, transaction: &str) -> Result<Option<String>> {
    let session = request.connector.open(request.url)?;
    let number: i64 = transaction
        .parse()
        .or_fail(|| format!("`{transaction}` is no transaction's number"))?;
    let status = session.value("SELECT txid_status($1)", &[&number])?;
    session.close();
    Ok(status)
}

/// The most common words of `psql`, with the remedy.
fn unchanged(failure: Failure, request: &InPlace<'_>) -> Failure {
    let said = failure.to_string();
    let user = &request.url.user;
    let hint = if said.contains("must be member of role")
        || said.contains("must be able to SET ROLE")
    {
        format!(
            "the backup's owners are kept: GRANT that role TO \"{user}\", or restore as a role that is in all of them"
        )
    } else if said.contains("must be owner of") || said.contains("permission denied") {
        format!(
            "role `{user}` must own what it replaces; ask whoever administers the server, or restore as the owner"
        )
    } else if said.contains("lock timeout") {
        "other sessions use the tables: stop the app, or look at pg_stat_activity".to_owned()
    } else if said.contains("already exists") {
        format!("what another role owns was left in place; `{user}` cannot replace it")
    } else if said.contains("out of shared memory") {
        "raise max_locks_per_transaction on the server: all of it is one transaction".to_owned()
    } else {
        return failure.context("nothing was changed");
    };
    failure.context("nothing was changed").hint(hint)
}
