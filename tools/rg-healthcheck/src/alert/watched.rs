//! What is remembered of one check: how its last 64 runs came out, and its incident.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rg_common::check::{Finding, State};
use rg_common::config::Patience;
use serde::{Deserialize, Serialize};

use super::notice::{FOUND_BYTES, Good, Level, plain};

/// One check over its runs. A run that skipped it is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The environment it belongs to.
    #[serde(default)]
    pub environment: Option<String>,
    /// How it came out last.
    pub state: State,
    /// The first run of those that came out like this, without one between that did not.
    pub since: Timestamp,
    /// Bad runs up to now.
    pub bad_in_a_row: u32,
    /// Good runs up to now.
    pub good_in_a_row: u32,
    /// A bit for each of the last 64 runs, the newest lowest: set where it was bad.
    pub outcomes: u64,
    /// A bit for each of the last 64 runs: set where an incident that had been told ended.
    #[serde(default)]
    pub ends: u64,
    /// When it became bad, while it may become an incident.
    #[serde(default)]
    pub first_bad: Option<Timestamp>,
    /// The last good run.
    #[serde(default)]
    pub last_good: Option<Good>,
    /// What is going on.
    #[serde(default)]
    pub incident: Option<Incident>,
}

/// A time of being bad, from the patience's end to the recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique in the memory.
    pub number: u64,
    /// Its first bad run.
    pub opened: Timestamp,
    /// It comes and goes: told once, ended only by a long time of being well.
    #[serde(default)]
    pub flapping: bool,
    /// When somebody was last told; none while nobody was.
    #[serde(default)]
    pub told: Option<Told>,
    /// The channels that were told: these are told its end.
    #[serde(default)]
    pub addressed: BTreeSet<String>,
}

/// What was said of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The last time, by a clock that may have been set since.
    pub at: Timestamp,
    /// The worst.
    pub level: Level,
    /// How often it was repeated.
    pub reminders: u32,
}

impl Told {
    pub(super) fn new(at: Timestamp, level: Level) -> Told {
        Told {
            at,
            level,
            reminders: 0,
        }
    }
}

impl Watched {
    pub(super) fn new(now: Timestamp) -> Watched {
        Watched {
            environment: None,
            state: State::Pass,
            since: now,
            bad_in_a_row: 0,
            good_in_a_row: 0,
            outcomes: 0,
            ends: 0,
            first_bad: None,
            last_good: None,
            incident: None,
        }
    }

    /// Counts a run. Runs before the first one count as good ones.
    pub(super) fn record(&mut self, finding: &Finding, now: Timestamp, patience: Patience) {
        let bad = finding.state.is_bad();
        if self.state != finding.state {
            self.since = now;
        }
        self.state = finding.state;
        self.environment.clone_from(&finding.environment);
        self.outcomes = self.outcomes << 1 | u64::from(bad);
        self.ends <<= 1;
        if bad {
            self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
            self.good_in_a_row = 0;
            self.first_bad.get_or_insert(now);
            return;
        }
        self.good_in_a_row = self.good_in_a_row.saturating_add(1);
        self.bad_in_a_row = 0;
        let of = match patience {
            Patience::InARow(_) => 1,
            Patience::MOfN { n, .. } => n,
        };
        if self.incident.is_none() && self.bad_of(of) == 0 {
            self.first_bad = None;
        }
        self.last_good = Some(Good {
            at: now,
            found: plain(&finding.found, FOUND_BYTES),
        });
    }

    /// Whether it has been bad often enough.
    pub(super) fn is_reached(&self, patience: Patience) -> bool {
        match patience {
            Patience::InARow(n) => self.bad_in_a_row >= n.max(1),
            Patience::MOfN { m, n } => self.bad_of(n) >= m.max(1),
        }
    }

    /// How many of the last so many runs were bad.
    fn bad_of(&self, runs: u32) -> u32 {
        let mask = 1u64.checked_shl(runs).map_or(u64::MAX, |bit| bit - 1);
        (self.outcomes & mask).count_ones()
    }
}
