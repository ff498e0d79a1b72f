//! A storage server whose key stands in its own environment: JuiceFS's gateway, which is MinIO's code,
//! behind a docker that really makes it anew with what the env file says.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use rg_tests::{FakeProgram, Output, S3Key, Sandbox, eventually, juicefs, s3_client, sandbox};

use super::site::{PATIENCE, SOON};

const SCHEMA: &str = r#"
profile = "test"
home = "/nowhere"
[environments.production]
rotate_days = 90
[[files]]
name = ".env"
readers = ["app"]
[[files]]
name = ".env.compose"
readers = ["compose"]
[variables.MINIO_ACCESS]
type = "secret"
generate = "hex:16"
consumers = ["compose"]
[variables.MINIO_SECRET]
type = "secret"
generate = "hex:32"
consumers = ["compose"]
[variables.MINIO_ACCESS_KEY]
type = "secret"
derive = "${MINIO_ACCESS}"
[variables.MINIO_SECRET_KEY]
type = "secret"
derive = "${MINIO_SECRET}"
"#;

/// `docker inspect` and `docker compose up` of one container, whose directory is `$D`.
const DOCKER: &str = r#"
cd "$D" || exit 1
# Between the tool and docker is `timeout`.
TOOL=$(cut -d ' ' -f 4 "/proc/$PPID/stat")
up() {
    if [ -e pid ]; then
        kill -9 "$(cat pid)" 2>/dev/null
        while [ -e "/proc/$(cat pid)/exe" ]; do sleep 0.02; done
    fi
    cp "$1" running
    . ./running
    export MINIO_ROOT_USER=$MINIO_ACCESS MINIO_ROOT_PASSWORD=$MINIO_SECRET
    setsid "$JUICEFS" gateway --no-agent --no-usage-report --multi-buckets --keep-etag --backup-meta 0 \
        --cache-dir "$D/cache" --metrics=127.0.0.1:0 "sqlite3://$D/meta.db" "127.0.0.1:$PORT" \
        >>log 2>&1 </dev/null &
    echo $! >pid
}
case $1 in
    inspect) . ./running
        printf '["A=1","MINIO_ROOT_USER=%s","MINIO_ROOT_PASSWORD=%s"] ' "$MINIO_ACCESS" "$MINIO_SECRET"
        printf '{"com.docker.compose.project":"p","com.docker.compose.service":"minio",'
        printf '"com.docker.compose.project.working_dir":"%s","com.docker.compose.project.config_files":' "$D"
        printf '"%s/compose.yml","com.docker.compose.project.environment_file":"%s"}\n' "$D" "$ENV_FILE" ;;
    compose)
        if [ "$(cat hook 2>/dev/null)" = before ]; then rm hook; kill -9 "$TOOL"; exit 1; fi
        if [ -e broken ]; then echo "no such image, said of $(. "$ENV_FILE"; echo $MINIO_SECRET)" >&2; exit 1; fi
        up "$ENV_FILE"
        if [ "$(cat hook 2>/dev/null)" = after ]; then rm hook; kill -9 "$TOOL"; fi ;;
esac
exit 0
"#;

struct Storage {
    place: Sandbox,
    endpoint: String,
    docker: FakeProgram,
}

