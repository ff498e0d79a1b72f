//! Places for what is needed only while a command runs.
//!
//! Everything lies in `STATE/tmp` under a name that begins with `restore-`, and all commands that
//! make one hold the restore lock: what is found there when one begins was left by a killed one.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::postgres::{Session, create};
use rg_common::store::{self, Lock};
use rg_common::{Failure, OrFail, Result};

const PREFIX: &str = "restore-";

/// Keeps other restores of this machine away until it is dropped.
pub fn lock(config: &Config) -> Result<Lock> {
    let folder = restore_folder(config)?;
    store::lock_file(&folder.join("lock"), "rg-restore on this machine")
}

/// `STATE/restore`: the lock, the journal, what can be undone.
pub fn restore_folder(config: &Config) -> Result<PathBuf> {
    let folder = config.state.join("restore");
    make(&folder)?;
    Ok(folder)
}

/// Drops a database that we made, with whoever is in it. To a role that is no superuser the server
/// refuses that while autovacuum is at work there; without the force it ends autovacuum itself.
pub fn drop_database(session: &Session, name: &str) -> Result<()> {
    create::drop_database(session, name, true)
        .or_else(|_| create::drop_database(session, name, false))
}

fn make(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| {
            Failure::because(format!("cannot make {}", folder.display()), error)
                .hint("the directory is `state` in rg.toml; this user must be able to write there")
        })
}

/// Removes what killed commands left; only under the lock.
pub fn sweep(config: &Config) -> Result<()> {
    let folder = config.state.join("tmp");
    if !folder.exists() {
        return Ok(());
    }
    let what = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(&folder).or_fail(what)? {
        let entry = entry.or_fail(what)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            tracing::info!(
                "removing {}, left by a killed command",
                entry.path().display()
            );
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a tree, however its modes are set; one that is absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    let what = || format!("cannot remove {}", path.display());
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::because(what(), error)),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path).or_fail(what),
        Ok(_) => {}
    }
    if fs::remove_dir_all(path).is_ok() {
        return Ok(());
    }
    // A folder without write permission keeps an ordinary user from emptying it.
    open_up(path);
    fs::remove_dir_all(path).or_fail(what)
}

fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).ok();
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// A place that is gone when this is dropped. It is made by whoever fills it.
pub struct Folder {
    parent: PathBuf,
    path: PathBuf,
}

impl Folder {
    /// A name in `STATE/tmp`.
    pub fn new(config: &Config, context: &Context, purpose: &str) -> Result<Folder> {
        let parent = config.state.join("tmp");
        make(&parent)?;
        let nonce = context.clock().as_nanosecond();
        Ok(Folder {
            path: parent.join(format!("{PREFIX}{purpose}-{}-{nonce}", std::process::id())),
            parent,
        })
    }

    /// The place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it lies, for free space.
    pub fn parent(&self) -> &Path {
        &self.parent
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(failure) = remove(&self.path) {
            tracing::warn!("{failure}; the next command removes it");
        }
    }
}
