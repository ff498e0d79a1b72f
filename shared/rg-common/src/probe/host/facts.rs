//! /proc's texts (proc(5), Documentation/accounting/psi.rst), and timedatectl's.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::failure::{Failure, OrFail, Result};
use crate::program::Program;
use crate::secret::Secret;

/// A table of /proc is read up to so many bytes.
const TABLE_BYTES: u64 = 1 << 20;
/// timedatectl must have answered within this time.
const CLOCK_LIMIT: Duration = Duration::from_secs(5);

/// What the machine says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Memory and swap.
    pub memory: Memory,
    /// How long work stood still; none where the kernel does not tell.
    pub pressure: Option<Pressure>,
    /// Runnable processes, on average over five minutes.
    pub load: f64,
    /// Processors.
    pub processors: u32,
    /// How many processes were killed for lack of memory since the boot; none before Linux 4.13.
    pub oom_kills: Option<u64>,
    /// When the machine was booted.
    pub boot: Timestamp,
    /// For how long it has been up.
    pub uptime_seconds: u64,
}

/// Memory and swap in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// All memory.
    pub total: u64,
    /// What programs can still get without swapping: MemAvailable, not MemFree.
    pub available: u64,
    /// All swap space; 0 for none.
    pub swap_total: u64,
    /// Of this unused.
    pub swap_free: u64,
}

/// Shares of the last minute in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Some process waited for a processor.
    pub cpu_some: f64,
    /// All processes waited for memory.
    pub memory_full: f64,
    /// All processes waited for disks.
    pub io_full: f64,
}

/// Whether something keeps the clock right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The kernel has been told that the clock is right.
    pub synchronized: bool,
    /// A service for that is on.
    pub service: bool,
}

/// Reads all facts; `proc` is `/proc`.
pub fn read(proc: &Path) -> Result<Host> {
    let stat = text(proc, "stat")?;
    let boot = stat
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|seconds| seconds.trim().parse().ok())
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(|| strange(proc, "stat"))?;
    let processors = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count();
    let load = text(proc, "loadavg")?
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| strange(proc, "loadavg"))?;
    let uptime: f64 = text(proc, "uptime")?
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| strange(proc, "uptime"))?;
    Ok(Host {
        memory: memory(&text(proc, "meminfo")?).ok_or_else(|| strange(proc, "meminfo"))?,
        pressure: pressure(proc),
        load,
        processors: u32::try_from(processors).unwrap_or(1).max(1),
        oom_kills: text(proc, "vmstat")?
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|count| count.trim().parse().ok()),
        boot,
        uptime_seconds: uptime as u64,
    })
}

fn text(proc: &Path, name: &str) -> Result<String> {
    let path = proc.join(name);
    let what = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&path).or_fail(what)?;
    file.take(TABLE_BYTES)
        .read_to_end(&mut bytes)
        .or_fail(what)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn strange(proc: &Path, name: &str) -> Failure {
    Failure::new(format!("{} is not understood", proc.join(name).display()))
}

fn memory(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes << 10)
    };
    Some(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable")?,
        swap_total: bytes("SwapTotal").unwrap_or(0),
        swap_free: bytes("SwapFree").unwrap_or(0),
    })
}

fn pressure(proc: &Path) -> Option<Pressure> {
    let share = |file: &str, kind: &str| {
        let text = text(proc, &format!("pressure/{file}")).ok()?;
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let share = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("avg60="))?;
        share.parse().ok()
    };
    Some(Pressure {
        cpu_some: share("cpu", "some")?,
        memory_full: share("memory", "full")?,
        io_full: share("io", "full")?,
    })
}

/// Asks timedatectl, which knows of any service that sets the kernel's clock.
pub fn clock(timedatectl: &Program) -> Result<Clock> {
    let program = timedatectl
        .clone()
        .args(["show", "-p", "NTP", "-p", "NTPSynchronized"]);
    let program = program.env("LC_ALL", Secret::new("C"));
    let text = program.output_within(64 << 10, CLOCK_LIMIT);
    let text = text.map_err(|failure| {
        failure
            .context("cannot ask whether the clock is synchronized")
            .hint("try `timedatectl`")
    })?;
    let text = String::from_utf8_lossy(&text);
    let says = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.ok_or_else(|| Failure::new(format!("timedatectl does not tell {name}")))
    };
    Ok(Clock {
        synchronized: says("NTPSynchronized")? == "yes",
        service: says("NTP")? == "yes",
    })
}