impl Storage {
    fn new() -> Storage {
        let place = sandbox!();
        let any = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = any.local_addr().expect("its address").port();
        drop(any);
        let endpoint = format!("http://127.0.0.1:{port}");
        place.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n[environments.production]\nenv_file = \"app/.env\"\n\
             [environments.production.buckets.artifacts]\nendpoint = \"{endpoint}\"\nname = \"artifacts\"\n\
             access_key = \"$MINIO_ACCESS_KEY\"\nsecret_key = \"$MINIO_SECRET_KEY\"\n\
             [environments.production.app]\ncontainers = [\"minio-production\"]\n"
        ));
        place.write("env.schema.toml", SCHEMA);
        let (access, secret) = ("0123456789abcdef", "first-secret-0123456789-0123456789");
        for (file, text) in [
            (
                "app/.env",
                format!("MINIO_ACCESS_KEY={access}\nMINIO_SECRET_KEY={secret}\n"),
            ),
            (
                "app/.env.compose",
                format!("MINIO_ACCESS={access}\nMINIO_SECRET={secret}\n"),
            ),
        ] {
            let path = place.write(file, text);
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("mode");
        }
        place.write("minio/log", "");
        let dir = place.path("minio");
        let meta = format!("sqlite3://{}/meta.db", dir.display());
        let data = format!("{}/data/", dir.display());
        let format = [
            "format",
            "--no-agent",
            "--storage",
            "file",
            "--trash-days",
            "0",
            "--bucket",
            &data,
            &meta,
            "test",
        ];
        place
            .program(juicefs().to_str().expect("a path"), format)
            .run()
            .ok();
        let docker = FakeProgram::new(&place, "docker");
        docker.does(&format!(
            "D='{}' ENV_FILE='{}' JUICEFS='{}' PORT={port}\n{DOCKER}",
            dir.display(),
            place.path("app/.env.compose").display(),
            juicefs().display()
        ));
        let storage = Storage {
            place,
            endpoint,
            docker,
        };
        storage.place.program("docker", ["compose"]).run().ok();
        let made = || {
            let client = s3_client(&storage.endpoint, &storage.pair());
            client
                .call(client.sdk().create_bucket().bucket("artifacts").send())
                .is_ok()
        };
        assert!(
            eventually(SOON, made),
            "{}",
            storage.place.read("minio/log")
        );
        storage
    }

    fn rotate(&self, args: &[&str]) -> Output {
        let first = ["rotate", "--yes", "--health-timeout", PATIENCE];
        self.place.run("rg-envgen", first.iter().chain(args))
    }

    fn files(&self) -> [String; 2] {
        [
            self.place.read("app/.env"),
            self.place.read("app/.env.compose"),
        ]
    }

    fn pair(&self) -> S3Key {
        let text = self.place.read("app/.env");
        let env = rg_common::env_file::EnvFile::parse(&text).expect("an env file");
        let get = |name: &str| env.get(name).expect(name).reveal().to_owned();
        S3Key {
            access: get("MINIO_ACCESS_KEY"),
            secret: get("MINIO_SECRET_KEY"),
        }
    }

    fn accepts(&self, key: &S3Key) -> bool {
        let client = s3_client(&self.endpoint, key);
        client
            .call(client.sdk().list_objects_v2().bucket("artifacts").send())
            .is_ok()
    }

    #[track_caller]
    fn is_consistent(&self) {
        assert!(
            self.accepts(&self.pair()),
            "what is in the file does not log in"
        );
        assert!(
            self.files()[1].contains(&self.pair().secret),
            "the files disagree"
        );
        let state = self.place.files("state/envgen");
        assert!(
            state.iter().all(|file| file == "audit.jsonl"),
            "left: {state:?}"
        );
        let client = s3_client(&self.endpoint, &self.pair());
        let left = client.call(client.sdk().list_objects_v2().bucket("artifacts").send());
        assert_eq!(left.expect("a list").key_count(), Some(0), "a stray object");
    }
}

#[test]
fn a_server_that_reads_its_key_at_its_start_is_made_anew_with_the_new_one() {
    let storage = Storage::new();
    let (before, old) = (storage.files(), storage.pair());

    // A container that cannot be made anew: all is as it was, and no secret is in what is said.
    storage.place.write("minio/broken", "");
    let output = storage.rotate(&["MINIO_SECRET"]).fails(2);
    assert!(
        output.err().contains("no such image, said of ***"),
        "{output:?}"
    );
    assert_eq!(storage.files(), before);
    std::fs::remove_file(storage.place.path("minio/broken")).expect("it");
    storage.rotate(&[]).ok();
    storage.is_consistent();
    assert_eq!(storage.pair(), old);

    let output = storage.rotate(&["MINIO_ACCESS_KEY"]).ok();
    assert!(
        output.out().contains("MINIO_ACCESS keeps its name"),
        "{output:?}"
    );
    storage.is_consistent();
    let new = storage.pair();
    assert!(new.access == old.access && new.secret != old.secret);
    assert!(!storage.accepts(&old), "the old secret is still good");
    let seen = storage.docker.calls().concat().join(" ");
    assert!(!seen.contains(&new.secret) && !seen.contains(&old.secret));
    assert!(
        seen.contains("--env-file") && seen.contains("up --detach --no-deps -- minio"),
        "{seen}"
    );

    for hook in ["before", "after"] {
        let old = storage.pair();
        storage.place.write("minio/hook", hook);
        assert_eq!(storage.rotate(&["MINIO_SECRET"]).code(), 137, "{hook}");
        let said = storage.place.run("rg-envgen", ["rotate", "--list"]);
        assert!(
            said.out()
                .contains("was cut off: the files hold the new values"),
            "{said:?}"
        );
        let output = storage.rotate(&[]).ok();
        assert!(
            output.out().contains("that was cut off is finished"),
            "{output:?}"
        );
        storage.is_consistent();
        assert!(
            !storage.accepts(&old),
            "{hook}: the old secret is still good"
        );
    }
}

#[test]
fn without_anything_to_restart_it_is_refused_before_it_begins() {
    let storage = Storage::new();
    let before = storage.files();
    storage
        .rotate(&["MINIO_SECRET", "--leave-units"])
        .fails(2)
        .says("has to be restarted");
    let config = storage.place.read("rg.toml");
    storage.place.write(
        "rg.toml",
        config.replace("containers = [\"minio-production\"]", ""),
    );
    storage
        .rotate(&["MINIO_SECRET"])
        .fails(2)
        .says("nothing is there to be restarted");
    assert_eq!(storage.files(), before);
    storage.is_consistent();
}
