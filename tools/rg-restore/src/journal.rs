//! What a restore is about to exchange, written down before it does, so that a crash between two
//! exchanges is finished by the next command; and what has been exchanged, so that it can be
//! undone.
//!
//! `STATE/restore/journal.json` is there only while an exchange is under way. `STATE/restore/
//! undo/STAMP.json` describes one that was done. Neither holds a secret.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rg_common::config::Config;
use rg_common::names::{DatasetName, Stamp};
use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

use crate::scratch;

/// One restore's exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// When it began; part of all its names.
    pub stamp: Stamp,
    /// The environment whose app it concerns.
    pub environment: String,
    /// The app's units that were active before and are started again after it.
    pub units: Vec<String>,
    /// Whether it puts back what an earlier restore replaced; what it would have put back is then
    /// kept when it fails.
    #[serde(default)]
    pub undo: bool,
    /// Whether the app is left alone: not asked for its health either.
    #[serde(default)]
    pub leave_units: bool,
    /// What is exchanged, in this order.
    pub parts: Vec<Part>,
}

/// One exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Part {
    /// A database by renaming.
    Database {
        /// Its dataset.
        dataset: DatasetName,
        /// The name the app uses.
        live: String,
        /// The name of what takes its place.
        fresh: String,
        /// Its oid: what tells after a crash whether it has taken it.
        fresh_oid: u32,
        /// The name for what is replaced.
        aside: String,
        /// Whether there was anything to replace.
        replaces: bool,
    },
    /// A directory by exchanging names.
    Files {
        /// Its dataset.
        dataset: DatasetName,
        /// The path the app uses.
        live: PathBuf,
        /// The path of what takes its place.
        fresh: PathBuf,
        /// Its device and inode.
        fresh_id: (u64, u64),
        /// The path for what is replaced.
        aside: PathBuf,
        /// Whether there was anything to replace.
        replaces: bool,
    },
    /// The rows of tables, kept in a schema.
    Tables {
        /// Its dataset.
        dataset: DatasetName,
        /// The schema that keeps the replaced rows.
        schema: String,
    },
    /// A database in place, undone from a safety dump.
    InPlace {
        /// Its dataset.
        dataset: DatasetName,
        /// The safety dump.
        safety: PathBuf,
    },
    /// A bucket's objects, undone from those that were replaced.
    Bucket {
        /// Its dataset.
        dataset: DatasetName,
        /// The service's address.
        service: String,
        /// The bucket's name there.
        bucket: String,
        /// The directory that keeps what was replaced; what lies in it also says how far the
        /// exchange came.
        safety: PathBuf,
        /// The directory whose objects an undo puts back.
        #[serde(default)]
        puts_back: Option<PathBuf>,
    },
}

impl Part {
    /// Its dataset.
    pub fn dataset(&self) -> &DatasetName {
        match self {
            Part::Database { dataset, .. }
            | Part::Files { dataset, .. }
            | Part::Tables { dataset, .. }
            | Part::InPlace { dataset, .. }
            | Part::Bucket { dataset, .. } => dataset,
        }
    }

    /// What takes the live one's place, by its own name.
    fn fresh(&self) -> Option<OsString> {
        match self {
            Part::Database { fresh, .. } => Some(fresh.into()),
            Part::Files { fresh, .. } => Some(fresh.into()),
            Part::Bucket { puts_back, .. } => puts_back.as_ref().map(Into::into),
            Part::Tables { .. } | Part::InPlace { .. } => None,
        }
    }

    /// The name of what was replaced.
    fn aside(&self) -> Option<OsString> {
        match self {
            Part::Database { aside, .. } => Some(aside.into()),
            Part::Files { aside, .. } => Some(aside.into()),
            Part::Bucket { safety, .. } => Some(safety.into()),
            Part::Tables { .. } | Part::InPlace { .. } => None,
        }
    }

    /// What is replaced and where it is kept, for people.
    pub fn kept(&self) -> Option<String> {
        match self {
            Part::Database {
                aside,
                replaces: true,
                ..
            } => Some(format!("database {aside}")),
            Part::Files {
                aside,
                replaces: true,
                ..
            } => Some(aside.display().to_string()),
            Part::Tables { schema, .. } => Some(format!("the schema {schema}")),
            Part::InPlace { safety, .. } | Part::Bucket { safety, .. } => {
                Some(safety.display().to_string())
            }
            Part::Database { .. } | Part::Files { .. } => None,
        }
    }
}

