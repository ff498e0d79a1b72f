//! Real S3 servers that nobody here wrote, on free ports of 127.0.0.1: SeaweedFS (the suite's own:
//! versions, policies, object lock, conditional writes, a key that may only read) and the gateway
//! of JuiceFS (MinIO's front end, with an old server's refusals).
//!
//! The promise is that of [`crate::Postgres`]: no server outlives the test. A shell holds the
//! server and reads from a pipe whose other end is ours; when that closes, for whatever reason,
//! it kills the server and removes its directory.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rg_common::config::{BucketStore, CredentialsPlace, StoreConfig, StorePlace};
use rg_common::s3::{Client, Credentials, Iam, S3Config};
use rg_common::secret::Secret;
use tokio::runtime::Runtime;

use crate::run::eventually;
use crate::sandbox::tmp_dir;

/// A new server must answer within this time; they take one to three seconds on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Another program may take a free port between our look and the server's start.
const PORT_TRIES: u32 = 5;
/// SeaweedFS answers gRPC on each HTTP port plus this.
const GRPC_STEP: u16 = 10_000;

/// SeaweedFS speaks TLS on its S3 port plus this.
const TLS_STEP: u16 = 5;

/// Holds a server: `$1` its directory, the rest its command line.
const KEEPER: &str = r#"
dir=$1; shift
"$@" >"$dir/log" 2>&1 &
server=$!
echo $server >"$dir/server.pid"
cat >/dev/null
kill -KILL $server 2>/dev/null
wait $server 2>/dev/null
rm -rf "$dir"
"#;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An access key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Key {
    /// The access key.
    pub access: String,
    /// The secret key.
    pub secret: String,
}

impl S3Key {
    fn new(access: &str, secret: &str) -> S3Key {
        S3Key {
            access: access.into(),
            secret: secret.into(),
        }
    }

    /// The text of a credentials file.
    pub fn env(&self) -> String {
        format!(
            "AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n",
            self.access, self.secret
        )
    }
}

/// What a server is known by.
#[derive(Clone, Copy)]
pub(crate) struct Answers {
    /// The status for somebody without a key who asks for the list of buckets.
    pub stranger: u16,
    /// Whether it knows a second key, that may read only.
    pub reader: bool,
}

/// A running S3 server.
pub struct S3Server {
    name: &'static str,
    dir: PathBuf,
    port: u16,
    keeper: Child,
    /// May do everything.
    pub admin: S3Key,
    /// May list and read only; none where a server knows one key alone.
    pub reader: Option<S3Key>,
}

/// SeaweedFS, strict: buckets are not made by writing into them, nor deleted while full.
pub struct SeaweedFs;

impl SeaweedFs {
    /// The one that all tests of this process share; each makes buckets of its own.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(SeaweedFs::start)
    }

    /// One of one's own that makes and deletes access keys when it is asked to. It keeps all users in
    /// one file: whoever changes them at the same time loses the other's change.
    pub fn start_iam() -> S3Server {
        SeaweedFs::start_with(&["-s3.iam.readOnly=false".to_owned()])
    }

    /// One of one's own, for tests that stop it.
    pub fn start() -> S3Server {
        SeaweedFs::start_with(&[])
    }

    /// One that also speaks TLS on [`S3Server::tls_port`], with this certificate and its key.
    pub fn start_tls(certificate: &Path, key: &Path) -> S3Server {
        SeaweedFs::start_with(&[
            format!("-s3.cert.file={}", certificate.display()),
            format!("-s3.key.file={}", key.display()),
        ])
    }

    fn start_with(more: &[String]) -> S3Server {
        let weed = program("bin/weed");
        let answers = Answers {
            stranger: 403,
            reader: true,
        };
        S3Server::start("SeaweedFS", answers, |dir| {
            let base = free_ports(6);
            let identity = |name: &str, key: &S3Key, actions: &[&str]| {
                serde_json::json!({ "name": name, "actions": actions,
                    "credentials": [{ "accessKey": key.access, "secretKey": key.secret }] })
            };
            let identities = serde_json::json!({ "identities": [
                identity("admin", &admin(), &["Admin", "Read", "Write", "List", "Tagging"]),
                identity("reader", &reader(), &["Read", "List"]),
            ]});
            let config = dir.join("s3.json");
            fs::write(&config, identities.to_string()).expect("the keys of SeaweedFS");
            fs::create_dir(dir.join("data")).expect("the directory of SeaweedFS");
            let mut command = Command::new(&weed);
            command
                .args([
                    "-logtostderr=true",
                    "mini",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                ])
                .args([
                    "-master.telemetry=false",
                    "-master.telemetry.url=http://127.0.0.1:9/",
                ])
                .args([
                    "-s3.domainName=localhost",
                    "-s3.allowDeleteBucketNotEmpty=false",
                    "-s3.autoCreateBucket=false",
                ])
                .args([
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    "-webdav=false",
                    "-admin.ui=false",
                ])
                // Each bucket takes several; by default as many as the free disk seems to hold.
                .arg("-volume.max=5000")
                .arg(format!("-dir={}", dir.join("data").display()))
                .arg(format!("-s3.config={}", config.display()));
            let ports = [
                "s3.port",
                "master.port",
                "volume.port",
                "filer.port",
                "admin.port",
            ];
            for (step, name) in (0..).zip(ports) {
                command.arg(format!("-{name}={}", base + step));
            }
            command.args(more);
            if more.iter().any(|word| word.starts_with("-s3.cert")) {
                command.arg(format!("-s3.port.https={}", base + TLS_STEP));
            }
            (command, base)
        })
    }
}

