//! Drills prove, and say so only when they did; fetch gives a file whole or not at all.

use std::fs;

use rg_tests::{Chance, Damage, Deployment, Postgres, Tool, deployment, sandbox};

/// The proofs that lie in the store.
fn proofs(app: &rg_tests::Sandbox) -> Vec<String> {
    let mut files = app.files("store");
    files.retain(|name| name.ends_with(".proof.json"));
    files
}

#[test]
fn autovacuum_in_the_scratch_database_does_not_keep_it() {
    // At work at once, and for long: a cost for each page.
    let cluster = Postgres::setup()
        .setting("autovacuum_naptime", "1")
        .setting("autovacuum_analyze_threshold", "1")
        .setting("autovacuum_vacuum_cost_delay", "100")
        .setting("autovacuum_vacuum_cost_limit", "1")
        .setting("vacuum_cost_page_hit", "1000")
        .start();
    let app = Deployment::new(sandbox!(), &cluster, "vacuumed");
    app.backup_of("production/database");
    let worker = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' \
                  AND datname LIKE '%_rg_drill_%'";
    let superuser = cluster.password("postgres");
    app.program_does(
        "pg_restore",
        &format!(
            "\"$real\" \"$@\" || exit\ncase \"$*\" in *--dbname*) ;; *) exit 0 ;; esac\n\
             for i in $(seq 600); do\n\
             [ \"$(PGOPTIONS= PGPASSWORD={superuser} psql -XAtq -U postgres -d postgres -c \"{worker}\")\" = 0 ] || exit 0\n\
             sleep 0.1\ndone\nexit 1"
        ),
    );
    app.restore(&["drill", "production/database"]).ok();
    assert_eq!(app.left_over(), [""; 0]);
}

#[test]
fn a_drill_of_every_format_records_its_proof() {
    let app = deployment!("drilled");
    app.cluster.psql("postgres", "ALTER ROLE drilled SUPERUSER");
    for (format, compression) in [
        ("custom", "zstd"),
        ("custom", "gzip"),
        ("plain", "zstd"),
        ("plain", "gzip"),
    ] {
        let database = format!("format = \"{format}\"\ncompression = \"{compression}\"");
        app.configure(&database, &format!("compression = \"{compression}\""), "");
        app.backup_of("globals");
        app.backup();
        let before = app.held();
        let dry = app.restore(&["drill", "--dry-run"]).ok();
        assert!(
            dry.out().contains("would be restored and compared"),
            "{dry:?}"
        );
        let known = proofs(&app);
        let document = app.restore(&["drill", "--json"]).ok().json();
        let drills = document["drills"].as_array().expect("drills");
        assert_eq!(drills.len(), 3);
        for drill in drills {
            assert_eq!(
                drill["verdict"], "proven",
                "{format} {compression}: {drill}"
            );
            assert!(drill["seconds"].is_u64());
        }
        assert_eq!(proofs(&app).len(), known.len() + 3);
        app.is_as(&before);
        // Each of them is told apart by its second.
        let wait = "s=$(date +%s); while [ $(date +%s) = $s ]; do sleep 0.05; done";
        app.program("sh", ["-c", wait]).run().ok();
    }
    let proof: serde_json::Value =
        serde_json::from_str(&app.read(format!("store/{}", proofs(&app)[0]))).expect("JSON");
    assert_eq!(proof["drilled"]["good"], true, "{proof}");
    assert!(proof["drilled"]["seconds"].is_u64(), "{proof}");
    let list = app.run("rg-backup", ["list", "--json"]).ok().json();
    let rows = list["backups"].as_array().expect("backups");
    assert!(rows.iter().all(|row| row["proof"] == "drilled"), "{list:#}");
    let list = app.restore(&["list", "--json"]).ok().json();
    let rows = list["backups"].as_array().expect("backups");
    assert!(
        rows.iter().all(|row| row["verified"] == "drilled"),
        "{list:#}"
    );
}

