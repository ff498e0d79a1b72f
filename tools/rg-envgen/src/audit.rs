//! Who did what to which secret, and when: one JSON line an act, without values.
//!
//! It lies in `state/envgen/audit.jsonl`, is only ever appended to, and is what the age of a secret
//! is told from. A secret that nobody wrote through us is as old as its first mention here.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rg_common::{OrFail, Result};
use serde::{Deserialize, Serialize};

/// One act.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Act {
    /// When.
    pub time: Timestamp,
    /// What was done.
    pub what: What,
    /// The environment.
    pub environment: String,
    /// The variables, by the schema's ids.
    pub names: Vec<String>,
    /// The number of the user who did it.
    pub user: u32,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A value was made or given where there was none.
    Written,
    /// A value was there already when we first looked.
    Seen,
    /// A new value took an old one's place.
    Rotated,
    /// A rotation was undone.
    Rolledback,
    /// All was written into an encrypted file.
    Exported,
    /// Values came out of one.
    Imported,
}

/// Where the acts of a deployment are.
pub fn file(state: &Path) -> PathBuf {
    state.join("envgen/audit.jsonl")
}

/// Appends acts, safely on disk when it returns.
pub fn record(state: &Path, acts: &[Act]) -> Result<()> {
    if acts.iter().all(|act| act.names.is_empty()) {
        return Ok(());
    }
    let path = file(state);
    let what = || format!("cannot record in {}", path.display());
    let mut lines = String::new();
    for act in acts.iter().filter(|act| !act.names.is_empty()) {
        lines.push_str(&serde_json::to_string(act).or_fail(what)?);
        lines.push('\n');
    }
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .or_fail(what)?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .or_fail(what)?;
    file.write_all(lines.as_bytes()).or_fail(what)?;
    file.sync_all().or_fail(what)
}

/// Since when each secret of each environment has the value that it has. Lines that cannot be read
/// (a run was killed while it wrote) are passed over: a secret is then older, never younger.
pub fn since(state: &Path) -> Result<BTreeMap<(String, String), Timestamp>> {
    let path = file(state);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).or_fail(|| format!("cannot read {}", path.display())),
    };
    let mut ages = BTreeMap::new();
    for line in BufReader::new(file).lines() {
        let line = line.or_fail(|| format!("cannot read {}", path.display()))?;
        let Ok(act) = serde_json::from_str::<Act>(&line) else {
            continue;
        };
        for name in act.names {
            let key = (act.environment.clone(), name);
            match act.what {
                What::Written | What::Rotated => drop(ages.insert(key, act.time)),
                What::Seen | What::Imported => drop(ages.entry(key).or_insert(act.time)),
                What::Rolledback | What::Exported => {}
            }
        }
    }
    Ok(ages)
}

/// Who we are, for an act.
pub fn user() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_as_old_as_its_last_new_value() {
        let state = std::env::temp_dir().join(format!("rg-audit-{}", std::process::id()));
        let act = |second: i64, what| Act {
            time: Timestamp::from_second(second).unwrap(),
            what,
            environment: "production".to_owned(),
            names: vec!["A".to_owned()],
            user: 0,
        };
        record(&state, &[act(1, What::Seen), act(2, What::Seen)]).unwrap();
        let age = || since(&state).unwrap()[&("production".to_owned(), "A".to_owned())].as_second();
        assert_eq!(age(), 1);
        record(&state, &[act(5, What::Rotated), act(6, What::Seen)]).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(file(&state))
            .unwrap()
            .write_all(b"{\"half")
            .unwrap();
        assert_eq!(age(), 5);
        std::fs::remove_dir_all(&state).unwrap();
    }
}