/// The gateway of JuiceFS: MinIO's S3 front end over a directory.
pub struct JuiceFs;

impl JuiceFs {
    /// The one that all tests of this process share; each makes buckets of its own.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(JuiceFs::start)
    }

    /// One of one's own.
    pub fn start() -> S3Server {
        let juicefs = program("bin/juicefs");
        let answers = Answers {
            stranger: 403,
            reader: false,
        };
        S3Server::start("JuiceFS", answers, |dir| {
            let base = free_ports(2);
            let meta = format!("sqlite3://{}", dir.join("meta.db").display());
            let made = Command::new(&juicefs)
                .args([
                    "format",
                    "--no-agent",
                    "--storage",
                    "file",
                    "--trash-days",
                    "0",
                ])
                .arg("--bucket")
                .arg(format!("{}/", dir.join("data").display()))
                .args([&meta, "rg-tests"])
                .current_dir(dir)
                .output()
                .expect("juicefs can be started");
            assert!(made.status.success(), "juicefs format: {made:?}");
            let mut command = Command::new(&juicefs);
            command
                .args([
                    "gateway",
                    "--no-agent",
                    "--no-usage-report",
                    "--multi-buckets",
                ])
                .args([
                    "--keep-etag",
                    "--object-tag",
                    "--object-meta",
                    "--backup-meta",
                    "0",
                ])
                .arg("--cache-dir")
                .arg(dir.join("cache"))
                .args(["--domain", "localhost"])
                .arg(format!("--metrics=127.0.0.1:{}", base + 1))
                .args([&meta, &format!("127.0.0.1:{base}")])
                .env("MINIO_ROOT_USER", admin().access)
                .env("MINIO_ROOT_PASSWORD", admin().secret);
            (command, base)
        })
    }
}

/// The key that may do everything.
pub(crate) fn admin() -> S3Key {
    S3Key::new("RGTESTADMINKEY", "admin-secret-of-the-suite-0123456789")
}

fn reader() -> S3Key {
    S3Key::new("RGTESTREADERKEY", "reader-secret-of-the-suite-0123456789")
}

impl S3Server {
    /// `command` gives the program and its S3 port; it is asked again when the port was taken.
    pub(crate) fn start(
        name: &'static str,
        answers: Answers,
        command: impl Fn(&Path) -> (Command, u16),
    ) -> S3Server {
        for _ in 0..PORT_TRIES {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = tmp_dir().join(format!("rg-s3-{}-{number}", std::process::id()));
            fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
            let (command, port) = command(&dir);
            let keeper = keep(&command, &dir);
            let server = S3Server {
                name,
                dir,
                port,
                keeper,
                admin: admin(),
                reader: answers.reader.then(reader),
            };
            if server.is_ready(answers.stranger) {
                return server;
            }
            let log = server.log();
            assert!(
                log.to_lowercase().contains("address already in use"),
                "no {name}: {log}"
            );
        }
        panic!("no free port for {name} after {PORT_TRIES} tries");
    }

