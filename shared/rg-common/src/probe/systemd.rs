//! systemd's units: one question for all of them, and what the answer means.
//!
//! "Is it active" is not enough. Debian's `postgresql.service` is a shell that is active whatever
//! its clusters do; a service in a restart loop is active most of the time; one that ended by
//! itself can be `active (exited)`; one that is not enabled is gone after the next boot.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::journal::Journal;
use super::recent::Recent;
use super::tally::Tally;
use crate::check::{Figure, Unit as FigureUnit, Verdict};
use crate::failure::{Failure, OrFail, Result};
use crate::program::Program;
use crate::secret::Secret;

/// systemctl must have answered within this time.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read: about 700 bytes a unit.
const ANSWER_BYTES: usize = 4 << 20;
/// So many restarts within an hour are a loop.
pub const LOOP_RESTARTS: u64 = 3;
/// So many lines of a unit's journal are shown with its failure.
pub const EVIDENCE_LINES: usize = 12;
/// Debian's unit that is only a shell, and the units that count in its place.
const POSTGRESQL: &str = "postgresql.service";
const CLUSTERS: &str = "postgresql@*.service";

const PROPERTIES: &str = "Id,LoadState,ActiveState,SubState,Result,Type,NRestarts,MainPID,\
    ExecMainStartTimestampMonotonic,ExecMainStatus,ExecMainCode,NeedDaemonReload,UnitFileState,\
    TriggeredBy,WantedBy,RequiredBy";

/// What systemd says of a unit. Words are systemd's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its full name: `rgrid-api-production.service`.
    pub id: String,
    /// `loaded`, `not-found`, `masked`, `bad-setting`, `error`.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, `deactivating`, `reloading`.
    pub active: String,
    /// `running`, `exited`, `dead`, `auto-restart`, `waiting`, …
    pub sub: String,
    /// How it last ended: `success`, `exit-code`, `signal`, `timeout`, `oom-kill`, …
    pub result: String,
    /// `simple`, `notify`, `oneshot`, …; empty for timers and the like.
    pub kind: String,
    /// How often systemd restarted it by itself since it was last started by somebody.
    pub restarts: u64,
    /// Its main process; 0 for none.
    pub main_pid: u64,
    /// When its main process last started, in microseconds since boot; 0 for never.
    pub started_us: u64,
    /// The exit status or the signal of its last main process.
    pub status: i64,
    /// Whether `status` is a signal.
    pub by_signal: bool,
    /// Whether its file has changed since it was loaded.
    pub needs_reload: bool,
    /// `enabled`, `disabled`, `static`, …
    pub file: String,
    /// Whether another unit starts it: a timer, a socket, a target.
    pub is_wanted: bool,
}

/// All that was asked for, and the PostgreSQL clusters behind Debian's shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    /// By the name that was asked for.
    pub asked: BTreeMap<String, Unit>,
    /// `postgresql@15-main.service`, … as far as they are loaded.
    pub clusters: Vec<Unit>,
}

/// The program that is asked: systemctl.
#[derive(Clone)]
pub struct Systemd(Program);

impl Default for Systemd {
    fn default() -> Self {
        Systemd::by(Program::new("systemctl"))
    }
}

impl Systemd {
    /// Another program in systemctl's place.
    pub fn by(program: Program) -> Systemd {
        // Bad words are told from good ones by their English names.
        Systemd(program.env("LC_ALL", Secret::new("C")))
    }

    /// Asks for all units at once. An error is our inability to ask, never a unit's state.
    pub fn units(&self, names: &[String]) -> Result<Units> {
        if let Some(name) = names.iter().find(|n| n.contains(['*', '?', '['])) {
            return Err(Failure::new(format!("`{name}` is a pattern, not a unit"))
                .hint("name each unit in rg.toml: `systemctl list-units` shows them"));
        }
        if names.is_empty() {
            return Ok(Units::default());
        }
        let program = self
            .0
            .clone()
            .args(["show", "--no-pager", "-p", PROPERTIES]);
        // Patterns are answered after names, whatever their place.
        let program = program.arg("--").args(names).arg(CLUSTERS);
        let text = program.output_within(ANSWER_BYTES, ANSWER_LIMIT);
        let text = text.map_err(no_systemd)?;
        parse(&String::from_utf8_lossy(&text), names)
    }

    /// The names of all units that have failed.
    pub fn failed(&self) -> Result<Vec<String>> {
        let program = self.0.clone().args([
            "list-units",
            "--state=failed",
            "--all",
            "--plain",
            "--no-legend",
            "--no-pager",
            "--full",
        ]);
        let text = program.output_within(ANSWER_BYTES, ANSWER_LIMIT);
        let text = text.map_err(no_systemd)?;
        let text = String::from_utf8_lossy(&text);
        let first = text
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(first.map(str::to_owned).collect())
    }
}

