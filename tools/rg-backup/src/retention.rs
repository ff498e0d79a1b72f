//! Which backups of one dataset may go.
//!
//! The promise: **a backup is deleted only if a newer, proven backup of the same dataset exists
//! and no rule wants it.** [`plan`] is pure: it computes a plain value that is printed before
//! anything is deleted, and it gives the same fates in whatever order the candidates come.
//!
//! The rules, on top of that promise:
//! - A pinned backup and the newest proven one always stay. Without a proven one, all stay.
//! - `last`, `daily`, `weekly`, `monthly` and `yearly` are counted among the proven backups, so
//!   that one that is not proven takes nobody's place. They are counted once more among all, and
//!   what that count wants stays too: catalogs whose old backups were never re-read are not emptied.
//! - `days` is counted **from the newest proven backup, never from the clock**. If the one before
//!   it lies beyond the window already (a long outage, or a clock that leapt while a backup was
//!   made), days are counted from that one: a single backup never outdates all others.
//! - A backup that lies more than [`CLOCK_SLACK`] in the future says that the clock is or was
//!   wrong: nothing is deleted.
//!
//! So the clock enters only to hold back: a clock that runs ahead changes nothing, a clock that
//! is behind deletes nothing.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rg_common::keep::Keep;
use rg_common::nouns::counted;
use rg_common::{Failure, Result};

pub use rg_common::catalog::CLOCK_SLACK;

/// One backup as retention sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whose backup it is, whole: `production/database`.
    pub dataset: String,
    /// The stamp of its id.
    pub stamp: Timestamp,
    /// Kept for ever by the operator's word.
    pub pinned: bool,
    /// Known to be restorable as far as one can know: the manifest is intact, the data is there,
    /// and its digest was re-read or a drill restored it.
    pub proven: bool,
    /// Stored bytes that its deletion would free.
    pub bytes: u64,
}

/// What happens to a backup, with the reason in an operator's words; prints as `kept: …` or
/// `deleted: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep(String),
    /// It may go.
    Delete(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Keep(reason) => write!(f, "kept: {reason}"),
            Fate::Delete(reason) => write!(f, "deleted: {reason}"),
        }
    }
}

/// The fate of each candidate, in the candidates' order. `zone` says where days, weeks, months and
/// years begin. Refuses candidates of another dataset and a `keep` that does not validate.
pub fn plan(
    dataset: &str,
    candidates: &[Candidate],
    keep: &Keep,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<Fate>> {
    keep.validate()?;
    if let Some(foreign) = candidates.iter().find(|c| c.dataset != dataset) {
        return Err(Failure::new(format!(
            "retention of {dataset} was given a backup of {}; nothing was deleted",
            foreign.dataset
        )));
    }
    let everything = |reason: String| Ok(vec![Fate::Keep(reason); candidates.len()]);
    let ahead = candidates.iter().map(|c| c.stamp).max();
    if let Some(ahead) = ahead.filter(|stamp| stamp.duration_since(now) > CLOCK_SLACK) {
        return everything(format!(
            "{} lies in the future, so the clock is or was wrong",
            id(dataset, ahead)
        ));
    }
    let proven: BTreeSet<Timestamp> = stamps(candidates.iter().filter(|c| c.proven));
    let Some(&newest) = proven.last() else {
        return everything(format!("no backup of {dataset} is proven"));
    };
    let judge = Judge {
        dataset,
        newest,
        days: keep
            .days
            .map(|days| (days, days_counted_from(&proven, days))),
        among_proven: Slots::new(&proven, keep, zone),
        among_all: Slots::new(&stamps(candidates.iter()), keep, zone),
        now,
    };
    Ok(candidates.iter().map(|c| judge.fate(c)).collect())
}

fn stamps<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> BTreeSet<Timestamp> {
    candidates.map(|c| c.stamp).collect()
}

/// The newest proven backup, or the one before it if that is outside the window of `days`.
fn days_counted_from(proven: &BTreeSet<Timestamp>, days: u32) -> Timestamp {
    let mut newest_first = proven.iter().rev().copied();
    let newest = newest_first.next().expect("there is a proven backup");
    match newest_first.next() {
        Some(before_it) if whole_days(before_it, newest) > i64::from(days) => before_it,
        _ => newest,
    }
}

/// Whole days of 24 hours from `stamp` to `later`; negative if it is the other way round.
fn whole_days(stamp: Timestamp, later: Timestamp) -> i64 {
    later.duration_since(stamp).as_hours().div_euclid(24)
}

fn id(dataset: &str, stamp: Timestamp) -> String {
    format!("{dataset}@{}", stamp.strftime("%Y%m%d_%H%M%S"))
}

struct Judge<'a> {
    dataset: &'a str,
    newest: Timestamp,
    /// The window, and what it is counted from.
    days: Option<(u32, Timestamp)>,
    among_proven: Slots,
    among_all: Slots,
    now: Timestamp,
}

