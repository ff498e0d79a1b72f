//! Reads a tree from disk, name by name in order, without ever being led out of it.
//!
//! Every name is opened relative to the descriptor of its directory and never followed: a file
//! that becomes a symbolic link between listing and opening is a symbolic link. Mount points are
//! not crossed. What cannot be read ends the walk: a backup with holes is not a backup.
//!
//! Memory: the names of the directories on the way from the root to where the walk stands (12
//! bytes a name and the name), and 100 to 200 bytes for each file with further names yet unseen.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::entry::{Entry, Kind, Mtime, escape};
use super::inventory::Tally;
use super::listing::Listing;
use super::owners::Owners;
use super::{ArchiveOptions, PATH_BYTES_MAX};
use crate::failure::{Failure, OrFail, Result};

/// Directories within each other; each holds a descriptor of the 1024 that a process may have.
pub const DEPTH_MAX: usize = 500;
/// Files whose further names are remembered; those above it are archived once for each name.
const LINKED_FILES_MAX: usize = 1_000_000;
/// How often a name is looked at again when it becomes something else just then.
const LOOKS_MAX: usize = 5;

/// One name found. A file comes open, with its digest still to be computed.
pub(super) struct Found {
    pub entry: Entry,
    pub file: Option<Opened>,
}

/// An open file and what `fstat` said of it.
pub(super) struct Opened {
    pub file: File,
    pub stat: Stat,
}

pub(super) struct Walk {
    root: PathBuf,
    options: ArchiveOptions,
    device: u64,
    stack: Vec<Level>,
    /// The current directory's path and a `/`, or nothing at the root.
    path: Vec<u8>,
    links: HashMap<(u64, u64), FirstName>,
    owners: Owners,
    attributes: Attributes,
    portion: Vec<u8>,
    pub tally: Tally,
    #[cfg(test)]
    pub observer: Option<Observer>,
}

struct Level {
    listing: Listing,
    /// How long the path of the directory above is.
    parent_path_len: usize,
}

struct FirstName {
    path: Vec<u8>,
    size: u64,
    sha256: Option<[u8; 32]>,
    unseen: u64,
}

/// Called with each path right before it is opened, for what may happen just then.
#[cfg(test)]
pub(super) type Observer = Box<dyn FnMut(&[u8]) + Send>;

/// What opening a name came to.
enum Look {
    Found(Box<Found>),
    Directory(Box<Entry>, Level),
    Nothing,
    Again,
}

impl Walk {
    /// Opens the root, following a symbolic link there, and yields it first.
    pub fn start(root: &Path, options: ArchiveOptions) -> Result<(Self, Found)> {
        let what = || format!("cannot read the directory {}", root.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, root, flags, Mode::empty())
            .map_err(io::Error::from)
            .or_fail(what)
            .map_err(|failure| failure.hint("check the configured `path`, and who runs this"))?;
        let stat = fstat(&directory).map_err(io::Error::from).or_fail(what)?;
        let mut walk = Walk {
            root: root.to_owned(),
            options,
            device: device(&stat),
            stack: Vec::new(),
            path: Vec::new(),
            links: HashMap::new(),
            owners: Owners::here(),
            attributes: Attributes::default(),
            portion: Vec::new(),
            tally: Tally::default(),
            #[cfg(test)]
            observer: None,
        };
        let mut entry = walk.entry(b".".to_vec(), Kind::Dir, &stat);
        entry.xattrs = walk.attributes(directory.as_fd(), b".")?;
        let level = walk.list(directory, b".")?;
        walk.stack.push(level);
        Ok((walk, Found { entry, file: None }))
    }

