//! Somebody is told: of failures by webhook, of every run by a dead man's switch; and what cannot
//! be told never changes how the backup ended.

use std::net::TcpListener;
use std::time::Duration;

use rg_tests::{FakeProgram, HttpSink, Signal, Site, eventually, site};

const SOON: Duration = Duration::from_secs(60);
/// Part of both addresses; whoever knows it can silence the switch.
const SECRET: &str = "1f0c-s3cret-path";

/// The environment's tables after the database's, with both channels at `base`.
fn channels(base: &str) -> String {
    format!(
        "[notify.ops]\nkind = \"webhook\"\nurl = \"{base}/hook/{SECRET}\"\n\
         [notify.dead_man]\nkind = \"ping\"\nurl = \"$PING_URL\"\nenv_file = \"notify.env\"\n"
    )
}

fn told_by(site: &Site, base: &str, more: &str) {
    site.write(
        "notify.env",
        format!("PING_URL={base}/ping/{SECRET}?from=rg\n"),
    );
    site.configure(&format!("{more}{}", channels(base)));
}

fn paths(sink: &HttpSink) -> Vec<String> {
    let requests = sink.requests();
    requests
        .into_iter()
        .map(|request| request.path.replace(SECRET, "X"))
        .collect()
}

#[test]
fn a_success_is_told_to_the_switch_alone() {
    let (site, sink) = (site!("notice_success"), HttpSink::start());
    told_by(&site, &sink.url(""), "");
    let output = site.try_backup().ok();
    assert!(!format!("{output:?}").contains(SECRET));
    assert_eq!(paths(&sink), ["/ping/X/start?from=rg", "/ping/X?from=rg"]);
    let said = &sink.requests()[1].body;
    assert!(said.starts_with("1 backed up on test-host in "), "{said}");
    // What changes nothing tells nobody.
    site.rg_backup(&["run", "--dry-run"]).ok();
    assert_eq!(sink.requests().len(), 2);
}

#[test]
fn a_failure_is_told_with_its_cause_and_what_to_do() {
    let (site, sink) = (site!("notice_failure"), HttpSink::start());
    told_by(&site, &sink.url(""), "");
    site.address(&site.url().replace("/notice_failure", "/gone"));
    let output = site.try_backup().fails(2);
    assert!(!format!("{output:?}").contains(SECRET));
    assert_eq!(
        paths(&sink),
        ["/ping/X/start?from=rg", "/hook/X", "/ping/X/fail?from=rg"]
    );
    let requests = sink.requests();
    let hook: serde_json::Value = serde_json::from_str(&requests[1].body).expect("JSON");
    assert_eq!(hook["tool"], "rg-backup");
    assert_eq!(hook["host"], "test-host");
    assert_eq!(hook["event"], "failure");
    assert_eq!(hook["summary"], "1 of 1 backup failed on test-host");
    let details: Vec<&str> = hook["details"]
        .as_array()
        .expect("details")
        .iter()
        .filter_map(|line| line.as_str())
        .collect();
    assert!(
        details[0].starts_with("app/database: cannot connect to "),
        "{details:?}"
    );
    assert!(
        details[0].ends_with("database \"gone\" does not exist"),
        "{details:?}"
    );
    assert!(
        details[1].starts_with("hint: no database `gone`"),
        "{details:?}"
    );
    assert!(
        requests[2]
            .body
            .contains("database \"gone\" does not exist"),
        "{requests:#?}"
    );
}

#[test]
fn a_store_that_is_down_is_told_too() {
    let (site, sink) = (site!("notice_warning"), HttpSink::start());
    site.write("notify.env", format!("PING_URL={}\n", sink.url("/ping")));
    site.write("second", "a file in the store's place");
    site.configure_stores(
        "[stores.local]\nurl = \"file://{root}/store\"\n[stores.second]\nurl = \"file://{root}/second\"\n",
        &channels(&sink.url("")),
    );
    site.try_backup().fails(1);
    assert_eq!(paths(&sink), ["/ping/start", "/hook/X", "/ping/fail"]);
    let body = &sink.requests()[1].body;
    assert!(body.contains("no copy in store `second`"), "{body}");
}

