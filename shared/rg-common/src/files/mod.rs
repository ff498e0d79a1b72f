//! Directories as tar archives: written by our own walk, read as hostile, compared by digest.
//!
//! [`archive`] turns a tree into a POSIX pax archive that GNU tar restores without us, produced
//! as it is read and in constant memory. [`extract`] writes an archive into a new directory and
//! nowhere else, whatever the archive says. [`scan`] reads a tree without writing. All three give
//! the same [`FilesInventory`] for the same tree, which is how a restore is proved.
//! [`exchange`] swaps a restored tree with the live one in one step.

mod archive;
mod attributes;
mod confine;
mod describe;
mod entry;
mod exchange;
mod extract;
pub(crate) mod header;
mod inventory;
mod limits;
mod listing;
pub(crate) mod members;
mod owners;
mod pattern;
mod pax;
mod scan;
mod sparse;
mod walk;

#[cfg(test)]
mod tests;

pub use archive::{Archive, archive};
pub use entry::{Entry, Kind, Mtime, Xattr, escape, unescape};
pub use exchange::exchange;
pub use extract::{DIRECTORIES_BYTES_MAX, extract};
pub use inventory::{FilesInventory, NOTES_MAX};
pub use limits::{ExtractOptions, Limits, Owner};
pub use pattern::Pattern;
pub use scan::scan;
pub use walk::DEPTH_MAX;

/// Longest path below the root in bytes, as long as one that Linux takes in a call.
pub const PATH_BYTES_MAX: usize = 4095;

/// File data moves in portions of so many bytes.
const CHUNK: usize = 256 << 10;

/// Zeros to hash and pad with.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What a backup of a directory leaves out.
#[derive(Clone, Debug, Default)]
pub struct ArchiveOptions {
    /// Names to leave out, with all that lies below them.
    pub exclude: Vec<Pattern>,
    /// Device and inode of files and directories to leave out: our own store when it lies below.
    pub skip: Vec<(u64, u64)>,
}