    /// The next name, or none after the last.
    pub fn next(&mut self) -> Result<Option<Found>> {
        while let Some(level) = self.stack.last_mut() {
            let Some((name, file_type)) = level.listing.next() else {
                self.path.truncate(level.parent_path_len);
                self.stack.pop();
                continue;
            };
            let mut path = self.path.clone();
            path.extend(name);
            let name_len = name.len();
            if let Some(found) = self.visit(path, name_len, file_type)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps the digest of a file that has further names.
    pub fn hashed(&mut self, entry: &Entry, stat: &Stat) {
        if stat.st_nlink > 1
            && let Some(first) = self.links.get_mut(&inode(stat))
        {
            first.size = entry.size;
            first.sha256 = entry.sha256;
        }
    }

    /// A path below the root as an operator writes it.
    pub fn show(&self, path: &[u8]) -> String {
        format!("{}/{}", self.root.display(), escape(path))
    }

    fn visit(
        &mut self,
        path: Vec<u8>,
        name_len: usize,
        mut file_type: FileType,
    ) -> Result<Option<Found>> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Failure::new(format!(
                "the path of {} is longer than {PATH_BYTES_MAX} bytes",
                self.show(&path)
            ))
            .hint("move it up in the tree, or exclude it"));
        }
        let first_type = file_type;
        for _ in 0..LOOKS_MAX {
            let directory = file_type == FileType::Directory;
            let mut patterns = self.options.exclude.iter();
            if patterns.any(|pattern| pattern.matches(&path, directory)) {
                self.tally.excluded();
                return Ok(None);
            }
            #[cfg(test)]
            if let Some(observer) = &mut self.observer {
                observer(&path);
            }
            let look = match self.look(&path, name_len, file_type) {
                Err(Errno::NOENT) => return Ok(self.gone(&path)),
                Err(error) => return Err(self.unreadable(&path, error)),
                Ok(look) => look?,
            };
            match look {
                Look::Found(found) => {
                    self.compare_type(&path, first_type, file_type);
                    return Ok(Some(*found));
                }
                Look::Directory(entry, level) => {
                    self.compare_type(&path, first_type, file_type);
                    self.path = path;
                    self.path.push(b'/');
                    self.stack.push(level);
                    return Ok(Some(Found {
                        entry: *entry,
                        file: None,
                    }));
                }
                Look::Nothing => return Ok(None),
                Look::Again => {
                    let name = &path[path.len() - name_len..];
                    file_type = match statat(self.here(), name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                        Err(Errno::NOENT) => return Ok(self.gone(&path)),
                        Err(error) => return Err(self.unreadable(&path, error)),
                    };
                }
            }
        }
        Err(Failure::new(format!(
            "{} is a different thing at every look",
            self.show(&path)
        ))
        .hint("something replaces it all the time: exclude it, or stop what does"))
    }

    fn compare_type(&mut self, path: &[u8], listed: FileType, found: FileType) {
        if found != listed && listed != FileType::Unknown {
            let note = format!("became something else: {}", escape(path));
            self.tally.changed(note);
        }
    }

    fn gone(&mut self, path: &[u8]) -> Option<Found> {
        let note = format!("gone before it was read: {}", escape(path));
        self.tally.vanished(note);
        None
    }

    fn unreadable(&self, path: &[u8], error: Errno) -> Failure {
        let what = format!("cannot read {}", self.show(path));
        Failure::because(what, io::Error::from(error)).hint(
            "a backup with holes is not a backup: run as a user that may read it, or exclude it",
        )
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.stack
            .last()
            .expect("a name lies in a directory")
            .listing
            .directory
            .as_fd()
    }

    /// Opens or describes a name as what it was listed as; `Again` when it is not that any more.
    /// The outer error is about the name, the inner one a refusal.
    fn look(
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

    fn file(&mut self, path: &[u8], file: File, stat: Stat) -> Result<Look> {
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

    fn directory(&mut self, path: &[u8], opened: Option<OwnedFd>) -> Result<Look> {
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

    fn other_mount(&mut self, path: &[u8]) {
        let note = format!("mount point below: {} is not in the backup", escape(path));
        self.tally.skipped(note);
    }

    fn list(&mut self, directory: OwnedFd, path: &[u8]) -> Result<Level> {
        let listing = Listing::read(directory, &mut self.portion)
            .map_err(|error| self.unreadable(path, error))?;
        Ok(Level {
            listing,
            parent_path_len: self.path.len(),
        })
    }

    fn attributes(&mut self, of: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<super::Xattr>> {
        let root = &self.root;
        self.attributes.read(of).map_err(|failure| {
            failure.context(format!("cannot read {}/{}", root.display(), escape(path)))
        })
    }

    fn entry(&self, path: Vec<u8>, kind: Kind, stat: &Stat) -> Entry {
        Entry {
            path,
            kind,
            size: 0,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            owner: self.owners.user(stat.st_uid),
            group: self.owners.group(stat.st_gid),
            mtime: mtime(stat),
            sha256: None,
            link: None,
            xattrs: Vec::new(),
            sparse: false,
        }
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

/// Device and inode: what makes two names the same file.
#[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
pub(super) fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
fn link_count(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

fn device(stat: &Stat) -> u64 {
    inode(stat).0
}

/// When the content last changed.
#[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
pub(super) fn mtime(stat: &Stat) -> Mtime {
    Mtime {
        seconds: stat.st_mtime as i64,
        nanoseconds: stat.st_mtime_nsec as u32,
    }
}

/// Whether a file was written to between two looks: its size or one of its times differ.
pub(super) fn differs(before: &Stat, after: &Stat) -> bool {
    before.st_size != after.st_size
        || mtime(before) != mtime(after)
        || (before.st_ctime, before.st_ctime_nsec) != (after.st_ctime, after.st_ctime_nsec)
}
