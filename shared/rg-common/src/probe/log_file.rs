//! A log file read from where the last look ended, over rotation.
//!
//! The promise: within what is kept of a log no line is counted twice, and none is left out without
//! being said. A log that was renamed is read to its end under its new name, one that was copied
//! and cut (logrotate's `copytruncate`) in its copy. Bytes per look are bounded: what is more is
//! left out, and said.

use std::fs::{File, Metadata};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::log_figures::{LINE_BYTES_MAX, Line};
use crate::failure::{Failure, OrFail, Result};

/// So many bytes of a log are read in one look at most.
pub const READ_BYTES: u64 = 64 << 20;
/// A file is known by its number and its first bytes: numbers are used again.
const HEAD_BYTES: usize = 64;
/// So many names of a log's directory are looked at for the rotated one.
const NAMES_MAX: usize = 10_000;

/// Where reading a log ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCursor {
    device: u64,
    inode: u64,
    /// The file's first bytes, as many as there were.
    head: Vec<u8>,
    offset: u64,
}

/// How reading a log went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReading {
    /// Where to go on.
    pub cursor: FileCursor,
    /// Lines read.
    pub lines: u64,
    /// Bytes left out because there were more than [`READ_BYTES`].
    pub left_out: u64,
    /// Whether the log was rotated and what it was before could not be found.
    pub lost: bool,
}

