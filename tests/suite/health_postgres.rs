//! The database check against a real server: stopped, hanging, refusing, emptied, grown old, and
//! each time mended.

use std::time::{Duration, Instant};

use rg_common::check::{State, Verdict};
use rg_common::config::SqlExpectation;
use rg_common::postgres::{Connector, DatabaseUrl};
use rg_common::probe::postgres::{ask, collect, judge, judge_question};
use rg_tests::{Postgres, Signal, eventually, s3_network};

/// How long a server that begins is waited for.
const SOON: Duration = Duration::from_secs(60);

fn connector() -> Connector {
    Connector::new(s3_network().handle().clone(), "rg-healthcheck")
}

fn check(url: &str, tables: &[&str]) -> Verdict {
    let url = DatabaseUrl::parse(url).expect("a url");
    let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
    judge(&collect(&connector(), &url, &tables, &[]).expect("it can be asked"))
}

fn newest(url: &str) -> Verdict {
    let url = DatabaseUrl::parse(url).expect("a url");
    let query = "select max(at) from runs";
    let question = ask(&connector(), &url, query).expect("it can be asked");
    let day = SqlExpectation::NewerThan(Duration::from_secs(86_400));
    judge_question(&question, query, &day).expect("it can be judged")
}

/// A cluster of one's own with the app's role and database.
fn cluster() -> (Postgres, String) {
    let cluster = Postgres::start();
    cluster.role("app", "LOGIN");
    let url = cluster.create_database_of("app", "app");
    let made = "CREATE TABLE runs (at timestamptz); ALTER TABLE runs OWNER TO app; \
                INSERT INTO runs VALUES (now())";
    cluster.psql("app", made);
    (cluster, url)
}

#[test]
fn a_server_that_stops_or_hangs_fails_and_one_that_is_back_passes() {
    let (mut cluster, url) = cluster();
    let good = check(&url, &["runs"]);
    assert_eq!(good.state, State::Pass, "{}", good.found);

    // This cluster commits before it has written: what is not flushed goes with it.
    cluster.psql("app", "CHECKPOINT");
    cluster.stop();
    let stopped = check(&url, &["runs"]);
    assert_eq!(stopped.state, State::Fail);
    assert!(
        stopped.found.contains("Connection refused"),
        "{}",
        stopped.found
    );
    let fix = stopped.fix.expect("a fix");
    assert!(fix.contains("is PostgreSQL running"), "{fix}");
    assert_eq!(newest(&url).state, State::Fail);

    cluster.start_again();
    // It says that it starts up, which is a failure like any other, until it has.
    let well = || check(&url, &["runs"]).state == State::Pass;
    assert!(eventually(SOON, well), "{}", check(&url, &["runs"]).found);

    // The kernel still takes connections for a server that has stopped dead.
    let pid = rustix::process::Pid::from_raw(cluster.pid() as i32).expect("a pid");
    rustix::process::kill_process(pid, Signal::STOP).expect("stopped");
    let begun = Instant::now();
    let hanging = check(&url, &["runs"]);
    let took = begun.elapsed();
    rustix::process::kill_process(pid, Signal::CONT).expect("going on");
    assert_eq!(hanging.state, State::Fail);
    assert!(
        hanging.found.contains("no answer within 5 s"),
        "{}",
        hanging.found
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(eventually(SOON, well), "{}", check(&url, &["runs"]).found);
}

#[test]
fn an_emptied_or_an_old_database_fails_though_it_answers() {
    let (cluster, url) = cluster();
    assert_eq!(newest(&url).state, State::Pass);

    cluster.psql("app", "UPDATE runs SET at = now() - interval '30 hours'");
    let old = newest(&url);
    assert_eq!(old.state, State::Fail);
    assert_eq!(old.found, "the newest is 1 d 6 h old, older than 1 d");
    cluster.psql("app", "DELETE FROM runs");
    assert_eq!(newest(&url).found, "there is nothing: the answer is NULL");
    cluster.psql("app", "INSERT INTO runs VALUES (now())");
    assert_eq!(newest(&url).state, State::Pass);

    cluster.psql("app", "ALTER TABLE runs RENAME TO walks");
    let missing = check(&url, &["runs", "walks"]);
    assert_eq!(
        (missing.state, missing.found.as_str()),
        (State::Fail, "table runs is missing")
    );
    assert_eq!(
        newest(&url).found,
        "the server refused: relation \"runs\" does not exist"
    );
    let lost = check(&url, &["runs"]);
    assert_eq!(
        lost.found,
        "the database is empty: none of its required tables is there"
    );
    cluster.psql("app", "ALTER TABLE walks RENAME TO runs");
    assert_eq!(check(&url, &["runs"]).state, State::Pass);
}

#[test]
fn a_role_that_is_refused_fails_without_its_password() {
    let (cluster, url) = cluster();
    let wrong = url.replace(&cluster.password("app"), "hunter2");
    let refused = check(&wrong, &[]);
    assert_eq!(refused.state, State::Fail);
    assert!(
        refused.found.contains("password authentication failed"),
        "{}",
        refused.found
    );
    assert!(!format!("{refused:?}").contains("hunter2"));

    cluster.psql("postgres", "ALTER ROLE app CONNECTION LIMIT 0");
    let full = check(&url, &[]);
    assert_eq!(full.state, State::Fail);
    assert!(
        full.found.contains("too many connections for role"),
        "{}",
        full.found
    );
    cluster.psql("postgres", "ALTER ROLE app CONNECTION LIMIT -1");
    assert_eq!(check(&url, &[]).state, State::Pass);
}

#[test]
fn a_replication_slot_and_a_used_up_server_are_seen() {
    let cluster = Postgres::setup()
        .setting("wal_level", "logical")
        .setting("max_connections", "8")
        .setting("superuser_reserved_connections", "3")
        .start();
    let url = cluster.create_database("app");
    cluster.psql(
        "app",
        "SELECT pg_create_physical_replication_slot('left', true)",
    );
    let seen = check(&url, &[]);
    assert!(
        seen.figures.iter().any(|figure| figure.name == "slot_kept"),
        "{seen:?}"
    );

    let url = DatabaseUrl::parse(&url).expect("a url");
    let held: Vec<_> = (0..4)
        .map(|_| connector().open(&url).expect("a session"))
        .collect();
    let full = judge(&collect(&connector(), &url, &[], &[]).expect("it can be asked"));
    assert_eq!(
        (full.state, full.found.as_str()),
        (State::Fail, "5 of 5 connections are in use")
    );
    held.into_iter()
        .for_each(rg_common::postgres::Session::close);
    let calm = judge(&collect(&connector(), &url, &[], &[]).expect("it can be asked"));
    assert_eq!(calm.state, State::Pass, "{}", calm.found);
}
