//! A file replaced by a new one, whole or not at all, with its mode, owner and attributes.
//!
//! The promise: what others can read or redirect is refused rather than written; a kill at any
//! instruction leaves the old file or the new one under the name, and at most a private leftover
//! beside it that the next run removes. No copy of the old content is kept.

use std::fs::{self, File, Metadata, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rg_common::{Failure, OrFail, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::owners;

/// Bits that a file with secrets must not have: anything for others, writing for the group.
const TOO_OPEN: u32 = 0o037;
/// An extended attribute larger than this is not copied; the file is refused.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// What a new file is to be like.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Its mode when there was none before, or when the old one's is mended.
    pub mode: u32,
    /// The group that a new file is given to, where we may.
    pub group: Option<String>,
    /// Mend the mode of a file that is too open instead of refusing it.
    pub fix_mode: bool,
    /// It holds no secret, so that others may read it.
    pub public: bool,
}

/// Holds a directory, so that two runs do not write into it at the same time.
pub struct Hold(#[allow(dead_code)] OwnedFd);

/// Waits for nobody: another run in this directory is a failure.
pub fn hold(directory: &Path) -> Result<Hold> {
    let what = || format!("cannot open {}", directory.display());
    let fd = rustix::fs::open(
        directory,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .or_fail(what)?;
    rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Failure::new(format!(
            "another rg-envgen works in {}",
            directory.display()
        ))
        .hint("wait until it has ended")
    })?;
    Ok(Hold(fd))
}

/// Looks at the file that would be replaced; none when there is none. Refuses what must not be
/// written through or what others can read.
pub fn look(path: &Path, fix_mode: bool) -> Result<Option<Metadata>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::because(
                format!("cannot look at {}", path.display()),
                error,
            ));
        }
    };
    if meta.is_symlink() {
        let real = fs::read_link(path).unwrap_or_default();
        return Err(Failure::new(format!("{} is a symbolic link", path.display())).hint(format!(
            "name the file itself ({}) in rg.toml: a link can be pointed elsewhere between two looks",
            real.display()
        )));
    }
    if !meta.is_file() {
        return Err(Failure::new(format!("{} is no file", path.display())));
    }
    let mode = meta.permissions().mode() & 0o7777;
    if mode & TOO_OPEN != 0 && !fix_mode {
        let who = if mode & 0o007 != 0 {
            "everybody"
        } else {
            "its group"
        };
        return Err(Failure::new(format!(
            "{} has mode {mode:04o}: {who} can read or change it",
            path.display()
        ))
        .hint(format!(
            "chmod 0600 {} (0640 for a group that reads), or --fix-modes",
            path.display()
        ))
        .hint("what others could read is not secret any more: rotate it"));
    }
    Ok(Some(meta))
}

/// Whether others than its owner and a reading group can get at a file.
pub fn is_open(meta: &Metadata) -> bool {
    meta.permissions().mode() & TOO_OPEN != 0
}

/// Replaces the file, or makes it.
pub fn replace(path: &Path, content: &[u8], manner: &Manner) -> Result<()> {
    let old = look(path, manner.fix_mode || manner.public)?;
    let directory = directory_of(path);
    refuse_open_directory(&directory)?;
    let what = || format!("cannot write {}", path.display());
    let beside = beside(path);
    sweep(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&beside, flags, Mode::from_raw_mode(0o600)).or_fail(what)?;
    let mut file = File::from(fd);
    let done = (|| {
        let mode = match &old {
            Some(old) => {
                copy_attributes(path, &file)?;
                let own = file.metadata().or_fail(what)?;
                if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                    give(&file, Some(old.uid()), Some(old.gid())).map_err(|failure| {
                        failure
                            .hint("run it as the file's owner or as root")
                            .context(what())
                    })?;
                }
                match old.permissions().mode() & 0o7777 {
                    mode if mode & TOO_OPEN == 0 || manner.public => mode & !0o022,
                    _ => manner.mode,
                }
            }
            None => {
                let group = manner.group.as_deref().and_then(owners::group_number);
                match group {
                    Some(group) if give(&file, None, Some(group)).is_ok() => manner.mode,
                    // The group would be the wrong one: then nobody but the owner reads it.
                    _ if manner.group.is_some() => manner.mode & 0o700,
                    _ => manner.mode,
                }
            }
        };
        file.write_all(content).or_fail(what)?;
        file.set_permissions(Permissions::from_mode(mode))
            .or_fail(what)?;
        file.sync_all().or_fail(what)?;
        fs::rename(&beside, path).or_fail(what)?;
        let directory = File::open(&directory).or_fail(what)?;
        directory.sync_all().or_fail(what)
    })();
    if done.is_err() {
        fs::remove_file(&beside).ok();
    }
    done
}

