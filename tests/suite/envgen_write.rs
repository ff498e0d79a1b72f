//! `rg-envgen init` and `write`: fresh secrets once, nothing that is there changes, what comes out
//! works, and a kit rebuilds it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rg_common::env_file::EnvFile;
use rg_tests::{ArgvWatch, FakeProgram, Postgres, Sandbox, Signal, age_key, rounds, sandbox};

const KEY: &str = "sk-proj-0a1b2c3d4e5f6g7h8i9j";

fn init(place: &Sandbox, profile: &str, more: &[&str]) {
    let args = ["init", "--profile", profile, "--dir", "d"];
    place.run("rg-envgen", args.iter().chain(more)).ok();
}

/// The tool on what `init` wrote.
fn envgen(place: &Sandbox, args: &[&str]) -> rg_tests::Output {
    let args = ["--config", "d/rg.toml"].iter().chain(args);
    place.run("rg-envgen", args)
}

/// What is on standard output.
#[track_caller]
fn shows(output: &rg_tests::Output, text: &str) {
    assert!(
        output.out().contains(text),
        "wanted {text}: {}",
        output.out()
    );
}

fn value(place: &Sandbox, file: &str, name: &str) -> String {
    let file = EnvFile::parse(&place.read(file)).expect(file);
    file.get(name)
        .unwrap_or_else(|| panic!("no {name}"))
        .reveal()
        .to_owned()
}

fn all(place: &Sandbox) -> Vec<(String, String)> {
    let files = place.files("d").into_iter();
    let files = files.filter(|name| !name.starts_with("state/"));
    files
        .map(|name| (name.clone(), place.read(format!("d/{name}"))))
        .collect()
}

#[test]
fn every_variable_that_the_deployments_need_is_there_and_no_placeholder() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    for env in ["staging", "production"] {
        let app = format!("d/.env.{env}");
        for name in [
            "DATABASE_URL",
            "MINIO_ENDPOINT",
            "MINIO_ACCESS_KEY",
            "MINIO_SECRET_KEY",
            "MINIO_BUCKET_NAME",
            "API_SECRET_KEY",
            "RAY_ENABLED",
            "API_PORT",
            "LOG_LEVEL",
        ] {
            assert!(!value(&place, &app, name).is_empty(), "{name}");
        }
        let compose = format!("d/.env.{env}.compose");
        let prefix = env.to_uppercase();
        for name in ["DB_PASSWORD", "MINIO_ACCESS", "MINIO_SECRET"] {
            assert!(
                !value(&place, &compose, &format!("{prefix}_{name}")).is_empty(),
                "{name}"
            );
        }
        assert!(value(&place, &app, "DATABASE_URL").starts_with("postgresql+asyncpg://rgrid_"));
        assert!(value(&place, &app, "DATABASE_URL_SYNC").starts_with("postgresql://rgrid_"));
        assert_eq!(value(&place, &app, "API_HOST"), "127.0.0.1");
    }
    // No secret is in both environments, no two ports are the same.
    for name in [
        "API_SECRET_KEY",
        "MINIO_SECRET_KEY",
        "API_PORT",
        "MINIO_ENDPOINT",
        "DATABASE_URL",
    ] {
        assert_ne!(
            value(&place, "d/.env.staging", name),
            value(&place, "d/.env.production", name)
        );
    }
    for (name, text) in all(&place) {
        for word in [
            "<",
            "CHANGE",
            "yourdomain",
            "GENERATED_",
            "your-",
            "{{",
            "example.com",
        ] {
            let schema = name == "env.schema.toml" && word == "<";
            assert!(schema || !text.contains(word), "{word} in {name}");
        }
        let mode = fs::metadata(place.path(format!("d/{name}")))
            .expect("meta")
            .permissions()
            .mode();
        assert_eq!(mode & 0o037, 0, "{name} has mode {mode:o}");
    }
}

