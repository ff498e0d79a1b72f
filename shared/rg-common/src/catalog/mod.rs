//! The catalog is what the manifests in the stores say; there is no other state to lose.
//!
//! In a store lie, per backup: the data, for a directory the list of its entries, then the
//! manifest, written last: **a backup exists if and only if its manifest does**. While a backup
//! is being written or removed an `.unfinished` mark lies beside it, so that what a killed run
//! left can be told from a file that somebody put there, which is never touched.

mod ahead;
pub mod manifest;

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, OrFail, Result};
use crate::names::{BackupId, DatasetName, Stamp};
use crate::seal;
use crate::stop::Stoppable;
use crate::store::{Key, Object, Store};
use ahead::Ahead;
pub use manifest::{Content, Extent, Manifest, Need};

const MANIFEST: &str = ".manifest.json";
const PROOF: &str = ".proof.json";
const PIN: &str = ".pin";
const UNFINISHED: &str = ".unfinished";

/// How far in the future a backup may lie before the clock is in doubt: nothing is deleted then.
/// Nearer ones are followed by the next stamp, so that a new backup is always the newest.
pub const CLOCK_SLACK: SignedDuration = SignedDuration::from_hours(1);

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

fn read_copy(
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

fn read_manifest(
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
    let text = ahead.take(&object.key)?;
    Ok(match Manifest::parse(&text) {
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

fn read_proof(store: &dyn Store, id: &BackupId) -> Result<Proof> {
    let mut text = Vec::new();
    let key = key(id, PROOF)?;
    let read = store.get(&key)?.take(1 << 20).read_to_end(&mut text);
    read.or_fail(|| format!("cannot read {key} in store `{}`", store.name()))?;
    Ok(parse_proof(&text))
}

/// A proof that cannot be read proves nothing; the backup itself is judged by its manifest.
fn parse_proof(text: &[u8]) -> Proof {
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

/// Whether a store has a backup, whole or damaged.
pub fn exists(store: &dyn Store, id: &BackupId) -> Result<bool> {
    let key = key(id, MANIFEST)?;
    let objects = store.list(id.dataset.as_str())?;
    Ok(objects.iter().any(|object| object.key == key))
}

/// Marks a backup as kept for ever, or no longer.
pub fn set_pin(store: &dyn Store, id: &BackupId, pinned: bool) -> Result<()> {
    let key = key(id, PIN)?;
    if pinned {
        put_bytes(store, &key, b"pinned\n")
    } else {
        store.delete(&key)
    }
}

/// Begins a backup: until [`record`] or [`abandon`] its files count as nobody's.
pub fn begin(store: &dyn Store, id: &BackupId) -> Result<()> {
    put_bytes(store, &key(id, UNFINISHED)?, b"")
}

/// Ends a backup well: the manifest makes it exist. Everything it names must lie in the store.
pub fn record(store: &dyn Store, manifest: &Manifest) -> Result<()> {
    put_bytes(
        store,
        &key(&manifest.id, MANIFEST)?,
        manifest.render()?.as_bytes(),
    )?;
    store.delete(&key(&manifest.id, UNFINISHED)?)
}

/// Ends a backup badly: removes what had been written, the manifest first if it was.
pub fn abandon(store: &dyn Store, id: &BackupId) -> Result<()> {
    store.delete(&key(id, MANIFEST)?)?;
    remove_data(store, id)?;
    store.delete(&key(id, UNFINISHED)?)
}

/// Removes a backup, the manifest first: at no instant is there a manifest without its data.
pub fn forget(store: &dyn Store, id: &BackupId) -> Result<()> {
    begin(store, id)?;
    store.delete(&key(id, MANIFEST)?)?;
    remove_data(store, id)?;
    store.delete(&key(id, UNFINISHED)?)
}

/// Removes what killed runs left of a dataset: only what carries a mark of ours, and only under
/// the dataset's lock. A backup whose manifest had been written is kept.
pub fn sweep(store: &dyn Store, dataset: &DatasetName) -> Result<()> {
    store.sweep(dataset.as_str())?;
    let objects = store.list(dataset.as_str())?;
    for object in &objects {
        let id = object.key.as_str().strip_suffix(UNFINISHED).and_then(id_of);
        // A nested dataset (`globals/staging` below `globals`) has a lock of its own.
        let Some(id) = id.filter(|id| id.dataset == *dataset) else {
            continue;
        };
        let manifest = key(&id, MANIFEST)?;
        if objects.iter().any(|o| o.key == manifest) {
            store.delete(&object.key)?;
        } else {
            tracing::info!(%id, "removing what a killed run left");
            abandon(store, &id)?;
        }
    }
    Ok(())
}

fn remove_data(store: &dyn Store, id: &BackupId) -> Result<()> {
    let (mark, prefix) = (key(id, UNFINISHED)?, format!("{}.", base(id)));
    for object in store.list(id.dataset.as_str())? {
        if object.key.as_str().starts_with(&prefix) && object.key != mark {
            store.delete(&object.key)?;
        }
    }
    Ok(())
}

/// Re-reads a backup's stored bytes; an error says what differs.
pub fn check_stored(store: &dyn Store, manifest: &Manifest) -> Result<()> {
    check_extent(store, &manifest.id, &manifest.file, &manifest.stored)?;
    if let Some(list) = manifest.content.list() {
        check_extent(store, &manifest.id, &list.file, &list.stored)?;
    }
    Ok(())
}

fn check_extent(store: &dyn Store, id: &BackupId, file: &str, recorded: &Extent) -> Result<()> {
    let key = beside(id, file)?;
    let what = || format!("cannot read {key} in store `{}`", store.name());
    let (bytes, sha256) = seal::stored_digest(Stoppable(store.get(&key)?))
        .map_err(|e| Failure::because(what(), e))?;
    if bytes != recorded.bytes {
        return Err(Failure::new(format!(
            "{file} has {bytes} bytes, not {}",
            recorded.bytes
        )));
    }
    if sha256 != recorded.sha256 {
        return Err(Failure::new(format!(
            "{file} is damaged: its SHA-256 is {sha256}, not {}",
            recorded.sha256
        )));
    }
    Ok(())
}

/// Copies a backup from one store to another, digests checked on the way; under `to`'s lock. A
/// backup that is there already is left alone: the two may be one folder by another path, and a
/// copy that fails takes away what it began.
pub fn copy(from: &dyn Store, to: &dyn Store, manifest: &Manifest) -> Result<()> {
    let id = &manifest.id;
    if exists(to, id)? {
        return Ok(());
    }
    for need in manifest.content.needs() {
        copy_needed(from, to, id, need)?;
    }
    copy_alone(from, to, manifest)
}

fn copy_alone(from: &dyn Store, to: &dyn Store, manifest: &Manifest) -> Result<()> {
    let id = &manifest.id;
    begin(to, id)?;
    let copied = (|| {
        let mut parts = vec![(&manifest.file, &manifest.stored)];
        let list = manifest.content.list();
        parts.extend(list.map(|list| (&list.file, &list.stored)));
        for (file, extent) in parts {
            let key = beside(id, file)?;
            let mut body = Stoppable(from.get(&key)?);
            to.put(&key, &mut body)
                .map_err(|error| error.into_failure(format!("cannot copy {key}")))?;
            check_extent(to, id, file, extent)?;
        }
        record(to, manifest)
    })();
    if copied.is_err()
        && let Err(failure) = abandon(to, id)
    {
        tracing::warn!(%failure, "what was copied could not be removed; the next run does it");
    }
    copied.map_err(|failure: Failure| {
        failure.context(format!("cannot copy {id} to store `{}`", to.name()))
    })
}

/// Copies an older backup that another one cannot be restored without.
fn copy_needed(from: &dyn Store, to: &dyn Store, id: &BackupId, need: &Need) -> Result<()> {
    let needed = BackupId {
        dataset: id.dataset.clone(),
        stamp: need.stamp,
    };
    if exists(to, &needed)? {
        return Ok(());
    }
    let what = || format!("{id} needs {needed}");
    let key = key(&needed, MANIFEST)?;
    let objects = from.list(id.dataset.as_str())?;
    // Where it is missing the copy will lack it too, and say so.
    let Some(object) = objects.iter().find(|object| object.key == key) else {
        return Ok(());
    };
    let manifest =
        read_manifest(&needed, object, &mut Ahead::new(from, &[]))?.map_err(Failure::new)?;
    copy_alone(from, to, &manifest).map_err(|failure| failure.context(what()))
}

/// The key of a file that lies beside a backup's manifest.
pub fn beside(id: &BackupId, file: &str) -> Result<Key> {
    if file.contains('/') {
        return Err(Failure::new(format!(
            "`{file}` in the manifest of {id} leads elsewhere"
        )));
    }
    Key::new(format!("{}/{file}", id.dataset))
}

/// A stamp for a new backup: `now`, or a second after the newest there is, so that ids stay in
/// order within one second and after a step back of the clock by up to [`CLOCK_SLACK`].
pub fn next_stamp(now: Timestamp, newest: Option<Stamp>) -> Stamp {
    let stamp = Stamp::at(now);
    match newest {
        Some(newest) if newest >= stamp && newest.time().duration_since(now) <= CLOCK_SLACK => {
            Timestamp::from_second(newest.time().as_second() + 1).map_or(stamp, Stamp::at)
        }
        _ => stamp,
    }
}

fn put_bytes(store: &dyn Store, key: &Key, mut bytes: &[u8]) -> Result<()> {
    store
        .put(key, &mut bytes)
        .map_err(|error| error.into_failure(format!("cannot write {key}")))?;
    Ok(())
}

fn data_keys(manifest: &Manifest) -> Result<Vec<Key>> {
    let mut keys = vec![beside(&manifest.id, &manifest.file)?];
    if let Some(list) = manifest.content.list() {
        keys.push(beside(&manifest.id, &list.file)?);
    }
    Ok(keys)
}

fn base(id: &BackupId) -> String {
    format!("{}/{}", id.dataset, id.stem())
}

fn key(id: &BackupId, suffix: &str) -> Result<Key> {
    Key::new(format!("{}{suffix}", base(id)))
}

/// The id of a backup from its files' common leading part, when it is one of ours.
fn id_of(stem: &str) -> Option<BackupId> {
    let (dataset, name) = stem.rsplit_once('/')?;
    let dataset: DatasetName = dataset.parse().ok()?;
    let stamp = name
        .strip_prefix(dataset.file_stem())?
        .strip_prefix('_')?
        .parse()
        .ok()?;
    Some(BackupId { dataset, stamp })
}
