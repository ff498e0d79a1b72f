//! What a restore has to say.

use rg_common::Failure;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Restored {
    pub(super) dry_run: bool,
    pub(super) seconds: u64,
    pub(super) parts: Vec<Done>,
    pub(super) notes: Vec<String>,
}

/// One dataset that was restored.
#[derive(Serialize)]
pub struct Done {
    /// Its name.
    pub dataset: String,
    /// The backup.
    pub from: String,
    /// Where it is now.
    pub into: String,
    /// What was replaced and where it is kept.
    pub kept: Option<String>,
    /// Rows, files, roles.
    pub count: u64,
    /// Which of them.
    pub count_of: &'static str,
}

impl Report for Restored {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for done in &self.parts {
            let figures = report::counted(done.count, done.count_of);
            let line = if self.dry_run {
                format!(
                    "would restore {} from {} into {} ({figures})",
                    done.dataset, done.from, done.into
                )
            } else {
                format!(
                    "{} is restored from {} into {}: {figures}, compared",
                    done.dataset, done.from, done.into
                )
            };
            page.line(format!("{}  {line}", page.tone(Tone::Good, "✓")));
            if let Some(kept) = &done.kept {
                page.line(format!(
                    "   what was replaced is {kept}; `rg-restore undo {}` puts it back",
                    done.dataset
                ));
            }
        }
        for note in &self.notes {
            page.line(format!("{}  {note}", page.tone(Tone::Warn, "⚠")));
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}

/// A failure in one environment does not hide what was restored before it.
pub(super) fn already(failure: Failure, restored: &Restored) -> Failure {
    let done: Vec<&str> = restored.parts.iter().map(|part| &*part.dataset).collect();
    if done.is_empty() || restored.dry_run {
        return failure;
    }
    failure.hint(format!(
        "restored before that, and left so: {}",
        done.join(", ")
    ))
}