fn no_systemd(failure: Failure) -> Failure {
    let booted_otherwise = failure.to_string().contains("not been booted with systemd");
    let failure = failure.context("cannot ask systemd");
    if booted_otherwise {
        failure.hint("this machine runs no systemd: take the units out of rg.toml")
    } else {
        failure.hint("try `systemctl is-system-running`")
    }
}

fn parse(text: &str, names: &[String]) -> Result<Units> {
    let mut blocks = text
        .split("\n\n")
        .filter(|block| !block.trim().is_empty())
        .map(parse_unit);
    let mut units = Units::default();
    for name in names {
        let unit = blocks.next().transpose()?;
        let unit = unit.ok_or_else(|| Failure::new(format!("systemctl says nothing of {name}")))?;
        units.asked.insert(name.clone(), unit);
    }
    units.clusters = blocks.collect::<Result<_>>()?;
    Ok(units)
}

fn parse_unit(block: &str) -> Result<Unit> {
    let mut unit = Unit::default();
    for line in block.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let number = || {
            let what = || format!("systemctl says {line}");
            // "[not set]" is what a unit without processes says.
            value.parse::<u64>().or_else(|error| match value {
                "" | "[not set]" => Ok(0),
                _ => Err(error).or_fail(what),
            })
        };
        match name {
            "Id" => unit.id = value.to_owned(),
            "LoadState" => unit.load = value.to_owned(),
            "ActiveState" => unit.active = value.to_owned(),
            "SubState" => unit.sub = value.to_owned(),
            "Result" => unit.result = value.to_owned(),
            "Type" => unit.kind = value.to_owned(),
            "UnitFileState" => unit.file = value.to_owned(),
            "NRestarts" => unit.restarts = number()?,
            "MainPID" => unit.main_pid = number()?,
            "ExecMainStartTimestampMonotonic" => unit.started_us = number()?,
            "ExecMainStatus" => unit.status = value.parse().unwrap_or_default(),
            // CLD_KILLED and CLD_DUMPED of waitid(2).
            "ExecMainCode" => unit.by_signal = value == "2" || value == "3",
            "NeedDaemonReload" => unit.needs_reload = value == "yes",
            "TriggeredBy" | "WantedBy" | "RequiredBy" => unit.is_wanted |= !value.is_empty(),
            _ => {}
        }
    }
    if unit.load.is_empty() || unit.active.is_empty() {
        let first = block.lines().next().unwrap_or_default();
        return Err(Failure::new(format!(
            "systemctl's answer is not understood: {first}"
        )));
    }
    Ok(unit)
}

/// What is remembered of a unit for its next look.
pub fn remember(before: Option<&Recent>, unit: &Unit, now: Timestamp) -> Recent {
    Recent::after(before, unit.restarts, now)
}

/// Judges a unit. `restarts` is what [`remember`] gave for this look.
pub fn judge(unit: &Unit, clusters: &[Unit], restarts: &Recent) -> Verdict {
    if unit.id == POSTGRESQL && unit.kind == "oneshot" && unit.load == "loaded" {
        return judge_clusters(clusters);
    }
    let mut tally = Tally::default();
    let lately = restarts.count();
    judge_state(unit, &mut tally);
    let seen = Figure::new("restarts_last_hour", lately as f64, FigureUnit::Count);
    tally.figure(seen.bounds(Some(1.0), Some(LOOP_RESTARTS as f64)));
    let journal = format!("journalctl -u {} -n 50", unit.id);
    if lately >= LOOP_RESTARTS {
        tally.fail(
            format!(
                "{} was restarted {lately} times within an hour: it restarts in a loop{}",
                unit.id,
                ending(unit)
            ),
            journal,
        );
    } else if lately > 0 {
        let times = if lately == 1 { "once" } else { "twice" };
        tally.warn(
            format!(
                "{} ended and was restarted {times} within an hour{}",
                unit.id,
                ending(unit)
            ),
            journal,
        );
    }
    if unit.needs_reload {
        tally.warn(
            format!("the file of {} has changed since it was loaded", unit.id),
            format!("systemctl daemon-reload && systemctl restart {}", unit.id),
        );
    }
    if unit.file == "disabled" && !unit.is_wanted && unit.active == "active" {
        tally.warn(
            format!(
                "{} is not enabled: it will not come up after a boot",
                unit.id
            ),
            format!("systemctl enable {}", unit.id),
        );
    }
    tally.settle(format!("{} is {} ({})", unit.id, unit.active, unit.sub))
}

