//! The live data is untouched until the restored one is complete and proven.

use std::fs;
use std::time::Duration;

use rg_tests::{
    ArgvWatch, Chance, Damage, Deployment, FullDisk, Postgres, Signal, Tool, deployment,
    eventually, sandbox, write_uploads,
};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);

/// A deployment whose live data has gone on since its backup.
fn changed(name: &str) -> Deployment<'static> {
    let app = deployment!(name);
    app.backup();
    app.change("since the backup");
    app
}

const RUN: &[&str] = &["run", "production", "--yes"];

#[test]
fn a_damaged_backup_changes_nothing_and_the_other_stores_copy_can_be_taken() {
    let app = deployment!("damaged");
    app.configure("", "", "[stores.second]\nurl = \"file://{root}/second\"\n");
    let good = app.held();
    app.backup();
    app.change("since the backup");
    let before = app.held();
    let mut chance = Chance::new();
    for (dataset, ending) in [
        ("production/database", ".dump.zst"),
        ("production/files/uploads", ".tar.zst"),
    ] {
        let file = app.stored(dataset, ending);
        let whole = fs::read(&file).expect("the data");
        Damage::to(&file).flip_any_bit(&mut chance);
        app.restore(RUN).fails(2).says("--store");
        app.is_as(&before);
        fs::write(&file, whole).expect("the data");
    }
    Damage::to(app.stored("production/database", ".dump.zst")).flip_any_bit(&mut chance);
    app.restore(&["run", "production", "--yes", "--store", "second"])
        .ok();
    app.is_as(&good);
    // A drill finds the damage and records it; from then on the sound copy is taken by itself.
    app.restore(&["drill", "production/database", "--store", "local"])
        .fails(1);
    app.change("again");
    let output = app.restore(RUN).ok();
    assert!(output.out().contains("from `second`"), "{output:?}");
    app.is_as(&good);
    // A store that cannot be read does not keep the other from being restored, and is said.
    fs::rename(app.path("store"), app.path("unplugged")).expect("a rename");
    fs::write(app.path("store"), "no directory").expect("a file");
    app.restore(&["list"]).fails(2);
    let output = app.restore(RUN).ok();
    assert!(
        output.out().contains("a store could not be read"),
        "{output:?}"
    );
    app.is_as(&good);
}

#[test]
fn a_plain_dump_with_an_sql_error_at_its_end_changes_nothing() {
    let app = changed("sql_error");
    let before = app.held();
    let dump = app.cluster.command("pg_dump", "sql_error", "sql_error");
    let dump = Tool::new(dump, "pg_dump").run().ok();
    let bad = dump.out().replace(
        "-- PostgreSQL database dump complete",
        "INSERT INTO public.orders VALUES ('no number');\n-- PostgreSQL database dump complete",
    );
    let file = app.write("old/app.sql", bad);
    let file = file.to_string_lossy();
    app.restore(&["run", "production/database", "--from", &file, "--yes"])
        .fails(2)
        .says("no number");
    app.is_as(&before);
    // And a dump that stops half-way is not loaded at all.
    let half = app.write("old/half.sql", &dump.stdout[..dump.stdout.len() / 2]);
    let half = half.to_string_lossy();
    let words = ["run", "production/database", "--from", &half, "--yes"];
    app.restore(&words).fails(2);
    app.is_as(&before);
}

/// Writes a manifest of the newest backup anew, as if that had been recorded.
fn edit_manifest(app: &Deployment<'_>, dataset: &str, edit: impl FnOnce(&mut serde_json::Value)) {
    use rg_common::catalog::Manifest;
    let path = app.stored(dataset, ".manifest.json");
    let text = fs::read(&path).expect("the manifest");
    Manifest::parse(&text).expect("a sound manifest");
    let mut value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    edit(&mut value);
    let manifest: Manifest = serde_json::from_value(value).expect("still a manifest");
    fs::write(&path, manifest.render().expect("its text")).expect("the manifest");
}

