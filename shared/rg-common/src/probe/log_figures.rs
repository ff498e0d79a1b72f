//! A log in figures: lines, errors, rate-limit violations, top paths, durations.
//!
//! Understands a JSON object a line in the words of common loggers, the access lines of web servers,
//! and, of any other text, whether it says ERROR. The promise: memory is bounded whatever the log
//! holds, and no message is shown with a secret that can be recognised.

mod heavy;
mod record;

use jiff::Timestamp;
use serde::Serialize;

use super::tally::Tally;
use crate::check::{Figure, Unit, Verdict};
use heavy::Heavy;
use record::Record;

/// A line is looked at up to so many bytes.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// So many paths and so many messages are shown.
pub const SHOWN: usize = 5;
/// A window is no shorter than this when a rate is made of it: one error in a second is not sixty
/// a minute.
const RATE_SECONDS_MIN: f64 = 60.0;
/// The steps of durations grow by this much: the p95 is exact to 5 %.
const STEP: f64 = 1.05;
/// The longest duration that is told apart: about a day in milliseconds, as a power of [`STEP`].
const STEPS: usize = 380;

/// One line of a log, and what is known of it from elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its text, without the end of line.
    pub text: &'a [u8],
    /// When it was written, where the journal knows; the line's own time otherwise.
    pub time: Option<Timestamp>,
    /// syslog's priority, where the journal knows: 3 is an error, less is worse.
    pub priority: Option<u8>,
}

/// Counts lines; those outside its window are left out.
#[derive(Debug)]
pub struct Counter {
    from: Timestamp,
    to: Timestamp,
    undated_count: bool,
    undated: u64,
    lines: u64,
    errors: u64,
    rate_limited: u64,
    requests: u64,
    server_errors: u64,
    durations: Vec<u64>,
    duration_sum: f64,
    duration_count: u64,
    duration_max: f64,
    paths: Heavy,
    messages: Heavy,
    limited: Heavy,
}

/// What was counted in a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogFigures {
    /// Where the window begins.
    pub from: Timestamp,
    /// Where it ends.
    pub to: Timestamp,
    /// Lines.
    pub lines: u64,
    /// Lines that tell no time, where such lines were left out: nobody knows whether they belong here.
    pub undated: u64,
    /// Lines of level ERROR or worse.
    pub errors: u64,
    /// Errors a minute over the window.
    pub errors_per_minute: f64,
    /// Requests refused for being too many: status 429, or a message that says so.
    pub rate_limited: u64,
    /// Lines with an HTTP status.
    pub requests: u64,
    /// Of these, answers of 500 and above.
    pub server_errors: u64,
    /// The mean of all durations in milliseconds; none where no line has one.
    pub mean_ms: Option<f64>,
    /// 95 of 100 were not longer, to 5 %.
    pub p95_ms: Option<f64>,
    /// The longest.
    pub max_ms: Option<f64>,
    /// The most frequent paths without their queries, numbers in them as `:id`.
    pub top_paths: Vec<Counted>,
    /// The most frequent error messages, numbers in them as `#`.
    pub top_errors: Vec<Counted>,
    /// The paths, or the messages, of rate-limit violations.
    pub top_limited: Vec<Counted>,
}

/// Something and how often it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// The path or the message.
    pub what: String,
    /// How often, at least.
    pub times: u64,
}

impl Counter {
    /// Counts what was written from then up to, and with, then. Lines that tell no time count: what
    /// is read was written since the last look.
    pub fn new(from: Timestamp, to: Timestamp) -> Counter {
        Counter {
            from,
            to,
            undated_count: true,
            undated: 0,
            lines: 0,
            errors: 0,
            rate_limited: 0,
            requests: 0,
            server_errors: 0,
            durations: vec![0; STEPS],
            duration_sum: 0.0,
            duration_count: 0,
            duration_max: 0.0,
            paths: Heavy::default(),
            messages: Heavy::default(),
            limited: Heavy::default(),
        }
    }

    /// The same, but lines that tell no time are left out: what is read may be older.
    #[must_use]
    pub fn dated_only(mut self) -> Counter {
        self.undated_count = false;
        self
    }

    /// The same counts as those of another window, which its rate is of.
    #[must_use]
    pub fn over(mut self, from: Timestamp, to: Timestamp) -> Counter {
        (self.from, self.to) = (from, to);
        self
    }

