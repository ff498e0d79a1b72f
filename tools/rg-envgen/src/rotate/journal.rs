//! What a rotation is about to change, with what it was: on disk before the first change, gone after
//! the last. It holds secrets and is readable by its owner alone, as the env files are.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rg_common::postgres::DatabaseUrl;
use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

use crate::place;
use crate::replace::{self, Hold, Manner};

/// The version of the journal.
pub const FORMAT: u32 = 1;

/// A rotation under way.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    pub(super) format: u32,
    pub(super) time: jiff::Timestamp,
    pub(super) environment: String,
    /// The variables, by the schema's ids.
    pub(super) names: Vec<String>,
    pub(super) files: Vec<FileChange>,
    pub(super) logins: Vec<Login>,
    /// The units that were active.
    pub(super) units: Vec<String>,
    pub(super) step: Step,
}

/// How far it has come for certain.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Anything up to the switch of the files may have happened, or nothing.
    Created,
    /// Server and files have the new values.
    Switched,
    /// It has failed, and the old values are being put back.
    Undoing,
}

/// A file with its whole text before and after.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChange {
    pub(super) path: PathBuf,
    pub(super) old: String,
    pub(super) new: String,
}

/// A role of a server with its old and new password, as addresses.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) role: String,
    /// What the server kept of the old password, where we may read it; made from the old password
    /// otherwise.
    pub(super) old_verifier: String,
    pub(super) new_verifier: String,
}

impl Login {
    /// A login by its two addresses; the verifiers are filled in later.
    pub fn new(old: &str, new: &str) -> Result<Login> {
        Ok(Login {
            old: old.to_owned(),
            new: new.to_owned(),
            role: DatabaseUrl::parse(old)?.user,
            old_verifier: String::new(),
            new_verifier: String::new(),
        })
    }

    /// Whether two are the same role of the same server.
    pub fn same_role(&self, other: &Login) -> bool {
        let server = |login: &Login| {
            DatabaseUrl::parse(&login.old)
                .map(|url| (url.server(), url.user))
                .ok()
        };
        server(self).is_some() && server(self) == server(other)
    }
}

impl Journal {
    /// Where it is.
    pub fn path(state: &Path) -> PathBuf {
        state.join("envgen/rotation.json")
    }

    /// The rotation under way, if there is one.
    pub fn read(state: &Path) -> Result<Option<Journal>> {
        let path = Journal::path(state);
        if !path.exists() {
            return Ok(None);
        }
        let what = || format!("cannot read {}", path.display());
        let journal: Journal = serde_json::from_str(&place::read(&path)?).or_fail(what)?;
        if journal.format != FORMAT {
            return Err(Failure::new(format!(
                "{} is of another version of this program",
                path.display()
            )));
        }
        Ok(Some(journal))
    }

    /// Writes it, safely on disk when it returns.
    pub fn write(&self, state: &Path) -> Result<()> {
        let path = Journal::path(state);
        let text =
            serde_json::to_vec(self).or_fail(|| format!("cannot write {}", path.display()))?;
        replace::replace(
            &path,
            &text,
            &Manner {
                mode: 0o600,
                ..Manner::default()
            },
        )
    }

    /// The rotation is over.
    pub fn remove(state: &Path) -> Result<()> {
        let path = Journal::path(state);
        let what = || format!("cannot remove {}", path.display());
        std::fs::remove_file(&path).or_fail(what)?;
        let directory = std::fs::File::open(replace::directory_of(&path)).or_fail(what)?;
        directory.sync_all().or_fail(what)
    }
}

/// One rotation at a time.
pub fn hold(state: &Path) -> Result<Hold> {
    let directory = state.join("envgen");
    let what = || format!("cannot make {}", directory.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .or_fail(what)?;
    replace::hold(&directory)
}
