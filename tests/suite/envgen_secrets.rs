//! Where rg-envgen's secrets are not: in core dumps, in copies of files, outside of the target
//! directory; and what editors are told of the schema, judged by a validator of its own kind.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rg_tests::{Output, Sandbox, Signal, eventually, judge, sandbox};

const LIMIT: Duration = Duration::from_secs(20);

/// Aborts a program while it waits, with core dumps allowed.
fn aborted(place: &Sandbox, program: &str) -> Output {
    let script = format!("ulimit -c unlimited; mkfifo pipe; exec 3<>pipe; exec {program} <&3");
    let running = place.program("bash", ["-c", &script]).spawn();
    // A thread of it reads standard input, which never ends, or it hides already what it does.
    let waits = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", running.pid()));
        let mut threads = threads.into_iter().flatten().flatten();
        threads.any(
            |thread| match std::fs::read_to_string(thread.path().join("syscall")) {
                Ok(call) => call.starts_with("0 0x0 "),
                Err(error) => error.kind() == ErrorKind::PermissionDenied,
            },
        )
    };
    assert!(eventually(LIMIT, waits), "{}", running.stderr_so_far());
    running.signal(Signal::ABORT);
    running.wait()
}

#[test]
fn a_core_dump_has_nothing_of_it_in_it_for_there_is_none() {
    let (place, other) = (sandbox!(), sandbox!());
    let tool = format!(
        "'{}' rg-envgen init --profile toolkitrag --dir d --set-from -",
        place.driver().display()
    );
    let output = aborted(&place, &tool);
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    assert!(!output.status.core_dumped(), "{output:?}");
    assert!(!place.files(".").iter().any(|name| name.starts_with("core")));
    // Where the machine makes them at all, the test would have seen one.
    let control = aborted(&other, "cat");
    let core = other.files(".").iter().any(|name| name.starts_with("core"));
    assert!(control.status.core_dumped() || !core, "{control:?}");
}

#[test]
fn nothing_is_left_or_passed_by_outside_of_the_target_directory() {
    let place = sandbox!();
    place.write("pass", "correct horse battery staple\n");
    let run = |args: &[&str]| {
        let tool = place.tool("rg-envgen", args.iter().copied());
        // Who asks for the machine's place for temporary files gets none.
        tool.env("TMPDIR", "/proc/nowhere").run()
    };
    let config = ["--config", "d/rg.toml"];
    run(&["init", "--profile", "rgrid", "--dir", "d"]).ok();
    let text = place.read("d/.env.staging");
    let gone = text.replace("RAY_ENABLED=false\n", "");
    place.write("d/.env.staging", gone + "TWICE=1\nTWICE=1\n");
    run(&[&config[..], &["write"]].concat()).ok();
    run(&[&config[..], &["check", "--fix"]].concat());
    let pass = ["--passphrase-file", "pass"];
    run(&[&config[..], &["export", "-o", "kit.age"], &pass].concat()).ok();
    run(&[&["import", "kit.age", "--dir", "new"], &pass[..]].concat()).ok();
    run(&[&config[..], &["render", "compose", "-o", "out"]].concat()).ok();
    let left = |folder: &str| {
        let mut files = place.files(folder);
        files.retain(|name| !name.starts_with("state/"));
        files
    };
    let of_the_app = [
        ".env.production",
        ".env.production.compose",
        ".env.staging",
        ".env.staging.compose",
    ];
    let all = [&of_the_app[..], &["env.schema.toml", "rg.toml"]].concat();
    assert_eq!(left("d"), all);
    assert_eq!(
        left("out"),
        ["compose.production.yml", "compose.staging.yml"]
    );
    let restored = left("new");
    assert_eq!(restored.len(), all.len(), "{restored:?}");
    // The record of what was done has names in it, and no value.
    let secret = place.read("d/.env.staging");
    let secret = secret
        .lines()
        .find_map(|line| line.strip_prefix("API_SECRET_KEY="));
    let secret = secret.expect("a secret");
    for file in place.files("d/state") {
        let text = std::fs::read(place.path(format!("d/state/{file}"))).expect("a file");
        let found = text
            .windows(secret.len())
            .any(|one| one == secret.as_bytes());
        assert!(!found, "{file}");
    }
}

#[test]
fn editors_are_told_a_schema_that_takes_ours_and_no_misspelling() {
    let place = sandbox!();
    for profile in ["rgrid", "toolkitrag"] {
        let args = ["init", "--profile", profile, "--dir", profile];
        place.run("rg-envgen", args).ok();
    }
    let args = ["--config", "rgrid/rg.toml", "schema", "--json"];
    let schema = place.run("rg-envgen", args).ok();
    place.write("schema.json", schema.out());
    let validate = "import json, sys, tomli, jsonschema\n\
        schema = json.load(open('schema.json'))\n\
        jsonschema.Draft202012Validator.check_schema(schema)\n\
        jsonschema.validate(tomli.load(open(sys.argv[1], 'rb')), schema)\n";
    let validated = |file: &str| {
        let python = judge("python/bin/python");
        place.program(&python, ["-c", validate, file]).run()
    };
    for profile in ["rgrid", "toolkitrag"] {
        let file = format!("{profile}/env.schema.toml");
        validated(&file).ok();
        for (good, bad) in [
            ("type = \"port\"", "typ = \"port\""),
            ("type = \"port\"", "type = \"prot\""),
            ("mode = \"0640\"", "mode = 640"),
        ] {
            let text = place.read(&file);
            assert!(text.contains(good));
            place.write("bad.toml", text.replacen(good, bad, 1));
            validated("bad.toml").fails(1).says("ValidationError");
            let args = ["--schema", "bad.toml", "schema"];
            place.run("rg-envgen", args).fails(2);
        }
    }
}
