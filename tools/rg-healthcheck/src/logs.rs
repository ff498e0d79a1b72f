//! `logs`: what the apps' logs say of a window: errors and their rate, rate limits, paths, durations.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rg_common::cli::Context;
use rg_common::config::LogPlace;
use rg_common::probe::journal::Journal;
use rg_common::probe::log;
use rg_common::probe::log_figures::{Counted, LogFigures};
use rg_common::report::{Outcome, Page, Report, count, span, with_hints};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::{args, report};

#[derive(Serialize)]
struct Logs {
    from: Timestamp,
    to: Timestamp,
    logs: Vec<One>,
}

#[derive(Serialize)]
struct One {
    environment: String,
    log: String,
    #[serde(flatten)]
    figures: Option<LogFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Counts. A log that cannot be read is said, and the exit code is 2.
pub fn logs(context: &Context, args: &args::Logs) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    for name in &args.environments {
        report::known(&config, name)?;
    }
    let back = signed(args.last)?;
    let from = context
        .now
        .checked_sub(back)
        .or_fail(|| "the window begins before the calendar".to_owned())?;
    let journal = Journal::default();
    let mut logs = Vec::new();
    for environment in &config.environments {
        let wanted = args.environments.is_empty() || args.environments.contains(&environment.name);
        let Some(place) = environment.app.log.as_ref().filter(|_| wanted) else {
            continue;
        };
        let outcome = log::window(place, from, context.now, &journal);
        logs.push(One {
            environment: environment.name.clone(),
            log: match place {
                LogPlace::Unit(unit) => format!("the journal of {unit}"),
                LogPlace::File(path) => path.display().to_string(),
            },
            error: outcome.as_ref().err().map(with_hints),
            figures: outcome.ok(),
        });
    }
    if logs.is_empty() {
        return Err(Failure::new("no log is configured")
            .hint("add log = { unit = \"…\" } or { file = \"…\" } to [environments.NAME.app]"));
    }
    Ok(Box::new(Logs {
        from,
        to: context.now,
        logs,
    }))
}

fn signed(span: Duration) -> Result<SignedDuration> {
    SignedDuration::try_from(span).or_fail(|| "the window is too long".to_owned())
}

impl Report for Logs {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let seconds = self
            .to
            .duration_since(self.from)
            .as_secs()
            .max(0)
            .unsigned_abs();
        for one in &self.logs {
            page.line(format!(
                "{}: {}, the last {}",
                one.environment,
                one.log,
                span(seconds)
            ));
            if let Some(error) = &one.error {
                page.line(format!("  cannot be read: {error}"));
            }
            if let Some(figures) = &one.figures {
                lines(figures, page);
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match self.logs.iter().any(|one| one.error.is_some()) {
            true => Outcome::Incomplete,
            false => Outcome::Well,
        }
    }
}

fn lines(figures: &LogFigures, page: &mut Page) {
    page.line(format!("  {} lines", count(figures.lines)));
    page.line(format!(
        "  {} errors, {:.2} a minute",
        count(figures.errors),
        figures.errors_per_minute
    ));
    page.line(format!(
        "  {} rate-limit violations",
        count(figures.rate_limited)
    ));
    if let (Some(mean), Some(p95)) = (figures.mean_ms, figures.p95_ms) {
        page.line(format!("  {mean:.1} ms a request, 95 % within {p95:.1} ms"));
    }
    top("paths", &figures.top_paths, page);
    top("rate-limit violations", &figures.top_limited, page);
    top("errors", &figures.top_errors, page);
}

fn top(what: &str, counted: &[Counted], page: &mut Page) {
    if counted.is_empty() {
        return;
    }
    page.line(format!("  most of the {what}:"));
    for one in counted {
        page.line(format!("  {:>8}  {}", count(one.times), one.what));
    }
}
