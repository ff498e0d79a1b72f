//! Whole plans as literals, and what no series of backups and no clock may bring about.

use jiff::ToSpan;
use proptest::prelude::*;

use super::*;

const DATASET: &str = "production/database";

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

/// A candidate from `2026-11-20T02:00:00Z` and the words `pinned` and `unproven`.
fn candidate(text: &str) -> Candidate {
    let (stamp, words) = text.split_once(' ').unwrap_or((text, ""));
    Candidate {
        dataset: DATASET.to_owned(),
        stamp: at(stamp),
        pinned: words.contains("pinned"),
        proven: !words.contains("unproven"),
        bytes: 1_000,
    }
}

fn candidates(texts: &[&str]) -> Vec<Candidate> {
    texts.iter().map(|text| candidate(text)).collect()
}

fn fates(candidates: &[Candidate], keep: &Keep, now: Timestamp) -> Vec<Fate> {
    plan(DATASET, candidates, keep, now, &TimeZone::UTC).expect("a plan")
}

/// The whole plan as an operator reads it.
fn printed(texts: &[&str], keep: &Keep, now: &str) -> Vec<String> {
    let fates = fates(&candidates(texts), keep, at(now));
    fates.iter().map(Fate::to_string).collect()
}

fn days(days: u32) -> Keep {
    Keep {
        days: Some(days),
        ..Keep::default()
    }
}

fn last(last: u32) -> Keep {
    Keep {
        last: Some(last),
        ..Keep::default()
    }
}

#[test]
fn failed_backups_do_not_push_out_the_last_good_one() {
    assert_eq!(
        printed(
            &[
                "2026-11-10T02:00:00Z",
                "2026-11-11T02:00:00Z",
                "2026-11-19T02:00:00Z unproven",
                "2026-11-20T02:00:00Z unproven",
                "2026-11-21T02:00:00Z unproven",
            ],
            &last(2),
            "2026-11-21T02:05:00Z"
        ),
        [
            "kept: number 2 of keep.last = 2",
            "kept: newest proven",
            "kept: not proven, but no proven backup of production/database is newer",
            "kept: not proven, but no proven backup of production/database is newer",
            "kept: not proven, but no proven backup of production/database is newer",
        ]
    );
}

#[test]
fn without_a_proven_backup_nothing_is_deleted() {
    assert_eq!(
        printed(
            &[
                "2020-01-01T02:00:00Z unproven",
                "2026-11-21T02:00:00Z unproven"
            ],
            &days(7),
            "2026-11-21T02:05:00Z"
        ),
        [
            "kept: no backup of production/database is proven",
            "kept: no backup of production/database is proven",
        ]
    );
}

#[test]
fn another_datasets_backup_is_refused() {
    let mut foreign = candidates(&["2026-11-20T02:00:00Z", "2026-11-21T02:00:00Z"]);
    foreign[0].dataset = "production/database2".to_owned();
    let now = at("2026-11-21T02:05:00Z");
    let error = plan(DATASET, &foreign, &days(7), now, &TimeZone::UTC).expect_err("mixed");
    assert_eq!(
        error.to_string(),
        "retention of production/database was given a backup of production/database2; \
         nothing was deleted"
    );
}

#[test]
fn a_keep_without_rules_is_refused() {
    let one = candidates(&["2026-11-20T02:00:00Z"]);
    let now = at("2026-11-21T02:05:00Z");
    assert!(plan(DATASET, &one, &Keep::default(), now, &TimeZone::UTC).is_err());
    assert!(plan(DATASET, &one, &days(0), now, &TimeZone::UTC).is_err());
    assert_eq!(fates(&[], &days(7), now), []);
}

#[test]
fn seven_days_are_kept_and_the_eighth_goes() {
    assert_eq!(
        printed(
            &[
                "2026-11-21T02:00:00Z",
                "2026-11-18T02:00:00Z",
                "2026-11-14T02:00:00Z",
                "2026-11-13T03:00:00Z",
                "2026-11-13T02:00:00Z",
                "2026-11-13T01:00:00Z unproven",
                "2026-10-01T02:00:00Z pinned",
            ],
            &days(7),
            "2026-11-21T02:05:00Z"
        ),
        [
            "kept: newest proven",
            "kept: 3 days old, keep.days = 7",
            "kept: 7 days old, keep.days = 7",
            "kept: 7 days old, keep.days = 7",
            "deleted: 8 days old, no rule wants it; production/database@20261121_020000 is newer and proven",
            "deleted: 8 days old, not proven, no rule wants it; production/database@20261121_020000 is newer and proven",
            "kept: pinned",
        ]
    );
}

