//! A private PostgreSQL server for the tests of this module: one per test process, on a free port
//! of 127.0.0.1 and a socket in its own directory, ended and removed when the process ends, however
//! it ends. Without an installed PostgreSQL the tests fail and say so.

// Tests start the server themselves: the product's way would end it with the first test's thread.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::Runtime;

use super::connect::{Connector, Session};
use super::url::DatabaseUrl;

/// Ends when its standard input does: that is when the test process has gone.
const SCRIPT: &str = r#"
set -eu
bin=$1 port=$2
dir=$(mktemp -d /tmp/rg-pg.XXXXXX)
trap 'rm -rf "$dir"' EXIT
printf 'super\n' > "$dir/pw"
"$bin/initdb" -D "$dir/data" -U postgres -A scram-sha-256 --pwfile="$dir/pw" -N \
  -E UTF8 --locale=C.UTF-8 >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log" >&2; exit 1; }
cd "$dir"
for ca in ca other; do
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$ca" \
    -keyout $ca.key -out $ca.pem 2>/dev/null
done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=db \
  -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
  -CA ca.pem -CAkey ca.key -keyout server.key -out server.pem 2>/dev/null
chmod 600 server.key
cat > data/pg_hba.conf <<END
hostnossl all tls_only all reject
hostssl all plain_only all reject
host all rejected all reject
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
END
"$bin/postgres" -D "$dir/data" -p "$port" -k "$dir" -c listen_addresses=127.0.0.1 -c fsync=off \
  -c shared_buffers=64MB -c max_connections=60 -c wal_level=logical -c max_prepared_transactions=5 \
  -c max_wal_size=256MB -c autovacuum=off \
  -c ssl=on -c ssl_cert_file="$dir/server.pem" -c ssl_key_file="$dir/server.key" \
  >"$dir/log" 2>&1 </dev/null &
server=$!
until "$bin/pg_isready" -q -h "$dir" -p "$port"; do
  kill -0 $server || { cat "$dir/log" >&2; exit 1; }
  sleep 0.05
done
echo "$dir"
read -r _ || true
kill -INT $server
wait $server || true
"#;

/// The server of this test process.
pub(crate) struct Cluster {
    pub(crate) port: u16,
    pub(crate) directory: PathBuf,
    runtime: Runtime,
    _ends_with_us: ChildStdin,
    _script: Child,
}

/// The one server, started on first use.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(start)
}

fn start() -> Cluster {
    let binaries = binaries();
    let port = free_port();
    let mut script = as_postgres("sh")
        .args(["-c", SCRIPT, "cluster", &binaries, &port.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh and setpriv are there");
    let mut directory = String::new();
    let stdout = script.stdout.take().expect("asked for");
    BufReader::new(stdout)
        .read_line(&mut directory)
        .expect("a line");
    if directory.trim().is_empty() {
        let mut said = String::new();
        let stderr = script.stderr.as_mut().expect("asked for");
        stderr.read_to_string(&mut said).expect("text");
        panic!("cannot start a private PostgreSQL: {said}");
    }
    Cluster {
        port,
        directory: directory.trim().into(),
        runtime: tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime"),
        _ends_with_us: script.stdin.take().expect("asked for"),
        _script: script,
    }
}

/// The newest installed server's programs.
pub(crate) fn binaries() -> String {
    let mut found: Vec<(u32, String)> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("these tests need a PostgreSQL server: apt-get install postgresql")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(|major: u32| (major, format!("/usr/lib/postgresql/{major}/bin")))
        .filter(|(_, path)| std::path::Path::new(path).join("initdb").exists())
        .collect();
    found.sort();
    found
        .pop()
        .expect("these tests need a PostgreSQL server: apt-get install postgresql")
        .1
}

/// A command as the user `postgres` when we are root, which servers refuse to run as.
pub(crate) fn as_postgres(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.arg(program).current_dir("/");
    command
}

/// A port that nobody held a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

impl Cluster {
    pub(crate) fn connector(&self) -> Connector {
        Connector::new(self.runtime.handle().clone(), "rg-test")
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The superuser's address of a database.
    pub(crate) fn url(&self, database: &str) -> DatabaseUrl {
        self.address(&format!(
            "postgresql://postgres:super@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        ))
        .with_database(database)
    }

    pub(crate) fn address(&self, text: &str) -> DatabaseUrl {
        DatabaseUrl::parse(text).expect("a good URL")
    }

    /// The superuser's session, which looks for names in `public`.
    pub(crate) fn session(&self, database: &str) -> Session {
        let session = self
            .connector()
            .open(&self.url(database))
            .expect("a session");
        session
            .execute("SET search_path = public")
            .expect("a schema");
        session
    }

    /// A name that no other test uses.
    pub(crate) fn unique(&self, base: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{base}_{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A new database with these statements run in it.
    pub(crate) fn database(&self, base: &str, statements: &str) -> String {
        let name = self.unique(base);
        self.session("postgres")
            .execute(&format!("CREATE DATABASE \"{name}\" TEMPLATE template0"))
            .expect("a database");
        let session = self.session(&name);
        session.execute(statements).expect("its contents");
        session.close();
        name
    }
}
