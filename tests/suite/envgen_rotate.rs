//! `rg-envgen rotate` with a real PostgreSQL: a new value everywhere or nowhere, whatever dies when.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rg_common::env_file::EnvFile;
use rg_tests::{
    ArgvWatch, Chance, FakeProgram, HttpSink, Output, Postgres, Sandbox, Signal, eventually,
    rounds, sandbox,
};

const SCHEMA: &str = r#"
profile = "test"
home = "/nowhere"
[environments.production]
rotate_days = 90
[[files]]
name = ".env"
readers = ["app"]
mode = "0640"
[[files]]
name = ".env.compose"
readers = ["compose"]
[variables.DB_PASSWORD]
name = "{ENV}_DB_PASSWORD"
type = "secret"
generate = "hex:16"
consumers = ["compose"]
[variables.DATABASE_URL]
type = "postgres_url"
driver = "asyncpg"
parts = { user = "x", password = "${DB_PASSWORD}", host = "127.0.0.1", port = "5432", database = "x" }
[variables.DATABASE_URL_SYNC]
type = "postgres_url"
twin_of = "DATABASE_URL"
[variables.API_SECRET_KEY]
type = "secret"
generate = "hex:32"
on_rotate = "everybody is logged out"
[variables.OPENAI_API_KEY]
type = "secret"
ask = "the key"
"#;

/// A systemctl whose units are active, and that does `$RESTART` for a restart.
const SYSTEMCTL: &str = "case $1 in show) echo ActiveState=active ;; restart) RESTART ;; esac";

struct App {
    place: Sandbox,
    cluster: &'static Postgres,
    role: String,
    systemctl: FakeProgram,
    health: HttpSink,
    first: String,
}

impl App {
    fn new(role: &str, attributes: &str) -> App {
        let place = sandbox!();
        let cluster = Postgres::shared();
        cluster.role(role, attributes);
        let url = cluster.create_database_of(role, role);
        let health = HttpSink::start();
        health.answer("/health", 200, r#"{"status": "healthy"}"#);
        place.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n[environments.production]\nenv_file = \"app/.env\"\n\
             [environments.production.database]\nurl = \"$DATABASE_URL\"\n\
             [environments.production.app]\nunits = [\"api\"]\nhealth = [{{ url = \"{}\", json = {{ \"$.status\" = \"healthy\" }} }}]\n",
            health.url("/health")
        ));
        place.write("env.schema.toml", SCHEMA);
        let password = cluster.password(role);
        let asynchronous = url.replace("postgresql://", "postgresql+asyncpg://");
        let app = format!(
            "# by hand\nexport DATABASE_URL='{asynchronous}' # note\nDATABASE_URL_SYNC={url}\n\
             API_SECRET_KEY=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\
             OPENAI_API_KEY=sk-proj-old\nOWN=1"
        );
        for (file, text) in [
            ("app/.env", app),
            (
                "app/.env.compose",
                format!("PRODUCTION_DB_PASSWORD={password}\n"),
            ),
        ] {
            let path = place.write(file, text);
            fs::set_permissions(path, Permissions::from_mode(0o640)).expect("mode");
        }
        let systemctl = FakeProgram::new(&place, "systemctl");
        systemctl.does(&SYSTEMCTL.replace("RESTART", ":"));
        let first = cluster.psql(
            "postgres",
            &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"),
        );
        App {
            place,
            cluster,
            role: role.to_owned(),
            systemctl,
            health,
            first,
        }
    }

    fn rotate(&self, args: &[&str]) -> Output {
        self.place.run(
            "rg-envgen",
            ["rotate", "--yes", "--health-timeout", "1"]
                .iter()
                .chain(args),
        )
    }

    fn files(&self) -> [String; 2] {
        [
            self.place.read("app/.env"),
            self.place.read("app/.env.compose"),
        ]
    }

    fn verifier(&self) -> String {
        let sql = format!(
            "SELECT rolpassword FROM pg_authid WHERE rolname = '{}'",
            self.role
        );
        self.cluster.psql("postgres", &sql)
    }

    fn journal(&self) -> bool {
        self.place.path("state/envgen/rotation.json").exists()
    }

    /// Files agree with each other, and what they say logs in.
    #[track_caller]
    fn is_consistent(&self) {
        let [app, compose] = self.files();
        let get = |text: &str, name: &str| {
            EnvFile::parse(text)
                .expect("env")
                .get(name)
                .expect(name)
                .reveal()
                .to_owned()
        };
        let url = get(&app, "DATABASE_URL_SYNC");
        assert_eq!(
            get(&app, "DATABASE_URL"),
            url.replace("postgresql://", "postgresql+asyncpg://")
        );
        assert!(
            url.contains(&format!(":{}@", get(&compose, "PRODUCTION_DB_PASSWORD"))),
            "the parts disagree"
        );
        self.place
            .program("psql", ["-XAtc", "SELECT 1", url.as_str()])
            .run()
            .ok();
        assert!(!self.journal(), "a journal is left");
        assert_eq!(self.place.files("app"), [".env", ".env.compose"]);
    }
}

