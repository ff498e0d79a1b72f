//! What `fstat` says, in types that are the same on every architecture.

use rustix::fs::Stat;

use crate::files::entry::Mtime;

/// Device and inode: what makes two names the same file.
#[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
pub(in crate::files) fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
pub(super) fn link_count(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

pub(super) fn device(stat: &Stat) -> u64 {
    inode(stat).0
}

/// When the content last changed.
#[allow(clippy::unnecessary_cast)] // The fields' types differ between architectures.
pub(in crate::files) fn mtime(stat: &Stat) -> Mtime {
    Mtime {
        seconds: stat.st_mtime as i64,
        nanoseconds: stat.st_mtime_nsec as u32,
    }
}

/// Whether a file was written to between two looks: its size or one of its times differ.
pub(in crate::files) fn differs(before: &Stat, after: &Stat) -> bool {
    before.st_size != after.st_size
        || mtime(before) != mtime(after)
        || (before.st_ctime, before.st_ctime_nsec) != (after.st_ctime, after.st_ctime_nsec)
}