#[test]
fn what_only_a_person_can_give_is_listed_and_nothing_else() {
    let place = sandbox!();
    let output = place
        .run(
            "rg-envgen",
            ["init", "--profile", "toolkitrag", "--dir", "d", "--json"],
        )
        .ok();
    let missing = output.json()["missing"].clone();
    let names: Vec<&str> = missing
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["DOMAIN", "ADMIN_MAIL", "OPENAI_API_KEY"]);
    let text = place.read("d/.env");
    assert!(!text.contains("OPENAI_API_KEY") && !text.contains("ADMIN_PASSWORD"));
    // A later run says so by its exit status; what is given completes the file.
    envgen(&place, &["write"]).fails(1);
    let before = place.read("d/.env");
    let given = place.tool(
        "rg-envgen",
        ["--config", "d/rg.toml", "write", "--set-from", "-"],
    );
    given
        .stdin(format!("OPENAI_API_KEY={KEY}\n"))
        .run()
        .fails(1);
    assert_eq!(value(&place, "d/.env", "OPENAI_API_KEY"), KEY);
    for line in before.lines() {
        assert!(place.read("d/.env").contains(line), "{line}");
    }
    let gone = sandbox!();
    let args = [
        "--set",
        "DOMAIN=rag.acme.org",
        "--set",
        "ADMIN_MAIL=ops@acme.org",
        "--set-from",
        "-",
    ];
    let args = ["init", "--profile", "toolkitrag", "--dir", "d"]
        .iter()
        .chain(&args);
    let output = gone
        .tool("rg-envgen", args)
        .stdin(format!("OPENAI_API_KEY={KEY}\n"))
        .run()
        .ok();
    assert!(!output.out().contains("Only a person"), "{}", output.out());
    assert!(gone.read("d/rg.toml").contains("domain = \"rag.acme.org\""));
    assert!(gone.read("d/rg.toml").contains("to = \"ops@acme.org\""));
    envgen(&gone, &["write"]).ok();
}

#[test]
fn a_secret_is_refused_as_an_argument_and_never_seen_in_one() {
    let place = sandbox!();
    let args = ["init", "--profile", "toolkitrag", "--dir", "d", "--set"];
    let secret = format!("OPENAI_API_KEY={KEY}");
    let output = place.run("rg-envgen", args.iter().copied().chain([secret.as_str()]));
    let output = output.fails(2).says("arguments can be read by everybody");
    assert!(!output.err().contains(KEY));
    for (gift, said) in [
        (
            "OPENAI_API_KEY=sk-REPLACE_WITH_YOUR_OPENAI_API_KEY",
            "is a template's",
        ),
        ("OPENAI_API_KEY=a$b", "`$`"),
        ("SECRET_KEY=short", "bits at most"),
        ("DATABASE_URL=postgresql+asyncpg://u:p@h/d", "wrong driver"),
        ("OPENAI_APIKEY=x", "did you mean `OPENAI_API_KEY`"),
    ] {
        let tool = place.tool(
            "rg-envgen",
            [
                "init",
                "--profile",
                "toolkitrag",
                "--dir",
                "d",
                "--set-from",
                "-",
            ],
        );
        tool.stdin(format!("{gift}\n")).run().fails(2).says(said);
    }
    assert_eq!(place.files("d"), [""; 0]);
}