/// Removes what a run that was killed left beside the file. The caller holds the directory.
pub fn sweep(path: &Path) -> Result<()> {
    let beside = beside(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_fail(|| format!("cannot remove {}", beside.display()))
        }
        _ => Ok(()),
    }
}

/// The directory a file lies in.
pub fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The name of the new file before it takes the old one's place.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    directory_of(path).join(format!(".{name}.rg-new"))
}

/// In a directory that everybody writes to, a file's name can be taken by somebody else.
fn refuse_open_directory(directory: &Path) -> Result<()> {
    let meta =
        fs::metadata(directory).or_fail(|| format!("cannot look at {}", directory.display()))?;
    let mode = meta.permissions().mode();
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(Failure::new(format!(
            "everybody can write to the directory {}",
            directory.display()
        ))
        .hint(format!("chmod o-w {}", directory.display())));
    }
    Ok(())
}

/// Access lists and labels of the old file.
fn copy_attributes(path: &Path, file: &File) -> Result<()> {
    let what = || format!("cannot keep the attributes of {}", path.display());
    let mut names = vec![0u8; ATTRIBUTE_BYTES_MAX];
    let length = match rustix::fs::listxattr(path, &mut names) {
        Ok(length) => length,
        // A file system without any.
        Err(rustix::io::Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(Failure::because(what(), error)),
    };
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0u8; ATTRIBUTE_BYTES_MAX];
        let length = rustix::fs::getxattr(path, name, &mut value).or_fail(what)?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(file, name, &value[..length], flags).or_fail(what)?;
    }
    Ok(())
}

fn give(file: impl AsFd, user: Option<u32>, group: Option<u32>) -> Result<()> {
    rustix::fs::fchown(file, user.map(Uid::from_raw), group.map(Gid::from_raw))
        .or_fail(|| "cannot give the new file to the old one's owner".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("rg-replace-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn what_others_can_read_or_redirect_is_refused() {
        let place = place("refused");
        let (file, link) = (place.join("env"), place.join("link"));
        fs::write(&file, "A=1\n").unwrap();
        symlink(&file, &link).unwrap();
        let manner = Manner {
            mode: 0o600,
            ..Manner::default()
        };
        let said = replace(&link, b"B=1\n", &manner).unwrap_err().to_string();
        assert!(said.ends_with("is a symbolic link"), "{said}");
        for (mode, who) in [(0o644, "everybody"), (0o660, "its group")] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let said = replace(&file, b"B=1\n", &manner).unwrap_err().to_string();
            assert!(
                said.ends_with(&format!("{mode:04o}: {who} can read or change it")),
                "{said}"
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), "A=1\n");
        }
        replace(
            &file,
            b"B=1\n",
            &Manner {
                fix_mode: true,
                ..manner.clone()
            },
        )
        .unwrap();
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        let said = replace(&file, b"C=1\n", &manner).unwrap_err().to_string();
        assert!(
            said.starts_with("everybody can write to the directory"),
            "{said}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), "B=1\n");
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn mode_and_attributes_stay_and_a_leftover_goes() {
        let place = place("stays");
        let file = place.join("env");
        fs::write(&file, "A=1\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        fs::write(place.join(".env.rg-new"), "half").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        let kept = rustix::fs::setxattr(&file, "user.note", b"mine", flags).is_ok();
        replace(
            &file,
            b"A=2\n",
            &Manner {
                mode: 0o600,
                ..Manner::default()
            },
        )
        .unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "A=2\n");
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        if kept {
            let mut value = [0u8; 8];
            let length = rustix::fs::getxattr(&file, "user.note", &mut value).unwrap();
            assert_eq!(&value[..length], b"mine");
        }
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn two_runs_in_one_directory_are_refused() {
        let place = place("held");
        let one = hold(&place).unwrap();
        assert!(hold(&place).is_err());
        drop(one);
        assert!(hold(&place).is_ok());
        fs::remove_dir_all(&place).unwrap();
    }
}
