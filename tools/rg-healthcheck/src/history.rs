//! What was found before: samples of the last days, sums of each hour, and every change of state.
//!
//! One SQLite file, bounded in rows and in bytes. It serves `status` and `report`; no check and no
//! alert depends on it: a damaged or full history is said, put aside, and begun anew.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rg_common::check::{Finding, State};
use rg_common::{Failure, OrFail, Result};
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

/// Single samples are kept for this long; after it only the sums of their hour.
const SAMPLES_KEPT: Duration = Duration::from_secs(48 * 3600);
/// The most samples at once: 500 checks each minute for 48 hours.
const SAMPLES_MAX: i64 = 1_500_000;
/// The most changes of state that are kept: a flapping check must not fill the disk.
const CHANGES_MAX: i64 = 100_000;
/// The file grows to this at most.
const BYTES_MAX: i64 = 256 << 20;
const PAGE_BYTES: i64 = 4096;
/// A round that comes so long after the one before forgets nothing yet: 30 days.
const GAP_SECONDS: i64 = 30 * 86_400;
/// How long another process (a backup of the file, a second run) is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// What is kept of a finding's text.
const FOUND_CHARS: usize = 500;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS checks (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, environment TEXT, about TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    at INTEGER NOT NULL, check_id INTEGER NOT NULL, state INTEGER NOT NULL, took_ms INTEGER NOT NULL,
    PRIMARY KEY (check_id, at)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS samples_by_time ON samples (at);
CREATE TABLE IF NOT EXISTS hours (
    hour INTEGER NOT NULL, check_id INTEGER NOT NULL,
    pass INTEGER NOT NULL DEFAULT 0, warn INTEGER NOT NULL DEFAULT 0, unknown INTEGER NOT NULL DEFAULT 0,
    fail INTEGER NOT NULL DEFAULT 0, took_ms INTEGER NOT NULL DEFAULT 0, took_ms_max INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (check_id, hour)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hours_by_time ON hours (hour);
CREATE TABLE IF NOT EXISTS changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, check_id INTEGER NOT NULL, at INTEGER NOT NULL,
    state INTEGER NOT NULL, found TEXT NOT NULL, because TEXT);
CREATE INDEX IF NOT EXISTS changes_by_check ON changes (check_id, seq);
PRAGMA user_version = 1;
";

/// The history of this machine's checks.
pub struct History {
    db: Connection,
    /// What was wrong with the file that was there, if it was put aside.
    pub put_aside: Option<String>,
}

/// How a check did over a span of time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Uptime {
    /// Rounds in which it was looked at and was not bad.
    pub well: u64,
    /// Rounds in which it had failed.
    pub failed: u64,
    /// Rounds in which nobody could tell; not in the share.
    pub unknown: u64,
}

impl Uptime {
    /// The share of rounds that were well, of 100; none where nobody looked.
    pub fn percent(&self) -> Option<f64> {
        let looked = self.well + self.failed;
        (looked > 0).then(|| self.well as f64 * 100.0 / looked as f64)
    }
}

/// The time from the first failure to the end of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// The check.
    pub check: String,
    /// Its environment.
    pub environment: Option<String>,
    /// When it was first found.
    pub began: Timestamp,
    /// When it was found well again; none while it lasts.
    pub ended: Option<Timestamp>,
    /// What was found at first.
    pub found: String,
    /// The check that was its cause.
    pub because: Option<String>,
}

/// One hour of a check's durations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hour {
    /// Its begin.
    pub at: Timestamp,
    /// The mean in milliseconds.
    pub mean_ms: f64,
    /// The longest in milliseconds.
    pub max_ms: u64,
    /// The worst state in it.
    pub worst: State,
}

impl History {
    /// Opens `folder/history.db`; one that cannot be read is put aside, which is said in `put_aside`.
    pub fn open(folder: &Path) -> Result<History> {
        let path = folder.join("history.db");
        match connect(&path) {
            Ok(db) => Ok(History {
                db,
                put_aside: None,
            }),
            Err(why) if why.damaged => {
                let aside = put_aside(&path)?;
                let db = connect(&path).map_err(|why| why.failure)?;
                let told = format!(
                    "the history was damaged ({}); it lies in {} and a new one was begun",
                    why.failure,
                    aside.display()
                );
                Ok(History {
                    db,
                    put_aside: Some(told),
                })
            }
            Err(why) => Err(why.failure),
        }
    }

