//! Who is told what, and when: one pure function over what is remembered.
//!
//! The promise, whatever the clock does and wherever a run dies: each incident that is told is told
//! once as begun and once as ended, to each channel; reminders come no more often than asked for;
//! what is a consequence of something else, or falls into a maintenance window or a silence, is
//! counted but begins no talk. What keeps quiet keeps quiet about beginnings, never about ends.
//!
//! Decisions count runs, not time: only reminders look at the clock, and they begin their wait anew
//! when it was set back.

mod notice;
pub mod outbox;
mod run;
mod text;
mod watched;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rg_common::check::{Finding, State};
use rg_common::config::{AlertsConfig, NotifyConfig, NotifyKind, NotifyLevel, Patience};
use serde::{Deserialize, Serialize};

pub use notice::{Kind, Level, Notice};
use outbox::Outbox;
pub use run::{Channel as ChannelStatus, OpenIncident, Run, Status, Tested, proven, status};
pub use text::compose;
use watched::{Incident, Told, Watched};

use crate::silence::Quiet;

/// So many incidents that were told and ended within the last 64 runs make the next one flapping.
const FLAPS: u32 = 2;
/// A check that flaps is well again after so many good runs in a row.
const STEADY: u32 = 16;

/// What is remembered between runs: the state file's content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The format: [`crate::state::VERSION`].
    pub version: u32,
    /// A random word that makes keys unique when the memory begins anew.
    pub series: String,
    /// The number of the next incident, notice or parcel.
    pub next: u64,
    /// When the last run decided.
    #[serde(default)]
    pub last_run: Option<Timestamp>,
    /// Each check by its id.
    #[serde(default)]
    pub checks: BTreeMap<String, Watched>,
    /// What is to be sent.
    #[serde(default)]
    pub outbox: Outbox,
    /// What is known of each channel.
    #[serde(default)]
    pub channels: BTreeMap<String, Proof>,
}

/// When a channel last took something, and how its last attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// When it last took a message.
    #[serde(default)]
    pub proven: Option<Timestamp>,
    /// When it was last tried.
    pub tried: Timestamp,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
    /// Why the last attempt failed; none when it did not.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a run found.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// What the checks found; not all of `known` where only a part was run.
    pub findings: &'a [Finding],
    /// The ids of all checks of the whole configuration: what is not among them has vanished.
    pub known: &'a BTreeSet<String>,
    /// The time.
    pub now: Timestamp,
}

/// When somebody is told.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The patience of checks that have one of their own or of their kind; `[alerts]` has the rest's.
    pub patience: BTreeMap<String, Patience>,
    /// `[alerts]`
    pub alerts: AlertsConfig,
    /// What keeps quiet now.
    pub quiet: Vec<Quiet>,
    /// Whom there is to tell.
    pub channels: Vec<Channel>,
}

/// Somebody to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Its name in `rg.toml`.
    pub name: String,
    /// The least that it is told.
    pub level: Level,
    /// Told what others could not deliver.
    pub fallback: bool,
}

impl Channel {
    /// All of `rg.toml` but dead man's switches. Where there are only fallbacks, they are the first to be told.
    pub fn all(configured: &[NotifyConfig]) -> Vec<Channel> {
        let people = || configured.iter().filter(|c| c.kind != NotifyKind::Ping);
        let only_fallbacks = people().all(|channel| channel.fallback);
        people()
            .map(|channel| Channel {
                name: channel.name.clone(),
                level: match channel.level {
                    NotifyLevel::Warn => Level::Warn,
                    NotifyLevel::Fail => Level::Fail,
                },
                fallback: channel.fallback && !only_fallbacks,
            })
            .collect()
    }
}