#[test]
fn one_row_that_is_not_as_recorded_is_found_and_changes_nothing() {
    let app = changed("one_row");
    let before = app.held();
    edit_manifest(&app, "production/database", |value| {
        let tables = value["content"]["inventory"]["tables"]
            .as_array_mut()
            .expect("tables");
        let orders = tables.iter_mut().find(|table| table["name"] == "orders");
        let sum = &mut orders.expect("orders")["checksum"];
        let text = sum.as_str().expect("a checksum").to_owned();
        let first = if text.starts_with('0') { "1" } else { "0" };
        *sum = format!("{first}{}", &text[1..]).into();
    });
    app.restore(RUN)
        .fails(2)
        .says("is not what was recorded")
        .says("public.orders");
    app.is_as(&before);
}

#[test]
fn what_the_server_lacks_is_said_before_anything_starts() {
    let app = changed("lacks");
    let before = app.held();
    let dataset = "production/database";
    let original = fs::read(app.stored(dataset, ".manifest.json")).expect("the manifest");
    let again = |words: [&str; 2], edit: &dyn Fn(&mut serde_json::Value)| {
        edit_manifest(&app, dataset, |value| {
            edit(&mut value["content"]["inventory"])
        });
        app.restore(&["run", dataset, "--yes"])
            .fails(2)
            .says(words[0])
            .says(words[1]);
        app.is_as(&before);
        fs::write(app.stored(dataset, ".manifest.json"), &original).expect("the manifest");
    };
    again(
        [
            "lacks roles that the backup needs: nobody_here",
            "rg-restore run globals",
        ],
        &|i| {
            i["roles"] = serde_json::json!(["nobody_here"]);
        },
    );
    again(
        [
            "lacks extensions that the backup needs: vector_of_old",
            "apt-get install",
        ],
        &|i| {
            i["extensions"] = serde_json::json!(["vector_of_old"]);
        },
    );
    again(["99", "hint: "], &|i| i["server_version"] = "99.1".into());
    app.restore(&["run", dataset, "--yes"]).ok();
}

#[test]
fn an_encrypted_backup_without_or_with_a_wrong_identity_changes_nothing() {
    let app = deployment!("sealed");
    let key = |name: &str| {
        let file = app.path(name).to_string_lossy().into_owned();
        app.program("age-keygen", ["-o", &file]).run().ok();
        let public = app.program("age-keygen", ["-y", &file]).run().ok();
        (file, public.out().trim().to_owned())
    };
    let ((right, public), (wrong, _)) = (key("right.key"), key("wrong.key"));
    let recipients = format!("[encryption]\nrecipients = [\"{public}\"]\n");
    app.configure("", "", &recipients);
    let good = app.held();
    app.backup();
    app.change("since the backup");
    let before = app.held();
    app.restore(RUN).fails(2).says("--identity");
    app.is_as(&before);
    app.restore(&[RUN, &["--identity", &wrong]].concat())
        .fails(2);
    app.is_as(&before);
    app.restore(&[RUN, &["--identity", "nowhere.key"]].concat())
        .fails(2)
        .says("nowhere.key");
    app.restore(&[RUN, &["--identity", &right]].concat()).ok();
    app.is_as(&good);
}

#[test]
fn a_full_disk_changes_nothing_wherever_it_is_full() {
    let app = deployment!("full");
    // The uploads on a small disk: no room for them twice, which is found at the start.
    let disk = FullDisk::mount(&app, "small", 4);
    let small = disk.path().join("uploads");
    write_uploads(&small, 150).expect("uploads");
    let toml = |path: &str, state: &str| {
        app.config(&format!(
            "state = \"{state}\"\n[stores.local]\nurl = \"file://{{root}}/store\"\n\
             [environments.production]\nenv_file = \"env\"\n\
             [environments.production.database]\nurl = \"$DATABASE_URL\"\n\
             [environments.production.files.uploads]\npath = \"{path}\"\n"
        ));
    };
    toml(&small.to_string_lossy(), "{root}/state");
    app.backup();
    app.change("since the backup");
    let (before, tree) = (app.held(), app.tree(&small));
    disk.fill_but(200_000);
    app.restore(RUN)
        .fails(2)
        .says("too little space beside")
        .says("nothing was changed");
    app.is_as(&before);
    app.tree_is(&small, &tree);
    // Inodes of a full disk are not counted beforehand: it fills up while it is written.
    disk.free();
    // The state on the full disk: the dump cannot be put down there, nor the journal.
    toml("srv/uploads", &format!("{}/state", disk.path().display()));
    app.backup_of("production/files/uploads");
    disk.fill_but(0);
    app.restore(RUN).fails(2).says("No space left");
    app.is_as(&before);
    disk.free();
    app.restore(RUN).ok();
    assert_eq!(app.left_over(), [""; 0]);
}

