//! `kill -9` during a restore, at any moment: the live data is the old or the new, never between,
//! and the next command puts everything in order by itself.

use std::thread;
use std::time::Duration;

use rg_tests::{Chance, Deployment, FakeProgram, Held, deployment, eventually, rounds};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);
const RUN: &[&str] = &["run", "production", "--yes"];

/// A systemctl that keeps one unit's state in `units/api`; killed are those who call it, as told.
const SYSTEMCTL: &str = r#"
cd "$UNITS" || exit 1
verb=$1
hook=$(cat "kill-before-$verb" 2>/dev/null)
if [ -n "$hook" ]; then rm "kill-before-$verb"; kill -9 $PPID; exit 1; fi
case $verb in
    show) printf 'LoadState=loaded\nActiveState=%s\n' "$(cat api)" ;;
    stop) echo inactive >api ;;
    start) echo active >api ;;
esac
hook=$(cat "kill-after-$verb" 2>/dev/null)
if [ -n "$hook" ]; then rm "kill-after-$verb"; kill -9 $PPID; fi
exit 0
"#;

fn app(name: &str) -> (Deployment<'static>, Held, Held) {
    let app = deployment!(name);
    app.write("units/api", "active");
    let systemctl = FakeProgram::new(&app, "systemctl");
    let units = app.path("units");
    systemctl.does(&format!("UNITS='{}'\n{SYSTEMCTL}", units.display()));
    app.configure("", "", "[environments.production.app]\nunits = [\"api\"]\n");
    let old = app.held();
    app.backup();
    app.change("since the backup");
    let new = app.held();
    (app, old, new)
}

/// What is live is one of the two, part by part; whether they are of one moment.
#[track_caller]
fn check_live(app: &Deployment<'_>, old: &Held, new: &Held) -> bool {
    let now = app.held();
    let (rows, tree) = (now.rows == old.rows, now.tree == old.tree);
    assert!(rows || now.rows == new.rows, "a database in between");
    assert!(tree || now.tree == new.tree, "a tree in between");
    rows == tree
}

/// The next command finds what was left and puts it in order: both old or both new, the unit up.
#[track_caller]
fn recovers(app: &Deployment<'_>, old: &Held, new: &Held) {
    app.restore(&["drill", "production"]).ok();
    assert!(check_live(app, old, new), "one part old, one part new");
    assert_eq!(app.left_over(), [""; 0]);
    assert_eq!(app.read("units/api").trim(), "active");
}

#[test]
fn killed_at_any_moment_the_pair_is_old_or_new_after_the_next_command() {
    let (app, old, new) = app("killed");
    let mut chance = Chance::new();
    // How long a restore takes here, less the three seconds for which its unit must stay up.
    let whole = app
        .restore(RUN)
        .ok()
        .wall
        .saturating_sub(Duration::from_secs(3));
    app.restore(&["undo", "production", "--yes", "--leave-units"])
        .ok();
    app.is_as(&new);
    let mut ended_in_the_exchange = 0;
    for number in 0..rounds(40) {
        let moment = Duration::from_micros(chance.below(whole.as_micros() as u64 + 100_000));
        let running = app.spawn_restore(RUN);
        thread::sleep(moment);
        running.kill();
        running.wait();
        assert!(
            eventually(SOON, || app.leftovers().is_empty()),
            "{:?}",
            app.leftovers()
        );
        // A server that is busy finishes a statement although its client is gone.
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'killed'";
        assert!(eventually(SOON, || app.cluster.psql("postgres", sessions) == "0"));
        check_live(&app, &old, &new);
        ended_in_the_exchange += u32::from(app.path("state/restore/journal.json").exists());
        recovers(&app, &old, &new);
        // Back to where it began, when it went through.
        if app.held() == old {
            app.restore(&["undo", "production", "--yes", "--leave-units"])
                .ok();
        }
        assert!(app.held() == new, "kill {number} after {moment:?}");
    }
    // Where a kill matters most it must have been tried.
    assert!(ended_in_the_exchange > 0);
}

#[test]
fn killed_before_anything_was_exchanged_it_is_taken_back() {
    let (app, old, new) = app("back");
    for moment in ["kill-before-stop", "kill-after-stop"] {
        app.write(format!("units/{moment}"), "now");
        assert_eq!(app.restore(RUN).code(), 137);
        assert!(app.held() == new, "{moment}");
        let list = app.restore(&["list"]).ok();
        assert!(list.out().contains("was interrupted"), "{list:?}");
        recovers(&app, &old, &new);
        app.is_as(&new);
        assert_eq!(app.kept(), [""; 0]);
    }
}

