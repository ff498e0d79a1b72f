//! What a run of backups has to say: on paper, and to those who are told.

use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::notify::{self, Event, Notice};
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Ran {
    pub(super) host: String,
    pub(super) dry_run: bool,
    pub(super) seconds: u64,
    pub(super) backups: Vec<Done>,
    /// Channels that could not be told.
    pub(super) untold: Vec<String>,
}

#[derive(Default, Serialize)]
pub(super) struct Done {
    pub(super) dataset: String,
    pub(super) id: Option<String>,
    pub(super) error: Option<String>,
    pub(super) hints: Vec<String>,
    pub(super) plain_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) seconds: u64,
    pub(super) count: u64,
    pub(super) count_of: &'static str,
    pub(super) stores: Vec<String>,
    pub(super) pruned: Vec<String>,
    /// Done, but look: a store that was down, a file that changed.
    pub(super) warnings: Vec<String>,
    pub(super) notes: Vec<String>,
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
                "{} stored in {}, {}, in {}",
                report::bytes(done.stored_bytes),
                report::span(done.seconds),
                report::counted(done.count, done.count_of),
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

pub(super) fn conclude(context: &Context, config: &Config, ran: &Ran) -> Vec<String> {
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
        // A backup speaks no plugin protocol: the second is for completeness.
        Outcome::Incomplete | Outcome::Plugin(_) => (
            Event::Failure,
            format!(
                "{failed} of {} failed on {}",
                report::counted(total, "backups"),
                ran.host
            ),
        ),
    };
    tell(context, config, event, summary, details)
}

pub(super) fn tell(
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