#[test]
fn a_database_whose_disk_fills_up_changes_nothing_and_is_no_bad_backup() {
    // A cluster of its own: a checkpoint that fails fails everybody's.
    let cluster = &Postgres::start();
    let app = Deployment::new(sandbox!(), cluster, "tight");
    let disk = FullDisk::mount(&app, "small", 72);
    let folder = disk.path().join("space");
    fs::create_dir(&folder).expect("a directory");
    if rustix::process::geteuid().is_root() {
        let like = cluster.socket_dir().join("data").display().to_string();
        let words = ["--reference", &like];
        app.program("chown", words).arg(&folder).run().ok();
    }
    let location = folder.display();
    cluster.psql(
        "postgres",
        &format!("CREATE TABLESPACE tight LOCATION '{location}'; GRANT CREATE ON TABLESPACE tight TO tight"),
    );
    cluster.psql("postgres", "ALTER DATABASE tight SET TABLESPACE tight");
    let fill = "CREATE TABLE big AS SELECT i, repeat(md5(i::text), 8) AS t FROM generate_series(1, 40000) i";
    cluster.try_psql("tight", "tight", fill).ok();
    app.backup();
    app.change("since the backup");
    let before = app.held();
    // The table takes 12 MB, an empty database up to 8 more.
    let tighten = || {
        cluster.psql("postgres", "CHECKPOINT");
        disk.fill_but(10 << 20);
    };
    tighten();
    app.restore(RUN).fails(2).says("No space left");
    app.is_as(&before);
    disk.free();
    tighten();
    app.restore(&["drill", "production/database"]).fails(2);
    let files = app.files("store");
    assert!(
        !files.iter().any(|name| name.ends_with(".proof.json")),
        "{files:?}"
    );
    disk.free();
    app.restore(RUN).ok();
    let lies_in = "SELECT spcname FROM pg_tablespace t JOIN pg_database d ON dattablespace = t.oid WHERE datname = 'tight'";
    assert_eq!(cluster.psql("postgres", lies_in), "tight");
    // The server must not keep files on a disk that goes away.
    for database in app.cluster.databases() {
        if database.starts_with("tight") {
            cluster.psql("postgres", &format!("DROP DATABASE \"{database}\""));
        }
    }
    cluster.psql("postgres", "DROP TABLESPACE tight");
}

#[test]
fn a_pg_restore_that_fails_or_dies_half_way_changes_nothing() {
    let app = changed("dies");
    let before = app.held();
    for (jobs, body) in [
        ("2", "echo 'no luck' >&2; exit 1"),
        ("1", "head -c 2000 >/dev/null; kill -9 $$"),
        ("1", "head -c 20000 | \"$real\" \"$@\"; exit $?"),
        ("2", "\"$real\" \"$@\" --list | head -c 300; kill -9 $$"),
        // It says that all is well, and has done nothing.
        ("2", "exit 0"),
        (
            "2",
            "case \"$*\" in *post-data*) exit 0 ;; esac; exec \"$real\" \"$@\"",
        ),
        // The rows are there, and it dies while it makes the indexes.
        (
            "2",
            "case \"$*\" in *post-data*) kill -9 $$ ;; esac; exec \"$real\" \"$@\"",
        ),
    ] {
        app.program_does("pg_restore", body);
        app.restore(&[RUN, &["--jobs", jobs]].concat()).fails(2);
        app.is_as(&before);
    }
    app.program_does("pg_restore", "exec \"$real\" \"$@\"");
    app.restore(RUN).ok();
    assert_eq!(app.left_over(), [""; 0]);
}

