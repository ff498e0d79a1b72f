//! Where PostgreSQL's own programs run: on this machine, or in the server's container.
//!
//! The promise: `pg_dump` is never older than the server, nothing secret stands in a program's
//! arguments, and no `PG…` variable of ours slips into its environment. The address travels in
//! libpq's variables; in a container only role, password and database do, because there the
//! server is the container's own.

mod installed;

use std::fmt;

use installed::{read_version, too_old};

use super::connect::{ServerVersion, Session};
use super::tls;
use super::url::{DatabaseUrl, Host};
use crate::failure::{Failure, Result};
use crate::program::Program;
use crate::secret::Secret;

/// What `pg_dump --version` and one small answer of `psql` may print.
const ANSWER_BYTES: usize = 64 * 1024;

/// libpq's variables, from the chapter "Environment Variables" of its manual. What is not set by us is
/// taken away, so that a backup does not depend on the shell that started it.
const LIBPQ_VARIABLES: &[&str] = &[
    "PGHOST",
    "PGSSLNEGOTIATION",
    "PGHOSTADDR",
    "PGPORT",
    "PGDATABASE",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGOPTIONS",
    "PGAPPNAME",
    "PGSSLMODE",
    "PGREQUIRESSL",
    "PGSSLCOMPRESSION",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGSSLCERTMODE",
    "PGSSLROOTCERT",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGREQUIREPEER",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGGSSENCMODE",
    "PGKRBSRVNAME",
    "PGGSSLIB",
    "PGGSSDELEGATION",
    "PGCONNECT_TIMEOUT",
    "PGCLIENTENCODING",
    "PGTARGETSESSIONATTRS",
    "PGLOADBALANCEHOSTS",
    "PGMINPROTOCOLVERSION",
    "PGMAXPROTOCOLVERSION",
    "PGDATESTYLE",
    "PGTZ",
    "PGGEQO",
    "PGSYSCONFDIR",
    "PGLOCALEDIR",
    "PGSSLKEYLOGFILE",
    "PGOAUTHDEBUG",
    "PG_COLOR",
    "PSQLRC",
    "PSQL_PAGER",
    "PAGER",
];

/// How the values in a dump are written: independent of the server's, the role's and the
/// database's settings, so that two dumps of the same rows are the same text.
const OPTIONS: &str =
    "-c bytea_output=hex -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0";
/// `idle_session_timeout` came with 14.
const OPTIONS_BEFORE_14: &str = "-c bytea_output=hex -c statement_timeout=0 -c lock_timeout=0";

/// Where `pg_dump`, `pg_restore`, `pg_dumpall` and `psql` run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this machine, with the URL's host and port.
    Local,
    /// In a running container, with the server in it.
    Container {
        /// `docker` or `podman`.
        engine: Engine,
        /// The container's name.
        name: String,
    },
}

/// A program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    fn word(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
        }
    }
}

impl Place {
    /// Reads `local`, `docker:NAME` or `podman:NAME`.
    pub fn parse(text: &str) -> Result<Place> {
        let engine = match text.split_once(':') {
            None if text == "local" => return Ok(Place::Local),
            Some(("docker", name)) => Some((Engine::Docker, name)),
            Some(("podman", name)) => Some((Engine::Podman, name)),
            _ => None,
        };
        let good = |name: &str| {
            let mut characters = name.chars();
            // Docker's own rule for names.
            characters.next().is_some_and(|c| c.is_ascii_alphanumeric())
                && characters.all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        match engine {
            Some((engine, name)) if good(name) => Ok(Place::Container {
                engine,
                name: name.to_owned(),
            }),
            _ => Err(Failure::new(format!(
                "`{text}` is no place where PostgreSQL's programs run"
            ))
            .hint("one of local, docker:CONTAINER, podman:CONTAINER")),
        }
    }

    /// One of PostgreSQL's programs, of a version fit for the server, with the address in its
    /// environment. `pg_restore` and `psql` still want `--dbname` with the (unsecret) name.
    pub fn program(&self, name: &str, url: &DatabaseUrl, server: ServerVersion) -> Result<Program> {
        match self {
            Place::Local => {
                let path = installed::path(name, server)?;
                Ok(with_address(Program::new(path), url, server))
            }
            Place::Container {
                engine,
                name: container,
            } => {
                fit_for_container(engine.word(), container, name, server)?;
                Ok(in_container(engine.word(), container, name, url, server))
            }
        }
    }

    /// Makes sure that the programs here reach the same server as the URL does from this machine:
    /// a container's name and a URL of two environments are easily mixed.
    pub fn same_server(&self, session: &Session) -> Result<()> {
        let Place::Container { engine, name } = self else {
            return Ok(());
        };
        same_server_in(engine.word(), name, session)
    }
}

fn same_server_in(engine: &str, container: &str, session: &Session) -> Result<()> {
    const IDENTITY: &str = "SELECT system_identifier::text FROM pg_control_system()";
    let expected: String = session.value(IDENTITY, &[])?;
    let found = in_container(engine, container, "psql", session.url(), session.version())
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command"])
        .arg(IDENTITY)
        .output(ANSWER_BYTES)
        .map_err(|failure| container_trouble(engine, container, "psql", failure))?;
    if String::from_utf8_lossy(&found).trim() == expected {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the server in the container {container} is another one than that of {}",
        session.url()
    ))
    .hint("`via` names a container of another environment, or the URL's port belongs to another container"))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Local => f.write_str("local"),
            Place::Container { engine, name } => write!(f, "{}:{name}", engine.word()),
        }
    }
}

