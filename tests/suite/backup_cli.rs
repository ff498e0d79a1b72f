//! What scripts and people rely on at the command line: exit codes, one document, silence,
//! messages that name the line and the nearest word, locks.

use std::time::Duration;

use rg_tests::{Postgres, Sandbox, eventually, sandbox, site};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
    let place = sandbox!();
    let refused = |toml: &str, words: &[&str]| {
        place.config(toml);
        let output = place.run("rg-backup", ["list"]).fails(2);
        for words in words {
            assert!(output.err().contains(words), "wanted {words:?}: {output:?}");
        }
        assert_eq!(output.out(), "");
    };
    let store = "[stores.local]\nurl = \"file://{root}/store\"\n";
    // Two lines stand before these: host and state.
    refused(
        &format!("{store}[environments.app.database]\nurl = \"$X\"\nformt = \"plain\"\n"),
        &[
            "rg.toml: line 7: unknown key `formt`",
            "hint: did you mean `format`?",
        ],
    );
    refused(
        &format!("{store}retention = 7\n"),
        &["line 5: unknown key `retention`"],
    );
    refused(
        &format!("{store}[environments.app.database]\nurl = \"$X\"\nkeep = {{ day = 7 }}\n"),
        &["line 7: unknown key `day`", "hint: did you mean `days`?"],
    );
    refused(
        &format!("{store}[environments.app.database]\nurl = \"$X\"\ncompression = \"ztd\"\n"),
        &["line 7: unknown value `ztd`", "hint: did you mean `zstd`?"],
    );
    refused(
        &format!("{store}[environments.app.database]\nurl = \"$X\"\nkeep = {{ days = 0 }}\n"),
        &["keep.days is 0"],
    );
    refused(
        &format!("{store}[environments.app.database]\nurl = \"$X\"\nstores = [\"locl\"]\n"),
        &[
            "no store `locl` is configured",
            "hint: did you mean `local`?",
        ],
    );
    refused("[environments.app.database]\nurl = \"$X\"\n", &["store"]);
    refused("[stores.local\n", &["line 3: "]);
}

#[test]
fn a_missing_configuration_is_said_with_what_to_do() {
    let place = sandbox!();
    let output = place
        .run("rg-backup", ["list", "--config", "/nowhere/rg.toml"])
        .fails(2);
    assert_eq!(
        output.err(),
        "rg-backup: cannot read the configuration /nowhere/rg.toml: No such file or directory \
         (os error 2)\nhint: name another one with --config FILE or $RG_CONFIG\n"
    );
}

#[test]
fn an_unknown_dataset_is_answered_with_the_nearest() {
    let site = site!("cli_unknown");
    for command in ["run", "list", "sync", "prune"] {
        let output = site.rg_backup(&[command, "app/databse"]).fails(2);
        let said = output.err();
        assert!(said.contains("no dataset `app/databse` in "), "{output:?}");
        assert!(
            said.contains("hint: did you mean `app/database`?"),
            "{output:?}"
        );
    }
    let output = site.rg_backup(&["run", "ap"]).fails(2);
    assert!(
        output.err().contains("hint: did you mean `app`?"),
        "{output:?}"
    );
    let output = site
        .rg_backup(&["verify", "app/database@20200101_000000"])
        .fails(2);
    assert!(
        output
            .err()
            .contains("no backup app/database@20200101_000000"),
        "{output:?}"
    );
    let output = site.rg_backup(&["pin", "app/database"]).fails(2);
    assert!(
        output.err().contains("`app/database` is not a backup id"),
        "{output:?}"
    );
}

#[test]
fn a_variable_that_the_env_file_lacks_is_answered_with_the_nearest() {
    let site = site!("cli_variable");
    site.write("env", "DATABASE_URI=x\n");
    let output = site.try_backup().fails(2);
    assert!(output.out().contains("no DATABASE_URL in "), "{output:?}");
    assert!(
        output.out().contains("hint: did you mean `DATABASE_URI`?"),
        "{output:?}"
    );
}

