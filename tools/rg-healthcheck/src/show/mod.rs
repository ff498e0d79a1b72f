//! What a round found, in the four forms in which it is wanted.
//!
//! The exit code comes from the findings alone, never from the form; the one exception is the
//! plugin protocol, whose codes are its own.

mod human;
mod nagios;
mod prometheus;

use rg_common::check::{Finding, State};
use rg_common::report::{Outcome, Page, Report};
use serde::Serialize;

use crate::args::Format;
pub use nagios::failed as nagios_failed;

/// A whole round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The machine.
    pub host: String,
    /// When it began, RFC 3339.
    pub at: jiff::Timestamp,
    /// How long it took.
    pub took_ms: u64,
    /// What was found, in the order of the plan.
    pub findings: Vec<Finding>,
    /// What went wrong beside the checks: the history, the state, a channel.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    /// What was told to whom in this round, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
}

/// How many findings there are of each state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Well.
    pub pass: usize,
    /// Not looked at, for a reason.
    pub skip: usize,
    /// Will be bad.
    pub warn: usize,
    /// Could not look.
    pub unknown: usize,
    /// Bad.
    pub fail: usize,
}

impl Round {
    /// How many there are of each state.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for finding in &self.findings {
            *match finding.state {
                State::Pass => &mut tally.pass,
                State::Skip => &mut tally.skip,
                State::Warn => &mut tally.warn,
                State::Unknown => &mut tally.unknown,
                State::Fail => &mut tally.fail,
            } += 1;
        }
        tally
    }

    /// The state of the whole: the worst, where a failure that is certain outweighs what nobody
    /// could tell. A round in which nothing was looked at is unknown, never a pass.
    pub fn state(&self) -> State {
        let tally = self.tally();
        if tally.fail > 0 {
            State::Fail
        } else if tally.unknown > 0 || tally.pass + tally.warn == 0 {
            State::Unknown
        } else if tally.warn > 0 {
            State::Warn
        } else {
            State::Pass
        }
    }
}

/// A round in the form that was asked for.
pub struct Shown {
    /// The round.
    pub round: Round,
    /// The form.
    pub format: Format,
    /// Also what is well, one line each.
    pub verbose: bool,
}

impl Shown {
    /// The text of the form, without regard to a terminal.
    pub fn text(&self) -> String {
        let mut page = Page::new(false);
        self.human(&mut page);
        page.text().to_owned()
    }
}

impl Report for Shown {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        let mut document = serde_json::to_value(&self.round)?;
        document["state"] = self.round.state().word().into();
        document["tally"] = serde_json::to_value(self.round.tally())?;
        Ok(document)
    }

    fn human(&self, page: &mut Page) {
        match self.format {
            Format::Human => human::write(&self.round, self.verbose, page),
            Format::Nagios => page.line(nagios::write(&self.round).trim_end_matches('\n')),
            Format::Prometheus => {
                page.line(prometheus::write(&self.round).trim_end_matches('\n'));
            }
            Format::Json => {
                if let Ok(document) = self.json() {
                    page.line(format!("{document:#}"));
                }
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let state = self.round.state();
        if self.format == Format::Nagios {
            return Outcome::Plugin(nagios::code(state));
        }
        match state {
            State::Pass | State::Skip | State::Warn => Outcome::Well,
            State::Fail => Outcome::BadNews,
            State::Unknown => Outcome::Incomplete,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rg_common::check::{Figure, Unit};

    pub fn finding(id: &str, state: State, found: &str) -> Finding {
        Finding {
            id: id.to_owned(),
            environment: id
                .starts_with("production/")
                .then(|| "production".to_owned()),
            about: format!("about {id}"),
            state,
            found: found.to_owned(),
            fix: state.is_bad().then(|| "systemctl restart it".to_owned()),
            figures: Vec::new(),
            evidence: Vec::new(),
            took_ms: 4,
            because: None,
        }
    }

    pub fn round(findings: Vec<Finding>) -> Round {
        Round {
            host: "vps-1".to_owned(),
            at: "2026-01-23T02:00:00Z".parse().unwrap(),
            took_ms: 31,
            findings,
            troubles: Vec::new(),
            told: Vec::new(),
        }
    }

    pub fn mixed() -> Round {
        let mut page = finding("production/http/health", State::Fail, "500 in 12 ms");
        page.because = Some("production/unit/api".to_owned());
        page.figures = vec![Figure::new("total", 0.012, Unit::Seconds).bounds(None, Some(0.05))];
        let mut unit = finding("production/unit/api", State::Fail, "failed: exit-code 1");
        unit.evidence = vec!["api[7]: cannot bind".to_owned()];
        let mut disk = finding("host/disk/", State::Warn, "82 % used");
        disk.figures = vec![
            Figure::new("used", 82.0, Unit::Percent).bounds(Some(80.0), Some(90.0)),
            Figure::new("free", 1e9, Unit::Bytes),
        ];
        round(vec![
            disk,
            finding("host/clock", State::Pass, "in step"),
            unit,
            page,
            finding("production/tls/api.rgrid.dev", State::Unknown, "no route"),
        ])
    }

    #[test]
    fn the_exit_code_comes_from_the_findings_and_not_from_the_form() {
        use State::*;
        for (states, well) in [
            (vec![Pass, Skip], Outcome::Well),
            (vec![Pass, Warn], Outcome::Well),
            (vec![Pass, Unknown], Outcome::Incomplete),
            (vec![Unknown, Fail], Outcome::BadNews),
            (vec![], Outcome::Incomplete),
            (vec![Skip], Outcome::Incomplete),
        ] {
            for format in [Format::Human, Format::Json, Format::Prometheus] {
                let findings = states.iter().map(|s| finding("a", *s, "")).collect();
                let shown = Shown {
                    round: round(findings),
                    format,
                    verbose: false,
                };
                assert_eq!(shown.outcome(), well, "{states:?} {format:?}");
            }
        }
    }
}