    /// Remembers a round, in one transaction. What is older than `keep` is forgotten.
    pub fn record(&mut self, at: Timestamp, findings: &[Finding], keep: Duration) -> Result<()> {
        let what = || "cannot remember the round".to_owned();
        let now = at.as_second();
        let step = self.db.transaction().or_fail(what)?;
        for finding in findings {
            let id = check_id(&step, finding).or_fail(what)?;
            let last: Option<i64> = step
                .prepare_cached(
                    "SELECT state FROM changes WHERE check_id = ?1 ORDER BY seq DESC LIMIT 1",
                )
                .and_then(|mut q| q.query_row([id], |row| row.get(0)).optional())
                .or_fail(what)?;
            let state = number(finding.state);
            if last != Some(state) {
                step.prepare_cached(
                    "INSERT INTO changes (check_id, at, state, found, because) VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .and_then(|mut q| {
                    q.execute(params![id, now, state, shortened(&finding.found), finding.because])
                })
                .or_fail(what)?;
            }
            if finding.state == State::Skip {
                continue;
            }
            let took = i64::try_from(finding.took_ms).unwrap_or(i64::MAX);
            // A clock that went back meets its own samples: the newer word counts.
            step.prepare_cached(
                "INSERT OR REPLACE INTO samples (at, check_id, state, took_ms) VALUES (?1, ?2, ?3, ?4)",
            )
            .and_then(|mut q| q.execute(params![now, id, state, took]))
            .or_fail(what)?;
            let is = |wanted: State| i64::from(finding.state == wanted);
            step.prepare_cached(
                "INSERT INTO hours (hour, check_id, pass, warn, unknown, fail, took_ms, took_ms_max)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)
                 ON CONFLICT (check_id, hour) DO UPDATE SET pass = pass + excluded.pass,
                 warn = warn + excluded.warn, unknown = unknown + excluded.unknown,
                 fail = fail + excluded.fail, took_ms = took_ms + excluded.took_ms,
                 took_ms_max = max(took_ms_max, excluded.took_ms_max)",
            )
            .and_then(|mut q| {
                q.execute(params![
                    now.div_euclid(3600) * 3600,
                    id,
                    is(State::Pass),
                    is(State::Warn),
                    is(State::Unknown),
                    is(State::Fail),
                    took
                ])
            })
            .or_fail(what)?;
        }
        forget(&step, now, keep).or_fail(what)?;
        step.commit().or_fail(what)
    }

    /// The checks that are known, with their environment and what they look at.
    pub fn checks(&self) -> Result<Vec<(String, Option<String>, String)>> {
        let what = || "cannot read the history".to_owned();
        let mut query = self
            .db
            .prepare("SELECT name, environment, about FROM checks ORDER BY id")
            .or_fail(what)?;
        let rows = query
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .or_fail(what)?;
        rows.collect::<rusqlite::Result<_>>().or_fail(what)
    }

    /// How a check did since then, by the hour.
    pub fn uptime(&self, check: &str, since: Timestamp) -> Result<Uptime> {
        self.db
            .prepare_cached(
                "SELECT coalesce(sum(pass + warn), 0), coalesce(sum(fail), 0), coalesce(sum(unknown), 0)
                 FROM hours JOIN checks ON checks.id = check_id WHERE name = ?1 AND hour >= ?2",
            )
            .and_then(|mut query| {
                query.query_row(params![check, since.as_second().div_euclid(3600) * 3600], |row| {
                    Ok(Uptime {
                        well: row.get::<_, i64>(0)?.unsigned_abs(),
                        failed: row.get::<_, i64>(1)?.unsigned_abs(),
                        unknown: row.get::<_, i64>(2)?.unsigned_abs(),
                    })
                })
            })
            .or_fail(|| "cannot read the history".to_owned())
    }

    /// A check's hours since then, the oldest first.
    pub fn hours(&self, check: &str, since: Timestamp) -> Result<Vec<Hour>> {
        let what = || "cannot read the history".to_owned();
        let mut query = self
            .db
            .prepare_cached(
                "SELECT hour, pass + warn + unknown + fail, took_ms, took_ms_max, fail, unknown, warn
                 FROM hours JOIN checks ON checks.id = check_id
                 WHERE name = ?1 AND hour >= ?2 ORDER BY hour",
            )
            .or_fail(what)?;
        let rows = query
            .query_map(params![check, since.as_second()], |row| {
                let count: i64 = row.get(1)?;
                let sum: i64 = row.get(2)?;
                let worst = match (row.get(4)?, row.get(5)?, row.get(6)?) {
                    (1i64.., _, _) => State::Fail,
                    (_, 1i64.., _) => State::Unknown,
                    (_, _, 1i64..) => State::Warn,
                    _ => State::Pass,
                };
                Ok(Hour {
                    at: Timestamp::from_second(row.get(0)?).unwrap_or_default(),
                    mean_ms: sum as f64 / (count.max(1)) as f64,
                    max_ms: row.get::<_, i64>(3)?.unsigned_abs(),
                    worst,
                })
            })
            .or_fail(what)?;
        rows.collect::<rusqlite::Result<_>>().or_fail(what)
    }

    /// The incidents that were not over at `since`, the newest first, at most `limit`.
    pub fn incidents(&self, since: Timestamp, limit: usize) -> Result<Vec<Incident>> {
        let what = || "cannot read the history".to_owned();
        let mut query = self
            .db
            .prepare(
                "SELECT name, environment, at, state, found, because FROM changes
                 JOIN checks ON checks.id = check_id ORDER BY check_id, seq",
            )
            .or_fail(what)?;
        let mut rows = query.query([]).or_fail(what)?;
        let mut all: Vec<Incident> = Vec::new();
        let mut open: Option<Incident> = None;
        while let Some(row) = rows.next().or_fail(what)? {
            let check: String = row.get(0).or_fail(what)?;
            let at = Timestamp::from_second(row.get(2).or_fail(what)?).unwrap_or_default();
            let failed = row.get::<_, i64>(3).or_fail(what)? == number(State::Fail);
            if open
                .as_ref()
                .is_some_and(|incident| incident.check != check)
            {
                all.extend(open.take());
            }
            match (&mut open, failed) {
                (None, true) => {
                    open = Some(Incident {
                        check,
                        environment: row.get(1).or_fail(what)?,
                        began: at,
                        ended: None,
                        found: row.get(4).or_fail(what)?,
                        because: row.get(5).or_fail(what)?,
                    });
                }
                (Some(_), false) => {
                    if let Some(mut incident) = open.take() {
                        incident.ended = Some(at.max(incident.began));
                        all.push(incident);
                    }
                }
                _ => {}
            }
        }
        all.extend(open);
        all.retain(|incident| incident.ended.is_none_or(|ended| ended >= since));
        all.sort_by_key(|incident| std::cmp::Reverse(incident.began));
        all.truncate(limit);
        Ok(all)
    }

    /// The last sample of each check: its state, when, and what it found when it changed to that.
    pub fn last(&self) -> Result<Vec<(String, State, Timestamp, String)>> {
        let what = || "cannot read the history".to_owned();
        let mut query = self
            .db
            .prepare(
                "SELECT name, state, (SELECT max(at) FROM samples WHERE samples.check_id = checks.id), found, at
                 FROM checks JOIN changes ON changes.seq =
                 (SELECT max(seq) FROM changes WHERE check_id = checks.id) ORDER BY checks.id",
            )
            .or_fail(what)?;
        let rows = query
            .query_map([], |row| {
                let seen: Option<i64> = row.get(2)?;
                let changed: i64 = row.get(4)?;
                Ok((
                    row.get(0)?,
                    state(row.get(1)?),
                    Timestamp::from_second(seen.unwrap_or(changed)).unwrap_or_default(),
                    row.get(3)?,
                ))
            })
            .or_fail(what)?;
        rows.collect::<rusqlite::Result<_>>().or_fail(what)
    }
}

