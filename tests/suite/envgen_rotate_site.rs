//! An app whose secrets are rotated, at wires that stop a rotation at a known step: an access key of
//! SeaweedFS, or a password of PostgreSQL, in two env files; a unit; a health address.

use std::time::Duration;

use rg_common::env_file::EnvFile;
use rg_tests::{
    FakeProgram, Gate, HttpSink, Output, Postgres, S3Key, S3Server, Sandbox, SeaweedFs, sandbox,
};

/// Longer than the app's file and shorter than both together: which write is killed depends on it.
const PADDING: usize = 8 << 10;
/// Long enough for a loaded machine; no test waits this long when all is well.
pub const PATIENCE: &str = "30";

const SCHEMA: &str = r#"
profile = "test"
home = "/nowhere"
[environments.production]
rotate_days = 90
[environments.staging]
[[files]]
name = ".env"
readers = ["app"]
[[files]]
name = ".env.compose"
readers = ["compose"]
"#;

const KEYS: &str = r#"
[variables.S3_ACCESS_KEY]
type = "secret"
ask = "the access key"
[variables.S3_SECRET_KEY]
type = "secret"
ask = "its secret"
[variables.WORKER_SECRET]
type = "secret"
derive = "${S3_SECRET_KEY}"
consumers = ["compose"]
"#;

const ROLE: &str = r#"
[variables.DB_PASSWORD]
name = "WORKER_SECRET"
type = "secret"
generate = "hex:16"
consumers = ["compose"]
[variables.DATABASE_URL]
type = "postgres_url"
driver = "asyncpg"
parts = { user = "x", password = "${DB_PASSWORD}", host = "127.0.0.1", port = "5432", database = "x" }
"#;

/// A systemctl whose unit is active; whoever restarts it is killed as `hook` says: `before 2`.
const SYSTEMCTL: &str = r#"
cd "$UNITS" || exit 1
case $1 in
    show) printf 'LoadState=loaded\nActiveState=active\n' ;;
    restart)
        echo restart >>restarts
        count=$(wc -l <restarts)
        if [ "$(cat hook 2>/dev/null)" = "before $count" ]; then rm hook; kill -9 $PPID; exit 1; fi
        if [ "$(cat hook 2>/dev/null)" = "after $count" ]; then rm hook; kill -9 $PPID; fi
        ;;
esac
exit 0
"#;

/// Whose secret it is.
pub enum Backend {
    /// A user of SeaweedFS, who has one bucket.
    Keys {
        server: Box<S3Server>,
        user: String,
        bucket: String,
        first: S3Key,
    },
    /// A role of PostgreSQL.
    Role,
}

pub struct Rig {
    pub place: Sandbox,
    pub backend: Backend,
    /// Before the server.
    pub wire: Gate,
    /// Before the app's health address.
    pub app: Gate,
    pub health: HttpSink,
    _systemctl: FakeProgram,
}

impl Rig {
    /// An app with an access key; `settings` are further lines of its bucket in `rg.toml`.
    pub fn keys(user: &str, settings: &str) -> Rig {
        // One of its own: two who change its users at once lose each other's changes.
        let server = Box::new(SeaweedFs::start_iam());
        let bucket = server.bucket();
        let first = server.user(user, &bucket);
        let wire = Gate::before(server.port());
        let config = format!(
            "[environments.production.buckets.artifacts]\nendpoint = \"{}\"\nname = \"{bucket}\"\n\
             access_key = \"$S3_ACCESS_KEY\"\nsecret_key = \"$S3_SECRET_KEY\"\n{settings}\n",
            wire.endpoint()
        );
        let env = format!(
            "# by hand\nS3_ACCESS_KEY='{}' # note\nexport S3_SECRET_KEY={}\nOWN=1",
            first.access, first.secret
        );
        let secret = first.secret.clone();
        let backend = Backend::Keys {
            server,
            user: user.to_owned(),
            bucket,
            first,
        };
        Rig::new(backend, wire, KEYS, &config, &env, &secret)
    }

    /// An app with a role of PostgreSQL.
    pub fn role(role: &str) -> Rig {
        let cluster = Postgres::shared();
        cluster.role(role, "LOGIN");
        let url = cluster.create_database_of(role, role);
        let wire = Gate::before(cluster.port());
        let through = url.replace(
            &format!(":{}/", cluster.port()),
            &format!(":{}/", wire.port()),
        );
        let through = through.replace("postgresql://", "postgresql+asyncpg://");
        let config = "[environments.production.database]\nurl = \"$DATABASE_URL\"\n";
        let env = format!("DATABASE_URL={through}\n");
        Rig::new(
            Backend::Role,
            wire,
            ROLE,
            config,
            &env,
            &cluster.password(role),
        )
    }

