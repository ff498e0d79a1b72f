//! A database restored beside the live one, and proven to be what the backup recorded.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rg_common::catalog::Content;
use rg_common::catalog::manifest::DatabaseContent;
use rg_common::cli::Context;
use rg_common::config::{Config, DatabaseConfig};
use rg_common::dataset;
use rg_common::dump::DumpFormat;
use rg_common::postgres::connect::ServerVersion;
use rg_common::postgres::create;
use rg_common::postgres::exchange;
use rg_common::postgres::facts::{self, DatabaseSettings, DatabaseShape};
use rg_common::postgres::scratch::{self as databases, Purpose};
use rg_common::postgres::url::Host;
use rg_common::postgres::{Connector, DatabaseUrl, Place, Session};
use rg_common::program::Program;
use rg_common::seal::Identities;
use rg_common::secret::Secret;
use rg_common::stop;
use rg_common::store::free_bytes;
use rg_common::{Failure, OrFail, Result};

use crate::args::Reading;
use crate::source::Source;
use crate::{proof, scratch};

/// A restored database takes up to this many times its dump (indexes, page headers), in percent.
const GROWTH_PERCENT: u64 = 200;
/// PostgreSQL's programs say nothing on stdout; more than this is refused.
const PROGRAM_OUTPUT_BYTES: usize = 1 << 20;
/// How much is copied at once.
const COPY_BYTES: usize = 1 << 18;
/// So many buffers wait between reading and writing.
const BUFFERS: usize = 4;
/// What a load says when not the backup is to blame but where it is loaded: the machine, the
/// server, or the role's rights. A sound backup must not be recorded as bad for it.
const WORLD: &[&str] = &[
    "No space left",
    "could not connect",
    "connection to server",
    "server closed the connection",
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
/// What a loading session sets: safe for a database that nobody else sees and that is thrown away
/// when anything fails. The exchange commits synchronously, which makes all of it durable.
const LOADING: &str =
    "-c synchronous_commit=off -c maintenance_work_mem=256MB -c bytea_output=hex -c lock_timeout=0";

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
    let jobs = jobs(reading);
    let loaded = match content.inventory.format {
        DumpFormat::Custom => load_archive(server, source, name, reading, identities, jobs),
        DumpFormat::Plain => load_script(server, source, name, identities).map(|()| None),
    };
    let rest = loaded.or_else(|failure| blame(server, source, failure))?;
    // The rows are all there: they are read back while indexes and constraints are made.
    let (differences, finished) = std::thread::scope(|threads| {
        let comparing = threads.spawn(|| proof::compare(server, content, name, jobs));
        let finished = rest.as_ref().map_or(Ok(()), Rest::finish);
        let differences = comparing
            .join()
            .unwrap_or_else(|_| Err(Failure::new("the comparison was aborted")));
        (differences, finished)
    });
    finished.or_else(|failure| blame(server, source, failure))?;
    let mut said: Vec<String> = differences?.iter().map(ToString::to_string).collect();
    said.extend(proof::missing_objects(server, content, name)?);
    if said.is_empty() {
        return Ok(());
    }
    Err(Trouble::Bad(proof::describe(source, &said)))
}

/// A load that failed: the backup is only to blame if its stored bytes are not as recorded, or if
/// PostgreSQL does not take what they hold.
fn blame<T>(server: &Server<'_>, source: &Source, failure: Failure) -> Result<T, Trouble> {
    stop::check()?;
    Err(match source.is_as_recorded(server.config) {
        Ok(true) => told_by(server, failure),
        Ok(false) => Trouble::Bad(failure),
        Err(_) => Trouble::Unknown(failure),
    })
}

/// What is left to do when the rows are there: indexes, constraints, triggers.
struct Rest {
    program: Program,
    /// The plain dump; gone when this is dropped.
    _scratch: scratch::Folder,
}