impl Judge<'_> {
    fn fate(&self, candidate: &Candidate) -> Fate {
        let not_proven = if candidate.proven { "" } else { ", not proven" };
        if candidate.pinned {
            return Fate::Keep("pinned".to_owned());
        }
        if candidate.stamp == self.newest && candidate.proven {
            return Fate::Keep("newest proven".to_owned());
        }
        if candidate.stamp >= self.newest {
            return Fate::Keep(format!(
                "not proven, but no proven backup of {} is newer",
                self.dataset
            ));
        }
        if let Some(reason) = self.wanted(candidate) {
            return Fate::Keep(format!("{reason}{not_proven}"));
        }
        Fate::Delete(format!(
            "{}{not_proven}, no rule wants it; {} is newer and proven",
            self.age(candidate.stamp, self.newest),
            id(self.dataset, self.newest)
        ))
    }

    /// Why a rule wants it, if one does.
    fn wanted(&self, candidate: &Candidate) -> Option<String> {
        let stamp = candidate.stamp;
        if let Some((days, counted_from)) = self.days
            && whole_days(stamp, counted_from) <= i64::from(days)
        {
            let age = self.age(stamp, counted_from);
            return Some(format!("{age}, keep.days = {days}"));
        }
        let slots = if candidate.proven {
            &self.among_proven
        } else {
            &self.among_all
        };
        slots.reason(stamp)
    }

    /// How old it is counted to be; says from where if that is not today.
    fn age(&self, stamp: Timestamp, counted_from: Timestamp) -> String {
        let days = whole_days(stamp, counted_from).max(0);
        let old = counted(days, "days");
        if whole_days(counted_from, self.now) >= 1 {
            let from = id(self.dataset, counted_from);
            format!("{old} older than {from}")
        } else {
            format!("{old} old")
        }
    }
}

/// Who holds a place by `last`, `daily`, `weekly`, `monthly` or `yearly`.
struct Slots(Vec<(Timestamp, String)>);

impl Slots {
    fn new(stamps: &BTreeSet<Timestamp>, keep: &Keep, zone: &TimeZone) -> Self {
        let mut held: Vec<(Timestamp, String)> = Vec::new();
        let last = count(keep.last);
        for (index, stamp) in stamps.iter().rev().take(last).enumerate() {
            held.push((
                *stamp,
                format!("number {} of keep.last = {last}", index + 1),
            ));
        }
        let day: fn(Date) -> String = |date| format!("day {date}");
        let week: fn(Date) -> String = |date| {
            let week = date.iso_week_date();
            format!("week {:04}-W{:02}", week.year(), week.week())
        };
        let month: fn(Date) -> String = |date| date.strftime("month %Y-%m").to_string();
        let year: fn(Date) -> String = |date| date.strftime("year %Y").to_string();
        for (rule, period) in [
            (keep.daily, day),
            (keep.weekly, week),
            (keep.monthly, month),
            (keep.yearly, year),
        ] {
            let mut seen = HashSet::new();
            let newest_of_each = stamps.iter().rev().filter_map(|stamp| {
                let period = period(zone.to_datetime(*stamp).date());
                let reason = format!("newest of {period}");
                seen.insert(period).then_some((*stamp, reason))
            });
            held.extend(newest_of_each.take(count(rule)));
        }
        Slots(held)
    }

    /// The first rule that wants it.
    fn reason(&self, stamp: Timestamp) -> Option<String> {
        let held = self.0.iter().find(|(holder, _)| *holder == stamp);
        held.map(|(_, reason)| reason.clone())
    }
}

fn count(rule: Option<u32>) -> usize {
    rule.map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
