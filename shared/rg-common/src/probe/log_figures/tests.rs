//! Lines as the two reference deployments, and others, write them.

use super::record::{Record, message_shown, path_shown};
use super::*;
use crate::check::State;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_769_133_600 + second).expect("a time")
}

fn counted(lines: &[&str]) -> LogFigures {
    let mut counter = Counter::new(at(0), at(300));
    for line in lines {
        counter.add(Line {
            text: line.as_bytes(),
            time: None,
            priority: None,
        });
    }
    counter.figures()
}

#[test]
fn errors_are_told_in_every_loggers_words() {
    for (line, error) in [
        (r#"{"level": "ERROR", "message": "x"}"#, true),
        (r#"{"levelname": "CRITICAL", "msg": "x"}"#, true),
        (r#"{"level": 50, "msg": "pino"}"#, true),
        (r#"{"level": 40, "msg": "pino warns"}"#, false),
        (r#"{"severity": 3, "msg": "syslog"}"#, true),
        (r#"{"log": {"level": "error"}, "message": "ecs"}"#, true),
        (r#"{"level": "info", "message": "no ERROR here"}"#, false),
        ("2026-01-23 02:00:00 ERROR app: x", true),
        ("ERROR: relation does not exist", true),
        ("[ERROR] x", true),
        ("LOG_ERRORS=1 set", false),
        (r#"INFO: 127.0.0.1:1 - "GET /ERROR HTTP/1.1" 200 OK"#, false),
        ("{\"level\": \"ERROR\", cut", true),
        ("all is well", false),
    ] {
        assert_eq!(counted(&[line]).errors == 1, error, "{line}");
    }
    let mut counter = Counter::new(at(0), at(300));
    counter.add(Line {
        text: b"kernel trouble",
        time: None,
        priority: Some(3),
    });
    assert_eq!(counter.figures().errors, 1);
}

#[test]
fn a_window_of_the_apps_log_in_figures() {
    let mut lines = Vec::new();
    for n in 0..100 {
        lines.push(format!(
            r#"{{"timestamp":"2026-01-23T02:00:0{}Z","level":"INFO","path":"/users/{n}?token=abc","status_code":200,"duration_ms":{n}}}"#,
            n % 10
        ));
    }
    for n in 0..3 {
        lines.push(format!(r#"{{"level":"ERROR","message":"upload {n} of bob failed password=hunter2","path":"/up","status":500}}"#));
    }
    lines.push(r#"{"level":"WARNING","message":"slow down","path":"/login","status":429}"#.into());
    lines.push(r#"{"level":"WARNING","event":"rate_limit_exceeded","path":"/login"}"#.into());
    lines.push(r#"{"level":"INFO","message":"rate limit is 5/min"}"#.into());
    // Before the window.
    lines.push(r#"{"time":1769133599,"level":"ERROR","message":"old"}"#.into());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let figures = counted(&lines);
    let top = |what: &str, times| Counted {
        what: what.into(),
        times,
    };
    assert_eq!(
        (figures.lines, figures.errors, figures.rate_limited),
        (106, 3, 2)
    );
    assert_eq!((figures.requests, figures.server_errors), (104, 3));
    assert!((figures.errors_per_minute - 0.6).abs() < 1e-9);
    assert!((figures.mean_ms.unwrap() - 49.5).abs() < 1e-9);
    let p95 = figures.p95_ms.unwrap();
    assert!((94.0..=99.0).contains(&p95), "{p95}");
    assert_eq!(
        figures.top_paths,
        [top("/users/:id", 100), top("/up", 3), top("/login", 1)]
    );
    assert_eq!(
        figures.top_errors,
        [top("upload # of bob failed password=***", 3)]
    );
    assert_eq!(figures.top_limited, [top("/login", 2)]);
}

#[test]
fn too_many_errors_fail_in_exact_words() {
    let line = r#"{"level":"ERROR","message":"no answer from db-1"}"#;
    let figures = counted(&[line; 15]);
    let verdict = judge(&figures, 2.0, None, "rg-healthcheck logs");
    assert_eq!(verdict.state, State::Fail);
    assert_eq!(
        verdict.found,
        "15 of 15 lines are errors: 3.0 a minute, more than 2"
    );
    assert_eq!(verdict.evidence, ["15 × no answer from db-#"]);
    let verdict = judge(&figures, 3.0, None, "rg-healthcheck logs");
    assert_eq!(verdict.state, State::Pass);
    assert_eq!(verdict.found, "15 of 15 lines are errors: 3.0 a minute");
    let verdict = judge(
        &counted(&[]),
        0.0,
        Some("a rotated log was not found"),
        "ls",
    );
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Warn, "a rotated log was not found")
    );
    assert_eq!(
        judge(&counted(&[]), 0.0, None, "ls").found,
        "no line was logged"
    );
}

#[test]
fn lines_that_tell_no_time_are_left_out_of_a_window_that_was_not_just_read() {
    let mut counter = Counter::new(at(0), at(300)).dated_only();
    for text in [
        "ERROR when?",
        "2026-01-23T02:00:10Z ERROR now",
        "[2026-01-23T02:00:11.5Z] ERROR now",
        "2026-01-22T02:00:10Z ERROR yesterday",
        "10 ERROR when?",
    ] {
        counter.add(Line {
            text: text.as_bytes(),
            time: None,
            priority: None,
        });
    }
    let figures = counter.figures();
    assert_eq!((figures.lines, figures.errors, figures.undated), (2, 2, 2));
    let local = Record::of(b"2026-01-23 02:00:00,123 ERROR x", None).time;
    assert!(local.is_some());
}

#[test]
fn durations_are_milliseconds_whatever_the_logger_writes() {
    for (line, ms) in [
        (r#"{"duration_ms": 12}"#, 12.0),
        (r#"{"duration": 0.25}"#, 250.0),
        (r#"{"elapsed": "12.5ms"}"#, 12.5),
        (r#"{"request_time": "0.003"}"#, 3.0),
        (r#"{"latency": "1.5s"}"#, 1500.0),
    ] {
        let found = Record::of(line.as_bytes(), None).duration_ms.unwrap();
        assert!((found - ms).abs() < 1e-9, "{line}: {found}");
    }
    assert_eq!(
        Record::of(br#"{"duration_ms": -5}"#, None).duration_ms,
        None
    );
}

#[test]
fn access_lines_of_web_servers_are_requests() {
    let uvicorn = r#"INFO:     127.0.0.1:51234 - "GET /api/v1/runs/17?key=x HTTP/1.1" 503 Service Unavailable"#;
    let nginx =
        r#"10.0.0.1 - - [23/Jan/2026:02:00:00 +0000] "POST /login HTTP/2.0" 429 0 "-" "curl""#;
    let figures = counted(&[uvicorn, nginx]);
    assert_eq!(
        (
            figures.requests,
            figures.server_errors,
            figures.rate_limited
        ),
        (2, 1, 1)
    );
    let paths: Vec<&str> = figures.top_paths.iter().map(|c| c.what.as_str()).collect();
    assert_eq!(paths, ["/api/v1/runs/:id", "/login"]);
}

#[test]
fn what_differs_only_in_numbers_is_one_message() {
    assert_eq!(
        message_shown("run 17 of 0a1b2c3d4e5f from 10.0.0.1:80 failed\ntraceback"),
        "run # of # from # failed"
    );
    assert_eq!(
        path_shown("https://h/a/550e8400-e29b-41d4-a716-446655440000/b?x=1"),
        "/a/:id/b"
    );
}

#[test]
fn memory_is_bounded_and_what_is_frequent_is_found_among_strangers() {
    let mut counter = Counter::new(at(0), at(300));
    for n in 0..20_000u32 {
        // Letters, so that no two are the same message.
        let strange: String = n.to_string().bytes().map(|b| char::from(b + 55)).collect();
        for text in [format!("ERROR strange {strange}"), "ERROR usual".to_owned()] {
            counter.add(Line {
                text: text.as_bytes(),
                time: None,
                priority: None,
            });
        }
    }
    let figures = counter.figures();
    assert_eq!(figures.errors, 40_000);
    assert_eq!(figures.top_errors[0].what, "ERROR usual");
}

proptest::proptest! {
    #[test]
    fn no_line_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), text in ".{0,200}") {
        let mut counter = Counter::new(at(0), at(300));
        counter.add(Line { text: &bytes, time: None, priority: None });
        counter.add(Line { text: text.as_bytes(), time: None, priority: None });
        let object = serde_json::json!({"level": text, "time": text, "duration": text, "url": text, "message": text});
        counter.add(Line { text: object.to_string().as_bytes(), time: None, priority: None });
        counter.figures();
    }
}