fn judge_state(unit: &Unit, tally: &mut Tally) {
    let Unit {
        id, active, sub, ..
    } = unit;
    match unit.load.as_str() {
        "loaded" => {}
        "not-found" => {
            let near = id.split(['-', '@', '.']).next().unwrap_or(id);
            let fix = format!("systemctl list-unit-files '*{near}*'");
            return tally.fail(format!("there is no unit {id}"), fix);
        }
        "masked" => {
            let fix = format!("systemctl unmask {id} && systemctl start {id}");
            return tally.fail(format!("{id} is masked: it cannot be started"), fix);
        }
        other => {
            let fix = format!("systemd-analyze verify {id}");
            return tally.fail(format!("{id} cannot be loaded: {other}"), fix);
        }
    }
    let start = format!("systemctl start {id}");
    let journal = format!("journalctl -u {id} -n 50");
    let service = id.ends_with(".service");
    match (active.as_str(), sub.as_str()) {
        (_, "auto-restart" | "auto-restart-queued") => tally.fail(
            format!("{id} ended and waits to be restarted{}", ending(unit)),
            journal,
        ),
        ("active", "exited") if service && unit.kind != "oneshot" => tally.fail(
            format!("{id} is active, but its process has ended{}", ending(unit)),
            journal,
        ),
        ("active" | "reloading", _) => {}
        ("failed", _) => tally.fail(format!("{id} has failed{}", ending(unit)), journal),
        ("activating", _) if unit.kind == "oneshot" => {}
        ("activating", _) => tally.warn(format!("{id} is still starting ({sub})"), journal),
        ("deactivating", _) => tally.warn(format!("{id} is stopping ({sub})"), journal),
        // What a timer starts is idle most of the time.
        ("inactive", _) if unit.kind == "oneshot" && unit.is_wanted && unit.result == "success" => {
        }
        ("inactive", _) => tally.fail(format!("{id} is not running"), start),
        (other, _) => tally.fail(format!("{id} is {other} ({sub})"), start),
    }
}

/// `: exit status 3`, `: signal 9`, `: oom-kill`, or nothing.
fn ending(unit: &Unit) -> String {
    match unit.result.as_str() {
        "exit-code" => format!(": exit status {}", unit.status),
        "signal" | "core-dump" => format!(": {} {}", unit.result, unit.status),
        "success" | "" if unit.status != 0 && unit.by_signal => format!(": signal {}", unit.status),
        "success" | "" if unit.status != 0 => format!(": exit status {}", unit.status),
        "success" | "" => String::new(),
        other => format!(": {other}"),
    }
}

fn judge_clusters(clusters: &[Unit]) -> Verdict {
    let mut tally = Tally::default();
    let up = |unit: &&Unit| unit.active == "active" && unit.sub == "running";
    let running: Vec<&str> = clusters
        .iter()
        .filter(up)
        .map(|unit| unit.id.as_str())
        .collect();
    tally.figure(Figure::new(
        "clusters",
        running.len() as f64,
        FigureUnit::Count,
    ));
    if clusters.is_empty() {
        tally.fail(
            format!("no PostgreSQL cluster runs; {POSTGRESQL} is active whether one does or not"),
            "pg_lsclusters",
        );
    }
    for unit in clusters.iter().filter(|unit| !up(unit)) {
        tally.fail(
            format!(
                "{} is {} ({}){}",
                unit.id,
                unit.active,
                unit.sub,
                ending(unit)
            ),
            format!("systemctl start {}", unit.id),
        );
    }
    tally.settle(format!("{} runs", running.join(", ")))
}

/// Judges the list of failed units: ours would feed the next run, and is left out. A failed unit of
/// the rg tools is a failure, as is one that is checked anyway; any other is a warning.
pub fn judge_failed(failed: &[String]) -> Verdict {
    let mut tally = Tally::default();
    let others: Vec<&String> = failed
        .iter()
        .filter(|id| !id.starts_with("rg-healthcheck"))
        .collect();
    let count = Figure::new("failed", others.len() as f64, FigureUnit::Count);
    tally.figure(count.bounds(Some(1.0), None));
    for id in &others {
        let fix = format!("journalctl -u {id} -n 50; after the cure: systemctl reset-failed {id}");
        if id.starts_with("rg-") {
            tally.fail(format!("{id} has failed"), fix);
        } else {
            tally.warn(format!("{id} has failed"), fix);
        }
    }
    tally.settle("no unit has failed")
}

/// The end of a unit's journal, or one line that says why it cannot be shown.
pub fn evidence(journal: &Journal, unit: &str) -> Vec<String> {
    journal
        .tail(unit, EVIDENCE_LINES)
        .unwrap_or_else(|failure| vec![format!("(no journal: {failure})")])
}

#[cfg(test)]
mod tests;
