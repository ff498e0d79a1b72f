//! Alerts by real sockets: each kind of channel, channels that refuse and that hang, a full disk, a
//! damaged state, two runs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rg_common::Result;
use rg_common::check::{Finding, State};
use rg_common::config::{AlertsConfig, NotifyConfig, NotifyKind, NotifyLevel, Patience, Value};
use rg_healthcheck::alert::{self, Channel, Notice, Round, Rules, Run};
use rg_tests::{FullDisk, HttpSink, sandbox};

/// Part of the addresses; an error must not say it.
const SECRET: &str = "1f0c-s3cret-path";

struct Host {
    channels: Vec<NotifyConfig>,
    runtime: tokio::runtime::Runtime,
    now: Timestamp,
}

/// What a run said: its notices, or why the state could not be written, and what was not delivered.
struct Said {
    notices: Result<Vec<Notice>>,
    untold: Vec<String>,
}

impl Host {
    fn new(channels: Vec<NotifyConfig>) -> Host {
        Host {
            channels,
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            now: "2026-11-22T03:00:00Z".parse().expect("a time"),
        }
    }

    /// A minute later: the check is in this state.
    fn run(&mut self, state: &Path, found: State) -> Said {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(60))
            .expect("a time");
        let mut run = Run::begin(state, self.now).expect("the state");
        let findings = [finding(found)];
        let known = BTreeSet::from(["p/http".to_owned()]);
        let round = Round {
            findings: &findings,
            known: &known,
            now: self.now,
        };
        let notices = run.decide(&round, &self.rules());
        let network = self.runtime.handle();
        let untold = run.deliver(network, &self.channels, "vps-1", &TimeZone::UTC);
        Said { notices, untold }
    }

    fn rules(&self) -> Rules {
        Rules {
            patience: BTreeMap::new(),
            alerts: AlertsConfig {
                after: Patience::InARow(1),
                recover_after: 1,
                remind: Duration::from_secs(86_400),
                history: Duration::from_secs(86_400),
            },
            quiet: Vec::new(),
            channels: Channel::all(&self.channels),
        }
    }
}

fn finding(state: State) -> Finding {
    Finding {
        id: "p/http".to_owned(),
        environment: Some("p".to_owned()),
        about: "the app answers".to_owned(),
        state,
        found: "it answered 500".to_owned(),
        fix: Some("systemctl status app".to_owned()),
        figures: Vec::new(),
        evidence: Vec::new(),
        took_ms: 5,
        because: None,
    }
}

fn channel(name: &str, kind: NotifyKind, url: &str) -> NotifyConfig {
    NotifyConfig {
        name: name.to_owned(),
        kind,
        url: Some(Value::parse(url).expect("an address")),
        env_file: None,
        to: None,
        from: None,
        level: NotifyLevel::Warn,
        fallback: false,
        tools: Vec::new(),
    }
}

fn paths(sink: &HttpSink) -> Vec<String> {
    let mut paths: Vec<String> = sink.requests().into_iter().map(|r| r.path).collect();
    paths.sort();
    paths
}

#[test]
fn each_kind_of_channel_is_told_in_its_own_words_once() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let mut host = Host::new(vec![
        channel("hook", NotifyKind::Webhook, &sink.url("/hook")),
        channel("slack", NotifyKind::Slack, &sink.url("/slack")),
        channel("discord", NotifyKind::Discord, &sink.url("/discord")),
        channel("ntfy", NotifyKind::Ntfy, &sink.url("/ntfy")),
        channel("dead_man", NotifyKind::Ping, &sink.url("/ping")),
    ]);
    let state = sandbox.path("state");
    for (found, requests) in [
        (State::Pass, 0),
        (State::Fail, 4),
        (State::Fail, 4),
        (State::Pass, 8),
        (State::Pass, 8),
    ] {
        let said = host.run(&state, found);
        assert_eq!(said.untold, [""; 0]);
        assert_eq!(sink.requests().len(), requests);
    }
    assert_eq!(
        paths(&sink)[..4],
        ["/discord", "/discord", "/hook", "/hook"]
    );
    let of = |path: &str| {
        let all = sink.requests().into_iter();
        all.filter(|r| r.path == path).collect::<Vec<_>>()
    };
    let json = |body: &str| serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    let hook = json(&of("/hook")[0].body);
    assert_eq!(hook["notices"][0]["check"], "p/http");
    assert_eq!(hook["notices"][0]["fix"], "systemctl status app");
    assert_eq!(of("/hook")[0].headers["idempotency-key"], hook["key"]);
    let slack = json(&of("/slack")[0].body);
    let text = slack["text"].as_str().expect("a text");
    assert!(
        text.starts_with("*[vps-1] FAIL p/http: it answered 500*\n```FAIL p/http"),
        "{text}"
    );
    let discord = json(&of("/discord")[1].body);
    let text = discord["content"].as_str().expect("a text");
    assert!(
        text.starts_with("**[vps-1] RECOVERED p/http after 2 min**\n"),
        "{text}"
    );
    let ntfy = &of("/ntfy")[0];
    assert_eq!(
        ntfy.headers["title"],
        "[vps-1] FAIL p/http: it answered 500"
    );
    assert_eq!(ntfy.headers["priority"], "5");
    assert!(
        ntfy.body.contains("  do     systemctl status app\n"),
        "{}",
        ntfy.body
    );
}

