//! `rg-envgen check`: each mistake of the two deployments found by name, line and remedy; mended
//! where nothing is lost; and no secret said.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rg_tests::{FakeProgram, Output, Sandbox, sandbox};
use serde_json::Value;

/// 128 bits each.
const SECRETS: [&str; 3] = [
    "4f1e9a7c2b8d60354f1e9a7c2b8d6035",
    "a03c5e7192bd48f6a03c5e7192bd48f7",
    "c9e2b7d4016f8a35c9e2b7d4016f8a36",
];

fn env(place: &Sandbox, name: &str, text: &str) {
    let path = place.write(name, text);
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

fn check(place: &Sandbox, args: &[&str]) -> Output {
    place.run("rg-envgen", ["check"].iter().chain(args).copied())
}

/// `path:line code`, of all findings.
fn codes(place: &Sandbox, args: &[&str]) -> Vec<String> {
    let output = check(place, &[&["--json"], args].concat());
    let document = output.json();
    let findings = document["findings"].as_array().expect("findings").iter();
    findings
        .map(|one| {
            format!(
                "{}:{} {}",
                text(&one["path"]),
                one["line"],
                text(&one["code"])
            )
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn clean_file() -> String {
    format!(
        "# made by hand\nENV=production\nDATABASE_URL=postgresql+asyncpg://app:{}@127.0.0.1:5432/app\nAPI_SECRET_KEY={}\nALLOWED_ORIGINS=https://rgrid.dev\n",
        SECRETS[0], SECRETS[1]
    )
}

#[test]
fn a_file_without_a_fault_is_said_to_be_one() {
    let place = sandbox!();
    env(&place, "d/.env.production", &clean_file());
    let output = check(&place, &["d"]).ok();
    assert_eq!(
        output.out(),
        "1 file checked: 0 errors, 0 warnings, 0 notes\n"
    );
}

#[test]
fn each_mistake_of_the_deployments_is_named_with_its_line_and_remedy() {
    let place = sandbox!();
    let text = format!(
        "ENV=staging\nDATABASE_URL=postgresql+asyncpg://app:{0}@127.0.0.1:5432/app?sslmode=require\nDB_PASSWORD={1}\nAPI_SECRET_KEY=GENERATED_32_CHAR_SECRET\nAPI_HOST=0.0.0.0\nMINIO_ROOT_PASSWORD=minioadmin\nADMIN_PASSWORD={2}\nSMTP_PASSWORD=hunter2\nAPI_DEBUG=true\n",
        SECRETS[0], SECRETS[1], SECRETS[2]
    );
    env(&place, "d/.env.production", &text);
    let output = check(&place, &["d"]).fails(1);
    let wanted = "\
d/.env.production:1: E109 error: ENV: the file says that it is for another environment (the file's name says production, the value staging)
    fix: correct the value, or use the other environment's file
d/.env.production:2: E303 error: DATABASE_URL: asyncpg does not know sslmode
    fix: write ssl= instead of sslmode= (--fix does it)
d/.env.production:2: E304 error: DATABASE_URL: the address and the variables that it is made of disagree (its password is not that of DB_PASSWORD (line 3))
    fix: make them equal; which one is right, a login tells
d/.env.production:4: E201 error: API_SECRET_KEY: a placeholder was left in (capitals that name what belongs there)
    fix: put the real value there; rg-envgen write generates secrets
d/.env.production:5: E701 error: API_HOST: the service listens on all interfaces; docker bypasses ufw
    fix: 127.0.0.1, and a proxy before it
d/.env.production:6: E202 error: MINIO_ROOT_PASSWORD: a password that everybody knows from the vendor's documents
    fix: rg-envgen rotate MINIO_ROOT_PASSWORD
d/.env.production:7: E106 error: ADMIN_PASSWORD: a variable is set that must not be set here (the first administrator is made by hand, or the password is everybody's who reads the file)
    fix: delete the line
d/.env.production:8: E203 error: SMTP_PASSWORD: a secret is too easy to guess (worth 36 bits at most, 80 are wanted)
    fix: rg-envgen rotate SMTP_PASSWORD, or openssl rand -hex 32
d/.env.production:9: E702 error: API_DEBUG: debugging is on in production
    fix: set it to false
1 file checked: 9 errors, 0 warnings, 0 notes; `rg-envgen check --fix` mends 1
";
    assert_eq!(output.out(), wanted);
}

#[test]
fn a_secret_in_two_environments_or_under_two_names_is_found_and_not_shown() {
    let place = sandbox!();
    env(
        &place,
        "d/.env.production",
        &format!("JWT_SECRET={0}\nCSRF_SECRET={0}\n", SECRETS[0]),
    );
    let staging = format!("DATABASE_URL=postgresql+asyncpg://u:{}@h:1/d\n", SECRETS[0]);
    env(&place, "d/.env.staging", &staging);
    let output = check(&place, &["d"]).fails(1);
    let out = output.out();
    assert!(out.contains("d/.env.production:1: E204 error: JWT_SECRET: two environments have the same secret (d/.env.staging has it too, as DATABASE_URL)"), "{out}");
    assert!(out.contains("d/.env.production:2: E205 warning: CSRF_SECRET: one secret under two names (JWT_SECRET has the same value)"), "{out}");
    for form in ["human", "json", "sarif"] {
        let said = check(&place, &["d", "--format", form]).fails(1);
        assert!(!said.out().contains(SECRETS[0]) && !said.err().contains(SECRETS[0]));
    }
    // Other secrets: nothing to say.
    env(
        &place,
        "e/.env.production",
        &format!("JWT_SECRET={}\n", SECRETS[0]),
    );
    env(
        &place,
        "e/.env.staging",
        &format!("JWT_SECRET={}\n", SECRETS[1]),
    );
    check(&place, &["e"]).ok();
}

const MENDABLE: &str = "\u{feff}# kept as it is  \r\n# old \\\r\nexport A=\"hello world\" # why\r\nB=x y\r\nC='d'\r\nE=1\r\nE=1\r\nF=a$b\r\nG=plain\r\n#  tail";

#[test]
fn what_can_be_mended_is_and_every_other_byte_stays() {
    let place = sandbox!();
    env(&place, "d/.env", MENDABLE);
    fs::set_permissions(place.path("d/.env"), Permissions::from_mode(0o644)).unwrap();
    let before = codes(&place, &["d"]);
    for code in [
        "E504", "E505", "E506", "E507", "E501", "E503", "E105", "E509", "E601",
    ] {
        assert!(
            before.iter().any(|one| one.ends_with(code)),
            "{code}: {before:?}"
        );
    }
    let dry = check(&place, &["d", "--fix", "--dry-run"]).fails(1);
    assert!(
        dry.out()
            .starts_with("d/.env: would mend its mode, now 0640\n"),
        "{dry:?}"
    );
    assert_eq!(place.read("d/.env"), MENDABLE);
    check(&place, &["d", "--fix"]).ok();
    let wanted = "# kept as it is  \n# old\n# why\nA='hello world'\nB='x y'\nC=d\nE=1\nF='a$b'\nG=plain\n#  tail\n";
    assert_eq!(place.read("d/.env"), wanted);
    let mode = fs::metadata(place.path("d/.env"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
    // Only what no quoting can help is left, as notes.
    let after = codes(&place, &["d"]);
    assert!(after.iter().all(|one| one.ends_with("E502")), "{after:?}");
    assert_eq!(place.files("d"), [".env"]);
    // Once more changes nothing.
    check(&place, &["d", "--fix"]).ok();
    assert_eq!(place.read("d/.env"), wanted);
}

#[test]
fn what_can_be_meant_in_two_ways_is_left_alone() {
    let place = sandbox!();
    let text = "A=1\nB=x${A}y\nC=x$A\nD=`date`\nE=a #b\nF=a\\b\nG=1\nG=2\nH='it'\"s\"\n";
    env(&place, "d/.env", text);
    check(&place, &["d", "--fix"]).fails(1);
    assert_eq!(place.read("d/.env"), text);
    let said = check(&place, &["d"]).fails(1).out();
    assert!(!said.contains("--fix does it"), "{said}");
    assert!(said.contains("d/.env:7: E104 error: G: a variable is set twice, to different values (and again in line 8)"), "{said}");
}

#[test]
fn a_link_is_named_and_not_written_through() {
    let place = sandbox!();
    env(&place, "real/secrets", "A=x y\n");
    fs::create_dir(place.path("d")).unwrap();
    symlink(place.path("real/secrets"), place.path("d/.env")).unwrap();
    let found = codes(&place, &["d", "--fix"]);
    assert!(found.contains(&"d/.env:0 E603".to_owned()), "{found:?}");
    assert_eq!(place.read("real/secrets"), "A=x y\n");
}

#[test]
fn hostile_files_cost_neither_time_nor_memory_and_are_no_findings() {
    let place = sandbox!();
    env(&place, "d/.env.a", "A=1\0\nB=2\n");
    let path = place.write("d/.env.b", b"A=\xff\n");
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let found = codes(&place, &["d"]);
    assert_eq!(found, ["d/.env.a:1 E001", "d/.env.b:1 E001"]);

    let line = fs::File::create(place.path("d/.env.c")).unwrap();
    line.set_len(100 << 20).unwrap();
    place.program("mkfifo", ["d/.env.d"]).run().ok();
    symlink("..", place.path("d/loop")).unwrap();
    symlink(".env.e", place.path("d/.env.e")).unwrap();
    let output = place
        .tool("rg-envgen", ["check", "d"])
        .time_limit(Duration::from_secs(30))
        .run()
        .fails(2);
    let out = output.out();
    assert!(out.contains("could not look: d/.env.c is larger than 1 MiB, too large for an env file (is it the right file?)"), "{out}");
    assert!(out.contains("could not look: d/.env.d is a pipe, not a file (name an env file, or a directory that has some)"), "{out}");
    assert!(
        out.contains("could not look: cannot read d/.env.e: Too many levels of symbolic links"),
        "{out}"
    );
    assert!(output.rss_kib_max < 64 << 10, "{output:?}");
    let nothing = check(&place, &["nowhere"]).fails(2).out();
    assert!(
        nothing.contains("could not look: cannot read nowhere: No such file or directory"),
        "{nothing}"
    );
    check(&place, &["bin"])
        .fails(2)
        .says("hint: files called .env, .env.NAME and NAME.env are");
}

#[test]
fn git_that_has_had_or_would_take_the_file_is_found() {
    let place = sandbox!();
    env(&place, "d/.env", "A=1\n");
    let git = |args: &[&str]| {
        let own = [
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.org",
            "-C",
            "d",
        ];
        place
            .program("git", own.iter().chain(args).copied())
            .run()
            .ok();
    };
    git(&["init", "-q"]);
    assert_eq!(codes(&place, &["d"]), ["d/.env:0 E606"]);
    git(&["add", ".env"]);
    git(&["commit", "-q", "-m", "one"]);
    assert_eq!(codes(&place, &["d"]), ["d/.env:0 E604"]);
    git(&["rm", "-q", "--cached", ".env"]);
    place.write("d/.gitignore", ".env\n");
    git(&["commit", "-q", "-m", "two"]);
    assert_eq!(codes(&place, &["d"]), ["d/.env:0 E605"]);
    let said = check(&place, &["d"]).fails(1).out();
    assert!(
        said.contains("E605 error: git's history has the file (last in commit "),
        "{said}"
    );
    // A hook of the repository is not run by looking.
    let hook = place.write("hook", "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\n");
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).unwrap();
    git(&["config", "core.fsmonitor", &hook.to_string_lossy()]);
    check(&place, &["d"]).fails(1);
    assert!(!place.path("ran").exists());
    // Cannot tell is not clean.
    FakeProgram::new(&place, "git").fails(128, "fatal: index file corrupt");
    let output = check(&place, &["d"]).fails(2);
    assert!(output.out().contains("E900 warning: a look at the machine was not possible, so nothing is said about it (whether git has the file: "), "{output:?}");
}

#[test]
fn a_file_that_docker_build_would_take_along_is_found() {
    let place = sandbox!();
    env(&place, "d/deploy/.env", "A=1\n");
    place.write("d/Dockerfile.api", "FROM scratch\n");
    let found = codes(&place, &["d"]);
    assert_eq!(found, ["d/deploy/.env:0 E607"]);
    place.write("d/.dockerignore", "**/.env*\n");
    assert_eq!(codes(&place, &["d"]), [""; 0]);
    fs::remove_file(place.path("d/.dockerignore")).unwrap();
    fs::File::create(place.path("d/.dockerignore"))
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    check(&place, &["d"]).fails(2);
}

#[test]
fn a_port_that_somebody_else_holds_is_found_with_who_it_is() {
    let place = sandbox!();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    env(&place, "d/.env.production", &format!("API_PORT={port}\n"));
    let out = check(&place, &["d"]).ok().out();
    let wanted = format!(
        "E403 warning: API_PORT: a process listens on the port that may not be the one that is meant ({port} is held by envgen_check"
    );
    assert!(out.contains(&wanted), "{out}");
    check(&place, &["d", "--strict"]).fails(1);
    let docker = FakeProgram::new(&place, "docker");
    docker.does(&format!(
        "printf 'portainer\\t0.0.0.0:{port}->8000/tcp, [::]:{port}->8000/tcp\\n'"
    ));
    let out = check(&place, &["d"]).fails(1).out();
    assert!(out.contains(&format!("E402 error: API_PORT: something else listens on the port ({port} is held by the container portainer)")), "{out}");
    docker.does(&format!(
        "printf 'api-production\\t127.0.0.1:{port}->8000/tcp\\n'"
    ));
    check(&place, &["d", "--strict"]).ok();
    docker.fails(
        1,
        "permission denied while trying to connect to the docker daemon socket",
    );
    let out = check(&place, &["d"]).fails(2).out();
    assert!(
        out.contains("this machine: E900 warning: a look at the machine was not possible"),
        "{out}"
    );
}

#[test]
fn a_port_of_two_environments_is_found() {
    let place = sandbox!();
    env(
        &place,
        "d/.env.production",
        "API_PORT=58000\nSMTP_PORT=587\n",
    );
    env(&place, "d/.env.staging", "API_PORT=58000\nSMTP_PORT=587\n");
    let out = check(&place, &["d"]).fails(1).out();
    assert!(out.contains("d/.env.production:1: E401 error: API_PORT: two variables have the same port (58000 is API_PORT of d/.env.staging:1 too)"), "{out}");
    assert!(!out.contains("SMTP_PORT"), "{out}");
}

const SCHEMA: &str = r#"
profile = "x"
home = "{root}/d"
[environments.staging]
[environments.production]
[[files]]
name = ".env.{env}"
readers = ["app"]
mode = "0600"
[variables.MINIO_BUCKET_NAME]
type = "bucket_name"
former = ["MINIO_BUCKET"]
default = "things-{env}"
consumers = ["app"]
[variables.API_SECRET_KEY]
type = "secret"
generate = "hex:16"
consumers = ["app"]
[variables.API_ENV]
type = "enum"
options = ["staging", "production"]
value = "{env}"
consumers = ["app"]
[variables.ADMIN_PASSWORD]
type = "secret"
forbidden = ["production"]
required = false
consumers = ["app"]
[variables.DATABASE_URL]
type = "postgres_url"
driver = "asyncpg"
ask = "the address"
consumers = ["app"]
[variables.RAY_ENABLED]
type = "boolean"
default = false
consumers = ["app"]
"#;

fn with_schema(place: &Sandbox) {
    let text = SCHEMA.replace("{root}", &place.root().to_string_lossy());
    place.write("env.schema.toml", text);
    place.config(
        "[stores.local]\nurl = \"file://{root}/store\"\n[environments.staging]\nenv_file = \"d/.env.staging\"\n\
         [environments.production]\nenv_file = \"d/.env.production\"\n[environments.production.app]\nunits = [\"web\"]\ncontainers = [\"db\"]\n",
    );
}

#[test]
fn names_and_values_are_held_against_the_schema() {
    let place = sandbox!();
    with_schema(&place);
    let good = format!(
        "MINIO_BUCKET_NAME=things\nAPI_SECRET_KEY={}\nAPI_ENV=staging\nDATABASE_URL=postgresql+asyncpg://u:{}@h:1/d\nRAY_ENABLED=false\n",
        SECRETS[0], SECRETS[1]
    );
    env(&place, "d/.env.staging", &good);
    let bad = format!(
        "MINIO_BUCKET=things\nAPI_ENV=staging\nADMIN_PASSWORD={}\nDATABASE_URL=postgresql://u:{}@h:1/d?sslmode=require\nRAY_ENABLED=yes\nRAY_ENABLE=1\n",
        SECRETS[2],
        SECRETS[2].replace('c', "d")
    );
    env(&place, "d/.env.production", &bad);
    let out = check(&place, &[]).fails(1).out();
    let root = place.root().to_string_lossy().into_owned();
    let out = out.replace(&root, "ROOT");
    let said: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with("    "))
        .collect();
    let at = "ROOT/d/.env.production";
    let wanted = [
        format!("{at}: E101 error: API_SECRET_KEY: a required variable is missing or empty"),
        format!(
            "{at}:1: E103 error: MINIO_BUCKET: the variable has another name now (it is MINIO_BUCKET_NAME now)"
        ),
        format!(
            "{at}:2: E109 error: API_ENV: the file says that it is for another environment (the schema says `production`)"
        ),
        format!(
            "{at}:3: E106 error: ADMIN_PASSWORD: a variable is set that must not be set here (in production)"
        ),
        format!(
            "{at}:4: E301 error: DATABASE_URL: the address has another driver than the schema asks for (postgresql:// where postgresql+asyncpg:// is needed)"
        ),
        format!("{at}:4: E303 error: DATABASE_URL: asyncpg does not know sslmode"),
        format!(
            "{at}:5: E107 error: RAY_ENABLED: the value is not what the schema asks for (it is no `true` or `false`)"
        ),
        format!(
            "{at}:6: E102 warning: RAY_ENABLE: the schema does not know the variable (did you mean RAY_ENABLED?)"
        ),
        "2 files checked: 7 errors, 1 warning, 0 notes; `rg-envgen check --fix` mends 3".to_owned(),
    ];
    let said: Vec<&str> = said
        .into_iter()
        .filter(|line| !line.contains("E502"))
        .collect();
    assert_eq!(said[..said.len() - 1], wanted[..wanted.len() - 1]);
    check(&place, &["--fix"]).fails(1);
    let mended = place.read("d/.env.production");
    assert!(
        mended.starts_with("MINIO_BUCKET_NAME=things\nAPI_ENV=staging\n"),
        "{mended}"
    );
    assert!(
        mended.contains("DATABASE_URL='postgresql+asyncpg://u:")
            && mended.contains("@h:1/d?ssl=require'\n"),
        "{mended}"
    );
    check(&place, &["--env", "staging"]).ok();
    fs::remove_file(place.path("d/.env.staging")).unwrap();
    let out = check(&place, &[]).fails(1).out();
    assert!(
        out.contains(
            "/d/.env.staging: E108 error: an env file of the schema is not there (of staging)"
        ),
        "{out}"
    );
    // Without a schema that can be read nothing is judged.
    place.write("env.schema.toml", "profile = 1\n");
    check(&place, &[]).fails(2).says("env.schema.toml");
}

#[test]
fn what_init_makes_is_clean_but_for_what_only_a_person_can_give() {
    for (profile, wanted) in [
        ("rgrid", vec![]),
        ("toolkitrag", vec!["E101 OPENAI_API_KEY"]),
    ] {
        let place = sandbox!();
        let dir = place.path("etc").to_string_lossy().into_owned();
        let given = [
            "--set",
            "ADMIN_MAIL=ops@rgrid.dev",
            "--set",
            "DOMAIN=api.rgrid.dev",
        ];
        let init = ["init", "--profile", profile, "--dir", dir.as_str()];
        place.run("rg-envgen", init.iter().chain(&given).copied());
        let config = format!("{dir}/rg.toml");
        let document = place
            .run("rg-envgen", ["check", "--config", &config, "--json"])
            .json();
        let findings = document["findings"].as_array().expect("findings").iter();
        // Whether a port is held or popular is the machine's business.
        let findings = findings.filter(|one| !text(&one["code"]).starts_with("E4"));
        let found: Vec<String> = findings
            .map(|one| format!("{} {}", text(&one["code"]), text(&one["name"])))
            .collect();
        assert_eq!(found, wanted, "{profile}");
    }
}

#[test]
fn sarif_has_what_code_hosts_ask_for() {
    let place = sandbox!();
    env(&place, "d/.env.production", "API_HOST=0.0.0.0\nA=x y\n");
    let document = check(&place, &["d", "--format", "sarif"]).fails(1).json();
    assert_eq!(document["version"], "2.1.0");
    assert!(text(&document["$schema"]).ends_with("sarif-2.1.0.json"));
    let run = &document["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "rg-envgen");
    assert_eq!(run["invocations"][0]["executionSuccessful"], true);
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert!(results.len() > 1);
    for result in results {
        let rule =
            &rules[usize::try_from(result["ruleIndex"].as_u64().expect("an index")).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        assert!(["error", "warning", "note"].contains(&text(&result["level"])));
        assert!(!text(&result["message"]["text"]).is_empty());
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "d/.env.production");
        assert!(place["region"]["startLine"].as_u64().expect("a line") > 0);
    }
    check(&place, &["d", "--json", "--list-codes"]).ok().json()["codes"]
        .as_array()
        .expect("codes");
    let listed = check(&place, &["--list-codes"]).ok().out();
    assert!(
        listed.contains("E204 error: two environments have the same secret\n    fix: "),
        "{listed}"
    );
}

#[test]
fn explain_shows_what_each_reader_sees_and_no_secret() {
    let place = sandbox!();
    env(
        &place,
        "d/.env",
        "DB_PASSWORD=kQ2$pLmZx9sW7vB4nT6yR8\nMODE=a #b\n",
    );
    let out = check(&place, &["d", "--explain", "DB_PASSWORD"]).ok().out();
    assert!(!out.contains("pLmZ") && !out.contains("kQ2"), "{out}");
    let line = |reader: &str| {
        out.lines()
            .find(|line| line.contains(reader))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(
        line("python-dotenv").starts_with("=  python-dotenv")
            && line("python-dotenv").contains("*** of 22 characters, fingerprint ")
    );
    assert!(
        line("bash").starts_with('≠') && line("bash").ends_with("differs from character 4 on"),
        "{out}"
    );
    let out = check(&place, &["d", "--explain", "MODE"]).ok().out();
    assert!(
        out.contains("systemd EnvironmentFile  \"a #b\"")
            && out.contains("python-dotenv            \"a\""),
        "{out}"
    );
    check(&place, &["d", "--explain", "DB_PASWORD"])
        .fails(2)
        .says("hint: did you mean DB_PASSWORD?");
}

#[test]
fn diff_compares_environments_and_what_runs_without_showing_a_value() {
    let place = sandbox!();
    with_schema(&place);
    let of = |env: &str, secret: &str| {
        format!(
            "MINIO_BUCKET_NAME=things-{env}\nAPI_SECRET_KEY={secret}\nAPI_ENV={env}\nDATABASE_URL=postgresql+asyncpg://u:{secret}@h:1/{env}\nRAY_ENABLED=false\n"
        )
    };
    env(&place, "d/.env.staging", &of("staging", SECRETS[0]));
    env(&place, "d/.env.production", &of("production", SECRETS[1]));
    let diff = |args: &[&str]| place.run("rg-envgen", ["diff"].iter().chain(args).copied());
    assert_eq!(
        diff(&[]).ok().out(),
        "the files are what the schema asks for\n"
    );
    let out = diff(&["staging", "production"]).ok().out();
    assert!(
        out.contains("=  RAY_ENABLED        the same value\n")
            && out.contains("≠  API_SECRET_KEY     different secrets\n"),
        "{out}"
    );
    env(&place, "d/.env.staging", &of("staging", SECRETS[1]));
    let out = diff(&["staging", "production"]).fails(1).out();
    assert!(
        out.contains("=  API_SECRET_KEY     the same secret\n"),
        "{out}"
    );

    // A real process with an environment of its own stands for the unit's.
    let app = place
        .program("sleep", ["60"])
        .env("API_SECRET_KEY", SECRETS[2])
        .env("MINIO_BUCKET_NAME", "things-production")
        .spawn();
    let systemctl = FakeProgram::new(&place, "systemctl");
    systemctl.does(&format!("echo {}", app.pid()));
    let docker = FakeProgram::new(&place, "docker");
    docker.does(&format!(
        "echo '\"2020-01-01T00:00:00Z\" [\"PATH=/bin\",\"API_SECRET_KEY={}\"]'",
        SECRETS[1]
    ));
    let output = diff(&["production", "--running"]).fails(1);
    let out = output.out();
    assert!(
        out.contains("the files of production against web\n"),
        "{out}"
    );
    assert!(
        out.contains("≠  API_SECRET_KEY     runs with another value (of the same length)\n"),
        "{out}"
    );
    assert!(
        out.contains("=  MINIO_BUCKET_NAME  as in the file\n"),
        "{out}"
    );
    assert!(
        out.contains("⚠  db was started before ")
            && out.contains("d/.env.production was last changed: restart it"),
        "{out}"
    );
    for secret in SECRETS {
        assert!(!out.contains(secret) && !output.err().contains(secret));
    }
    drop(app);
    systemctl.does("echo 0");
    let out = diff(&["production", "--running"]).fails(2).out();
    assert!(
        out.contains("could not look: web does not run: nothing to compare with"),
        "{out}"
    );
}

/// Seconds of processor time, which others' work does not lengthen; the lesser of two runs.
fn processor_seconds(place: &Sandbox, dir: &str) -> f64 {
    let command = format!(
        "TIMEFORMAT=%U; time '{}' rg-envgen check {dir} >/dev/null",
        place.driver().display()
    );
    let run = || {
        let said = place.program("bash", ["-c", &command]).run().err();
        let last = said.lines().last().and_then(|line| line.parse().ok());
        last.unwrap_or_else(|| panic!("no time in {said}"))
    };
    (0..2).map(|_| run()).fold(f64::INFINITY, f64::min)
}

#[test]
fn four_times_as_many_variables_are_four_times_the_work() {
    let place = sandbox!();
    let lines: [fn(u32, usize) -> String; 3] = [
        // Secrets that differ, one secret under names of one thing, and one name again and again.
        |file, n| format!("NAME_{n}_SECRET={file:08x}{n:024x}\n"),
        |_, n| format!("DB_PASSWORD_{n}=7f3a9c1e5b2d8f4a6c0e\n"),
        |_, _| "AGAIN=7f3a9c1e5b2d8f4a6c0e\n".to_owned(),
    ];
    for (kind, line) in lines.iter().enumerate() {
        let files = if kind == 0 { 10 } else { 1 };
        let size = if kind == 0 { 200 } else { 1500 };
        let [few, many] = [("few", size), ("many", 4 * size)].map(|(name, count)| {
            let dir = format!("{name}{kind}");
            for file in 0..files {
                let text: String = (0..count).map(|n| line(file, n)).collect();
                env(&place, &format!("{dir}/.env.e{file}"), &text);
            }
            processor_seconds(&place, &dir)
        });
        // Sixteen times as much would be the square.
        assert!(many < 8.0 * few + 0.1, "kind {kind}: {few} s, {many} s");
    }
}

#[test]
fn a_key_that_was_pasted_in_over_lines_is_not_quoted_as_a_name() {
    let place = sandbox!();
    let line = "MIIEpAIBAAKCAQEA7b9Xq2Zt4Vd8yLwQ3uRkPfHs5nJc1oGm";
    env(&place, "d/.env", &format!("KEY=a\n{line}==\n{line}\n"));
    for form in ["human", "json", "sarif"] {
        let output = check(&place, &["d", "--format", form]);
        assert!(
            !output.out().contains(line) && !output.err().contains(line),
            "{output:?}"
        );
    }
}

/// Each code that no other test here is about: a file that has it, and its words.
#[test]
fn the_remaining_codes_have_their_files_too() {
    let place = sandbox!();
    let url = |password: &str, host: &str| format!("postgresql+asyncpg://u:{password}@{host}:1/d");
    let cases = [
        (
            "E002",
            ".env",
            "A=1\njunk\n".to_owned(),
            ":2: E002 error: a line is neither an assignment nor a comment (no `=` in it)",
        ),
        (
            "E002",
            ".env",
            "A=1\na b=2\n".to_owned(),
            "(the part before `=` is not a variable's name; docker compose refuses the whole file)",
        ),
        (
            "E302",
            ".env",
            format!("DATABASE_URL=postgresql://u:{}@h:1/d\n", SECRETS[0]),
            "E302 warning: DATABASE_URL: the address names no driver",
        ),
        (
            "E305",
            ".env",
            format!(
                "DATABASE_URL={}\nDATABASE_URL_SYNC={}\n",
                url(SECRETS[0], "h"),
                url(SECRETS[0], "other")
            ),
            "E305 error: DATABASE_URL_SYNC: two addresses of one database disagree (DATABASE_URL (d/.env:1) has another host)",
        ),
        (
            "E306",
            ".env",
            format!(
                "DATABASE_URL=postgresql+asyncpg://u:{}/x@h:1/d\n",
                SECRETS[0]
            ),
            "E306 error: DATABASE_URL: the address cannot be read (the database URL's user or password holds a `/`, `?` or `#` as such)",
        ),
        (
            "E404",
            ".env",
            "API_PORT=8000\n".to_owned(),
            "E404 note: API_PORT: other software likes to take this port (8000: Portainer's edge agent takes it)",
        ),
        (
            "E508",
            ".env",
            "A-B=1\n".to_owned(),
            "E508 warning: A-B: not every reader takes this name",
        ),
    ];
    for (code, name, text, words) in cases {
        env(&place, &format!("d/{name}"), &text);
        let out = check(&place, &["d"]).out();
        assert!(out.contains(words), "{code}: {out}");
    }
    // Where the file lies, and what lies beside it.
    env(&place, "d/.env", "A=1\n");
    place.write("d/credentials.txt", "root: hunter2\n");
    let out = check(&place, &["d"]).fails(1).out();
    assert!(
        out.starts_with(
            "d/credentials.txt: E609 error: a plain list of passwords lies beside the env file\n"
        ),
        "{out}"
    );
    fs::remove_file(place.path("d/credentials.txt")).unwrap();
    let open = place.path("d");
    env(&place, "d/.env", "A=1\n");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let out = check(&place, &["d"]).fails(1).out();
    assert!(
        out.contains("d/.env: E608 error: everybody can replace files in the directory (d)"),
        "{out}"
    );
    fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
    check(&place, &["d"]).ok();
}

#[test]
fn a_secret_that_is_older_than_the_schema_allows_is_overdue() {
    let place = sandbox!();
    with_schema(&place);
    let schema = place.read("env.schema.toml").replace(
        "[environments.production]\n",
        "[environments.production]\nrotate_days = 90\n",
    );
    place.write("env.schema.toml", schema);
    let text = format!(
        "MINIO_BUCKET_NAME=things\nAPI_SECRET_KEY={}\nAPI_ENV=production\nDATABASE_URL=postgresql+asyncpg://u:{}@h:1/d\nRAY_ENABLED=false\n",
        SECRETS[0], SECRETS[1]
    );
    env(&place, "d/.env.production", &text);
    let written = |time: &str| {
        let act = format!(
            "{{\"time\":\"{time}\",\"what\":\"written\",\"environment\":\"production\",\"names\":[\"API_SECRET_KEY\"],\"user\":0}}\n"
        );
        place.write("state/envgen/audit.jsonl", act);
    };
    written("2020-01-01T00:00:00Z");
    let out = check(&place, &["d/.env.production"]).ok().out();
    assert!(
        out.contains("E206 warning: API_SECRET_KEY: a secret is older than the schema allows (")
            && out.contains(" days, 90 are allowed)"),
        "{out}"
    );
    written(&rg_tests::before_now(jiff::SignedDuration::from_hours(24)).to_string());
    let out = check(&place, &["d/.env.production", "--strict"]).ok().out();
    assert!(out.contains("0 warnings"), "{out}");
}
