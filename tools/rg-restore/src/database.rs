//! A database restored beside the live one, and proven to be what the backup recorded.

mod indexes;
mod programs;
mod rows;

use std::path::Path;

use rg_common::ahead::Ahead;
use rg_common::catalog::Content;
use rg_common::catalog::manifest::DatabaseContent;
use rg_common::cli::Context;
use rg_common::config::{Config, DatabaseConfig};
use rg_common::dataset;
use rg_common::dump::DumpFormat;
use rg_common::postgres::compare::Comparison;
use rg_common::postgres::connect::ServerVersion;
use rg_common::postgres::create;
use rg_common::postgres::exchange;
use rg_common::postgres::facts::{self, DatabaseSettings, DatabaseShape};
use rg_common::postgres::scratch::{self as databases, Purpose};
use rg_common::postgres::url::Host;
use rg_common::postgres::{Connector, DatabaseUrl, Place, Session};
use rg_common::seal::{Identities, read_piece};
use rg_common::stop;
use rg_common::store::free_bytes;
use rg_common::{Failure, Result};

use crate::args::Reading;
use crate::proof;
use crate::source::{Checked, Source};
use indexes::Indexes;
use programs::Parts;
use rows::NotLoaded;

/// A restored database takes up to this many times its dump (indexes, page headers), in percent.
const GROWTH_PERCENT: u64 = 200;
/// What a load says when not the backup is to blame but where it is loaded: the machine, the
/// server, or the role's rights. A sound backup must not be recorded as bad for it.
const WORLD: &[&str] = &[
    "No space left",
    "could not connect",
    "connection to server",
    "server closed the connection",
    "connection closed",
    "communicating with the server",
    "had no answer within",
    "cannot connect to",
    "terminating connection",
    "cannot start",
    "out of memory",
    "was killed by signal",
    "permission denied",
    "must be owner of",
    "must be superuser",
    "must be member of",
    "must be able to SET ROLE",
    "canceling statement",
    "unsupported version",
    "is not available",
    "could not open extension control file",
    "could not access file",
    // Said while reading bytes that are sound when they are read again.
    "is damaged or cannot be read",
];
/// A server that a database is restored on.
pub struct Server<'a> {
    /// What enters from outside.
    pub context: &'a Context,
    /// The configuration.
    pub config: &'a Config,
    /// The live database's address.
    pub url: DatabaseUrl,
    /// Where PostgreSQL's programs run.
    pub place: Place,
    /// A session with the maintenance database.
    pub admin: Session,
    /// The way to other sessions.
    pub connector: Connector,
}

impl<'a> Server<'a> {
    /// Connects to the server of an environment's database, which itself may be lost.
    pub fn open(
        context: &'a Context,
        config: &'a Config,
        environment: &str,
        database: &DatabaseConfig,
    ) -> Result<Server<'a>> {
        let url = dataset::database::url(config, environment, database)?;
        let connector = Connector::new(context.network.clone(), "rg-restore");
        let admin = exchange::maintenance(&connector, &url)?;
        let place = Place::parse(&database.via)?;
        place.same_server(&admin)?;
        Ok(Server {
            context,
            config,
            url,
            place,
            admin,
            connector,
        })
    }

    /// The live database's name.
    pub fn live(&self) -> &str {
        &self.url.database
    }

    /// Whether the live database is there.
    pub fn live_exists(&self) -> Result<bool> {
        facts::exists(&self.admin, self.live())
    }

    /// A database's oid, if it exists: what a name means after a crash.
    pub fn oid(&self, name: &str) -> Result<Option<u32>> {
        let rows = self
            .admin
            .rows("SELECT oid FROM pg_database WHERE datname = $1", &[&name])?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// Drops what killed restores and drills of this database left.
    pub fn sweep(&self) -> Result<()> {
        for left in databases::list_scratch(&self.admin, self.live())? {
            if left.purpose != Purpose::Before {
                tracing::info!("dropping database {}, left by a killed command", left.name);
                create::drop_database(&self.admin, &left.name, true)?;
            }
        }
        Ok(())
    }
}

