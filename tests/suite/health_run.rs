//! rg-healthcheck from outside: what is configured is checked, told once with its cause, shown in
//! every form, and remembered, with real sockets, a real browser and Prometheus' own tool.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use rg_tests::{FakeProgram, HttpSink, Output, Sandbox, before_now, eventually, judge, sandbox};

const SECRET: &str = "8f3a-s3cret-hook";

/// An app with a health address, a unit and a port, and somebody to tell.
struct App {
    place: Sandbox,
    app: HttpSink,
    ops: HttpSink,
    systemctl: FakeProgram,
    port: TcpListener,
}

impl App {
    fn new() -> App {
        let place = sandbox!();
        let (app, ops) = (HttpSink::start(), HttpSink::start());
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let systemctl = FakeProgram::new(&place, "systemctl");
        // The journal's tail is evidence.
        FakeProgram::new(&place, "journalctl").does("echo 'api[7]: cannot bind to port 8000'");
        FakeProgram::new(&place, "timedatectl").does("printf 'NTP=yes\\nNTPSynchronized=yes\\n'");
        let it = App {
            place,
            app,
            ops,
            systemctl,
            port,
        };
        it.unit("active", "running");
        it.healthy(true);
        it.configure("");
        it
    }

    fn configure(&self, more: &str) {
        let address = self.port.local_addr().expect("its address");
        self.place.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n\
             [notify.ops]\nkind = \"webhook\"\nurl = \"{hook}\"\ntools = [\"rg-healthcheck\"]\n\
             [notify.dead_man]\nkind = \"ping\"\nurl = \"{ping}\"\n\
             [environments.production]\n\
             [environments.production.app]\nunits = [\"api\"]\nports = {{ api = {port} }}\n\
             health = [{{ url = \"{health}\", json = {{ \"$.status\" = \"healthy\" }}, max_ms = 5000 }}]\n\
             {more}",
            hook = self.ops.url(&format!("/hook/{SECRET}")),
            ping = self.ops.url("/ping"),
            port = address.port(),
            health = self.app.url("/health"),
        ));
    }

    fn healthy(&self, well: bool) {
        match well {
            true => self.app.answer("/health", 200, r#"{"status":"healthy"}"#),
            false => self.app.answer("/health", 500, r#"{"status":"down"}"#),
        }
    }

    fn unit(&self, active: &str, sub: &str) {
        self.systemctl.does(&format!(
            "case \"$*\" in *--failed*|*list-units*) exit 0;; esac\n\
             printf '%s\\n' Id=api.service LoadState=loaded ActiveState={active} SubState={sub} \
             Result=success Type=simple NRestarts=0 MainPID=7 ExecMainStartTimestampMonotonic=5 \
             ExecMainCode=0 ExecMainStatus=0 NeedDaemonReload=no FragmentPath=/x UnitFileState=enabled"
        ));
    }

    fn run(&self, args: &[&str]) -> Output {
        let all = ["run", "production"].iter().chain(args);
        self.place.tool("rg-healthcheck", all.copied()).run()
    }

    fn tool(&self, args: &[&str]) -> Output {
        self.place
            .tool("rg-healthcheck", args.iter().copied())
            .run()
    }

    /// What was told: kind and check of each notice, in order.
    fn told(&self) -> Vec<(String, String)> {
        let requests = self.ops.requests();
        let hooks = requests.iter().filter(|r| r.path.starts_with("/hook"));
        hooks
            .flat_map(|request| {
                let document: serde_json::Value =
                    serde_json::from_str(&request.body).expect("a JSON document");
                let notices = document["notices"].as_array().cloned().unwrap_or_default();
                notices
                    .into_iter()
                    .map(|n| {
                        let word = |key: &str| n[key].as_str().unwrap_or_default().to_owned();
                        (word("kind"), word("check"))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Ends well and says this on stdout.
#[track_caller]
fn shows(output: Output, text: &str) {
    let output = output.ok();
    assert!(
        output.out().contains(text),
        "no `{text}` in {}",
        output.out()
    );
}

fn pair(kind: &str, check: &str) -> (String, String) {
    (kind.to_owned(), check.to_owned())
}

#[test]
fn all_is_well_in_one_line() {
    let app = App::new();
    let output = app.run(&[]).ok();
    assert!(
        output.out().starts_with("test-host: 3 well in "),
        "{}",
        output.out()
    );
    let document = app.run(&["--json"]).ok().json();
    assert_eq!(document["state"], "pass");
    let ids: Vec<&str> = document["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|f| f["id"].as_str())
        .collect();
    assert_eq!(
        ids,
        [
            "production/port/api",
            "production/unit/api",
            "production/http/health"
        ]
    );
    assert_eq!(app.told(), []);
}

#[test]
fn the_command_run_may_be_left_out() {
    let app = App::new();
    let document = app
        .tool(&["production", "--format", "json", "--only", "unit"])
        .ok()
        .json();
    assert_eq!(document["findings"].as_array().map(Vec::len), Some(1));
    // In a file it is the same document.
    let file = app.place.path("round.json");
    let path = file.to_string_lossy().into_owned();
    app.tool(&["production", "--format", "json", "--output", &path])
        .ok();
    let text = fs::read_to_string(&file).expect("the file");
    let written: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&written["state"], &written["tally"]["pass"]),
        (&"pass".into(), &3.into())
    );
    app.tool(&["produktion"])
        .fails(2)
        .says("did you mean `production`?");
    app.tool(&["production", "status"])
        .fails(2)
        .says("arguments before the command");
}

#[test]
fn a_failure_is_told_once_and_its_end_once() {
    let app = App::new();
    app.run(&[]).ok();
    app.healthy(false);
    let output = app.run(&[]).fails(1);
    assert!(
        output.out().contains("FAIL  http/health: "),
        "{}",
        output.out()
    );
    assert_eq!(app.told(), [], "one failure may be a blip");
    for _ in 0..3 {
        app.run(&[]).fails(1);
    }
    assert_eq!(app.told(), [pair("opened", "production/http/health")]);
    app.healthy(true);
    app.run(&[]).ok();
    assert_eq!(app.told().len(), 1, "one good run may be luck");
    app.run(&[]).ok();
    app.run(&[]).ok();
    assert_eq!(
        app.told(),
        [
            pair("opened", "production/http/health"),
            pair("recovered", "production/http/health")
        ]
    );
    let everything = format!("{:?}", app.run(&["-v"]).ok());
    assert!(!everything.contains(SECRET));
}

#[test]
fn a_dead_unit_is_the_cause_and_its_consequence_is_not_told_alone() {
    let app = App::new();
    app.unit("failed", "failed");
    app.healthy(false);
    for _ in 0..3 {
        app.run(&[]).fails(1);
    }
    assert_eq!(app.told(), [pair("opened", "production/unit/api")]);
    let requests = app.ops.requests();
    let told = &requests
        .iter()
        .find(|r| r.path.starts_with("/hook"))
        .expect("told")
        .body;
    assert!(
        told.contains("cannot bind to port 8000"),
        "the journal: {told}"
    );
    assert!(
        told.contains("production/http/health"),
        "its consequence: {told}"
    );
    let shown = app.run(&[]).fails(1).out();
    assert!(shown.contains("because of production/unit/api"), "{shown}");
    // Mended: the consequence ends without ever having been told, the cause with its word.
    app.unit("active", "running");
    app.healthy(true);
    app.run(&[]).ok();
    app.run(&[]).ok();
    assert_eq!(
        app.told(),
        [
            pair("opened", "production/unit/api"),
            pair("recovered", "production/unit/api")
        ]
    );
}

#[test]
fn what_cannot_be_looked_at_is_neither_well_nor_failed() {
    let app = App::new();
    app.systemctl.fails(1, "Failed to connect to bus");
    let output = app.run(&[]).fails(2);
    assert!(
        output.out().contains("????  unit/api: "),
        "{}",
        output.out()
    );
    assert!(
        output.out().contains("Failed to connect to bus"),
        "{}",
        output.out()
    );
}

#[test]
fn a_silence_is_kept_and_ends() {
    let app = App::new();
    app.healthy(false);
    app.tool(&["silence", "--for", "10m"]).fails(2);
    app.tool(&["silence", "--for", "30d", "--reason", "x"])
        .fails(2)
        .says("a silence lasts 7d at most");
    shows(
        app.tool(&["silence", "--for", "10m", "--reason", "deploy"]),
        "deploy",
    );
    for _ in 0..3 {
        app.run(&[]).fails(1);
    }
    assert_eq!(app.told(), []);
    shows(app.tool(&["silence", "--list"]), "deploy");
    shows(app.tool(&["silence", "--end"]), "ended");
    app.run(&[]).fails(1);
    assert_eq!(app.told(), [pair("opened", "production/http/health")]);
}

#[test]
fn nagios_gets_its_codes_and_its_figures() {
    let app = App::new();
    let line = app.run(&["--format", "nagios"]).ok().out();
    assert!(line.starts_with("RG OK - 3 of 3 checks well | "), "{line}");
    assert!(line.contains("'production/http/health total'=0."), "{line}");
    app.healthy(false);
    let line = app.run(&["--format", "nagios"]).fails(2).out();
    assert!(line.starts_with("RG CRITICAL - "), "{line}");
    app.healthy(true);
    app.systemctl.fails(1, "no bus");
    let line = app.run(&["--format", "nagios"]).fails(3).out();
    assert!(line.starts_with("RG UNKNOWN - "), "{line}");
    app.place.write("rg.toml", "nonsense = 1\n");
    let line = app.run(&["--format", "nagios"]).fails(3).out();
    assert!(line.starts_with("RG UNKNOWN - "), "{line}");
}

#[test]
fn prometheus_takes_the_text_file() {
    let app = App::new();
    app.healthy(false);
    let file = app.place.path("rg.prom");
    let path = file.to_string_lossy().into_owned();
    app.run(&["--format", "prometheus", "--output", &path])
        .fails(1);
    let text = fs::read_to_string(&file).expect("the text file");
    let judged = app
        .place
        .program(&judge("prometheus/usr/bin/promtool"), ["check", "metrics"])
        .stdin(text.clone())
        .run()
        .ok();
    assert_eq!((judged.out(), judged.err()), (String::new(), String::new()));
    assert!(
        text.contains("rg_check_state{check=\"production/http/health\",environment=\"production\",state=\"fail\"} 1\n"),
        "{text}"
    );
    // Nothing but the file: the collector would read what lies beside it.
    let beside: Vec<String> = app
        .place
        .files("")
        .into_iter()
        .filter(|f| f.contains(".prom"))
        .collect();
    assert_eq!(beside, ["rg.prom"]);
}

#[test]
fn a_whole_round_looks_at_the_machine_and_pings_the_switch() {
    let app = App::new();
    let document = app.tool(&["run", "--json"]).json();
    let ids: Vec<&str> = document["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|f| f["id"].as_str())
        .collect();
    for wanted in [
        "host/disk/",
        "host/memory",
        "host/load",
        "host/clock",
        "host/units",
        "host/alerts",
    ] {
        assert!(ids.contains(&wanted), "{wanted} of {ids:?}");
    }
    let pings = || {
        let requests = app.ops.requests();
        requests
            .iter()
            .filter(|r| r.path.starts_with("/ping"))
            .count()
    };
    assert_eq!(pings(), 1);
    // A part of a round is no sign of life of the whole.
    app.run(&[]).ok();
    app.tool(&["run", "--dry-run"]);
    assert_eq!(pings(), 1);
}

#[test]
fn every_channel_is_proven_by_a_test() {
    let app = App::new();
    shows(app.tool(&["alert-test"]), "ops: took the test in ");
    app.ops.answer("*", 500, "no");
    let output = app.tool(&["alert-test", "ops"]).fails(1);
    assert!(
        output.out().contains("cannot notify `ops`"),
        "{}",
        output.out()
    );
    assert!(!format!("{output:?}").contains(SECRET));
    app.tool(&["alert-test", "opps"])
        .fails(2)
        .says("did you mean `ops`?");
}

#[test]
fn a_damaged_history_or_state_never_fails_a_check() {
    let app = App::new();
    app.run(&[]).ok();
    fs::write(
        app.place.path("state/health/history.db"),
        "junk that is no database",
    )
    .expect("junk");
    fs::write(app.place.path("state/health/seen.json"), "{").expect("junk");
    let output = app.run(&[]).ok();
    assert!(
        output.out().contains("the history was damaged"),
        "{}",
        output.out()
    );
    assert!(output.out().contains("begun anew"), "{}", output.out());
    app.run(&[]).ok();
    shows(app.tool(&["status"]), "production/http/health");
}

#[test]
fn two_rounds_at_once_do_not_meet() {
    let app = App::new();
    app.app.delay(Duration::from_secs(3));
    let first = app
        .place
        .tool("rg-healthcheck", ["run", "production"])
        .spawn();
    let lock = app.place.path("state/health/running");
    assert!(
        eventually(Duration::from_secs(20), || lock.exists()),
        "{}",
        first.stderr_so_far()
    );
    app.run(&[]).fails(2).says("another run is under way");
    first.wait().ok();
}

#[test]
fn watch_shows_round_after_round_and_tells_nobody() {
    let app = App::new();
    app.healthy(false);
    let output = app
        .tool(&["watch", "production", "--every", "1s", "--rounds", "3"])
        .fails(1);
    assert_eq!(
        output.out().matches("FAIL  http/health").count(),
        3,
        "{}",
        output.out()
    );
    assert_eq!(app.told(), []);
    assert!(!app.place.path("state/health/state.json").exists());
}

#[test]
fn logs_are_counted_over_a_window() {
    let app = App::new();
    let now = before_now(jiff::SignedDuration::ZERO);
    let mut lines = String::new();
    for n in 0..100 {
        let (level, status) = match n {
            0..5 => ("ERROR", 500),
            5..8 => ("WARNING", 429),
            _ => ("INFO", 200),
        };
        lines.push_str(&format!(
            "{{\"timestamp\":\"{}\",\"level\":\"{level}\",\"path\":\"/api/v1/items/{n}\",\"status\":{status},\"duration_ms\":{n},\"message\":\"request {n}\"}}\n",
            now - jiff::SignedDuration::from_secs(n)
        ));
    }
    app.place.write("app.log", lines);
    app.configure("log = { file = \"app.log\" }\n");
    let document = app.tool(&["logs", "--last", "1h", "--json"]).ok().json();
    let log = &document["logs"][0];
    assert_eq!(log["lines"], 100);
    assert_eq!(log["errors"], 5);
    assert_eq!(log["rate_limited"], 3);
    assert_eq!(log["mean_ms"], 49.5);
    assert_eq!(log["top_paths"][0]["what"], "/api/v1/items/:id");
    shows(app.tool(&["logs", "--last", "1h"]), "5 errors");
    fs::remove_file(app.place.path("app.log")).expect("the log");
    let output = app.tool(&["logs"]).fails(2).out();
    assert!(output.contains("cannot be read"), "{output}");
}

#[test]
fn the_status_page_is_whole_in_a_browser_and_runs_nothing() {
    let app = App::new();
    // What a server answers is hostile.
    app.app.answer(
        "/health",
        500,
        r#"</div><script>document.title="owned"</script><img src=x onerror="document.title='owned'">"#,
    );
    for _ in 0..2 {
        app.run(&[]).fails(1);
    }
    let page = app.place.path("status.html");
    app.tool(&["report", "--html", &page.to_string_lossy()])
        .ok();
    let browser = |args: &[&str]| {
        let profile = format!("--user-data-dir={}", app.place.path("browser").display());
        let url = format!("file://{}", page.display());
        let fixed = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            profile.as_str(),
        ];
        let all = fixed.iter().chain(args).copied().chain([url.as_str()]);
        app.place
            .program("chromium", all)
            .time_limit(Duration::from_secs(120))
            .run()
            .ok()
    };
    let dom = browser(&["--dump-dom"]).out();
    assert!(
        dom.contains("<title>test-host: Something has failed</title>"),
        "the page ran what it shows"
    );
    assert!(!dom.contains("<script"), "a script in the page");
    assert!(
        !dom.contains("onerror=\""),
        "an element of a server's in the page"
    );
    assert!(dom.contains("production/http/health"));
    let picture = app.place.path("phone.png");
    browser(&[
        "--window-size=390,900",
        &format!("--screenshot={}", picture.display()),
    ]);
    let bytes = fs::read(&picture).expect("a screenshot");
    assert_eq!(&bytes[1..4], b"PNG");
    // A blank page of this size compresses to less.
    assert!(bytes.len() > 10_000, "{} bytes", bytes.len());
}
