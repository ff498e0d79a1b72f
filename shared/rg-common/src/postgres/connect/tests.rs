use super::*;
use crate::postgres::cluster::{as_postgres, cluster, free_port};

fn failure(url: &str) -> (String, String) {
    let cluster = cluster();
    let url = url
        .replace("PORT", &cluster.port.to_string())
        .replace("DIR", cluster.directory.to_str().unwrap());
    let failure = cluster
        .connector()
        .open(&cluster.address(&url))
        .err()
        .unwrap_or_else(|| panic!("{url} was reached"));
    let port = cluster.port.to_string();
    let plain = |text: String| {
        text.replace(&port, "PORT")
            .replace(cluster.directory.to_str().unwrap(), "DIR")
    };
    (
        plain(failure.to_string()),
        plain(failure.hints().join(" | ")),
    )
}

fn encrypted(url: &str) -> bool {
    let cluster = cluster();
    let url = url
        .replace("PORT", &cluster.port.to_string())
        .replace("DIR", cluster.directory.to_str().unwrap());
    let session = cluster.connector().open(&cluster.address(&url)).unwrap();
    session
        .value(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            &[],
        )
        .unwrap()
}

fn roles() {
    cluster()
        .session("postgres")
        .execute(
            "SELECT pg_advisory_xact_lock(1);
             DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tls_only') THEN
                 CREATE ROLE tls_only LOGIN PASSWORD 'p';
                 CREATE ROLE plain_only LOGIN PASSWORD 'p';
                 CREATE ROLE rejected LOGIN PASSWORD 'p';
                 CREATE ROLE crowded LOGIN PASSWORD 'p' CONNECTION LIMIT 0;
               END IF;
             END $$",
        )
        .unwrap();
}

#[test]
fn a_wrong_password_is_said_and_not_shown() {
    assert_eq!(
        failure("postgresql://postgres:wr0ng@127.0.0.1:PORT/postgres"),
        (
            "cannot connect to postgresql://postgres:***@127.0.0.1:PORT/postgres: password authentication failed for user \"postgres\"".to_owned(),
            "check the password of role `postgres` in the URL; special characters are percent-encoded".to_owned()
        )
    );
}

#[test]
fn each_refusal_has_its_remedy() {
    roles();
    for (url, what, hint) in [
        (
            "postgresql://postgres:super@127.0.0.1:PORT/missing",
            "database \"missing\" does not exist",
            "no database `missing` on this server; `psql -l` lists them",
        ),
        (
            "postgresql://postgres@127.0.0.1:PORT/postgres",
            "the server asks for a password and the URL has none",
            "add it: postgresql://user:password@host/database",
        ),
        (
            "postgresql://crowded:p@127.0.0.1:PORT/postgres",
            "too many connections for role \"crowded\"",
            "all of the server's connections are in use",
        ),
        (
            "postgresql://rejected:p@127.0.0.1:PORT/postgres?sslmode=disable",
            "pg_hba.conf rejects connection",
            "add a line for this host",
        ),
        (
            "postgresql://u:p@127.0.0.1:1/d",
            "Connection refused",
            "nothing listens at 127.0.0.1:1: is PostgreSQL running, and is this its port?",
        ),
        (
            "postgresql://u:p@no-such-host.invalid/d",
            "failed to lookup address",
            "`no-such-host.invalid` is not known to the name servers",
        ),
        (
            "postgresql://u:p@/d?host=DIR&port=1",
            "No such file or directory",
            "no server has its socket at DIR/.s.PGSQL.1",
        ),
    ] {
        let (found, hints) = failure(url);
        assert!(found.contains(what), "{url}: {found}");
        assert!(hints.contains(hint), "{url}: {hints}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (what, hint) = failure(&format!(
        "postgresql://u:p@127.0.0.1:{port}/d?connect_timeout=1"
    ));
    assert!(what.ends_with("no answer within 1 s"), "{what}");
    assert!(hint.starts_with("a firewall"), "{hint}");
}

#[test]
fn something_else_at_the_port_is_said_to_be_so() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let closing = std::thread::spawn(move || drop(other.accept().unwrap()));
    let (what, hint) = failure(&format!("postgresql://u:p@127.0.0.1:{port}/d"));
    closing.join().unwrap();
    assert!(
        what.starts_with("cannot connect to postgresql://u:***@127.0.0.1"),
        "{what}"
    );
    assert!(
        hint.contains("is this really PostgreSQL's port"),
        "{what}: {hint}"
    );
}

#[test]
fn sslmode_means_what_libpq_means() {
    roles();
    let base = "postgresql://postgres:super@localhost:PORT/postgres?sslmode=";
    let with = |rest: &str| format!("{base}{rest}");
    assert!(!encrypted(&with("disable")));
    assert!(!encrypted(&with("allow")));
    assert!(encrypted(&with("prefer")));
    assert!(encrypted(&with("require")));
    assert!(encrypted(&with("verify-full&sslrootcert=DIR/ca.pem")));
    let by_address = "postgresql://postgres:super@127.0.0.1:PORT/postgres?sslmode=";
    assert!(encrypted(&format!(
        "{by_address}verify-ca&sslrootcert=DIR/ca.pem"
    )));
    assert!(encrypted(&format!(
        "{by_address}require&sslrootcert=DIR/server.pem"
    )));
    let roles = "@localhost:PORT/postgres?sslmode=";
    assert!(encrypted(&format!("postgresql://tls_only:p{roles}allow")));
    assert!(!encrypted(&format!(
        "postgresql://plain_only:p{roles}prefer"
    )));
    assert!(!encrypted(
        "postgresql://postgres:super@/postgres?host=DIR&port=PORT"
    ));
}