#[test]
fn a_second_run_changes_no_byte_and_hand_work_stays() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    let first = all(&place);
    // What a run that was killed left beside a file goes.
    place.write("d/..env.staging.rg-new", "half");
    envgen(&place, &["write"]).ok();
    init(&place, "rgrid", &[]);
    assert_eq!(all(&place), first);
    // By hand: comments, order, quotes, an old name, a variable of one's own, one taken out.
    let text = place.read("d/.env.staging");
    let bucket = "MINIO_BUCKET_NAME=rgrid-staging\n";
    let secret = value(&place, "d/.env.staging", "API_SECRET_KEY");
    let hand = text
        .replace(
            bucket,
            "# mine\n  export MINIO_BUCKET='my-own-bucket' # note\n",
        )
        .replace("RAY_ENABLED=false\n", "")
        .replace(&format!("API_SECRET_KEY={secret}\n"), "")
        + "OWN=1\n\n# the end";
    let hand = format!("API_SECRET_KEY=\"{secret}\"\n{hand}");
    fs::write(place.path("d/.env.staging"), &hand).expect("by hand");
    shows(
        &envgen(&place, &["write"]).ok(),
        "MINIO_BUCKET is now MINIO_BUCKET_NAME",
    );
    let wanted = hand.replace("export MINIO_BUCKET=", "export MINIO_BUCKET_NAME=");
    let after = place.read("d/.env.staging");
    let added: Vec<&str> = after
        .lines()
        .filter(|line| !wanted.lines().any(|old| old == *line))
        .collect();
    assert_eq!(added, ["RAY_ENABLED=false"]);
    let about = "# the app's own default is true, which waits for a cluster that is not there\nRAY_ENABLED=false\n";
    assert_eq!(after.replacen(about, "", 1).len(), wanted.len());
    let again = place.read("d/.env.staging");
    envgen(&place, &["write"]).ok();
    assert_eq!(place.read("d/.env.staging"), again);
}

#[test]
fn an_old_single_file_gives_its_passwords_to_the_new_ones() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    fs::remove_file(place.path("d/.env.staging.compose")).expect("remove");
    let old = "DATABASE_URL=postgresql+asyncpg://rgrid_staging:0123456789abcdef@localhost:5433/rgrid_staging\n\
               STAGING_MINIO_ACCESS=a1b2c3d4e5f60718293a4b5c6d7e8f90\nSTAGING_DB_PASSWORD=0123456789abcdef\n";
    fs::write(place.path("d/.env.staging"), old).expect("by hand");
    fs::set_permissions(place.path("d/.env.staging"), Permissions::from_mode(0o600)).expect("mode");
    envgen(&place, &["write", "staging"]).ok();
    assert_eq!(
        value(&place, "d/.env.staging.compose", "STAGING_DB_PASSWORD"),
        "0123456789abcdef"
    );
    let key = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
    assert_eq!(
        value(&place, "d/.env.staging.compose", "STAGING_MINIO_ACCESS"),
        key
    );
    assert_eq!(value(&place, "d/.env.staging", "MINIO_ACCESS_KEY"), key);
    assert!(
        place
            .read("d/.env.staging")
            .starts_with(old.lines().next().expect("a line"))
    );
}

#[test]
fn what_others_can_read_or_redirect_is_not_written() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    let file = place.path("d/.env.staging");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("mode");
    let text = place
        .read("d/.env.staging")
        .replace("RAY_ENABLED=false\n", "");
    fs::write(&file, &text).expect("by hand");
    let before = all(&place);
    envgen(&place, &["write"])
        .fails(2)
        .says("has mode 0644: everybody can read");
    assert_eq!(all(&place), before);
    envgen(&place, &["write", "--dry-run", "--fix-modes"]).ok();
    assert_eq!(all(&place), before);
    envgen(&place, &["write", "--fix-modes"]).ok();
    let mode = fs::metadata(&file).expect("meta").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    fs::rename(&file, place.path("elsewhere")).expect("rename");
    std::os::unix::fs::symlink(place.path("elsewhere"), &file).expect("link");
    envgen(&place, &["write"])
        .fails(2)
        .says("is a symbolic link");
}

