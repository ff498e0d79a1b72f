//! The promise against chance: random outcomes, clocks, silences, dying runs and failing channels.
//! In the end everything is well and works; then each channel must have got each incident's
//! beginning once and its end once, in this order.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use rg_common::check::{Finding, State};
use rg_common::config::{AlertsConfig, Patience};

use super::*;
use crate::silence::Quiet;

const REMIND_S: i64 = 600;

/// What a channel does with a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    Refuses,
    /// Takes it, but the answer is lost.
    TakesSilently,
    /// Loses it, and nobody can tell.
    Loses,
}

/// Where a run dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    No,
    BeforeTheState,
    BeforeSending,
    /// After a message was handed over, before that was noted.
    BeforeNoting,
}

#[derive(Debug, Clone)]
struct Step {
    states: [State; 3],
    clock: i64,
    quiet: bool,
    manners: [Manner; 3],
    death: Death,
    /// Check `c` is not in the configuration.
    without_c: bool,
    /// Only `a` is looked at.
    partial: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        5 => Just(State::Pass),
        1 => Just(State::Skip),
        2 => Just(State::Warn),
        1 => Just(State::Unknown),
        4 => Just(State::Fail),
    ];
    let clock = prop_oneof![
        12 => 1i64..400,
        1 => Just(-86_400),
        1 => Just(-30),
        1 => Just(366 * 86_400),
        1 => Just(0),
    ];
    let manner = prop_oneof![
        5 => Just(Manner::Takes),
        2 => Just(Manner::Refuses),
        1 => Just(Manner::TakesSilently),
        1 => Just(Manner::Loses),
    ];
    let death = prop_oneof![
        8 => Just(Death::No),
        1 => Just(Death::BeforeTheState),
        1 => Just(Death::BeforeSending),
        1 => Just(Death::BeforeNoting),
    ];
    (
        prop::array::uniform3(state),
        clock,
        prop::bool::weighted(0.2),
        prop::array::uniform3(manner),
        death,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(states, clock, quiet, manners, death, without_c, partial)| Step {
                states,
                clock,
                quiet,
                manners,
                death,
                without_c,
                partial,
            },
        )
}

/// The world: what lies on the disk, and what the channels have.
struct World {
    disk: Memory,
    now: Timestamp,
    /// How far the clock went forward in all.
    forward: i64,
    patience: Patience,
    got: BTreeMap<String, Vec<(String, Vec<Notice>)>>,
    /// The openings that were written down: incident and key.
    begun: BTreeSet<u64>,
    /// For each incident, where the clock's way stood when somebody was last told.
    told: BTreeMap<u64, i64>,
}

fn channels() -> Vec<Channel> {
    let one = |name: &str, level, fallback| Channel {
        name: name.to_owned(),
        level,
        fallback,
    };
    vec![
        one("all", Level::Warn, false),
        one("fails", Level::Fail, false),
        one("second", Level::Warn, true),
    ]
}

impl World {
    fn new(patience: Patience) -> World {
        World {
            disk: Memory::default(),
            now: "2026-11-22T03:00:00Z".parse().unwrap(),
            forward: 0,
            patience,
            got: BTreeMap::new(),
            begun: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(step.clock))
            .unwrap();
        self.forward += step.clock.max(0);
        let mut memory = self.disk.clone();
        outbox::begin(&mut memory);
        let findings = findings(step);
        let mut known = BTreeSet::from(["a".to_owned(), "b".to_owned()]);
        if !step.without_c {
            known.insert("c".to_owned());
        }
        let rules = rules(self.patience, step.quiet);
        let round = Round {
            findings: &findings,
            known: &known,
            now: self.now,
        };
        let (mut memory, notices) = decide(&memory, &round, &rules);
        for notice in notices.iter().filter(|notice| notice.is_bad()) {
            let finding = findings.iter().find(|f| f.id == notice.check).unwrap();
            assert!(!step.quiet && finding.because.is_none(), "{notice:?}");
        }
        if step.death == Death::BeforeTheState {
            return;
        }
        outbox::seal(&mut memory, &rules.channels);
        self.save(&memory);
        self.check_reminders(&notices);
        if step.death == Death::BeforeSending {
            return;
        }
        let manner = |name: &str| match name {
            "all" => step.manners[0],
            "fails" => step.manners[1],
            _ => step.manners[2],
        };
        for fallback in [false, true] {
            if fallback && outbox::copy_to_fallbacks(&mut memory, &rules.channels, self.now) {
                outbox::seal(&mut memory, &rules.channels[2..]);
                self.save(&memory);
            }
            for channel in rules.channels.iter().filter(|c| c.fallback == fallback) {
                for parcel in memory.outbox.parcels(&channel.name) {
                    let manner = manner(&channel.name);
                    if matches!(manner, Manner::Takes | Manner::TakesSilently) {
                        self.take(&parcel);
                    }
                    if step.death == Death::BeforeNoting {
                        return;
                    }
                    if manner == Manner::Takes {
                        memory.outbox.delivered(&channel.name, &parcel.key);
                        self.save(&memory);
                        continue;
                    }
                    let certain = manner == Manner::Refuses;
                    memory.outbox.refused(&channel.name, &parcel.key, certain);
                    self.save(&memory);
                    break;
                }
            }
        }
    }

    fn save(&mut self, memory: &Memory) {
        self.disk = memory.clone();
    }

