//! Backups: made when they were due, of a size that is believable, in every store, and restored by a
//! drill not long ago. All from the stores' own catalogs: what a log or a unit says of backups is
//! not asked.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::tally::Tally;
use crate::catalog::{self, CLOCK_SLACK, Content, Copy, Manifest, Newest};
use crate::check::{Figure, State, Unit, Verdict};
use crate::config::{Config, DatasetConfig};
use crate::failure::{Failure, Result};
use crate::names::{BackupId, DatasetName};
use crate::report;
use crate::schedule::Schedule;
use crate::store::{self, Store};

/// So long after it was due a backup may still be under way; twice as long as the last one took, where
/// that is longer.
pub const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// A drill that is older than this proves little.
pub const DRILL_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The size is held against the median of so many backups before.
pub const MEDIAN_OF: usize = 7;
/// Fewer backups than this have no median.
const MEDIAN_LEAST: usize = 3;
/// Outside of these shares of the median a size is a warning.
const SIZE_LEAST: f64 = 0.5;
const SIZE_MOST: f64 = 2.0;
/// What is smaller than this may well double.
const SIZE_MATTERS: u64 = 64 << 10;

/// The stores of a configuration, opened to be read.
pub struct Stores(Vec<(String, Result<Box<dyn Store>>)>);

/// What the stores of a dataset hold of it.
#[derive(Debug)]
pub struct Backups {
    /// The dataset.
    pub dataset: DatasetName,
    /// When it is backed up.
    pub schedule: Option<Schedule>,
    /// By store, in the order of the configuration; what cannot be read is an error in its place.
    pub stores: Vec<(String, Result<Newest>)>,
}

impl Stores {
    /// Opens all stores, on a thread that stands in the runtime (see [`store::open`]) and is none of
    /// its own. One that cannot be opened is told of with each dataset that it should hold.
    pub fn open(config: &Config) -> Stores {
        let open = |name: &str| (name.to_owned(), store::open_named(config, name));
        Stores(
            config
                .stores
                .iter()
                .map(|store| open(&store.name))
                .collect(),
        )
    }

    /// Reads what they hold of a dataset.
    pub fn collect(&self, dataset: &DatasetConfig) -> Backups {
        let read = |name: &String| {
            let found = self.0.iter().find(|(known, _)| known == name);
            let newest = match found {
                Some((_, Ok(store))) => {
                    catalog::newest(store.as_ref(), &dataset.name, MEDIAN_OF + 1)
                }
                Some((_, Err(failure))) => Err(failure.again()),
                None => Err(Failure::new("it is not configured")),
            };
            let newest = newest
                .map_err(|failure| failure.context(format!("cannot read the store `{name}`")));
            (name.clone(), newest)
        };
        Backups {
            dataset: dataset.name.clone(),
            schedule: dataset.schedule.clone(),
            stores: dataset.stores.iter().map(read).collect(),
        }
    }
}

/// Judges the backups of a dataset, by its own schedule in the host's zone. Where a store cannot be
/// read that is an error, unless what the others hold is bad news by itself.
pub fn judge(backups: &Backups, now: Timestamp, zone: &TimeZone) -> Result<Verdict> {
    let mut tally = Tally::default();
    let dataset = &backups.dataset;
    let unread = backups
        .stores
        .iter()
        .find_map(|(_, newest)| newest.as_ref().err());
    let newest = newest_sound(backups);
    if unread.is_none() || newest.is_some() {
        judge_age(backups, newest, now, zone, &mut tally);
        judge_sizes(backups, &mut tally);
        if let Some((id, _)) = newest {
            judge_copies(backups, id, now, zone, &mut tally);
        }
        judge_drill(backups, now, &mut tally);
    }
    let well = newest.map_or_else(String::new, |(id, manifest)| {
        format!(
            "{id} is {} old, {}, in {}",
            age(id, now),
            report::bytes(content_bytes(manifest)),
            backups
                .stores
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(" and ")
        )
    });
    let verdict = tally.settle(well);
    match unread {
        Some(failure) if verdict.state != State::Fail => Err(failure
            .again()
            .context(format!("cannot tell whether {dataset} is backed up"))),
        Some(failure) => Ok(verdict.evidence([failure.to_string()])),
        None => Ok(verdict),
    }
}

