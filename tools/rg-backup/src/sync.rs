//! Copying what a store lacks: after an outage, onto a new disk, back from off-site.

use std::collections::BTreeMap;

use rg_common::catalog::{self, Copy, Listing};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig};
use rg_common::names::BackupId;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::Sync;

#[derive(Serialize)]
struct Synced {
    dry_run: bool,
    copied: Vec<Copied>,
    /// Backups of which no store has a sound copy.
    damaged: Vec<String>,
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Copied {
    id: String,
    from: String,
    to: String,
    bytes: u64,
}

/// A store that could be read, with what it holds of one dataset.
type Place = (Box<dyn Store>, Listing);

/// Brings all stores of the chosen datasets to the same content.
pub fn sync(context: &Context, args: &Sync) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut synced = Synced {
        dry_run: args.dry_run,
        copied: Vec::new(),
        damaged: Vec::new(),
        failed: Vec::new(),
    };
    for dataset in config.select(&args.datasets)? {
        one(&config, dataset, &mut synced);
    }
    Ok(Box::new(synced))
}

fn one(config: &Config, dataset: &DatasetConfig, synced: &mut Synced) {
    let mut places: Vec<Place> = Vec::new();
    for name in &dataset.stores {
        match open(config, dataset, name, synced.dry_run) {
            Ok(place) => places.push(place),
            Err(failure) => synced.failed.push(report::with_hints(&failure)),
        }
    }
    let mut wanted: BTreeMap<BackupId, usize> = BTreeMap::new();
    for (index, (_, listing)) in places.iter().enumerate() {
        for (id, _) in listing.copies.iter().filter(|(_, copy)| copy.is_intact()) {
            wanted.entry(id.clone()).or_insert(index);
        }
    }
    for id in places.iter().flat_map(|(_, listing)| listing.copies.keys()) {
        let id_text = id.to_string();
        if !wanted.contains_key(id) && !synced.damaged.contains(&id_text) {
            synced.damaged.push(id_text);
        }
    }
    for (id, from) in &wanted {
        for (to, (target, listing)) in places.iter().enumerate() {
            if to == *from || listing.copies.get(id).is_some_and(Copy::is_intact) {
                continue;
            }
            let damaged = listing.copies.contains_key(id);
            match bring(&places[*from], &**target, id, damaged, synced.dry_run) {
                Ok(copied) => synced.copied.push(copied),
                Err(failure) => synced.failed.push(report::with_hints(&failure)),
            }
        }
    }
}

/// A store that does not exist yet holds nothing: the first copy makes it.
fn open(config: &Config, dataset: &DatasetConfig, name: &str, dry_run: bool) -> Result<Place> {
    if dry_run {
        let store = store::open_named(config, name)?;
        let listing = match store::is_to_be_made(config, name)? {
            true => Listing::default(),
            false => catalog::read(&*store, Some(&dataset.name))?,
        };
        return Ok((store, listing));
    }
    let store = store::open_to_write(config, name)?;
    let lock = store.lock(dataset.name.as_str())?;
    let listing = catalog::read(&*store, Some(&dataset.name))?;
    drop(lock);
    Ok((store, listing))
}

fn bring(
    from: &Place,
    to: &dyn Store,
    id: &BackupId,
    damaged: bool,
    dry_run: bool,
) -> Result<Copied> {
    let (source, listing) = from;
    let copy = listing
        .copies
        .get(id)
        .and_then(|copy| copy.manifest.as_deref().ok());
    let manifest =
        copy.ok_or_else(|| Failure::new(format!("no sound copy of {id} to begin with")))?;
    if !dry_run {
        let _lock = to.lock(id.dataset.as_str())?;
        catalog::sweep(to, &id.dataset)?;
        if damaged {
            tracing::warn!(%id, store = to.name(), "replacing a damaged copy by a sound one");
            catalog::check_stored(&**source, manifest)?;
            catalog::forget(to, id)?;
        }
        catalog::copy(&**source, to, manifest)?;
        if listing.copies.get(id).is_some_and(|copy| copy.pinned) {
            catalog::set_pin(to, id, true)?;
        }
    }
    Ok(Copied {
        id: id.to_string(),
        from: source.name().to_owned(),
        to: to.name().to_owned(),
        bytes: manifest.stored.bytes,
    })
}

impl Report for Synced {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let verb = if self.dry_run {
            "would be copied"
        } else {
            "copied"
        };
        for copied in &self.copied {
            page.line(format!(
                "{} {verb} from {} to {}",
                copied.id, copied.from, copied.to
            ));
        }
        for failed in &self.failed {
            page.line(format!("{}  {failed}", page.tone(Tone::Bad, "✗")));
        }
        for id in &self.damaged {
            let sign = page.tone(Tone::Bad, "✗");
            page.line(format!(
                "{sign}  {id} is damaged, and no store has a sound copy (`rg-backup list` says how)"
            ));
        }
        if self.copied.is_empty() && self.failed.is_empty() && self.damaged.is_empty() {
            page.line("every store has everything");
        }
    }

    fn outcome(&self) -> Outcome {
        match () {
            () if !self.failed.is_empty() => Outcome::Incomplete,
            () if !self.damaged.is_empty() => Outcome::BadNews,
            () => Outcome::Well,
        }
    }
}