    /// What it is called in messages and in the suite's table of refusals.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// TCP port on 127.0.0.1 of a server that speaks TLS.
    pub fn tls_port(&self) -> u16 {
        self.port + TLS_STEP
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ready is who answers an unsigned request for the list of buckets as it always does, twice: a
    /// server that is still starting answers something else, or not at all.
    fn is_ready(&self, stranger: u16) -> bool {
        let mut answers = 0;
        let mut ended = false;
        eventually(START_LIMIT, || {
            let pid = fs::read_to_string(self.dir.join("server.pid")).unwrap_or_default();
            let pid = pid.trim();
            ended = !pid.is_empty() && !Path::new("/proc").join(pid).join("exe").exists();
            let status = status_of(self.port);
            answers = if status == Some(stranger) {
                answers + 1
            } else {
                0
            };
            ended || answers >= 2
        });
        !ended && answers >= 2
    }
}

/// What the suite looks at from outside, past the store.
impl S3Server {
    /// A client with one of the keys.
    pub fn client(&self, key: &S3Key) -> Client {
        s3_client(&self.endpoint(), key)
    }

    /// A new bucket of a name that no other test has.
    #[track_caller]
    pub fn bucket(&self) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bucket-{}-{number}", std::process::id());
        let client = self.client(&self.admin);
        let made = client.call(client.sdk().create_bucket().bucket(&name).send());
        made.unwrap_or_else(|error| panic!("{} makes no bucket: {error}", self.name));
        name
    }

    /// All keys of a bucket, sorted.
    #[track_caller]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let client = self.client(&self.admin);
        let mut keys = Vec::new();
        let mut pages = client
            .sdk()
            .list_objects_v2()
            .bucket(bucket)
            .into_paginator()
            .send();
        while let Some(page) = client.wait(pages.next()).expect("not stopped") {
            let page =
                page.unwrap_or_else(|error| panic!("{} does not list: {error:?}", self.name));
            keys.extend(
                page.contents()
                    .iter()
                    .filter_map(|o| o.key().map(str::to_owned)),
            );
        }
        keys.sort();
        keys
    }

    /// The keys of all uploads that were begun and neither completed nor aborted.
    #[track_caller]
    pub fn open_uploads(&self, bucket: &str) -> Vec<String> {
        let client = self.client(&self.admin);
        let call = client.sdk().list_multipart_uploads().bucket(bucket).send();
        let page = client.call(call);
        let page = page.unwrap_or_else(|error| panic!("{} lists no uploads: {error}", self.name));
        let keys = page.uploads().iter().filter_map(|upload| upload.key());
        keys.map(str::to_owned).collect()
    }

    /// A store in a bucket here, for tests that hold a [`rg_common::store::Store`] in their hands.
    /// `dir` takes its credentials and its locks.
    pub fn store(&self, name: &str, bucket: &str, prefix: &str, dir: &Path) -> StoreConfig {
        s3_store(&self.endpoint(), &self.admin, (name, bucket, prefix), dir)
    }
}

/// Users of a SeaweedFS that makes access keys ([`SeaweedFs::start_iam`]).
impl S3Server {
    /// Makes a user who may list, read and write in one bucket, with a first key.
    #[track_caller]
    pub fn user(&self, name: &str, bucket: &str) -> S3Key {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("RGFIRST{:08}{number:05}", std::process::id());
        let key = S3Key::new(&id, &format!("first-secret-of-{name}-{number:020}"));
        let line = format!(
            "s3.configure -user={name} -access_key={} -secret_key={} -buckets={bucket} \
             -actions=Read,Write,List -apply\n",
            key.access, key.secret
        );
        let mut shell = Command::new(program("bin/weed"));
        shell
            .arg("shell")
            .arg(format!("-master=127.0.0.1:{}", self.port + 1))
            .arg(format!("-filer=127.0.0.1:{}", self.port + 3))
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut shell = shell.spawn().expect("weed shell can be started");
        let mut input = shell.stdin.take().expect("its input");
        input
            .write_all(line.as_bytes())
            .expect("a line to weed shell");
        drop(input);
        assert!(shell.wait().expect("its end").success(), "weed shell");
        let client = self.client(&key);
        let lists = || {
            let call = client.sdk().list_objects_v2().bucket(bucket).send();
            client.call(call).is_ok()
        };
        assert!(eventually(START_LIMIT, lists), "{name} cannot log in");
        key
    }