fn readable(backups: &Backups) -> impl Iterator<Item = (&str, &Newest)> {
    backups
        .stores
        .iter()
        .filter_map(|(name, newest)| Some((name.as_str(), newest.as_ref().ok()?)))
}

fn last_sound(newest: &Newest) -> Option<(&BackupId, &Manifest)> {
    let sound = |(id, copy): (&'_ BackupId, &'_ Copy)| copy.is_sound().then(|| id.clone());
    let id = newest.copies.iter().rev().find_map(sound)?;
    let (id, copy) = newest.copies.get_key_value(&id)?;
    Some((id, copy.manifest.as_deref().ok()?))
}

/// The newest backup that is sound somewhere.
fn newest_sound(backups: &Backups) -> Option<(&BackupId, &Manifest)> {
    let each = readable(backups).filter_map(|(_, newest)| last_sound(newest));
    each.max_by_key(|(id, _)| id.stamp)
}

fn age(id: &BackupId, now: Timestamp) -> String {
    let seconds = now.duration_since(id.stamp.time()).as_secs();
    report::span(u64::try_from(seconds).unwrap_or(0))
}

/// When the last backup was due whose time to be made is over.
fn due(
    backups: &Backups,
    newest: Option<&Manifest>,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    let took = newest.map_or(SignedDuration::ZERO, |m| {
        m.finished.duration_since(m.started)
    });
    let grace = GRACE.max(took.saturating_mul(2));
    backups
        .schedule
        .as_ref()?
        .previous(now.checked_sub(grace).ok()?, zone)
}

fn judge_age(
    backups: &Backups,
    newest: Option<(&BackupId, &Manifest)>,
    now: Timestamp,
    zone: &TimeZone,
    tally: &mut Tally,
) {
    let dataset = &backups.dataset;
    let run = format!("systemctl list-timers 'rg-*'; rg-backup run {dataset}");
    for (store, newest) in readable(backups) {
        let Some((id, copy)) = newest.copies.last_key_value() else {
            continue;
        };
        if let Some(trouble) = trouble(copy) {
            tally.fail(
                format!("{id} in store `{store}` is damaged: {trouble}"),
                format!("rg-backup verify {id}; rg-backup run {dataset}"),
            );
        }
    }
    let Some((id, manifest)) = newest else {
        return tally.fail(format!("there is no backup of {dataset}"), run);
    };
    let old = now.duration_since(id.stamp.time());
    tally.figure(Figure::new(
        "age",
        old.as_secs_f64().max(0.0),
        Unit::Seconds,
    ));
    if -old > CLOCK_SLACK {
        tally.warn(
            format!("{id} lies in the future: the clock is wrong, or was"),
            "timedatectl",
        );
    }
    if let Some(due) = due(backups, Some(manifest), now, zone)
        && id.stamp.time() < due
    {
        let when = due
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M %Z")
            .to_string();
        tally.fail(
            format!(
                "the newest backup of {dataset} is {} old; one was due at {when}",
                age(id, now)
            ),
            run,
        );
    }
}

fn trouble(copy: &Copy) -> Option<String> {
    let bad = |finding: &Option<catalog::Finding>| {
        let finding = finding.as_ref().filter(|finding| !finding.good)?;
        Some(finding.said.clone())
    };
    let manifest = copy.manifest.as_ref().err().cloned();
    manifest
        .or_else(|| copy.trouble.clone())
        .or_else(|| bad(&copy.proof.verified))
        .or_else(|| copy.lacks.clone())
}

/// What was backed up: an archive of a bucket holds only what was new.
fn content_bytes(manifest: &Manifest) -> u64 {
    match &manifest.content {
        Content::Bucket(bucket) => bucket.bytes,
        _ => manifest.plain.bytes,
    }
}

