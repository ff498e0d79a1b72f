//! What a tree holds, in figures and in two digests that do not depend on the order of reading.
//!
//! Each entry becomes canonical bytes (every field behind its length), the SHA-256 of which is
//! added to a running sum modulo 2²⁵⁶. Two trees have equal digests if they hold the same
//! entries; a tree is read in order of its names, a foreign archive in any order.
//!
//! A file with several names counts as the same content under each of them: which name came
//! first is an accident of the order. How many there are is in `links`.

use crate::sha256::Sha256;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Kind, Xattr};

/// How many notes an inventory keeps; the counts go on.
pub const NOTES_MAX: usize = 20;

/// What was read, written or found. Part of a backup's manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesInventory {
    /// Regular files, each inode once.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Symbolic links, and further names of files that have several.
    pub links: u64,
    /// Named pipes.
    pub other: u64,
    /// Bytes in all files as a reader sees them, holes included, further names not.
    pub bytes: u64,
    /// Sum of the SHA-256 of every entry's path, kind, mode, owner and group numbers, time,
    /// size, content, link target and extended attributes; 64 hexadecimal digits.
    pub digest: String,
    /// As `digest`, without what a restore with a configured owner changes: owner, group, time,
    /// set-id bits and file capabilities.
    pub content_digest: String,
    /// Files that changed while they were read: they are in the archive with the digest of what
    /// was read, which may never have been on disk in this form at one time.
    #[serde(default)]
    pub changed: u64,
    /// Names that were gone between listing and opening.
    #[serde(default)]
    pub vanished: u64,
    /// Sockets, devices and mount points below the root: not in the archive.
    #[serde(default)]
    pub skipped: u64,
    /// Names left out because a pattern says so; what lies below them is not counted.
    #[serde(default)]
    pub excluded: u64,
    /// The first [`NOTES_MAX`] things worth a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An inventory in the making.
#[derive(Default)]
pub(super) struct Tally {
    inventory: FilesInventory,
    all: Sum,
    content: Sum,
    canonical: Vec<u8>,
}

impl Tally {
    /// Counts a finished entry.
    pub fn record(&mut self, entry: &Entry) {
        let inventory = &mut self.inventory;
        match entry.kind {
            Kind::File => {
                inventory.files += 1;
                inventory.bytes = inventory.bytes.saturating_add(entry.size);
            }
            Kind::Dir => inventory.directories += 1,
            Kind::Symlink | Kind::Hardlink => inventory.links += 1,
            Kind::Fifo => inventory.other += 1,
        }
        canonical_content(&mut self.canonical, entry);
        let content: [u8; 32] = Sha256::digest(&self.canonical);
        self.content.add(&content);
        canonical_rest(&mut self.canonical, &content, entry);
        self.all.add(&Sha256::digest(&self.canonical));
    }

    pub fn changed(&mut self, note: String) {
        self.inventory.changed += 1;
        self.note(note);
    }

    pub fn vanished(&mut self, note: String) {
        self.inventory.vanished += 1;
        self.note(note);
    }

    pub fn skipped(&mut self, note: String) {
        self.inventory.skipped += 1;
        self.note(note);
    }

    pub fn excluded(&mut self) {
        self.inventory.excluded += 1;
    }

    pub fn note(&mut self, note: String) {
        let notes = &self.inventory.notes;
        if notes.len() < NOTES_MAX && notes.last() != Some(&note) {
            self.inventory.notes.push(note);
        }
    }

    /// Entries and bytes so far.
    pub fn size(&self) -> (u64, u64) {
        let i = &self.inventory;
        (i.files + i.directories + i.links + i.other, i.bytes)
    }

    pub fn finish(self) -> FilesInventory {
        FilesInventory {
            digest: self.all.hex(),
            content_digest: self.content.hex(),
            ..self.inventory
        }
    }
}

/// What survives every restore.
fn canonical_content(out: &mut Vec<u8>, entry: &Entry) {
    out.clear();
    field(out, &entry.path);
    let (letter, link) = match entry.kind {
        Kind::File | Kind::Hardlink => (b'f', None),
        Kind::Dir => (b'd', None),
        Kind::Symlink => (b'l', entry.link.as_deref()),
        Kind::Fifo => (b'p', None),
    };
    out.push(letter);
    out.extend((entry.mode & 0o1777).to_be_bytes());
    out.extend(entry.size.to_be_bytes());
    field(out, entry.sha256.as_ref().map_or(&[], |sum| &sum[..]));
    field(out, link.unwrap_or_default());
    attributes(out, &entry.xattrs, |name| !is_privilege(name));
}

