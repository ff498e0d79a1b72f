//! What keeps quiet: maintenance windows of `rg.toml`, and silences that somebody set for a while.
//!
//! A silence says who set it and why, and always ends. Both keep quiet about what begins, never
//! about what ends, and no check is left out because of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rg_common::check::Finding;
use rg_common::config::Maintenance;
use rg_common::{Failure, OrFail, Result, whole};
use serde::{Deserialize, Serialize};

use crate::state;

/// The longest silence.
const LASTS_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The most silences at a time.
const SILENCES_MAX: usize = 100;
/// The longest reason.
const REASON_BYTES: usize = 300;
/// The largest file that is read.
const FILE_BYTES: u64 = 1 << 20;

/// Somebody's wish for quiet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Environments or parts of ids; empty: everything.
    #[serde(default)]
    pub what: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who: the name of the user, or the number.
    pub who: String,
    /// When it was set.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    silences: Vec<Silence>,
}

/// Something that keeps quiet now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quiet {
    /// What it is, for people: `silence by root: deploy`, `maintenance updates`.
    pub why: String,
    /// When it ends.
    pub until: Timestamp,
    /// Only this environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Environments or parts of ids; empty: everything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<String>,
}

impl Quiet {
    /// Whether it keeps quiet about a finding.
    pub fn covers(&self, finding: &Finding) -> bool {
        let environment = finding.environment.as_deref();
        let here = self.environment.is_none() || self.environment.as_deref() == environment;
        let meant = |word: &String| environment == Some(word) || finding.id.contains(word.as_str());
        here && (self.what.is_empty() || self.what.iter().any(meant))
    }
}

/// What keeps quiet at a time. A silence counts only between its own ends, however the clock is set.
pub fn quiet(windows: &[Maintenance], silences: &[Silence], now: Timestamp) -> Vec<Quiet> {
    let windows = windows.iter().filter_map(|window| {
        let begun = window.begins.previous(now, &window.zone)?;
        let until = begun.checked_add(window.lasts).ok()?;
        (now < until).then(|| Quiet {
            why: format!("maintenance {}", window.name),
            until,
            environment: window.environment.clone(),
            what: Vec::new(),
        })
    });
    let silences = silences.iter().filter(|silence| silence.is_on(now));
    let silences = silences.map(|silence| Quiet {
        why: format!("silence by {}: {}", silence.who, silence.reason),
        until: silence.until,
        environment: None,
        what: silence.what.clone(),
    });
    windows.chain(silences).collect()
}

impl Silence {
    /// Whether it is on. One that begins in the future was set by a clock that was wrong.
    pub fn is_on(&self, now: Timestamp) -> bool {
        self.from <= now && now < self.until
    }
}

fn path(state: &Path) -> PathBuf {
    state::folder(state).join("silences.json")
}

/// The silences that are on. A file that cannot be read keeps nothing quiet: a failure.
pub fn list(state: &Path, now: Timestamp) -> Result<Vec<Silence>> {
    let path = path(state);
    let what = || format!("cannot read the silences in {}", path.display());
    let Some(text) = state::read_bounded(&path, FILE_BYTES)? else {
        return Ok(Vec::new());
    };
    let file: File = serde_json::from_slice(&text)
        .or_fail(what)
        .map_err(|failure| failure.hint("remove the file; nothing is silenced without it"))?;
    let on = file.silences.into_iter().filter(|s| s.is_on(now));
    Ok(on.collect())
}

/// Begins one; at most 7 days and 100 at a time.
pub fn begin(
    state: &Path,
    what: Vec<String>,
    lasts: Duration,
    reason: &str,
    now: Timestamp,
) -> Result<Silence> {
    if lasts > LASTS_MAX {
        return Err(Failure::new("a silence lasts 7d at most")
            .hint("what is down for longer belongs out of rg.toml"));
    }
    let reason = reason.trim();
    if reason.is_empty() || reason.len() > REASON_BYTES || reason.contains(char::is_control) {
        return Err(Failure::new(format!(
            "the reason must be one line of at most {REASON_BYTES} bytes"
        )));
    }
    if what.iter().any(String::is_empty) {
        return Err(Failure::new("an empty word would silence everything")
            .hint("leave it out where everything is meant"));
    }
    // A damaged file is replaced: what it said is not in force anyway.
    let mut silences = list(state, now).unwrap_or_default();
    if silences.len() >= SILENCES_MAX {
        return Err(
            Failure::new(format!("there are {SILENCES_MAX} silences already"))
                .hint("rg-healthcheck silence --end ends them"),
        );
    }
    let until = now
        .checked_add(SignedDuration::try_from(lasts).or_fail(|| "too long".to_owned())?)
        .or_fail(|| "the silence ends beyond the calendar".to_owned())?;
    let silence = Silence {
        what,
        reason: reason.to_owned(),
        who: who(),
        from: now,
        until,
    };
    silences.push(silence.clone());
    write(state, silences)?;
    Ok(silence)
}

/// Ends all of them; those that were on come back.
pub fn end(state: &Path, now: Timestamp) -> Result<Vec<Silence>> {
    let ended = list(state, now);
    write(state, Vec::new())?;
    ended
}

fn write(state: &Path, silences: Vec<Silence>) -> Result<()> {
    let text = serde_json::to_vec_pretty(&File { silences })
        .or_fail(|| "cannot write the silences".to_owned())?;
    state::make_folder(state)?;
    whole::write(&path(state), &text, 0o600)
}

/// The user behind this process: the name in `/etc/passwd`, or the number.
fn who() -> String {
    const PASSWD_BYTES: u64 = 1 << 20;
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = state::read_bounded(Path::new("/etc/passwd"), PASSWD_BYTES);
    let passwd = passwd.ok().flatten().unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd);
    let names: BTreeMap<&str, &str> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            Some((fields.nth(1)?, name))
        })
        .collect();
    names
        .get(uid.as_str())
        .map_or(format!("uid {uid}"), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests;