    /// The channel takes a message; one that it knows by its key is the same one.
    fn take(&mut self, parcel: &outbox::Parcel) {
        let plain = |notice: &Notice| Notice {
            to: Vec::new(),
            ..notice.clone()
        };
        let notices: Vec<Notice> = parcel.notices.iter().map(plain).collect();
        let got = self.got.entry(parcel.channel.clone()).or_default();
        match got.iter().find(|(key, _)| *key == parcel.key) {
            Some((_, before)) => assert_eq!(*before, notices, "one key, one content"),
            None => got.push((parcel.key.clone(), notices)),
        }
    }

    fn check_reminders(&mut self, notices: &[Notice]) {
        for notice in notices.iter().filter(|notice| notice.is_bad()) {
            let before = self.told.insert(notice.incident, self.forward);
            match notice.kind {
                Kind::Opened | Kind::Flapping => {
                    assert!(before.is_none(), "opened twice: {notice:?}");
                    self.begun.insert(notice.incident);
                }
                Kind::Reminder => {
                    let way = self.forward - before.unwrap();
                    assert!(way >= REMIND_S, "{way} s after the last: {notice:?}");
                }
                _ => assert!(before.is_some(), "{notice:?}"),
            }
        }
    }

    /// What one channel has got of each incident, in order.
    fn incidents(&self, channel: &str) -> BTreeMap<u64, Vec<&Notice>> {
        let mut all: BTreeMap<u64, Vec<&Notice>> = BTreeMap::new();
        let got = self.got.get(channel).map(Vec::as_slice).unwrap_or_default();
        for notice in got.iter().flat_map(|(_, notices)| notices) {
            all.entry(notice.incident).or_default().push(notice);
        }
        all
    }
}

fn findings(step: &Step) -> Vec<Finding> {
    let one = |id: &str, state: State, because: Option<&str>| Finding {
        id: id.to_owned(),
        environment: Some("production".to_owned()),
        about: "test".to_owned(),
        state,
        found: "found".to_owned(),
        fix: None,
        figures: Vec::new(),
        evidence: Vec::new(),
        took_ms: 1,
        because: because.map(str::to_owned),
    };
    let [a, b, c] = step.states;
    let cause = (a.is_bad() && b.is_bad()).then_some("a");
    let mut all = vec![one("a", a, None)];
    if !step.partial {
        all.push(one("b", b, cause));
        if !step.without_c {
            all.push(one("c", c, None));
        }
    }
    all
}

fn rules(patience: Patience, quiet: bool) -> Rules {
    let quiet = quiet.then(|| Quiet {
        why: "silence by root: deploy".to_owned(),
        until: Timestamp::MAX,
        environment: None,
        what: Vec::new(),
    });
    Rules {
        patience: BTreeMap::from([("b".to_owned(), Patience::InARow(1))]),
        alerts: AlertsConfig {
            after: patience,
            recover_after: 2,
            remind: std::time::Duration::from_secs(600),
            history: std::time::Duration::from_secs(86_400),
        },
        quiet: quiet.into_iter().collect(),
        channels: channels(),
    }
}

const WELL: Step = Step {
    states: [State::Pass; 3],
    clock: 60,
    quiet: false,
    manners: [Manner::Takes; 3],
    death: Death::No,
    without_c: false,
    partial: false,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_incident_is_told_once_as_begun_and_once_as_ended(
        steps in prop::collection::vec(step(), 1..60),
        patience in prop_oneof![
            Just(Patience::InARow(1)),
            Just(Patience::InARow(2)),
            Just(Patience::MOfN { m: 2, n: 4 }),
        ],
    ) {
        let mut world = World::new(patience);
        for step in &steps {
            world.run(step);
        }
        let text = serde_json::to_vec(&world.disk).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Memory>(&text).unwrap(), &world.disk);
        // The longest rest of a channel, the longest proof of being well, and some more.
        for _ in 0..80 {
            world.run(&WELL);
        }
        let memory = &world.disk;
        prop_assert_eq!(&memory.outbox, &Outbox::default());
        prop_assert!(memory.checks.values().all(|watched| watched.incident.is_none()));
        let all = world.incidents("all");
        let told: BTreeSet<u64> = all.keys().copied().collect();
        prop_assert_eq!(&told, &world.begun, "everything that began was told");
        for channel in ["all", "fails", "second"] {
            for (incident, notices) in world.incidents(channel) {
                let keys: BTreeSet<&str> = notices.iter().map(|n| n.key.as_str()).collect();
                prop_assert_eq!(keys.len(), notices.len(), "{} {}: twice", channel, incident);
                let kinds: Vec<Kind> = notices.iter().map(|notice| notice.kind).collect();
                let ends = kinds.iter().filter(|kind| matches!(kind, Kind::Recovered | Kind::Gone));
                prop_assert_eq!(ends.count(), 1, "{} {}: {:?}", channel, incident, &kinds);
                let last = kinds.last().copied();
                prop_assert!(matches!(last, Some(Kind::Recovered | Kind::Gone)), "{} {:?}", channel, &kinds);
                let beginnings = kinds.iter().filter(|kind| matches!(kind, Kind::Opened | Kind::Flapping));
                let beginnings = beginnings.count();
                match channel {
                    "all" => prop_assert_eq!(beginnings, 1, "{:?}", &kinds),
                    _ => prop_assert!(beginnings <= 1, "{:?}", &kinds),
                }
                if channel == "fails" {
                    prop_assert!(notices.iter().all(|notice| notice.level == Level::Fail));
                    prop_assert!(kinds.len() > 1, "an end without a beginning");
                }
            }
        }
    }
}
