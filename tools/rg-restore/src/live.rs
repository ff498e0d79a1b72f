//! Restores into the live database itself, where an exchange is not what is wanted (single tables)
//! or not possible (a role that may not create databases). Each is one transaction that is
//! compared before it commits, and each can be undone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::config::{Config, DatabaseConfig, DatasetConfig};
use rg_common::dataset::{self, Request};
use rg_common::dump::Inventory;
use rg_common::names::Stamp;
use rg_common::seal::{self, Compression, Recipe, Recipients};
use rg_common::stop::Stoppable;
use rg_common::{Failure, OrFail, Result, app, report};

use crate::database::{self, Server};
use crate::exchange::Manners;
use crate::inplace::{self, InPlace, NotRestored};
use crate::journal::{self, Journal, Part};
use crate::run::{Choice, Done, Job};
use crate::source::Source;
use crate::table::{self, TableRestore};
use crate::{bucket, exchange, scratch};

/// What the name of a safety dump holds between dataset and stamp.
pub const BEFORE: &str = "_before_";

/// Replaces the rows of the tables that `--table` names.
pub fn tables(
    job: &Job<'_>,
    choice: &Choice<'_>,
    config: &DatabaseConfig,
    notes: &mut Vec<String>,
) -> Result<Done> {
    let server = Server::open(job.context, job.config, &choice.dataset.environment, config)?;
    let content = database::content(&choice.source)?;
    let names = job.args.tables.join(", ");
    let into = format!("database {}, tables {names}", server.live());
    let mut done = done(choice, into, None);
    if job.args.dry_run {
        return Ok(done);
    }
    let question = format!(
        "replace the rows of {names} in database `{}` by those of {}?",
        server.live(),
        choice.source.name()
    );
    job.context.confirm(&question, job.args.yes)?;
    let request = TableRestore {
        url: &server.url,
        connector: &server.connector,
        inventory: &content.inventory,
        tables: &job.args.tables,
        stamp: job.stamp,
    };
    let open = || -> Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(choice.source.open(
            job.context,
            job.config,
            job.identities.as_ref(),
        )?))
    };
    let replaced = table::replace(&request, &open)?;
    let part = Part::Tables {
        dataset: choice.dataset.name.clone(),
        schema: replaced.schema.clone(),
    };
    record(job.config, &alone(job, choice, part))?;
    notes.extend(replaced.notes);
    done.count = replaced.tables.iter().map(|table| table.rows_after).sum();
    done.kept = Some(format!(
        "the schema {} ({})",
        replaced.schema,
        report::counted(
            replaced.tables.iter().map(|t| t.rows_before).sum::<u64>(),
            "rows"
        )
    ));
    Ok(done)
}

/// Restores a whole database in one transaction, a safety dump taken first.
pub fn in_place(
    job: &Job<'_>,
    choice: &Choice<'_>,
    config: &DatabaseConfig,
    notes: &mut Vec<String>,
) -> Result<Done> {
    let manners = &job.manners();
    let environment = &choice.dataset.environment;
    let server = Server::open(job.context, job.config, environment, config)?;
    let safety = safety_path(job.config, choice.dataset, &job.stamp.to_string())?;
    let kept = Some(safety.display().to_string());
    let done = done(
        choice,
        format!("database {}, in place", server.live()),
        kept,
    );
    notes.push(format!(
        "role {} may not create databases: database `{}` is restored in place, in one transaction",
        server.url.user,
        server.live()
    ));
    if job.args.dry_run {
        return Ok(done);
    }
    let question = format!(
        "replace everything in database `{}` by {}?",
        server.live(),
        choice.source.name()
    );
    job.context.confirm(&question, job.args.yes)?;
    let units = exchange::units(job.config, environment, manners)?;
    let before = save(job.context, job.config, choice.dataset, config, &safety)?;
    notes.push(format!(
        "the safety dump holds {}",
        report::counted(
            before.tables.iter().map(|table| table.rows).sum::<u64>(),
            "rows"
        )
    ));
    let part = Part::InPlace {
        dataset: choice.dataset.name.clone(),
        safety,
    };
    let journal = Journal {
        units,
        leave_units: manners.leave_units,
        ..alone(job, choice, part)
    };
    refilled(job.context, job.config, &journal, manners, || {
        refill(
            job.context,
            job.config,
            &server,
            &choice.source,
            job.identities.as_ref(),
        )
    })?;
    crate::run::clean_up(job, &journal, notes);
    Ok(done)
}