#[test]
fn a_certificate_that_is_not_right_is_refused() {
    for (url, what, hint) in [
        (
            "postgresql://postgres:super@localhost:PORT/postgres?sslmode=verify-full&sslrootcert=DIR/other.pem",
            "TLS: the server's certificate comes from an unknown authority",
            "name the authority's certificate with sslrootcert=/path (now trusted: DIR/other.pem)",
        ),
        (
            "postgresql://postgres:super@localhost:PORT/postgres?sslmode=require&sslrootcert=DIR/other.pem",
            "TLS: the server's certificate comes from an unknown authority",
            "name the authority's certificate with sslrootcert=/path (now trusted: DIR/other.pem)",
        ),
        (
            "postgresql://postgres:super@localhost:PORT/postgres?sslrootcert=system",
            "TLS: the server's certificate comes from an unknown authority",
            "name the authority's certificate with sslrootcert=/path (now trusted: the system's)",
        ),
        (
            "postgresql://postgres:super@127.0.0.1:PORT/postgres?sslmode=verify-full&sslrootcert=DIR/ca.pem",
            "TLS: the server's certificate is for another name",
            "it is for localhost: use that host name, or sslmode=verify-ca",
        ),
        (
            "postgresql://postgres:super@localhost:PORT/postgres?sslmode=verify-full&sslrootcert=DIR/pw",
            "the trusted certificates DIR/pw hold no certificate",
            "it is a PEM file with -----BEGIN CERTIFICATE-----",
        ),
    ] {
        let (found, hints) = failure(url);
        assert!(found.ends_with(what), "{url}: {found}");
        assert_eq!(hints, hint, "{url}");
    }
}

#[test]
fn a_question_that_takes_too_long_is_given_up_and_cancelled() {
    let session = cluster().session("postgres");
    let failure = session
        .execute_within(Duration::from_millis(100), "SELECT pg_sleep(50)")
        .unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("`SELECT pg_sleep(50)` at postgres had no answer"),
        "{failure}"
    );
    // The session is free again: the server has stopped.
    assert_eq!(session.value::<i32>("SELECT 1", &[]).unwrap(), 1);
}

#[test]
fn a_failed_question_says_what_the_server_said() {
    let failure = cluster()
        .session("postgres")
        .execute("SELECT nonsense")
        .unwrap_err();
    assert_eq!(
        failure.to_string(),
        "`SELECT nonsense` at postgres failed: column \"nonsense\" does not exist"
    );
}

#[test]
fn a_databases_own_settings_do_not_reach_us() {
    let cluster = cluster();
    let name = cluster.database("hostile", "CREATE TABLE marker (v text)");
    cluster
        .session("postgres")
        .execute(&format!(
            "ALTER DATABASE {name} SET statement_timeout = '1ms';
             ALTER DATABASE {name} SET search_path = public, pg_catalog"
        ))
        .unwrap();
    let url = cluster.url(&name);
    let session = cluster.connector().open(&url).unwrap();
    session.execute("SELECT pg_sleep(0.05)").unwrap();
    assert_eq!(
        session.value::<String>("SHOW search_path", &[]).unwrap(),
        "\"\""
    );
    assert!(session.execute("SELECT * FROM marker").is_err());
}

/// A real PgBouncer in front of the cluster, ended when dropped.
#[allow(clippy::disallowed_methods)]
struct PgBouncer(std::process::Child, std::path::PathBuf, u16);

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
        drop(std::fs::remove_dir_all(&self.1));
    }
}

fn pgbouncer(extra: &str) -> PgBouncer {
    let cluster = cluster();
    let port = free_port();
    let directory = std::env::temp_dir().join(format!("rg-pgbouncer-{port}"));
    std::fs::create_dir(&directory).unwrap();
    let settings = directory.join("pgbouncer.ini");
    let users = directory.join("users.txt");
    std::fs::write(&users, "\"postgres\" \"super\"\n").unwrap();
    std::fs::write(
        &settings,
        format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\npool_mode = transaction\n{extra}\n",
            cluster.port,
            users.display()
        ),
    )
    .unwrap();
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("these tests need PgBouncer: apt-get install pgbouncer");
    let child = as_postgres(program)
        .arg("-q")
        .arg(&settings)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let bouncer = PgBouncer(child, directory, port);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(std::time::Instant::now() < deadline, "pgbouncer is up");
        std::thread::sleep(Duration::from_millis(20));
    }
    bouncer
}

#[test]
fn a_pooler_is_found_out_by_its_behaviour() {
    for (extra, because) in [
        ("", "unsupported startup parameter"),
        (
            "ignore_startup_parameters = options",
            "a start-up option did not reach the server",
        ),
    ] {
        let bouncer = pgbouncer(extra);
        let port = bouncer.2;
        let (what, hint) = failure(&format!(
            "postgresql://postgres:super@127.0.0.1:{port}/postgres"
        ));
        assert!(what.contains("is a connection pooler"), "{what}");
        assert!(what.contains(because), "{what}");
        assert!(hint.starts_with("give the server's own address"), "{hint}");
    }
}
