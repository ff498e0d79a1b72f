//! A directory as a store.
//!
//! An object is written under a temporary name beside its place, flushed to the disk, renamed,
//! and the directory flushed too: after a crash it is there whole or not at all. Directories are
//! 0700 and files 0600: a backup is as secret as the data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Key, Lock, Object, PutError, Store};
use crate::failure::{Failure, OrFail, Result};
use crate::stop;

/// What a temporary name begins with; a list never shows it and `sweep` removes it.
const TEMPORARY: &str = ".rg-tmp-";
/// The file that a lock is taken on. Never removed: removing it would let two hold it.
const LOCK: &str = ".rg-lock";
/// How long to wait for a lock before saying who holds it.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const LOCK_LOOK: Duration = Duration::from_millis(100);
/// How much is copied at once.
const COPY_BYTES: usize = 1 << 18;
/// The disk is asked to begin writing after each such piece, so that the final flush is short.
const FLUSH_BYTES: u64 = 8 << 20;
/// How deep a store's folders may lie.
const DEPTH_MAX: usize = 8;

/// A store in a directory.
pub struct Folder {
    name: String,
    root: PathBuf,
}

impl Folder {
    /// A store in `root`, which is made by the first write.
    pub fn new(name: &str, root: &Path) -> Self {
        Folder {
            name: name.to_owned(),
            root: root.to_owned(),
        }
    }

    /// Where an object lies; standard tools read it there.
    pub fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn make_folder(&self, folder: &Path) -> Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| {
                Failure::because(
                    format!("cannot make the folder {}", folder.display()),
                    error,
                )
                .hint(format!(
                    "store `{}` lies in {}",
                    self.name,
                    self.root.display()
                ))
            })
    }

    fn write(&self, temporary: &Path, body: &mut dyn Read) -> Result<u64, PutError> {
        let what = |error: io::Error| {
            let full = error.kind() == io::ErrorKind::StorageFull;
            let failure = Failure::because(
                format!(
                    "cannot write {} in store `{}`",
                    temporary.display(),
                    self.name
                ),
                error,
            );
            PutError::Store(if full {
                failure.hint("free some space, or move the store to a larger disk")
            } else {
                failure
            })
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(temporary)
            .map_err(what)?;
        let mut buffer = vec![0u8; COPY_BYTES];
        let (mut total, mut flushed) = (0u64, 0u64);
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(PutError::Body(error)),
            };
            file.write_all(&buffer[..n]).map_err(what)?;
            total += n as u64;
            if total - flushed >= FLUSH_BYTES {
                start_writing(&file, flushed, total - flushed);
                flushed = total;
            }
        }
        file.sync_all().map_err(what)?;
        Ok(total)
    }
}

impl Store for Folder {
    fn put(&self, key: &Key, body: &mut dyn Read) -> Result<u64, PutError> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        self.make_folder(&folder).map_err(PutError::Store)?;
        let temporary = folder.join(format!(
            "{TEMPORARY}{}-{}",
            std::process::id(),
            key.file_name()
        ));
        // Under the lock nobody else writes this name: what is there was left by a killed run.
        fs::remove_file(&temporary).ok();
        let guard = RemoveOnDrop(Some(&temporary));
        let total = self.write(&temporary, body)?;
        fs::rename(&temporary, &path)
            .or_fail(|| {
                format!(
                    "cannot rename {} to {}",
                    temporary.display(),
                    path.display()
                )
            })
            .map_err(PutError::Store)?;
        guard.disarm();
        sync_folder(&folder).map_err(PutError::Store)?;
        Ok(total)
    }

    fn get(&self, key: &Key) -> Result<Box<dyn Read + Send>> {
        let path = self.path(key);
        let file = File::open(&path)
            .or_fail(|| format!("cannot read {} in store `{}`", path.display(), self.name))?;
        Ok(Box::new(file))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        if !self.root.is_dir() {
            // A store whose disk is not mounted must not look like an empty one.
            return match fs::metadata(&self.root) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::because(
                    format!("store `{}`: cannot read {}", self.name, self.root.display()),
                    error,
                )
                .hint("is its disk mounted? the first backup makes the folder")),
                Err(error) => Err(Failure::because(
                    format!("cannot read {}", self.root.display()),
                    error,
                )),
                Ok(_) => Err(Failure::new(format!(
                    "{} is not a directory",
                    self.root.display()
                ))),
            };
        }
        let start = if prefix.is_empty() {
            self.root.clone()
        } else {
            self.root.join(prefix)
        };
        if start.is_dir() || prefix.is_empty() {
            collect(&start, prefix.trim_end_matches('/'), 0, &mut objects)?;
        }
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Failure::because(
                format!("cannot delete {}", path.display()),
                error,
            )),
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.root)),
        }
    }

    fn lock(&self, prefix: &str) -> Result<Lock> {
        let folder = self.root.join(prefix);
        self.make_folder(&folder)?;
        lock_file(
            &folder.join(LOCK),
            &format!("{prefix} in store `{}`", self.name),
        )
    }

    fn sweep(&self, prefix: &str) -> Result<()> {
        let folder = self.root.join(prefix);
        let what = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(&folder).or_fail(what)? {
            let entry = entry.or_fail(what)?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                tracing::info!(path = %entry.path().display(), "removing what a killed run left");
                fs::remove_file(entry.path())
                    .or_fail(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
        Ok(())
    }

    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.root)
    }
}

