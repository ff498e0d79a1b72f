//! What systemd's words mean for whoever waits for a unit.

use super::{POSTGRESQL, Unit};
use crate::check::{Figure, Unit as FigureUnit, Verdict};
use crate::probe::recent::Recent;
use crate::probe::tally::Tally;

/// So many restarts within an hour are a loop.
pub const LOOP_RESTARTS: u64 = 3;

/// Judges a unit. `restarts` is what [`super::remember`] gave for this look.
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
        // A program that systemd follows by its PID file ends by "exit-code" even when it was killed.
        "success" | "exit-code" | "" if unit.by_signal => format!(": signal {}", unit.status),
        "success" | "" if unit.status == 0 => String::new(),
        "success" | "exit-code" | "" => format!(": exit status {}", unit.status),
        "signal" | "core-dump" => format!(": {} {}", unit.result, unit.status),
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
            format!("no PostgreSQL cluster runs, whatever {POSTGRESQL} says"),
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
