//! What the last verify and the last drill of a copy found, beside its manifest.

use std::io::Read;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PROOF, key, put_bytes};
use crate::failure::{OrFail, Result};
use crate::names::BackupId;
use crate::store::Store;

/// What is known of a backup beyond its manifest: the last look at it, and the last drill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The last time its stored bytes were re-read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Finding>,
    /// The last time it was restored into a scratch place and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drilled: Option<Finding>,
}

/// What was found, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// When.
    pub at: Timestamp,
    /// Whether it was as recorded.
    pub good: bool,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// In an operator's words.
    pub said: String,
}

fn read_proof(store: &dyn Store, id: &BackupId) -> Result<Proof> {
    let mut text = Vec::new();
    let key = key(id, PROOF)?;
    let read = store.get(&key)?.take(1 << 20).read_to_end(&mut text);
    read.or_fail(|| format!("cannot read {key} in store `{}`", store.name()))?;
    Ok(parse_proof(&text))
}

/// A proof that cannot be read proves nothing; the backup itself is judged by its manifest.
pub(super) fn parse_proof(text: &[u8]) -> Proof {
    serde_json::from_slice(text).unwrap_or_default()
}

/// Records what a look or a drill found, keeping the other half of the proof.
pub fn write_proof(
    store: &dyn Store,
    id: &BackupId,
    change: impl FnOnce(&mut Proof),
) -> Result<()> {
    let there = store
        .list(id.dataset.as_str())?
        .iter()
        .any(|o| key(id, PROOF).is_ok_and(|k| k == o.key));
    let mut proof = if there {
        read_proof(store, id)?
    } else {
        Proof::default()
    };
    change(&mut proof);
    let text = serde_json::to_vec_pretty(&proof).or_fail(|| "cannot write a proof".to_owned())?;
    put_bytes(store, &key(id, PROOF)?, &text)
}
