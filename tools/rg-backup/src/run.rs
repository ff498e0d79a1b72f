//! `rg-backup run`: dump, seal, store, read back, record, copy, retain, tell.

use std::fs::File;
use std::io::Read;

use rg_common::catalog::manifest::{Extent, FORMAT, ListFile};
use rg_common::catalog::{self, Content, Listing, Manifest};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig, StorePlace};
use rg_common::dataset::{self, Dump, Dumped, Request};
use rg_common::names::BackupId;
use rg_common::notify::{self, Event, Notice};
use rg_common::postgres::Connector;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::seal::{self, Digests, Recipe};
use rg_common::stop::{self, Stoppable};
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::Run;
use crate::prune;
use rg_common::progress::Progress;

#[derive(Serialize)]
struct Ran {
    host: String,
    dry_run: bool,
    seconds: u64,
    backups: Vec<Done>,
    /// Channels that could not be told.
    untold: Vec<String>,
}

#[derive(Default, Serialize)]
struct Done {
    dataset: String,
    id: Option<String>,
    error: Option<String>,
    hints: Vec<String>,
    plain_bytes: u64,
    stored_bytes: u64,
    seconds: u64,
    count: u64,
    count_of: &'static str,
    stores: Vec<String>,
    pruned: Vec<String>,
    /// Done, but look: a store that was down, a file that changed.
    warnings: Vec<String>,
    notes: Vec<String>,
}

/// Backs up the chosen datasets. One that fails does not stop the others.
pub fn run(context: &Context, args: &Run) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let chosen = config.select(&args.datasets)?;
    if chosen.is_empty() {
        return Err(Failure::new(format!(
            "nothing to back up is configured in {}",
            config.path.display()
        )));
    }
    let mut ran = Ran {
        host: config.host.clone(),
        dry_run: args.dry_run,
        seconds: 0,
        backups: Vec::new(),
        untold: Vec::new(),
    };
    if !args.dry_run {
        ran.untold.extend(tell(
            context,
            &config,
            Event::Start,
            "backup begins".to_owned(),
            Vec::new(),
        ));
    }
    for dataset in chosen {
        let done = one(context, &config, dataset, args);
        let stopped = stop::check().is_err();
        ran.backups.push(done);
        if stopped {
            break;
        }
    }
    ran.seconds = since(context, context.now);
    if !args.dry_run {
        let untold = conclude(context, &config, &ran);
        ran.untold.extend(untold);
    }
    Ok(Box::new(ran))
}

fn one(context: &Context, config: &Config, dataset: &DatasetConfig, args: &Run) -> Done {
    let mut done = Done {
        dataset: dataset.name.to_string(),
        ..Done::default()
    };
    if let Err(failure) = back_up(context, config, dataset, args, &mut done) {
        done.error = Some(failure.to_string());
        done.hints = failure.hints().into_iter().map(str::to_owned).collect();
        tracing::error!(dataset = %dataset.name, "{failure}");
    }
    done
}

fn back_up(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    args: &Run,
    done: &mut Done,
) -> Result<()> {
    let began = context.clock();
    let recipe = dataset::recipe(config, &dataset.kind)?;
    let open = match args.dry_run {
        true => store::open_named,
        false => store::open_to_write,
    };
    let first = open(config, &dataset.stores[0])?;
    let connector = Connector::new(context.network.clone(), "rg-backup");
    let request = Request {
        config,
        dataset,
        connector: &connector,
        snapshot: args.snapshot.as_deref(),
        ours: ours(config),
        now: context.clock(),
    };
    if args.dry_run {
        // Everything is checked and begun; the stream is dropped unread.
        drop(dataset::dump(&request)?);
        done.notes.push(format!(
            "would be written to {}",
            dataset.stores.join(", then ")
        ));
        return Ok(());
    }
    let (manifest, emptied) = {
        let _lock = first.lock(dataset.name.as_str())?;
        catalog::sweep(&*first, &dataset.name)?;
        let listing = catalog::read(&*first, Some(&dataset.name))?;
        let before = listing.copies.iter().next_back();
        let stamp = catalog::next_stamp(context.clock(), before.map(|(id, _)| id.stamp));
        let id = BackupId {
            dataset: dataset.name.clone(),
            stamp,
        };
        let before = before.and_then(|(_, copy)| copy.manifest.as_deref().ok());
        let expected = before.map(|manifest| manifest.plain.bytes);
        let dump = dataset::dump(&request)?;
        catalog::begin(&*first, &id)?;
        let written = write(
            context, config, dataset, &*first, &recipe, &id, dump, expected,
        )
        .and_then(|manifest| catalog::record(&*first, &manifest).map(|()| manifest));
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(failure) => {
                if let Err(left) = catalog::abandon(&*first, &id) {
                    tracing::warn!("{left}; the next run removes it");
                }
                return Err(failure);
            }
        };
        let emptied = emptied(&listing, &manifest);
        (manifest, emptied)
    };
    let retention = !args.no_prune && emptied.is_none();
    done.warnings.extend(emptied);
    let id = &manifest.id;
    done.id = Some(id.to_string());
    (done.count, done.count_of) = manifest.content.count();
    done.plain_bytes = manifest.plain.bytes;
    done.stored_bytes = manifest.stored.bytes;
    done.seconds = since(context, began);
    done.notes.extend(manifest.notes.iter().cloned());
    done.stores.push(first.name().to_owned());
    tracing::info!(
        "recorded {id}, {} in {}, {} {}",
        report::bytes(done.stored_bytes),
        report::span(done.seconds),
        report::count(done.count),
        done.count_of
    );
    distribute(
        context, config, dataset, &*first, &manifest, retention, done,
    )
}

