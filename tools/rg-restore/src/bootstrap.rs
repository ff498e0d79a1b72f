//! The first steps on a server that knows nobody yet: a new machine, a cluster as the distribution
//! made it, and no role that any URL in the configuration could log in as.
//!
//! Whoever owns the server's socket is its superuser by `peer` authentication, and root may act as
//! that user. So, and only so: where a role of the configuration cannot log in because it does not
//! exist, the server is on this machine, and we are root or the socket's owner, the roles of the
//! globals are made through the socket. Each role that a configured URL logs in as gets that URL's
//! password, whatever the backup knew; and where it may not create databases, its database is made.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use postgres_protocol::password::scram_sha_256;
use rg_common::config::{Config, DatasetKind};
use rg_common::dataset;
use rg_common::postgres::create::{identifier, literal};
use rg_common::postgres::{DatabaseUrl, Place};
use rg_common::program::Program;
use rg_common::{Failure, Result};

use crate::database::on_this_machine;

/// Where servers have their sockets: Debian's packages, and PostgreSQL's own default.
const SOCKET_FOLDERS: &[&str] = &["/var/run/postgresql", "/tmp"];
/// The superuser that `initdb` makes on all distributions.
const SUPERUSER: &str = "postgres";
/// More than this is no list of roles or databases.
const ANSWER_BYTES: usize = 4 << 20;

/// What was made.
pub struct Made {
    /// Roles, by name.
    pub roles: Vec<String>,
    /// Databases, by name.
    pub databases: Vec<String>,
}

/// A server that can be reached through its socket as its superuser.
pub struct Socket {
    folder: PathBuf,
    port: u16,
    /// The socket's owner, to act as; none when that is us.
    owner: Option<(u32, u32)>,
}

impl Socket {
    /// The way to the server of a URL whose role is not there; none where there is no such way, or
    /// where the role exists and the refusal had another reason.
    pub fn find(url: &DatabaseUrl, place: &Place) -> Option<Socket> {
        if *place != Place::Local || !on_this_machine(url) {
            return None;
        }
        let uid = rustix::process::geteuid().as_raw();
        let socket = SOCKET_FOLDERS.iter().find_map(|folder| {
            let meta =
                fs::metadata(Path::new(folder).join(format!(".s.PGSQL.{}", url.port))).ok()?;
            let owner = (meta.uid() != uid).then_some((meta.uid(), meta.gid()));
            (uid == 0 || owner.is_none()).then(|| Socket {
                folder: folder.into(),
                port: url.port,
                owner,
            })
        })?;
        let there = socket.list("SELECT rolname FROM pg_roles").ok()?;
        (!there.contains(&url.user)).then_some(socket)
    }

    /// Makes what is missing. `globals` gives the dump's text without the roles that are there.
    pub fn populate(
        &self,
        config: &Config,
        globals: impl FnOnce(&BTreeSet<String>) -> String,
    ) -> Result<Made> {
        let before = self.list("SELECT rolname FROM pg_roles")?;
        let mut script = String::from(
            "BEGIN;\nSET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; \
             SET LOCAL log_min_duration_statement = -1;\n",
        );
        script.push_str(&globals(&before));
        let urls = self.urls(config);
        let mut asked = BTreeSet::new();
        for url in urls.iter().filter(|url| !before.contains(&url.user)) {
            if !asked.insert(&url.user) {
                continue;
            }
            let (name, role) = (literal(&url.user), identifier(&url.user));
            script.push_str(&format!(
                "SELECT 'CREATE ROLE ' || quote_ident({name}) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) \\gexec\n"
            ));
            script.push_str(&format!("ALTER ROLE {role} LOGIN"));
            if let Some(password) = &url.password {
                let verifier = scram_sha_256(password.reveal().as_bytes());
                script.push_str(&format!(" PASSWORD {}", literal(&verifier)));
            }
            script.push_str(";\n");
        }
        script.push_str("COMMIT;\n");
        // Outside of the transaction: databases cannot be made within one.
        let databases = self.list("SELECT datname FROM pg_database")?;
        let mut made = Vec::new();
        for url in urls.iter().filter(|url| !databases.contains(&url.database)) {
            if made.contains(&url.database) {
                continue;
            }
            let (name, role) = (literal(&url.database), literal(&url.user));
            // A role that may make databases restores into one with the recorded encoding.
            script.push_str(&format!(
                "SELECT 'CREATE DATABASE ' || quote_ident({name}) || ' TEMPLATE template0 ENCODING ''UTF8'' OWNER ' || quote_ident({role}) \
                 FROM pg_roles WHERE rolname = {role} AND NOT rolsuper AND NOT rolcreatedb \\gexec\n"
            ));
            made.push(url.database.clone());
        }
        self.run(&script)?;
        let roles = self.list("SELECT rolname FROM pg_roles")?;
        let there = self.list("SELECT datname FROM pg_database")?;
        made.retain(|name| there.contains(name));
        Ok(Made {
            roles: roles.difference(&before).cloned().collect(),
            databases: made,
        })
    }

    /// The URLs of all configured databases of this server.
    fn urls(&self, config: &Config) -> Vec<DatabaseUrl> {
        let url = |dataset: &rg_common::config::DatasetConfig| match &dataset.kind {
            DatasetKind::Database(database) => {
                dataset::database::url(config, &dataset.environment, database).ok()
            }
            _ => None,
        };
        let here = |url: &DatabaseUrl| on_this_machine(url) && url.port == self.port;
        config
            .datasets
            .iter()
            .filter_map(url)
            .filter(here)
            .collect()
    }

    fn list(&self, query: &str) -> Result<BTreeSet<String>> {
        let program = self
            .psql()
            .args(["--tuples-only", "--no-align", "--command"])
            .arg(query);
        let answer = program.output(ANSWER_BYTES)?;
        let text = String::from_utf8(answer)
            .map_err(|_| Failure::new("the server's names are not UTF-8"))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn run(&self, script: &str) -> Result<()> {
        let program = self
            .psql()
            .args(["--quiet", "--output=/dev/null", "--file=-"]);
        let mut writer = program.writer()?;
        writer
            .write_all(script.as_bytes())
            .map_err(|error| Failure::from_io("cannot run the globals", error))?;
        writer.finish()
    }

    fn psql(&self) -> Program {
        let program = match self.owner {
            None => Program::new("psql"),
            Some((uid, gid)) => Program::new("setpriv")
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"))
                .args(["--clear-groups", "--", "psql"]),
        };
        program
            .args(["--no-psqlrc", "--no-password", "--set=ON_ERROR_STOP=1"])
            .arg(format!("--host={}", self.folder.display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--username={SUPERUSER}"))
            .arg("--dbname=postgres")
    }
}