/// The database's content in a manifest.
pub fn content(source: &Source) -> Result<&DatabaseContent> {
    match &source.manifest.content {
        Content::Database(content) => Ok(content),
        other => Err(Failure::new(format!(
            "{} holds {}, not a database",
            source.name(),
            other.kind()
        ))),
    }
}

/// What can be known before a byte is read: versions, extensions, roles, free space.
pub fn check(server: &Server<'_>, source: &Source, reading: &Reading) -> Result<()> {
    let content = content(source)?;
    let inventory = &content.inventory;
    if let Some(dumped) = version_of(&inventory.server_version) {
        facts::refuse_older_target(dumped, server.admin.version())?;
    }
    let available = facts::available_extensions(&server.admin)?;
    let missing: Vec<&str> = inventory
        .extensions
        .iter()
        .map(String::as_str)
        .filter(|name| available.iter().all(|a| a.name != *name))
        .collect();
    if let Some(first) = missing.first() {
        let major = server.admin.version().major();
        let package = if *first == "vector" {
            "pgvector"
        } else {
            first
        };
        return Err(Failure::new(format!(
            "the server lacks extensions that the backup needs: {}",
            missing.join(", ")
        ))
        .hint(format!(
            "install them, such as apt-get install postgresql-{major}-{package}"
        )));
    }
    if !reading.no_owner {
        let roles = facts::roles(&server.admin)?;
        let missing: Vec<&str> = inventory
            .roles
            .iter()
            .map(String::as_str)
            .filter(|role| !roles.iter().any(|r| r == role))
            .collect();
        if !missing.is_empty() {
            return Err(Failure::new(format!("the server lacks roles that the backup needs: {}", missing.join(", ")))
                .hint("`rg-restore run globals` makes them; --no-owner restores without owners and grants"));
        }
    }
    check_space(server, source)
}

fn check_space(server: &Server<'_>, source: &Source) -> Result<()> {
    let Some(folder) = local_data_directory(server)? else {
        tracing::info!("the server's free space cannot be seen from here");
        return Ok(());
    };
    let estimate = source.manifest.plain.bytes.saturating_mul(GROWTH_PERCENT) / 100;
    let needed = if server.live_exists()? {
        facts::size_bytes(&server.admin, server.live())?.min(estimate)
    } else {
        estimate
    };
    match free_bytes(Path::new(&folder)) {
        Some(free) if free < needed => Err(Failure::new(format!(
            "too little space in {folder}: the restored database needs about {}, {} are free",
            rg_common::report::bytes(needed),
            rg_common::report::bytes(free)
        ))
        .hint("the live database stays until the restored one is proven, so both must fit; nothing was changed")),
        _ => Ok(()),
    }
}

fn local_data_directory(server: &Server<'_>) -> Result<Option<String>> {
    if server.place != Place::Local || !on_this_machine(&server.url) {
        return Ok(None);
    }
    let folder = facts::data_directory(&server.admin)?;
    Ok(folder.filter(|folder| Path::new(folder).exists()))
}

/// Whether a server is reached without leaving this machine.
pub fn on_this_machine(url: &DatabaseUrl) -> bool {
    match &url.host {
        Host::Tcp(host) => host == "localhost" || host == "::1" || host.starts_with("127."),
        Host::Socket(_) => true,
    }
}

/// `15.18 (Debian …)` as a number.
fn version_of(text: &str) -> Option<ServerVersion> {
    let mut parts = text.split_whitespace().next()?.split('.');
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts
        .next()
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0);
    Some(ServerVersion(major * 10_000 + minor))
}

/// Why a restored database is not what was backed up, or could not be made.
pub enum Trouble {
    /// The backup is bad: damaged, not loadable, or other rows than recorded.
    Bad(Failure),
    /// It could not be told.
    Unknown(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Unknown(failure)
    }
}

