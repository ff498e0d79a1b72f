//! A real PostgreSQL of the test's own: a private cluster on a free port of 127.0.0.1.
//!
//! The promise: no server outlives the test, not even when the test is killed with `kill -9`. A
//! shell of its own process group holds the server; it reads from a pipe whose other end is ours,
//! and when that end closes, for whatever reason, it stops the server and removes the cluster.
//! Should the shell be killed too, the kernel tells the server (`PR_SET_PDEATHSIG`).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::majors::{fetched_bins, newest_bin};
use crate::run::{Output, Tool, eventually};
use crate::sandbox::tmp_dir;

/// A new cluster must answer within this time; initdb and start take about two seconds.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Another program may take the free port between our look and the server's start.
const PORT_TRIES: u32 = 5;
/// The superuser of every cluster here.
const SUPERUSER: &str = "postgres";

/// Holds the server: `$1` cluster directory, the rest the server's command line.
const KEEPER: &str = r#"
dir=$1; shift
"$@" >"$dir/log" 2>&1 &
server=$!
echo $server >"$dir/server.pid"
word=$(cat)
kill -QUIT $server 2>/dev/null
wait $server
[ "$word" = keep ] || rm -rf "$dir"
"#;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Settings of a cluster to be made.
#[derive(Default)]
pub struct Setup {
    major: Option<u32>,
    fsync: bool,
    settings: Vec<(String, String)>,
}

impl Setup {
    /// A major that `tests/majors.sh` fetched; the distribution's newest otherwise.
    #[must_use]
    pub fn major(mut self, major: u32) -> Self {
        self.major = Some(major);
        self
    }

    /// Writes through to the disk, as a real server does; off otherwise, for speed.
    #[must_use]
    pub fn fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// One setting of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Makes and starts the cluster.
    pub fn start(self) -> Postgres {
        Postgres::start_with(&self)
    }
}

/// A running cluster with password authentication (scram-sha-256) on TCP and on its socket.
pub struct Postgres {
    dir: PathBuf,
    clients: PathBuf,
    port: u16,
    server: Vec<OsString>,
    passwords: Mutex<HashMap<String, String>>,
    keeper: Child,
}

/// What a table holds: its number of rows, and a digest that does not depend on their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDigest {
    /// Number of rows.
    pub rows: u64,
    /// MD5 over the sorted text of all rows.
    pub md5: String,
}

impl Postgres {
    /// The cluster that all tests of this process share; each makes databases of its own.
    pub fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// A cluster of one's own, for tests that stop it, fill it or change its roles.
    pub fn start() -> Postgres {
        Setup::default().start()
    }

    /// A cluster with settings.
    pub fn setup() -> Setup {
        Setup::default()
    }

