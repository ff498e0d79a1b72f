//! What stores hold: their manifests read, judged by the sizes of what lies beside them, merged.

use std::collections::{BTreeMap, HashSet};

use super::ahead::Ahead;
use super::manifest::{self, Manifest};
use super::proof::{Finding, Proof, parse_proof};
use super::{MANIFEST, PIN, PROOF, UNFINISHED, base, beside, id_of, key};
use crate::failure::Result;
use crate::names::{BackupId, DatasetName};
use crate::store::{Key, Object, Store};

/// One backup as one store has it.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The store's name.
    pub store: String,
    /// Its manifest, or why it cannot be believed.
    pub manifest: std::result::Result<Box<Manifest>, String>,
    /// What is wrong with the files beside the manifest, seen without reading them.
    pub trouble: Option<String>,
    /// What this store lacks of the older backups that it cannot be restored without.
    pub lacks: Option<String>,
    /// What was proven about this copy.
    pub proof: Proof,
    /// Kept for ever.
    pub pinned: bool,
}

impl Copy {
    /// Whether nothing speaks against it: manifest intact, files of the right length there, no
    /// later look found it damaged, and all that it needs is there.
    pub fn is_sound(&self) -> bool {
        self.is_intact() && self.lacks.is_none()
    }

    /// Whether nothing speaks against its own files, so that newer ones can rely on them.
    pub fn is_intact(&self) -> bool {
        let last = |finding: &Option<Finding>| finding.as_ref().is_none_or(|finding| finding.good);
        self.manifest.is_ok()
            && self.trouble.is_none()
            && last(&self.proof.verified)
            && last(&self.proof.drilled)
    }
}

/// One backup wherever it lies.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its id.
    pub id: BackupId,
    /// Its copies, in the stores' order.
    pub copies: Vec<Copy>,
}

impl Entry {
    /// The manifest of its first copy that has an intact one.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.copies
            .iter()
            .find_map(|copy| copy.manifest.as_deref().ok())
    }
}

/// What one store holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// Its backups, sorted by id.
    pub copies: BTreeMap<BackupId, Copy>,
    /// Files that belong to no backup and carry no mark of ours: somebody put them there.
    pub strangers: Vec<Key>,
}

/// Reads what a store holds of a dataset, or of everything. All of it or an error.
pub fn read(store: &dyn Store, dataset: Option<&DatasetName>) -> Result<Listing> {
    let objects = store.list(dataset.map_or("", DatasetName::as_str))?;
    let sizes: BTreeMap<&Key, u64> = objects
        .iter()
        .map(|object| (&object.key, object.bytes))
        .collect();
    let mut listing = Listing::default();
    let mut claimed: HashSet<Key> = HashSet::new();
    let mut ahead = Ahead::new(store, &objects);
    for object in &objects {
        let Some(stem) = object.key.as_str().strip_suffix(MANIFEST) else {
            continue;
        };
        let Some(id) =
            id_of(stem).filter(|id| dataset.is_none_or(|dataset| id.dataset == *dataset))
        else {
            continue;
        };
        let copy = read_copy(store, &id, object, &sizes, &mut ahead)?;
        if let Ok(manifest) = &copy.manifest {
            claimed.extend(data_keys(manifest)?);
        }
        listing.copies.insert(id, copy);
    }
    find_lacks(&mut listing);
    let marks: Vec<&str> = objects
        .iter()
        .filter_map(|o| o.key.as_str().strip_suffix(UNFINISHED))
        .collect();
    let damaged: Vec<String> = listing
        .copies
        .iter()
        .filter(|(_, copy)| copy.manifest.is_err())
        .map(|(id, _)| base(id))
        .collect();
    for object in &objects {
        let text = object.key.as_str();
        let ours = [MANIFEST, PROOF, PIN, UNFINISHED]
            .iter()
            .any(|suffix| text.ends_with(suffix));
        let unfinished = marks.iter().any(|stem| {
            text.strip_prefix(stem)
                .is_some_and(|rest| rest.starts_with('.'))
        });
        let damaged = damaged.iter().any(|base| text.starts_with(base));
        if !ours && !unfinished && !damaged && !claimed.contains(&object.key) {
            listing.strangers.push(object.key.clone());
        }
    }
    Ok(listing)
}

