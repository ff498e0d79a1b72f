//! Recorded facts judged; and a real server asked.

use super::*;
use crate::check::State;
use crate::config::SqlExpectation;
use crate::postgres::cluster::cluster;

fn facts() -> Facts {
    Facts {
        version: ServerVersion(150_010),
        connect_seconds: 0.01,
        bytes: 3 << 20,
        missing_tables: Vec::new(),
        required_tables: 2,
        missing_extensions: Vec::new(),
        connections: 10,
        connections_max: 97,
        longest: None,
        idlest: None,
        oldest_transaction: 1000,
        oldest_database: "app".into(),
        slots: Vec::new(),
    }
}

fn said(facts: Facts) -> (State, String) {
    let verdict = judge(&Database::Up(Box::new(facts)));
    (verdict.state, verdict.found)
}

#[test]
fn a_server_in_trouble_is_said_in_exact_words() {
    use State::{Fail, Pass, Warn};
    let open = |seconds| {
        Some(Transaction {
            pid: 7,
            application: "app".into(),
            seconds,
        })
    };
    let slot = |active, kept| {
        vec![Slot {
            name: "old".into(),
            active,
            kept,
        }]
    };
    let both = vec!["a".to_owned(), "b".to_owned()];
    for (facts, state, words) in [
        (
            facts(),
            Pass,
            "PostgreSQL 15.10 answers: 3.0 MiB, 10 of 97 connections",
        ),
        (
            Facts {
                missing_tables: both.clone(),
                ..facts()
            },
            Fail,
            "the database is empty: none of its required tables is there",
        ),
        (
            Facts {
                missing_tables: both.clone(),
                required_tables: 3,
                ..facts()
            },
            Fail,
            "tables are missing: a, b",
        ),
        (
            Facts {
                missing_tables: vec!["a".into()],
                ..facts()
            },
            Fail,
            "table a is missing",
        ),
        (
            Facts {
                missing_extensions: vec!["vector".into()],
                ..facts()
            },
            Fail,
            "extension vector is missing",
        ),
        (
            Facts {
                connections: 80,
                ..facts()
            },
            Warn,
            "80 of 97 connections are in use",
        ),
        (
            Facts {
                connections: 97,
                ..facts()
            },
            Fail,
            "97 of 97 connections are in use",
        ),
        (
            Facts {
                longest: open(660.0),
                ..facts()
            },
            Warn,
            "a transaction of app (process 7) works since 11 min",
        ),
        (
            Facts {
                idlest: open(360.0),
                ..facts()
            },
            Warn,
            "a transaction of app (process 7) is open and idle since 6 min: it holds its locks",
        ),
        (
            Facts {
                oldest_transaction: 1_000_000_000,
                ..facts()
            },
            Warn,
            "47 % of the transaction numbers are used in database app: without a vacuum writes will stop",
        ),
        (
            Facts {
                oldest_transaction: 2_000_000_000,
                ..facts()
            },
            Fail,
            "93 % of the transaction numbers are used in database app: without a vacuum writes will stop",
        ),
        (
            Facts {
                slots: slot(false, 2 << 30),
                ..facts()
            },
            Warn,
            "replication slot old is read by nobody: it keeps 2.0 GiB of WAL",
        ),
        (
            Facts {
                slots: slot(true, 20 << 30),
                ..facts()
            },
            Fail,
            "replication slot old is behind: it keeps 20.0 GiB of WAL",
        ),
    ] {
        assert_eq!(said(facts), (state, words.to_owned()));
    }
}

#[test]
fn an_answer_is_held_against_what_is_expected_of_it() {
    let value = |text: &str, age| {
        Question::Answered(Answer::Value {
            text: text.into(),
            age,
        })
    };
    let day = SqlExpectation::NewerThan(Duration::from_secs(86_400));
    let least = SqlExpectation::AtLeast(1.0);
    let most = SqlExpectation::AtMost(5.0);
    let equals = SqlExpectation::Equals("head".into());
    let cases = [
        (value("3", None), &least, Ok("3")),
        (value("0", None), &least, Err("0, less than 1")),
        (value("5", None), &most, Ok("5")),
        (value("5.5", None), &most, Err("5.5, more than 5")),
        (value("head", None), &equals, Ok("head")),
        (value("old", None), &equals, Err("`old`, not `head`")),
        (
            value("2026-01-23", Some(3600.0)),
            &day,
            Ok("the newest is 1 h old"),
        ),
        (
            value("2026-01-20", Some(90_000.0)),
            &day,
            Err("the newest is 1 d 1 h old, older than 1 d"),
        ),
        (
            Question::Answered(Answer::Nothing),
            &least,
            Err("there is no row"),
        ),
        (
            Question::Answered(Answer::Null),
            &day,
            Err("there is nothing: the answer is NULL"),
        ),
        (
            Question::Answered(Answer::Refused("relation \"runs\" does not exist".into())),
            &day,
            Err("the server refused: relation \"runs\" does not exist"),
        ),
    ];
    for (question, expect, wanted) in cases {
        let verdict = judge_question(&question, "select 1", expect).unwrap();
        let found = match verdict.state {
            State::Pass => Ok(verdict.found.as_str()),
            _ => Err(verdict.found.as_str()),
        };
        assert_eq!(found, wanted);
    }
    for (question, expect, words) in [
        (
            value("many", None),
            &least,
            "the answer `many` is not a number",
        ),
        (value("3", None), &day, "the answer `3` is not a time"),
        (
            value("2999-01-01", Some(-7200.0)),
            &day,
            "the answer 2999-01-01 lies in the future",
        ),
    ] {
        assert_eq!(
            judge_question(&question, "q", expect)
                .unwrap_err()
                .to_string(),
            words
        );
    }
}