    fn start_with(setup: &Setup) -> Postgres {
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = tmp_dir().join(format!("rg-pg-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("cannot make {}: {e}", dir.display()));
        // The server's user writes its data and its socket here; others must reach the socket.
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("mode of the cluster");

        let (bin, clients) = match setup.major {
            Some(major) => fetched_bins(major, &server_user(), &dir),
            None => (newest_bin(), newest_bin()),
        };
        let password = random_hex();
        let password_file = dir.join("superuser");
        fs::write(&password_file, &password).expect("the password file");
        fs::set_permissions(&password_file, Permissions::from_mode(0o644)).expect("its mode");
        let mut words: Vec<OsString> = server_user().into_iter().map(OsString::from).collect();
        words.push(bin.join("initdb").into());
        if words.len() > 1 {
            words.insert(0, "setpriv".into());
        }
        let mut initdb = Command::new(&words[0]);
        initdb
            .args(&words[1..])
            .args(["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--username", SUPERUSER])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("-D")
            .arg(dir.join("data"))
            .current_dir(&dir)
            .env("LC_ALL", "C.UTF-8");
        Tool::new(initdb, "initdb").run().ok();

        for _ in 0..PORT_TRIES {
            let port = free_port();
            let server = server(setup, &bin, &dir, port);
            let keeper = keep(&server, &dir);
            let mut started = Postgres {
                dir: dir.clone(),
                clients: clients.clone(),
                port,
                server,
                passwords: Mutex::new(HashMap::from([(SUPERUSER.into(), password.clone())])),
                keeper,
            };
            if started.is_ready() {
                return started;
            }
            let log = started.log();
            assert!(log.contains("Address already in use"), "no server: {log}");
            started.stop();
            // Not dropped: that would remove the cluster that the next try starts.
            std::mem::forget(started);
        }
        panic!("no free port after {PORT_TRIES} tries");
    }

    /// Waits until the server writes `ready` into its `postmaster.pid`; false when it has ended.
    fn is_ready(&self) -> bool {
        let mut ended = false;
        let ready = eventually(START_LIMIT, || {
            let status = fs::read_to_string(self.dir.join("data/postmaster.pid"));
            let ready = status.is_ok_and(|s| s.lines().nth(7).map(str::trim) == Some("ready"));
            let pid = fs::read_to_string(self.dir.join("server.pid")).unwrap_or_default();
            let pid = pid.trim();
            ended = !pid.is_empty() && !Path::new("/proc").join(pid).join("exe").exists();
            ready || ended
        });
        assert!(ready, "no server after {START_LIMIT:?}: {}", self.log());
        !ended
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of the client programs that belong to this server's version.
    pub fn bin(&self) -> &Path {
        &self.clients
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.dir.join("server.pid")).expect("the server's pid");
        text.trim().parse().expect("a number")
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The password of a role made by [`Postgres::role`], or of `postgres`.
    #[track_caller]
    pub fn password(&self, role: &str) -> String {
        let passwords = self.passwords.lock().expect("no panic under this lock");
        match passwords.get(role) {
            Some(password) => password.clone(),
            None => panic!("role {role} was not made here"),
        }
    }

    /// A new role with a random password; `attributes` as in SQL: `LOGIN`, `LOGIN CREATEDB`.
    #[track_caller]
    pub fn role(&self, name: &str, attributes: &str) {
        let password = random_hex();
        self.psql(
            "postgres",
            &format!("CREATE ROLE \"{name}\" {attributes} PASSWORD '{password}'"),
        );
        let mut passwords = self.passwords.lock().expect("no panic under this lock");
        passwords.insert(name.into(), password);
    }

    /// A new, empty database of the superuser; gives its URL.
    #[track_caller]
    pub fn create_database(&self, name: &str) -> String {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.url(name, SUPERUSER)
    }

    /// A new, empty database owned by `role`; gives its URL for that role.
    #[track_caller]
    pub fn create_database_of(&self, name: &str, role: &str) -> String {
        self.psql(
            "postgres",
            &format!("CREATE DATABASE \"{name}\" OWNER \"{role}\""),
        );
        self.url(name, role)
    }

    /// `postgresql://role:password@127.0.0.1:port/database`
    #[track_caller]
    pub fn url(&self, database: &str, role: &str) -> String {
        format!(
            "postgresql://{role}:{}@127.0.0.1:{}/{database}",
            self.password(role),
            self.port
        )
    }

    /// The names of all databases that a person made.
    pub fn databases(&self) -> Vec<String> {
        let all = self.psql(
            "postgres",
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' \
             ORDER BY 1",
        );
        all.lines().map(str::to_owned).collect()
    }

    /// Runs SQL as superuser and gives its unaligned output; panics at the first error.
    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.try_psql(database, SUPERUSER, sql).ok();
        output.out().trim_end_matches('\n').to_owned()
    }

    /// Runs SQL as any role and gives what happened; psql's status after an SQL error is 3.
    pub fn try_psql(&self, database: &str, role: &str, sql: &str) -> Output {
        let mut command = self.command("psql", database, role);
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        Tool::new(command, format!("psql {database}"))
            .stdin(sql)
            .run()
    }

    /// One of the server's own client programs, its connection in the environment.
    pub fn command(&self, program: impl AsRef<OsStr>, database: &str, role: &str) -> Command {
        let mut command = Command::new(self.clients.join(program.as_ref()));
        for name in ["PGSERVICE", "PGOPTIONS", "PGSSLMODE", "PGPASSFILE"] {
            command.env_remove(name);
        }
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGDATABASE", database)
            .env("PGUSER", role)
            .env("PGPASSWORD", self.password(role));
        command
    }

    /// Rows and digest of every table and materialized view of a database, by qualified name.
    pub fn digest(&self, database: &str) -> BTreeMap<String, TableDigest> {
        let tables = self.psql(
            database,
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', \
             'information_schema') AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1",
        );
        let one = |table: &str| {
            format!(
                "SELECT $name${table}$name$, count(*), \
                 md5(coalesce(string_agg(h, '' ORDER BY h), '')) \
                 FROM (SELECT md5(t::text) AS h FROM {table} t) AS hashed"
            )
        };
        let all: Vec<String> = tables.lines().map(one).collect();
        if all.is_empty() {
            return BTreeMap::new();
        }
        let found = self.psql(database, &all.join(" UNION ALL "));
        let row = |line: &str| {
            let mut columns = line.rsplitn(3, '|');
            let md5 = columns.next().expect("a digest").to_owned();
            let rows = columns.next().and_then(|rows| rows.parse().ok());
            let table = columns.next().expect("a name").to_owned();
            let rows = rows.expect("a count");
            (table, TableDigest { rows, md5 })
        };
        found.lines().map(row).collect()
    }

    /// Stops the server at once, as a crash would; [`Postgres::start_again`] brings it back.
    pub fn stop(&mut self) {
        self.release("keep");
    }

    /// Starts a stopped server again, on the same port.
    pub fn start_again(&mut self) {
        fs::remove_file(self.dir.join("server.pid")).ok();
        self.keeper = keep(&self.server, &self.dir);
        assert!(self.is_ready(), "no server: {}", self.log());
    }

    fn release(&mut self, word: &str) {
        if let Some(mut stdin) = self.keeper.stdin.take() {
            stdin.write_all(word.as_bytes()).ok();
        }
        self.keeper.wait().ok();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.release("remove");
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The server's command line.
fn server(setup: &Setup, bin: &Path, dir: &Path, port: u16) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["setpriv".into(), "--pdeathsig=QUIT".into()];
    words.extend(server_user().into_iter().map(OsString::from));
    words.extend([bin.join("postgres").into(), "-D".into()]);
    words.push(dir.join("data").into());
    let fsync = if setup.fsync { "on" } else { "off" };
    let settings = [
        ("listen_addresses", "127.0.0.1"),
        ("port", &port.to_string()),
        ("unix_socket_directories", &dir.to_string_lossy()),
        ("shared_buffers", "64MB"),
        ("max_connections", "60"),
        ("fsync", fsync),
        ("synchronous_commit", fsync),
        ("full_page_writes", fsync),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in settings.iter().chain(&setup.settings) {
        words.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    words
}

fn keep(server: &[OsString], dir: &Path) -> Child {
    Command::new("/bin/sh")
        .args(["-c", KEEPER, "rg-pg-keeper"])
        .arg(dir)
        .args(server)
        .env("LC_ALL", "C.UTF-8")
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start /bin/sh: {error}"))
}

/// PostgreSQL refuses to run as root; root runs it as the user `postgres`, else as `nobody`.
/// These are setpriv's words for that; none for an ordinary user.
fn server_user() -> Vec<String> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |user: &str| {
        let fields = users.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let mut found = fields.filter(|f| f.len() > 3 && f[0] == user);
        found.next().map(|f| (f[2], f[3]))
    };
    let (uid, gid) = ids("postgres")
        .or_else(|| ids("nobody"))
        .expect("a user `postgres` or `nobody` in /etc/passwd");
    vec![
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        "--init-groups".into(),
    ]
}

/// Clusters whose keeper is gone: it was killed together with its test.
fn sweep() {
    for entry in fs::read_dir(tmp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("rg-pg-") else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        let server = fs::read_to_string(entry.path().join("server.pid")).unwrap_or_default();
        let server = server.trim();
        if !owner.is_empty() && gone(owner) && !server.is_empty() && gone(server) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
    listener.local_addr().expect("its address").port()
}

/// 128 bits of the system's random source in hexadecimal.
fn random_hex() -> String {
    let mut bytes = [0; 16];
    let mut source = fs::File::open("/dev/urandom").expect("/dev/urandom");
    source.read_exact(&mut bytes).expect("16 random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