    /// Counts a line.
    pub fn add(&mut self, line: Line<'_>) {
        let text = &line.text[..line.text.len().min(LINE_BYTES_MAX)];
        if text.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let record = Record::of(text, line.priority);
        let time = line.time.or(record.time);
        if time.is_some_and(|time| time < self.from || time > self.to) {
            return;
        }
        if time.is_none() && !self.undated_count {
            self.undated += 1;
            return;
        }
        self.lines += 1;
        let path = record.path.as_deref().map(record::path_shown);
        if record.status.is_some() {
            self.requests += 1;
            if let Some(path) = &path {
                self.paths.add(path);
            }
        }
        if record.status.is_some_and(|status| status >= 500) {
            self.server_errors += 1;
        }
        if record.is_error {
            self.errors += 1;
            self.messages.add(&record::message_shown(&record.message));
        }
        if record.is_rate_limited {
            self.rate_limited += 1;
            let shown = path.unwrap_or_else(|| record::message_shown(&record.message));
            self.limited.add(&shown);
        }
        if let Some(ms) = record.duration_ms {
            self.duration_sum += ms;
            self.duration_count += 1;
            self.duration_max = self.duration_max.max(ms);
            self.durations[step(ms)] += 1;
        }
    }

    /// What was counted.
    pub fn figures(&self) -> LogFigures {
        let seconds = self.to.duration_since(self.from).as_secs_f64();
        let minutes = seconds.max(RATE_SECONDS_MIN) / 60.0;
        let any = self.duration_count > 0;
        LogFigures {
            from: self.from,
            to: self.to,
            lines: self.lines,
            undated: self.undated,
            errors: self.errors,
            errors_per_minute: self.errors as f64 / minutes,
            rate_limited: self.rate_limited,
            requests: self.requests,
            server_errors: self.server_errors,
            mean_ms: any.then(|| self.duration_sum / self.duration_count as f64),
            p95_ms: any.then(|| self.p95()),
            max_ms: any.then_some(self.duration_max),
            top_paths: self.paths.top(SHOWN),
            top_errors: self.messages.top(SHOWN),
            top_limited: self.limited.top(SHOWN),
        }
    }

    fn p95(&self) -> f64 {
        let wanted = (self.duration_count * 95).div_ceil(100);
        let mut seen = 0;
        for (at, count) in self.durations.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return bound(at).min(self.duration_max);
            }
        }
        self.duration_max
    }
}

/// Steps begin at a hundredth of a millisecond.
fn step(ms: f64) -> usize {
    let steps = (ms.max(0.01) / 0.01).ln() / STEP.ln();
    (steps.ceil() as usize).min(STEPS - 1)
}

fn bound(step: usize) -> f64 {
    0.01 * STEP.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

/// Judges a log's window by its errors a minute: more than `max` are a failure. `missing` says what
/// of the log could not be read, where something could not.
pub fn judge(figures: &LogFigures, max: f64, missing: Option<&str>, show: &str) -> Verdict {
    let mut tally = Tally::default();
    let rate = Figure::new(
        "errors_per_minute",
        round(figures.errors_per_minute),
        Unit::Count,
    );
    tally.figure(rate.bounds(None, Some(max)));
    for (name, value) in [
        ("lines", figures.lines),
        ("errors", figures.errors),
        ("rate_limited", figures.rate_limited),
        ("requests", figures.requests),
        ("server_errors", figures.server_errors),
    ] {
        tally.figure(Figure::new(name, value as f64, Unit::Count));
    }
    for (name, value) in [("mean", figures.mean_ms), ("p95", figures.p95_ms)] {
        if let Some(ms) = value {
            tally.figure(Figure::new(name, round(ms) / 1000.0, Unit::Seconds));
        }
    }
    let said = format!(
        "{} of {} are errors: {:.1} a minute",
        figures.errors,
        lines(figures.lines),
        figures.errors_per_minute
    );
    if figures.errors_per_minute > max {
        tally.fail(format!("{said}, more than {max}"), show);
    }
    if let Some(missing) = missing {
        tally.warn(missing, show);
    }
    let evidence: Vec<String> = figures
        .top_errors
        .iter()
        .map(|counted| format!("{} × {}", counted.times, counted.what))
        .collect();
    let verdict = tally.settle(if figures.lines == 0 {
        "no line was logged".to_owned()
    } else {
        said
    });
    verdict.evidence(evidence)
}

fn lines(n: u64) -> String {
    if n == 1 {
        "1 line".to_owned()
    } else {
        format!("{n} lines")
    }
}

fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests;
