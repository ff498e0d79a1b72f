//! How an archive is extracted, and what it may not exceed.

use std::io;
use std::path::Path;

use rustix::fs::statvfs;

use super::PATH_BYTES_MAX;
use super::inventory::FilesInventory;
use crate::failure::{OrFail, Result};

/// How an archive is extracted.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Who owns what is written.
    pub owner: Owner,
    /// What ends the extraction.
    pub limits: Limits,
    /// Keep set-user-id and set-group-id bits and file capabilities. Only for archives of ours.
    pub allow_setuid: bool,
    /// Restore extended attributes and ACLs; an error where the file system has none.
    pub attributes: bool,
}

/// Who owns what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The numbers in the archive. Takes root.
    Recorded,
    /// One user and one group, by number. Takes root.
    Fixed(u32, u32),
    /// Whoever runs this.
    Mine,
}

/// Bounds for an archive that lies about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Names, directories included.
    pub entries_max: u64,
    /// Bytes in all files, holes included.
    pub bytes_max: u64,
    /// Bytes of a path.
    pub path_max: usize,
}

impl Limits {
    /// Exactly what a manifest promises.
    pub fn of(inventory: &FilesInventory) -> Self {
        let i = inventory;
        Limits {
            entries_max: i.files + i.directories + i.links + i.other,
            bytes_max: i.bytes,
            path_max: PATH_BYTES_MAX,
        }
    }

    /// What fits on the file system of `place`, which must exist. File systems that do not count
    /// their inodes (btrfs) bound only the bytes.
    pub fn of_free_space(place: &Path) -> Result<Self> {
        let found = statvfs(place)
            .map_err(io::Error::from)
            .or_fail(|| format!("cannot see the free space of {}", place.display()))?;
        let inodes = if found.f_files == 0 {
            u64::MAX
        } else {
            found.f_favail
        };
        Ok(Limits {
            entries_max: inodes,
            bytes_max: found.f_bavail.saturating_mul(found.f_frsize),
            path_max: PATH_BYTES_MAX,
        })
    }
}
