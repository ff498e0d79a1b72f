//! Swaps a restored tree with the live one.
//!
//! One `renameat2` with `RENAME_EXCHANGE`: at every instant the live path names either the whole
//! old tree or the whole new one.

use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, fsync, openat, renameat_with};
use rustix::io::Errno;

use crate::failure::{Failure, OrFail, Result};

/// Swaps two paths of the same file system and makes it durable. Both must exist, and neither may
/// be a symbolic link (the link would move, not what it names) or a mount point. When it fails
/// before the swap nothing has changed; a failed `fsync` after it is said to be that.
pub fn exchange(a: &Path, b: &Path) -> Result<()> {
    for path in [a, b] {
        let found = path
            .symlink_metadata()
            .or_fail(|| format!("cannot exchange {}", path.display()))?;
        if found.is_symlink() {
            let what = format!("cannot exchange {}: it is a symbolic link", path.display());
            return Err(Failure::new(what).hint("configure the path that it points to"));
        }
    }
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|error| {
        let what = format!("cannot exchange {} and {}", a.display(), b.display());
        let failure = Failure::because(what, io::Error::from(error));
        match error {
            Errno::XDEV => {
                failure.hint("they lie on different file systems: restore beside the live one")
            }
            Errno::BUSY => failure.hint(
                "one of them is a mount point or otherwise held: configure a directory below it",
            ),
            Errno::INVAL | Errno::NOSYS => failure.hint(
                "the file system cannot exchange two names, or one path lies below the other",
            ),
            Errno::ACCESS | Errno::PERM => {
                failure.hint("it takes the right to write in both parent directories")
            }
            _ => failure,
        }
    })?;
    for path in [a, b] {
        sync_parent(path)?;
    }
    Ok(())
}

/// Makes a rename in a path's directory durable.
fn sync_parent(path: &Path) -> Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, parent, flags, Mode::empty())
        .and_then(fsync)
        .map_err(io::Error::from)
        .or_fail(|| {
            format!(
                "exchanged, but cannot make it durable: fsync {}",
                parent.display()
            )
        })
}
