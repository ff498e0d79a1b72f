//! What a rotation is about to change, with what it was: on disk before the first change, gone after
//! the last. It holds secrets and is readable by its owner alone, as the env files are.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rg_common::postgres::DatabaseUrl;
use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

use super::keys::{KeyChange, Way};
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
    /// S3 access keys.
    #[serde(default)]
    pub(super) keys: Vec<KeyChange>,
    /// The units that were active.
    pub(super) units: Vec<String>,
    pub(super) step: Step,
}

/// How far it has come for certain: the marks that a run which finds the journal goes by.
///
/// | mark | written | a run that finds it |
/// |---|---|---|
/// | `created` | before the server is asked for anything | undoes |
/// | `issued` | when the server has made an access key | undoes |
/// | `switched` | when the env files hold the new values | goes on from the restart |
/// | `healthy` | when the app is well with them | retires the old access keys |
/// | `undoing` | when it has failed after the switch | undoes |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Anything up to the switch of the files may have happened, or nothing.
    Created,
    /// The same, and the new access keys are known here.
    Issued,
    /// Server and files have the new values.
    Switched,
    /// The app is well with them: from here on nothing is undone any more.
    Healthy,
    /// It has failed, and the old values are being put back.
    Undoing,
}

impl Step {
    /// What the next run does, in an operator's words.
    pub fn next(self) -> &'static str {
        match self {
            Step::Created | Step::Issued => {
                "the old values are in use, and `rg-envgen rotate` takes the new ones back"
            }
            Step::Switched => {
                "the files hold the new values, and `rg-envgen rotate` restarts the app and finishes it"
            }
            Step::Healthy => {
                "the new values are in use, and `rg-envgen rotate` retires the old access key"
            }
            Step::Undoing => "`rg-envgen rotate` puts the old values back",
        }
    }
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

    /// What it says to somebody who looks; `held` while a run is at work.
    pub fn said(&self, held: bool) -> String {
        let names = self.names.join(", ");
        match held {
            true => format!("a rotation of {names} in {} is under way", self.environment),
            false => format!(
                "a rotation of {names} in {} was cut off: {}",
                self.environment,
                self.step.next()
            ),
        }
    }

    /// All secrets in it, so that none gets into a message.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let pairs = self.keys.iter().flat_map(|key| [&key.old, &key.new]);
        pairs.flat_map(|pair| [pair.secret.as_str(), pair.access.as_str()])
    }

    /// Whether an old access key is still to be retired on a server.
    pub fn retires(&self) -> bool {
        let mut ways = self.keys.iter().map(|key| &key.way);
        ways.any(|way| matches!(way, Way::Issued { .. }))
    }

    /// The containers that are made anew, each once.
    pub fn containers(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for key in &self.keys {
            if let Way::Started { containers } = &key.way {
                names.extend(containers.iter().map(|container| container.name.clone()));
            }
        }
        names.sort();
        names.dedup();
        names
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