#[test]
fn a_server_that_crashes_half_way_changes_nothing_and_the_next_run_works() {
    let cluster = Postgres::start();
    let app = Deployment::new(sandbox!(), &cluster, "crashes");
    let good = app.held();
    app.backup();
    app.change("since the backup");
    let before = app.held();
    let (seen, gate) = (app.path("seen"), app.path("gate"));
    let body = format!(
        "\"$real\" --section=pre-data \"$@\" || exit 1; touch '{}'\n\
         while [ ! -e '{}' ]; do sleep 0.02; done\nexec \"$real\" --section=data \"$@\"",
        seen.display(),
        gate.display()
    );
    app.program_does("pg_restore", &body);
    let running = app.spawn_restore(&[RUN, &["--jobs", "2"]].concat());
    assert!(
        eventually(SOON, || seen.exists()),
        "{}",
        running.stderr_so_far()
    );
    // One server process is killed: PostgreSQL ends all of them and recovers.
    let any = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'";
    let pid = cluster.psql("postgres", any);
    app.program("kill", ["-9", &pid]).run().ok();
    let answers = || cluster.try_psql("postgres", "postgres", "SELECT 1").code() == 0;
    assert!(eventually(SOON, || !answers() || cluster.psql("postgres", any) != pid));
    app.write("gate", "");
    running.wait().fails(2);
    assert!(eventually(SOON, answers));
    assert!(app.held() == before, "the live data is not as it was");
    app.program_does("pg_restore", "exec \"$real\" \"$@\"");
    app.restore(RUN).ok();
    app.is_as(&good);
}

#[test]
fn the_password_is_neither_in_arguments_nor_in_anything_printed() {
    let app = changed("secret");
    let password = app.cluster.password("secret");
    let watch = ArgvWatch::start(&password);
    let mut said = String::new();
    for args in [
        &["run", "production", "--yes", "-v", "-v"][..],
        &["undo", "production", "--yes", "-v"],
        &["drill", "production", "-v"],
        &["list", "--json"],
    ] {
        let output = app.restore(args).ok();
        said.push_str(&output.out());
        said.push_str(&output.err());
    }
    app.program_does("pg_restore", "env >&2; exit 1");
    let output = app.restore(RUN).fails(2);
    // The environment is the program's own, which prints it here: `***` stands for what is secret.
    said.push_str(&output.out());
    said.push_str(&output.err());
    assert!(!said.contains(&password), "{said}");
    assert_eq!(watch.stop(), [""; 0]);
}

#[test]
fn what_was_restored_before_a_failure_is_said() {
    let app = deployment!("two_places");
    write_uploads(&app.path("srv/docs"), 10).expect("files");
    app.configure(
        "",
        "",
        "[environments.staging.files.docs]\npath = \"srv/docs\"\n",
    );
    let good = app.held();
    app.backup();
    app.backup_of("staging");
    app.change("since the backup");
    Damage::to(app.stored("staging/files/docs", ".tar.zst")).flip_any_bit(&mut Chance::new());
    let docs = app.tree(&app.path("srv/docs"));
    app.restore(&["run", "production", "staging", "--yes"])
        .fails(2)
        .says("staging/files/docs")
        .says("restored before that, and left so: production/database, production/files/uploads");
    app.is_as(&good);
    app.tree_is(&app.path("srv/docs"), &docs);
}

#[test]
fn being_told_to_stop_while_a_dump_is_loaded_changes_nothing() {
    let app = changed("interrupted");
    let before = app.held();
    let seen = app.path("seen");
    let body = format!("touch '{}'; exec sleep 600", seen.display());
    app.program_does("pg_restore", &body);
    // As a terminal does, to the whole group of processes; as `kill` does, to the tool alone.
    for whole_group in [true, false] {
        fs::remove_file(&seen).ok();
        let running = app.spawn_restore(RUN);
        assert!(eventually(SOON, || seen.exists()));
        if whole_group {
            let group = format!("-{}", running.pid());
            app.program("kill", ["-INT", "--", &group]).run().ok();
        } else {
            running.signal(Signal::TERM);
        }
        let output = running.wait().fails(2).says("stopped by a signal");
        assert!(output.wall < Duration::from_secs(15), "{output:?}");
        app.is_as(&before);
    }
}
