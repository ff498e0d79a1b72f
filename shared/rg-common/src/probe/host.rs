//! The machine as a whole: memory, swap, pressure, load, what was killed for lack of memory, the
//! clock, the last boot. Facts are /proc's own texts, read from one place, so that those of another
//! machine can be judged too.

mod facts;

use jiff::Timestamp;

use super::journal::Victim;
use super::recent::Recent;
use super::tally::Tally;
use crate::check::{Figure, Unit, Verdict};
use crate::report;
pub use facts::{Clock, Host, Memory, Pressure, clock, read};

/// Less memory available than this share is a warning, than the second a failure.
pub const MEMORY_WARN_PERCENT: f64 = 10.0;
/// See [`MEMORY_WARN_PERCENT`].
pub const MEMORY_FAIL_PERCENT: f64 = 5.0;
/// More swap used than this is a warning, when memory is short too.
pub const SWAP_WARN_PERCENT: f64 = 80.0;
/// Runnable processes for each processor, over five minutes.
pub const LOAD_WARN: f64 = 2.0;
/// See [`LOAD_WARN`].
pub const LOAD_FAIL: f64 = 8.0;
/// Of a minute so many percent stood still for lack of memory.
pub const MEMORY_PRESSURE_WARN: f64 = 10.0;
/// See [`MEMORY_PRESSURE_WARN`].
pub const MEMORY_PRESSURE_FAIL: f64 = 40.0;
/// Of a minute so many percent everything waited for disks.
pub const IO_PRESSURE_WARN: f64 = 50.0;
/// For so long after a boot it is said.
pub const BOOT_SAID_SECONDS: u64 = 3600;

/// Judges memory and swap.
pub fn judge_memory(memory: &Memory) -> Verdict {
    let mut tally = Tally::default();
    let share = memory.available as f64 * 100.0 / memory.total.max(1) as f64;
    let used = Figure::new("used", 100.0 - share, Unit::Percent);
    tally.figure(used.bounds(
        Some(100.0 - MEMORY_WARN_PERCENT),
        Some(100.0 - MEMORY_FAIL_PERCENT),
    ));
    tally.figure(Figure::new(
        "available",
        memory.available as f64,
        Unit::Bytes,
    ));
    let said = format!(
        "{} of {} memory available ({share:.0} %)",
        report::bytes(memory.available),
        report::bytes(memory.total)
    );
    let largest = "ps -eo pid,rss,unit,comm --sort=-rss | head";
    if share < MEMORY_FAIL_PERCENT {
        tally.fail(&said, largest);
    } else if share < MEMORY_WARN_PERCENT {
        tally.warn(&said, largest);
    }
    if memory.swap_total > 0 {
        let used = memory.swap_total.saturating_sub(memory.swap_free);
        let used_share = used as f64 * 100.0 / memory.swap_total as f64;
        tally.figure(Figure::new("swap_used", used_share, Unit::Percent));
        if used_share >= SWAP_WARN_PERCENT && share < 2.0 * MEMORY_WARN_PERCENT {
            tally.warn(
                format!("{used_share:.0} % of the swap space is used"),
                largest,
            );
        }
    }
    tally.settle(said)
}

/// Judges how long work stood still for lack of something; kernels before 4.20, and those that were
/// booted without, do not tell.
pub fn judge_pressure(pressure: Option<&Pressure>) -> Verdict {
    let Some(pressure) = pressure else {
        return Verdict::skip("this kernel tells no pressure (/proc/pressure)");
    };
    let mut tally = Tally::default();
    let memory = Figure::new("memory_full", pressure.memory_full, Unit::Percent);
    tally.figure(memory.bounds(Some(MEMORY_PRESSURE_WARN), Some(MEMORY_PRESSURE_FAIL)));
    let io = Figure::new("io_full", pressure.io_full, Unit::Percent);
    tally.figure(io.bounds(Some(IO_PRESSURE_WARN), None));
    tally.figure(Figure::new("cpu_some", pressure.cpu_some, Unit::Percent));
    let said = format!(
        "for {:.0} % of the last minute everything stood still for lack of memory",
        pressure.memory_full
    );
    let largest = "ps -eo pid,rss,unit,comm --sort=-rss | head";
    if pressure.memory_full >= MEMORY_PRESSURE_FAIL {
        tally.fail(said, largest);
    } else if pressure.memory_full >= MEMORY_PRESSURE_WARN {
        tally.warn(said, largest);
    }
    if pressure.io_full >= IO_PRESSURE_WARN {
        tally.warn(
            format!(
                "for {:.0} % of the last minute everything waited for disks",
                pressure.io_full
            ),
            "iotop -obn 1 || ps -eo pid,stat,wchan:20,comm | grep ' D'",
        );
    }
    tally.settle(format!(
        "stood still: memory {:.0} %, disks {:.0} %",
        pressure.memory_full, pressure.io_full
    ))
}

