//! Reads a tree from disk, name by name in order, without ever being led out of it.
//!
//! Every name is opened relative to the descriptor of its directory and never followed: a file
//! that becomes a symbolic link between listing and opening is a symbolic link. Mount points are
//! not crossed. What cannot be read ends the walk: a backup with holes is not a backup.
//!
//! Memory: the names of the directories on the way from the root to where the walk stands (12
//! bytes a name and the name), and 100 to 200 bytes for each file with further names yet unseen.

mod look;
mod stat;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::entry::{Entry, Kind, escape};
use super::inventory::Tally;
use super::listing::Listing;
use super::owners::Owners;
use super::{ArchiveOptions, PATH_BYTES_MAX};
use crate::failure::{Failure, OrFail, Result};
pub use look::DEPTH_MAX;
use look::Look;
use stat::device;
pub(super) use stat::{differs, inode, mtime};

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
