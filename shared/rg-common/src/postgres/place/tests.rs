use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::installed::{Found, fit};
use super::*;
use crate::postgres::cluster::cluster;

fn found(versions: &[u32]) -> Vec<Found> {
    let found = |version: &u32| Found {
        path: format!("/{version}").into(),
        version: ServerVersion(*version),
    };
    versions.iter().map(found).collect()
}

#[test]
fn a_pg_dump_older_than_the_server_is_refused() {
    let failure = fit(
        &found(&[130_009, 150_018]),
        "pg_dump",
        ServerVersion(170_002),
    );
    let failure = failure.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "pg_dump 15.18 is older than the server (17.2)"
    );
    assert_eq!(
        failure.hints(),
        [
            "install postgresql-client-17, or run pg_dump in the server's container: via = \"docker:NAME\""
        ]
    );
}

#[test]
fn the_servers_own_major_is_preferred_to_a_newer_one() {
    let choose =
        |versions: &[u32]| fit(&found(versions), "pg_dump", ServerVersion(150_004)).unwrap();
    assert_eq!(choose(&[140_000, 150_018, 170_002]), Path::new("/150018"));
    assert_eq!(choose(&[140_000, 160_001, 170_002]), Path::new("/170002"));
}

#[test]
fn versions_are_read() {
    let read = |text: &str| read_version("pg_dump", text.as_bytes()).map(|v| v.0).ok();
    assert_eq!(
        read("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
        Some(150_018)
    );
    assert_eq!(read("pg_dump (PostgreSQL) 18beta1\n"), Some(180_000));
    assert_eq!(read("busybox 1.36\n"), None);
}

#[test]
fn places_are_read_and_nonsense_is_refused() {
    assert_eq!(Place::parse("local").unwrap(), Place::Local);
    for text in ["docker:postgres-production", "podman:db_1.x"] {
        assert_eq!(Place::parse(text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "docker:",
        "docker:-x",
        "docker:a b",
        "ssh:host",
        "docker",
    ] {
        let failure = Place::parse(text).unwrap_err();
        assert_eq!(
            failure.hints(),
            ["one of local, docker:CONTAINER, podman:CONTAINER"],
            "{text}"
        );
    }
}

#[test]
fn pg_dump_reaches_the_server_by_its_environment_alone() {
    let cluster = cluster();
    let name = cluster.database("place", "CREATE TABLE marker (id int)");
    let session = cluster.session(&name);
    for rest in [
        format!("127.0.0.1:{}/{name}?sslmode=disable", cluster.port),
        format!(
            "localhost:{}/{name}?sslmode=verify-full&sslrootcert={}/ca.pem",
            cluster.port,
            cluster.directory.display()
        ),
        format!(
            "/{name}?host={}&port={}",
            cluster.directory.display(),
            cluster.port
        ),
    ] {
        let url = cluster.address(&format!("postgresql://postgres:super@{rest}"));
        let program = Place::Local
            .program("pg_dump", &url, session.version())
            .unwrap();
        let text = program.arg("--schema-only").output(1 << 20).unwrap();
        assert!(String::from_utf8_lossy(&text).contains("CREATE TABLE public.marker"));
    }
}

/// A stand-in for docker, in a directory of its own.
struct FakeDocker(PathBuf);

impl FakeDocker {
    fn new(name: &str, script: &str) -> FakeDocker {
        let directory =
            std::env::temp_dir().join(format!("rg-docker-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("docker");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        FakeDocker(directory)
    }

    fn path(&self) -> String {
        self.0.join("docker").to_string_lossy().into_owned()
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn a_container_gets_secrets_by_name_only() {
    let docker = FakeDocker::new("env", "echo \"$@\"; echo \"$PGPASSWORD $PGHOST $PGUSER\"");
    let url = DatabaseUrl::parse("postgresql://app:s3cret@127.0.0.1:5433/app").unwrap();
    let program = in_container(
        &docker.path(),
        "db",
        "pg_dump",
        &url,
        ServerVersion(150_000),
    );
    let said = String::from_utf8(program.output(10_000).unwrap()).unwrap();
    assert_eq!(
        said,
        "exec -i -e PGUSER -e PGDATABASE -e PGOPTIONS -e PGTZ -e PGDATESTYLE -e PGAPPNAME -e PGCONNECT_TIMEOUT -e LC_ALL -e PGPASSWORD db pg_dump\ns3cret  app\n"
    );
}

#[test]
fn what_docker_refuses_has_its_remedy() {
    for (name, says, hint) in [
        (
            "stopped",
            "Error response from daemon: container 4f is not running",
            "docker start db",
        ),
        (
            "none",
            "Error response from daemon: No such container: db",
            "docker ps",
        ),
        (
            "socket",
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "add it to the group `docker`",
        ),
        (
            "daemon",
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "systemctl start docker",
        ),
        (
            "program",
            "OCI runtime exec failed: exec: \"pg_dump\": executable file not found in $PATH",
            "is it PostgreSQL's?",
        ),
    ] {
        let docker = FakeDocker::new(name, &format!("echo '{says}' >&2; exit 1"));
        let failure =
            fit_for_container(&docker.path(), "db", "pg_dump", ServerVersion(150_000)).unwrap_err();
        assert!(failure.to_string().contains(says), "{failure}");
        let hints = failure.hints().join(" | ");
        assert!(hints.contains(hint), "{hints}");
    }
    let missing = fit_for_container("/no/docker", "db", "pg_dump", ServerVersion(150_000));
    let missing = missing.unwrap_err();
    assert_eq!(missing.hints(), ["is /no/docker installed and on PATH?"]);
}

#[test]
fn a_containers_old_pg_dump_is_refused() {
    let docker = FakeDocker::new("old", "echo 'pg_dump (PostgreSQL) 14.1'");
    let failure =
        fit_for_container(&docker.path(), "db", "pg_dump", ServerVersion(150_004)).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "pg_dump 14.1 in the container db is older than the server (15.4)"
    );
}

#[test]
fn a_container_of_another_environment_is_noticed() {
    let session = cluster().session("postgres");
    let identity: String = session
        .value(
            "SELECT system_identifier::text FROM pg_control_system()",
            &[],
        )
        .unwrap();
    let right = FakeDocker::new("right", &format!("echo {identity}"));
    same_server_in(&right.path(), "db", &session).unwrap();
    let wrong = FakeDocker::new("wrong", "echo 7");
    let failure = same_server_in(&wrong.path(), "db", &session).unwrap_err();
    assert!(
        failure.to_string().starts_with(
            "the server in the container db is another one than that of postgresql://postgres:***@"
        ),
        "{failure}"
    );
}