#[test]
fn a_database_password_is_new_on_the_server_and_in_every_file() {
    let app = App::new("rotate_all", "LOGIN");
    let before = app.files();
    let old = app.cluster.password("rotate_all");
    app.rotate(&["DATABASE_URL", "--dry-run"]).ok();
    assert_eq!(app.files(), before);
    let watch = ArgvWatch::start(&old);
    let output = app.rotate(&["DB_PASSWORD"]).ok();
    assert_eq!(watch.stop(), [""; 0]);
    app.is_consistent();
    let [text, compose] = app.files();
    let new = EnvFile::parse(&compose)
        .expect("env")
        .get("PRODUCTION_DB_PASSWORD")
        .expect("it")
        .reveal()
        .to_owned();
    assert_ne!(new, old);
    assert_eq!(
        text.replace(&new, &old),
        before[0].replace('\'', ""),
        "more than the password changed"
    );
    let refused = app.cluster.url("rotate_all", "rotate_all");
    app.place
        .program("psql", ["-XAtc", "SELECT 1", refused.as_str()])
        .run()
        .fails(2);
    let audit = app.place.read("state/envgen/audit.jsonl");
    for secret in [&old, &new] {
        assert!(!output.out().contains(secret.as_str()) && !output.err().contains(secret.as_str()));
        assert!(!app.cluster.log().contains(secret.as_str()) && !audit.contains(secret.as_str()));
    }
    assert!(audit.contains("\"rotated\"") && audit.contains("DB_PASSWORD"));
    let restarts = app
        .systemctl
        .calls()
        .into_iter()
        .filter(|call| call[0] == "restart");
    assert_eq!(restarts.collect::<Vec<_>>(), [["restart", "--", "api"]]);
    let mode = fs::metadata(app.place.path("app/.env"))
        .expect("meta")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn an_app_that_does_not_come_up_gets_everything_back_byte_for_byte() {
    let app = App::new("rotate_sick", "LOGIN");
    let admin = app
        .place
        .write("admin", app.cluster.url("postgres", "postgres"));
    let before = app.files();
    app.health.answer("/health", 503, "{}");
    let output = app.rotate(&[
        "DB_PASSWORD",
        "API_SECRET_KEY",
        "--admin",
        admin.to_str().expect("a path"),
    ]);
    output
        .fails(2)
        .says("everything is as it was before")
        .says("it answers 503");
    assert_eq!(app.files(), before);
    assert_eq!(
        app.verifier(),
        app.first,
        "the server keeps the very same of the old password"
    );
    assert!(!app.journal());
    assert!(
        app.place
            .read("state/envgen/audit.jsonl")
            .contains("rolledback")
    );
    // And a restart that fails, for a role that may not read what the server keeps.
    app.systemctl
        .does(&SYSTEMCTL.replace("RESTART", "echo no such unit >&2; exit 5"));
    app.rotate(&["DB_PASSWORD"]).fails(2).says("no such unit");
    assert_eq!(app.files(), before);
    assert!(
        app.journal(),
        "the app could not be restarted, so it is not over"
    );
    app.place
        .run("rg-envgen", ["write"])
        .fails(2)
        .says("a rotation was cut off");
    app.systemctl.does(&SYSTEMCTL.replace("RESTART", ":"));
    app.rotate(&[]).ok();
    app.is_consistent();
    assert_eq!(app.files(), before);
}

#[test]
fn nothing_is_begun_with_a_password_that_does_not_log_in() {
    let app = App::new("rotate_wrong", "LOGIN");
    let before = app.files().map(|text| {
        text.replace(
            &app.cluster.password("rotate_wrong"),
            "00112233445566778899aabbccddeeff",
        )
    });
    for (file, text) in ["app/.env", "app/.env.compose"].iter().zip(&before) {
        fs::write(app.place.path(file), text).expect("by hand");
    }
    app.rotate(&["DB_PASSWORD"])
        .fails(2)
        .says("does not log in as rotate_wrong");
    assert_eq!((app.files(), app.verifier()), (before, app.first.clone()));
    assert!(!app.journal());
}

#[test]
fn other_secrets_are_switched_and_say_what_that_does() {
    let app = App::new("rotate_other", "LOGIN");
    let output = app.rotate(&["API_SECRET_KEY"]).ok();
    assert!(
        output.out().contains("everybody is logged out"),
        "{}",
        output.out()
    );
    assert_eq!(app.verifier(), app.first);
    app.rotate(&["OPENAI_API_KEY"])
        .fails(2)
        .says("is not made here");
    let args = ["rotate", "OPENAI_API_KEY", "--yes", "--value-from", "-"];
    app.place
        .tool("rg-envgen", args)
        .stdin("sk-proj-new\n")
        .run()
        .ok();
    assert!(app.files()[0].contains("OPENAI_API_KEY=sk-proj-new\n"));
    app.rotate(&["OWN"]).fails(2).says("no variable `OWN`");
    app.is_consistent();
    // Without a terminal nobody can be asked.
    app.place
        .run("rg-envgen", ["rotate", "API_SECRET_KEY"])
        .fails(2)
        .says("not confirmed");
}

#[test]
fn a_secret_of_production_is_overdue_after_ninety_days() {
    let app = App::new("rotate_age", "LOGIN");
    app.place.run("rg-envgen", ["write"]).ok();
    app.place.run("rg-envgen", ["rotate", "--list"]).ok();
    let old = rg_tests::before_now(jiff::SignedDuration::from_hours(24 * 91));
    let line = format!(
        "{{\"time\":\"{old}\",\"what\":\"written\",\"environment\":\"production\",\"names\":[\"API_SECRET_KEY\"],\"user\":0}}\n"
    );
    app.place.write("state/envgen/audit.jsonl", line);
    let output = app.place.run("rg-envgen", ["rotate", "--list"]).fails(1);
    assert!(
        output
            .out()
            .contains("rg-envgen rotate API_SECRET_KEY --env production"),
        "{}",
        output.out()
    );
    app.rotate(&["API_SECRET_KEY"]).ok();
    app.place.run("rg-envgen", ["rotate", "--list"]).ok();
}

#[test]
fn killed_at_any_instruction_the_next_run_finishes_or_undoes() {
    let app = App::new("rotate_kill", "LOGIN");
    let mut chance = Chance::new();
    // How long a rotation is under way, from its journal's first moment to its last.
    let until =
        |there: bool| assert!(eventually(Duration::from_secs(20), || app.journal() == there));
    let run = app
        .place
        .spawn("rg-envgen", ["rotate", "DB_PASSWORD", "--yes"]);
    until(true);
    let began = Instant::now();
    until(false);
    let whole = began.elapsed().as_micros() as u64;
    run.wait().ok();
    let mut half_way = 0;
    for _ in 0..rounds(12) {
        let run = app
            .place
            .spawn("rg-envgen", ["rotate", "DB_PASSWORD", "--yes"]);
        until(true);
        std::thread::sleep(Duration::from_micros(chance.below(whole)));
        run.signal(Signal::KILL);
        drop(run.wait());
        if !app.journal() {
            app.is_consistent();
            continue;
        }
        app.rotate(&[]).ok();
        app.is_consistent();
        half_way += 1;
    }
    assert!(half_way > 0, "none was killed half-way");
}

#[test]
fn killed_by_its_own_restart_it_is_finished() {
    let app = App::new("rotate_restart", "LOGIN");
    let before = app.files();
    app.systemctl
        .does(&SYSTEMCTL.replace("RESTART", "kill -9 $PPID"));
    let run = app
        .place
        .spawn("rg-envgen", ["rotate", "DB_PASSWORD", "--yes"]);
    drop(run.wait());
    assert!(app.journal());
    app.systemctl.does(&SYSTEMCTL.replace("RESTART", ":"));
    let output = app.rotate(&[]).ok();
    assert!(
        output.out().contains("that was cut off is finished"),
        "{}",
        output.out()
    );
    app.is_consistent();
    assert_ne!(app.files(), before);
}
