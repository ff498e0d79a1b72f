//! systemd's units: one question for all of them, and what the answer means.
//!
//! "Is it active" is not enough. Debian's `postgresql.service` is a shell that is active whatever
//! its clusters do; a service in a restart loop is active most of the time; one that ended by
//! itself can be `active (exited)`; one that is not enabled is gone after the next boot.

mod judge;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::journal::Journal;
use super::recent::Recent;
use crate::failure::{Failure, OrFail, Result};
use crate::program::Program;
use crate::secret::Secret;
pub use judge::{LOOP_RESTARTS, judge, judge_failed};

/// systemctl must have answered within this time.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The longest answer that is read: about 700 bytes a unit.
const ANSWER_BYTES: usize = 4 << 20;
/// So many lines of a unit's journal are shown with its failure.
pub const EVIDENCE_LINES: usize = 12;
/// Debian's unit that is only a shell, and the units that count in its place.
const POSTGRESQL: &str = "postgresql.service";
const CLUSTERS: &str = "postgresql@*.service";
/// Where Debian keeps the settings of its clusters: `15/main/start.conf`.
const CLUSTER_SETTINGS: &str = "/etc/postgresql";
/// So many clusters are looked at.
const CLUSTERS_MAX: usize = 64;

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
        // A cluster that was stopped is no longer loaded, and no pattern finds it.
        let mut clusters = Vec::new();
        if names
            .iter()
            .any(|name| name == POSTGRESQL || name == "postgresql")
        {
            clusters = clusters_to_run(Path::new(CLUSTER_SETTINGS));
        }
        // Patterns are answered after names, whatever their place.
        let program = program.arg("--").args(names).args(clusters).arg(CLUSTERS);
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

/// The units of the clusters that are to be started with the machine. What cannot be read is left to
/// the pattern.
fn clusters_to_run(settings: &Path) -> Vec<String> {
    let folders = |path: &Path| {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(CLUSTERS_MAX).collect();
        names.sort();
        names
    };
    let mut units = Vec::new();
    for version in folders(settings) {
        for cluster in folders(&settings.join(&version)) {
            let start = settings.join(&version).join(&cluster).join("start.conf");
            let text = std::fs::read_to_string(start).unwrap_or_default();
            let auto = text.lines().any(|line| line.trim() == "auto");
            let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if auto && plain(&version) && plain(&cluster) && units.len() < CLUSTERS_MAX {
                units.push(format!("postgresql@{version}-{cluster}.service"));
            }
        }
    }
    units
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
    for cluster in blocks {
        let cluster = cluster?;
        // One that is to run and does is found by the pattern too.
        if units.clusters.iter().all(|known| known.id != cluster.id) {
            units.clusters.push(cluster);
        }
    }
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

/// The end of a unit's journal, or one line that says why it cannot be shown.
pub fn evidence(journal: &Journal, unit: &str) -> Vec<String> {
    journal
        .tail(unit, EVIDENCE_LINES)
        .unwrap_or_else(|failure| vec![format!("(no journal: {failure})")])
}

#[cfg(test)]
mod tests;
