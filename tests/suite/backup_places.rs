//! Where databases are and how they can be out of reach: containers, poolers, hidden rows, wrong
//! names. Each is an error with a remedy, and never a backup.

use std::fs;
use std::net::TcpListener;

use rg_tests::{FakeProgram, Postgres, Site, fake_docker, site};

/// The run fails with exit 2, says all of this on standard output, and stores nothing.
#[track_caller]
fn refused(site: &Site, words: &[&str]) {
    let output = site.try_backup().fails(2);
    for words in words {
        assert!(output.out().contains(words), "wanted {words:?}: {output:?}");
    }
    assert_eq!(site.stored(), [""; 0]);
}

#[test]
fn a_database_in_a_container_is_dumped_there() {
    let site = site!("in_container");
    let docker = fake_docker(&site, "docker", "postgres-production", Postgres::shared());
    site.configure("via = \"docker:postgres-production\"\n");
    site.backup();
    let calls = docker.calls();
    let dump = calls.last().expect("a call");
    assert_eq!(dump[..2], ["exec", "-i"], "{calls:?}");
    assert!(dump.contains(&"pg_dump".to_owned()), "{dump:?}");
    let password = Postgres::shared().password("postgres");
    assert!(
        !format!("{calls:?}").contains(&password),
        "no secret among its arguments"
    );
    let restored = site.restore_with_standard_tools("in_container_back", "-".as_ref());
    assert_eq!(restored, Postgres::shared().digest("in_container"));
}

#[test]
fn podman_is_asked_where_podman_is_configured() {
    let site = site!("in_podman");
    fake_docker(&site, "podman", "db", Postgres::shared());
    site.configure("via = \"podman:db\"\n");
    site.backup();
    site.all_whole();
}

#[test]
fn a_wrong_container_name_is_said_with_what_to_do() {
    let site = site!("wrong_container");
    fake_docker(&site, "docker", "postgres-production", Postgres::shared());
    site.configure("via = \"docker:postgres-prod\"\n");
    refused(
        &site,
        &[
            "No such container: postgres-prod",
            "hint: `docker ps` lists the running ones",
        ],
    );
}

#[test]
fn a_container_of_another_environment_is_noticed() {
    let site = site!("other_container");
    let other = Postgres::start();
    other.psql("postgres", "CREATE DATABASE other_container");
    let password = Postgres::shared().password("postgres");
    other.psql(
        "postgres",
        &format!("ALTER ROLE postgres PASSWORD '{password}'"),
    );
    fake_docker(&site, "docker", "postgres-staging", &other);
    site.configure("via = \"docker:postgres-staging\"\n");
    refused(&site, &["another one than that of"]);
}

#[test]
fn a_dump_that_dies_in_its_container_leaves_no_backup() {
    let site = site!("dies_in_container");
    fake_docker(&site, "docker", "pg", Postgres::shared());
    site.configure("via = \"docker:pg\"\n");
    // The engine's own door, behind it the real one that is cut off.
    let (door, real) = (site.path("bin/docker"), site.path("docker-itself"));
    fs::rename(&door, &real).expect("the fake docker behind the door");
    let docker = FakeProgram::new(&site, "docker");
    for ending in ["exit 137", "kill -9 $$", "exit 0"] {
        docker.does(&format!(
            "case \" $* \" in *' --version '*|*' psql '*) exec '{0}' \"$@\" ;; esac\n\
             '{0}' \"$@\" | head -c 70000\n{ending}",
            real.display()
        ));
        refused(&site, &["app/database: "]);
    }
    docker.runs(&real);
    site.backup();
}

#[test]
fn an_old_pg_dump_on_the_host_is_refused_before_it_fails() {
    let site = site!("old_pg_dump");
    FakeProgram::new(&site, "pg_dump").does("echo 'pg_dump (PostgreSQL) 12.22'");
    // A host whose only client is an old one: its packages' folder is empty.
    let script = "mount -t tmpfs -o size=1m rg-empty /usr/lib/postgresql || exit 99";
    let words = ["rg-backup", "run", "app/database"];
    let words = [&[env!("CARGO_BIN_EXE_rg-driver")], &words[..]].concat();
    let output = site.behind(script, words).run().fails(2);
    let said = output.out();
    assert!(
        said.contains("pg_dump 12.22 is older than the server (1"),
        "{output:?}"
    );
    assert!(
        said.contains("hint: install postgresql-client-1"),
        "{output:?}"
    );
    assert!(said.contains("via = \"docker:NAME\""), "{output:?}");
    assert_eq!(site.stored(), [""; 0]);
}

#[test]
fn a_providers_pooled_address_is_refused_by_its_name() {
    let site = site!("pooled_names");
    site.address("postgresql://u:p@ep-cool-1-pooler.eu-central-1.aws.neon.tech/d");
    refused(
        &site,
        &[
            "is a connection pooler",
            "hint: Neon's direct host is ep-cool-1.eu-central-1.aws.neon.tech",
        ],
    );
    site.address("postgresql://postgres.abc:p@aws-0-eu.pooler.supabase.com:6543/postgres");
    refused(
        &site,
        &["is a connection pooler", "db.abc.supabase.co:5432/postgres"],
    );
}

