//! The catalog, for people and scripts.

use rg_common::catalog::{self, Entry};
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::{Result, store};
use serde::Serialize;

use crate::args::List;

#[derive(Serialize)]
struct Catalog {
    backups: Vec<Row>,
    /// Files in a store that belong to no backup.
    strangers: Vec<String>,
    /// Stores that could not be read in full.
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    dataset: String,
    age_seconds: i64,
    plain_bytes: Option<u64>,
    stored_bytes: Option<u64>,
    count: Option<u64>,
    count_of: Option<&'static str>,
    encrypted: bool,
    pinned: bool,
    stores: Vec<String>,
    /// `drilled`, `verified`, `recorded` or `damaged`.
    proof: &'static str,
    trouble: Vec<String>,
}

/// Lists what all stores hold. A store that cannot be read makes the list incomplete: exit 2.
pub fn list(context: &Context, args: &List) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut listings = Vec::new();
    let mut catalog = Catalog {
        backups: Vec::new(),
        strangers: Vec::new(),
        unreadable: Vec::new(),
    };
    for named in &config.stores {
        match store::open_named(&config, &named.name).and_then(|store| catalog::read(&*store, None))
        {
            Ok(listing) => {
                catalog.strangers.extend(
                    listing
                        .strangers
                        .iter()
                        .map(|key| format!("{}: {key}", named.name)),
                );
                listings.push(listing);
            }
            Err(failure) => catalog.unreadable.push(report::with_hints(&failure)),
        }
    }
    let wanted = |entry: &Entry| {
        args.datasets.is_empty()
            || args
                .datasets
                .iter()
                .any(|s| entry.id.dataset.is_selected_by(s))
    };
    let entries = catalog::merge(listings);
    // A dataset that is configured no longer is listed as long as a store has backups of it.
    for word in &args.datasets {
        if !entries
            .iter()
            .any(|entry| entry.id.dataset.is_selected_by(word))
        {
            config.select(std::slice::from_ref(word))?;
        }
    }
    catalog.backups = entries
        .iter()
        .filter(|e| wanted(e))
        .map(|e| row(context, e))
        .collect();
    Ok(Box::new(catalog))
}

fn row(context: &Context, entry: &Entry) -> Row {
    let manifest = entry.manifest();
    let count = manifest.map(|m| m.content.count());
    let mut trouble = Vec::new();
    for copy in &entry.copies {
        let what = copy.manifest.as_ref().err().or(copy.trouble.as_ref());
        let found = [&copy.proof.verified, &copy.proof.drilled]
            .into_iter()
            .flatten()
            .find(|f| !f.good)
            .map(|f| &f.said);
        let what = what.or(found).or(copy.lacks.as_ref());
        trouble.extend(what.map(|what| format!("{}: {what}", copy.store)));
    }
    let sound = || entry.copies.iter().filter(|copy| copy.is_sound());
    let proof = match () {
        () if sound().next().is_none() => "damaged",
        () if sound().any(|copy| copy.proof.drilled.is_some()) => "drilled",
        () if sound().any(|copy| copy.proof.verified.is_some()) => "verified",
        () => "recorded",
    };
    Row {
        id: entry.id.to_string(),
        dataset: entry.id.dataset.to_string(),
        age_seconds: context.now.as_second() - entry.id.stamp.time().as_second(),
        plain_bytes: manifest.map(|m| m.plain.bytes),
        stored_bytes: manifest.map(|m| m.stored.bytes),
        count: count.map(|c| c.0),
        count_of: count.map(|c| c.1),
        encrypted: manifest.is_some_and(|m| !m.encrypted_to.is_empty()),
        pinned: entry.copies.iter().any(|copy| copy.pinned),
        stores: entry.copies.iter().map(|copy| copy.store.clone()).collect(),
        proof,
        trouble,
    }
}

impl Report for Catalog {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let rows: Vec<Vec<(Tone, String)>> = self.backups.iter().map(cells).collect();
        page.table(
            &["ID", "AGE", "STORED", "CONTENT", "STORES", "PROOF"],
            &rows,
        );
        if rows.is_empty() && self.unreadable.is_empty() {
            page.line("no backups yet; `rg-backup run` makes the first");
        }
        for row in &self.backups {
            for trouble in &row.trouble {
                page.line(format!(
                    "{}  {}: {trouble}",
                    page.tone(Tone::Bad, "✗"),
                    row.id
                ));
            }
        }
        for stranger in &self.strangers {
            let sign = page.tone(Tone::Warn, "⚠");
            page.line(format!(
                "{sign}  {stranger} belongs to no backup (`rg-backup adopt` takes old dumps)"
            ));
        }
        for store in &self.unreadable {
            page.line(format!("{}  {store}", page.tone(Tone::Bad, "✗")));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.unreadable.is_empty() {
            Outcome::Well
        } else {
            Outcome::Incomplete
        }
    }
}

fn cells(row: &Row) -> Vec<(Tone, String)> {
    let content = row.count.map_or("?".to_owned(), |n| {
        report::counted(n, row.count_of.unwrap_or_default())
    });
    let proof_tone = match row.proof {
        "damaged" => Tone::Bad,
        "recorded" => Tone::Plain,
        _ => Tone::Good,
    };
    let mut proof = row.proof.to_owned();
    for (flag, word) in [(row.pinned, "pinned"), (row.encrypted, "encrypted")] {
        if flag {
            proof = format!("{proof}, {word}");
        }
    }
    vec![
        (Tone::Plain, row.id.clone()),
        (
            Tone::Plain,
            report::span(row.age_seconds.max(0).unsigned_abs()),
        ),
        (
            Tone::Plain,
            row.stored_bytes.map_or("?".to_owned(), report::bytes),
        ),
        (Tone::Plain, content),
        (Tone::Plain, row.stores.join(", ")),
        (proof_tone, proof),
    ]
}
