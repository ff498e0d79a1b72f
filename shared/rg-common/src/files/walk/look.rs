//! One name of a tree opened as what it was listed as, without following what it may have become.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::stat::{device, inode, link_count};
use super::{FirstName, Found, Level, Opened, Walk};
use crate::failure::{Failure, Result};
use crate::files::entry::{Entry, Kind, escape};

/// Directories within each other; each holds a descriptor of the 1024 that a process may have.
pub const DEPTH_MAX: usize = 500;
/// Files whose further names are remembered; those above it are archived once for each name.
const LINKED_FILES_MAX: usize = 1_000_000;

/// What opening a name came to.
pub(super) enum Look {
    Found(Box<Found>),
    Directory(Box<Entry>, Level),
    Nothing,
    Again,
}

impl Walk {
    /// Opens or describes a name as what it was listed as; `Again` when it is not that any more.
    /// The outer error is about the name, the inner one a refusal.
    pub(super) fn look(
        &mut self,
        path: &[u8],
        name_len: usize,
        file_type: FileType,
    ) -> Result<Result<Look>, Errno> {
        let name = &path[path.len() - name_len..];
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(match file_type {
            FileType::RegularFile => {
                let file = match openat(self.here(), name, flags, Mode::empty()) {
                    Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(Ok(Look::Again)),
                    other => File::from(other?),
                };
                let stat = fstat(&file)?;
                if !FileType::from_raw_mode(stat.st_mode).is_file() {
                    return Ok(Ok(Look::Again));
                }
                self.file(path, file, stat)
            }
            FileType::Directory => {
                let flags = flags | OFlags::DIRECTORY;
                let opened = match open_below(self.here(), name, flags) {
                    Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Ok(Look::Again)),
                    Err(Errno::XDEV) => None,
                    other => Some(other?),
                };
                self.directory(path, opened)
            }
            FileType::Symlink => {
                let stat = statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW)?;
                if !FileType::from_raw_mode(stat.st_mode).is_symlink() {
                    return Ok(Ok(Look::Again));
                }
                let target = match readlinkat(self.here(), name, Vec::new()) {
                    Err(Errno::INVAL) => return Ok(Ok(Look::Again)),
                    other => other?.into_bytes(),
                };
                let mut entry = self.entry(path.to_vec(), Kind::Symlink, &stat);
                entry.mode = 0o777;
                entry.link = Some(target);
                Ok(found(entry, None))
            }
            FileType::Unknown => Ok(Look::Again),
            listed => {
                let stat = statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != listed {
                    Ok(Look::Again)
                } else if listed == FileType::Fifo {
                    Ok(found(self.entry(path.to_vec(), Kind::Fifo, &stat), None))
                } else {
                    let what = if listed == FileType::Socket {
                        "socket"
                    } else {
                        "device"
                    };
                    let note = format!("{what}, not in the backup: {}", escape(path));
                    self.tally.skipped(note);
                    Ok(Look::Nothing)
                }
            }
        })
    }

    pub(super) fn file(&mut self, path: &[u8], file: File, stat: Stat) -> Result<Look> {
        if self.options.skip.contains(&inode(&stat)) {
            self.tally.excluded();
            return Ok(Look::Nothing);
        }
        if device(&stat) != self.device {
            self.other_mount(path);
            return Ok(Look::Nothing);
        }
        let mut entry = self.entry(path.to_vec(), Kind::File, &stat);
        entry.xattrs = self.attributes(file.as_fd(), path)?;
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get_mut(&inode(&stat)) {
                if let Some(sha256) = first.sha256 {
                    entry.kind = Kind::Hardlink;
                    entry.size = first.size;
                    entry.sha256 = Some(sha256);
                    entry.link = Some(first.path.clone());
                    first.unseen = first.unseen.saturating_sub(1);
                    if first.unseen == 0 {
                        self.links.remove(&inode(&stat));
                    }
                    return Ok(found(entry, None));
                }
            } else if self.links.len() < LINKED_FILES_MAX {
                let first = FirstName {
                    path: path.to_vec(),
                    size: entry.size,
                    sha256: None,
                    unseen: link_count(&stat) - 1,
                };
                self.links.insert(inode(&stat), first);
            } else {
                let note = format!("more than {LINKED_FILES_MAX} files with further names");
                self.tally.note(note);
            }
        }
        Ok(found(entry, Some(Opened { file, stat })))
    }

    pub(super) fn directory(&mut self, path: &[u8], opened: Option<OwnedFd>) -> Result<Look> {
        let Some(directory) = opened else {
            self.other_mount(path);
            return Ok(Look::Nothing);
        };
        let stat = fstat(&directory).map_err(|error| self.unreadable(path, error))?;
        if self.options.skip.contains(&inode(&stat)) {
            self.tally.excluded();
            return Ok(Look::Nothing);
        }
        if device(&stat) != self.device {
            self.other_mount(path);
            return Ok(Look::Nothing);
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(Failure::new(format!(
                "{} lies more than {DEPTH_MAX} directories deep",
                self.show(path)
            ))
            .hint("move it up in the tree, or exclude it"));
        }
        let mut entry = self.entry(path.to_vec(), Kind::Dir, &stat);
        entry.xattrs = self.attributes(directory.as_fd(), path)?;
        let level = self.list(directory, path)?;
        Ok(Look::Directory(Box::new(entry), level))
    }

    pub(super) fn other_mount(&mut self, path: &[u8]) {
        let note = format!("mount point below: {} is not in the backup", escape(path));
        self.tally.skipped(note);
    }
}

fn found(entry: Entry, file: Option<Opened>) -> Look {
    Look::Found(Box::new(Found { entry, file }))
}

/// Opens a directory without crossing a mount point, bind mounts included. Kernels and sandboxes
/// without `openat2` leave the check to the device numbers.
fn open_below(directory: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => openat(directory, name, flags, Mode::empty()),
        other => other,
    }
}
