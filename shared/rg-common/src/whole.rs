//! A small file that is there whole or not at all: written beside its place, flushed, renamed, and
//! the folder flushed. A kill at any instruction leaves the old one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, OrFail, Result};

/// Writes the file, with exactly this mode; its folder must be there. Of two writers at once each
/// writes a whole one, and one of them stays.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let name = path
        .file_name()
        .ok_or_else(|| Failure::new(format!("{} names no file", path.display())))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = folder.join(beside);
    // Of a process that had this number and was killed.
    fs::remove_file(&beside).ok();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        fs::remove_file(&beside).ok();
        return Err(Failure::because(what(), error));
    }
    File::open(&folder)
        .and_then(|folder| folder.sync_all())
        .or_fail(what)
}

/// Makes a folder that only its owner enters, and those above it that are missing.
pub fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .or_fail(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_whole_leaves_the_old_one_and_nothing_beside_it() {
        let folder = std::env::temp_dir().join(format!("rg-whole-{}", std::process::id()));
        private_folder(&folder).unwrap();
        let path = folder.join("state.json");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o640).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let failure = write(&folder.join("missing/x"), b"", 0o600).unwrap_err();
        assert!(failure.to_string().contains("cannot write"), "{failure}");
        // A folder in the file's place: the rename fails, the folder stays.
        fs::create_dir(folder.join("taken")).unwrap();
        assert!(write(&folder.join("taken"), b"x", 0o600).is_err());
        let names: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        fs::remove_dir_all(&folder).ok();
    }
}
