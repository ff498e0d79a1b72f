//! Writes an archive into a new directory, and nowhere else.
//!
//! The archive is hostile until proved otherwise: absolute and climbing paths, writes through
//! links, hard links to elsewhere, devices, names that come twice and more than the limits allow
//! end the extraction with a reason. Parents are opened with `openat2` below the new directory's
//! descriptor and never through a symbolic link; new names are made exclusively.
//!
//! Modes, times and ACLs of directories are set last, so that a read-only directory can be
//! filled. They are held until then, within [`DIRECTORIES_BYTES_MAX`]; nothing else is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::sha256::Sha256;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, linkat, mkfifoat, openat, statat, symlinkat, syncfs,
};
use rustix::io::Errno;

use super::CHUNK;
use super::archive::{hash_zeros, read_at_most};
use super::attributes::Attributes;
use super::confine::{
    below, clean, make_directory, new_directory, new_name, open_directory, refused, split,
    symlink_target, twice,
};
use super::describe::Describe;
use super::entry::{Entry, Kind, Mtime, Xattr, escape};
use super::inventory::{FilesInventory, Tally};
use super::limits::{ExtractOptions, Limits, Owner};
use super::members::{Member, MemberKind, Members};
use super::walk::inode;
use crate::failure::{Failure, OrFail, Result};

/// Memory for the directories whose modes and times are set at the end.
pub const DIRECTORIES_BYTES_MAX: usize = 512 << 20;
/// Files with further names whose digest is remembered; it is computed again beyond.
const LINKED_FILES_MAX: usize = 1_000_000;
/// What a directory gets that the archive uses without describing it.
const IMPLICIT_MODE: u32 = 0o755;

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

/// What a file with several names holds.
#[derive(Clone)]
struct Linked {
    sha256: [u8; 32],
    xattrs: Vec<Xattr>,
}

/// A directory's description until the end.
struct Held {
    entry: Entry,
    described: bool,
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

    /// Makes a directory, or takes the description of one that was made for something in it.
    fn directory(&mut self, entry: Entry) -> Result<()> {
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

    fn hold(&mut self, held: Held) -> Result<()> {
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
    fn open_parent(&mut self, path: &[u8]) -> Result<OwnedFd> {
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

    /// Links to a file extracted before. The entry takes over what the file is, which is what a
    /// reader of the tree will find.
    fn hard_link(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: &mut Entry) -> Result<()> {
        let target = entry.link.clone().unwrap_or_default();
        let (above, target_name) = split(&target);
        let what = || format!("a hard link to `{}`", escape(&target));
        let directory = open_directory(self.root.as_fd(), above, OFlags::PATH)
            .map_err(|error| below(above, error).context(what()))?;
        let found = statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .or_fail(what)?;
        if !FileType::from_raw_mode(found.st_mode).is_file() {
            return Err(refused("a hard link to something that is no file").context(what()));
        }
        linkat(&directory, target_name, parent, name, AtFlags::empty()).map_err(new_name)?;
        entry.size = found.st_size.unsigned_abs();
        let linked = self.linked_content(directory.as_fd(), target_name, &found)?;
        entry.sha256 = Some(linked.sha256);
        if entry.xattrs.is_empty() {
            // GNU tar writes them with the first name only.
            entry.xattrs = linked.xattrs;
        }
        Ok(())
    }

    /// What a file with several names holds, read back once.
    fn linked_content(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
        found: &Stat,
    ) -> Result<Linked> {
        if let Some(known) = self.linked.get(&inode(found)) {
            return Ok(known.clone());
        }
        let what = || "cannot read the file that a hard link names".to_owned();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty());
        let file = File::from(file.map_err(io::Error::from).or_fail(what)?);
        let (mut hash, mut at, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
        loop {
            let n = read_at_most(&file, &mut buffer, at).or_fail(what)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            at += n as u64;
        }
        let linked = Linked {
            sha256: hash.finalize(),
            xattrs: Attributes::default().read(file.as_fd())?,
        };
        if self.linked.len() < LINKED_FILES_MAX {
            self.linked.insert(inode(found), linked.clone());
        }
        Ok(linked)
    }

    fn finish_directory(&mut self, held: &Held) -> Result<()> {
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

/// A directory that the archive uses without describing it.
fn implicit(path: &[u8]) -> Held {
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