#[test]
fn a_damaged_backup_is_recorded_as_bad_and_neither_restored_nor_counted() {
    let app = deployment!("rotten");
    let good = app.held();
    let first = app.backup();
    let wait = "s=$(date +%s); while [ $(date +%s) = $s ]; do sleep 0.05; done";
    app.program("sh", ["-c", wait]).run().ok();
    app.change("since");
    let second = app.backup();
    let before = app.held();
    let mut chance = Chance::new();
    for (dataset, ending) in [
        ("production/database", ".dump.zst"),
        ("production/files/uploads", ".tar.zst"),
    ] {
        Damage::to(app.stored(dataset, ending)).flip_any_bit(&mut chance);
    }
    let drill = app.restore(&["drill", "production", "--json"]).fails(1);
    let drills = drill.json()["drills"].as_array().cloned().expect("drills");
    assert!(
        drills.iter().all(|one| one["verdict"] == "bad"),
        "{drill:?}"
    );
    app.is_as(&before);
    let list = app.restore(&["list", "--json"]).ok().json();
    for row in list["backups"].as_array().expect("backups") {
        let bad = second.iter().any(|id| row["id"] == id.as_str());
        assert_eq!(row["verified"] == "damaged", bad, "{row}");
        assert_eq!(row["sound"] == false, bad, "{row}");
    }
    // By name it is refused, by default the older sound one is taken, which is said.
    app.restore(&["run", "production/database", "--from", &second[0], "--yes"])
        .fails(2)
        .says("damaged");
    app.is_as(&before);
    let output = app.restore(&["run", "production", "--yes"]).ok();
    for (old, new) in first.iter().zip(&second) {
        let words = format!("{new} is damaged; taking {old} instead");
        let output: &rg_tests::Output = &output;
        assert!(output.err().contains(&words), "wanted {words}: {output:?}");
    }
    app.is_as(&good);
    // Retention keeps the last one that is sound, not the last one.
    app.configure("keep = { last = 1 }", "keep = { last = 1 }", "");
    app.run("rg-backup", ["prune"]).ok();
    let list = app.restore(&["list", "--json"]).ok().json();
    let rows = list["backups"].as_array().expect("backups");
    for id in &first {
        assert!(
            rows.iter().any(|row| row["id"] == id.as_str()),
            "{id} is gone: {list:#}"
        );
    }
    app.restore(&["run", "production", "--yes"]).ok();
    app.is_as(&good);
}

#[test]
fn what_could_not_be_told_is_not_recorded() {
    let app = deployment!("unknown");
    let key = app.path("identity.key").to_string_lossy().into_owned();
    app.program("age-keygen", ["-o", &key]).run().ok();
    let public = app.program("age-keygen", ["-y", &key]).run().ok();
    let recipients = format!("[encryption]\nrecipients = [\"{}\"]\n", public.out().trim());
    app.configure("", "", &recipients);
    app.backup();
    let before = app.held();
    // Without the key, with a wrong one.
    let drill = app.restore(&["drill", "production"]).fails(2);
    assert!(drill.out().contains("--identity FILE"), "{drill:?}");
    let wrong = app.path("wrong.key").to_string_lossy().into_owned();
    app.program("age-keygen", ["-o", &wrong]).run().ok();
    app.restore(&["drill", "production", "--identity", &wrong])
        .fails(2);
    assert_eq!(proofs(&app), [""; 0]);
    app.is_as(&before);
    // With a pg_restore that is killed, and one that this server would refuse.
    for body in [
        "kill -9 $$",
        "echo 'pg_restore: error: unsupported version (1.99) in file header' >&2; exit 1",
        "echo 'pg_restore: error: could not execute query: ERROR:  permission denied for schema x' >&2; exit 1",
    ] {
        app.program_does("pg_restore", body);
        app.restore(&["drill", "production/database", "--identity", &key])
            .fails(2);
        assert_eq!(proofs(&app), [""; 0], "{body}");
        app.is_as(&before);
    }
    app.program_does("pg_restore", "exec \"$real\" \"$@\"");
    app.restore(&["drill", "production", "--identity", &key])
        .ok();
    assert_eq!(proofs(&app).len(), 2);
}

