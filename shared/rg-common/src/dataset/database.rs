//! A PostgreSQL database: `pg_dump`'s own stream, its inventory taken as it goes by.

use std::io::{self, Read};

use super::{Dump, Dumped, Request};
use crate::catalog::Content;
use crate::catalog::manifest::DatabaseContent;
use crate::config::{Config, DatabaseConfig, DumpFormat};
use crate::dump::{Inventory, InventoryReader};
use crate::failure::{Failure, Result};
use crate::postgres::facts::{DatabaseSettings, DatabaseShape};
use crate::postgres::{Connector, DatabaseUrl, Place, Session, facts};
use crate::program::ProgramReader;

/// How long `pg_dump` waits for a table that a migration holds, in milliseconds. A waiting dump
/// blocks nobody, but whatever queues behind it waits too.
const LOCK_WAIT_MS: u32 = 60_000;

/// A database's address, looked up in the environment's env file.
pub fn url(config: &Config, environment: &str, database: &DatabaseConfig) -> Result<DatabaseUrl> {
    let text = config.resolve(environment, &database.url)?;
    DatabaseUrl::parse(text.reveal()).map_err(|failure| {
        failure.context(format!("the database url of environment `{environment}`"))
    })
}

/// A connection to a database, its place checked to be the same server.
pub fn connect(
    connector: &Connector,
    url: &DatabaseUrl,
    database: &DatabaseConfig,
) -> Result<(Session, Place)> {
    let place = Place::parse(&database.via)?;
    let session = connector.open(url)?;
    place.same_server(&session)?;
    Ok((session, place))
}

/// `.dump` or `.sql`.
pub fn extension(database: &DatabaseConfig) -> &'static str {
    match database.format {
        DumpFormat::Custom => ".dump",
        DumpFormat::Plain => ".sql",
    }
}

/// Begins a dump: connected, every row visible, a `pg_dump` that is new enough.
pub fn dump<'a>(request: &Request<'a>, database: &'a DatabaseConfig) -> Result<Box<dyn Dump + 'a>> {
    let url = url(request.config, &request.dataset.environment, database)?;
    let (session, place) = connect(request.connector, &url, database)?;
    facts::refuse_hidden_rows(&session)?;
    let name = url.database.clone();
    let shape = facts::shape(&session, &name)?;
    let settings = facts::settings(&session, &name)?;
    let format = match database.format {
        DumpFormat::Custom => "--format=custom",
        DumpFormat::Plain => "--format=plain",
    };
    // Uncompressed: compressing outside is faster, and the stream can be read on its way.
    let mut program = place
        .program("pg_dump", &url, session.version())?
        .args([format, "--compress=0", "--no-password"])
        .arg(format!("--lock-wait-timeout={LOCK_WAIT_MS}"));
    if let Some(snapshot) = request.snapshot {
        program = program.arg(format!("--snapshot={snapshot}"));
    }
    session.close();
    let reader = InventoryReader::new(program.reader()?);
    Ok(Box::new(DatabaseDump {
        reader,
        shape,
        settings,
        required: &database.required_tables,
    }))
}

struct DatabaseDump<'a> {
    reader: InventoryReader<ProgramReader>,
    shape: DatabaseShape,
    settings: DatabaseSettings,
    required: &'a [String],
}

impl Read for DatabaseDump<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader
            .read(buffer)
            .map_err(|error| explain(Failure::from_io("cannot read the dump", error)).into_io())
    }
}

impl Dump for DatabaseDump<'_> {
    fn finish(self: Box<Self>) -> Result<Dumped> {
        let (_, inventory) = self.reader.finish()?;
        check_required(&inventory, self.required)?;
        let mut notes = Vec::new();
        if let Some(because) = &inventory.uncounted_because {
            notes.push(format!("rows were not counted: {because}"));
        }
        let content = DatabaseContent {
            inventory,
            shape: Some(self.shape),
            settings: Some(self.settings),
        };
        Ok(Dumped {
            content: Content::Database(Box::new(content)),
            list: None,
            notes,
            recorded: None,
        })
    }
}

/// A database that was lost and newly made, empty, dumps without an error: the tables that the
/// app cannot live without must be in it.
pub fn check_required(inventory: &Inventory, required: &[String]) -> Result<()> {
    let there = |wanted: &&String| {
        inventory.tables.iter().any(|table| {
            table.name == **wanted || format!("{}.{}", table.schema, table.name) == **wanted
        })
    };
    let missing: Vec<&str> = required
        .iter()
        .filter(|wanted| !there(wanted))
        .map(String::as_str)
        .collect();
    if missing.is_empty() || !inventory.counted {
        return Ok(());
    }
    Err(Failure::new(format!("the dump lacks required tables: {}", missing.join(", ")))
        .hint("is this the right database, and are its migrations applied? a backup of it would replace good ones")
        .hint("the list is required_tables in rg.toml"))
}

/// pg_dump's most common messages, with the remedy.
fn explain(failure: Failure) -> Failure {
    let text = failure.to_string();
    let remedy = match () {
        () if text.contains("canceling statement due to lock timeout")
            || text.contains("lock timeout") =>
        {
            "a migration or another long transaction holds a table; try again when it has ended"
        }
        () if text.contains("permission denied for") => {
            "the role must be able to read everything: GRANT pg_read_all_data, or use the owner"
        }
        () if text.contains("query would be affected by row-level security") => {
            "use the tables' owner or a role with BYPASSRLS"
        }
        () if text.contains("out of shared memory") => {
            "raise max_locks_per_transaction on the server"
        }
        () if text.contains("invalid snapshot identifier")
            || text.contains("could not import the requested snapshot") =>
        {
            "the session that exported the snapshot must still be in its transaction"
        }
        () => return failure,
    };
    failure.hint(remedy)
}
