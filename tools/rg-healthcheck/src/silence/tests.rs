//! Silences end; windows know daylight saving.

use jiff::tz::TimeZone;
use rg_common::check::State;
use rg_common::schedule::Schedule;

use super::*;
use crate::state::tests::Place;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn finding(id: &str, environment: Option<&str>) -> Finding {
    Finding {
        id: id.to_owned(),
        environment: environment.map(str::to_owned),
        about: String::new(),
        state: State::Fail,
        found: String::new(),
        fix: None,
        figures: Vec::new(),
        evidence: Vec::new(),
        took_ms: 0,
        because: None,
    }
}

#[test]
fn a_silence_ends_by_itself_whatever_the_clock_does() {
    let place = Place::new("silence_ends");
    let now = at("2026-11-22T03:00:00Z");
    let ten = Duration::from_secs(600);
    let what = vec!["production".to_owned()];
    let set = begin(&place.0, what, ten, "deploy", now).unwrap();
    assert_eq!(set.until, at("2026-11-22T03:10:00Z"));
    assert!(!set.who.is_empty());
    assert_eq!(list(&place.0, now).unwrap(), std::slice::from_ref(&set));
    let on = quiet(&[], &[set], now);
    assert_eq!(on.len(), 1);
    assert!(on[0].why.ends_with(": deploy"), "{on:?}");
    assert!(on[0].covers(&finding("production/http", Some("production"))));
    assert!(!on[0].covers(&finding("staging/http", Some("staging"))));
    for later in [
        "2026-11-22T03:10:00Z",
        "2027-11-22T03:00:00Z",
        "2026-11-21T03:00:00Z",
    ] {
        assert_eq!(list(&place.0, at(later)).unwrap(), [], "{later}");
    }
}

#[test]
fn a_silence_without_reason_or_end_is_refused_and_all_can_be_ended() {
    let place = Place::new("silence_refused");
    let now = at("2026-11-22T03:00:00Z");
    let day = Duration::from_secs(86_400);
    let error = |lasts, reason: &str, what: Vec<String>| {
        begin(&place.0, what, lasts, reason, now)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(error(day * 8, "x", vec![]), "a silence lasts 7d at most");
    assert_eq!(
        error(day, " ", vec![]),
        "the reason must be one line of at most 300 bytes"
    );
    assert_eq!(
        error(day, "x", vec![String::new()]),
        "an empty word would silence everything"
    );
    begin(&place.0, vec!["http".to_owned()], day, "x", now).unwrap();
    assert_eq!(end(&place.0, now).unwrap().len(), 1);
    assert_eq!(list(&place.0, now).unwrap(), []);
    // A damaged file silences nothing, and says so.
    std::fs::write(path(&place.0), "{").unwrap();
    let failure = list(&place.0, now).unwrap_err().to_string();
    assert!(
        failure.starts_with("cannot read the silences in "),
        "{failure}"
    );
}

#[test]
fn a_window_is_on_in_its_own_time_zone_over_daylight_saving() {
    let window = Maintenance {
        name: "updates".to_owned(),
        environment: Some("production".to_owned()),
        begins: Schedule::parse("30 2 * * *").unwrap(),
        lasts: Duration::from_secs(3600),
        zone: TimeZone::get("Europe/Vienna").unwrap(),
    };
    let on = |time: &str| !quiet(std::slice::from_ref(&window), &[], at(time)).is_empty();
    // Winter: 02:30 is 01:30 UTC.
    assert!(!on("2026-01-10T01:29:59Z") && on("2026-01-10T01:30:00Z"));
    assert!(on("2026-01-10T02:29:59Z") && !on("2026-01-10T02:30:00Z"));
    // Summer: 02:30 is 00:30 UTC.
    assert!(on("2026-07-10T00:30:00Z") && !on("2026-07-10T01:30:00Z"));
    // The night without 02:30: it begins after the gap, at 01:00 UTC.
    assert!(on("2026-03-29T01:10:00Z") && !on("2026-03-29T02:10:00Z"));
    let quiet = quiet(
        std::slice::from_ref(&window),
        &[],
        at("2026-01-10T02:00:00Z"),
    );
    assert!(
        !quiet[0].covers(&finding("host/disk", None)),
        "only its environment"
    );
}
