//! Keeps an extraction in its directory: what a path may look like, and how it is opened.
//!
//! Two walls, each enough by itself: a path is judged as text first, and then opened with
//! `openat2` below the directory's descriptor and through no symbolic link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, mkdirat, openat, openat2};
use rustix::io::Errno;

use super::entry::escape;
use super::{PATH_BYTES_MAX, attributes};
use crate::failure::{Failure, OrFail, Result};

/// Makes the directory to extract into, or takes an empty one; nobody else may look in.
pub(super) fn new_directory(into: &Path) -> Result<OwnedFd> {
    let what = || format!("cannot extract into {}", into.display());
    let fail = |error: Errno| Failure::because(what(), io::Error::from(error));
    match rustix::fs::mkdir(into, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(fail(error).hint("its parent directory must exist")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = openat(CWD, into, flags, Mode::empty()).map_err(fail)?;
    let mut names = into.read_dir().or_fail(what)?;
    if names.next().is_some() {
        let what = format!("{}: the directory is not empty", what());
        return Err(Failure::new(what).hint("name one that does not exist yet"));
    }
    fchmod(&root, Mode::RWXU).map_err(fail)?;
    attributes::remove_acls(root.as_fd()).map_err(|failure| failure.context(what()))?;
    Ok(root)
}

pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    mkdirat(parent, name, Mode::RWXU).map_err(new_name)
}

/// Opens a directory below the root, through no link whatsoever.
pub(super) fn open_directory(
    root: BorrowedFd<'_>,
    path: &[u8],
    access: OFlags,
) -> Result<OwnedFd, Errno> {
    // Not NOFOLLOW: with PATH it would be an exemption from NO_SYMLINKS.
    let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel lost a race with a rename elsewhere and asks for another try.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A path relative to the root, without empty and `.` components.
pub(super) fn clean(path: &[u8], path_max: usize) -> Result<Vec<u8>> {
    if path.is_empty() {
        return Err(refused("an empty path"));
    }
    if path.starts_with(b"/") {
        return Err(refused("an absolute path"));
    }
    if path.contains(&0) {
        return Err(refused("a path with a NUL"));
    }
    let mut cleaned = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(refused("a path that climbs out with `..`")),
            _ if part.len() > 255 => return Err(refused("a name of more than 255 bytes")),
            part => {
                if !cleaned.is_empty() {
                    cleaned.push(b'/');
                }
                cleaned.extend(part);
            }
        }
    }
    if cleaned.len() > path_max.min(PATH_BYTES_MAX) {
        return Err(refused("a path that is too long"));
    }
    if cleaned.is_empty() {
        cleaned.push(b'.');
    }
    Ok(cleaned)
}

/// A symbolic link may point anywhere, since nothing is ever written through it.
pub(super) fn symlink_target(target: &[u8]) -> Result<Vec<u8>> {
    if target.is_empty() || target.contains(&0) || target.len() > PATH_BYTES_MAX {
        return Err(refused("a symbolic link with an impossible target"));
    }
    Ok(target.to_vec())
}

/// The directory of a clean path, and its last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

pub(super) fn refused(why: &str) -> Failure {
    Failure::new(format!("refused: {why}"))
        .hint("the archive is damaged or was made to do harm; nothing was written outside")
}

pub(super) fn twice() -> Failure {
    refused("the same name comes twice")
}

pub(super) fn below(path: &[u8], error: Errno) -> Failure {
    let path = escape(path);
    match error {
        Errno::LOOP => refused(&format!("a path through the symbolic link in `{path}`")),
        Errno::NOTDIR => refused(&format!("a path through `{path}`, which is no directory")),
        Errno::XDEV => refused(&format!("a path out of the directory: `{path}`")),
        Errno::NOSYS | Errno::PERM => {
            let what = format!("cannot open `{path}` safely");
            Failure::because(what, io::Error::from(error))
                .hint("it takes Linux 5.6 and a sandbox that allows openat2")
        }
        error => Failure::because(format!("cannot open `{path}`"), io::Error::from(error)),
    }
}

pub(super) fn new_name(error: Errno) -> Failure {
    match error {
        Errno::EXIST => twice(),
        error => Failure::because("cannot make it", io::Error::from(error)),
    }
}