#[test]
fn rights_that_the_role_lacks_do_not_make_a_backup_bad() {
    let app = deployment!("rights");
    app.cluster.psql(
        "rights",
        "CREATE ROLE rights_other; CREATE TABLE theirs AS SELECT 1 AS id; ALTER TABLE theirs OWNER TO rights_other; \
         GRANT SELECT ON theirs TO rights; GRANT CREATE, USAGE ON SCHEMA public TO rights_other",
    );
    app.backup_of("production/database");
    let drill = app.restore(&["drill", "production/database"]).fails(2);
    assert!(drill.out().contains("rights_other"), "{drill:?}");
    assert_eq!(proofs(&app), [""; 0]);
    assert_eq!(app.left_over(), [""; 0]);
    app.restore(&["drill", "production/database", "--no-owner"])
        .ok();
}

#[test]
fn what_is_fetched_is_whole_or_absent() {
    let app = deployment!("fetched");
    let ids = app.backup();
    let database = ids
        .iter()
        .find(|id| id.contains("database"))
        .expect("an id");
    fs::create_dir(app.path("out")).expect("a directory");
    let stored = app.stored("production/database", ".dump.zst");
    let bytes = fs::read(&stored).expect("the stored file");
    let name = stored
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    let fetch = |more: &[&str]| app.restore(&[&["fetch", database, "-o", "out"], more].concat());

    fetch(&["--dry-run"]).ok();
    assert_eq!(app.files("out"), [""; 0]);
    let document = fetch(&["--json"]).ok().json();
    assert_eq!(document["bytes"], bytes.len());
    assert_eq!(
        fs::read(app.path("out").join(&name)).expect("the fetched file"),
        bytes
    );
    fetch(&[]).fails(2).says("is there already");
    fetch(&["--plain"]).ok();
    let plain = name.trim_end_matches(".zst").to_owned();
    let unpacked = app
        .program("zstd", ["-dcq".as_ref(), stored.as_os_str()])
        .run()
        .ok();
    assert_eq!(
        fs::read(app.path("out").join(&plain)).expect("the plain file"),
        unpacked.stdout
    );
    app.program(
        "pg_restore",
        ["--list".as_ref(), app.path("out").join(&plain).as_os_str()],
    )
    .run()
    .ok();
    assert_eq!(app.files("out"), [plain.clone(), name.clone()]);

    fs::remove_file(app.path("out").join(&name)).expect("a file");
    fs::remove_file(app.path("out").join(&plain)).expect("a file");
    Damage::to(&stored).flip_any_bit(&mut Chance::new());
    fetch(&[]).fails(2).says("damaged").says("--store");
    fetch(&["--plain"]).fails(2).says("--store");
    assert_eq!(app.files("out"), [""; 0]);
    app.restore(&["fetch", database, "-o", "nowhere"])
        .fails(2)
        .says("nowhere");
    app.restore(&["fetch", "production/database@20010101_000000"])
        .fails(2)
        .says("no backup");
}

#[test]
fn what_was_adopted_is_proven_or_found_bad_like_any_other() {
    let app = deployment!("adopted");
    let held = app.held();
    fs::create_dir(app.path("old")).expect("a directory");
    let dump = app.cluster.command("pg_dump", "adopted", "adopted");
    let dump = Tool::new(dump, "pg_dump").run().ok().out();
    app.write("old/adopted_20260101_020000.sql", &dump);
    app.program("gzip", ["old/adopted_20260101_020000.sql"])
        .run()
        .ok();
    let bad = dump.replace(
        "-- PostgreSQL database dump complete",
        "ALTER TABLE public.no_such_table ADD COLUMN x int;\n-- PostgreSQL database dump complete",
    );
    app.write("old/adopted_20260102_020000.sql", bad);
    app.run("rg-backup", ["adopt", "old", "--as", "production/database"])
        .ok();
    app.change("since");
    let before = app.held();
    app.restore(&["run", "production/database", "--yes"])
        .fails(2)
        .says("no_such_table");
    app.is_as(&before);
    let drill = app.restore(&["drill", "production/database"]).fails(1);
    assert!(drill.out().contains("no_such_table"), "{drill:?}");
    let output = app.restore(&["run", "production/database", "--yes"]).ok();
    let taken = "production/database@20260101_020000";
    assert!(
        output.err().contains(&format!("taking {taken} instead")),
        "{output:?}"
    );
    assert!(app.held().rows == held.rows);
    app.restore(&["drill", "--from", taken]).ok();
}