/// What is to be remembered, and what is told of this run's findings. The notices lie in the
/// memory's outbox already, a letter for each channel; what comes back is for showing.
pub fn decide(memory: &Memory, round: &Round<'_>, rules: &Rules) -> (Memory, Vec<Notice>) {
    let mut memory = memory.clone();
    let causes = Causes::of(round.findings);
    let mut notices = Vec::new();
    for finding in round.findings {
        if finding.state == State::Skip {
            continue;
        }
        let patience = rules.patience.get(&finding.id);
        let mut step = Step {
            finding,
            now: round.now,
            patience: *patience.unwrap_or(&rules.alerts.after),
            rules,
            withheld: causes.of_finding(finding).is_some()
                || rules.quiet.iter().any(|quiet| quiet.covers(finding)),
            next: &mut memory.next,
        };
        let watched = memory
            .checks
            .entry(finding.id.clone())
            .or_insert_with(|| Watched::new(round.now));
        notices.extend(step.take(watched));
    }
    notices.extend(vanished(&mut memory, round, rules));
    for notice in &mut notices {
        notice.add_consequences(causes.consequences(&notice.check));
        memory.next += 1;
        notice.key = format!("{}-{}", memory.series, memory.next);
        memory.outbox.put(notice, round.now);
    }
    memory.last_run = Some(round.now);
    (memory, notices)
}

/// Says to every channel that what was open is not known any more, and why.
pub fn forgotten(memory: &mut Memory, why: &str, now: Timestamp, channels: &[Channel]) -> Notice {
    let mut notice = Notice::new(Kind::Forgotten, Level::Fail, now);
    why.clone_into(&mut notice.found);
    let first = channels.iter().filter(|channel| !channel.fallback);
    notice.to = first.map(|channel| channel.name.clone()).collect();
    memory.next += 1;
    notice.key = format!("{}-{}", memory.series, memory.next);
    memory.outbox.put(&notice, now);
    notice
}

/// Checks that are configured no more: their incidents are closed, which is told.
fn vanished(memory: &mut Memory, round: &Round<'_>, rules: &Rules) -> Vec<Notice> {
    let gone: Vec<String> = memory
        .checks
        .keys()
        .filter(|id| !round.known.contains(*id))
        .cloned()
        .collect();
    let mut notices = Vec::new();
    for id in gone {
        let Some(watched) = memory.checks.remove(&id) else {
            continue;
        };
        let Some(incident) = watched.incident else {
            continue;
        };
        if let Some(told) = &incident.told {
            let mut notice = Notice::new(Kind::Gone, told.level, round.now);
            notice.check = id;
            notice.environment = watched.environment;
            notice.found = "it is not checked any more: rg.toml has changed".to_owned();
            notice.state = watched.state;
            close(&mut notice, &incident, round.now, rules);
            notices.push(notice);
        }
    }
    notices
}

/// What the end of an incident says, and to whom: everybody who was told of it and is still there.
fn close(notice: &mut Notice, incident: &Incident, now: Timestamp, rules: &Rules) {
    notice.incident = incident.number;
    notice.opened = Some(incident.opened);
    // None when the clock was set back since.
    notice.lasted_s = u64::try_from(now.duration_since(incident.opened).as_secs()).ok();
    let channels = rules.channels.iter().map(|channel| &channel.name);
    notice.to = channels
        .filter(|name| incident.addressed.contains(*name))
        .cloned()
        .collect();
}

/// One check's step from the last run to this one.
struct Step<'a> {
    finding: &'a Finding,
    now: Timestamp,
    patience: Patience,
    rules: &'a Rules,
    /// A consequence, a maintenance window or a silence: nothing is begun.
    withheld: bool,
    next: &'a mut u64,
}

