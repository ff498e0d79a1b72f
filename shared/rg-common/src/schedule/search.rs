//! From wall-clock times to instants, across daylight saving.
//!
//! The promise: every search ends. Dates are walked by months and days, at most
//! [`SEARCH_YEARS`] years, and never minute by minute.

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};

use super::fields::{Fields, has};

/// How far a due time can be away: 29 February falls on a given weekday every 28 years, and over
/// a century without a leap day (2100) every 40.
pub(super) const SEARCH_YEARS: i16 = 41;

pub(super) fn next_after(fields: &Fields, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let last = Date::new(zone.to_datetime(after).year() + SEARCH_YEARS, 12, 31).ok()?;
    if fields.every_hour() {
        return next_ticking(fields, after, zone, last);
    }
    // Wall-clock times map to instants in order, so the first that lies after `after` is it.
    let mut from = minute_of(zone.to_datetime(after));
    loop {
        let civil = first_from(fields, from, last)?;
        let instant = instant_of(civil, zone)?;
        if instant > after {
            return Some(instant);
        }
        from = civil.checked_add(1.minute()).ok()?;
    }
}

pub(super) fn previous(
    fields: &Fields,
    before_or_at: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    let mut to = minute_of(zone.to_datetime(before_or_at));
    let last = Date::new(to.year() - SEARCH_YEARS, 1, 1).ok()?;
    if fields.every_hour() {
        return previous_ticking(fields, before_or_at, zone, last);
    }
    // In the second pass through an hour, the whole first pass already lies behind.
    if let AmbiguousOffset::Fold { before, after } = zone.to_ambiguous_timestamp(to).offset() {
        to = to.checked_add(before.duration_since(after)).ok()?;
    }
    loop {
        let civil = last_until(fields, to, last)?;
        let instant = instant_of(civil, zone)?;
        if instant <= before_or_at {
            return Some(instant);
        }
        to = civil.checked_sub(1.minute()).ok()?;
    }
}

/// The stretches between two changes of the clock, one after the other; within one, wall-clock
/// time and elapsed time are the same.
fn next_ticking(
    fields: &Fields,
    after: Timestamp,
    zone: &TimeZone,
    last: Date,
) -> Option<Timestamp> {
    let mut start = after.checked_add(1.nanosecond()).ok()?;
    loop {
        let offset = zone.to_offset(start);
        let end = zone.following(start).next().map(|t| t.timestamp());
        let civil = offset.to_datetime(start);
        let minute = match minute_of(civil) {
            whole if whole == civil => whole,
            begun => begun.checked_add(1.minute()).ok()?,
        };
        let found = first_from(fields, minute, last)?;
        let instant = offset.to_timestamp(found).ok()?;
        match end {
            Some(end) if instant >= end => start = end,
            _ => return Some(instant),
        }
    }
}

fn previous_ticking(
    fields: &Fields,
    before_or_at: Timestamp,
    zone: &TimeZone,
    last: Date,
) -> Option<Timestamp> {
    let mut end = before_or_at;
    loop {
        let offset = zone.to_offset(end);
        let above = end.checked_add(1.nanosecond()).ok()?;
        let start = zone.preceding(above).next().map(|t| t.timestamp());
        let found = last_until(fields, minute_of(offset.to_datetime(end)), last)?;
        let instant = offset.to_timestamp(found).ok()?;
        match start {
            Some(start) if instant < start => end = start.checked_sub(1.nanosecond()).ok()?,
            _ => return Some(instant),
        }
    }
}

/// When a wall-clock time happens: the first time if twice, the end of the gap if never.
fn instant_of(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(civil).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(civil).ok(),
        AmbiguousOffset::Gap { after, .. } => {
            let before_the_gap = after.to_timestamp(civil).ok()?;
            Some(zone.following(before_the_gap).next()?.timestamp())
        }
    }
}

/// The first matching wall-clock minute at or after `from`.
pub(super) fn first_from(fields: &Fields, from: DateTime, last: Date) -> Option<DateTime> {
    let (mut date, mut hour, mut minute) = (from.date(), from.hour(), from.minute());
    while date <= last {
        if fields.matches_date(date) {
            let same_hour = has(fields.hours, hour)
                .then(|| at_or_above(fields.minutes, minute))
                .flatten();
            let found = match same_hour {
                Some(minute) => Some((hour, minute)),
                None => at_or_above(fields.hours, hour + 1).zip(at_or_above(fields.minutes, 0)),
            };
            if let Some((hour, minute)) = found {
                return Some(date.at(hour, minute, 0, 0));
            }
        }
        if !has(fields.months, date.month()) {
            date = date.last_of_month();
        }
        date = date.tomorrow().ok()?;
        (hour, minute) = (0, 0);
    }
    None
}

/// The last matching wall-clock minute at or before `to`.
fn last_until(fields: &Fields, to: DateTime, last: Date) -> Option<DateTime> {
    let (mut date, mut hour, mut minute) = (to.date(), to.hour(), to.minute());
    while date >= last {
        if fields.matches_date(date) {
            let same_hour = has(fields.hours, hour)
                .then(|| at_or_below(fields.minutes, minute))
                .flatten();
            let found = match same_hour {
                Some(minute) => Some((hour, minute)),
                None => at_or_below(fields.hours, hour - 1).zip(at_or_below(fields.minutes, 59)),
            };
            if let Some((hour, minute)) = found {
                return Some(date.at(hour, minute, 0, 0));
            }
        }
        if !has(fields.months, date.month()) {
            date = date.first_of_month();
        }
        date = date.yesterday().ok()?;
        (hour, minute) = (23, 59);
    }
    None
}

fn at_or_above(set: u64, number: i8) -> Option<i8> {
    (number..64).find(|n| has(set, *n))
}

fn at_or_below(set: u64, number: i8) -> Option<i8> {
    (0..=number).rev().find(|n| has(set, *n))
}

fn minute_of(civil: DateTime) -> DateTime {
    civil.date().at(civil.hour(), civil.minute(), 0, 0)
}
