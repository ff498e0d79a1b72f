//! The schedule against an independent table, against its own inverse, and against systemd.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use proptest::prelude::*;

use super::*;
use crate::program::Program;
use crate::secret::Secret;

/// Written by make_next.py beside it, which walks the minutes with Python's zoneinfo.
const NEXT: &str = include_str!("../../../../tests/fixtures/schedule/next.tsv");
const ZONES: [&str; 5] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
];

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect(name)
}

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text).expect(text)
}

#[test]
fn an_error_quotes_the_expression() {
    let error = Schedule::parse(" 0 25 * * * ").expect_err("no such hour");
    assert_eq!(
        error.to_string(),
        "schedule `0 25 * * *`: hour: `25` has 25, which is out of range; allowed: 0-23"
    );
    assert_eq!(schedule(" @daily ").to_string(), "@daily");
}

#[test]
fn the_next_five_are_those_of_the_independent_table() {
    let mut cases = 0;
    for line in NEXT.lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [text, zone_name, from, expected @ ..] = columns.as_slice() else {
            panic!("a line of the table is short: {line}");
        };
        let (schedule, zone) = (schedule(text), zone(zone_name));
        let mut last = at(from);
        let mut found: Vec<String> = Vec::new();
        for _ in expected {
            let next = schedule.next_after(last, &zone).expect(line);
            assert_eq!(schedule.previous(next, &zone), Some(next), "{line}");
            let before_it = next - jiff::SignedDuration::from_nanos(1);
            let previous = schedule.previous(before_it, &zone).expect(line);
            if found.is_empty() {
                assert!(previous <= last, "{line}");
            } else {
                assert_eq!(previous, last, "{line}");
            }
            found.push(next.to_string());
            last = next;
        }
        assert_eq!(found, expected, "{text} in {zone_name} from {from}");
        cases += 1;
    }
    assert!(cases >= 60, "only {cases} cases");
}

#[test]
fn in_the_second_pass_of_an_hour_the_whole_first_pass_lies_behind() {
    let (schedule, zone) = (schedule("0,30 2 * * *"), zone("Europe/Berlin"));
    for (moment, previous) in [
        ("2026-10-25T00:29:59Z", "2026-10-25T00:00:00Z"),
        ("2026-10-25T00:30:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T01:10:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T02:10:00Z", "2026-10-25T00:30:00Z"),
    ] {
        let found = schedule.previous(at(moment), &zone);
        assert_eq!(found, Some(at(previous)), "at {moment}");
    }
}

#[test]
fn the_search_ends_at_the_ends_of_the_calendar() {
    for name in ZONES {
        for text in ["0 0 29 2 */7", "* * * * *", "30 2 * * *"] {
            let (schedule, zone) = (schedule(text), zone(name));
            assert_eq!(schedule.next_after(Timestamp::MAX, &zone), None);
            assert_eq!(schedule.previous(Timestamp::MIN, &zone), None);
        }
    }
}

#[test]
fn calendar_lines_are_short_and_name_the_nights_that_differ() {
    let from = at("2026-11-21T12:00:00Z");
    for (text, zone_name, lines) in [
        ("0 2 * * *", "UTC", &["*-*-* 02:00:00"][..]),
        (
            "0 2 * * *",
            "Europe/Berlin",
            &[
                "*-*-* 02:00:00",
                "2027-03-28 03:00:00",
                "2028-03-26 03:00:00",
            ],
        ),
        ("0 3 * * 0", "Europe/Berlin", &["Sun *-*-* 03:00:00"]),
        (
            "30 2 * * 1-5,0",
            "Europe/Berlin",
            &[
                "Mon,Tue,Wed,Thu,Fri,Sun *-*-* 02:30:00",
                "2027-03-28 03:00:00",
                "2028-03-26 03:00:00",
            ],
        ),
        ("0 2,3 * * *", "Europe/Berlin", &["*-*-* 02,03:00:00"]),
        (
            "15 4 1,15 * FRI-SUN",
            "UTC",
            &["*-*-01,15 04:15:00", "Fri,Sat,Sun *-*-* 04:15:00"],
        ),
        ("0 0 31 2 MON", "UTC", &["Mon *-02-* 00:00:00"]),
        (
            "*/15 8-17 * 1-6,12 *",
            "UTC",
            &["*-01..06,12-* 08..17:00/15:00"],
        ),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            &[
                "*-*-* *:00,30:00",
                "2027-10-31 01:00,30:00 UTC",
                "2028-10-29 01:00,30:00 UTC",
            ],
        ),
        (
            "30 0 * * *",
            "America/Santiago",
            &[
                "*-*-* 00:30:00",
                "2027-09-05 01:00:00",
                "2028-09-03 01:00:00",
            ],
        ),
    ] {
        let found = schedule(text).calendar_lines(&zone(zone_name), from, 2);
        assert_eq!(found, lines, "{text} in {zone_name}");
    }
}

/// What the real systemd makes of a line: its elapses after `from`.
fn elapses(line: &str, zone: &str, from: Timestamp, count: usize) -> BTreeSet<Timestamp> {
    let output = Program::new("systemd-analyze")
        .args(["calendar", &format!("--iterations={count}")])
        .arg(
            from.strftime("--base-time=%Y-%m-%d %H:%M:%S UTC")
                .to_string(),
        )
        .arg(line)
        .env("TZ", Secret::new(zone))
        .env("LC_ALL", Secret::new("C"))
        .output(1 << 20)
        .expect("systemd accepts the line");
    let text = String::from_utf8(output).expect("systemd prints text");
    let elapse = |line: &str| {
        let (label, value) = line.trim().split_once(": ")?;
        let known = label == "(in UTC)" || label == "Next elapse" || label.starts_with("Iter");
        let value = value.trim().strip_suffix(" UTC").filter(|_| known)?;
        let civil = DateTime::strptime("%a %Y-%m-%d %H:%M:%S", value).expect(value);
        Some(TimeZone::UTC.to_timestamp(civil).expect(value))
    };
    text.lines().filter_map(elapse).collect()
}