impl Step<'_> {
    fn take(&mut self, watched: &mut Watched) -> Option<Notice> {
        let last_good = watched.last_good.clone();
        watched.record(self.finding, self.now, self.patience);
        if self.finding.state.is_bad() {
            self.bad(watched).map(|mut notice| {
                notice.last_good = last_good;
                notice
            })
        } else {
            self.good(watched)
        }
    }

    fn good(&mut self, watched: &mut Watched) -> Option<Notice> {
        let incident = watched.incident.as_ref()?;
        let enough = match incident.flapping {
            true => self.rules.alerts.recover_after.max(STEADY),
            false => self.rules.alerts.recover_after,
        };
        if watched.good_in_a_row < enough || watched.is_reached(self.patience) {
            return None;
        }
        let incident = watched.incident.take()?;
        watched.first_bad = None;
        let told = incident.told.as_ref()?;
        watched.ends = if incident.flapping {
            0
        } else {
            watched.ends | 1
        };
        let mut notice = self.notice(Kind::Recovered, told.level);
        close(&mut notice, &incident, self.now, self.rules);
        Some(notice)
    }

    fn bad(&mut self, watched: &mut Watched) -> Option<Notice> {
        let level = Level::of(self.finding.state);
        if watched.incident.is_none() && watched.is_reached(self.patience) {
            *self.next += 1;
            watched.incident = Some(Incident {
                number: *self.next,
                opened: watched.first_bad.unwrap_or(self.now),
                flapping: watched.ends.count_ones() >= FLAPS,
                told: None,
                addressed: BTreeSet::new(),
            });
        }
        let incident = watched.incident.as_mut()?;
        if let Some(told) = &mut incident.told
            && self.now < told.at
        {
            told.at = self.now;
        }
        if self.withheld {
            return None;
        }
        let (kind, told) = match &incident.told {
            None => {
                let kind = match incident.flapping {
                    true => Kind::Flapping,
                    false => Kind::Opened,
                };
                (kind, Told::new(self.now, level))
            }
            Some(told) if level > told.level => (Kind::Escalated, Told::new(self.now, level)),
            Some(told) if self.is_over(told.at) => {
                let mut told = told.clone();
                told.at = self.now;
                told.reminders = told.reminders.saturating_add(1);
                (Kind::Reminder, told)
            }
            Some(_) => return None,
        };
        let mut notice = self.notice(kind, told.level);
        notice.incident = incident.number;
        notice.opened = Some(incident.opened);
        notice.lasted_s = u64::try_from(self.now.duration_since(incident.opened).as_secs()).ok();
        // A fallback hears only of what the others cannot deliver.
        let concerned = self.rules.channels.iter();
        notice.to = concerned
            .filter(|channel| channel.level <= told.level && !channel.fallback)
            .map(|channel| channel.name.clone())
            .collect();
        incident.addressed.extend(notice.to.iter().cloned());
        incident.told = Some(told);
        Some(notice)
    }

    fn is_over(&self, told_at: Timestamp) -> bool {
        let waited = self.now.duration_since(told_at);
        i64::try_from(self.rules.alerts.remind.as_secs()).is_ok_and(|wait| waited.as_secs() >= wait)
    }

    fn notice(&self, kind: Kind, level: Level) -> Notice {
        let mut notice = Notice::new(kind, level, self.now);
        notice.describe(self.finding);
        notice
    }
}

/// Which failure is another's consequence. A chain of causes that ends in nothing bad, or in
/// itself, keeps nothing quiet.
struct Causes<'a>(BTreeMap<&'a str, &'a Finding>);

impl<'a> Causes<'a> {
    fn of(findings: &'a [Finding]) -> Causes<'a> {
        Causes(findings.iter().map(|f| (f.id.as_str(), f)).collect())
    }

    /// The root cause, where the finding is a consequence.
    fn of_finding(&self, finding: &'a Finding) -> Option<&'a str> {
        let mut cause = finding.because.as_deref()?;
        for _ in 0..self.0.len() {
            let found = self.0.get(cause).filter(|found| found.state.is_bad())?;
            match &found.because {
                Some(further) => cause = further,
                None => return Some(cause),
            }
        }
        None
    }

    fn consequences(&self, id: &str) -> Vec<String> {
        let all = self.0.values().filter(|finding| finding.state.is_bad());
        all.filter(|finding| self.of_finding(finding) == Some(id))
            .map(|finding| format!("{} {}: {}", finding.state.word(), finding.id, finding.found))
            .collect()
    }
}