fn clean(program: Program) -> Program {
    LIBPQ_VARIABLES
        .iter()
        .fold(program, |program, name| program.without_env(*name))
}

/// What every place needs to know: who, which database, how values are written.
fn common(url: &DatabaseUrl, server: ServerVersion) -> Vec<(&'static str, Secret)> {
    let options = if server.major() < 14 {
        OPTIONS_BEFORE_14
    } else {
        OPTIONS
    };
    let options = match &url.options {
        Some(own) => format!("{own} {options}"),
        None => options.to_owned(),
    };
    let mut pairs = vec![
        ("PGUSER", Secret::new(&url.user)),
        ("PGDATABASE", Secret::new(&url.database)),
        ("PGOPTIONS", Secret::new(options)),
        ("PGTZ", Secret::new("UTC")),
        ("PGDATESTYLE", Secret::new("ISO, YMD")),
        ("PGAPPNAME", Secret::new("rg")),
        (
            "PGCONNECT_TIMEOUT",
            Secret::new(url.connect_timeout.as_secs().max(2).to_string()),
        ),
        ("LC_ALL", Secret::new("C")),
    ];
    if let Some(password) = &url.password {
        pairs.push(("PGPASSWORD", password.clone()));
    }
    pairs
}

fn with_address(program: Program, url: &DatabaseUrl, server: ServerVersion) -> Program {
    let host = match &url.host {
        Host::Tcp(host) => host,
        Host::Socket(directory) => directory,
    };
    let mut pairs = common(url, server);
    pairs.push(("PGHOST", Secret::new(host)));
    pairs.push(("PGPORT", Secret::new(url.port.to_string())));
    pairs.push(("PGSSLMODE", Secret::new(url.tls.word())));
    if let Some(path) = tls::root_file(url) {
        pairs.push(("PGSSLROOTCERT", Secret::new(path.to_string_lossy())));
    }
    pairs
        .into_iter()
        .fold(clean(program), |program, (name, value)| {
            program.env(name, value)
        })
}

/// `docker exec -i -e PGUSER … NAME pg_dump`: names of variables only, the values go through the
/// engine's environment.
fn in_container(
    engine: &str,
    container: &str,
    name: &str,
    url: &DatabaseUrl,
    server: ServerVersion,
) -> Program {
    let pairs = common(url, server);
    let mut program = clean(Program::new(engine)).args(["exec", "-i"]);
    for (variable, value) in pairs {
        program = program.arg("-e").arg(variable).env(variable, value);
    }
    program.arg(container).arg(name)
}

fn fit_for_container(
    engine: &str,
    container: &str,
    name: &str,
    server: ServerVersion,
) -> Result<()> {
    let answer = Program::new(engine)
        .args(["exec", container, name, "--version"])
        .output(ANSWER_BYTES)
        .map_err(|failure| container_trouble(engine, container, name, failure))?;
    let version = read_version(name, &answer)?;
    if version.major() < server.major() {
        let at = format!(" in the container {container}");
        return Err(too_old(name, version, server, &at));
    }
    Ok(())
}

/// What docker or podman said, with its remedy.
fn container_trouble(engine: &str, container: &str, name: &str, failure: Failure) -> Failure {
    let said = failure.to_string().to_ascii_lowercase();
    let engine = engine.rsplit('/').next().unwrap_or(engine);
    let failure = failure.context(format!("cannot run {name} in the container {container}"));
    if said.contains("is not running") || said.contains("container state improper") {
        return failure.hint(format!("start it: {engine} start {container}"));
    }
    if said.contains("no such container") || said.contains("no container with name") {
        return failure.hint(format!(
            "`{engine} ps` lists the running ones; `via` wants a name of its last column"
        ));
    }
    if said.contains("permission denied") && said.contains("sock") {
        return failure.hint(format!(
            "this user may not use {engine}: add it to the group `docker`, or run as root"
        ));
    }
    if said.contains("cannot connect to the docker daemon") {
        return failure.hint("start it: systemctl start docker");
    }
    if said.contains("executable file not found") {
        return failure.hint(format!("the container has no {name}: is it PostgreSQL's?"));
    }
    failure
}

#[cfg(test)]
mod tests;