/// Whether the role of a database must restore in place.
pub fn must_be_in_place(
    job: &Job<'_>,
    choice: &Choice<'_>,
    config: &DatabaseConfig,
) -> Result<bool> {
    if job.args.beside.is_some() || !job.args.tables.is_empty() {
        return Ok(false);
    }
    let server = Server::open(job.context, job.config, &choice.dataset.environment, config)?;
    Ok(
        !rg_common::postgres::facts::rights(&server.admin)?.create_databases
            && server.live_exists()?,
    )
}

/// Puts back what a restore into the live database had replaced, keeping what is there now: the
/// undo can be undone.
pub fn undo(
    context: &Context,
    config: &Config,
    last: &Journal,
    part: &Part,
    stamp: Stamp,
    manners: &Manners,
) -> Result<()> {
    let (dataset, database) = exchange::database_of(config, part.dataset())?;
    let server = Server::open(context, config, &dataset.environment, database)?;
    match part {
        // The kept rows and the live ones change places: the same record undoes it again.
        Part::Tables { schema, .. } => {
            table::undo(&server.url, &server.connector, schema).map(drop)
        }
        Part::InPlace { safety, .. } => {
            let source = Source::bare(context, config, dataset, safety, None)?;
            let units = exchange::units(config, &dataset.environment, manners)?;
            let now = safety_path(config, dataset, &stamp.to_string())?;
            save(context, config, dataset, database, &now)?;
            let journal = Journal {
                stamp,
                environment: last.environment.clone(),
                units,
                undo: true,
                leave_units: manners.leave_units,
                parts: vec![Part::InPlace {
                    dataset: dataset.name.clone(),
                    safety: now,
                }],
            };
            refilled(context, config, &journal, manners, || {
                refill(context, config, &server, &source, None)
            })?;
            journal::forget(config, last.stamp, |gone| gone == part)?;
            scratch::remove(safety)
        }
        Part::Database { .. } | Part::Files { .. } | Part::Bucket { .. } => Ok(()),
    }
}

/// Removes what a restore into the live database had kept, when a newer one replaces it.
pub fn discard(context: &Context, config: &Config, part: &Part) -> Result<()> {
    match part {
        Part::Tables { dataset, schema } => {
            let server = exchange::server(context, config, dataset)?;
            let kept = table::list(&server.url, &server.connector)?;
            if kept.iter().any(|kept| kept.schema == *schema) {
                table::discard(&server.url, &server.connector, schema)
            } else {
                Ok(())
            }
        }
        Part::InPlace { safety, .. } | Part::Bucket { safety, .. } => scratch::remove(safety),
        Part::Database { .. } | Part::Files { .. } => Ok(()),
    }
}

fn refill(
    context: &Context,
    config: &Config,
    server: &Server<'_>,
    source: &Source,
    identities: Option<&rg_common::seal::Identities>,
) -> Result<(), NotRestored> {
    let content = database::content(source)?;
    let dump = source.open(context, config, identities)?;
    let request = InPlace {
        url: &server.url,
        place: &server.place,
        connector: &server.connector,
        inventory: &content.inventory,
    };
    inplace::restore_in_place(&request, Box::new(dump)).map(drop)
}

/// Stops the app's units, does it, starts them and waits for health. The units are started again
/// whatever happens. From before the work on the journal names the safety dump: it can be undone
/// unless the database is certainly as it was, and then the dump goes.
fn refilled(
    context: &Context,
    config: &Config,
    journal: &Journal,
    manners: &Manners,
    work: impl FnOnce() -> Result<(), NotRestored>,
) -> Result<()> {
    journal::begin(config, journal)?;
    let worked = app::stop_units(&journal.units)
        .map_err(NotRestored::from)
        .and_then(|()| work());
    let noted = match &worked {
        Err(broken) if broken.unchanged => journal::taken_back(config).and_then(|()| sweep(config)),
        _ => journal::done(config, journal),
    };
    let started = app::start_units(&journal.units);
    worked.map_err(|broken| match broken.unchanged {
        true => broken.failure,
        false => broken
            .failure
            .hint("`rg-restore undo` puts back what was there before"),
    })?;
    noted?;
    started?;
    exchange::wait_healthy(context, config, journal, manners.health_limit).map_err(|failure| {
        failure
            .context("restored, but the app did not come up")
            .hint("`rg-restore undo` puts back what was there")
    })
}

