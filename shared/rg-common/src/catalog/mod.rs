//! The catalog is what the manifests in the stores say; there is no other state to lose.
//!
//! In a store lie, per backup: the data, for a directory the list of its entries, then the
//! manifest, written last: **a backup exists if and only if its manifest does**. While a backup
//! is being written or removed an `.unfinished` mark lies beside it, so that what a killed run
//! left can be told from a file that somebody put there, which is never touched.

mod ahead;
mod listing;
pub mod manifest;
mod newest;
mod proof;

use jiff::{SignedDuration, Timestamp};

use crate::failure::{Failure, Result};
use crate::names::{BackupId, DatasetName, Stamp};
use crate::seal;
use crate::stop::Stoppable;
use crate::store::{Key, Store};
use ahead::Ahead;
use listing::read_manifest;
pub use listing::{Copy, Entry, Listing, merge, read};
pub use manifest::{Content, Extent, Manifest, Need};
pub use newest::{Newest, newest};
pub use proof::{Finding, Proof, write_proof};

const MANIFEST: &str = ".manifest.json";
const PROOF: &str = ".proof.json";
const PIN: &str = ".pin";
const UNFINISHED: &str = ".unfinished";

/// How far in the future a backup may lie before the clock is in doubt: nothing is deleted then.
/// Nearer ones are followed by the next stamp, so that a new backup is always the newest.
pub const CLOCK_SLACK: SignedDuration = SignedDuration::from_hours(1);

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
