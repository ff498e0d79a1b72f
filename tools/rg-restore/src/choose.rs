//! Which backup: by id, the newest, the newest at a time, or a bare file.

use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rg_common::catalog::{self, Entry};
use rg_common::config::{Config, DatasetConfig};
use rg_common::names::BackupId;
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};

use crate::source::Source;

/// What the stores hold, as far as they could be read.
pub struct Catalog {
    /// All backups, the newest last.
    pub entries: Vec<Entry>,
    /// The stores.
    pub stores: Vec<Box<dyn Store>>,
    /// Stores that could not be read, a line each. The newest backup may lie there.
    pub unreadable: Vec<String>,
}

/// Reads all stores, or the one that is asked for. None readable is an error.
pub fn read(config: &Config, only: Option<&str>) -> Result<Catalog> {
    let mut found = Catalog {
        entries: Vec::new(),
        stores: Vec::new(),
        unreadable: Vec::new(),
    };
    let mut listings = Vec::new();
    if let Some(name) = only {
        store::open_named(config, name)?;
    }
    let mut last = None;
    for named in config
        .stores
        .iter()
        .filter(|store| only.is_none_or(|name| store.name == name))
    {
        match store::open_named(config, &named.name)
            .and_then(|store| Ok((catalog::read(&*store, None)?, store)))
        {
            Ok((listing, store)) => {
                listings.push(listing);
                found.stores.push(store);
            }
            Err(failure) => {
                found.unreadable.push(failure.to_string());
                last = Some(failure);
            }
        }
    }
    match last {
        Some(failure) if found.stores.is_empty() => Err(failure.context("no store could be read")),
        _ => {
            found.entries = catalog::merge(listings);
            Ok(found)
        }
    }
}

/// Which one is wanted.
pub enum Wanted<'a> {
    /// The newest.
    Latest,
    /// The newest at a time.
    At(Timestamp),
    /// That one.
    Id(&'a BackupId),
}

/// Takes a sound copy of the wanted backup of a dataset out of the catalog.
pub fn choose(
    catalog: &mut Catalog,
    dataset: &DatasetConfig,
    wanted: &Wanted<'_>,
) -> Result<Source> {
    let of_it = |entry: &&Entry| match wanted {
        Wanted::Id(id) => entry.id == **id,
        Wanted::At(time) => entry.id.dataset == dataset.name && entry.id.stamp.time() <= *time,
        Wanted::Latest => entry.id.dataset == dataset.name,
    };
    let sound = |entry: &&Entry| entry.copies.iter().any(catalog::Copy::is_sound);
    let mut candidates: Vec<&Entry> = catalog.entries.iter().filter(of_it).collect();
    let skipped: Vec<String> = candidates
        .iter()
        .filter(|e| !sound(e))
        .map(|e| e.id.to_string())
        .collect();
    candidates.retain(sound);
    let Some(entry) = candidates.last() else {
        return Err(none(catalog, dataset, wanted, &skipped));
    };
    for id in skipped.iter().filter(|id| **id > entry.id.to_string()) {
        tracing::warn!("{id} is damaged; taking {} instead", entry.id);
    }
    let copy = entry
        .copies
        .iter()
        .find(|copy| copy.is_sound())
        .ok_or_else(|| Failure::new("no sound copy"))?;
    let manifest = copy.manifest.clone().map_err(Failure::new)?;
    let at = catalog
        .stores
        .iter()
        .position(|store| store.name() == copy.store);
    let store = at
        .map(|at| &catalog.stores[at])
        .ok_or_else(|| Failure::new("its store is gone"))?;
    Ok(Source::stored(store.name(), *manifest))
}

fn none(
    catalog: &Catalog,
    dataset: &DatasetConfig,
    wanted: &Wanted<'_>,
    damaged: &[String],
) -> Failure {
    let what = match wanted {
        Wanted::Id(id) => format!("no backup {id}"),
        Wanted::At(time) => format!("no backup of {} at {time}", dataset.name),
        Wanted::Latest => format!("no backup of {}", dataset.name),
    };
    let mut failure = Failure::new(format!("{what} that can be restored"));
    if !damaged.is_empty() {
        failure = failure.hint(format!("damaged: {}", damaged.join(", ")));
    }
    for store in &catalog.unreadable {
        failure = failure.hint(format!("a store could not be read: {store}"));
    }
    failure.hint("`rg-restore list` shows what there is")
}

/// Whether `--from` names a file rather than an id.
pub fn is_file(from: &str) -> bool {
    from.contains('/') && !from.contains('@') || Path::new(from).is_file()
}

/// A time as an operator writes it: an RFC 3339 instant, or a wall clock in the host's zone.
pub fn time(text: &str, zone: &TimeZone) -> Result<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let civil = text
        .parse::<DateTime>()
        .ok()
        .or_else(|| DateTime::strptime("%Y-%m-%d %H:%M", text).ok());
    civil
        .and_then(|civil| civil.to_zoned(zone.clone()).ok())
        .map(|zoned| zoned.timestamp())
        .ok_or_else(|| {
            Failure::new(format!("`{text}` is not a time"))
                .hint("write '2026-01-23 02:30' or 2026-01-23T02:30:00Z")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_operators_write_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = |text| time(text, &zone).unwrap().to_string();
        assert_eq!(at("2026-01-23 02:30"), "2026-01-23T00:30:00Z");
        assert_eq!(at("2026-01-23T02:30:15"), "2026-01-23T00:30:15Z");
        assert_eq!(at("2026-01-23T02:30:00Z"), "2026-01-23T02:30:00Z");
        assert_eq!(
            time("yesterday", &zone).unwrap_err().to_string(),
            "`yesterday` is not a time"
        );
    }
}