struct Refused {
    failure: Failure,
    damaged: bool,
}

fn connect(path: &Path) -> std::result::Result<Connection, Refused> {
    let refused = |error: rusqlite::Error| {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let damaged = matches!(
            error.sqlite_error_code(),
            Some(DatabaseCorrupt | NotADatabase)
        );
        Refused {
            failure: Failure::because(format!("cannot open the history {}", path.display()), error),
            damaged,
        }
    };
    let db = Connection::open(path).map_err(refused)?;
    let prepare = || {
        db.busy_timeout(BUSY)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.pragma_update(None, "max_page_count", BYTES_MAX / PAGE_BYTES)?;
        db.execute_batch(SCHEMA)?;
        // A file that was torn shows it here, not in the middle of a report.
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    };
    match prepare() {
        Ok(word) if word == "ok" => Ok(db),
        Ok(word) => Err(Refused {
            failure: Failure::new(word),
            damaged: true,
        }),
        Err(error) => Err(refused(error)),
    }
}

fn put_aside(path: &Path) -> Result<PathBuf> {
    let aside = path.with_extension("db.damaged");
    let what = || format!("cannot put {} aside", path.display());
    std::fs::rename(path, &aside).or_fail(what)?;
    for beside in ["db-wal", "db-shm"] {
        match std::fs::remove_file(path.with_extension(beside)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::because(what(), error));
            }
            _ => {}
        }
    }
    Ok(aside)
}

