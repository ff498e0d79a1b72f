//! Whether a database is there already, before a password is made up for it.
//!
//! A container reads `POSTGRES_PASSWORD` only when its volume is new, and a server never reads an
//! env file at all: a fresh password in a file alone locks the app out. So the volume, the data
//! directory and the server itself are looked at; what cannot be told counts as being there.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use rg_common::postgres::create::literal;
use rg_common::program::Program;

use crate::derive::Target;
use crate::schema::Environment;

/// How long a server may take to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Where Debian's PostgreSQL has its sockets.
const SOCKETS: &str = "/var/run/postgresql";

/// What every reason ends with: the ways out.
const WAYS_OUT: &str =
    "give the password it has (--set-from), or --new-database-password and set it there too";

/// Why no password may be made up, if so.
pub fn reason(environment: &Environment, target: &Target) -> Option<String> {
    let found = environment
        .database_volume
        .as_deref()
        .and_then(volume)
        .or_else(|| {
            environment
                .database_directory
                .as_deref()
                .and_then(directory)
        })
        .or_else(|| server(target));
    found.map(|found| format!("{found}: {WAYS_OUT}"))
}

fn volume(name: &str) -> Option<String> {
    let there = format!("the database exists already in the docker volume {name}");
    let asked = Program::new("docker").args(["volume", "ls", "--quiet", "--filter"]);
    match asked.arg(format!("name=^{name}$")).output(1 << 20) {
        Ok(said) => {
            let said = String::from_utf8_lossy(&said).into_owned();
            said.lines().any(|line| line == name).then_some(there)
        }
        // No docker, or one that does not run: its volumes are directories.
        Err(failure) => {
            let volumes = Path::new("/var/lib/docker/volumes");
            match volumes.join(name).try_exists() {
                Ok(true) => Some(there),
                Ok(false) => None,
                Err(_) => Some(format!(
                    "it cannot be told whether the docker volume {name} exists ({failure})"
                )),
            }
        }
    }
}

fn directory(path: &Path) -> Option<String> {
    let there = path.join("PG_VERSION").exists();
    there.then(|| format!("a database lies in {}", path.display()))
}

/// A server that answers is asked for the role, as its own superuser; one that cannot be asked may
/// have it.
fn server(target: &Target) -> Option<String> {
    let port: u16 = target.port.parse().ok()?;
    let mut addresses = (target.host.as_str(), port).to_socket_addrs().ok()?;
    let answers =
        addresses.any(|address| TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok());
    if !answers {
        return None;
    }
    let place = format!("{}:{}", target.host, target.port);
    match role_exists(target) {
        Some(false) => None,
        Some(true) => Some(format!(
            "the role {} exists on the server at {place}",
            target.user
        )),
        None => Some(format!(
            "a server answers at {place}, and it cannot be told whether it has the role {}",
            target.user
        )),
    }
}

fn role_exists(target: &Target) -> Option<bool> {
    let (role, database) = (literal(&target.user), literal(&target.database));
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = {role}) OR EXISTS (SELECT FROM pg_database WHERE datname = {database})"
    );
    let psql = [
        "psql",
        "-XAtqw",
        "-h",
        SOCKETS,
        "-p",
        &target.port,
        "-U",
        "postgres",
        "-d",
        "postgres",
        "-c",
        &sql,
    ];
    let program = if rustix::process::geteuid().is_root() {
        Program::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
            .args(psql)
    } else {
        Program::new("psql").args(&psql[1..])
    };
    let program = program.env("PGCONNECT_TIMEOUT", rg_common::secret::Secret::new("2"));
    let said = program.output(1 << 10).ok()?;
    match String::from_utf8_lossy(&said).trim() {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_asked_may_have_the_role() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target {
            user: "app".to_owned(),
            host: "127.0.0.1".to_owned(),
            port: port.to_string(),
            database: "app".to_owned(),
        };
        let said = server(&target).unwrap();
        assert!(
            said.contains("cannot be told whether it has the role app"),
            "{said}"
        );
        drop(listener);
        assert_eq!(server(&target), None);
    }

    #[test]
    fn a_data_directory_is_a_database() {
        let path = std::env::temp_dir().join(format!("rg-exists-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(directory(&path), None);
        std::fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        assert!(directory(&path).is_some());
        std::fs::remove_dir_all(&path).unwrap();
    }
}
