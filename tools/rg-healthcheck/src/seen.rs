//! What a look must remember for the next one: counts of restarts, how full disks were, how far a
//! log was read. Losing it loses a slope or a window, never an alert; it is written after the alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use rg_common::probe::disk::Samples;
use rg_common::probe::log::Remembered;
use rg_common::probe::recent::Recent;
use rg_common::{OrFail, Result, whole};
use serde::{Deserialize, Serialize};

/// The file is read up to this size.
const BYTES_MAX: u64 = 16 << 20;

/// By the check's id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Restarts, kills.
    #[serde(default)]
    pub counts: BTreeMap<String, Recent>,
    /// How full file systems were.
    #[serde(default)]
    pub disks: BTreeMap<String, Samples>,
    /// How far logs were read.
    #[serde(default)]
    pub logs: BTreeMap<String, Remembered>,
    /// When the machine had been booted.
    #[serde(default)]
    pub boot: Option<Timestamp>,
}

impl Seen {
    /// What is in `folder`; what cannot be read is begun anew, with the reason.
    pub fn read(folder: &Path) -> (Seen, Option<String>) {
        let path = folder.join("seen.json");
        let read = || -> std::result::Result<Seen, String> {
            let size = match std::fs::metadata(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Seen::default());
                }
                other => other.map_err(|error| error.to_string())?.len(),
            };
            if size > BYTES_MAX {
                return Err("it is too large".to_owned());
            }
            let text = std::fs::read(&path).map_err(|error| error.to_string())?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        match read() {
            Ok(seen) => (seen, None),
            Err(why) => {
                let told = format!(
                    "what was seen before is begun anew: {}: {why}",
                    path.display()
                );
                (Seen::default(), Some(told))
            }
        }
    }

    /// Keeps only what belongs to checks that there still are.
    pub fn keep(&mut self, known: &BTreeSet<String>) {
        self.counts.retain(|id, _| known.contains(id));
        self.disks.retain(|id, _| known.contains(id));
        self.logs.retain(|id, _| known.contains(id));
    }

    /// Writes it whole.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("seen.json");
        let text =
            serde_json::to_vec(self).or_fail(|| format!("cannot write {}", path.display()))?;
        whole::write(&path, &text, 0o600)
    }
}