impl Rest {
    fn finish(&self) -> Result<()> {
        self.program.output(PROGRAM_OUTPUT_BYTES).map(drop)
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

/// Loads an archive up to its rows; what comes after them is the [`Rest`], where it can be split.
/// pg_restore with parallel jobs needs the plain dump as a file; where there is no room for it,
/// and in a container, it is streamed to one job.
fn load_archive(
    server: &Server<'_>,
    source: &Source,
    name: &str,
    reading: &Reading,
    identities: Option<&Identities>,
    jobs: usize,
) -> Result<Option<Rest>> {
    let mut plain = source.open(server.context, server.config, identities)?;
    let mut program = server
        .place
        .program(
            "pg_restore",
            &server.url.with_database(name),
            server.admin.version(),
        )?
        .args(["--exit-on-error", "--no-password", "--format=custom"])
        .arg(format!("--dbname={name}"))
        .env("PGOPTIONS", Secret::new(LOADING));
    if reading.no_owner {
        program = program.args(["--no-owner", "--no-acl"]);
    }
    let scratch = scratch::Folder::new(server.config, server.context, "dump")?;
    let room = free_bytes(scratch.parent())
        .is_some_and(|free| free > source.manifest.plain.bytes + (64 << 20));
    if server.place == Place::Local && jobs > 1 && room {
        spool(&mut plain, scratch.path())?;
        let program = program.arg(format!("--jobs={jobs}"));
        let part = |sections: &[&str]| program.clone().args(sections).arg("--").arg(scratch.path());
        part(&["--section=pre-data", "--section=data"]).output(PROGRAM_OUTPUT_BYTES)?;
        let program = part(&["--section=post-data"]);
        return Ok(Some(Rest {
            program,
            _scratch: scratch,
        }));
    }
    if !room {
        tracing::warn!(
            "no room for the plain dump in {}: restoring with one job",
            scratch.parent().display()
        );
    }
    let mut writer = program.writer()?;
    feed(&mut plain, &mut writer)?;
    writer.finish().map(|()| None)
}

fn load_script(
    server: &Server<'_>,
    source: &Source,
    name: &str,
    identities: Option<&Identities>,
) -> Result<()> {
    let mut plain = source.open(server.context, server.config, identities)?;
    let program = server
        .place
        .program(
            "psql",
            &server.url.with_database(name),
            server.admin.version(),
        )?
        .args([
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--set=ON_ERROR_STOP=1",
        ])
        .arg(format!("--dbname={name}"))
        .arg("--file=-")
        .env("PGOPTIONS", Secret::new(LOADING));
    let mut writer = program.writer()?;
    feed(&mut plain, &mut writer)?;
    writer.finish()
}

fn spool(plain: &mut (impl Read + Send), path: &Path) -> Result<()> {
    let what = || format!("cannot write the dump to {}", path.display());
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_fail(what)?;
    feed(plain, &mut file).map_err(|failure| failure.context(what()))
}

/// Copies to the end. Reading (which decrypts, decompresses and digests) goes on on a thread of
/// its own while what was read is written.
fn feed(from: &mut (impl Read + Send), to: &mut impl Write) -> Result<()> {
    std::thread::scope(|threads| {
        let (filled, full) = std::sync::mpsc::sync_channel::<Result<Vec<u8>>>(BUFFERS);
        let (emptied, empty) = std::sync::mpsc::channel::<Vec<u8>>();
        threads.spawn(move || {
            loop {
                let mut buffer = empty.try_recv().unwrap_or_default();
                buffer.resize(COPY_BYTES, 0);
                let read = match from.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => {
                        buffer.truncate(n);
                        Ok(buffer)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(Failure::from_io("cannot read the backup", error)),
                };
                let last = read.is_err();
                // Nobody takes it any more when writing has failed.
                if filled.send(read).is_err() || last {
                    return;
                }
            }
        });
        for buffer in full {
            let buffer = buffer?;
            to.write_all(&buffer)
                .map_err(|error| Failure::from_io("cannot pass it on", error))?;
            emptied.send(buffer).ok();
        }
        Ok(())
    })
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
