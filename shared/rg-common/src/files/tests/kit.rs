//! Scratch directories and the few calls that every test makes.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::{Failure, Result};
use crate::files::*;

/// A directory of this test alone, removed when it ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rg-files-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and the directories above it.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Every name below, for "nothing was written here".
    pub fn names(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![self.0.clone()];
        while let Some(directory) = open.pop() {
            for item in std::fs::read_dir(directory).unwrap() {
                let path = item.unwrap().path();
                all.push(path.strip_prefix(&self.0).unwrap().display().to_string());
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                }
            }
        }
        all.sort();
        all
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Directories may have been made unreadable; root does not mind, others do.
        let mut open = vec![self.0.clone()];
        while let Some(directory) = open.pop() {
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).ok();
            let items = std::fs::read_dir(directory).into_iter().flatten().flatten();
            open.extend(
                items
                    .filter(|item| item.file_type().is_ok_and(|t| t.is_dir()))
                    .map(|item| item.path()),
            );
        }
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The archive as bytes, what it says about itself, and its entries.
pub fn archived(root: &Path) -> Result<(Vec<u8>, FilesInventory, Vec<Entry>)> {
    archived_with(root, ArchiveOptions::default())
}

pub fn archived_with(
    root: &Path,
    options: ArchiveOptions,
) -> Result<(Vec<u8>, FilesInventory, Vec<Entry>)> {
    let (mut bytes, mut entries) = (Vec::new(), Vec::new());
    let mut archive = archive(root, options, |entry| {
        entries.push(entry.clone());
        Ok(())
    })?;
    archive
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::from_io("cannot read", error))?;
    let inventory = archive.finish()?;
    Ok((bytes, inventory, entries))
}

pub fn trusting() -> ExtractOptions {
    ExtractOptions {
        owner: if am_root() {
            Owner::Recorded
        } else {
            Owner::Mine
        },
        limits: Limits {
            entries_max: 100_000,
            bytes_max: 1 << 40,
            path_max: PATH_BYTES_MAX,
        },
        allow_setuid: true,
        attributes: true,
    }
}

pub fn extracted(tar: &[u8], into: &Path) -> Result<FilesInventory> {
    extract(tar, into, trusting(), &mut |_| Ok(()))
}

pub fn scanned(root: &Path) -> FilesInventory {
    scan(root, ArchiveOptions::default(), &mut |_| Ok(())).unwrap()
}

/// Inventories of the same tree at different times: notes may differ, content must not.
pub fn assert_same(a: &FilesInventory, b: &FilesInventory) {
    let bare = |i: &FilesInventory| FilesInventory {
        notes: vec![],
        skipped: 0,
        ..i.clone()
    };
    assert_eq!(bare(a), bare(b));
}

/// Entries as lines of JSON, which are shorter to read when they differ.
pub fn lines(entries: &[Entry]) -> Vec<String> {
    let line = |entry| serde_json::to_string(entry).unwrap();
    entries.iter().map(line).collect()
}

/// A tree with one of everything: 9 files (one of them with holes), 6 directories, 3 symbolic
/// links, a further name of a file, a named pipe and a socket.
pub fn furnish(scratch: &Scratch) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let tree = scratch.path("tree");
    let long = format!("tree/{0}/{0}/{1}", "d".repeat(120), "f".repeat(200));
    for (name, content) in [
        ("tree/plain", &b"hello\n"[..]),
        ("tree/empty", b""),
        ("tree/sub/private", b"secret"),
        ("tree/large", &[42; 1_000_003]),
        ("tree/set-id", b"#!"),
        (&long, b"long"),
        ("tree/caf\u{e9}", b"utf-8"),
    ] {
        scratch.file(name, content);
    }
    let odd = tree.join(std::ffi::OsStr::from_bytes(b"not-utf8-\xff"));
    std::fs::write(&odd, b"odd").unwrap();
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[9; 5000], 20_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[8; 100], 40_000_001).unwrap();
    sparse.set_len(50_000_100).unwrap();
    std::fs::create_dir(tree.join("read-only")).unwrap();
    std::fs::create_dir(tree.join("empty-directory")).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", tree.join("absolute")).unwrap();
    std::os::unix::fs::symlink("nowhere", tree.join("sub/dangling")).unwrap();
    std::os::unix::fs::symlink("x".repeat(300), tree.join("long-link")).unwrap();
    std::fs::hard_link(tree.join("plain"), tree.join("zz-other-name")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.join("pipe"), mode).unwrap();
    drop(std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap());

    let set = |name: &str, key: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(tree.join(name), key, value, flags).unwrap();
    };
    set("plain", "user.note", b"a\nb=c\0d");
    set("sub", "user.a=b%3D", b"");
    // Version 2; the owner rw, user 1234 r, the group r, the mask r, others nothing.
    let acl: Vec<u8> = [
        &2_u32.to_le_bytes()[..],
        &acl_entry(0x01, 6, u32::MAX),
        &acl_entry(0x02, 4, 1234),
        &acl_entry(0x04, 4, u32::MAX),
        &acl_entry(0x10, 4, u32::MAX),
        &acl_entry(0x20, 0, u32::MAX),
    ]
    .concat();
    set("sub/private", "system.posix_acl_access", &acl);
    set("sub", "system.posix_acl_default", &acl);

    let chmod = |name: &str, mode| {
        std::fs::set_permissions(tree.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    chmod("set-id", 0o4755);
    chmod("sub", 0o1770);
    chmod("large", 0o400);
    if am_root() {
        let owners = [
            ("plain", 3_000_000, 7),
            ("absolute", 1000, 1000),
            ("pipe", 1, 1),
        ];
        for (name, uid, gid) in owners {
            std::os::unix::fs::lchown(tree.join(name), Some(uid), Some(gid)).unwrap();
        }
    }
    for (name, seconds, nanoseconds) in [("plain", -86_400, 250_000_000), ("absolute", 1, 1)] {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, tree.join(name), &times, flags).unwrap();
    }
    chmod("read-only", 0o555);
    tree
}

fn acl_entry(tag: u16, rights: u16, id: u32) -> [u8; 8] {
    let mut entry = [0; 8];
    entry[..2].copy_from_slice(&tag.to_le_bytes());
    entry[2..4].copy_from_slice(&rights.to_le_bytes());
    entry[4..].copy_from_slice(&id.to_le_bytes());
    entry
}
