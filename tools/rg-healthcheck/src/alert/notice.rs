//! One thing to say about one check. It is kept in the outbox and is what a webhook gets, so that
//! its fields are a promise, and all of them are bounded.

use jiff::Timestamp;
use rg_common::check::{Finding, State};
use rg_common::notify::within;
use serde::{Deserialize, Serialize};

/// The most of what was measured, or of what is to be done.
pub(super) const FOUND_BYTES: usize = 600;
/// The most lines of evidence.
const EVIDENCE_LINES: usize = 12;
/// The longest line of evidence, and of a consequence.
const LINE_BYTES: usize = 240;
/// The most consequences that are listed; more are counted.
const CONSEQUENCES: usize = 15;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It is bad.
    Opened,
    /// A warning became a failure.
    Escalated,
    /// It is still bad.
    Reminder,
    /// It comes and goes: said once instead of each time.
    Flapping,
    /// It is well again.
    Recovered,
    /// It is not checked any more.
    Gone,
    /// The memory was damaged: what was bad before is not known.
    Forgotten,
}

/// How bad it is: who wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It will be bad, or nobody can tell.
    Warn,
    /// It is bad.
    Fail,
}

impl Level {
    /// The level of a bad state: what could not be looked at warns.
    pub fn of(state: State) -> Level {
        match state {
            State::Fail => Level::Fail,
            _ => Level::Warn,
        }
    }
}

/// A good run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Good {
    /// When.
    pub at: Timestamp,
    /// What was measured.
    pub found: String,
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Unique for ever; the same when it is sent again.
    pub key: String,
    /// What has happened.
    pub kind: Kind,
    /// How bad it is, or was.
    pub level: Level,
    /// When this was decided.
    pub at: Timestamp,
    /// The check's id; empty for what concerns the memory itself.
    pub check: String,
    /// Its environment.
    #[serde(default)]
    pub environment: Option<String>,
    /// What it looks at.
    #[serde(default)]
    pub about: String,
    /// How it came out.
    pub state: State,
    /// What was measured.
    #[serde(default)]
    pub found: String,
    /// What to do.
    #[serde(default)]
    pub fix: Option<String>,
    /// Lines that show the cause.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What fails because of it.
    #[serde(default)]
    pub consequences: Vec<String>,
    /// The incident's first bad run.
    #[serde(default)]
    pub opened: Option<Timestamp>,
    /// How long it has been, in seconds; none when the clock was set back meanwhile.
    #[serde(default)]
    pub lasted_s: Option<u64>,
    /// The last good run before it.
    #[serde(default)]
    pub last_good: Option<Good>,
    /// The incident's number.
    #[serde(default)]
    pub incident: u64,
    /// The channels that it goes to.
    #[serde(default)]
    pub to: Vec<String>,
}

impl Notice {
    pub(super) fn new(kind: Kind, level: Level, at: Timestamp) -> Notice {
        Notice {
            key: String::new(),
            kind,
            level,
            at,
            check: String::new(),
            environment: None,
            about: String::new(),
            state: State::Unknown,
            found: String::new(),
            fix: None,
            evidence: Vec::new(),
            consequences: Vec::new(),
            opened: None,
            lasted_s: None,
            last_good: None,
            incident: 0,
            to: Vec::new(),
        }
    }

    pub(super) fn describe(&mut self, finding: &Finding) {
        self.check.clone_from(&finding.id);
        self.environment.clone_from(&finding.environment);
        self.about = plain(&finding.about, LINE_BYTES);
        self.state = finding.state;
        self.found = plain(&finding.found, FOUND_BYTES);
        self.fix = finding.fix.as_deref().map(|fix| plain(fix, FOUND_BYTES));
        let lines = finding.evidence.iter().take(EVIDENCE_LINES);
        self.evidence = lines.map(|line| plain(line, LINE_BYTES)).collect();
    }

    pub(super) fn add_consequences(&mut self, lines: Vec<String>) {
        let more = lines.len().saturating_sub(CONSEQUENCES);
        let shown = lines.iter().take(CONSEQUENCES);
        self.consequences = shown.map(|line| plain(line, LINE_BYTES)).collect();
        if more > 0 {
            self.consequences.push(format!("and {more} more"));
        }
    }

    /// Whether it says that something is bad now.
    pub fn is_bad(&self) -> bool {
        !matches!(self.kind, Kind::Recovered | Kind::Gone)
    }
}

/// One line of bounded length without control characters: what was found elsewhere must not draw
/// on anybody's terminal.
pub(super) fn plain(text: &str, bytes: usize) -> String {
    let clean: String = within(text, bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clean.trim_end().to_owned()
}
