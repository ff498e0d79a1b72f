//! A bucket's backup read again: the list line by line, and the archives that it names.

use std::io::{BufReader, Read};

use super::object::ObjectEntry;
use super::sorted::read_line;
use crate::catalog::manifest::hex;
use crate::dump::RowSum;
use crate::failure::{Failure, Result};
use crate::files::members::{Member, MemberKind, Members};
use crate::names::Stamp;
use crate::sha256::Sha256;

/// The list of a backup, entry by entry, in the order of keys.
pub struct Lines<R: Read> {
    from: BufReader<R>,
    sum: RowSum,
    bytes: u64,
    last: Option<String>,
}

impl<R: Read> Lines<R> {
    /// Reads a list's plain bytes.
    pub fn new(list: R) -> Self {
        Lines {
            from: BufReader::with_capacity(1 << 16, list),
            sum: RowSum::new(),
            bytes: 0,
            last: None,
        }
    }

    /// The next entry; none at the end.
    pub fn entry(&mut self) -> Result<Option<ObjectEntry>> {
        let Some(entry) = read_line::<ObjectEntry>(&mut self.from)? else {
            return Ok(None);
        };
        if self.last.as_ref().is_some_and(|last| *last >= entry.key) {
            return Err(Failure::new(format!(
                "the list of objects is not in order at `{}`",
                entry.key
            )));
        }
        self.sum.add_row(entry.identity().as_bytes());
        self.bytes += entry.size;
        self.last = Some(entry.key.clone());
        Ok(Some(entry))
    }

    /// Number, bytes and digest of the entries so far, as a manifest records them for all.
    pub fn tally(&self) -> (u64, u64, String) {
        (self.sum.rows(), self.bytes, self.sum.checksum())
    }
}

/// Goes through the archive of the backup `stamp` and hands each object that lies in it, by the
/// word of a list, to `take` with its content. `take` may leave content unread. The content's
/// length and SHA-256 are checked after it was read; so is that nothing which the list names is
/// missing. An entry's content counts only once this has returned well.
pub fn read_objects<R: Read, L: Read>(
    archive: R,
    stamp: Stamp,
    list: &mut Lines<L>,
    take: &mut dyn FnMut(&ObjectEntry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut members = Members::new(archive);
    while let Some(entry) = list.entry()? {
        if entry.stamp != stamp {
            continue;
        }
        let member = find(&mut members, &entry)?;
        if member.size != entry.size {
            return Err(other(
                &entry,
                format!("{} bytes, not {}", member.size, entry.size),
            ));
        }
        let mut content = Content {
            members: &mut members,
            hash: Sha256::new(),
        };
        take(&entry, &mut content)?;
        std::io::copy(&mut content, &mut std::io::sink())
            .map_err(|error| Failure::from_io(format!("cannot read `{}`", entry.key), error))?;
        let sha256 = hex(&content.hash.finalize());
        if sha256 != entry.sha256 {
            return Err(other(
                &entry,
                format!("SHA-256 {sha256}, not {}", entry.sha256),
            ));
        }
    }
    // To the end, so that everything behind was as it should be too.
    while members.next()?.is_some() {}
    Ok(())
}

fn other(entry: &ObjectEntry, what: String) -> Failure {
    Failure::new(format!("object `{}` is not as recorded: {what}", entry.key))
}

/// The member of an entry: members come in the order of keys, and those that newer backups hold
/// anew are passed over.
fn find<R: Read>(members: &mut Members<R>, entry: &ObjectEntry) -> Result<Member> {
    let path = entry.member();
    while let Some(member) = members.next()? {
        if member.kind == MemberKind::File && member.path == path.as_bytes() {
            return Ok(member);
        }
    }
    Err(Failure::new(format!(
        "object `{}` is not in the archive of {}",
        entry.key, entry.stamp
    )))
}

/// One member's bytes.
struct Content<'a, R: Read> {
    members: &'a mut Members<R>,
    hash: Sha256,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let chunk = self.members.chunk().map_err(Failure::into_io)?;
        let n = chunk.len().min(buffer.len());
        buffer[..n].copy_from_slice(&chunk[..n]);
        self.hash.update(&buffer[..n]);
        self.members.consume(n);
        Ok(n)
    }
}