#[test]
fn a_pooler_without_a_known_name_is_refused_by_its_behaviour() {
    let site = site!("pooled");
    let cluster = Postgres::shared();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a port")
        .port();
    let password = cluster.password("postgres");
    site.write("bouncer/users", format!("\"postgres\" \"{password}\"\n"));
    let settings = site.write(
        "bouncer/ini",
        format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = plain\nauth_file = {}\npool_mode = transaction\n",
            cluster.port(),
            site.path("bouncer/users").display()
        ),
    );
    let mut words = Vec::new();
    if rustix::process::geteuid().is_root() {
        words.extend([
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
        ]);
    }
    words.extend(["env", "PATH=/usr/sbin:/usr/bin", "pgbouncer"]);
    let bouncer = site
        .program(words[0], words[1..].iter().copied())
        .arg(settings)
        .spawn();
    let up = rg_tests::eventually(std::time::Duration::from_secs(30), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    assert!(up, "PgBouncer: {}", bouncer.stderr_so_far());
    site.address(
        &site
            .url()
            .replace(&format!(":{}/", cluster.port()), &format!(":{port}/")),
    );
    refused(
        &site,
        &[
            "is a connection pooler",
            "hint: give the server's own address",
        ],
    );
}

#[test]
fn a_table_whose_rows_are_hidden_is_named() {
    let cluster = Postgres::shared();
    cluster.role("row_reader", "LOGIN");
    let site = site!("hidden_rows");
    cluster.psql(
        "hidden_rows",
        "ALTER TABLE customers ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY own ON customers USING (name = current_user); \
         GRANT pg_read_all_data TO row_reader",
    );
    site.address(&cluster.url("hidden_rows", "row_reader"));
    refused(&site, &["customers", "hint: "]);
    cluster.psql("postgres", "ALTER ROLE row_reader BYPASSRLS");
    site.backup();
}

#[test]
fn a_table_that_the_role_may_not_read_is_named() {
    let cluster = Postgres::shared();
    cluster.role("half_reader", "LOGIN");
    let site = site!("unreadable_table");
    cluster.psql(
        "unreadable_table",
        "GRANT SELECT ON customers TO half_reader",
    );
    site.address(&cluster.url("unreadable_table", "half_reader"));
    refused(&site, &["permission denied for table", "pg_read_all_data"]);
}

#[test]
fn a_missing_database_or_role_is_said_with_what_to_do() {
    let site = site!("missing");
    let url = site.url().to_owned();
    site.address(&url.replace("/missing", "/misssing"));
    refused(
        &site,
        &[
            "database \"misssing\" does not exist",
            "hint: no database `misssing` on this server",
        ],
    );
    // A server does not tell a missing role from a wrong password.
    site.address(&url.replace("//postgres:", "//nobody_here:"));
    refused(
        &site,
        &[
            "password authentication failed for user \"nobody_here\"",
            "hint: check the password",
        ],
    );
}

#[test]
fn an_unreachable_server_is_said_with_its_address() {
    let site = site!("unreachable");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let old = format!(":{}/", Postgres::shared().port());
    site.address(&site.url().replace(&old, &format!(":{port}/")));
    drop(listener);
    refused(
        &site,
        &[&format!("127.0.0.1:{port}"), "Connection refused", "hint: "],
    );
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let site = site!("silent_server");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let old = format!(":{}/", Postgres::shared().port());
    site.address(&format!(
        "{}?connect_timeout=2",
        site.url().replace(&old, &format!(":{port}/"))
    ));
    refused(&site, &["no answer within 2 s"]);
    drop(listener);
}

#[test]
fn a_newly_made_empty_database_is_no_backup_of_the_app() {
    let url = Postgres::shared().create_database("empty_app");
    let site = site!("empty_app", &url);
    site.configure("required_tables = [\"users\", \"public.workers\"]\n");
    refused(
        &site,
        &[
            "the dump lacks required tables: users, public.workers",
            "hint: is this the right database",
        ],
    );
    Postgres::shared().psql(
        "empty_app",
        "CREATE TABLE users (); CREATE TABLE workers ()",
    );
    site.backup();
}

#[test]
fn a_database_that_lost_all_rows_is_backed_up_and_said_so() {
    let site = site!("lost_rows");
    let before = site.backup();
    Postgres::shared().psql("lost_rows", "TRUNCATE customers, \"Odd \"\"name\"\"\"");
    let output = site.try_backup().fails(1);
    let said = output.out();
    assert!(said.contains("there were 2,202 rows in "), "{output:?}");
    let words = format!("rows in {before}, now there are none");
    assert!(said.contains(&words), "{output:?}");
    assert_eq!(site.all_whole().len(), 2);
}

#[test]
fn an_address_that_is_no_address_is_refused_without_showing_it() {
    let site = site!("bad_url");
    for bad in [
        "mysql://u:s3cret-word@h/d",
        "u:s3cret-word@h/d",
        "postgresql://u:s3cret-word@/",
        "postgresql://u:s3cret word@h/d",
        "postgresql://u:s3cret-word%zz@h/d",
        "postgresql://u:s3cret-word@h:port/d",
    ] {
        site.address(bad);
        let output = site.try_backup().fails(2);
        assert!(!format!("{output:?}").contains("s3cret"), "{output:?}");
        assert!(
            output
                .out()
                .contains("the database url of environment `app`"),
            "{output:?}"
        );
    }
    assert_eq!(site.stored(), [""; 0]);
}

#[test]
fn the_globals_of_a_managed_server_come_without_passwords_and_say_so() {
    let cluster = Postgres::shared();
    cluster.role("managed_owner", "LOGIN");
    let url = cluster.create_database_of("managed", "managed_owner");
    let site = site!("managed", &url);
    let output = site.rg_backup(&["run", "globals"]).ok();
    assert!(
        output.out().contains("note: without passwords: "),
        "{output:?}"
    );
    let manifest = site.manifest();
    assert_eq!(manifest["content"]["passwords"], false, "{manifest:#}");
}