#[test]
fn every_rule_adds_what_it_wants() {
    let keep = Keep {
        last: Some(2),
        daily: Some(2),
        weekly: Some(2),
        monthly: Some(2),
        yearly: Some(3),
        ..Keep::default()
    };
    assert_eq!(
        printed(
            &[
                "2024-05-05T02:00:00Z",
                "2025-12-31T02:00:00Z",
                "2026-10-01T02:00:00Z",
                "2026-10-31T02:00:00Z",
                "2026-11-14T02:00:00Z",
                "2026-11-15T02:00:00Z",
                "2026-11-19T02:00:00Z",
                "2026-11-20T02:00:00Z",
                "2026-11-21T02:00:00Z",
                "2026-11-21T14:00:00Z",
            ],
            &keep,
            "2026-11-21T14:05:00Z"
        ),
        [
            "kept: newest of year 2024",
            "kept: newest of year 2025",
            "deleted: 51 days old, no rule wants it; production/database@20261121_140000 is newer and proven",
            "kept: newest of month 2026-10",
            "deleted: 7 days old, no rule wants it; production/database@20261121_140000 is newer and proven",
            "kept: newest of week 2026-W46",
            "deleted: 2 days old, no rule wants it; production/database@20261121_140000 is newer and proven",
            "kept: newest of day 2026-11-20",
            "kept: number 2 of keep.last = 2",
            "kept: newest proven",
        ]
    );
}

#[test]
fn days_and_weeks_are_those_of_the_zone() {
    // 23:30 UTC on Sunday is Monday in Berlin.
    let series = candidates(&[
        "2026-11-15T12:00:00Z",
        "2026-11-15T23:30:00Z",
        "2026-11-16T12:00:00Z",
    ]);
    let keep = Keep {
        weekly: Some(2),
        ..Keep::default()
    };
    let berlin = TimeZone::get("Europe/Berlin").expect("Berlin");
    let now = at("2026-11-16T12:05:00Z");
    let fates = plan(DATASET, &series, &keep, now, &berlin).expect("a plan");
    assert_eq!(fates[0], Fate::Keep("newest of week 2026-W46".to_owned()));
    assert!(matches!(fates[1], Fate::Delete(_)));
}

#[test]
fn backups_never_proven_are_not_swept_away_by_the_first_proven_one() {
    assert_eq!(
        printed(
            &[
                "2026-11-18T02:00:00Z unproven",
                "2026-11-19T02:00:00Z unproven",
                "2026-11-20T02:00:00Z unproven",
                "2026-11-21T02:00:00Z",
            ],
            &last(3),
            "2026-11-21T02:05:00Z"
        ),
        [
            "deleted: 3 days old, not proven, no rule wants it; production/database@20261121_020000 is newer and proven",
            "kept: number 3 of keep.last = 3, not proven",
            "kept: number 2 of keep.last = 3, not proven",
            "kept: newest proven",
        ]
    );
}

#[test]
fn a_clock_a_year_off_does_nothing() {
    let texts = [
        "2026-11-14T02:00:00Z",
        "2026-11-15T02:00:00Z",
        "2026-11-21T02:00:00Z",
    ];
    assert_eq!(
        printed(&texts, &days(7), "2027-11-21T02:05:00Z"),
        [
            "kept: 7 days older than production/database@20261121_020000, keep.days = 7",
            "kept: 6 days older than production/database@20261121_020000, keep.days = 7",
            "kept: newest proven",
        ]
    );
    let doubt = "kept: production/database@20261121_020000 lies in the future, \
                 so the clock is or was wrong";
    assert_eq!(
        printed(&texts, &last(1), "2025-11-21T02:05:00Z"),
        [doubt; 3]
    );
}

#[test]
fn one_backup_made_by_a_clock_a_year_ahead_outdates_nothing() {
    assert_eq!(
        printed(
            &[
                "2026-11-12T02:00:00Z",
                "2026-11-20T02:00:00Z",
                "2026-11-21T02:00:00Z",
                "2027-11-21T02:00:00Z",
            ],
            &days(7),
            "2027-11-21T02:05:00Z"
        ),
        [
            "deleted: 374 days old, no rule wants it; production/database@20271121_020000 is newer and proven",
            "kept: 1 day older than production/database@20261121_020000, keep.days = 7",
            "kept: 0 days older than production/database@20261121_020000, keep.days = 7",
            "kept: newest proven",
        ]
    );
}

