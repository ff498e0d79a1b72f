//! Hard links while an archive is extracted: what the file holds is read back once.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, linkat, openat, statat};

use super::Extraction;
use crate::failure::{OrFail, Result};
use crate::files::CHUNK;
use crate::files::archive::read_at_most;
use crate::files::attributes::Attributes;
use crate::files::confine::{below, new_name, open_directory, refused, split};
use crate::files::entry::{Entry, Xattr, escape};
use crate::files::walk::inode;
use crate::sha256::Sha256;

/// Files with further names whose digest is remembered; it is computed again beyond.
const LINKED_FILES_MAX: usize = 1_000_000;

/// What a file with several names holds.
#[derive(Clone)]
pub(super) struct Linked {
    sha256: [u8; 32],
    xattrs: Vec<Xattr>,
}

impl Extraction<'_> {
    /// Links to a file extracted before. The entry takes over what the file is, which is what a
    /// reader of the tree will find.
    pub(super) fn hard_link(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &mut Entry,
    ) -> Result<()> {
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
    pub(super) fn linked_content(
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
}