#[test]
fn what_a_channel_refuses_goes_to_the_fallback_and_arrives_later_once() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let mut second = channel("second", NotifyKind::Webhook, &sink.url("/second"));
    second.fallback = true;
    let slack = sink.url(&format!("/{SECRET}/slack"));
    let mut host = Host::new(vec![channel("slack", NotifyKind::Slack, &slack), second]);
    let state = sandbox.path("state");
    let slack_path = format!("/{SECRET}/slack");
    sink.answer(&slack_path, 429, &format!("cannot POST {slack_path}"));
    let said = host.run(&state, State::Fail);
    assert_eq!(
        said.untold,
        [
            "cannot notify `slack`: it answered 429 Too Many Requests; 1 notices wait for the next run"
        ]
    );
    assert_eq!(paths(&sink), [slack_path.clone(), "/second".to_owned()]);
    host.run(&state, State::Fail);
    assert_eq!(sink.requests().len(), 3, "the fallback knows it");
    sink.answer(&slack_path, 200, "ok");
    let said = host.run(&state, State::Pass);
    assert_eq!(said.untold, [""; 0]);
    let requests = sink.requests();
    // Its beginning and its end in one message; and the end to the fallback.
    assert_eq!(requests.len(), 5, "{requests:#?}");
    let late = requests[3..]
        .iter()
        .find(|r| r.path == slack_path)
        .expect("slack's");
    assert!(late.body.contains("FAIL p/http"), "{}", late.body);
    assert!(late.body.contains("RECOVERED p/http"), "{}", late.body);
    assert!(
        paths(&sink)
            .iter()
            .filter(|path| *path == "/second")
            .count()
            == 2
    );
    host.run(&state, State::Pass);
    assert_eq!(sink.requests().len(), 5);
}

#[test]
fn a_server_that_never_answers_costs_one_deadline_and_no_other_channel() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", silent.local_addr().expect("its address"));
    let mut host = Host::new(vec![
        channel("silent", NotifyKind::Webhook, &url),
        channel("hook", NotifyKind::Webhook, &sink.url("/hook")),
    ]);
    let state = sandbox.path("state");
    let begun = Instant::now();
    let said = host.run(&state, State::Fail);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(said.untold.len(), 1, "{:?}", said.untold);
    assert!(
        said.untold[0].starts_with("cannot notify `silent`: no answer"),
        "{:?}",
        said.untold
    );
    assert_eq!(sink.requests().len(), 1);
    // Whether it arrived is open: the same message is not tried again at once, and never as another.
    let status = alert::status(&state).expect("the status");
    assert_eq!(
        status
            .channels
            .iter()
            .find(|c| c.name == "silent")
            .map(|c| c.waiting),
        Some(1)
    );
}

#[test]
fn a_full_disk_is_told_once_and_its_end_too() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let disk = FullDisk::mount(&sandbox, "small", 2);
    let state = disk.path().join("state");
    let mut host = Host::new(vec![channel(
        "hook",
        NotifyKind::Webhook,
        &sink.url("/hook"),
    )]);
    host.run(&state, State::Pass).notices.expect("written");
    disk.fill_but(0);
    for (found, requests) in [
        (State::Fail, 1),
        (State::Fail, 1),
        (State::Pass, 2),
        (State::Pass, 2),
    ] {
        let said = host.run(&state, found);
        said.notices.expect("written on a full disk");
        assert_eq!(said.untold, [""; 0]);
        assert_eq!(sink.requests().len(), requests);
    }
}

