//! The newest backups of a dataset, for whoever looks every few minutes: the list of a store whole,
//! but only as many manifests as are asked for.

use std::collections::BTreeMap;

use super::ahead::Ahead;
use super::listing::{Copy, read_copy};
use super::proof::{Finding, parse_proof};
use super::{MANIFEST, PROOF, id_of, key};
use crate::failure::Result;
use crate::names::{BackupId, DatasetName, Stamp};
use crate::store::{Key, Object, Store};

/// So many proofs of older backups are read to find the last drill.
const OLDER_PROOFS: usize = 32;

/// The newest backups of a dataset as one store has them.
#[derive(Debug, Clone, Default)]
pub struct Newest {
    /// The newest, by id, the newest last. What they need of older ones ([`Copy::lacks`]) is not
    /// looked at: that takes all manifests.
    pub copies: BTreeMap<BackupId, Copy>,
    /// How many backups there are in all.
    pub count: usize,
    /// The oldest of them.
    pub oldest: Option<Stamp>,
    /// The newest drill of any of them, as far as 32 proofs reach back.
    pub drilled: Option<(BackupId, Finding)>,
}

/// Reads the newest `count` backups of a dataset, and the last drill. All of that or an error.
pub fn newest(store: &dyn Store, dataset: &DatasetName, count: usize) -> Result<Newest> {
    let objects = store.list(dataset.as_str())?;
    let sizes: BTreeMap<&Key, u64> = objects
        .iter()
        .map(|object| (&object.key, object.bytes))
        .collect();
    let manifests: BTreeMap<BackupId, &Object> = objects
        .iter()
        .filter_map(|object| {
            let id = id_of(object.key.as_str().strip_suffix(MANIFEST)?)?;
            (id.dataset == *dataset).then_some((id, object))
        })
        .collect();
    let wanted: Vec<&BackupId> = manifests.keys().rev().take(count).collect();
    let mut read = Vec::new();
    for id in &wanted {
        let proof = key(id, PROOF)?;
        read.push(manifests[*id].clone());
        read.extend(objects.iter().find(|object| object.key == proof).cloned());
    }
    let mut ahead = Ahead::new(store, &read);
    let mut newest = Newest {
        count: manifests.len(),
        oldest: manifests.keys().next().map(|id| id.stamp),
        ..Newest::default()
    };
    for id in wanted {
        let copy = read_copy(store, id, manifests[id], &sizes, &mut ahead)?;
        newest.copies.insert(id.clone(), copy);
    }
    let drilled = newest
        .copies
        .iter()
        .filter_map(|(id, copy)| Some((id.clone(), copy.proof.drilled.clone()?)));
    newest.drilled = drilled.max_by_key(|(_, finding)| finding.at);
    if newest.drilled.is_none() {
        newest.drilled = older_drill(store, &manifests, &sizes, count)?;
    }
    Ok(newest)
}

fn older_drill(
    store: &dyn Store,
    manifests: &BTreeMap<BackupId, &Object>,
    sizes: &BTreeMap<&Key, u64>,
    but: usize,
) -> Result<Option<(BackupId, Finding)>> {
    let mut proofs = Vec::new();
    for id in manifests.keys().rev().skip(but) {
        let proof = key(id, PROOF)?;
        if sizes.contains_key(&proof) && proofs.len() < OLDER_PROOFS {
            proofs.push((id, proof));
        }
    }
    let keys: Vec<Key> = proofs.iter().map(|(_, key)| key.clone()).collect();
    let texts = store.get_small(&keys, 1 << 20);
    let mut newest: Option<(BackupId, Finding)> = None;
    for ((id, _), text) in proofs.into_iter().zip(texts) {
        let Some(finding) = parse_proof(&text?).drilled else {
            continue;
        };
        if newest
            .as_ref()
            .is_none_or(|(_, known)| known.at < finding.at)
        {
            newest = Some((id.clone(), finding));
        }
    }
    Ok(newest)
}