/// Reads the lines that were written since `cursor`; without one, what is in the file, as far as
/// [`READ_BYTES`] reach back from its end. A line without its end is left for the next look.
pub fn read(
    path: &Path,
    cursor: Option<&FileCursor>,
    take: &mut dyn FnMut(Line<'_>),
) -> Result<FileReading> {
    read_bounded(path, cursor, READ_BYTES, take)
}

fn read_bounded(
    path: &Path,
    cursor: Option<&FileCursor>,
    bytes: u64,
    take: &mut dyn FnMut(Line<'_>),
) -> Result<FileReading> {
    let log = Log::open(path)?;
    let mut before = None;
    let (mut from, mut lost) = (0, false);
    if let Some(cursor) = cursor {
        if log.is(cursor) && cursor.offset <= log.length {
            from = cursor.offset;
        } else {
            before = rotated(path, cursor)?;
            lost = before.is_none();
        }
    }
    let of_before = before
        .as_ref()
        .map_or(0, |(log, offset)| log.length - offset);
    let mut left_out = (of_before + log.length - from).saturating_sub(bytes);
    let mut lines = 0;
    let skipped = left_out;
    if let Some((before, offset)) = &before {
        let skip = left_out.min(of_before);
        left_out -= skip;
        if skip < of_before {
            // What was rotated gets no further line: its last one is whole.
            lines += before.lines(offset + skip, skip > 0, true, take)?.0;
        }
    }
    let (read, end) = log.lines(from + left_out, left_out > 0, false, take)?;
    Ok(FileReading {
        cursor: log.cursor(end)?,
        lines: lines + read,
        left_out: skipped,
        lost,
    })
}

/// Reads the lines of the last `bytes` bytes, those of the rotated file before it included, as far
/// as it is called `PATH.1`. For a window of time: the caller leaves out what is older.
pub fn read_back(path: &Path, take: &mut dyn FnMut(Line<'_>)) -> Result<()> {
    let log = Log::open(path)?;
    let room = READ_BYTES.saturating_sub(log.length);
    if room > 0
        && let Ok(before) = Log::open(&with_suffix(path, ".1"))
    {
        let from = before.length.saturating_sub(room);
        before.lines(from, from > 0, true, take)?;
    }
    let from = log.length.saturating_sub(READ_BYTES);
    log.lines(from, from > 0, false, take)?;
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

struct Log {
    path: PathBuf,
    file: File,
    device: u64,
    inode: u64,
    length: u64,
}

impl Log {
    fn open(path: &Path) -> Result<Log> {
        let what = || format!("cannot read the log {}", path.display());
        // Without NONBLOCK a named pipe would keep us waiting for its writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| {
            let failure = Failure::because(what(), std::io::Error::from(error));
            match error {
                rustix::io::Errno::NOENT => {
                    failure.hint("is the path in rg.toml right, and has the app logged yet?")
                }
                rustix::io::Errno::ACCESS => {
                    failure.hint("let this user read it, for instance by the group `adm`")
                }
                _ => failure,
            }
        })?;
        let file = File::from(file);
        let meta = file.metadata().or_fail(what)?;
        if !meta.is_file() {
            return Err(Failure::new(format!("{} is not a file", path.display())));
        }
        Ok(Log::of(path, file, &meta))
    }

    fn of(path: &Path, file: File, meta: &Metadata) -> Log {
        Log {
            path: path.to_owned(),
            file,
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
        }
    }

    fn head(&self) -> Result<Vec<u8>> {
        let mut head = vec![0; HEAD_BYTES.min(self.length as usize)];
        let read = self.file.read_exact_at(&mut head, 0);
        read.or_fail(|| format!("cannot read the log {}", self.path.display()))?;
        Ok(head)
    }

    /// Whether it is the file of a cursor, which may have grown since.
    fn is(&self, cursor: &FileCursor) -> bool {
        self.device == cursor.device && self.inode == cursor.inode && self.begins_like(cursor)
    }

    fn begins_like(&self, cursor: &FileCursor) -> bool {
        self.head().is_ok_and(|head| head.starts_with(&cursor.head))
    }

    fn cursor(&self, offset: u64) -> Result<FileCursor> {
        Ok(FileCursor {
            device: self.device,
            inode: self.inode,
            head: self.head()?,
            offset,
        })
    }

    /// Gives the lines from an offset on, up to the length that it had when it was opened; how many
    /// there were, and where the last whole one ends.
    fn lines(
        &self,
        from: u64,
        within_a_line: bool,
        whole: bool,
        take: &mut dyn FnMut(Line<'_>),
    ) -> Result<(u64, u64)> {
        let what = || format!("cannot read the log {}", self.path.display());
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from)).or_fail(what)?;
        let left = self.length.saturating_sub(from);
        let mut reader = BufReader::with_capacity(256 << 10, file.take(left));
        let (mut at, mut lines) = (from, 0);
        if within_a_line {
            at += reader.skip_until(b'\n').or_fail(what)? as u64;
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            let max = LINE_BYTES_MAX as u64 + 1;
            let mut read = (&mut reader)
                .take(max)
                .read_until(b'\n', &mut line)
                .or_fail(what)?;
            if read == 0 {
                return Ok((lines, at));
            }
            let ended = line.last() == Some(&b'\n');
            let cut = !ended && read as u64 == max;
            if ended {
                line.pop();
            } else if cut {
                line.truncate(LINE_BYTES_MAX);
                read += reader.skip_until(b'\n').or_fail(what)?;
            } else if !whole {
                return Ok((lines, at));
            }
            at += read as u64;
            lines += 1;
            take(Line {
                text: &line,
                time: None,
                priority: None,
            });
        }
    }
}

/// What the log of a cursor is called now, and from where on it was not read.
fn rotated(path: &Path, cursor: &FileCursor) -> Result<Option<(Log, u64)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let what = || format!("cannot look for the rotated log in {}", folder.display());
    let name = name.to_string_lossy();
    let mut copy = None;
    for entry in std::fs::read_dir(folder).or_fail(what)?.take(NAMES_MAX) {
        let entry = entry.or_fail(what)?;
        let other = entry.file_name();
        if !other.to_string_lossy().starts_with(&*name) || entry.path() == path {
            continue;
        }
        // What cannot be opened, or is a directory, is not the log that we read.
        let Ok(log) = Log::open(&entry.path()) else {
            continue;
        };
        if cursor.offset > log.length {
            continue;
        }
        if log.is(cursor) {
            return Ok(Some((log, cursor.offset)));
        }
        // An empty head is the beginning of every file.
        if !cursor.head.is_empty() && log.begins_like(cursor) {
            copy = Some((log, cursor.offset));
        }
    }
    Ok(copy)
}

#[cfg(test)]
mod tests;