#[test]
fn a_database_that_exists_gets_no_new_password() {
    let place = sandbox!();
    let docker = FakeProgram::new(&place, "docker");
    docker.does("case \"$*\" in 'volume ls'*staging*) echo rgrid-staging_postgres-data ;; esac");
    init(&place, "rgrid", &[]);
    let output = envgen(&place, &["write"]).fails(1);
    shows(
        &output,
        "exists already in the docker volume rgrid-staging_postgres-data",
    );
    shows(&output, "--new-database-password");
    assert!(!place.read("d/.env.staging").contains("DATABASE_URL"));
    assert!(place.read("d/.env.production").contains("DATABASE_URL"));
    let given = place.tool(
        "rg-envgen",
        ["--config", "d/rg.toml", "write", "--set-from", "-"],
    );
    given
        .stdin("staging.STAGING_DB_PASSWORD=9f8e7d6c5b4a39281706f5e4d3c2b1a0\n")
        .run()
        .ok();
    let url = value(&place, "d/.env.staging", "DATABASE_URL");
    assert!(
        url.contains(":9f8e7d6c5b4a39281706f5e4d3c2b1a0@"),
        "the URL follows its parts"
    );
}

#[test]
fn what_init_wrote_backs_up_and_no_secret_is_in_arguments_or_output() {
    let place = sandbox!();
    let cluster = Postgres::shared();
    cluster.role("envgen_app", "LOGIN");
    let url = cluster.create_database_of("envgen_app", "envgen_app");
    for table in [
        "users",
        "sessions",
        "toolkit_documents",
        "toolkit_chunks",
        "chat_logs",
        "feedbacks",
        "strategies",
    ] {
        cluster.psql(
            "envgen_app",
            &format!("CREATE TABLE {table} (id int); ALTER TABLE {table} OWNER TO envgen_app"),
        );
    }
    let watch = ArgvWatch::start(&cluster.password("envgen_app"));
    let tool = place.tool(
        "rg-envgen",
        [
            "init",
            "--profile",
            "toolkitrag",
            "--dir",
            "d",
            "--set-from",
            "-",
        ],
    );
    let output = tool
        .stdin(format!("DATABASE_URL={url}\nOPENAI_API_KEY={KEY}\n"))
        .run()
        .ok();
    let secret = value(&place, "d/.env", "SECRET_KEY");
    for hidden in [KEY, &secret, &cluster.password("envgen_app")] {
        assert!(!output.out().contains(hidden) && !output.err().contains(hidden));
        assert!(!place.read("d/state/envgen/audit.jsonl").contains(hidden));
    }
    let mut path = cluster.bin().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let backup = [
        "--config",
        "d/rg.toml",
        "run",
        "production/database",
        "globals",
    ];
    let output = place.tool("rg-backup", backup).env("PATH", path).run();
    // A role that may not read the passwords cannot dump the globals; its database is backed up.
    assert!(
        output.out().contains("production/database@"),
        "{}{}",
        output.out(),
        output.err()
    );
    assert_eq!(watch.stop(), [""; 0]);
}

#[test]
fn a_kill_at_any_time_leaves_whole_files() {
    for round in 0..rounds(25) {
        let place = sandbox!();
        let run = place.spawn("rg-envgen", ["init", "--profile", "rgrid", "--dir", "d"]);
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 900));
        run.signal(Signal::KILL);
        drop(run.wait());
        let secrets: Vec<(String, String)> = all_env(&place);
        for (_, text) in &secrets {
            assert!(text.ends_with('\n') && EnvFile::parse(text).is_ok());
        }
        if !place.path("d/rg.toml").exists() {
            init(&place, "rgrid", &[]);
        } else {
            // A kill between the two first files leaves one of them: the second run says what to do.
            let again = place.run("rg-envgen", ["init", "--profile", "rgrid", "--dir", "d"]);
            again.ok();
        }
        for (name, text) in secrets {
            assert_eq!(
                place.read(format!("d/{name}")),
                text,
                "a secret was made twice"
            );
        }
        assert!(all(&place).iter().all(|(name, _)| !name.contains("rg-new")));
    }
}

fn all_env(place: &Sandbox) -> Vec<(String, String)> {
    let files = all(place).into_iter();
    files
        .filter(|(name, _)| name.starts_with(".env") && !name.contains("rg-new"))
        .collect()
}

