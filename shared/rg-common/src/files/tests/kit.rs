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