/// Copies the new backup to the other stores and applies retention in each that has it. A store
/// that is down makes a warning: `sync` catches up.
fn distribute(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    first: &dyn Store,
    manifest: &Manifest,
    retention: bool,
    done: &mut Done,
) -> Result<()> {
    if retention {
        retain(context, dataset, first, done);
    }
    for name in &dataset.stores[1..] {
        stop::check()?;
        let copied = store::open_to_write(config, name).and_then(|other| {
            let _lock = other.lock(dataset.name.as_str())?;
            catalog::sweep(&*other, &dataset.name)?;
            catalog::copy(first, &*other, manifest).map(|()| other)
        });
        match copied {
            Ok(other) => {
                done.stores.push(name.clone());
                if retention {
                    retain(context, dataset, &*other, done);
                }
            }
            Err(failure) => {
                stop::check()?;
                let warning =
                    report::with_hints(&failure.context(format!("no copy in store `{name}`")));
                tracing::warn!("{warning}");
                done.warnings
                    .push(format!("{warning}; `rg-backup sync` catches up"));
            }
        }
    }
    Ok(())
}

fn retain(context: &Context, dataset: &DatasetConfig, store: &dyn Store, done: &mut Done) {
    match prune::one(context, dataset, store, false) {
        Ok(plan) => done.pruned.extend(
            prune::deleted(&plan)
                .into_iter()
                .map(|id| format!("{id} in {}", store.name())),
        ),
        Err(failure) => {
            tracing::warn!(
                "retention in store `{}` was not applied: {failure}",
                store.name()
            );
            done.warnings.push(format!(
                "retention in store `{}` was not applied: {failure}",
                store.name()
            ));
        }
    }
}

/// Writes the data and what lies beside it, reads it back, and says what it is. The caller
/// records it, or abandons it.
#[allow(
    clippy::too_many_arguments,
    reason = "each is one thing the manifest says"
)]
fn write(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    store: &dyn Store,
    recipe: &Recipe,
    id: &BackupId,
    dump: Box<dyn Dump + '_>,
    expected: Option<u64>,
) -> Result<Manifest> {
    let started = context.clock();
    let file = format!(
        "{}{}{}",
        id.stem(),
        dataset::extension(&dataset.kind),
        recipe.extension()
    );
    let what = format!("cannot back up {}", dataset.name);
    let progress = Progress::new(context, dataset.name.as_str(), expected, dump);
    let (progress, digests) = put(store, id, &file, Stoppable(progress), recipe, &what)?;
    let Dumped {
        mut content,
        list,
        notes,
    } = progress.0.into_inner().finish()?;
    if let (Content::Files(files), Some(list)) = (&mut content, list) {
        files.list = Some(write_list(store, id, list, recipe, &what)?);
    }
    Ok(Manifest {
        format: FORMAT,
        id: id.clone(),
        host: config.host.clone(),
        started,
        finished: context.clock(),
        tool: context.tool.clone(),
        plain: extent(digests.plain_bytes, &digests.plain_sha256),
        stored: extent(digests.stored_bytes, &digests.stored_sha256),
        encrypted_to: config.recipients.clone(),
        restore_with: dataset::restore_with(&file),
        file,
        adopted_from: None,
        content,
        notes,
    })
}

fn write_list(
    store: &dyn Store,
    id: &BackupId,
    list: File,
    recipe: &Recipe,
    what: &str,
) -> Result<ListFile> {
    let file = format!("{}.files.jsonl{}", id.stem(), recipe.extension());
    let (_, digests) = put(store, id, &file, list, recipe, what)?;
    let plain = extent(digests.plain_bytes, &digests.plain_sha256);
    Ok(ListFile {
        file,
        plain,
        stored: extent(digests.stored_bytes, &digests.stored_sha256),
    })
}

/// Seals a stream into a store and reads it back; the stream's reader comes back with the digests.
fn put<R: Read>(
    store: &dyn Store,
    id: &BackupId,
    file: &str,
    plain: R,
    recipe: &Recipe,
    what: &str,
) -> Result<(R, Digests)> {
    let mut sealer = seal::seal(plain, recipe)?;
    let key = catalog::beside(id, file)?;
    store
        .put(&key, &mut sealer)
        .map_err(|error| error.into_failure(what))?;
    let (plain, digests) = sealer.finish()?;
    // What cannot be read back was not written.
    let found = seal::stored_fingerprint(Stoppable(store.get(&key)?))
        .map_err(|failure| failure.context(format!("{what}: reading {key} back")))?;
    if found != (digests.stored_bytes, digests.stored_fingerprint) {
        return Err(Failure::new(format!(
            "{what}: {key} reads back otherwise than it was written to store `{}`",
            store.name()
        ))
        .hint("its disk or the memory of this machine is failing"));
    }
    Ok((plain, digests))
}

