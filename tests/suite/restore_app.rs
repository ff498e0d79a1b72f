//! The app around a restore: stopped before the exchange, started after it, asked for its health;
//! what does not come up healthy gets back what it had. And the undo of it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rg_tests::{Deployment, FakeProgram, Held, HttpSink, Postgres, Signal, deployment, eventually};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);
const RUN: &[&str] = &["run", "production", "--yes", "--health-timeout", "2"];

/// A systemctl that keeps each unit's state in `units/NAME`, as the real one answers.
const SYSTEMCTL: &str = r#"
cd "$UNITS" || exit 1
verb=$1; shift
case $verb in
    show) shift; [ "$1" = -- ] && shift
        if [ -e "$1" ]; then printf 'LoadState=loaded\nActiveState=%s\n' "$(cat "$1")"
        else printf 'LoadState=not-found\nActiveState=inactive\n'; fi ;;
    stop|start) [ "$1" = -- ] && shift
        for unit; do
            [ -e "$unit" ] || { echo "Failed to $verb $unit.service: Unit $unit.service not loaded." >&2; exit 5; }
            [ ! -e "refuse-$verb" ] || { echo "Failed to $verb $unit.service: Interactive authentication required." >&2; exit 1; }
            if [ $verb = stop ]; then echo inactive; else echo active; fi >"$unit"
        done
        : ;;
    *) echo "Unknown command verb $verb." >&2; exit 1 ;;
esac
"#;

/// A deployment with two units and a health address, backed up and changed since.
struct App {
    deployment: Deployment<'static>,
    systemctl: FakeProgram,
    health: HttpSink,
    old: Held,
    new: Held,
}