/// Judges the load over five minutes, by processors.
pub fn judge_load(load: f64, processors: u32) -> Verdict {
    let mut tally = Tally::default();
    let each = load / f64::from(processors.max(1));
    let figure = Figure::new(
        "load_per_processor",
        (each * 100.0).round() / 100.0,
        Unit::Count,
    );
    tally.figure(figure.bounds(Some(LOAD_WARN), Some(LOAD_FAIL)));
    let said = format!("load {load:.1} on {processors} processors");
    let busiest = "ps -eo pid,pcpu,stat,unit,comm --sort=-pcpu | head";
    if each >= LOAD_FAIL {
        tally.fail(&said, busiest);
    } else if each >= LOAD_WARN {
        tally.warn(&said, busiest);
    }
    tally.settle(said)
}

/// What is remembered of /proc/vmstat's `oom_kill` for the next look.
pub fn remember_kills(before: Option<&Recent>, kills: u64, now: Timestamp) -> Recent {
    Recent::after(before, kills, now)
}

/// Judges what the kernel killed within the last hour; `victims` as far as its journal tells.
pub fn judge_kills(kills: &Recent, victims: &[Victim]) -> Verdict {
    let mut tally = Tally::default();
    let count = kills.count();
    let figure = Figure::new("oom_kills_last_hour", count as f64, Unit::Count);
    tally.figure(figure.bounds(None, Some(1.0)));
    if count > 0 {
        let mut names: Vec<String> = Vec::new();
        for victim in victims {
            let name = match &victim.unit {
                Some(unit) => format!("{} of {unit}", victim.process),
                None => victim.process.clone(),
            };
            if !names.contains(&name) && names.len() < 5 {
                names.push(name);
            }
        }
        let who = if names.is_empty() {
            String::new()
        } else {
            format!(": {}", names.join(", "))
        };
        let processes = if count == 1 { "process" } else { "processes" };
        tally.fail(
            format!("the kernel killed {count} {processes} within an hour for lack of memory{who}"),
            "journalctl -k --since -1h | grep -i 'killed process'",
        );
    }
    tally.settle("nothing was killed for lack of memory")
}

/// Judges the clock.
pub fn judge_clock(clock: &Clock) -> Verdict {
    let mut tally = Tally::default();
    if !clock.synchronized && clock.service {
        tally.warn(
            "the clock is not synchronized yet, or its servers do not answer",
            "timedatectl timesync-status || chronyc tracking",
        );
    } else if !clock.synchronized {
        tally.warn(
            "nothing keeps the clock right",
            "timedatectl set-ntp true || apt-get install systemd-timesyncd",
        );
    }
    tally.settle("the clock is synchronized")
}

/// Judges the last boot: `before` is when, at the last look, the machine had been booted.
pub fn judge_boot(boot: Timestamp, before: Option<Timestamp>, uptime_seconds: u64) -> Verdict {
    let mut tally = Tally::default();
    tally.figure(Figure::new("uptime", uptime_seconds as f64, Unit::Seconds));
    // /proc/stat's time of boot moves by a second when the clock is put right.
    let moved = before.is_some_and(|before| boot.duration_since(before).as_secs() > 60);
    if moved || (before.is_some() && uptime_seconds < BOOT_SAID_SECONDS) {
        tally.warn(
            format!(
                "the machine was booted {} ago",
                report::span(uptime_seconds)
            ),
            "last -x reboot shutdown | head; journalctl -b -1 -n 50",
        );
    }
    tally.settle(format!("up for {}", report::span(uptime_seconds)))
}

#[cfg(test)]
mod tests;
