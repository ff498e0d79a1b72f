//! Applying retention to what lies in the stores.
//!
//! Each store is judged by itself: what another store holds is no reason to delete here. Before
//! the first deletion the newest backup that the plan rests on is re-read from this store; if it
//! is damaged the plan is made anew without it.

use std::collections::BTreeSet;

use rg_common::catalog::{self, Listing, Manifest};
use rg_common::cli::Context;
use rg_common::config::DatasetConfig;
use rg_common::names::BackupId;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::stop;
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::Prune;
use crate::retention::{self, Candidate, Fate};

/// One line of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    store: String,
    id: String,
    /// `keep` or `delete`.
    fate: &'static str,
    reason: String,
    #[serde(skip)]
    backup: BackupId,
}

#[derive(Serialize)]
struct Pruned {
    dry_run: bool,
    plan: Vec<Line>,
    failed: Vec<String>,
}

/// Applies retention to the chosen datasets in all their stores.
pub fn prune(context: &Context, args: &Prune) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut pruned = Pruned {
        dry_run: args.dry_run,
        plan: Vec::new(),
        failed: Vec::new(),
    };
    for dataset in config.select(&args.datasets)? {
        for name in &dataset.stores {
            let done = store::open_named(&config, name)
                .and_then(|store| one(context, dataset, &*store, args.dry_run));
            match done {
                Ok(lines) => pruned.plan.extend(lines),
                Err(failure) => pruned.failed.push(report::with_hints(
                    &failure.context(format!("{} in store `{name}`", dataset.name)),
                )),
            }
        }
    }
    Ok(Box::new(pruned))
}

/// Applies retention to one dataset in one store; the plan that was applied.
pub fn one(
    context: &Context,
    dataset: &DatasetConfig,
    store: &dyn Store,
    dry_run: bool,
) -> Result<Vec<Line>> {
    // First a look: a store that is not there is an error, and taking its lock would make it.
    store.list(dataset.name.as_str())?;
    let _lock = if dry_run {
        None
    } else {
        Some(store.lock(dataset.name.as_str())?)
    };
    let plan = plan(context, dataset, store)?;
    if !dry_run {
        for line in plan.iter().filter(|line| line.fate == "delete") {
            tracing::info!(id = line.id, reason = line.reason, "deleting");
            catalog::forget(store, &line.backup)?;
        }
    }
    Ok(plan)
}

fn plan(context: &Context, dataset: &DatasetConfig, store: &dyn Store) -> Result<Vec<Line>> {
    let Some(keep) = &dataset.keep else {
        return Ok(Vec::new());
    };
    let listing = catalog::read(store, Some(&dataset.name))?;
    let mut damaged: BTreeSet<BackupId> = BTreeSet::new();
    loop {
        let candidates = candidates(&listing, &damaged);
        let mut fates = retention::plan(
            dataset.name.as_str(),
            &candidates,
            keep,
            context.now,
            &context.zone,
        )?;
        keep_what_is_needed(&listing, &mut fates);
        let deletes = fates.iter().any(|fate| matches!(fate, Fate::Delete(_)));
        let newest = listing
            .copies
            .iter()
            .rev()
            .find(|(id, copy)| copy.is_sound() && !damaged.contains(id));
        if deletes && let Some((id, copy)) = newest {
            let manifest = copy
                .manifest
                .as_deref()
                .map_err(|e| Failure::new(e.clone()))?;
            if let Err(failure) = catalog::check_stored(store, manifest) {
                stop::check()?;
                tracing::warn!(%id, %failure, "the newest backup is not what was recorded; nothing rests on it");
                damaged.insert(id.clone());
                continue;
            }
        }
        let lines = listing.copies.keys().zip(fates).map(|(id, fate)| {
            let (fate, reason) = match fate {
                Fate::Keep(reason) => ("keep", reason),
                Fate::Delete(reason) => ("delete", reason),
            };
            Line {
                store: store.name().to_owned(),
                id: id.to_string(),
                fate,
                reason,
                backup: id.clone(),
            }
        });
        return Ok(lines.collect());
    }
}

/// A backup whose archive a kept one needs stays too.
fn keep_what_is_needed(listing: &Listing, fates: &mut [Fate]) {
    let kept = |(copy, fate): (&catalog::Copy, &Fate)| match fate {
        Fate::Keep(_) => copy.manifest.as_deref().ok().cloned(),
        Fate::Delete(_) => None,
    };
    let keepers: Vec<_> = listing
        .copies
        .values()
        .zip(fates.iter())
        .filter_map(kept)
        .filter(|manifest| !manifest.content.needs().is_empty())
        .collect();
    for (id, fate) in listing.copies.keys().zip(fates) {
        let needs_it = |keeper: &&Manifest| {
            let mut needs = keeper.content.needs().iter();
            needs.any(|need| need.stamp == id.stamp)
        };
        if matches!(fate, Fate::Delete(_))
            && let Some(keeper) = keepers.iter().rev().find(|keeper| needs_it(keeper))
        {
            *fate = Fate::Keep(format!("{} needs it", keeper.id));
        }
    }
}

fn candidates(listing: &Listing, damaged: &BTreeSet<BackupId>) -> Vec<Candidate> {
    let candidate = |(id, copy): (&BackupId, &catalog::Copy)| Candidate {
        dataset: id.dataset.to_string(),
        stamp: id.stamp.time(),
        pinned: copy.pinned,
        proven: copy.is_sound() && !damaged.contains(id),
        bytes: copy
            .manifest
            .as_ref()
            .map_or(0, |manifest| manifest.stored.bytes),
    };
    listing.copies.iter().map(candidate).collect()
}

impl Report for Pruned {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let row = |line: &Line| {
            let tone = if line.fate == "delete" {
                Tone::Warn
            } else {
                Tone::Plain
            };
            vec![
                (Tone::Plain, line.store.clone()),
                (Tone::Plain, line.id.clone()),
                (tone, line.reason.clone()),
            ]
        };
        let rows: Vec<_> = self
            .plan
            .iter()
            .filter(|line| self.dry_run || line.fate == "delete")
            .map(row)
            .collect();
        page.table(&["STORE", "ID", "WHY"], &rows);
        for failed in &self.failed {
            page.line(format!("{}  {failed}", page.tone(Tone::Bad, "✗")));
        }
        let count = self
            .plan
            .iter()
            .filter(|line| line.fate == "delete")
            .count();
        let verb = if self.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        page.line(format!(
            "{count} of {} {verb}",
            report::counted(self.plan.len(), "backups")
        ));
    }

    fn outcome(&self) -> Outcome {
        if self.failed.is_empty() {
            Outcome::Well
        } else {
            Outcome::Incomplete
        }
    }
}

/// The ids that a plan deletes.
pub fn deleted(plan: &[Line]) -> Vec<String> {
    plan.iter()
        .filter(|line| line.fate == "delete")
        .map(|line| line.id.clone())
        .collect()
}