/// Bytes that an ordinary user can still write where `path` lies, or would lie once made.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// Takes an advisory lock on a file that is never removed; says who holds it when it cannot.
pub fn lock_file(path: &Path, what: &str) -> Result<Lock> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .or_fail(|| format!("cannot open the lock {}", path.display()))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(fs::TryLockError::Error(error)) => {
                return Err(Failure::because(
                    format!("cannot lock {}", path.display()),
                    error,
                ));
            }
            Err(fs::TryLockError::WouldBlock) if began.elapsed() >= LOCK_WAIT => {
                let mut holder = String::new();
                (&file).take(20).read_to_string(&mut holder).ok();
                return Err(
                    Failure::new(format!("{what} is in use by process {}", holder.trim())).hint(
                        format!(
                            "waited {} s; try again when it has ended",
                            LOCK_WAIT.as_secs()
                        ),
                    ),
                );
            }
            Err(fs::TryLockError::WouldBlock) => stop::pause(LOCK_LOOK)?,
        }
    }
    // Only for the message above; a lock that cannot be labelled still holds.
    if file.set_len(0).is_ok() {
        (&file)
            .write_all(std::process::id().to_string().as_bytes())
            .ok();
    }
    Ok(Lock { lease: None, file })
}

fn collect(folder: &Path, prefix: &str, depth: usize, into: &mut Vec<Object>) -> Result<()> {
    let what = || format!("cannot read the folder {}", folder.display());
    for entry in fs::read_dir(folder).or_fail(what)? {
        let entry = entry.or_fail(what)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let key = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        let meta = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.or_fail(|| format!("cannot read {}", entry.path().display()))?,
        };
        if meta.is_dir() && depth < DEPTH_MAX {
            if name != "lost+found" {
                collect(&entry.path(), &key, depth + 1, into)?;
            }
        } else if meta.is_file() {
            into.push(Object {
                key: Key::new(key)?,
                bytes: meta.len(),
            });
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .or_fail(|| format!("cannot flush {}", folder.display()))
}

/// Asks the disk to begin writing what lies in the page cache; only a hint, `sync_all` decides.
fn start_writing(file: &File, from: u64, bytes: u64) {
    rustix::fs::fadvise(
        file,
        from,
        std::num::NonZeroU64::new(bytes),
        rustix::fs::Advice::DontNeed,
    )
    .ok();
}

struct RemoveOnDrop<'a>(Option<&'a Path>);

impl RemoveOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            fs::remove_file(path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (PathBuf, Folder) {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).unwrap();
        let root = std::env::temp_dir().join(format!("rg-folder-{:x}", u64::from_le_bytes(random)));
        (root.clone(), Folder::new("local", &root.join("deep/er")))
    }

    struct FailsAfter(usize);
    impl Read for FailsAfter {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the dump died"));
            }
            let n = self.0.min(buffer.len());
            self.0 -= n;
            Ok(n)
        }
    }

    #[test]
    fn an_object_whose_body_fails_is_not_there() {
        let (root, store) = folder();
        let key = Key::new("a/b.txt").unwrap();
        let error = store.put(&key, &mut FailsAfter(100_000)).unwrap_err();
        assert!(matches!(error, PutError::Body(_)));
        assert_eq!(store.list("").unwrap(), []);
        assert!(
            fs::read_dir(root.join("deep/er/a"))
                .unwrap()
                .next()
                .is_none()
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_put_is_listed_read_and_deleted() {
        let (root, store) = folder();
        let key = Key::new("app/database/x.dump").unwrap();
        assert_eq!(store.put(&key, &mut &b"abc"[..]).unwrap(), 3);
        store
            .put(&Key::new("app-staging/x").unwrap(), &mut &b""[..])
            .unwrap();
        assert_eq!(
            store.list("app").unwrap(),
            [Object {
                key: key.clone(),
                bytes: 3
            }]
        );
        assert_eq!(store.list("").unwrap().len(), 2);
        let mut text = String::new();
        store.get(&key).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        store.delete(&key).unwrap();
        store.delete(&key).unwrap();
        assert_eq!(store.list("app").unwrap(), []);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_store_that_is_not_there_is_an_error_and_not_an_empty_list() {
        let (_, store) = folder();
        assert_eq!(
            store.list("").unwrap_err().hints(),
            ["is its disk mounted? the first backup makes the folder"]
        );
    }

    #[test]
    fn what_a_killed_write_left_is_swept() {
        let (root, store) = folder();
        let _lock = store.lock("app").unwrap();
        let left = root.join("deep/er/app/.rg-tmp-1-x");
        fs::write(&left, "half").unwrap();
        assert_eq!(store.list("app").unwrap(), []);
        store.sweep("app").unwrap();
        assert!(!left.exists());
        fs::remove_dir_all(root).unwrap();
    }
}
