//! `rg-backup run`: dump, seal, store, read back, record, copy, retain, tell.

mod account;
mod write;

use rg_common::catalog::manifest::Need;
use rg_common::catalog::{self, Listing, Manifest};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig, StorePlace};
use rg_common::dataset::{self, Request};
use rg_common::names::{BackupId, Stamp};
use rg_common::notify::Event;
use rg_common::postgres::Connector;
use rg_common::report::{self, Report};
use rg_common::stop;
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};

use crate::args::Run;
use crate::prune;
use account::{Done, Ran, conclude, tell};
use write::write;

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
    let mut request = Request {
        config,
        dataset,
        connector: &connector,
        network: context.network.clone(),
        snapshot: args.snapshot.as_deref(),
        ours: ours(config),
        now: context.clock(),
        stamp: Stamp::at(context.clock()),
        earlier: Vec::new(),
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
        request.stamp = stamp;
        request.earlier = earlier(&listing);
        let dump = dataset::dump(&request)?;
        catalog::begin(&*first, &id)?;
        let written = write(
            context, config, dataset, &*first, &recipe, &id, dump, expected,
        )
        .and_then(|(manifest, recorded)| {
            catalog::record(&*first, &manifest).map(|()| (manifest, recorded))
        });
        let manifest = match written {
            Ok((manifest, recorded)) => {
                if let Some(Err(failure)) = recorded.map(|recorded| recorded()) {
                    tracing::warn!("the next backup reads everything again: {failure}");
                }
                manifest
            }
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
        "recorded {id}, {} in {}, {}",
        report::bytes(done.stored_bytes),
        report::span(done.seconds),
        report::counted(done.count, done.count_of)
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

/// The backups of a dataset whose files in a store can be relied on.
fn earlier(listing: &Listing) -> Vec<Need> {
    let sound = listing.copies.iter().filter(|(_, copy)| copy.is_intact());
    let need = |(id, copy): (&BackupId, &catalog::Copy)| {
        let manifest = copy.manifest.as_deref().ok()?;
        Some(Need {
            stamp: id.stamp,
            file: manifest.file.clone(),
        })
    };
    sound.filter_map(need).collect()
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
    let were = if old == 1 { "was" } else { "were" };
    Some(format!(
        "there {were} {} in {id}, now there are none: retention deletes nothing; \
         `rg-backup prune` does when this is as it should be",
        report::counted(old, what)
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