fn extent(bytes: u64, sha256: &str) -> Extent {
    Extent {
        bytes,
        sha256: sha256.to_owned(),
    }
}

/// A database that has lost all its rows, a directory that has lost all its files, is backed up
/// and said so; and no older backup is deleted for it.
fn emptied(before: &Listing, now: &Manifest) -> Option<String> {
    let (new, what) = now.content.count();
    let full = |copy: &catalog::Copy| {
        let manifest = copy.manifest.as_deref().ok()?;
        let (old, _) = manifest.content.count();
        (old > 0).then(|| (old, manifest.id.clone()))
    };
    if new > 0 {
        return None;
    }
    let (old, id) = before.copies.values().rev().find_map(full)?;
    Some(format!(
        "there were {} {what} in {id}, now there are none: retention deletes nothing; \
         `rg-backup prune` does when this is as it should be",
        report::count(old)
    ))
}

/// Folder stores and our state: never part of a directory's backup.
fn ours(config: &Config) -> Vec<std::path::PathBuf> {
    let folders = config.stores.iter().filter_map(|store| match &store.place {
        StorePlace::Folder(path) => Some(path.clone()),
        StorePlace::Bucket(_) => None,
    });
    folders.chain([config.state.clone()]).collect()
}

fn since(context: &Context, began: jiff::Timestamp) -> u64 {
    (context.clock().as_second() - began.as_second())
        .max(0)
        .unsigned_abs()
}

fn conclude(context: &Context, config: &Config, ran: &Ran) -> Vec<String> {
    let mut details = Vec::new();
    for done in &ran.backups {
        details.extend(
            done.error
                .iter()
                .map(|error| format!("{}: {error}", done.dataset)),
        );
        details.extend(done.hints.iter().map(|hint| format!("hint: {hint}")));
        details.extend(
            done.warnings
                .iter()
                .map(|warning| format!("{}: {warning}", done.dataset)),
        );
    }
    let failed = ran
        .backups
        .iter()
        .filter(|done| done.error.is_some())
        .count();
    let total = ran.backups.len();
    let (event, summary) = match ran.outcome() {
        Outcome::Well => (
            Event::Success,
            format!(
                "{total} backed up on {} in {}",
                ran.host,
                report::span(ran.seconds)
            ),
        ),
        Outcome::BadNews => (
            Event::Failure,
            format!("backed up on {}, with warnings", ran.host),
        ),
        Outcome::Incomplete => (
            Event::Failure,
            format!("{failed} of {total} backups failed on {}", ran.host),
        ),
    };
    tell(context, config, event, summary, details)
}

fn tell(
    context: &Context,
    config: &Config,
    event: Event,
    summary: String,
    details: Vec<String>,
) -> Vec<String> {
    let notice = Notice {
        tool: "rg-backup".to_owned(),
        host: config.host.clone(),
        event,
        summary,
        details,
    };
    notify::tell(config, &context.network, &notice)
}

impl Report for Ran {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for done in &self.backups {
            if let Some(error) = &done.error {
                page.line(format!(
                    "{}  {}: {error}",
                    page.tone(Tone::Bad, "✗"),
                    done.dataset
                ));
                for hint in &done.hints {
                    page.line(format!("   hint: {hint}"));
                }
                continue;
            }
            let name = done.id.as_ref().unwrap_or(&done.dataset);
            let account = format!(
                "{} stored in {}, {} {}, in {}",
                report::bytes(done.stored_bytes),
                report::span(done.seconds),
                report::count(done.count),
                done.count_of,
                done.stores.join(", ")
            );
            let account = if self.dry_run {
                "everything it needs is there".to_owned()
            } else {
                account
            };
            page.line(format!("{}  {name}: {account}", page.tone(Tone::Good, "✓")));
            for pruned in &done.pruned {
                page.line(format!("   retention deleted {pruned}"));
            }
            for warning in &done.warnings {
                page.line(format!("{}  {warning}", page.tone(Tone::Warn, "⚠")));
            }
            for note in &done.notes {
                page.line(format!("   note: {note}"));
            }
        }
        for untold in &self.untold {
            page.line(format!("{}  {untold}", page.tone(Tone::Warn, "⚠")));
        }
    }

    fn outcome(&self) -> Outcome {
        match () {
            () if self.backups.iter().any(|done| done.error.is_some()) => Outcome::Incomplete,
            () if self.backups.iter().any(|done| !done.warnings.is_empty()) => Outcome::BadNews,
            () => Outcome::Well,
        }
    }
}