/// Where the journal lies while an exchange is under way.
pub fn path(config: &Config) -> PathBuf {
    config.state.join("restore").join("journal.json")
}

/// Writes down what is about to happen; it is on the disk when this returns.
pub fn begin(config: &Config, journal: &Journal) -> Result<()> {
    scratch::restore_folder(config)?;
    // Made now: when all is exchanged a full disk must not stand in the way.
    undo_folder(config)?;
    write(&path(config), journal)
}

/// The exchange that a killed restore was in, if any.
pub fn pending(config: &Config) -> Result<Option<Journal>> {
    let path = path(config);
    if path.exists() {
        read(&path).map(Some)
    } else {
        Ok(None)
    }
}

/// The exchange is done and can be undone. What it put back can be put back no more.
pub fn done(config: &Config, journal: &Journal) -> Result<()> {
    for older in undoable(config)? {
        let used = |part: &Part| {
            let fresh = |new: &Part| {
                new.dataset() == part.dataset()
                    && part.aside().is_some()
                    && part.aside() == new.fresh()
            };
            journal.parts.iter().any(fresh)
        };
        if older.parts.iter().any(used) {
            forget(config, older.stamp, used)?;
        }
    }
    // A rename: it takes no room, and it is whole or not at all.
    let (from, to) = (
        path(config),
        undo_folder(config)?.join(format!("{}.json", journal.stamp)),
    );
    fs::rename(&from, &to)
        .or_fail(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    flush_parent(&to)?;
    flush_parent(&from)
}

/// The exchange was taken back.
pub fn taken_back(config: &Config) -> Result<()> {
    remove(&path(config))
}

/// What can be undone, the newest last.
pub fn undoable(config: &Config) -> Result<Vec<Journal>> {
    let folder = config.state.join("restore").join("undo");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let what = || format!("cannot read {}", folder.display());
    let mut journals = Vec::new();
    for entry in fs::read_dir(&folder).or_fail(what)? {
        let path = entry.or_fail(what)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            journals.push(read(&path)?);
        }
    }
    journals.sort_by_key(|journal: &Journal| journal.stamp);
    Ok(journals)
}

/// A stamp that no earlier exchange has: two within one second need names of their own.
pub fn free_stamp(config: &Config, now: Timestamp) -> Result<Stamp> {
    let now = Stamp::at(now);
    let later = |stamp: Stamp| {
        Timestamp::from_second(stamp.time().as_second() + 1).map_or(stamp, Stamp::at)
    };
    let last = undoable(config)?.last().map(|journal| later(journal.stamp));
    Ok(last.map_or(now, |last| now.max(last)))
}

/// Takes parts out of what can be undone: they were undone, or a newer restore replaces them.
pub fn forget(config: &Config, stamp: Stamp, gone: impl Fn(&Part) -> bool) -> Result<()> {
    let path = undo_folder(config)?.join(format!("{stamp}.json"));
    if !path.exists() {
        return Ok(());
    }
    let mut journal = read(&path)?;
    journal.parts.retain(|part| !gone(part));
    if journal.parts.is_empty() {
        remove(&path)
    } else {
        write(&path, &journal)
    }
}

fn undo_folder(config: &Config) -> Result<PathBuf> {
    let folder = scratch::restore_folder(config)?.join("undo");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .or_fail(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn read(path: &Path) -> Result<Journal> {
    let text = fs::read(path).or_fail(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| {
        Failure::because(format!("{} is damaged", path.display()), error).hint(
            "it says what an interrupted restore was exchanging; look at it before moving it away",
        )
    })
}

fn write(path: &Path, journal: &Journal) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let temporary = path.with_extension("tmp");
    let text = serde_json::to_vec_pretty(journal).or_fail(what)?;
    fs::remove_file(&temporary).ok();
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .or_fail(what)?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .or_fail(what)?;
    fs::rename(&temporary, path).or_fail(what)?;
    flush_parent(path)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other
            .or_fail(|| format!("cannot remove {}", path.display()))
            .and_then(|()| flush_parent(path)),
    }
}

fn flush_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .or_fail(|| format!("cannot flush {}", parent.display()))
}
