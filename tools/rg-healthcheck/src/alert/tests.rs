//! Cases by name.

use rg_common::check::Finding;
use std::time::Duration;

use super::*;

/// One check `p/http` over runs a minute apart; `.` passes, `w` warns, `F` fails, `?` cannot tell, `s` skips.
struct Story {
    memory: Memory,
    rules: Rules,
    now: Timestamp,
}

impl Story {
    fn new(after: Patience) -> Story {
        let channel = |name: &str, level| Channel {
            name: name.to_owned(),
            level,
            fallback: false,
        };
        Story {
            memory: Memory {
                series: "s".to_owned(),
                ..Memory::default()
            },
            rules: Rules {
                patience: BTreeMap::new(),
                alerts: AlertsConfig {
                    after,
                    recover_after: 2,
                    remind: Duration::from_secs(3600),
                    history: Duration::from_secs(86_400),
                },
                quiet: Vec::new(),
                channels: vec![channel("ops", Level::Warn), channel("phone", Level::Fail)],
            },
            now: "2026-11-22T03:00:00Z".parse().unwrap(),
        }
    }

    fn round(&mut self, findings: &[Finding]) -> Vec<Notice> {
        self.now = self
            .now
            .checked_add(jiff::SignedDuration::from_secs(60))
            .unwrap();
        let known = BTreeSet::from(["p/http".to_owned(), "p/db".to_owned()]);
        let round = Round {
            findings,
            known: &known,
            now: self.now,
        };
        let (memory, notices) = decide(&self.memory, &round, &self.rules);
        self.memory = memory;
        notices
    }

    /// The kinds of what was told, in order, `-` where nothing was, with the channels.
    fn tells(&mut self, runs: &str) -> String {
        let mut told = Vec::new();
        for run in runs.chars() {
            let notices = self.round(&[finding("p/http", run, None)]);
            told.push(match notices.as_slice() {
                [] => "-".to_owned(),
                [one] => format!("{:?}>{}", one.kind, one.to.join("+")),
                more => panic!("{more:?}"),
            });
        }
        told.join(" ")
    }

    fn quiet(&mut self, is: bool) {
        self.rules.quiet.clear();
        if is {
            self.rules.quiet.push(Quiet {
                why: "maintenance updates".to_owned(),
                until: Timestamp::MAX,
                environment: Some("p".to_owned()),
                what: Vec::new(),
            });
        }
    }
}

fn finding(id: &str, state: char, because: Option<&str>) -> Finding {
    Finding {
        id: id.to_owned(),
        environment: Some("p".to_owned()),
        about: "the app answers".to_owned(),
        state: match state {
            '.' => State::Pass,
            's' => State::Skip,
            'w' => State::Warn,
            '?' => State::Unknown,
            _ => State::Fail,
        },
        found: match state {
            '.' => "answered 200 in 41 ms".to_owned(),
            _ => "it answered 500".to_owned(),
        },
        fix: Some("systemctl status app".to_owned()),
        figures: Vec::new(),
        evidence: vec!["ERROR: out of \u{1b}[31mmemory".to_owned()],
        took_ms: 5,
        because: because.map(str::to_owned),
    }
}

#[test]
fn a_blip_is_not_told_and_a_failure_is_told_once_with_its_end() {
    let mut story = Story::new(Patience::InARow(2));
    assert_eq!(
        story.tells(".F.FFFF.F..."),
        "- - - - Opened>ops+phone - - - - - Recovered>ops+phone -"
    );
    assert!(story.memory.checks["p/http"].incident.is_none());
}

#[test]
fn a_warning_that_becomes_a_failure_is_told_at_once_to_who_wants_failures_alone() {
    let mut story = Story::new(Patience::InARow(2));
    assert_eq!(
        story.tells("ww?Fw.."),
        "- Opened>ops - Escalated>ops+phone - - Recovered>ops+phone"
    );
    let mut story = Story::new(Patience::InARow(1));
    assert_eq!(story.tells("w.."), "Opened>ops - Recovered>ops");
}