impl Trouble {
    /// The failure itself, for those who do not care which it was.
    pub fn into_failure(self) -> Failure {
        match self {
            Trouble::Bad(failure) | Trouble::Unknown(failure) => failure,
        }
    }
}

/// Makes database `name`, loads the backup into it and compares its content. On any failure the
/// database is dropped again.
pub fn load(
    server: &Server<'_>,
    source: &Source,
    name: &str,
    reading: &Reading,
    identities: Option<&Identities>,
) -> Result<(), Trouble> {
    let content = content(source)?;
    source
        .open(server.context, server.config, identities)
        .map_err(|failure| source.blame(server.config, failure))?;
    let shape = shape(server, content)?;
    create::create_database(&server.admin, name, &shape)?;
    let loaded = fill(server, source, content, name, reading, identities);
    if loaded.is_err()
        && let Err(failure) = create::drop_database(&server.admin, name, true)
    {
        tracing::warn!("{failure}; the next command drops it");
    }
    loaded
}

fn fill(
    server: &Server<'_>,
    source: &Source,
    content: &DatabaseContent,
    name: &str,
    reading: &Reading,
    identities: Option<&Identities>,
) -> Result<(), Trouble> {
    let load = Load {
        server,
        source,
        content,
        name,
        reading,
        identities,
        jobs: jobs(reading),
    };
    let (rest, comparison) = load.rows()?;
    // What was not read back yet is while indexes and constraints are made.
    let mut comparison = match comparison {
        Some(comparison) => Some(comparison),
        None => proof::begin(server, content, name, load.jobs)?,
    };
    if let Some(comparison) = &mut comparison {
        comparison.all_loaded();
    }
    let finished = rest.map_or(Ok(()), Rest::finish);
    finished.map_err(|failure| blame(server, source, failure))?;
    let differences = comparison.map_or(Ok(Vec::new()), Comparison::finish);
    let mut said: Vec<String> = differences?.iter().map(ToString::to_string).collect();
    said.extend(proof::missing_objects(server, content, name)?);
    if said.is_empty() {
        return Ok(());
    }
    Err(Trouble::Bad(proof::describe(source, &said)))
}

/// What is left to do when the rows are there: indexes, constraints, triggers.
enum Rest {
    /// All of it.
    Parts(Parts),
    /// What was not made while rows were loaded.
    Indexes(Indexes),
}

impl Rest {
    fn finish(self) -> Result<()> {
        match self {
            Rest::Parts(parts) => parts.run(&["post-data"]),
            Rest::Indexes(indexes) => indexes.finish(),
        }
    }
}

/// What is loaded, and into what.
struct Load<'a> {
    server: &'a Server<'a>,
    source: &'a Source,
    content: &'a DatabaseContent,
    /// The new, empty database.
    name: &'a str,
    reading: &'a Reading,
    identities: Option<&'a Identities>,
    jobs: usize,
}

impl<'a> Load<'a> {
    /// The plain dump from its beginning.
    fn open(&self) -> Result<Ahead<Checked>> {
        let server = self.server;
        let plain = self
            .source
            .open(server.context, server.config, self.identities)?;
        Ahead::new(plain, read_piece)
    }

    /// The new database's address.
    fn url(&self) -> DatabaseUrl {
        self.server.url.with_database(self.name)
    }

    /// Everything up to the rows, and a comparison if one is under way.
    fn rows(&self) -> Result<(Option<Rest>, Option<Comparison<'a>>), Trouble> {
        let tell = |failure| blame(self.server, self.source, failure);
        if self.content.inventory.format == DumpFormat::Plain {
            return programs::load_script(self)
                .map(|()| (None, None))
                .map_err(tell);
        }
        match rows::load(self) {
            Ok(loaded) => return Ok((Some(Rest::Indexes(loaded.rest)), loaded.comparison)),
            Err(NotLoaded::Failed(failure)) => return Err(tell(failure)),
            Err(NotLoaded::Unknown(failure)) => return Err(Trouble::Unknown(failure)),
            Err(NotLoaded::Unusual { why, begun }) => {
                tracing::debug!("{why}: pg_restore loads the rows");
                if begun {
                    create::drop_database(&self.server.admin, self.name, true)?;
                    let shape = shape(self.server, self.content)?;
                    create::create_database(&self.server.admin, self.name, &shape)?;
                }
            }
        }
        let rest = programs::load_archive(self).map_err(tell)?;
        Ok((rest.map(Rest::Parts), None))
    }
}

