//! Reads a tree from disk and says what it holds: the other side of every comparison.

use std::io;
use std::path::Path;

use crate::sha256::Sha256;

use super::archive::read_at_most;
use super::entry::{Entry, escape};
use super::inventory::FilesInventory;
use super::walk::{Found, Opened, Walk, differs};
use super::{ArchiveOptions, CHUNK};
use crate::failure::{Failure, OrFail, Result};

/// Reads every file below `root`. The digests equal those of an archive of the same tree made
/// with the same options, and of the archive from which the tree was extracted (as root, with the
/// recorded owners; else the content digest).
pub fn scan(
    root: &Path,
    options: ArchiveOptions,
    sink: &mut dyn FnMut(&Entry) -> io::Result<()>,
) -> Result<FilesInventory> {
    let (mut walk, first) = Walk::start(root, options)?;
    let mut buffer = vec![0; CHUNK];
    let mut next = Some(first);
    while let Some(Found { mut entry, file }) = next {
        if let Some(opened) = file {
            hash(&mut walk, &mut entry, opened, &mut buffer)?;
        }
        walk.tally.record(&entry);
        sink(&entry).map_err(|error| Failure::from_io("cannot keep the inventory", error))?;
        next = walk.next()?;
    }
    Ok(walk.tally.finish())
}

fn hash(walk: &mut Walk, entry: &mut Entry, opened: Opened, buffer: &mut [u8]) -> Result<()> {
    let Opened { file, stat } = opened;
    let what = || format!("cannot read {}", walk.show(&entry.path));
    let (mut hash, mut size) = (Sha256::new(), 0);
    loop {
        let wanted = (entry.size - size).min(CHUNK as u64) as usize;
        let n = read_at_most(&file, &mut buffer[..wanted], size).or_fail(what)?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
    let now = rustix::fs::fstat(&file)
        .map_err(io::Error::from)
        .or_fail(what)?;
    entry.size = size;
    entry.sha256 = Some(hash.finalize());
    #[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
    let allocated = (stat.st_blocks as u64).saturating_mul(512);
    entry.sparse = allocated < size;
    if differs(&stat, &now) {
        let note = format!("changed while it was read: {}", escape(&entry.path));
        walk.tally.changed(note);
    }
    walk.hashed(entry, &stat);
    Ok(())
}