/// Removes safety dumps that nothing can be undone with: a killed command began them, or what they
/// were taken for changed nothing. Only under the lock and with no exchange under way.
pub fn sweep(config: &Config) -> Result<()> {
    let kept: Vec<PathBuf> = journal::undoable(config)?
        .into_iter()
        .flat_map(|journal| journal.parts)
        .filter_map(|part| match part {
            Part::InPlace { safety, .. } | Part::Bucket { safety, .. } => Some(safety),
            _ => None,
        })
        .collect();
    let folder = scratch::restore_folder(config)?;
    let what = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(&folder).or_fail(what)? {
        let path = entry.or_fail(what)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let safety = name.is_some_and(|name| {
            name.contains(BEFORE) && (name.ends_with(".zst") || bucket::is_safety(&name))
        });
        if safety && !kept.contains(&path) {
            tracing::info!("removing {}, which nothing needs", path.display());
            scratch::remove(&path)?;
        }
    }
    Ok(())
}

/// A dump of the live database into the state directory, its rows counted.
fn save(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    database: &DatabaseConfig,
    path: &Path,
) -> Result<Inventory> {
    let what = || {
        format!(
            "cannot take a safety dump into {}; nothing was changed",
            path.display()
        )
    };
    let connector = rg_common::postgres::Connector::new(context.network.clone(), "rg-restore");
    let request = Request {
        config,
        dataset,
        connector: &connector,
        snapshot: None,
        ours: Vec::new(),
        now: context.now,
        network: context.network.clone(),
        stamp: rg_common::names::Stamp::at(context.now),
        earlier: Vec::new(),
    };
    let mut without_required = database.clone();
    // What is there is saved as it is, however little it may be.
    without_required.required_tables.clear();
    let dump = dataset::database::dump(&request, &without_required)
        .map_err(|failure| failure.context(what()))?;
    let recipe = Recipe {
        compression: Compression::ZSTD,
        recipients: Recipients::default(),
    };
    let mut sealer = seal::seal(Stoppable(dump), &recipe)?;
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_fail(what)?;
    let copied = io::copy(&mut sealer, &mut file)
        .map_err(|error| Failure::from_io(what(), error).context(what()));
    if let Err(failure) = copied.and_then(|_| file.sync_all().or_fail(what)) {
        fs::remove_file(path).ok();
        return Err(failure);
    }
    let (dump, _) = sealer.finish()?;
    match dump.0.finish()?.content {
        rg_common::catalog::Content::Database(content) => Ok(content.inventory),
        _ => Err(Failure::new("the safety dump is not one of a database")),
    }
}

fn safety_path(config: &Config, dataset: &DatasetConfig, stamp: &str) -> Result<PathBuf> {
    let name = dataset.name.as_str().replace('/', ".");
    let extension = match &dataset.kind {
        rg_common::config::DatasetKind::Database(database) => {
            dataset::database::extension(database)
        }
        _ => ".dump",
    };
    Ok(scratch::restore_folder(config)?.join(format!("{name}{BEFORE}{stamp}{extension}.zst")))
}

/// Notes what can be undone: it is committed already, so there is nothing to journal before.
fn record(config: &Config, journal: &Journal) -> Result<()> {
    journal::begin(config, journal)?;
    journal::done(config, journal)
}

fn alone(job: &Job<'_>, choice: &Choice<'_>, part: Part) -> Journal {
    Journal {
        stamp: job.stamp,
        environment: choice.dataset.environment.clone(),
        units: Vec::new(),
        undo: false,
        leave_units: true,
        parts: vec![part],
    }
}

fn done(choice: &Choice<'_>, into: String, kept: Option<String>) -> Done {
    let (count, count_of) = choice.source.manifest.content.count();
    Done {
        dataset: choice.dataset.name.to_string(),
        from: choice.source.name(),
        into,
        kept,
        count,
        count_of,
    }
}
