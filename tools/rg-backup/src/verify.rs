//! Re-reading what lies in the stores: every stored byte against its digest and, where it can be
//! read here, the content through decryption and decompression against the digest of the dump.

use std::io::Read;

use rg_common::catalog::{self, Copy, Entry, Extent, Finding, Manifest, Need};
use rg_common::cli::Context;
use rg_common::names::BackupId;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::seal::{self, Identities};
use rg_common::stop::Stoppable;
use rg_common::store::{self, Store};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::Verify;
use rg_common::progress::Progress;

#[derive(Serialize)]
struct Verified {
    copies: Vec<Look>,
    unreadable: Vec<String>,
    /// Findings that a store could not take: full, or read-only.
    unrecorded: Vec<String>,
}

#[derive(Serialize)]
struct Look {
    id: String,
    store: String,
    good: bool,
    /// Whether the content was read too, not only the stored bytes.
    content: bool,
    bytes: u64,
    seconds: u64,
    said: String,
}

/// Verifies the chosen backups in all their stores.
pub fn verify(context: &Context, args: &Verify) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let identities = args
        .identity
        .as_deref()
        .map(Identities::from_file)
        .transpose()?;
    let mut verified = Verified {
        copies: Vec::new(),
        unreadable: Vec::new(),
        unrecorded: Vec::new(),
    };
    let mut stores: Vec<Box<dyn Store>> = Vec::new();
    let mut listings = Vec::new();
    if let Some(name) = &args.store {
        store::open_named(&config, name)?;
    }
    for named in config
        .stores
        .iter()
        .filter(|s| args.store.as_ref().is_none_or(|name| s.name == *name))
    {
        match store::open_named(&config, &named.name)
            .and_then(|store| Ok((catalog::read(&*store, None)?, store)))
        {
            Ok((listing, store)) => {
                listings.push(listing);
                stores.push(store);
            }
            Err(failure) => verified.unreadable.push(failure.to_string()),
        }
    }
    let entries = catalog::merge(listings);
    for entry in choose(&entries, args)? {
        for copy in &entry.copies {
            let Some(store) = stores.iter().find(|store| store.name() == copy.store) else {
                continue;
            };
            let look = match look(context, &**store, &entry.id, copy, identities.as_ref())? {
                Ok(look) => look,
                Err(failure) => {
                    verified.unreadable.push(report::with_hints(
                        &failure.context(format!("{} in {}", entry.id, copy.store)),
                    ));
                    continue;
                }
            };
            if !args.dry_run {
                match write_down(context, &**store, &entry.id, &look) {
                    Ok(true) => {}
                    // Retention was quicker: there is nothing to speak of.
                    Ok(false) => continue,
                    Err(failure) => verified.unrecorded.push(format!(
                        "{}: the finding was not recorded: {failure}",
                        entry.id
                    )),
                }
            }
            verified.copies.push(look);
        }
    }
    Ok(Box::new(verified))
}

fn choose<'a>(entries: &'a [Entry], args: &Verify) -> Result<Vec<&'a Entry>> {
    if !args.ids.is_empty() {
        let find = |id: &BackupId| {
            entries.iter().find(|entry| entry.id == *id).ok_or_else(|| {
                Failure::new(format!("no backup {id} in the stores that could be read"))
                    .hint("`rg-backup list` shows what there is")
            })
        };
        return args.ids.iter().map(find).collect();
    }
    let newest = |entry: &&Entry| {
        args.all
            || entries.iter().all(|other| {
                other.id.dataset != entry.id.dataset || other.id.stamp <= entry.id.stamp
            })
    };
    let mut chosen: Vec<&Entry> = entries.iter().filter(newest).collect();
    // What the newest cannot be restored without is as good as part of it.
    let needed = |entry: &&Entry| {
        let needs_it = |other: &&Entry| {
            let needs = other.manifest().map(|manifest| manifest.content.needs());
            let is_it = |need: &Need| need.stamp == entry.id.stamp;
            other.id.dataset == entry.id.dataset && needs.is_some_and(|n| n.iter().any(is_it))
        };
        chosen.iter().any(needs_it) && !chosen.iter().any(|other| other.id == entry.id)
    };
    let needed: Vec<&Entry> = entries.iter().filter(needed).collect();
    chosen.splice(0..0, needed);
    if chosen.is_empty() {
        return Err(
            Failure::new("there is no backup to verify").hint("`rg-backup run` makes the first")
        );
    }
    Ok(chosen)
}

