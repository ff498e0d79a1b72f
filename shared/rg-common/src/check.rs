//! One check's answer. "Bad" is not "cannot tell": a check that could not look is an `Err`, which
//! becomes `Unknown`: never a pass, never a fail.
//!
//! Facts are collected apart (`probe`), and judged by pure functions that yield a `Verdict`.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// How a check came out, from well to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Looked, and it is well.
    Pass,
    /// Not to be looked at here, for the reason given.
    Skip,
    /// Looked: it will become a failure if nobody acts.
    Warn,
    /// Could not look.
    Unknown,
    /// Looked, and it is bad.
    Fail,
}

impl State {
    /// The word for people: `pass`, `skip`, `warn`, `unknown`, `fail`.
    pub fn word(self) -> &'static str {
        match self {
            State::Pass => "pass",
            State::Skip => "skip",
            State::Warn => "warn",
            State::Unknown => "unknown",
            State::Fail => "fail",
        }
    }

    /// Whether somebody must act: warn, unknown or fail.
    pub fn is_bad(self) -> bool {
        matches!(self, State::Warn | State::Unknown | State::Fail)
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// `Pass`, `Skip`, `Warn` or `Fail`.
    pub state: State,
    /// What was measured, in one line without secrets; for a skip the reason.
    pub found: String,
    /// What to do, where possible as a command.
    pub fix: Option<String>,
    /// What was measured, as numbers.
    pub figures: Vec<Figure>,
    /// Lines that show the cause: the journal's tail, the largest directories. Bounded by who takes them.
    pub evidence: Vec<String>,
}

/// The unit of a figure, as Prometheus and the Nagios plugin protocol know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A span of time in seconds.
    Seconds,
    /// An amount in bytes.
    Bytes,
    /// A share of 100.
    Percent,
    /// A number of things.
    Count,
}

/// One number that a check measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// `total`, `free`, `days_left`: a word of `[a-z0-9_]`.
    pub name: String,
    /// The value in its unit.
    pub value: f64,
    /// The unit.
    pub unit: Unit,
    /// From here on it is a warning, where there is such a bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub warn: Option<f64>,
    /// From here on it is a failure, where there is such a bound.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fail: Option<f64>,
}

impl Figure {
    /// A figure without bounds.
    pub fn new(name: &str, value: f64, unit: Unit) -> Figure {
        Figure {
            name: name.to_owned(),
            value,
            unit,
            warn: None,
            fail: None,
        }
    }

    /// The same with its bounds.
    #[must_use]
    pub fn bounds(mut self, warn: Option<f64>, fail: Option<f64>) -> Figure {
        self.warn = warn;
        self.fail = fail;
        self
    }
}

impl Verdict {
    /// Looked, and it is well.
    pub fn pass(found: impl Into<String>) -> Verdict {
        Verdict::new(State::Pass, found, None)
    }

    /// Not to be looked at here.
    pub fn skip(reason: impl Into<String>) -> Verdict {
        Verdict::new(State::Skip, reason, None)
    }

    /// It will be bad if nobody acts.
    pub fn warn(found: impl Into<String>, fix: impl Into<String>) -> Verdict {
        Verdict::new(State::Warn, found, Some(fix.into()))
    }

    /// It is bad.
    pub fn fail(found: impl Into<String>, fix: impl Into<String>) -> Verdict {
        Verdict::new(State::Fail, found, Some(fix.into()))
    }

    fn new(state: State, found: impl Into<String>, fix: Option<String>) -> Verdict {
        Verdict {
            state,
            found: found.into(),
            fix,
            figures: Vec::new(),
            evidence: Vec::new(),
        }
    }

    /// With a figure.
    #[must_use]
    pub fn figure(mut self, figure: Figure) -> Verdict {
        self.figures.push(figure);
        self
    }

    /// With lines that show the cause.
    #[must_use]
    pub fn evidence(mut self, lines: impl IntoIterator<Item = String>) -> Verdict {
        self.evidence.extend(lines);
        self
    }
}

/// A check that was run: what is shown, remembered and told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `production/http/health`, `host/disk/`: stable over runs, unique in one.
    pub id: String,
    /// The environment; none for what concerns the whole machine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub environment: Option<String>,
    /// What it looks at, in a few words.
    pub about: String,
    /// How it came out.
    pub state: State,
    /// What was measured, or why it could not be.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fix: Option<String>,
    /// Numbers.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub figures: Vec<Figure>,
    /// Lines that show the cause.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub evidence: Vec<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The id of the check whose failure is the cause of this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub because: Option<String>,
}

/// What of a verdict, or of the failure to reach one, belongs to a finding.
pub fn settle(outcome: Result<Verdict>) -> Verdict {
    outcome.unwrap_or_else(|failure| unknown(&failure))
}

/// A check that could not look.
fn unknown(failure: &Failure) -> Verdict {
    let hints = failure.hints().join("; ");
    let fix = (!hints.is_empty()).then_some(hints);
    Verdict::new(State::Unknown, failure.to_string(), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_looked_at_is_neither_good_nor_bad() {
        let verdict = settle(Err(Failure::new("no answer").hint("try again")));
        assert_eq!(verdict.state, State::Unknown);
        assert_eq!(verdict.found, "no answer");
        assert_eq!(verdict.fix.as_deref(), Some("try again"));
        assert!(State::Fail > State::Unknown && State::Unknown > State::Warn);
    }
}
