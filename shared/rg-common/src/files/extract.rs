//! Writes an archive into a new directory, and nowhere else.
//!
//! The archive is hostile until proved otherwise: absolute and climbing paths, writes through
//! links, hard links to elsewhere, devices, names that come twice and more than the limits allow
//! end the extraction with a reason. Parents are opened with `openat2` below the new directory's
//! descriptor and never through a symbolic link; new names are made exclusively.
//!
//! Modes, times and ACLs of directories are set last, so that a read-only directory can be
//! filled. They are held until then, within [`DIRECTORIES_BYTES_MAX`]; nothing else is.

mod directories;
mod links;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sha256::Sha256;
use rustix::fs::{Mode, OFlags, mkfifoat, openat, symlinkat, syncfs};

use super::archive::hash_zeros;
use super::confine::{clean, new_directory, new_name, refused, split, symlink_target};
use super::describe::Describe;
use super::entry::{Entry, Kind, escape};
use super::inventory::{FilesInventory, Tally};
use super::limits::{ExtractOptions, Limits, Owner};
use super::members::{Member, MemberKind, Members};
use crate::failure::{Failure, OrFail, Result};
pub use directories::DIRECTORIES_BYTES_MAX;
use directories::{Held, implicit};
use links::Linked;

/// Extracts an archive into `into`, which must not exist yet or be an empty directory; read to
/// the very end of the stream and flushed to disk with `syncfs`. The inventory is that of the
/// archive, hashed while it was written; `sink` gets each entry, and at the end those directories
/// that the archive did not describe. On a failure what was written stays for the caller to remove.
pub fn extract(
    tar: impl Read,
    into: &Path,
    options: ExtractOptions,
    sink: &mut dyn FnMut(&Entry) -> io::Result<()>,
) -> Result<FilesInventory> {
    if let Owner::Fixed(u32::MAX, _) | Owner::Fixed(_, u32::MAX) = options.owner {
        return Err(Failure::new(
            "no user and no group has the number 4294967295",
        ));
    }
    let root = new_directory(into)?;
    let mut extraction = Extraction {
        into: into.to_owned(),
        parent: None,
        directories: BTreeMap::new(),
        directories_bytes: 0,
        undescribed: 0,
        linked: HashMap::new(),
        tally: Tally::default(),
        describe: Describe::new(&options),
        limits: options.limits,
        sink,
        root,
    };
    extraction.hold(implicit(b"."))?;
    let mut members = Members::new(tar);
    while let Some(member) = members.next()? {
        let shown = escape(&member.path);
        extraction
            .member(member, &mut members)
            .map_err(|failure| failure.context(format!("cannot extract `{shown}`")))?;
    }
    extraction.finish()
}

struct Extraction<'a> {
    into: PathBuf,
    root: OwnedFd,
    /// The directory of the last name, most likely also of the next.
    parent: Option<(Vec<u8>, OwnedFd)>,
    limits: Limits,
    directories: BTreeMap<Vec<u8>, Held>,
    directories_bytes: usize,
    undescribed: u64,
    linked: HashMap<(u64, u64), Linked>,
    tally: Tally,
    describe: Describe,
    sink: &'a mut dyn FnMut(&Entry) -> io::Result<()>,
}