/// What was found; inside an error when the key does not open what is as it was recorded: that
/// says nothing about the backup.
fn look(
    context: &Context,
    store: &dyn Store,
    id: &BackupId,
    copy: &Copy,
    identities: Option<&Identities>,
) -> Result<Result<Look>> {
    let began = context.clock();
    let (found, content, bytes) = match &copy.manifest {
        Err(why) => (Err(Failure::new(why.clone())), false, 0),
        Ok(_) if copy.lacks.is_some() => {
            let lacks = copy.lacks.clone().unwrap_or_default();
            (Err(Failure::new(lacks)), false, 0)
        }
        Ok(manifest) => {
            let readable = manifest.encrypted_to.is_empty() || identities.is_some();
            (
                read_all(context, store, manifest, readable, identities),
                readable,
                manifest.stored.bytes,
            )
        }
    };
    rg_common::stop::check()?;
    let found = match (found, &copy.manifest) {
        (Err(failure), Ok(manifest))
            if content
                && !manifest.encrypted_to.is_empty()
                && catalog::check_stored(store, manifest).is_ok() =>
        {
            return Ok(Err(failure));
        }
        (found, _) => found,
    };
    let seconds = context.clock().as_second() - began.as_second();
    let said = match &found {
        Ok(()) if content => "every byte and the content are as recorded".to_owned(),
        Ok(()) => {
            "every stored byte is as recorded; the content is encrypted (--identity FILE reads it)"
                .to_owned()
        }
        Err(failure) => failure.to_string(),
    };
    Ok(Ok(Look {
        id: id.to_string(),
        store: store.name().to_owned(),
        good: found.is_ok(),
        content,
        bytes,
        seconds: seconds.max(0).unsigned_abs(),
        said,
    }))
}

/// Records what was found beside the backup; false when that has been deleted meanwhile.
fn write_down(context: &Context, store: &dyn Store, id: &BackupId, look: &Look) -> Result<bool> {
    let finding = Finding {
        at: context.clock(),
        good: look.good,
        seconds: look.seconds,
        said: look.said.clone(),
    };
    let _lock = store.lock(id.dataset.as_str())?;
    if !catalog::exists(store, id)? {
        return Ok(false);
    }
    catalog::write_proof(store, id, |proof| proof.verified = Some(finding))?;
    Ok(true)
}

fn read_all(
    context: &Context,
    store: &dyn Store,
    manifest: &Manifest,
    readable: bool,
    identities: Option<&Identities>,
) -> Result<()> {
    let mut parts = vec![(&manifest.file, &manifest.plain, &manifest.stored)];
    let list = manifest.content.list();
    parts.extend(list.map(|list| (&list.file, &list.plain, &list.stored)));
    for (file, plain, stored) in parts {
        let key = catalog::beside(&manifest.id, file)?;
        let reader = store.get(&key)?;
        let reader = Progress::new(context, file, Some(stored.bytes), Stoppable(reader));
        if readable {
            content(reader, file, plain, stored, identities)?;
        } else {
            let (bytes, sha256) = seal::stored_digest(reader)?;
            compare(file, "stored", stored, bytes, &sha256)?;
        }
    }
    Ok(())
}

fn content(
    reader: impl Read,
    file: &str,
    plain: &Extent,
    stored: &Extent,
    identities: Option<&Identities>,
) -> Result<()> {
    let what = || format!("cannot read {file}");
    let named = |failure: Failure| failure.context(what());
    let mut opener = seal::open(reader, file, identities).map_err(named)?;
    std::io::copy(&mut opener, &mut std::io::sink())
        .map_err(|error| Failure::because(what(), error))?;
    let (_, found) = opener.finish().map_err(named)?;
    compare(
        file,
        "stored",
        stored,
        found.stored_bytes,
        &found.stored_sha256,
    )?;
    compare(file, "plain", plain, found.plain_bytes, &found.plain_sha256)
}

fn compare(file: &str, which: &str, recorded: &Extent, bytes: u64, sha256: &str) -> Result<()> {
    if (bytes, sha256) == (recorded.bytes, recorded.sha256.as_str()) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{file} is damaged: {bytes} {which} bytes with SHA-256 {sha256}, recorded were {} with {}",
        recorded.bytes, recorded.sha256
    )))
}

impl Report for Verified {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for look in &self.copies {
            let sign = if look.good {
                page.tone(Tone::Good, "✓")
            } else {
                page.tone(Tone::Bad, "✗")
            };
            let size = report::bytes(look.bytes);
            page.line(format!(
                "{sign}  {} in {} ({size}, {}): {}",
                look.id,
                look.store,
                report::span(look.seconds),
                look.said
            ));
        }
        for trouble in self.unreadable.iter().chain(&self.unrecorded) {
            page.line(format!("{}  {trouble}", page.tone(Tone::Bad, "✗")));
        }
        if self.copies.iter().any(|look| !look.good) {
            page.line(
                "hint: a sound copy in another store replaces a damaged one by `rg-backup sync`",
            );
        }
    }

    fn outcome(&self) -> Outcome {
        match () {
            () if self.copies.iter().any(|look| !look.good) => Outcome::BadNews,
            () if !self.unreadable.is_empty() || !self.unrecorded.is_empty() => Outcome::Incomplete,
            () => Outcome::Well,
        }
    }
}