#[test]
fn a_run_that_is_stopped_is_told_as_failed() {
    let (site, sink) = (site!("notice_stopped"), HttpSink::start());
    told_by(&site, &sink.url(""), "");
    let hung = site.path("hung");
    site.pg_dump_does(&format!(": >'{}'\nexec sleep 3600", hung.display()));
    let running = site.spawn_backup(&["run", "app/database"]);
    assert!(
        eventually(SOON, || hung.exists()),
        "{}",
        running.stderr_so_far()
    );
    running.signal(Signal::TERM);
    running.wait().fails(2);
    let told = sink.requests();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(
        told[2].body.contains("app/database: stopped by a signal"),
        "{told:#?}"
    );
}

#[test]
fn what_cannot_be_told_never_fails_a_backup() {
    let site = site!("notice_down");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    drop(listener);
    told_by(&site, &base, "");
    let output = site.rg_backup(&["run", "app/database", "-vv"]).ok();
    assert!(
        output.out().contains("cannot notify `dead_man`: "),
        "{output:?}"
    );
    assert!(output.out().contains("✓  app/database@"), "{output:?}");
    assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
    // A failure keeps its own words and its own exit code.
    site.address(&site.url().replace("/notice_down", "/gone"));
    let output = site
        .rg_backup(&["run", "app/database", "--json", "-vv"])
        .fails(2);
    let document = output.json();
    let error = document["backups"][0]["error"].as_str().expect("an error");
    assert!(
        error.contains("database \"gone\" does not exist"),
        "{output:?}"
    );
    assert_eq!(
        document["untold"].as_array().expect("untold").len(),
        3,
        "{output:?}"
    );
    assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
    assert_eq!(site.all_whole().len(), 1);
}

#[test]
fn an_answer_of_failure_is_asked_again_and_then_said() {
    let (site, sink) = (site!("notice_refused"), HttpSink::start());
    told_by(&site, &sink.url(""), "");
    sink.answer("*", 500, "no");
    let output = site.try_backup().ok();
    assert_eq!(sink.requests().len(), 6, "start and end, three times each");
    assert!(output.out().contains("it answered 500"), "{output:?}");
    assert!(!format!("{output:?}").contains(SECRET), "{output:?}");
}

#[test]
fn an_address_that_cannot_be_looked_up_is_said_with_its_name() {
    let site = site!("notice_no_name");
    site.configure("[notify.dead_man]\nkind = \"ping\"\nurl = \"$PING_URL\"\n");
    let output = site.try_backup().ok();
    assert!(
        output
            .out()
            .contains("cannot notify `dead_man`: no variable PING_URL"),
        "{output:?}"
    );
}

#[test]
fn people_are_told_by_mail_and_where_they_talk() {
    let (site, sink) = (site!("notice_people"), HttpSink::start());
    let sendmail = FakeProgram::new(&site, "sendmail");
    sendmail.does(&format!("cat >'{}'", site.path("mail").display()));
    let services = ["slack", "discord", "ntfy"].map(|kind| {
        let url = sink.url(&format!("/{kind}/{SECRET}"));
        format!("[notify.{kind}]\nkind = \"{kind}\"\nurl = \"{url}\"\n")
    });
    site.configure(&format!(
        "[notify.post]\nkind = \"mail\"\nto = \"admin@example.org\"\nfrom = \"rg@example.org\"\n{}\
         [notify.second]\nkind = \"webhook\"\nurl = \"{}\"\nfallback = true\n",
        services.concat(),
        sink.url("/second"),
    ));
    site.try_backup().ok();
    assert_eq!(paths(&sink), [""; 0], "nobody is told that all is well");
    site.address(&site.url().replace("/notice_people", "/gone"));
    site.try_backup().fails(2);
    assert_eq!(paths(&sink), ["/slack/X", "/discord/X", "/ntfy/X"]);
    for request in sink.requests() {
        let said = format!("{:?} {}", request.headers.get("title"), request.body);
        assert!(said.contains("1 of 1 backup failed on test-host"), "{said}");
        assert!(said.contains("does not exist"), "{said}");
    }
    let mail = std::fs::read_to_string(site.path("mail")).expect("a mail");
    assert!(mail.contains("\r\nTo: admin@example.org\r\n"), "{mail}");
    assert!(
        mail.contains("Subject: rg-backup: 1 of 1 backup failed on test-host\r\n"),
        "{mail}"
    );
    // What one channel cannot deliver, the fallback does.
    sendmail.fails(75, "queue is full");
    let output = site.try_backup().fails(2);
    assert!(
        output
            .out()
            .contains("cannot notify `post`: sendmail ended with exit status 75: queue is full"),
        "{output:?}"
    );
    assert_eq!(paths(&sink).last().map(String::as_str), Some("/second"));
}