/// What a restore with a configured owner changes.
fn canonical_rest(out: &mut Vec<u8>, content: &[u8; 32], entry: &Entry) {
    out.clear();
    out.extend(content);
    out.extend((entry.mode & 0o6000).to_be_bytes());
    out.extend(entry.uid.to_be_bytes());
    out.extend(entry.gid.to_be_bytes());
    out.extend(entry.mtime.seconds.to_be_bytes());
    out.extend(entry.mtime.nanoseconds.to_be_bytes());
    attributes(out, &entry.xattrs, is_privilege);
}

fn attributes(out: &mut Vec<u8>, all: &[Xattr], wanted: impl Fn(&[u8]) -> bool) {
    for (name, value) in all.iter().filter(|(name, _)| wanted(name)) {
        field(out, name);
        field(out, value);
    }
}

/// File capabilities give rights as set-id bits do.
pub(super) fn is_privilege(attribute: &[u8]) -> bool {
    attribute.starts_with(b"security.")
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_be_bytes());
    out.extend(bytes);
}

/// A sum modulo 2²⁵⁶, least significant limb first.
#[derive(Default)]
struct Sum([u64; 4]);

impl Sum {
    fn add(&mut self, digest: &[u8; 32]) {
        let mut carry = false;
        for (limb, bytes) in self.0.iter_mut().zip(digest.rchunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            let (sum, first) = limb.overflowing_add(u64::from_be_bytes(word));
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first | second;
        }
    }

    fn hex(&self) -> String {
        let [a, b, c, d] = self.0;
        format!("{d:016x}{c:016x}{b:016x}{a:016x}")
    }
}

/// Bytes as lowercase hexadecimal digits. By a table: there is one for every file of a tree.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| {
        [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]
    };
    bytes.iter().flat_map(digits).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::entry::Mtime;

    fn file(path: &str) -> Entry {
        Entry {
            path: path.into(),
            kind: Kind::File,
            size: 1,
            mode: 0o644,
            uid: 1,
            gid: 1,
            owner: None,
            group: None,
            mtime: Mtime::default(),
            sha256: Some([7; 32]),
            link: None,
            xattrs: vec![],
            sparse: false,
        }
    }

    fn inventory(entries: &[Entry]) -> FilesInventory {
        let mut tally = Tally::default();
        entries.iter().for_each(|entry| tally.record(entry));
        tally.finish()
    }

    #[test]
    fn every_field_counts_and_the_order_does_not() {
        let (a, b) = (file("a"), file("b"));
        let plain = inventory(&[a.clone(), b.clone()]);
        assert_eq!(plain, inventory(&[b.clone(), a.clone()]));
        assert_ne!(plain.digest, inventory(&[a.clone(), a.clone()]).digest);
        let change = |how: &dyn Fn(&mut Entry)| {
            let mut changed = a.clone();
            how(&mut changed);
            inventory(&[changed, b.clone()])
        };
        for content in [
            change(&|e| e.path = b"aa".to_vec()),
            change(&|e| e.kind = Kind::Fifo),
            change(&|e| e.mode = 0o600),
            change(&|e| e.size = 2),
            change(&|e| e.sha256 = Some([8; 32])),
            change(&|e| e.xattrs = vec![(b"user.a".to_vec(), vec![])]),
        ] {
            assert_ne!(content.digest, plain.digest);
            assert_ne!(content.content_digest, plain.content_digest);
        }
        for rest in [
            change(&|e| e.uid = 2),
            change(&|e| e.gid = 2),
            change(&|e| e.mtime.nanoseconds = 1),
            change(&|e| e.mode |= 0o4000),
            change(&|e| e.xattrs = vec![(b"security.capability".to_vec(), vec![])]),
        ] {
            assert_ne!(rest.digest, plain.digest);
            assert_eq!(rest.content_digest, plain.content_digest);
        }
    }

    #[test]
    fn a_sum_carries_over_all_its_limbs() {
        let mut sum = Sum([u64::MAX; 4]);
        let mut one = [0; 32];
        one[31] = 1;
        sum.add(&one);
        assert_eq!(sum.hex(), "0".repeat(64));
        sum.add(&[0xff; 32]);
        assert_eq!(sum.hex(), "f".repeat(64));
    }
}