#[test]
fn json_is_one_document_in_success_and_in_failure() {
    let site = site!("cli_json");
    site.configure("schedule = \"0 2 * * *\"\nkeep = { last = 2 }\n");
    let id = site.backup();
    site.write("units/keep", "");
    site.write("old/none.txt", "");
    let cases: &[(&[&str], i32)] = &[
        (&["run"], 0),
        (&["run", "--dry-run"], 0),
        (&["list"], 0),
        (&["verify"], 0),
        (&["verify", "--all", "--dry-run"], 0),
        (&["sync"], 0),
        (&["prune", "--dry-run"], 0),
        (&["prune"], 0),
        (&["pin", &id], 0),
        (&["unpin", &id], 0),
        (&["schedule"], 0),
        (&["schedule", "--install", "--dir", "units"], 0),
        (&["completions", "bash"], 0),
        (&["run", "nothing-of-that-name"], 2),
        (&["list", "--config", "/nowhere"], 2),
        (&["adopt", "old", "--as", "app/database"], 2),
        (&["schedule", "--install", "--dir", "nowhere"], 2),
        (&["verify", "no-id"], 2),
        (&["run", "--no-such-flag"], 2),
        (&["rum"], 2),
        (&[], 2),
    ];
    for (args, code) in cases {
        let mut args = args.to_vec();
        args.push("--json");
        let output = site.rg_backup(&args).fails(*code);
        let document = output.json();
        if *code == 2 {
            assert!(
                document["error"].as_str().is_some_and(|e| !e.is_empty()),
                "{output:?}"
            );
            assert!(!output.err().is_empty(), "{output:?}");
        }
    }
    // A run in which something failed is a document of the run.
    site.address("postgresql://u:p@127.0.0.1:1/x");
    let output = site.rg_backup(&["run", "app", "--json"]).fails(2);
    assert!(
        output.json()["backups"][0]["error"].is_string(),
        "{output:?}"
    );
}

#[test]
fn quiet_is_silent_when_all_is_well_and_speaks_when_it_is_not() {
    let site = site!("cli_quiet");
    for args in [
        &["run", "-q"][..],
        &["list", "-q"],
        &["verify", "--all", "-q"],
        &["sync", "-q"],
        &["prune", "-q"],
    ] {
        let output = site.rg_backup(args).ok();
        assert_eq!(
            (output.out(), output.err()),
            (String::new(), String::new()),
            "{output:?}"
        );
    }
    site.address("postgresql://u:p@127.0.0.1:1/x");
    let output = site.rg_backup(&["run", "app", "-q"]).fails(2);
    assert!(
        output.out().contains("✗  app/database: cannot connect to "),
        "{output:?}"
    );
}

#[test]
fn a_good_run_says_one_line_and_nothing_to_stderr() {
    let site = site!("cli_line");
    let output = site.try_backup().ok();
    assert_eq!(output.err(), "");
    let said = output.out();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("✓  app/database@"), "{said}");
    assert!(said.contains(" 2,202 rows, in local"), "{said}");
    let listed = site.rg_backup(&["list"]).ok().out();
    assert!(listed.starts_with("ID "), "{listed}");
    assert!(listed.contains("2,202 rows"), "{listed}");
    let journal = site
        .rg_backup(&["run", "app/database", "--log", "journal"])
        .ok();
    assert!(
        journal.err().contains("<6>recorded app/database@"),
        "{journal:?}"
    );
}