#[test]
fn a_state_that_cannot_be_written_is_told_once_an_hour_with_what_is_bad() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let disk = FullDisk::mount(&sandbox, "small", 2);
    let state = disk.path().join("state");
    let mut host = Host::new(vec![channel(
        "hook",
        NotifyKind::Webhook,
        &sink.url("/hook"),
    )]);
    host.run(&state, State::Pass).notices.expect("written");
    std::fs::remove_file(state.join("health/state.json.spare")).expect("the spare file");
    disk.fill_but(0);
    for requests in [1, 1, 1] {
        let said = host.run(&state, State::Fail);
        let failure = said.notices.expect_err("a full disk").to_string();
        assert!(
            failure.contains("state.json: No space left on device"),
            "{failure}"
        );
        assert_eq!(sink.requests().len(), requests);
    }
    let body = &sink.requests()[0].body;
    assert!(body.contains("fail p/http: it answered 500"), "{body}");
    host.now = host
        .now
        .checked_add(SignedDuration::from_hours(1))
        .expect("a time");
    host.run(&state, State::Fail);
    assert_eq!(sink.requests().len(), 2);
    disk.free();
    host.run(&state, State::Fail).notices.expect("written");
    host.run(&state, State::Pass).notices.expect("written");
    assert_eq!(sink.requests().len(), 4, "the alert and its end");
}

#[test]
fn a_damaged_state_is_told_and_begun_anew() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let mut host = Host::new(vec![channel(
        "hook",
        NotifyKind::Webhook,
        &sink.url("/hook"),
    )]);
    let state = sandbox.path("state");
    host.run(&state, State::Fail).notices.expect("written");
    std::fs::write(state.join("health/state.json"), "{\"version\":1").expect("the damage");
    let notices = host.run(&state, State::Fail).notices.expect("written");
    assert_eq!(notices.len(), 2, "what was lost, and what is bad now");
    let requests = sink.requests();
    assert_eq!(requests.len(), 2);
    assert!(
        requests[1].body.contains("is damaged: EOF"),
        "{}",
        requests[1].body
    );
    assert!(
        requests[1].body.contains("it is kept as"),
        "{}",
        requests[1].body
    );
    host.run(&state, State::Fail).notices.expect("written");
    assert_eq!(sink.requests().len(), 2);
}

#[test]
fn a_second_run_at_once_says_so() {
    let sandbox = sandbox!();
    let now = "2026-11-22T03:00:00Z".parse().expect("a time");
    let state = sandbox.path("state");
    let first = Run::begin(&state, now).expect("the first");
    let failure = Run::begin(&state, now)
        .err()
        .expect("a failure")
        .to_string();
    assert!(
        failure.starts_with("another run is under way since 2026-11-22T03:00:00Z (process "),
        "{failure}"
    );
    drop(first);
    Run::begin(&state, now).expect("the next");
}

#[test]
fn a_test_proves_each_channel_and_the_proof_ages() {
    let (sandbox, sink) = (sandbox!(), HttpSink::start());
    let host = Host::new(vec![
        channel("hook", NotifyKind::Webhook, &sink.url("/hook")),
        channel("slack", NotifyKind::Slack, &sink.url("/slack")),
    ]);
    let state = sandbox.path("state");
    let judged = |now: Timestamp| {
        let run = Run::begin(&state, now).expect("the state");
        let verdict = alert::proven(run.memory(), &host.channels, now);
        (verdict.state, verdict.found)
    };
    assert_eq!(
        judged(host.now),
        (
            State::Warn,
            "`hook` has never been tried; `slack` has never been tried".to_owned()
        )
    );
    sink.answer("/slack", 404, "no_service");
    let test = || {
        let mut run = Run::begin(&state, host.now).expect("the state");
        let channels: Vec<&NotifyConfig> = host.channels.iter().collect();
        run.test(host.runtime.handle(), &channels, "vps-1")
            .expect("written")
    };
    let tested = test();
    assert_eq!(tested[0].error, None);
    assert_eq!(
        tested[1].error.as_deref(),
        Some("cannot notify `slack`: it answered 404 Not Found: no_service")
    );
    assert_eq!(judged(host.now).0, State::Warn);
    sink.answer("/slack", 200, "ok");
    test();
    assert_eq!(
        judged(host.now),
        (
            State::Pass,
            "2 channels took what they were sent".to_owned()
        )
    );
    let later = host
        .now
        .checked_add(SignedDuration::from_hours(31 * 24))
        .expect("a time");
    assert_eq!(
        judged(later).1,
        "`hook` was last proven 31 d ago; `slack` was last proven 31 d ago"
    );
    let before = host
        .now
        .checked_add(SignedDuration::from_hours(-24))
        .expect("a time");
    assert_eq!(judged(before).0, State::Pass);
}