#[test]
fn systemd_runs_the_lines_when_the_schedule_is_due() {
    const COUNT: usize = 12;
    for (text, zone_name, from) in [
        ("0 2 * * *", "UTC", "2026-11-21T12:00:00Z"),
        ("0 2 * * *", "Europe/Berlin", "2027-03-25T12:00:00Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-22T12:00:00Z"),
        ("*/20 1-3 * * *", "Europe/Berlin", "2027-03-27T12:00:00Z"),
        ("*/20 1-3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"),
        ("0 */2 * * *", "Europe/Berlin", "2027-03-27T16:00:00Z"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-24T22:00:00Z"),
        ("0 * * * *", "Europe/Berlin", "2027-03-27T20:00:00Z"),
        ("59 2 * * SUN", "America/New_York", "2026-02-21T12:00:00Z"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-09-30T12:00:00Z"),
        ("45 * * * *", "Australia/Lord_Howe", "2027-04-03T10:00:00Z"),
        ("30 0 * * *", "America/Santiago", "2026-09-02T12:00:00Z"),
        ("30 23 * * *", "America/Santiago", "2027-04-01T12:00:00Z"),
        ("0 0 13,31 * FRI", "Europe/Berlin", "2026-11-01T12:00:00Z"),
        ("0 5 */9 JAN-MAR/2 6,7", "UTC", "2026-11-01T12:00:00Z"),
        ("0 0 29 2 *", "UTC", "2026-11-01T12:00:00Z"),
    ] {
        let (schedule, zone, from) = (schedule(text), zone(zone_name), at(from));
        let lines = schedule.calendar_lines(&zone, from, 2);
        let union: BTreeSet<Timestamp> = lines
            .iter()
            .flat_map(|line| elapses(line, zone_name, from, COUNT))
            .collect();
        let mut expected = Vec::new();
        while expected.len() < COUNT {
            let last = expected.last().copied().unwrap_or(from);
            expected.push(schedule.next_after(last, &zone).expect(text));
        }
        let found: Vec<Timestamp> = union.into_iter().take(COUNT).collect();
        assert_eq!(found, expected, "{text} in {zone_name}: {lines:?}");
    }
}

fn field(low: u8, high: u8) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (low..=high).prop_map(|n| n.to_string()),
        1 => (1..=high).prop_map(|n| format!("*/{n}")),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
    ]
}

fn any_schedule() -> impl Strategy<Value = Schedule> {
    // Half of them at the hours when clocks are changed.
    let hours = prop_oneof![field(0, 23), field(0, 3)];
    let fields = (field(0, 59), hours, field(1, 31), field(1, 12), field(0, 7));
    fields.prop_filter_map("never happens", |(m, h, d, mo, w)| {
        Schedule::parse(&format!("{m} {h} {d} {mo} {w}")).ok()
    })
}

/// A zone and an instant of some forty years, half of them within hours of a change of the clock.
fn any_moment() -> impl Strategy<Value = (TimeZone, Timestamp)> {
    let seconds = 1_000_000_000_i64..2_300_000_000;
    let near = proptest::option::of(-9_000_i64..9_000);
    (0..ZONES.len(), seconds, near).prop_map(|(index, second, near)| {
        let zone = zone(ZONES[index]);
        let moment = Timestamp::from_second(second).expect("in range");
        let change = zone.following(moment).next().map(|t| t.timestamp());
        let moment = match change.zip(near) {
            Some((change, seconds)) => change + jiff::SignedDuration::from_secs(seconds),
            None => moment,
        };
        (zone, moment)
    })
}

/// Whether the minute at `instant` is one of the schedule's wall-clock times.
fn on_the_clock(schedule: &Schedule, instant: Timestamp, zone: &TimeZone) -> bool {
    let local = zone.to_datetime(instant);
    search::first_from(&schedule.fields, local, local.date()) == Some(local)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_next_run_is_later_and_on_the_clock_or_at_the_end_of_a_gap(
        schedule in any_schedule(),
        (zone, from) in any_moment(),
    ) {
        let next = schedule.next_after(from, &zone).expect("due within the search");
        prop_assert!(next > from);
        if !on_the_clock(&schedule, next, &zone) {
            let gap_ends = zone.preceding(next + jiff::SignedDuration::from_nanos(1)).next();
            prop_assert_eq!(gap_ends.map(|t| t.timestamp()), Some(next));
        }
    }

    #[test]
    fn nothing_is_due_between_the_previous_and_the_next_run(
        schedule in any_schedule(),
        (zone, from) in any_moment(),
    ) {
        let next = schedule.next_after(from, &zone).expect("due within the search");
        let previous = schedule.previous(from, &zone).expect("due within the search");
        prop_assert!(previous <= from);
        prop_assert_eq!(schedule.next_after(previous, &zone), Some(next));
        prop_assert_eq!(schedule.previous(next, &zone), Some(next));
        let just_before = next - jiff::SignedDuration::from_nanos(1);
        prop_assert_eq!(schedule.previous(just_before, &zone), Some(previous));
    }
}