fn app(name: &str) -> App {
    let deployment = deployment!(name);
    let health = HttpSink::start();
    health.answer("/health", 200, r#"{"status": "healthy"}"#);
    deployment.write("units/api", "active");
    deployment.write("units/worker", "active");
    let systemctl = FakeProgram::new(&deployment, "systemctl");
    let units = deployment.path("units");
    systemctl.does(&format!("UNITS='{}'\n{SYSTEMCTL}", units.display()));
    deployment.configure(
        "",
        "",
        &format!(
            "[environments.production.app]\nunits = [\"api\", \"worker\"]\nhealth = [\n  \
             {{ url = \"{}\", status = 200, json = {{ \"$.status\" = \"healthy\" }} }},\n]\n",
            health.url("/health")
        ),
    );
    let old = deployment.held();
    deployment.backup();
    deployment.change("since the backup");
    let new = deployment.held();
    App {
        deployment,
        systemctl,
        health,
        old,
        new,
    }
}

impl App {
    fn verbs(&self) -> Vec<String> {
        let calls = self.systemctl.calls().into_iter();
        calls
            .filter(|call| call[0] != "show")
            .map(|call| call.join(" "))
            .collect()
    }

    fn units(&self) -> [String; 2] {
        ["units/api", "units/worker"].map(|unit| self.deployment.read(unit).trim().to_owned())
    }
}

#[test]
fn units_are_stopped_before_the_exchange_and_started_after_it() {
    let app = app("units");
    app.deployment.restore(RUN).ok();
    app.deployment.is_as(&app.old);
    assert_eq!(app.verbs(), ["stop -- api worker", "start -- api worker"]);
    assert_eq!(app.units(), ["active", "active"]);
    assert!(!app.health.requests().is_empty());
    app.deployment
        .restore(&["undo", "production", "--yes"])
        .ok();
    app.deployment.is_as(&app.new);
    assert_eq!(app.verbs().len(), 4);
}

#[test]
fn an_app_that_does_not_come_up_healthy_gets_back_what_it_had() {
    let app = app("unhealthy");
    for (status, body, words) in [
        (503, "", "it answers 503"),
        (200, r#"{"status": "broken"}"#, "$.status is \"broken\""),
        (200, "{}", "its answer has no $.status"),
        (200, "not JSON", "is not JSON"),
    ] {
        app.health.answer("/health", status, body);
        app.deployment
            .restore(RUN)
            .fails(2)
            .says(words)
            .says("the restore was taken back and everything is as it was")
            .says("--leave-units");
        app.deployment.is_as(&app.new);
        assert_eq!(app.units(), ["active", "active"]);
        assert_eq!(app.deployment.kept(), [""; 0]);
    }
    app.health
        .answer("/health", 200, r#"{"status": "healthy"}"#);
    app.deployment.restore(RUN).ok();
    app.deployment.is_as(&app.old);
    // An undo of which the app does not come up is taken back likewise, and can be tried again.
    app.health.answer("/health", 500, "");
    let undo = &["undo", "production", "--yes", "--health-timeout", "1"][..];
    app.deployment.restore(undo).fails(2).says("taken back");
    app.deployment.is_as(&app.old);
    app.health
        .answer("/health", 200, r#"{"status": "healthy"}"#);
    app.deployment.restore(undo).ok();
    app.deployment.is_as(&app.new);
}

#[test]
fn a_unit_that_fails_to_start_has_everything_switched_back() {
    let app = app("no_start");
    // Only the first start is refused: that of the restored app.
    let units = app.deployment.path("units");
    app.systemctl.does(&format!(
        "UNITS='{0}'\nif [ \"$1\" = start ] && [ ! -e '{0}/once' ]; then touch '{0}/once'; \
         echo 'Job for api.service failed.' >&2; exit 1; fi\n{SYSTEMCTL}",
        units.display()
    ));
    app.deployment
        .restore(RUN)
        .fails(2)
        .says("the app's units did not start")
        .says("taken back");
    app.deployment.is_as(&app.new);
    assert_eq!(app.units(), ["active", "active"]);
}

#[test]
fn a_right_to_stop_units_that_is_missing_leaves_no_journal_that_blocks_later_commands() {
    let app = app("no_right");
    app.deployment.write("units/refuse-stop", "");
    app.deployment.write("units/refuse-start", "");
    app.deployment
        .restore(RUN)
        .fails(2)
        .says("Interactive authentication required");
    app.deployment.is_as(&app.new);
    app.deployment.restore(&["drill", "production"]).ok();
    app.deployment
        .restore(&[RUN, &["--leave-units"]].concat())
        .ok();
    app.deployment.is_as(&app.old);
}

#[test]
fn units_that_were_down_stay_down_and_the_app_is_not_asked() {
    let app = app("was_down");
    app.deployment.write("units/api", "inactive");
    app.deployment.write("units/worker", "failed");
    app.health.answer("/health", 503, "");
    app.deployment.restore(RUN).ok();
    app.deployment.is_as(&app.old);
    assert_eq!(app.verbs(), [""; 0]);
    assert_eq!(app.units(), ["inactive", "failed"]);
}

#[test]
fn a_missing_unit_is_an_error_before_anything_and_leave_units_goes_on() {
    let app = app("missing");
    std::fs::remove_file(app.deployment.path("units/worker")).expect("the unit");
    app.deployment
        .restore(RUN)
        .fails(2)
        .says("there is no unit worker")
        .says("--leave-units");
    app.deployment.is_as(&app.new);
    assert_eq!(app.verbs(), [""; 0]);
    app.health.answer("/health", 503, "");
    app.deployment
        .restore(&[RUN, &["--leave-units"]].concat())
        .ok();
    app.deployment.is_as(&app.old);
    assert_eq!(app.verbs(), [""; 0]);
    assert!(app.health.requests().is_empty());
}

#[test]
fn being_told_to_stop_while_the_app_comes_up_takes_everything_back() {
    let app = app("signalled");
    app.health.answer("/health", 503, "");
    let running =
        app.deployment
            .spawn_restore(&["run", "production", "--yes", "--health-timeout", "300"]);
    assert!(eventually(SOON, || !app.health.requests().is_empty()));
    running.signal(Signal::TERM);
    running.wait().fails(2).says("stopped by a signal");
    app.deployment.is_as(&app.new);
    assert_eq!(app.units(), ["active", "active"]);
}

#[test]
fn clients_that_reconnect_all_the_time_see_the_old_or_the_new_database() {
    let app = deployment!("load");
    app.backup();
    app.cluster
        .psql("load", "INSERT INTO customers (name) VALUES ('since')");
    let before = app.held();
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            thread::spawn(move || client(&stop, &answers))
        })
        .collect();
    assert!(eventually(SOON, || answers.load(Ordering::Relaxed) > 40));
    for _ in 0..2 {
        app.restore(&["run", "production", "--yes"]).ok();
        app.restore(&["undo", "production", "--yes"]).ok();
    }
    let now = answers.load(Ordering::Relaxed);
    assert!(eventually(SOON, || answers.load(Ordering::Relaxed) > now + 40));
    stop.store(true, Ordering::Relaxed);
    let mut exchanges_seen = 0;
    for client in clients {
        let (lost, counts) = client.join().expect("a client");
        assert!(
            lost.len() <= 8,
            "a statement or a connection an exchange: {lost:?}"
        );
        assert!(
            counts
                .iter()
                .all(|count| ["300", "301"].contains(&&**count)),
            "{counts:?}"
        );
        exchanges_seen += counts.windows(2).filter(|pair| pair[0] != pair[1]).count();
    }
    assert!(exchanges_seen >= 4);
    app.is_as(&before);
}

/// Connects and asks, again and again; what went wrong, and the answers.
fn client(stop: &AtomicBool, answers: &AtomicU32) -> (Vec<String>, Vec<String>) {
    let (mut lost, mut counts) = (Vec::new(), Vec::new());
    let ask =
        "SELECT count(*) FROM customers; SELECT pg_sleep(0.01); SELECT count(*) FROM customers";
    while !stop.load(Ordering::Relaxed) {
        let output = Postgres::shared().try_psql("load", "load", ask);
        counts.extend(output.out().split_whitespace().map(str::to_owned));
        if output.code() == 0 {
            answers.fetch_add(1, Ordering::Relaxed);
        } else {
            lost.push(output.err());
        }
    }
    (lost, counts)
}

#[test]
fn an_undo_can_be_undone_and_an_older_one_is_cleaned_up_by_the_next_restore() {
    let app = deployment!("undone");
    let old = app.held();
    app.backup();
    app.change("one");
    let one = app.held();
    app.restore(&["run", "production", "--yes"]).ok();
    for wanted in [&one, &old, &one, &old] {
        app.restore(&["undo", "production", "--yes"]).ok();
        app.is_as(wanted);
        assert_eq!(app.kept().len(), 2, "{:?}", app.kept());
        let document = app.restore(&["list", "--json"]).ok().json();
        assert_eq!(document["undoable"].as_array().map(Vec::len), Some(2));
    }
    app.change("two");
    let two = app.held();
    app.restore(&["run", "production", "--yes"]).ok();
    assert_eq!(app.kept().len(), 2, "{:?}", app.kept());
    // Only the last one can be undone; what was replaced before it is gone.
    app.restore(&["undo", "production", "--yes"]).ok();
    app.is_as(&two);
    // One dataset of two.
    app.restore(&["undo", "production/database", "--yes"]).ok();
    let mixed = app.held();
    assert!(mixed.rows == old.rows && mixed.tree == two.tree);
}

#[test]
fn an_undo_without_anything_to_put_back_says_so_and_leaves_the_app_alone() {
    let app = app("nothing");
    app.deployment
        .restore(&["undo", "production", "--yes"])
        .fails(2)
        .says("there is no restore of production to undo");
    app.deployment.is_as(&app.new);
    app.deployment.restore(RUN).ok();
    let kept = app.deployment.kept();
    let database = kept.iter().find(|name| name.contains("_rg_before_"));
    let database = database.expect("a kept database");
    let calls = app.verbs();
    let drop = format!("DROP DATABASE \"{database}\"");
    app.deployment.cluster.psql("postgres", &drop);
    app.deployment
        .restore(&["undo", "production", "--yes"])
        .fails(2)
        .says(database)
        .says("is gone");
    app.deployment.is_as(&app.old);
    assert_eq!(app.verbs(), calls);
}

#[test]
fn a_restore_beside_asks_systemd_nothing() {
    let app = app("apart");
    let words = [
        "run",
        "production/database",
        "--beside",
        "apart_copy",
        "--yes",
    ];
    app.deployment.restore(&words).ok();
    assert_eq!(app.systemctl.calls(), Vec::<Vec<String>>::new());
    app.deployment.is_as(&app.new);
    assert!(app.deployment.cluster.digest("apart_copy") == app.old.rows);
}