#[test]
fn one_kit_rebuilds_everything_and_opens_with_the_standard_tools() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    let (public, identity) = age_key(&place);
    let identity = identity.to_str().expect("a path");
    envgen(&place, &["export", "-o", "kit.age"])
        .fails(2)
        .says("nobody is named who could open the kit");
    envgen(
        &place,
        &[
            "export",
            "-o",
            "kit.age",
            "-r",
            &public,
            "--identity",
            identity,
        ],
    )
    .ok();
    let secret = value(&place, "d/.env.production", "API_SECRET_KEY");
    assert!(
        !String::from_utf8_lossy(&fs::read(place.path("kit.age")).expect("kit")).contains(&secret)
    );
    envgen(&place, &["export", "-o", "kit.age", "-r", &public])
        .fails(2)
        .says("is there already");
    let whole = all(&place);
    // Another machine: nothing there.
    let import = |more: &[&str]| {
        let args = ["import", "kit.age", "--identity", identity]
            .into_iter()
            .chain(more.iter().copied());
        place.run("rg-envgen", args)
    };
    fs::rename(place.path("d"), place.path("lost")).expect("rename");
    import(&[]).ok();
    assert_eq!(all(&place), whole);
    // What differs is shown by its names, and stays.
    let other = "f".repeat(64);
    let changed = place.read("d/.env.production").replace(&secret, &other) + "OWN=1\n";
    fs::write(place.path("d/.env.production"), &changed).expect("by hand");
    let output = import(&[]).fails(2);
    for text in ["~ API_SECRET_KEY", "- OWN", "--yes overwrites"] {
        shows(&output, text);
    }
    assert!(!output.out().contains(&secret) && !output.out().contains(&other));
    assert_eq!(place.read("d/.env.production"), changed);
    import(&["--yes"]).ok();
    assert_eq!(all(&place), whole);
    // Without us.
    let pipe = format!("age -d -i '{identity}' kit.age | tar -xO --wildcards '*/.env.production'");
    let output = place.program("sh", ["-c", pipe.as_str()]).run().ok();
    assert_eq!(output.out(), place.read("d/.env.production"));
    // A passphrase from a file.
    place.write("words", "correct horse battery staple\n");
    place.write("wrong", "correct horse battery stable\n");
    envgen(
        &place,
        &["export", "-o", "p.age", "--passphrase-file", "words"],
    )
    .ok();
    let open = |file: &str| {
        place.run(
            "rg-envgen",
            ["import", "p.age", "--dir", "e", "--passphrase-file", file],
        )
    };
    open("wrong")
        .fails(2)
        .says("is it the right key or passphrase?");
    assert!(!place.path("e").exists());
    open("words").ok();
    assert_eq!(place.read("e/.env.staging"), place.read("d/.env.staging"));
}

#[test]
fn a_value_is_shown_only_when_it_is_asked_for() {
    let place = sandbox!();
    init(&place, "rgrid", &[]);
    let secret = value(&place, "d/.env.production", "API_SECRET_KEY");
    for args in [
        &["show", "API_SECRET_KEY"][..],
        &["show", "API_SECRET_KEY", "--json"],
    ] {
        let output = envgen(&place, args).ok();
        assert!(!output.out().contains(&secret), "{}", output.out());
    }
    let args = ["show", "API_SECRET_KEY", "--env", "production", "--reveal"];
    shows(&envgen(&place, &args).ok(), &secret);
    let output = envgen(&place, &["show", "STAGING_DB_PASSWORD"]).ok();
    shows(&output, "made here, once, 128 bits");
    envgen(&place, &["show", "MINIO_BUKET_NAME"])
        .fails(2)
        .says("did you mean `MINIO_BUCKET_NAME`?");
    let output = envgen(&place, &["schema"]).ok();
    assert_eq!(output.out(), place.read("d/env.schema.toml"));
    let output = envgen(&place, &["schema", "--json"]).ok();
    assert_eq!(output.json()["title"], "env.schema.toml of rg-envgen");
}