fn any_keep() -> impl Strategy<Value = Keep> {
    let rule = || proptest::option::of(1_u32..6);
    let rules = (
        proptest::option::of(1_u32..40),
        rule(),
        rule(),
        rule(),
        rule(),
        rule(),
    );
    rules
        .prop_map(|(days, last, daily, weekly, monthly, yearly)| Keep {
            days,
            last,
            daily,
            weekly,
            monthly,
            yearly,
        })
        .prop_filter("no rule", |keep| keep.validate().is_ok())
}

/// Backups of some hundred days before [`now`], many of them close together; each stamp once.
fn any_series() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        prop_oneof![3 => 0_i64..1_000, 1 => 0_i64..20_000],
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.7),
    );
    proptest::collection::vec(one, 0..30).prop_map(|backups| {
        let mut seen = HashSet::new();
        let fresh = backups
            .into_iter()
            .filter(|(hours, ..)| seen.insert(*hours));
        fresh
            .map(|(hours, pinned, proven)| Candidate {
                dataset: DATASET.to_owned(),
                stamp: now() - hours.hours(),
                pinned,
                proven,
                bytes: 1,
            })
            .collect()
    })
}

fn now() -> Timestamp {
    at("2026-11-21T02:05:00Z")
}

fn survivors(candidates: &[Candidate], fates: &[Fate]) -> Vec<Candidate> {
    let kept = candidates.iter().zip(fates);
    kept.filter(|(_, fate)| matches!(fate, Fate::Keep(_)))
        .map(|(candidate, _)| candidate.clone())
        .collect()
}

fn newest_proven(candidates: &[Candidate]) -> Option<Timestamp> {
    candidates
        .iter()
        .filter(|c| c.proven)
        .map(|c| c.stamp)
        .max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn only_what_is_older_than_a_newer_proven_backup_goes(
        series in any_series(), keep in any_keep(),
    ) {
        let fates = fates(&series, &keep, now());
        let left = survivors(&series, &fates);
        prop_assert_eq!(newest_proven(&left), newest_proven(&series));
        for (candidate, fate) in series.iter().zip(&fates) {
            if matches!(fate, Fate::Delete(_)) {
                prop_assert!(!candidate.pinned);
                prop_assert!(newest_proven(&left).is_some_and(|newest| newest > candidate.stamp));
            }
        }
    }

    #[test]
    fn a_plan_on_its_survivors_deletes_nothing_further(
        series in any_series(), keep in any_keep(),
    ) {
        let left = survivors(&series, &fates(&series, &keep, now()));
        prop_assert_eq!(survivors(&left, &fates(&left, &keep, now())), left);
    }

    #[test]
    fn the_order_of_the_candidates_does_not_matter(
        series in any_series(), keep in any_keep(), turn in 0_usize..30,
    ) {
        let mut turned = series.clone();
        turned.reverse();
        turned.rotate_left(turn % series.len().max(1));
        let planned = fates(&turned, &keep, now());
        let expected = fates(&series, &keep, now());
        for (candidate, fate) in turned.iter().zip(planned) {
            let index = series.iter().position(|c| c == candidate).expect("the same series");
            prop_assert_eq!(&fate, &expected[index]);
        }
    }

    #[test]
    fn a_backup_that_is_not_proven_never_costs_a_proven_one(
        series in any_series(), keep in any_keep(), hours in 0_i64..2_000,
    ) {
        let before = fates(&series, &keep, now());
        let mut more = series.clone();
        more.push(Candidate {
            dataset: DATASET.to_owned(),
            stamp: now() - hours.hours() + 1.minute(),
            pinned: false,
            proven: false,
            bytes: 1,
        });
        let after = fates(&more, &keep, now());
        for ((candidate, before), after) in series.iter().zip(&before).zip(&after) {
            if candidate.proven {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn a_wrong_clock_never_deletes_more(
        series in any_series(), keep in any_keep(), off in -400_i64..400,
    ) {
        let right = survivors(&series, &fates(&series, &keep, now()));
        let wrong_now = now() + (off * 24).hours();
        let wrong = survivors(&series, &fates(&series, &keep, wrong_now));
        let in_doubt = series.iter().any(|c| c.stamp.duration_since(wrong_now) > CLOCK_SLACK);
        prop_assert_eq!(wrong, if in_doubt { series } else { right });
    }
}