#[test]
fn help_version_and_completions_are_there() {
    let place = sandbox!();
    let help = place.run("rg-backup", ["--help"]).ok().out();
    assert!(
        help.contains("Examples:\n  rg-backup run production"),
        "{help}"
    );
    assert!(help.contains("Exit codes:\n  0  done and well"), "{help}");
    assert!(
        place
            .run("rg-backup", ["--version"])
            .ok()
            .out()
            .starts_with("rg-backup ")
    );
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run("rg-backup", ["completions", shell]).ok().out();
        assert!(script.contains("rg-backup"), "{shell}");
    }
    let script = place.run("rg-backup", ["completions", "bash"]).ok().stdout;
    place.program("bash", ["-n"]).stdin(script).run().ok();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let site = site!("cli_pipe");
    site.backup();
    let script = "set -o pipefail; \"$0\" rg-backup list --json | true";
    let driver = env!("CARGO_BIN_EXE_rg-driver");
    let output = site.program("bash", ["-c", script, driver]).run().ok();
    assert_eq!(output.err(), "");
}

#[test]
fn a_dry_run_checks_everything_and_writes_nothing() {
    let site = site!("cli_dry");
    let output = site.rg_backup(&["run", "app", "--dry-run"]).ok();
    assert!(
        output.out().contains("everything it needs is there"),
        "{output:?}"
    );
    assert_eq!(site.files("store"), [""; 0]);
    site.address("postgresql://u:p@127.0.0.1:1/x");
    site.rg_backup(&["run", "app", "--dry-run"]).fails(2);
}

#[test]
fn one_dataset_that_fails_does_not_stop_the_others() {
    let site = site!("cli_others");
    site.write("uploads/a", "a");
    site.configure(
        "[environments.app.files.gone]\npath = \"gone\"\n\
         [environments.app.buckets.artifacts]\nname = \"x\"\n\
         [environments.app.files.uploads]\npath = \"uploads\"\n",
    );
    let output = site.rg_backup(&["run", "--json"]).fails(2);
    let document = output.json();
    let ended: Vec<(String, bool)> = document["backups"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|done| {
            (
                done["dataset"].as_str().expect("a name").to_owned(),
                done["error"].is_null(),
            )
        })
        .collect();
    let wanted = [
        ("globals", true),
        ("app/database", true),
        ("app/files/gone", false),
        ("app/files/uploads", true),
        ("app/buckets/artifacts", false),
    ];
    assert_eq!(ended, wanted.map(|(name, well)| (name.to_owned(), well)));
    assert_eq!(site.all_whole().len(), 3);
}

#[test]
fn a_second_run_of_a_dataset_waits_and_then_says_who_holds_it() {
    let site = site!("cli_lock");
    let (begun, gate) = (site.path("begun"), site.path("gate"));
    let body = format!(
        ": >'{}'\nwhile [ ! -e '{}' ]; do sleep 0.05; done\nexec \"$real\" \"$@\"",
        begun.display(),
        gate.display()
    );
    site.pg_dump_does(&body);
    let first = site.spawn_backup(&["run", "app/database"]);
    assert!(
        eventually(SOON, || begun.exists()),
        "{}",
        first.stderr_so_far()
    );
    let second = site.try_backup().fails(2);
    let words = format!(
        "app/database in store `local` is in use by process {}",
        first.pid()
    );
    assert!(second.out().contains(&words), "{second:?}");
    assert!(
        second
            .out()
            .contains("hint: waited 10 s; try again when it has ended"),
        "{second:?}"
    );
    // Another dataset is free.
    site.rg_backup(&["run", "globals"]).ok();
    // One that is short is waited for.
    let third = site.spawn_backup(&["run", "app/database"]);
    std::thread::sleep(Duration::from_millis(300));
    site.write("gate", "");
    first.wait().ok();
    third.wait().ok();
    assert_eq!(site.all_whole().len(), 3);
}

#[test]
fn runs_at_the_same_time_all_become_backups() {
    let site = site!("cli_together");
    let running: Vec<_> = (0..4)
        .map(|_| site.spawn_backup(&["run", "app/database"]))
        .collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(site.all_whole().len(), 4);
}

fn content(place: &Sandbox, dataset: &str) -> Vec<String> {
    let folder = place.path("store").join(dataset);
    let script = "zstd -dc *.tar.zst | tar -t | sort";
    let output = place
        .program("bash", ["-c", script])
        .current_dir(folder)
        .run()
        .ok();
    output
        .out()
        .lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .collect()
}

