//! A restore in place, by a role that may not create databases: its safety dump is there as long as it
//! can be undone with, and no longer; the app is started and asked whatever happens.

use std::process::Command;
use std::time::Duration;

use rg_tests::{Deployment, FakeProgram, Held, HttpSink, Tool, deployment, eventually};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);
const RUN: &[&str] = &[
    "run",
    "production/database",
    "--yes",
    "--health-timeout",
    "2",
];
const UNDO: &[&str] = &[
    "undo",
    "production/database",
    "--yes",
    "--health-timeout",
    "2",
];

/// A systemctl that keeps one unit's state in `units/api`.
const SYSTEMCTL: &str = r#"
cd "$UNITS" || exit 1
case $1 in
    show) printf 'LoadState=loaded\nActiveState=%s\n' "$(cat api)" ;;
    stop) echo inactive >api ;;
    start) echo active >api ;;
esac
"#;

struct App {
    deployment: Deployment<'static>,
    health: HttpSink,
    old: Held,
    new: Held,
}

/// A deployment whose role may do nothing but own its database, backed up and changed since.
fn app(name: &str) -> App {
    let deployment = deployment!(name);
    let health = HttpSink::start();
    health.answer("/health", 200, "");
    deployment.write("units/api", "active");
    let units = deployment.path("units");
    FakeProgram::new(&deployment, "systemctl")
        .does(&format!("UNITS='{}'\n{SYSTEMCTL}", units.display()));
    deployment.configure(
        "",
        "",
        &format!(
            "[environments.production.app]\nunits = [\"api\"]\nhealth = [{{ url = \"{}\", status = 200 }}]\n",
            health.url("/health")
        ),
    );
    let role = format!("ALTER ROLE \"{name}\" NOCREATEDB");
    deployment.cluster.psql("postgres", &role);
    let old = deployment.held();
    deployment.backup_of("production/database");
    deployment
        .cluster
        .psql(name, "DELETE FROM orders WHERE id % 3 = 0");
    let new = deployment.held();
    App {
        deployment,
        health,
        old,
        new,
    }
}

impl App {
    fn safety_dumps(&self) -> Vec<String> {
        let mut files = self.deployment.files("state/restore");
        files.retain(|name| name.contains("_before_"));
        files
    }

    fn unit(&self) -> String {
        self.deployment.read("units/api").trim().to_owned()
    }
}

#[test]
fn a_restore_in_place_that_fails_leaves_no_safety_dump() {
    let app = app("safety_fails");
    let dump = app
        .deployment
        .cluster
        .command("pg_dump", "safety_fails", "safety_fails");
    let dump = Tool::new(dump, "pg_dump").run().ok().out().replace(
        "-- PostgreSQL database dump complete",
        "SELECT no_such_function();\n-- PostgreSQL database dump complete",
    );
    let file = app.deployment.write("old/app.sql", dump);
    let file = file.to_string_lossy();
    let words = [RUN, &["--from", &file]].concat();
    let failed = app.deployment.restore(&words).fails(2);
    failed.says("nothing was changed").says("no_such_function");
    app.deployment.is_as(&app.new);
    assert_eq!(app.safety_dumps(), [""; 0]);
    assert_eq!(app.unit(), "active");
    app.deployment.restore(UNDO).fails(2).says("no restore of");
}

#[test]
fn an_app_that_does_not_come_up_can_be_given_back_what_it_had() {
    let app = app("safety_sick");
    app.health.answer("/health", 503, "");
    let output = app.deployment.restore(RUN).fails(2);
    output
        .says("restored, but the app did not come up")
        .says("`rg-restore undo` puts back");
    app.deployment.is_as(&app.old);
    assert_eq!(app.safety_dumps().len(), 1);
    app.health.answer("/health", 200, "");
    app.deployment.restore(UNDO).ok();
    app.deployment.is_as(&app.new);
    // The undo can be undone: by the dump that it took.
    assert_eq!(app.safety_dumps().len(), 1);
    app.deployment.restore(UNDO).ok();
    app.deployment.is_as(&app.old);
    assert_eq!(app.safety_dumps().len(), 1);
}

#[test]
fn killed_in_the_middle_the_next_command_starts_the_app_and_undo_is_possible() {
    let app = app("safety_killed");
    let cluster = app.deployment.cluster;
    // Another session reads a table: dropping it has to wait.
    let mut reader: Command = cluster.command("psql", "safety_killed", "safety_killed");
    reader.args(["-XAtq", "-f", "-"]);
    let sql = "BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE; SELECT pg_sleep(600);";
    let reader = Tool::new(reader, "psql").stdin(sql).spawn();
    let count = |sql: &str| {
        cluster
            .psql("postgres", sql)
            .parse::<u32>()
            .expect("a count")
    };
    let holds = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'safety_killed' AND wait_event = 'PgSleep'";
    assert!(eventually(SOON, || count(holds) == 1));
    let running = app.deployment.spawn_restore(RUN);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'safety_killed' AND wait_event_type = 'Lock'";
    assert!(
        eventually(SOON, || count(waits) >= 1),
        "{}",
        running.stderr_so_far()
    );
    assert_eq!(app.unit(), "inactive");
    running.kill();
    running.wait();
    reader.kill();
    reader.wait();
    cluster.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'safety_killed'",
    );
    assert!(app.deployment.held().rows == app.new.rows);
    // The app comes up slowly: the command that puts things in order waits for it.
    app.health.answer("/health", 503, "");
    let running = app.deployment.spawn_restore(UNDO);
    app.health.wait_for(2, SOON);
    app.health.answer("/health", 200, "");
    running.wait().ok();
    assert_eq!(app.unit(), "active");
    app.deployment.is_as(&app.new);
    assert_eq!(app.safety_dumps().len(), 1);
}