#[test]
fn so_many_of_so_many_runs_are_an_incident_until_they_are_fewer() {
    let mut story = Story::new(Patience::MOfN { m: 3, n: 5 });
    assert_eq!(
        story.tells("F.F.F....."),
        "- - - - Opened>ops+phone - Recovered>ops+phone - - -"
    );
    let mut story = Story::new(Patience::MOfN { m: 3, n: 5 });
    assert_eq!(story.tells("F..F..F..F"), "- - - - - - - - - -");
}

#[test]
fn a_skipped_run_changes_nothing() {
    let mut story = Story::new(Patience::InARow(2));
    assert_eq!(
        story.tells("FssFs.s."),
        "- - - Opened>ops+phone - - - Recovered>ops+phone"
    );
}

#[test]
fn maintenance_is_silent_and_what_is_still_bad_after_it_is_told_then() {
    let mut story = Story::new(Patience::InARow(1));
    story.quiet(true);
    assert_eq!(story.tells("FF.."), "- - - -", "begun and ended inside");
    assert_eq!(story.tells("FFF"), "- - -");
    story.quiet(false);
    assert_eq!(story.tells("F"), "Opened>ops+phone");
    let opened = story.memory.checks["p/http"]
        .incident
        .as_ref()
        .unwrap()
        .opened;
    assert_eq!(
        story.now.duration_since(opened).as_secs(),
        180,
        "since it began"
    );
    story.quiet(true);
    assert_eq!(
        story.tells("F.."),
        "- - Recovered>ops+phone",
        "an end is told"
    );
}

#[test]
fn a_consequence_is_listed_under_its_cause_and_still_resolves() {
    let mut story = Story::new(Patience::InARow(1));
    assert_eq!(story.tells("F"), "Opened>ops+phone");
    let told = story.round(&[
        finding("p/db", 'F', None),
        finding("p/http", 'F', Some("p/db")),
    ]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].check, "p/db");
    assert_eq!(told[0].consequences, ["fail p/http: it answered 500"]);
    story.round(&[finding("p/db", 'F', None), finding("p/http", '.', None)]);
    let told = story.round(&[finding("p/db", 'F', None), finding("p/http", '.', None)]);
    assert_eq!(
        (told[0].kind, told[0].check.as_str()),
        (Kind::Recovered, "p/http")
    );
    // A cause that is well, not there, or its own consequence keeps nothing quiet.
    for (db, because_db) in [('.', None), ('F', Some("p/http"))] {
        let mut story = Story::new(Patience::InARow(1));
        let told = story.round(&[
            finding("p/db", db, because_db),
            finding("p/http", 'F', Some("p/db")),
        ]);
        assert!(
            told.iter().any(|notice| notice.check == "p/http"),
            "{told:?}"
        );
    }
    let told = Story::new(Patience::InARow(1)).round(&[finding("p/http", 'F', Some("p/db"))]);
    assert_eq!(told.len(), 1);
}

#[test]
fn what_comes_and_goes_is_told_as_flapping_once_and_as_steady_once() {
    let mut story = Story::new(Patience::InARow(1));
    assert_eq!(
        story.tells("F..F..F..F..F"),
        "Opened>ops+phone - Recovered>ops+phone Opened>ops+phone - Recovered>ops+phone \
         Flapping>ops+phone - - - - - -"
    );
    let well = story.tells("...............");
    assert_eq!(well.replace("- ", ""), "-", "{well}");
    assert_eq!(story.tells("."), "Recovered>ops+phone");
}

#[test]
fn reminders_wait_anew_when_the_clock_was_set_back() {
    let mut story = Story::new(Patience::InARow(1));
    let hours = |story: &mut Story, hours: i64| {
        let span = jiff::SignedDuration::from_hours(hours);
        story.now = story.now.checked_add(span).unwrap();
    };
    story.rules.channels.truncate(1);
    assert_eq!(story.tells("FF"), "Opened>ops -");
    story.memory.outbox = Outbox::default();
    hours(&mut story, 1);
    assert_eq!(story.tells("FF"), "Reminder>ops -");
    hours(&mut story, -24);
    assert_eq!(story.tells("FF"), "- -");
    hours(&mut story, 1);
    assert_eq!(story.tells("FF"), "Reminder>ops -");
    hours(&mut story, 24 * 365);
    assert_eq!(story.tells("FF"), "Reminder>ops -");
    hours(&mut story, -24 * 366);
    let told = story.tells("..");
    assert_eq!(told, "- Recovered>ops");
    let last = &story.memory.outbox.letters.last().unwrap().notice;
    assert_eq!(last.lasted_s, None, "nobody knows how long it was");
}