fn check_id(db: &Connection, finding: &Finding) -> rusqlite::Result<i64> {
    let known = db
        .prepare_cached("SELECT id FROM checks WHERE name = ?1")?
        .query_row([&finding.id], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(id),
        None => {
            db.prepare_cached("INSERT INTO checks (name, environment, about) VALUES (?1, ?2, ?3)")?
                .execute(params![finding.id, finding.environment, finding.about])?;
            Ok(db.last_insert_rowid())
        }
    }
}

/// Forgets what is too old, and the oldest of what is too much. What lies in the future by a clock
/// that went wrong would never grow old: it goes as well.
fn forget(db: &Connection, now: i64, keep: Duration) -> rusqlite::Result<()> {
    let back = |span: Duration| now - i64::try_from(span.as_secs()).unwrap_or(i64::MAX / 2);
    let ahead = now + 86_400;
    // After a long gap the clock may be the one that is wrong: the next round will tell.
    let before: Option<i64> =
        db.query_row("SELECT max(at) FROM samples WHERE at < ?1", [now], |row| {
            row.get(0)
        })?;
    if before.is_some_and(|before| now - before > GAP_SECONDS) {
        return Ok(());
    }
    db.prepare_cached("DELETE FROM samples WHERE at < ?1 OR at > ?2")?
        .execute(params![back(SAMPLES_KEPT), ahead])?;
    db.prepare_cached("DELETE FROM hours WHERE hour < ?1 OR hour > ?2")?
        .execute(params![back(keep), ahead])?;
    let samples: i64 = db.query_row("SELECT count(*) FROM samples", [], |row| row.get(0))?;
    if samples > SAMPLES_MAX {
        db.prepare_cached(
            "DELETE FROM samples WHERE at <= (SELECT at FROM samples ORDER BY at LIMIT 1 OFFSET ?1)",
        )?
        .execute([samples - SAMPLES_MAX])?;
    }
    // A check's last change says in which state it is: it stays, whatever its age.
    db.prepare_cached(
        "DELETE FROM changes WHERE (at < ?1 OR seq <= (SELECT max(seq) FROM changes) - ?2)
         AND seq <> (SELECT max(seq) FROM changes AS same WHERE same.check_id = changes.check_id)",
    )?
    .execute(params![back(keep), CHANGES_MAX])?;
    db.prepare_cached(
        "DELETE FROM checks WHERE id NOT IN (SELECT check_id FROM hours)
         AND id NOT IN (SELECT check_id FROM changes WHERE at >= ?1)",
    )?
    .execute([back(keep)])?;
    db.prepare_cached("DELETE FROM changes WHERE check_id NOT IN (SELECT id FROM checks)")?
        .execute([])?;
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(FOUND_CHARS).collect()
}

fn number(state: State) -> i64 {
    match state {
        State::Pass => 0,
        State::Skip => 1,
        State::Warn => 2,
        State::Unknown => 3,
        State::Fail => 4,
    }
}

fn state(number: i64) -> State {
    match number {
        0 => State::Pass,
        1 => State::Skip,
        2 => State::Warn,
        4 => State::Fail,
        _ => State::Unknown,
    }
}

#[cfg(test)]
mod tests;