#[test]
fn killed_when_all_was_exchanged_it_is_finished_and_can_be_undone() {
    let (app, old, new) = app("finish");
    for moment in ["kill-before-start", "kill-after-start"] {
        app.write(format!("units/{moment}"), "now");
        assert_eq!(app.restore(RUN).code(), 137);
        assert!(app.held() == old, "{moment}");
        recovers(&app, &old, &new);
        app.is_as(&old);
        app.restore(&["undo", "production", "--yes", "--leave-units"])
            .ok();
        app.is_as(&new);
    }
    // The same for an undo: it is not taken for a restore whose fresh database may be thrown away.
    app.restore(&[RUN, &["--leave-units"]].concat()).ok();
    for (moment, wanted) in [("kill-after-stop", &old), ("kill-before-start", &new)] {
        app.write(format!("units/{moment}"), "now");
        assert_eq!(app.restore(&["undo", "production", "--yes"]).code(), 137);
        recovers(&app, &old, &new);
        app.is_as(wanted);
        assert_eq!(app.kept().len(), 2, "{:?}", app.kept());
        let document = app.restore(&["list", "--json"]).ok().json();
        assert_eq!(document["undoable"].as_array().map(Vec::len), Some(2));
    }
}

#[test]
fn killed_between_the_database_and_the_files_the_next_command_finishes_both() {
    let (app, old, new) = app("between");
    for (round, half_named) in [true, false].into_iter().enumerate() {
        // As a kill there leaves it: both are exchanged, the journal lies there, and then the
        // files' exchange is taken back by hand.
        app.write("units/kill-before-start", "now");
        assert_eq!(app.restore(RUN).code(), 137);
        let journal: serde_json::Value =
            serde_json::from_str(&app.read("state/restore/journal.json")).expect("the journal");
        let files = journal["parts"].as_array().expect("parts").iter();
        let files = files
            .into_iter()
            .find(|part| part["kind"] == "files")
            .expect("files");
        let path = |name: &str| files[name].as_str().expect("a path").to_owned();
        // The tree as it was before its exchange: live is the old one, fresh has its own name.
        let rename = |from: &str, to: &str| std::fs::rename(from, to).expect("a rename");
        rename(&path("live"), &path("fresh"));
        rename(&path("aside"), &path("live"));
        if half_named {
            // Or in the middle of it: exchanged, but the replaced tree still has the fresh name.
            let other = format!("{}-x", path("fresh"));
            rename(&path("fresh"), &other);
            rename(&path("live"), &path("fresh"));
            rename(&other, &path("live"));
            assert!(check_live(&app, &old, &new));
        } else {
            assert!(
                !check_live(&app, &old, &new),
                "the database is exchanged, the files are not"
            );
        }
        // The machine has started again meanwhile, and with it the app.
        app.write("units/api", "active");
        recovers(&app, &old, &new);
        app.is_as(&old);
        app.restore(&["undo", "production", "--yes", "--leave-units"])
            .ok();
        assert!(app.held() == new, "round {round}");
    }
}

#[test]
fn killed_with_a_database_that_somebody_dropped_since_it_is_taken_back() {
    let (app, _, new) = app("dropped");
    app.write("units/kill-after-stop", "now");
    assert_eq!(app.restore(RUN).code(), 137);
    let fresh = app.cluster.databases().into_iter();
    let fresh = fresh
        .into_iter()
        .find(|name| name.starts_with("dropped_rg_restoring"));
    let drop = format!("DROP DATABASE \"{}\"", fresh.expect("the fresh database"));
    app.cluster.psql("postgres", &drop);
    app.restore(&["drill", "production"]).ok();
    app.is_as(&new);
    assert_eq!(app.read("units/api").trim(), "active");
}

#[test]
fn a_restore_beside_that_is_killed_leaves_nothing_under_its_name() {
    let (app, _, new) = app("half");
    app.program_does(
        "pg_restore",
        "\"$real\" --section=pre-data \"$@\"; kill -9 $PPID",
    );
    let words = [
        "run",
        "production/database",
        "--beside",
        "half_copy",
        "--yes",
    ];
    assert_eq!(app.restore(&words).code(), 137);
    assert!(!app.cluster.databases().contains(&"half_copy".to_owned()));
    app.program_does("pg_restore", "exec \"$real\" \"$@\"");
    app.restore(&words).ok();
    app.is_as(&new);
    assert!(app.cluster.databases().contains(&"half_copy".to_owned()));
}

#[test]
fn a_drill_that_is_killed_leaves_nothing_once_the_next_command_has_run() {
    let (app, _, new) = app("scratch");
    app.program_does("pg_restore", "kill -9 $PPID; exec \"$real\" \"$@\"");
    assert_eq!(app.restore(&["drill", "production/database"]).code(), 137);
    assert!(!app.left_over().is_empty());
    app.program_does("pg_restore", "exec \"$real\" \"$@\"");
    app.restore(&["drill", "production"]).ok();
    app.is_as(&new);
}

#[test]
fn a_journal_that_cannot_be_read_stops_everything_that_could_make_it_worse() {
    let (app, _, new) = app("scribbled");
    app.write("units/kill-after-stop", "now");
    assert_eq!(app.restore(RUN).code(), 137);
    let journal = app.read("state/restore/journal.json");
    app.write("state/restore/journal.json", &journal[..journal.len() / 2]);
    for words in [RUN, &["undo", "production", "--yes"], &["drill"]] {
        app.restore(words).fails(2).says("journal.json is damaged");
        assert!(app.held() == new);
    }
    app.write("state/restore/journal.json", journal);
    app.restore(&["drill", "production"]).ok();
    app.is_as(&new);
}