#[test]
fn a_real_server_is_asked_as_the_app_asks_it() {
    let name = cluster().database("health", "CREATE TABLE users (n int); CREATE SCHEMA app; CREATE TABLE app.runs (at timestamptz); INSERT INTO app.runs VALUES (now() - interval '3 hours')");
    let url = cluster().url(&name);
    let connector = cluster().connector();
    let tables = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let good = collect(
        &connector,
        &url,
        &tables(&["users", "runs", "app.runs"]),
        &tables(&["plpgsql"]),
    );
    let verdict = judge(&good.unwrap());
    assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
    let bad = collect(
        &connector,
        &url,
        &tables(&["users", "workers"]),
        &tables(&["vector"]),
    )
    .unwrap();
    let found = judge(&bad).found;
    assert_eq!(
        found,
        "table workers is missing; extension vector is missing"
    );

    let wrong = cluster().address(&url_with_password(&url));
    let verdict = judge(&collect(&connector, &wrong, &[], &[]).unwrap());
    assert_eq!(verdict.state, State::Fail);
    assert!(
        verdict.found.contains("password authentication failed"),
        "{}",
        verdict.found
    );
    assert!(
        verdict
            .fix
            .unwrap()
            .contains("check the password of role `postgres`")
    );
    assert!(!verdict.found.contains("not-it"));
    let nobody = cluster().address("postgresql://u:p@127.0.0.1:1/d");
    let verdict = judge(&collect(&connector, &nobody, &[], &[]).unwrap());
    assert_eq!(verdict.state, State::Fail);
}

fn url_with_password(url: &DatabaseUrl) -> String {
    format!(
        "postgresql://postgres:not-it@127.0.0.1:{}/{}?sslmode=disable",
        url.port, url.database
    )
}

#[test]
fn a_transaction_left_open_is_found_and_its_end_too() {
    let name = cluster().database("health_open", "CREATE TABLE t (n int)");
    let app = cluster().session(&name);
    app.execute("SET application_name = 'forgetful'; BEGIN; SELECT 1")
        .unwrap();
    app.execute("BEGIN; INSERT INTO t VALUES (1)").unwrap();
    let ask = || match collect(&cluster().connector(), &cluster().url(&name), &[], &[]).unwrap() {
        Database::Up(facts) => facts.idlest.filter(|open| open.application == "forgetful"),
        Database::Down { why, .. } => panic!("{why}"),
    };
    assert!(ask().is_some());
    app.execute("ROLLBACK").unwrap();
    assert_eq!(ask(), None);
}

#[test]
fn a_question_changes_nothing_and_is_given_up_in_time() {
    let name = cluster().database("health_ask", "CREATE TABLE runs (n int, at timestamp); INSERT INTO runs VALUES (1, now() AT TIME ZONE 'UTC' - interval '3 hours'), (2, NULL)");
    let session = cluster().session(&name);
    let second = Duration::from_secs(1);
    let asked = |sql: &str| question::ask(&session, sql, second);
    let value = |text: &str| Answer::Value {
        text: text.into(),
        age: None,
    };
    assert_eq!(
        asked("select count(*) from runs -- all of them").unwrap(),
        value("2")
    );
    assert_eq!(
        asked("select round(avg(n) * 1.5, 2) from runs;").unwrap(),
        value("2.25")
    );
    assert_eq!(
        asked("with a as (select 7 as x) select x from a").unwrap(),
        value("7")
    );
    assert_eq!(
        asked("select at from runs where n = 2").unwrap(),
        Answer::Null
    );
    assert_eq!(
        asked("select at from runs where n = 3").unwrap(),
        Answer::Nothing
    );
    match asked("select max(at) from runs").unwrap() {
        Answer::Value { age: Some(age), .. } => assert!((age - 10_800.0).abs() < 120.0, "{age}"),
        other => panic!("{other:?}"),
    }
    for (sql, words) in [
        ("select n from gone", "relation \"gone\" does not exist"),
        (
            "select pg_sleep(60)",
            "canceling statement due to statement timeout",
        ),
        (
            "select nextval('s') from (select 1) x",
            "relation \"s\" does not exist",
        ),
        (
            "with x as (delete from runs returning n) select n from x",
            "WITH clause containing a data-modifying statement must be at the top level",
        ),
    ] {
        assert_eq!(asked(sql).unwrap(), Answer::Refused(words.into()), "{sql}");
    }
    for sql in [
        "select 1; select 2",
        "select 1, 2",
        "select n from runs",
        "select $1::int",
        "selekt 1",
        "",
        "drop table runs",
    ] {
        let failure = asked(sql).unwrap_err().to_string();
        assert!(!failure.is_empty(), "{sql}");
    }
    assert_eq!(asked("select count(*) from runs").unwrap(), value("2"));
}