fn directory(place: &Sandbox, more: &str) {
    place.config(&format!(
        "[stores.local]\nurl = \"file://{{root}}/store\"\n\
         [environments.app.files.data]\npath = \"data\"\n{more}"
    ));
}

#[test]
fn a_directory_that_is_missing_is_an_error_and_no_empty_backup() {
    let place = sandbox!();
    directory(&place, "");
    let output = place.run("rg-backup", ["run"]).fails(2);
    assert!(
        output
            .out()
            .contains(&place.path("data").display().to_string()),
        "{output:?}"
    );
    assert!(
        place
            .files("store")
            .iter()
            .all(|name| name.ends_with(".rg-lock") || name == ".rg-store")
    );
}

#[test]
fn what_is_excluded_is_left_out_and_nothing_else() {
    let place = sandbox!();
    for name in [
        "keep.txt",
        "a.tmp",
        "deep/b.tmp",
        "deep/keep.tmp.txt",
        "cache/x",
        "deep/cache/y",
    ] {
        place.write(format!("data/{name}"), name);
    }
    directory(&place, "exclude = [\"*.tmp\", \"/cache\"]\n");
    place.run("rg-backup", ["run"]).ok();
    let names = content(&place, "app/files/data");
    let files: Vec<_> = names
        .iter()
        .filter(|name| !name.ends_with('/') && !name.is_empty())
        .collect();
    assert_eq!(files, ["deep/cache/y", "deep/keep.tmp.txt", "keep.txt"]);
}

#[test]
fn a_store_below_the_directory_is_not_swallowed() {
    let place = sandbox!();
    place.write("data/a.txt", "a");
    place.config(
        "state = \"{root}/data/state\"\n[stores.local]\nurl = \"file://{root}/data/backups\"\n\
         [environments.app.files.data]\npath = \"data\"\n",
    );
    let size = || {
        let document = place.run("rg-backup", ["run", "--json"]).ok().json();
        document["backups"][0]["plain_bytes"]
            .as_u64()
            .expect("a size")
    };
    let first = size();
    assert_eq!(size(), first, "the first backup is not in the second");
    place.run("rg-backup", ["verify", "--all"]).ok();
}

#[test]
fn twenty_thousand_files_are_backed_up_in_64_mib() {
    let place = sandbox!();
    for folder in 0..200 {
        for file in 0..100 {
            place.write(
                format!("data/{folder}/a file with a longer name {file}.txt"),
                format!("{folder} {file}"),
            );
        }
    }
    directory(&place, "");
    let output = place.run("rg-backup", ["run", "--json"]).ok();
    assert_eq!(output.json()["backups"][0]["count"], 20_000, "{output:?}");
    assert!(
        output.rss_kib_max > 0 && output.rss_kib_max <= 64 << 10,
        "{} KiB",
        output.rss_kib_max
    );
    let verify = place.run("rg-backup", ["verify"]).ok();
    assert!(verify.rss_kib_max <= 64 << 10, "{} KiB", verify.rss_kib_max);
}

#[test]
fn a_database_of_forty_megabytes_is_backed_up_in_64_mib() {
    let site = site!("cli_memory");
    Postgres::shared().psql(
        "cli_memory",
        "CREATE TABLE big AS SELECT i, md5(i::text) || repeat(' text', 40) AS t FROM generate_series(1, 160000) i; \
         INSERT INTO big VALUES (0, repeat('one long value ', 400000))",
    );
    let output = site.rg_backup(&["run", "app/database", "--json"]).ok();
    let bytes = output.json()["backups"][0]["plain_bytes"]
        .as_u64()
        .expect("a size");
    assert!(bytes > 40_000_000, "{bytes}");
    assert!(
        output.rss_kib_max > 0 && output.rss_kib_max <= 64 << 10,
        "{} KiB",
        output.rss_kib_max
    );
}