fn judge_sizes(backups: &Backups, tally: &mut Tally) {
    // The store that knows most; the others are copies.
    let Some((_, newest)) = readable(backups).max_by_key(|(_, newest)| newest.copies.len()) else {
        return;
    };
    let sizes = newest
        .copies
        .values()
        .filter_map(|copy| copy.manifest.as_deref().ok());
    let mut sizes: Vec<u64> = sizes.map(content_bytes).collect();
    let Some(last) = sizes.pop() else {
        return;
    };
    tally.figure(Figure::new("size", last as f64, Unit::Bytes));
    let from = sizes.len().saturating_sub(MEDIAN_OF);
    let mut before = sizes.split_off(from);
    if before.len() < MEDIAN_LEAST {
        return;
    }
    before.sort_unstable();
    let median = before[before.len() / 2];
    tally.figure(Figure::new("size_median", median as f64, Unit::Bytes));
    let share = last as f64 / median.max(1) as f64;
    if last.max(median) >= SIZE_MATTERS && !(SIZE_LEAST..=SIZE_MOST).contains(&share) {
        tally.warn(
            format!(
                "the newest backup of {} holds {}, {:.0} % of the usual {}",
                backups.dataset,
                report::bytes(last),
                share * 100.0,
                report::bytes(median)
            ),
            format!("rg-backup list {}", backups.dataset),
        );
    }
}

fn judge_copies(
    backups: &Backups,
    newest: &BackupId,
    now: Timestamp,
    zone: &TimeZone,
    tally: &mut Tally,
) {
    // A copy may still be under way.
    if now.duration_since(newest.stamp.time()) < GRACE {
        return;
    }
    for (store, there) in readable(backups) {
        let has = there.copies.get(newest).is_some_and(Copy::is_sound);
        if has || trouble_of(there, newest) {
            continue;
        }
        let fix = format!("rg-backup sync {}", backups.dataset);
        let Some((last, _)) = last_sound(there) else {
            tally.fail(
                format!("store `{store}` has no backup of {}", backups.dataset),
                fix,
            );
            continue;
        };
        let said = format!(
            "store `{store}` lacks {newest}; its newest is {} old",
            age(last, now)
        );
        // One that is missing may come with the next; two will not.
        let before = due(backups, None, now, zone).and_then(|due| {
            backups
                .schedule
                .as_ref()?
                .previous(due.checked_sub(SignedDuration::from_secs(1)).ok()?, zone)
        });
        if before.is_some_and(|before| last.stamp.time() < before) {
            tally.fail(said, fix);
        } else {
            tally.warn(said, fix);
        }
    }
}

/// Whether it is there, damaged: that has been said.
fn trouble_of(there: &Newest, id: &BackupId) -> bool {
    let last = there.copies.last_key_value();
    last.is_some_and(|(last, copy)| last == id && !copy.is_sound())
}

fn judge_drill(backups: &Backups, now: Timestamp, tally: &mut Tally) {
    let drills = readable(backups).filter_map(|(_, newest)| newest.drilled.as_ref());
    let last = drills.max_by_key(|(_, finding)| finding.at);
    let fix = format!("rg-restore drill {}", backups.dataset);
    let Some((id, drill)) = last else {
        let oldest = readable(backups)
            .filter_map(|(_, newest)| newest.oldest)
            .min();
        if oldest.is_some_and(|oldest| now.duration_since(oldest.time()) > DRILL_MAX) {
            tally.warn(
                format!(
                    "no backup of {} was ever restored by a drill",
                    backups.dataset
                ),
                fix,
            );
        }
        return;
    };
    let old = now.duration_since(drill.at);
    let figure = Figure::new("drill_age", old.as_secs_f64().max(0.0), Unit::Seconds);
    tally.figure(figure.bounds(Some(DRILL_MAX.as_secs_f64()), None));
    if !drill.good {
        tally.fail(
            format!("the last drill could not restore {id}: {}", drill.said),
            fix,
        );
    } else if old > DRILL_MAX {
        let span = report::span(u64::try_from(old.as_secs()).unwrap_or(0));
        tally.warn(
            format!("the last drill of {} was {span} ago", backups.dataset),
            fix,
        );
    }
}

#[cfg(test)]
mod tests;