#[test]
fn a_check_that_left_the_configuration_closes_its_incident() {
    let mut story = Story::new(Patience::InARow(1));
    assert_eq!(story.tells("F"), "Opened>ops+phone");
    let round = Round {
        findings: &[],
        known: &BTreeSet::new(),
        now: story.now,
    };
    let (memory, notices) = decide(&story.memory, &round, &story.rules);
    assert_eq!(notices[0].kind, Kind::Gone);
    assert_eq!(notices[0].to, ["ops", "phone"]);
    assert!(memory.checks.is_empty());
}

#[test]
fn an_alert_says_what_since_when_and_what_to_do() {
    let mut story = Story::new(Patience::InARow(2));
    story.tells("..FF");
    outbox::seal(&mut story.memory, &story.rules.channels);
    let parcel = &story.memory.outbox.parcels("phone")[0];
    let message = compose(parcel, "vps-1", &jiff::tz::TimeZone::UTC);
    assert_eq!(message.subject, "[vps-1] FAIL p/http: it answered 500");
    assert_eq!(
        message.text,
        "FAIL p/http (the app answers)\n  where  p\n  found  it answered 500\n  \
         since  2026-11-22 03:03:00 UTC, for 1 min\n  \
         before 2026-11-22 03:02:00 UTC: answered 200 in 41 ms\n  \
         | ERROR: out of  [31mmemory\n  do     systemctl status app\n"
    );
    assert_eq!(message.document["notices"][0]["kind"], "opened");
    assert_eq!(message.document["notices"][0]["check"], "p/http");
    assert_eq!(message.key, parcel.key);
    story.tells("..");
    story.memory.outbox.delivered("ops", &parcel.key.clone());
    outbox::seal(&mut story.memory, &story.rules.channels);
    let parcels = story.memory.outbox.parcels("ops");
    let message = compose(parcels.last().unwrap(), "vps-1", &jiff::tz::TimeZone::UTC);
    assert_eq!(message.subject, "[vps-1] RECOVERED p/http after 3 min");
}

#[test]
fn a_full_outbox_drops_reminders_first_and_counts_what_else_it_drops() {
    let mut memory = Memory::default();
    let mut notice = Notice::new(Kind::Opened, Level::Fail, Timestamp::UNIX_EPOCH);
    notice.to = vec!["ops".to_owned()];
    for n in 0..outbox::LETTERS_MAX as u64 {
        notice.incident = n;
        memory.outbox.put(&notice, Timestamp::UNIX_EPOCH);
    }
    notice.kind = Kind::Reminder;
    notice.incident = 1_000_000;
    memory.outbox.put(&notice, Timestamp::UNIX_EPOCH);
    assert_eq!(memory.outbox.letters.len(), outbox::LETTERS_MAX);
    assert!(memory.outbox.dropped.is_empty(), "it was a reminder");
    notice.kind = Kind::Recovered;
    memory.outbox.put(&notice, Timestamp::UNIX_EPOCH);
    assert_eq!(memory.outbox.dropped["ops"], 1);
    let channel = Channel {
        name: "ops".to_owned(),
        level: Level::Warn,
        fallback: false,
    };
    outbox::seal(&mut memory, &[channel]);
    let parcels = memory.outbox.parcels("ops");
    assert_eq!(parcels.len(), outbox::LETTERS_MAX / 25);
    let message = compose(&parcels[0], "h", &jiff::tz::TimeZone::UTC);
    assert!(
        message.text.contains("1 earlier notices were dropped"),
        "{}",
        message.text
    );
    assert!(
        message.subject.starts_with("[h] 25 FAIL: "),
        "{}",
        message.subject
    );
}
