use rg_common::check::{Finding, State};

use super::*;
use crate::show::tests::finding;

const KEEP: Duration = Duration::from_secs(90 * 86_400);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("rg-history-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(1_770_000_000 - 1_770_000_000 % 3600 + minute * 60).unwrap()
}

fn one(state: State) -> Vec<Finding> {
    vec![finding("production/http/health", state, state.word())]
}

#[test]
fn an_incident_lasts_from_the_first_failure_to_the_first_good_round() {
    let folder = Folder::new("incident");
    let mut history = History::open(&folder.0).unwrap();
    use State::*;
    for (minute, state) in [
        (0, Pass),
        (1, Fail),
        (2, Fail),
        (3, Unknown),
        (4, Pass),
        (5, Fail),
    ] {
        history.record(at(minute), &one(state), KEEP).unwrap();
    }
    let incidents = history.incidents(at(-100), 10).unwrap();
    let spans: Vec<_> = incidents.iter().map(|i| (i.began, i.ended)).collect();
    assert_eq!(spans, [(at(5), None), (at(1), Some(at(3)))]);
    let uptime = history.uptime("production/http/health", at(-100)).unwrap();
    assert_eq!((uptime.well, uptime.failed, uptime.unknown), (2, 3, 1));
    assert_eq!(uptime.percent(), Some(40.0));
    assert_eq!(history.last().unwrap()[0].1, Fail);
    assert_eq!(
        history.hours("production/http/health", at(-60)).unwrap()[0].worst,
        Fail
    );
}

#[test]
fn what_nobody_looked_at_has_no_uptime() {
    let folder = Folder::new("none");
    let mut history = History::open(&folder.0).unwrap();
    history.record(at(0), &one(State::Unknown), KEEP).unwrap();
    assert_eq!(
        history
            .uptime("production/http/health", at(-1))
            .unwrap()
            .percent(),
        None
    );
    assert_eq!(history.uptime("never", at(-1)).unwrap().percent(), None);
}

#[test]
fn a_damaged_history_is_put_aside_and_said() {
    let folder = Folder::new("damaged");
    for junk in [
        &b"not a database at all, but long enough to be read as one"[..],
        &[0; 8192],
    ] {
        std::fs::write(folder.0.join("history.db"), junk).unwrap();
        let mut history = History::open(&folder.0).unwrap();
        history.record(at(0), &one(State::Pass), KEEP).unwrap();
        if junk[0] != 0 {
            assert!(history.put_aside.unwrap().contains("history.db.damaged"));
        }
    }
    // Torn in the middle: the header is well, a page is not.
    let mut history = History::open(&folder.0).unwrap();
    for minute in 0..400 {
        let findings: Vec<Finding> = (0..20)
            .map(|n| finding(&format!("check/{n}"), State::Pass, "well"))
            .collect();
        history.record(at(minute), &findings, KEEP).unwrap();
    }
    drop(history);
    let path = folder.0.join("history.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let half = bytes.len() / 2;
    bytes[half..half + 8192].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let mut history = History::open(&folder.0).unwrap();
    assert!(history.put_aside.is_some());
    history.record(at(500), &one(State::Pass), KEEP).unwrap();
}

#[test]
fn a_clock_that_jumps_neither_fails_nor_stays_for_ever() {
    let folder = Folder::new("clock");
    let mut history = History::open(&folder.0).unwrap();
    let year = 366 * 24 * 60;
    for minute in [0, 1, year, 2, -1440, 3, 3] {
        history.record(at(minute), &one(State::Pass), KEEP).unwrap();
    }
    let uptime = history.uptime("production/http/health", at(-3000)).unwrap();
    // The round of a year ahead took nothing with it, and is gone.
    assert_eq!(uptime.well, 6, "{uptime:?}");
    let future: i64 = history
        .db
        .query_row(
            "SELECT count(*) FROM samples WHERE at > ?1",
            [at(2000).as_second()],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(future, 0);
}

#[test]
fn ninety_days_of_a_flapping_check_stay_small() {
    let folder = Folder::new("bounded");
    let mut history = History::open(&folder.0).unwrap();
    for round in 0..3000 {
        let state = if round % 2 == 0 {
            State::Pass
        } else {
            State::Fail
        };
        history.record(at(round * 60), &one(state), KEEP).unwrap();
    }
    let count = |sql: &str| -> i64 { history.db.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert!(count("SELECT count(*) FROM samples") <= 49);
    assert!(count("SELECT count(*) FROM hours") <= 90 * 24 + 1);
    assert!(count("SELECT count(*) FROM changes") <= 90 * 24 + 2);
}
