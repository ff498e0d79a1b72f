//! What can be restored, the newest last.

use rg_common::Result;
use rg_common::catalog::Copy;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

use crate::args::List;
use crate::{choose, journal};

#[derive(Serialize)]
struct Restorable {
    backups: Vec<Row>,
    /// What `undo` can put back.
    undoable: Vec<Undoable>,
    /// A restore that was interrupted during its exchange.
    interrupted: Option<String>,
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    age_seconds: i64,
    plain_bytes: u64,
    count: u64,
    count_of: &'static str,
    verified: &'static str,
    encrypted: bool,
    stores: Vec<String>,
    sound: bool,
}

#[derive(Serialize)]
struct Undoable {
    dataset: String,
    replaced_at: String,
    kept: String,
}

/// Lists the backups of all stores.
pub fn list(context: &Context, args: &List) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let catalog = choose::read(&config, None)?;
    let mut rows = Vec::new();
    for entry in &catalog.entries {
        let wanted = args.datasets.is_empty()
            || args
                .datasets
                .iter()
                .any(|s| entry.id.dataset.is_selected_by(s));
        let Some(manifest) = entry.manifest().filter(|_| wanted) else {
            continue;
        };
        let sound: Vec<&Copy> = entry.copies.iter().filter(|copy| copy.is_sound()).collect();
        let (count, count_of) = manifest.content.count();
        rows.push(Row {
            id: entry.id.to_string(),
            age_seconds: context.now.as_second() - entry.id.stamp.time().as_second(),
            plain_bytes: manifest.plain.bytes,
            count,
            count_of,
            verified: match () {
                () if sound.is_empty() => "damaged",
                () if sound.iter().any(|copy| copy.proof.drilled.is_some()) => "drilled",
                () if sound.iter().any(|copy| copy.proof.verified.is_some()) => "verified",
                () => "not yet",
            },
            encrypted: !manifest.encrypted_to.is_empty(),
            stores: entry.copies.iter().map(|copy| copy.store.clone()).collect(),
            sound: !sound.is_empty(),
        });
    }
    let mut undoable = Vec::new();
    for journal in journal::undoable(&config)? {
        for part in &journal.parts {
            let kept = part
                .kept()
                .unwrap_or_else(|| "nothing was there".to_owned());
            undoable.push(Undoable {
                dataset: part.dataset().to_string(),
                replaced_at: journal.stamp.to_string(),
                kept,
            });
        }
    }
    let interrupted = journal::pending(&config)?.map(|journal| journal.stamp.to_string());
    Ok(Box::new(Restorable {
        backups: rows,
        undoable,
        interrupted,
        unreadable: catalog.unreadable,
    }))
}

impl Report for Restorable {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let row = |row: &Row| {
            let tone = match row.verified {
                "damaged" => Tone::Bad,
                "not yet" => Tone::Plain,
                _ => Tone::Good,
            };
            let verified = if row.encrypted {
                format!("{}, encrypted", row.verified)
            } else {
                row.verified.to_owned()
            };
            vec![
                (Tone::Plain, row.id.clone()),
                (
                    Tone::Plain,
                    report::span(row.age_seconds.max(0).unsigned_abs()),
                ),
                (Tone::Plain, report::bytes(row.plain_bytes)),
                (Tone::Plain, report::counted(row.count, row.count_of)),
                (Tone::Plain, row.stores.join(", ")),
                (tone, verified),
            ]
        };
        let rows: Vec<_> = self.backups.iter().map(row).collect();
        page.table(
            &["ID", "AGE", "SIZE", "CONTENT", "STORES", "VERIFIED"],
            &rows,
        );
        if rows.is_empty() {
            page.line("nothing to restore yet; `rg-backup run` makes the first backup");
        }
        for undoable in &self.undoable {
            page.line(format!(
                "rg-restore undo {}: puts back what was replaced at {} ({})",
                undoable.dataset, undoable.replaced_at, undoable.kept
            ));
        }
        if let Some(stamp) = &self.interrupted {
            let sign = page.tone(Tone::Bad, "✗");
            page.line(format!("{sign}  the restore {stamp} was interrupted; the next `rg-restore run`, `undo` or `drill` finishes it"));
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