/// A load that failed: the backup is only to blame if its stored bytes are not as recorded, or if
/// PostgreSQL does not take what they hold.
fn blame(server: &Server<'_>, source: &Source, failure: Failure) -> Trouble {
    if let Err(stopped) = stop::check() {
        return Trouble::Unknown(stopped);
    }
    match source.is_as_recorded(server.config) {
        Ok(true) => told_by(server, failure),
        Ok(false) => Trouble::Bad(failure),
        Err(_) => Trouble::Unknown(failure),
    }
}

/// Was it the backup that made a load fail, or the world around it?
pub fn told_by(server: &Server<'_>, failure: Failure) -> Trouble {
    let text = failure.to_string();
    let server_is_up = server.admin.row("SELECT 1", &[]).is_ok();
    match server_is_up && !WORLD.iter().any(|word| text.contains(word)) {
        true => Trouble::Bad(failure),
        false => Trouble::Unknown(failure),
    }
}

/// Jobs as asked for, else one for each processor.
pub fn jobs(reading: &Reading) -> usize {
    let processors = || {
        std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(8)
    };
    reading.jobs.map_or_else(processors, usize::from)
}

fn shape(server: &Server<'_>, content: &DatabaseContent) -> Result<DatabaseShape> {
    if server.live_exists()? {
        return facts::shape(&server.admin, server.live());
    }
    let owner_of = |shape: DatabaseShape| -> Result<DatabaseShape> {
        let there = facts::roles(&server.admin)?.contains(&shape.owner);
        let owner = if there {
            shape.owner.clone()
        } else {
            server.url.user.clone()
        };
        Ok(DatabaseShape { owner, ..shape })
    };
    match &content.shape {
        Some(shape) => owner_of(shape.clone()),
        None => {
            let template = facts::shape(&server.admin, "template1")?;
            let encoding = content
                .inventory
                .encoding
                .clone()
                .unwrap_or_else(|| template.encoding.clone());
            Ok(DatabaseShape {
                encoding,
                owner: server.url.user.clone(),
                ..template
            })
        }
    }
}

/// Gives the restored database what belongs to the database itself: settings, grants, owner. Of
/// the live one if there is one, else as recorded. What could not be given comes back as sentences.
pub fn carry_over(server: &Server<'_>, source: &Source, name: &str) -> Result<Vec<String>> {
    let settings: Option<DatabaseSettings> = if server.live_exists()? {
        Some(facts::settings(&server.admin, server.live())?)
    } else {
        content(source)?.settings.clone()
    };
    settings.map_or(Ok(Vec::new()), |settings| {
        create::apply(&server.admin, &settings, name)
    })
}

/// Planner statistics are not in a dump; without them the app is slow until autovacuum comes by.
pub fn analyze(server: &Server<'_>, name: &str) {
    let analyzed = server.admin.beside(name).and_then(|session| {
        session.execute_within(std::time::Duration::from_secs(1800), "ANALYZE")?;
        session.close();
        Ok(())
    });
    if let Err(failure) = analyzed {
        tracing::warn!("no statistics yet, autovacuum will make them: {failure}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_pg_dump_writes_them() {
        assert_eq!(
            version_of("15.18 (Debian 15.18-0+deb12u1)"),
            Some(ServerVersion(150_018))
        );
        assert_eq!(version_of("18beta1"), None);
        assert_eq!(version_of("17"), Some(ServerVersion(170_000)));
    }
}
