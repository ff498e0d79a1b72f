//! Directories while an archive is extracted: made when something goes into them, described last, the
//! deepest first, when nothing in them changes any more.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Extraction;
use crate::failure::Result;
use crate::files::confine::{below, make_directory, open_directory, refused, split, twice};
use crate::files::entry::{Entry, Kind, Mtime, escape};

/// Memory for the directories whose modes and times are set at the end.
pub const DIRECTORIES_BYTES_MAX: usize = 512 << 20;
/// What a directory gets that the archive uses without describing it.
const IMPLICIT_MODE: u32 = 0o755;

/// A directory's description until the end.
pub(super) struct Held {
    pub(super) entry: Entry,
    pub(super) described: bool,
}

impl Extraction<'_> {
    /// Makes a directory, or takes the description of one that was made for something in it.
    pub(super) fn directory(&mut self, entry: Entry) -> Result<()> {
        match self.directories.get(&entry.path) {
            Some(held) if held.described => return Err(twice()),
            Some(_) => {}
            None => {
                let (parent, name) = split(&entry.path);
                let (parent, name) = (parent.to_vec(), name.to_vec());
                let directory = self.open_parent(&parent)?;
                make_directory(directory.as_fd(), &name)?;
                self.parent = Some((parent, directory));
            }
        }
        self.record(&entry)?;
        self.hold(Held {
            entry,
            described: true,
        })
    }

    pub(super) fn hold(&mut self, held: Held) -> Result<()> {
        let xattrs = &held.entry.xattrs;
        let attributes: usize = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        // Twice the path (key and entry), and what the structures themselves take.
        self.directories_bytes += 2 * held.entry.path.len() + attributes + 400;
        if self.directories_bytes > DIRECTORIES_BYTES_MAX {
            return Err(refused("it holds too many directories"));
        }
        self.undescribed += u64::from(!held.described);
        let before = self.directories.insert(held.entry.path.clone(), held);
        self.undescribed -= u64::from(before.is_some_and(|held| !held.described));
        Ok(())
    }

    /// The directory that a name goes into, made if no member described it so far.
    pub(super) fn open_parent(&mut self, path: &[u8]) -> Result<OwnedFd> {
        if let Some((known, directory)) = self.parent.take()
            && known == path
        {
            return Ok(directory);
        }
        match open_directory(self.root.as_fd(), path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|error| below(path, error)),
        }
        let (above, name) = split(path);
        let (above, name) = (above.to_vec(), name.to_vec());
        let parent = self.open_parent(&above)?;
        make_directory(parent.as_fd(), &name)?;
        self.hold(implicit(path))?;
        open_directory(self.root.as_fd(), path, OFlags::PATH).map_err(|error| below(path, error))
    }

    pub(super) fn finish_directory(&mut self, held: &Held) -> Result<()> {
        let path = &held.entry.path;
        let what = format!(
            "cannot finish the directory {}/{}",
            self.into.display(),
            escape(path)
        );
        let directory = open_directory(self.root.as_fd(), path, OFlags::RDONLY)
            .map_err(|error| below(path, error).context(what.clone()))?;
        let described = self.describe.open(directory.as_fd(), &held.entry);
        described.map_err(|failure| failure.context(what))?;
        if held.described {
            return Ok(());
        }
        self.record(&held.entry)
    }
}

/// A directory that the archive uses without describing it.
pub(super) fn implicit(path: &[u8]) -> Held {
    Held {
        described: false,
        entry: Entry {
            path: path.to_vec(),
            kind: Kind::Dir,
            size: 0,
            mode: IMPLICIT_MODE,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            owner: None,
            group: None,
            mtime: Mtime::default(),
            sha256: None,
            link: None,
            xattrs: Vec::new(),
            sparse: false,
        },
    }
}