/// Says of each backup whether all that it needs is there and sound.
fn find_lacks(listing: &mut Listing) {
    let lacks = |id: &BackupId, copy: &Copy| {
        let needs = copy.manifest.as_ref().ok()?.content.needs();
        let lacking = needs.iter().find_map(|need| {
            let needed = BackupId {
                dataset: id.dataset.clone(),
                stamp: need.stamp,
            };
            match listing.copies.get(&needed) {
                None => Some(format!("it needs {needed}, which is not there")),
                Some(one) if !one.is_intact() => {
                    Some(format!("it needs {needed}, which is damaged"))
                }
                Some(_) => None,
            }
        })?;
        Some((id.clone(), lacking))
    };
    let found: Vec<_> = listing
        .copies
        .iter()
        .filter_map(|(id, copy)| lacks(id, copy))
        .collect();
    for (id, lacking) in found {
        if let Some(copy) = listing.copies.get_mut(&id) {
            copy.lacks = Some(lacking);
        }
    }
}

/// Merges what several stores hold into entries sorted by time, the newest last.
pub fn merge(listings: impl IntoIterator<Item = Listing>) -> Vec<Entry> {
    let mut entries: BTreeMap<BackupId, Entry> = BTreeMap::new();
    for listing in listings {
        for (id, copy) in listing.copies {
            entries
                .entry(id.clone())
                .or_insert_with(|| Entry {
                    id,
                    copies: Vec::new(),
                })
                .copies
                .push(copy);
        }
    }
    let mut entries: Vec<Entry> = entries.into_values().collect();
    entries.sort_by(|a, b| (a.id.stamp, &a.id.dataset).cmp(&(b.id.stamp, &b.id.dataset)));
    entries
}

pub(super) fn read_copy(
    store: &dyn Store,
    id: &BackupId,
    object: &Object,
    sizes: &BTreeMap<&Key, u64>,
    ahead: &mut Ahead<'_>,
) -> Result<Copy> {
    let manifest = read_manifest(id, object, ahead)?;
    let trouble = match &manifest {
        Ok(manifest) => trouble(manifest, sizes)?,
        Err(_) => None,
    };
    let proof = key(id, PROOF)?;
    let proof = if sizes.contains_key(&proof) {
        parse_proof(&ahead.take(&proof)?)
    } else {
        Proof::default()
    };
    let pinned = sizes.contains_key(&key(id, PIN)?);
    Ok(Copy {
        store: store.name().to_owned(),
        manifest,
        trouble,
        lacks: None,
        proof,
        pinned,
    })
}

pub(super) fn read_manifest(
    id: &BackupId,
    object: &Object,
    ahead: &mut Ahead<'_>,
) -> Result<std::result::Result<Box<Manifest>, String>> {
    if object.bytes > manifest::BYTES_MAX {
        return Ok(Err(format!(
            "{} is damaged: too large",
            object.key.file_name()
        )));
    }
    Ok(match ahead.take_manifest(&object.key)? {
        Ok(manifest) if manifest.id == *id => Ok(Box::new(manifest)),
        Ok(manifest) => Err(format!(
            "{} belongs to {}",
            object.key.file_name(),
            manifest.id
        )),
        Err(failure) => Err(format!("{}: {failure}", object.key.file_name())),
    })
}

fn trouble(manifest: &Manifest, sizes: &BTreeMap<&Key, u64>) -> Result<Option<String>> {
    let mut parts = vec![(&manifest.file, manifest.stored.bytes)];
    let list = manifest.content.list();
    parts.extend(list.map(|list| (&list.file, list.stored.bytes)));
    for (file, bytes) in parts {
        match sizes.get(&beside(&manifest.id, file)?) {
            None => return Ok(Some(format!("{file} is missing"))),
            Some(&found) if found != bytes => {
                return Ok(Some(format!("{file} has {found} bytes, not {bytes}")));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

fn data_keys(manifest: &Manifest) -> Result<Vec<Key>> {
    let mut keys = vec![beside(&manifest.id, &manifest.file)?];
    if let Some(list) = manifest.content.list() {
        keys.push(beside(&manifest.id, &list.file)?);
    }
    Ok(keys)
}
