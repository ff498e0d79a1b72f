//! The state file `STATE/health/state.json`: written whole or not at all, by one run at a time.
//!
//! The new content goes into a spare file that already has its blocks on the disk, and the two change
//! names in one step. So a full disk, of which somebody is to be told just now, does not keep the
//! state from being written, as long as it has not grown by more than its padding.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rg_common::{Failure, OrFail, Result, notify, whole};
use rustix::fs::{CWD, FallocateFlags, FlockOperation, RenameFlags};

use crate::alert::Memory;

/// The format that this version writes.
pub const VERSION: u32 = 1;
/// The largest state file that is read.
const STATE_BYTES: u64 = 32 << 20;
/// The file's size is a multiple of this, so that there is room to grow on a full disk.
const ROOM: usize = 64 << 10;
/// The most of another run's mark that is read.
const MARK_BYTES: u64 = 200;

/// Where the tool keeps what it remembers.
pub fn folder(state: &Path) -> PathBuf {
    state.join("health")
}

/// Holds the state for one run; let go when dropped, by a death too.
#[derive(Debug)]
pub struct Hold(File);

impl Hold {
    /// When the lock was last marked by [`Hold::mark`]; needs no room on the disk.
    pub(crate) fn marked(&self) -> Option<Timestamp> {
        let modified = self.0.metadata().and_then(|meta| meta.modified());
        modified
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok())
    }

    pub(crate) fn mark(&self, now: Timestamp) -> io::Result<()> {
        self.0.set_modified(now.into())
    }
}

/// Takes the state, waiting for nobody: another run is a failure that says since when.
pub fn hold(state: &Path) -> Result<Hold> {
    make_folder(state)?;
    let path = folder(state).join("lock");
    let what = || format!("cannot open {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .or_fail(what)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Hold(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let since = read_bounded(&folder(state).join("running"), MARK_BYTES);
            let since = since.ok().flatten().unwrap_or_default();
            let since = String::from_utf8_lossy(&since);
            let since = match since.trim() {
                "" => String::new(),
                since => format!(" since {since}"),
            };
            Err(
                Failure::new(format!("another run is under way{since}")).hint(
                    "it ends by itself: every check has a deadline; rg-healthcheck status shows what is known",
                ),
            )
        }
        Err(error) => Err(Failure::because(
            format!("cannot lock {}", path.display()),
            error,
        )),
    }
}

/// Notes since when this run holds the state. That it cannot be noted changes nothing.
pub fn note(state: &Path, now: Timestamp) {
    let text = format!("{now:.0} (process {})\n", std::process::id());
    fs::write(folder(state).join("running"), text).ok();
}

/// What was remembered.
#[derive(Debug)]
pub struct Loaded {
    /// What was remembered; empty at the first run and after damage.
    pub memory: Memory,
    /// What was wrong with the file and where it is now.
    pub damaged: Option<String>,
}

/// Reads the state. A damaged file is kept beside and left where it is until it is replaced, so that
/// a run that dies before it could tell leaves the damage to be told by the next.
pub fn load(state: &Path, now: Timestamp) -> Result<Loaded> {
    let path = folder(state).join("state.json");
    let what = format!("the state in {} is damaged", path.display());
    let damage = match read_bounded(&path, STATE_BYTES) {
        Ok(None) => {
            return Ok(Loaded {
                memory: anew(),
                damaged: None,
            });
        }
        Ok(Some(text)) => match serde_json::from_slice::<Memory>(&text) {
            Ok(memory) if memory.version == VERSION => {
                return Ok(Loaded {
                    memory,
                    damaged: None,
                });
            }
            Ok(memory) => format!(
                "the state in {} has version {}, and this program writes {VERSION}",
                path.display(),
                memory.version
            ),
            Err(error) => format!("{what}: {error}"),
        },
        Err(failure) if File::open(&path).is_err() => return Err(failure),
        Err(failure) => format!("{what}: {failure}"),
    };
    let stamp = now.strftime("%Y%m%d_%H%M%S");
    let beside = folder(state).join(format!("state.json.damaged-{stamp}"));
    let kept = match fs::hard_link(&path, &beside) {
        Ok(()) => format!("it is kept as {}", beside.display()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            format!("it is kept as {}", beside.display())
        }
        Err(error) => format!("it cannot be kept: {error}"),
    };
    Ok(Loaded {
        memory: anew(),
        damaged: Some(format!("{damage}; {kept}")),
    })
}

/// What is remembered, without holding it; nothing before the first run.
pub fn look(state: &Path) -> Result<Memory> {
    let path = folder(state).join("state.json");
    let Some(text) = read_bounded(&path, STATE_BYTES)? else {
        return Ok(anew());
    };
    serde_json::from_slice(&text)
        .or_fail(|| format!("the state in {} is damaged", path.display()))
        .map_err(|failure| failure.hint("the next run begins anew, and says so"))
}

fn anew() -> Memory {
    let series = notify::run_id();
    Memory {
        version: VERSION,
        series: series[..8].to_owned(),
        ..Memory::default()
    }
}

/// Writes the state; only by who holds it.
pub fn save(state: &Path, memory: &Memory, hold: &Hold) -> Result<()> {
    let path = folder(state).join("state.json");
    let mut text = serde_json::to_vec(memory).or_fail(|| "cannot write the state".to_owned())?;
    // JSON ends with any amount of white space.
    text.resize((text.len() + 1).next_multiple_of(ROOM), b'\n');
    let spare = folder(state).join("state.json.spare");
    exchange(&path, &spare, &text).map_err(|error| {
        let failure = Failure::because(format!("cannot write {}", path.display()), error);
        failure.hint("without it nobody can be told once: df -h, df -i, mount; then run it again")
    })?;
    // No emergency any more; that this cannot be marked makes the next one wait for an hour.
    hold.mark(Timestamp::UNIX_EPOCH).ok();
    Ok(())
}

fn exchange(path: &Path, spare: &Path, text: &[u8]) -> io::Result<()> {
    write_into(spare, text)?;
    match rustix::fs::renameat_with(CWD, spare, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => sync_folder(path),
        // No file there yet, or a file system that cannot exchange.
        Err(_) => {
            fs::rename(spare, path)?;
            sync_folder(path)?;
            // The next run's room. Without it the next run asks for it again.
            reserve(spare, text.len()).ok();
            Ok(())
        }
    }
}

/// Overwrites in place: the blocks are there already.
fn write_into(spare: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = reserve(spare, text.len())?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)?;
    file.sync_all()
}

fn reserve(spare: &Path, bytes: usize) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(spare)?;
    if file.metadata()?.len() < bytes as u64 {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes as u64) {
            // Writing itself tells whether there is room.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(file)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes [`folder`], for its owner alone.
pub(crate) fn make_folder(state: &Path) -> Result<()> {
    whole::private_folder(&folder(state))
}

/// A file's bytes; none where there is no file, a failure where it is larger than `most`.
pub(crate) fn read_bounded(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let what = || format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::because(what(), error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).or_fail(what)?;
    if bytes.len() as u64 > most {
        return Err(Failure::new(format!(
            "{}: it is larger than {most} bytes",
            what()
        )));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
pub(crate) mod tests;
