//! The calendar lines of systemd timers (systemd.time(7), `OnCalendar=`).
//!
//! systemd reads a line without a zone in the host's local time. It steps over times that fall
//! into a daylight-saving gap and takes only the first pass of an hour that comes twice; the
//! lines with a full date make up for both, one for each night that would differ from crontab.

use std::collections::BTreeMap;

use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneTransition};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::fields::Fields;
use super::search::{first_from, next_after};

/// Monday first, as systemd sorts them; the numbers are crontab's.
const WEEKDAYS: [(u8, &str); 7] = [
    (1, "Mon"),
    (2, "Tue"),
    (3, "Wed"),
    (4, "Thu"),
    (5, "Fri"),
    (6, "Sat"),
    (0, "Sun"),
];
const EVERY_WEEKDAY: u64 = 0b111_1111;

pub(super) fn calendar_lines(
    fields: &Fields,
    zone: &TimeZone,
    from: Timestamp,
    years: u8,
) -> Vec<String> {
    let mut lines = ordinary(fields);
    // 366 days a year: rather a line too many than one too few.
    let end = from
        .checked_add(SignedDuration::from_hours(24 * 366 * i64::from(years)))
        .unwrap_or(Timestamp::MAX);
    for change in zone.following(from).take_while(|t| t.timestamp() < end) {
        if fields.every_hour() {
            lines.extend(second_pass(fields, zone, &change));
        } else {
            lines.extend(after_the_gap(fields, zone, &change));
        }
    }
    lines
}

fn ordinary(fields: &Fields) -> Vec<String> {
    let months = compact(fields.months, 1, 12);
    let days = compact(fields.days, 1, 31);
    let hours = compact(fields.hours, 0, 23);
    let minutes = compact(fields.minutes, 0, 59);
    let weekdays = weekdays(fields.weekdays);
    let line = |weekdays: &str, days: &str| {
        let space = if weekdays.is_empty() { "" } else { " " };
        format!("{weekdays}{space}*-{months}-{days} {hours}:{minutes}:00")
    };
    if !fields.either_day {
        return vec![line(&weekdays, &days)];
    }
    if weekdays.is_empty() || days == "*" {
        return vec![line("", "*")];
    }
    let by_day = fields.a_day_exists().then(|| line("", &days));
    by_day.into_iter().chain([line(&weekdays, "*")]).collect()
}

/// A line for the end of the gap that this change of the clock makes, if it swallows a run.
fn after_the_gap(
    fields: &Fields,
    zone: &TimeZone,
    change: &TimeZoneTransition<'_>,
) -> Option<String> {
    let resumes = zone.to_datetime(change.timestamp());
    let just_before = resumes.checked_sub(1.nanosecond()).ok()?;
    let AmbiguousOffset::Gap { before, .. } = zone.to_ambiguous_timestamp(just_before).offset()
    else {
        return None;
    };
    let stops = before.to_datetime(change.timestamp());
    let swallowed = first_from(fields, stops, resumes.date()).is_some_and(|due| due < resumes);
    let runs_anyway = first_from(fields, resumes, resumes.date()) == Some(resumes);
    (swallowed && !runs_anyway).then(|| resumes.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// Lines in UTC for the second pass through the times that this change of the clock repeats, one
/// for each hour of UTC that it touches.
fn second_pass(fields: &Fields, zone: &TimeZone, change: &TimeZoneTransition<'_>) -> Vec<String> {
    let begins = change.timestamp();
    let AmbiguousOffset::Fold { before, after } = zone
        .to_ambiguous_timestamp(zone.to_datetime(begins))
        .offset()
    else {
        return Vec::new();
    };
    let ends = begins.saturating_add(before.duration_since(after));
    let Ok(ends) = ends else { return Vec::new() };
    let mut hours: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = begins.saturating_sub(1.nanosecond()).unwrap_or(begins);
    while let Some(due) = next_after(fields, last, zone).filter(|due| *due < ends) {
        let utc = TimeZone::UTC.to_datetime(due);
        *hours
            .entry(utc.strftime("%Y-%m-%d %H").to_string())
            .or_default() |= 1 << utc.minute();
        last = due;
    }
    let line = |(hour, minutes)| format!("{hour}:{}:00 UTC", compact(minutes, 0, 59));
    hours.into_iter().map(line).collect()
}

/// A set in systemd's words: `*`, `00/15` (three or more, to the end of the field), or numbers and `a..b`.
fn compact(set: u64, low: u8, high: u8) -> String {
    let numbers: Vec<u8> = (low..=high).filter(|n| set >> n & 1 == 1).collect();
    if numbers.len() == usize::from(high - low) + 1 {
        return "*".to_owned();
    }
    if let [first, second, .., last] = numbers[..] {
        let step = second - first;
        let even = numbers.windows(2).all(|pair| pair[1] - pair[0] == step);
        if even && step > 1 && last + step > high {
            return format!("{first:02}/{step}");
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        match run {
            [first, _, .., last] => parts.push(format!("{first:02}..{last:02}")),
            few => parts.extend(few.iter().map(|n| format!("{n:02}"))),
        }
    }
    parts.join(",")
}

fn weekdays(set: u64) -> String {
    if set == EVERY_WEEKDAY {
        return String::new();
    }
    let chosen = WEEKDAYS.iter().filter(|(n, _)| set >> n & 1 == 1);
    chosen.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}
