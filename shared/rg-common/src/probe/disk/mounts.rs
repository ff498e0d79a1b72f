//! /proc/self/mountinfo and /etc/fstab (proc(5), fstab(5)).

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Kinds that keep their bytes on a device of this machine and can run full.
const REAL: [&str; 14] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "vfat",
    "exfat", "ntfs3", "nilfs2",
];

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub number: String,
    pub point: PathBuf,
    pub kind: String,
    pub device: String,
    pub read_only: bool,
}

/// The file systems of real devices, each at its shortest mount point, in order of these. Where
/// there are none (a container), the root alone.
pub(super) fn real(mountinfo: &str) -> Vec<Mount> {
    let mut by_device: HashMap<String, Mount> = HashMap::new();
    for mount in visible(mountinfo) {
        if !REAL.contains(&mount.kind.as_str()) {
            continue;
        }
        let shorter = |known: &Mount| {
            (mount.point.as_os_str().len(), &mount.point)
                < (known.point.as_os_str().len(), &known.point)
        };
        if by_device.get(&mount.number).is_none_or(shorter) {
            by_device.insert(mount.number.clone(), mount);
        }
    }
    let mut found: Vec<Mount> = by_device.into_values().collect();
    if found.is_empty() {
        found.extend(holding(mountinfo, Path::new("/")));
    }
    found.sort_by(|a, b| a.point.cmp(&b.point));
    found
}

/// The file system that holds a path.
pub(super) fn holding(mountinfo: &str, path: &Path) -> Option<Mount> {
    visible(mountinfo)
        .into_iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// Of several at one mount point only the last is to be seen.
fn visible(mountinfo: &str) -> Vec<Mount> {
    let mut seen: Vec<Mount> = Vec::new();
    for mount in mountinfo.lines().filter_map(parse) {
        seen.retain(|known| known.point != mount.point);
        seen.push(mount);
    }
    seen
}

/// `36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let mut right = right.split(' ');
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let (kind, device) = (right.next()?, right.next()?);
    let of_super = right.next().unwrap_or_default();
    Some(Mount {
        number: (*left.get(2)?).to_owned(),
        point: unescape(left.get(4)?),
        kind: kind.to_owned(),
        device: unescape(device).to_string_lossy().into_owned(),
        read_only: read_only(left.get(5)?) || read_only(of_super),
    })
}

/// Whether fstab mounts this point to be read only.
pub(super) fn wanted_read_only(fstab: &str, point: &Path) -> bool {
    fstab.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let device = fields.next().unwrap_or("#");
        let at = fields.next().map(unescape);
        let options = fields.nth(1).unwrap_or_default();
        !device.starts_with('#')
            && at.as_deref() == Some(point)
            && options.split(',').any(|option| option == "ro")
    })
}

/// Blanks and the like are `\040`.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    OsString::from_vec(out).into()
}
