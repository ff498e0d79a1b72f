//! `status`: what is known without checking. It waits for no run that is under way.

use jiff::Timestamp;
use rg_common::Result;
use rg_common::check::State;
use rg_common::cli::Context;
use rg_common::report::{Outcome, Page, Report, Tone, span};
use serde::Serialize;

use crate::alert::{self, ChannelStatus, OpenIncident};
use crate::history::{History, Uptime};
use crate::silence::{self, Silence};
use crate::{args, report, state};

/// A round is late when the last one is older than this: three times the timer's five minutes.
const LATE_S: i64 = 900;

#[derive(Serialize)]
struct Known {
    at: Timestamp,
    last_run: Option<Timestamp>,
    late: bool,
    checks: Vec<Check>,
    open: Vec<OpenIncident>,
    silences: Vec<Silence>,
    channels: Vec<ChannelStatus>,
}

#[derive(Serialize)]
struct Check {
    id: String,
    state: State,
    found: String,
    seen: Timestamp,
    uptime_7d: Uptime,
    uptime_7d_percent: Option<f64>,
}

/// Shows it.
pub fn status(context: &Context, args: &args::Status) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    for name in &args.environments {
        report::known(&config, name)?;
    }
    state::make_folder(&config.state)?;
    let history = History::open(&state::folder(&config.state))?;
    let status = alert::status(&config.state)?;
    let wanted = |id: &str| {
        let of = |name: &String| {
            id.strip_prefix(name.as_str())
                .is_some_and(|r| r.starts_with('/'))
        };
        args.environments.is_empty() || args.environments.iter().any(of)
    };
    let week = context.now - jiff::SignedDuration::from_hours(7 * 24);
    let mut checks = Vec::new();
    for (id, state, seen, found) in history.last()? {
        if wanted(&id) {
            let uptime = history.uptime(&id, week)?;
            checks.push(Check {
                uptime_7d_percent: uptime.percent(),
                uptime_7d: uptime,
                id,
                state,
                found,
                seen,
            });
        }
    }
    let age = status
        .last_run
        .map(|at| context.now.duration_since(at).as_secs());
    Ok(Box::new(Known {
        at: context.now,
        last_run: status.last_run,
        late: age.is_none_or(|age| age > LATE_S),
        checks,
        open: status
            .open
            .into_iter()
            .filter(|open| wanted(&open.check))
            .collect(),
        silences: silence::list(&config.state, context.now)?,
        channels: status.channels,
    }))
}

impl Known {
    fn ago(&self, at: Timestamp) -> String {
        span(self.at.duration_since(at).as_secs().max(0).unsigned_abs())
    }
}

impl Report for Known {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let rows: Vec<Vec<(Tone, String)>> = self
            .checks
            .iter()
            .map(|check| {
                let tone = match check.state {
                    State::Pass => Tone::Good,
                    State::Skip => Tone::Faint,
                    State::Warn | State::Unknown => Tone::Warn,
                    State::Fail => Tone::Bad,
                };
                let percent = check.uptime_7d_percent;
                vec![
                    (tone, check.state.word().to_owned()),
                    (Tone::Plain, check.id.clone()),
                    (
                        Tone::Plain,
                        percent.map_or("–".to_owned(), |p| format!("{p:.2} %")),
                    ),
                    (Tone::Faint, self.ago(check.seen)),
                ]
            })
            .collect();
        page.table(&["STATE", "CHECK", "7 DAYS", "SEEN AGO"], &rows);
        for open in &self.open {
            let told = open.told.map_or("nobody was told".to_owned(), |at| {
                format!("told {} ago", self.ago(at))
            });
            let since = self.ago(open.opened);
            let line = format!("{} {} for {since}, {told}", open.state.word(), open.check);
            page.line(page.tone(Tone::Bad, &line));
        }
        for silence in &self.silences {
            page.line(silence_line(silence));
        }
        for channel in self.channels.iter().filter(|channel| channel.waiting > 0) {
            page.line(format!(
                "{} messages wait for `{}`",
                channel.waiting, channel.name
            ));
        }
        match self.last_run {
            None => page.line("no round has been run yet: rg-healthcheck run"),
            Some(at) if self.late => page.line(page.tone(
                Tone::Bad,
                &format!("the last round was {} ago: is the timer on?", self.ago(at)),
            )),
            Some(at) => page.line(format!("last round {} ago", self.ago(at))),
        }
    }

    fn outcome(&self) -> Outcome {
        let failed = self.checks.iter().any(|check| check.state == State::Fail);
        match (failed, self.late) {
            // What was known long ago says nothing of now.
            (_, true) => Outcome::Incomplete,
            (true, false) => Outcome::BadNews,
            (false, false) => Outcome::Well,
        }
    }
}

/// One silence for people.
pub fn silence_line(silence: &Silence) -> String {
    let what = match silence.what.is_empty() {
        true => "everything".to_owned(),
        false => silence.what.join(", "),
    };
    format!(
        "silence over {what} until {:.0} by {}: {}",
        silence.until, silence.who, silence.reason
    )
}
