//! Writes what stands before a member's data in a POSIX pax archive.
//!
//! Everything that the old fixed fields cannot hold goes into extended header records (POSIX
//! 1003.1-2001, `pax`): long and non-ASCII names, sizes of 8 GiB and above, nanoseconds, and by
//! the conventions of GNU tar and star `SCHILY.xattr.*` and sparse files in format 1.0.

use tar::{EntryType, Header};

use super::entry::{Entry, Kind, Mtime};

/// A block of the format.
pub const BLOCK: usize = 512;
/// Largest numbers of the header's octal fields of 8 and of 12 bytes.
const SMALL_MAX: u64 = 0o777_7777;
const LARGE_MAX: u64 = 0o777_7777_7777;

/// A file with holes: what follows its header.
pub(crate) struct SparseMap {
    /// The map as text, padded to whole blocks.
    pub text: Vec<u8>,
    /// Bytes of the map and of all data behind it.
    pub stored: u64,
}

impl SparseMap {
    /// Format 1.0: the number of segments, then offset and length of each, a number a line.
    pub fn new(segments: &[(u64, u64)]) -> Self {
        let mut text = format!("{}\n", segments.len()).into_bytes();
        for (offset, len) in segments {
            text.extend(format!("{offset}\n{len}\n").into_bytes());
        }
        pad(&mut text);
        let data: u64 = segments.iter().map(|(_, len)| len).sum();
        SparseMap {
            stored: text.len() as u64 + data,
            text,
        }
    }
}

/// Appends an entry's header, in front of it an extended one if needed, and its sparse map.
pub(crate) fn write(out: &mut Vec<u8>, entry: &Entry, sparse: Option<&SparseMap>) {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Dir {
        path.push(b'/');
    }
    let size = match (entry.kind, sparse) {
        (Kind::File, Some(map)) => map.stored,
        (Kind::File, None) => entry.size,
        _ => 0,
    };
    let mut records = Vec::new();
    let mut name = path.clone();
    if sparse.is_some() {
        record(&mut records, b"GNU.sparse.major", b"1");
        record(&mut records, b"GNU.sparse.minor", b"0");
        record(&mut records, b"GNU.sparse.name", &path);
        let real = entry.size.to_string();
        record(&mut records, b"GNU.sparse.realsize", real.as_bytes());
        let last = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        name = [b"GNUSparseFile.0/", last].concat();
    }
    if !fits(&name, 100) {
        record(&mut records, b"path", &name);
    }
    let link = entry.link.as_deref().unwrap_or_default();
    if !fits(link, 100) {
        record(&mut records, b"linkpath", link);
    }
    let number = |records: &mut Vec<u8>, key: &[u8], value: u64, max: u64| {
        if value > max {
            record(records, key, value.to_string().as_bytes());
        }
    };
    number(&mut records, b"size", size, LARGE_MAX);
    number(&mut records, b"uid", entry.uid.into(), SMALL_MAX);
    number(&mut records, b"gid", entry.gid.into(), SMALL_MAX);
    let seconds = u64::try_from(entry.mtime.seconds)
        .ok()
        .filter(|s| *s <= LARGE_MAX);
    if entry.mtime.nanoseconds != 0 || seconds.is_none() {
        record(&mut records, b"mtime", decimal(entry.mtime).as_bytes());
    }
    let owner = entry.owner.as_deref().unwrap_or_default().as_bytes();
    let group = entry.group.as_deref().unwrap_or_default().as_bytes();
    if !fits(owner, 31) {
        record(&mut records, b"uname", owner);
    }
    if !fits(group, 31) {
        record(&mut records, b"gname", group);
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &attribute_key(name), value);
    }
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(records.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        finish(out, header, b"././@PaxHeader");
        out.extend(&records);
        pad(out);
    }

    let mut header = Header::new_ustar();
    header.set_entry_type(match entry.kind {
        Kind::File => EntryType::Regular,
        Kind::Dir => EntryType::Directory,
        Kind::Symlink => EntryType::Symlink,
        Kind::Hardlink => EntryType::Link,
        Kind::Fifo => EntryType::Fifo,
    });
    header.set_size(size.min(LARGE_MAX));
    header.set_mode(entry.mode);
    header.set_uid(u64::from(entry.uid).min(SMALL_MAX));
    header.set_gid(u64::from(entry.gid).min(SMALL_MAX));
    header.set_mtime(seconds.unwrap_or(0));
    copy(&mut header.as_old_mut().linkname, link);
    if let Some(ustar) = header.as_ustar_mut() {
        copy(&mut ustar.uname[..31], owner);
        copy(&mut ustar.gname[..31], group);
    }
    finish(out, header, &name);
    if let Some(map) = sparse {
        out.extend(&map.text);
    }
}

/// Fills up to a whole block with zeros. `out` must have begun at a block's edge.
pub(crate) fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// The keyword for an attribute: `=` would end it, so GNU tar writes `%3D`, and `%25` for `%`.
pub(super) fn attribute_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend(b"%3D"),
            b'%' => key.extend(b"%25"),
            other => key.push(*other),
        }
    }
    key
}

fn finish(out: &mut Vec<u8>, mut header: Header, name: &[u8]) {
    copy(&mut header.as_old_mut().name, name);
    header.set_cksum();
    out.extend(header.as_bytes());
}

fn copy(field: &mut [u8], bytes: &[u8]) {
    let len = bytes.len().min(field.len());
    field[..len].copy_from_slice(&bytes[..len]);
}

fn fits(bytes: &[u8], max: usize) -> bool {
    bytes.len() <= max && bytes.is_ascii()
}

/// `length key=value\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + digits(len) != len {
        len = rest + digits(len);
    }
    out.extend(len.to_string().into_bytes());
    out.push(b' ');
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Seconds as a decimal fraction; before 1970 the whole is negative: -1 s + 0.25 s is `-0.75`.
fn decimal(time: Mtime) -> String {
    let (seconds, nanoseconds) = (i128::from(time.seconds), i128::from(time.nanoseconds));
    let total = seconds * 1_000_000_000 + nanoseconds;
    let sign = if total < 0 { "-" } else { "" };
    let total = total.unsigned_abs();
    let (whole, fraction) = (total / 1_000_000_000, total % 1_000_000_000);
    format!("{sign}{whole}.{fraction:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for value in 0..1200 {
            let mut out = Vec::new();
            record(&mut out, b"k", &vec![b'v'; value]);
            let text = String::from_utf8(out).unwrap();
            let len: usize = text.split_once(' ').unwrap().0.parse().unwrap();
            assert_eq!(len, text.len());
        }
    }

    #[test]
    fn times_before_1970_are_negative_as_a_whole() {
        let time = |seconds, nanoseconds| {
            decimal(Mtime {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(time(1, 5), "1.000000005");
        assert_eq!(time(-1, 250_000_000), "-0.750000000");
        assert_eq!(time(-2, 0), "-2.000000000");
    }
}
