//! File systems: room for bytes and for files, whether they can be written, and when they will be full.
//!
//! Room is what an ordinary user may still use (`f_bavail`, as `df` shows it). Looked at are the
//! file systems of real devices, each once, wherever it is mounted; what is always full (squashfs)
//! or not of this machine is not.

mod fill;
mod mounts;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;

use super::tally::Tally;
use crate::check::{Figure, Unit, Verdict};
use crate::failure::{Failure, OrFail, Result};
use crate::report;
pub use fill::Samples;
use mounts::Mount;

/// A file system must have answered within this time; a lost network drive never does.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// From so many percent used on it is a warning.
pub const WARN_PERCENT: f64 = 80.0;
/// From so many percent used on it is a failure.
pub const FAIL_PERCENT: f64 = 90.0;
/// Full within this time at the pace of the last day: a warning.
pub const WARN_FULL_HOURS: f64 = 48.0;
/// Full within this time: a failure, when it is as full as a warning already.
pub const FAIL_FULL_HOURS: f64 = 4.0;
/// /proc's tables are read up to so many bytes.
const TABLE_BYTES: u64 = 4 << 20;

/// What a file system says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// `/dev/vda1`
    pub device: String,
    /// `ext4`
    pub kind: String,
    /// Whether nothing can be written.
    pub read_only: bool,
    /// Whether /etc/fstab wants it so.
    pub meant_read_only: bool,
    /// Its size in bytes.
    pub bytes: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that an ordinary user may still use.
    pub free: u64,
    /// How many files it can hold; 0 where there is no such limit.
    pub inodes: u64,
    /// How many more.
    pub inodes_free: u64,
}

impl FileSystem {
    /// Used of what ordinary users can use, in percent, as `df` counts.
    pub fn used_percent(&self) -> f64 {
        percent(self.used, self.used + self.free)
    }

    fn inodes_percent(&self) -> f64 {
        percent(self.inodes.saturating_sub(self.inodes_free), self.inodes)
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / whole as f64
}

/// The file systems of this machine's own devices. One that does not answer is an `Err` in its place.
pub fn all() -> Result<Vec<(PathBuf, Result<FileSystem>)>> {
    let mounts = table("/proc/self/mountinfo")?;
    let fstab = table("/etc/fstab").unwrap_or_default();
    let found = mounts::real(&mounts)
        .into_iter()
        .map(|mount| (mount.point.clone(), ask(mount.point.clone(), mount, &fstab)))
        .collect();
    Ok(found)
}

/// The file system that holds a path, whatever kind it is.
pub fn of(path: &Path) -> Result<FileSystem> {
    let mounts = table("/proc/self/mountinfo")?;
    let fstab = table("/etc/fstab").unwrap_or_default();
    let whole = within(path.to_owned(), |path| std::fs::canonicalize(path))?
        .or_fail(|| format!("cannot look at {}", path.display()))?;
    let mount = mounts::holding(&mounts, &whole)
        .ok_or_else(|| Failure::new(format!("no file system holds {}", path.display())))?;
    ask(whole, mount, &fstab)
}

fn table(path: &str) -> Result<String> {
    use std::io::Read;
    let what = || format!("cannot read {path}");
    let file = std::fs::File::open(path).or_fail(what)?;
    let mut text = Vec::new();
    file.take(TABLE_BYTES)
        .read_to_end(&mut text)
        .or_fail(what)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn ask(at: PathBuf, mount: Mount, fstab: &str) -> Result<FileSystem> {
    let what = format!("cannot ask the file system at {}", at.display());
    let stat = within(at, |path| rustix::fs::statvfs(path))?;
    let stat = stat.or_fail(|| what)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(FileSystem {
        meant_read_only: mounts::wanted_read_only(fstab, &mount.point),
        read_only: mount.read_only || stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        mount: mount.point,
        device: mount.device,
        kind: mount.kind,
        bytes: bytes(stat.f_blocks),
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        free: bytes(stat.f_bavail),
        inodes: stat.f_files,
        inodes_free: stat.f_favail,
    })
}

/// Asks on a thread of its own: a call to a lost drive never comes back, and must not keep us.
fn within<T: Send + 'static>(
    path: PathBuf,
    ask: impl FnOnce(&Path) -> T + Send + 'static,
) -> Result<T> {
    let (sender, answer) = mpsc::sync_channel(1);
    let shown = path.display().to_string();
    std::thread::Builder::new()
        .name("file system".into())
        // Fails when nobody waits any more.
        .spawn(move || sender.send(ask(&path)).ok())
        .or_fail(|| "cannot start a thread".to_owned())?;
    answer.recv_timeout(ANSWER_LIMIT).map_err(|_| {
        let seconds = ANSWER_LIMIT.as_secs();
        Failure::new(format!("{shown} has not answered within {seconds} s"))
            .hint("a network drive that lost its server looks like this: see `dmesg | tail`")
    })
}

/// Judges a file system; `samples` tell at which pace it fills.
pub fn judge(fs: &FileSystem, samples: &Samples) -> Verdict {
    let mut tally = Tally::default();
    let mount = fs.mount.display();
    let (used, inodes) = (fs.used_percent(), fs.inodes_percent());
    let biggest =
        format!("du -xh --max-depth=2 {mount} | sort -h | tail -n 20; journalctl --disk-usage");
    let free = report::bytes(fs.free);
    let said = format!("{mount} is {used:.0} % full, {free} free");
    let bounds = (Some(WARN_PERCENT), Some(FAIL_PERCENT));
    tally.figure(Figure::new("used", used, Unit::Percent).bounds(bounds.0, bounds.1));
    tally.figure(Figure::new("free", fs.free as f64, Unit::Bytes));
    if used >= FAIL_PERCENT {
        tally.fail(&said, &biggest);
    } else if used >= WARN_PERCENT {
        tally.warn(&said, &biggest);
    }
    if fs.inodes > 0 {
        tally.figure(Figure::new("inodes_used", inodes, Unit::Percent).bounds(bounds.0, bounds.1));
        let said = format!(
            "{mount} has {} files: {inodes:.0} % of what it can hold",
            fs.inodes - fs.inodes_free.min(fs.inodes)
        );
        let most = format!("du -x --inodes --max-depth=2 {mount} | sort -n | tail -n 20");
        if inodes >= FAIL_PERCENT {
            tally.fail(said, most);
        } else if inodes >= WARN_PERCENT {
            tally.warn(said, most);
        }
    }
    if fs.read_only && !fs.meant_read_only {
        tally.fail(
            format!("{mount} can only be read: after an error the kernel lets nobody write"),
            format!(
                "dmesg | grep -i '{}'; check the disk, then mount -o remount,rw {mount}",
                short_device(&fs.device)
            ),
        );
    }
    if let Some(hours) = samples.hours_to_full(fs.free) {
        let figure = Figure::new("full_in", hours * 3600.0, Unit::Seconds);
        tally.figure(figure.bounds(
            Some(WARN_FULL_HOURS * 3600.0),
            Some(FAIL_FULL_HOURS * 3600.0),
        ));
        let said = format!(
            "{mount} will be full in {}",
            report::span((hours * 3600.0) as u64)
        );
        if hours <= FAIL_FULL_HOURS && used >= WARN_PERCENT {
            tally.fail(said, &biggest);
        } else if hours <= WARN_FULL_HOURS {
            tally.warn(said, &biggest);
        }
    }
    tally.settle(said)
}

fn short_device(device: &str) -> &str {
    device.rsplit('/').next().unwrap_or(device)
}

#[cfg(test)]
mod tests;