    /// The access keys that a user has now.
    #[track_caller]
    pub fn access_keys(&self, user: &str) -> Vec<String> {
        let admin = Credentials::new(
            Secret::new(&*self.admin.access),
            Secret::new(&*self.admin.secret),
            "the suite",
        );
        let service = S3Config {
            endpoint: Some(self.endpoint()),
            region: "us-east-1".into(),
            path_style: None,
            credentials: Some(admin),
        };
        let iam = Iam::new(s3_network().handle(), &service, jiff::Timestamp::now());
        let keys = iam.expect("a client of IAM").keys(Some(user));
        let keys = keys.unwrap_or_else(|error| panic!("no keys of {user}: {error}"));
        keys.keys.into_iter().map(|key| key.id).collect()
    }
}

/// The program of JuiceFS's gateway, for tests that restart it with other keys.
pub fn juicefs() -> PathBuf {
    program("bin/juicefs")
}

/// A client of any endpoint, so that a test can put something in between.
pub fn s3_client(endpoint: &str, key: &S3Key) -> Client {
    let keys = Credentials::new(
        Secret::new(&*key.access),
        Secret::new(&*key.secret),
        "the suite",
    );
    let config = S3Config {
        endpoint: Some(endpoint.to_owned()),
        region: "us-east-1".into(),
        path_style: None,
        credentials: Some(keys),
    };
    Client::new(s3_network().handle(), &config).expect("a client can be configured")
}

/// A store of any endpoint: its name, bucket and prefix.
pub fn s3_store(endpoint: &str, key: &S3Key, place: (&str, &str, &str), dir: &Path) -> StoreConfig {
    let (name, bucket, prefix) = place;
    let credentials = dir.join(format!("{name}.env"));
    fs::write(&credentials, key.env()).expect("the credentials");
    StoreConfig {
        name: name.to_owned(),
        place: StorePlace::Bucket(Box::new(BucketStore {
            url: format!("s3://{bucket}/{prefix}"),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(endpoint.to_owned()),
            region: None,
            path_style: None,
            credentials: CredentialsPlace::File(credentials),
            storage_class: None,
            lock_days: None,
            // The shortest there are, so that tests of many parts are quick.
            part_mib: 5,
            locks: dir.join("locks"),
        })),
    }
}

/// The runtime that the suite's own clients and stores run on; stores are opened inside it.
pub fn s3_network() -> &'static Runtime {
    static NETWORK: OnceLock<Runtime> = OnceLock::new();
    NETWORK.get_or_init(|| {
        // As the tools do; fails only when there is one already.
        let provider = rustls::crypto::ring::default_provider();
        provider.install_default().ok();
        Runtime::new().expect("a runtime")
    })
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().ok();
    }
}

/// The status of `GET /` without a signature.
fn status_of(port: u16) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).ok()?.parse().ok()
}

fn keep(command: &Command, dir: &Path) -> Child {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", KEEPER, "keeper"])
        .arg(dir)
        .arg(command.get_program())
        .args(command.get_args())
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir(dir)
        // Ctrl-C at the terminal reaches the tests; the pipe's end tells the keeper.
        .process_group(0);
    shell.spawn().expect("a shell can be started")
}

/// The first of `count` ports in a row that are free, and free [`GRPC_STEP`] higher as well.
pub(crate) fn free_ports(count: u16) -> u16 {
    for _ in 0..100 {
        let any = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let seed = any.local_addr().expect("its address").port();
        // Below the range that the kernel gives to others.
        let base = 10_000 + seed % 12_000;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + count).all(|port| free(port) && free(port + GRPC_STEP)) {
            return base;
        }
    }
    panic!("no {count} free ports in a row");
}

/// A server's program, from where `tests/install.sh` puts it.
pub(crate) fn program(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
        PathBuf::from,
    );
    let path = target.join("s3-servers").join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/install.sh, for further servers tests/install.sh s3",
        path.display()
    );
    path
}