    fn new(
        backend: Backend,
        wire: Gate,
        variables: &str,
        config: &str,
        env: &str,
        secret: &str,
    ) -> Rig {
        let place = sandbox!();
        let health = HttpSink::start();
        health.answer("/health", 200, r#"{"status": "healthy"}"#);
        let app = Gate::before(health.port());
        place.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n[environments.production]\nenv_file = \"app/.env\"\n\
             [environments.production.app]\nunits = [\"api\"]\nhealth = [{{ url = \"{}/health\" }}]\n{config}",
            app.endpoint()
        ));
        place.write("env.schema.toml", format!("{SCHEMA}{variables}"));
        let padded = format!("# {}\nWORKER_SECRET={secret}\n", "-".repeat(PADDING));
        for (file, text) in [("app/.env", env), ("app/.env.compose", padded.as_str())] {
            let path = place.write(file, text);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
                .expect("mode");
        }
        place.write("units/restarts", "");
        let systemctl = FakeProgram::new(&place, "systemctl");
        let units = place.path("units");
        systemctl.does(&format!("UNITS='{}'\n{SYSTEMCTL}", units.display()));
        Rig {
            place,
            backend,
            wire,
            app,
            health,
            _systemctl: systemctl,
        }
    }

    /// What is rotated, by a name of the schema.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Keys { .. } => "S3_SECRET_KEY",
            Backend::Role => "DB_PASSWORD",
        }
    }

    pub fn rotate(&self, args: &[&str]) -> Output {
        self.rotate_within(PATIENCE, args)
    }

    /// With so many seconds for the app to come up.
    pub fn rotate_within(&self, seconds: &str, args: &[&str]) -> Output {
        let first = [
            "rotate",
            "--yes",
            "--env",
            "production",
            "--health-timeout",
            seconds,
        ];
        self.place.run("rg-envgen", first.iter().chain(args))
    }

    pub fn list(&self) -> Output {
        self.place.run("rg-envgen", ["rotate", "--list"])
    }

    pub fn files(&self) -> [String; 2] {
        [
            self.place.read("app/.env"),
            self.place.read("app/.env.compose"),
        ]
    }

    pub fn journal(&self) -> bool {
        self.place.path("state/envgen/rotation.json").exists()
    }

    pub fn value(&self, file: &str, name: &str) -> String {
        let text = self.place.read(file);
        let file = EnvFile::parse(&text).expect("an env file");
        file.get(name).expect(name).reveal().to_owned()
    }

    /// The pair in the app's file.
    pub fn pair(&self) -> S3Key {
        S3Key {
            access: self.value("app/.env", "S3_ACCESS_KEY"),
            secret: self.value("app/.env", "S3_SECRET_KEY"),
        }
    }

    /// Whether what is in the app's file logs in now.
    pub fn logs_in(&self) -> bool {
        match &self.backend {
            Backend::Keys { server, bucket, .. } => logs_in(server, &self.pair(), bucket),
            Backend::Role => {
                let url = self.value("app/.env", "DATABASE_URL");
                let url = url.replace("postgresql+asyncpg://", "postgresql://");
                let asked = self.place.program("psql", ["-XAtc", "SELECT 1", &url]);
                asked.run().code() == 0
            }
        }
    }

    /// What is in the files logs in, they agree, and nothing of a rotation is left anywhere.
    #[track_caller]
    pub fn is_consistent(&self) {
        let worker = self.value("app/.env.compose", "WORKER_SECRET");
        assert!(self.files()[0].contains(&worker), "the files disagree");
        assert!(self.logs_in(), "what is in the file does not log in");
        if let Backend::Keys {
            server,
            user,
            bucket,
            ..
        } = &self.backend
        {
            assert_eq!(
                server.access_keys(user),
                [self.pair().access],
                "a stray key"
            );
            assert_eq!(server.keys(bucket), [""; 0], "a stray object");
        }
        assert_eq!(self.place.files("app"), [".env", ".env.compose"]);
        let state = self.place.files("state/envgen");
        assert!(
            state.iter().all(|file| file == "audit.jsonl"),
            "left: {state:?}"
        );
    }
}

pub fn logs_in(server: &S3Server, key: &S3Key, bucket: &str) -> bool {
    let client = server.client(key);
    let call = client.sdk().list_objects_v2().bucket(bucket).send();
    client.call(call).is_ok()
}

/// How long something may take that takes a moment.
pub const SOON: Duration = Duration::from_secs(30);