impl Extraction<'_> {
    fn member<R: Read>(&mut self, member: Member, members: &mut Members<R>) -> Result<()> {
        let path = clean(&member.path, self.limits.path_max)?;
        if path == b"." && member.kind != MemberKind::Dir {
            return Err(refused("the root can only be a directory"));
        }
        let (kind, link) = match member.kind {
            MemberKind::File => (Kind::File, None),
            MemberKind::Dir => (Kind::Dir, None),
            MemberKind::Symlink => (Kind::Symlink, Some(symlink_target(&member.link)?)),
            MemberKind::Hardlink => {
                let target = clean(&member.link, self.limits.path_max)
                    .map_err(|failure| failure.context("a hard link's target"))?;
                (Kind::Hardlink, Some(target))
            }
            MemberKind::Fifo => (Kind::Fifo, None),
            MemberKind::Device => {
                return Err(refused("a device has no place in a backup of files"));
            }
        };
        let mut entry = Entry {
            path,
            kind,
            size: if kind == Kind::File { member.size } else { 0 },
            mode: if kind == Kind::Symlink {
                0o777
            } else {
                member.mode
            },
            uid: member.uid,
            gid: member.gid,
            owner: member.owner,
            group: member.group,
            mtime: member.mtime,
            sha256: None,
            link,
            xattrs: match kind {
                Kind::File | Kind::Dir | Kind::Hardlink => member.xattrs,
                _ => Vec::new(),
            },
            sparse: member.segments.is_some(),
        };
        self.within_limits(&entry)?;
        if kind == Kind::Dir {
            return self.directory(entry);
        }
        let (parent, name) = split(&entry.path);
        let name = name.to_vec();
        let parent = self.open_parent(parent)?;
        match kind {
            Kind::File => {
                let segments = member.segments.as_deref();
                let sha256 = self.file(parent.as_fd(), &name, &entry, segments, members)?;
                entry.sha256 = Some(sha256);
            }
            Kind::Hardlink => self.hard_link(parent.as_fd(), &name, &mut entry)?,
            _ => self.special(parent.as_fd(), &name, &entry)?,
        }
        self.parent = Some((split(&entry.path).0.to_vec(), parent));
        self.record(&entry)
    }

    fn within_limits(&self, entry: &Entry) -> Result<()> {
        let (entries, bytes) = self.tally.size();
        let limits = &self.limits;
        // Directories count although an archive need not describe them.
        let known = self.directories.get(&entry.path);
        let known = u64::from(known.is_some_and(|held| !held.described));
        if entries + self.undescribed - known >= limits.entries_max {
            let what = format!("it holds more than {} names", limits.entries_max);
            return Err(refused(&what));
        }
        if bytes.saturating_add(entry.size) > limits.bytes_max {
            let what = format!("it holds more than {} bytes", limits.bytes_max);
            return Err(refused(&what));
        }
        Ok(())
    }

    fn record(&mut self, entry: &Entry) -> Result<()> {
        self.tally.record(entry);
        (self.sink)(entry).map_err(|error| Failure::from_io("cannot keep the inventory", error))
    }

    fn file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        segments: Option<&[(u64, u64)]>,
        members: &mut Members<R>,
    ) -> Result<[u8; 32]> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let mut file = File::from(openat(parent, name, flags, mode).map_err(new_name)?);
        let mut hash = Sha256::new();
        match segments {
            None => copy(members, entry.size, &mut file, &mut hash)?,
            Some(segments) => {
                let mut at = 0;
                for (offset, len) in segments {
                    hash_zeros(&mut hash, offset - at);
                    file.seek(io::SeekFrom::Start(*offset))
                        .or_fail(cannot_write)?;
                    copy(members, *len, &mut file, &mut hash)?;
                    at = offset + len;
                }
                hash_zeros(&mut hash, entry.size - at);
                file.set_len(entry.size).or_fail(cannot_write)?;
            }
        }
        self.describe.open(file.as_fd(), entry)?;
        Ok(hash.finalize())
    }

    /// A symbolic link or a named pipe.
    fn special(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<()> {
        match &entry.link {
            Some(target) => symlinkat(&target[..], parent, name).map_err(new_name)?,
            None => {
                mkfifoat(parent, name, Mode::RUSR | Mode::WUSR).map_err(new_name)?;
            }
        }
        self.describe.name(parent, name, entry)
    }

    /// Describes the directories, the deepest first, and flushes everything.
    fn finish(mut self) -> Result<FilesInventory> {
        // Nobody else can look in until the root gets its mode.
        let root = self.directories.remove(&b"."[..]);
        while let Some((_, held)) = self.directories.pop_last() {
            self.finish_directory(&held)?;
        }
        if let Some(root) = root {
            self.finish_directory(&root)?;
        }
        for note in self.describe.notes() {
            self.tally.note(note);
        }
        syncfs(&self.root)
            .map_err(io::Error::from)
            .or_fail(|| format!("cannot flush {} to disk", self.into.display()))?;
        Ok(self.tally.finish())
    }
}

/// Writes the next bytes of a member's data.
fn copy<R: Read>(
    members: &mut Members<R>,
    mut len: u64,
    file: &mut File,
    hash: &mut Sha256,
) -> Result<()> {
    while len > 0 {
        let chunk = members.chunk()?;
        let n = (chunk.len() as u64).min(len) as usize;
        if n == 0 {
            return Err(refused("a file with less data than it declares"));
        }
        hash.update(&chunk[..n]);
        file.write_all(&chunk[..n]).or_fail(cannot_write)?;
        members.consume(n);
        len -= n as u64;
    }
    Ok(())
}

fn cannot_write() -> String {
    "cannot write".into()
}
