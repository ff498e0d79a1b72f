//! `rg-restore run`: choose, check, ask, prepare everything beside the live data, exchange.
//!
//! Until everything is prepared and proven the live data is not touched; the exchange itself is
//! `exchange.rs`.

mod account;
mod clean_up;

use std::path::Path;
use std::time::Duration;

use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig, DatasetKind};
use rg_common::names::Stamp;
use rg_common::report::{self, Report};
use rg_common::seal::Identities;
use rg_common::{Failure, Result};

use crate::args::Run;
use crate::choose::{self, Catalog, Wanted};
use crate::exchange::{self, Manners};
use crate::journal::{self, Journal};
use crate::prepared::Prepared;
use crate::source::Source;
use crate::{bucket, globals, live, scratch};
pub use account::Done;
use account::{Restored, already};
pub use clean_up::clean_up;

/// One dataset with the backup chosen for it.
pub struct Choice<'a> {
    /// What is restored.
    pub dataset: &'a DatasetConfig,
    /// From what.
    pub source: Source,
}

/// What all steps of a restore need.
pub struct Job<'a> {
    /// What enters from outside.
    pub context: &'a Context,
    /// The configuration.
    pub config: &'a Config,
    /// The arguments.
    pub args: &'a Run,
    /// The keys.
    pub identities: Option<Identities>,
    /// Part of all names that this restore makes.
    pub stamp: Stamp,
}

impl Job<'_> {
    /// The keys, by reference.
    pub fn identities(&self) -> Option<&Identities> {
        self.identities.as_ref()
    }

    /// How the app is treated around it.
    pub fn manners(&self) -> Manners {
        Manners {
            leave_units: self.args.leave_units,
            health_limit: Duration::from_secs(self.args.health_timeout),
        }
    }
}

/// Restores the chosen datasets; each environment is one recovery point.
pub fn run(context: &Context, args: &Run) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut notes = Vec::new();
    let chosen = select(&config, args)?;
    let identities = args
        .reading
        .identity
        .as_deref()
        .map(Identities::from_file)
        .transpose()?;
    let _lock = scratch::lock(&config)?;
    if !args.dry_run {
        notes.extend(exchange::recover(context, &config)?);
        scratch::sweep(&config)?;
    }
    let stamp = journal::free_stamp(&config, context.now)?;
    let job = Job {
        context,
        config: &config,
        args,
        identities,
        stamp,
    };
    let choices = choose_all(&job, &chosen, &mut notes)?;
    let mut restored = Restored {
        dry_run: args.dry_run,
        seconds: 0,
        parts: Vec::new(),
        notes,
    };
    for environment in environments(&choices) {
        let of_it: Vec<&Choice<'_>> = choices
            .iter()
            .filter(|c| c.dataset.environment == environment)
            .collect();
        if let Err(failure) = one_point(&job, environment, &of_it, &mut restored) {
            return Err(already(failure, &restored));
        }
    }
    restored.seconds = (context.clock().as_second() - context.now.as_second())
        .max(0)
        .unsigned_abs();
    Ok(Box::new(restored))
}

fn select<'a>(config: &'a Config, args: &Run) -> Result<Vec<&'a DatasetConfig>> {
    let chosen = config.select(&args.datasets)?;
    let single = [
        ("--from", args.from.is_some()),
        ("--beside", args.beside.is_some()),
        ("--table", !args.tables.is_empty()),
    ];
    for (flag, given) in single {
        if given && chosen.len() != 1 {
            let names: Vec<&str> = chosen.iter().map(|dataset| dataset.name.as_str()).collect();
            return Err(Failure::new(format!(
                "{flag} is for one dataset, and {} are chosen",
                chosen.len()
            ))
            .hint(format!("choose one of {}", names.join(", "))));
        }
    }
    if !args.tables.is_empty() && !matches!(chosen[0].kind, DatasetKind::Database(_)) {
        return Err(Failure::new(format!(
            "--table is for databases, not for {}",
            chosen[0].name
        )));
    }
    Ok(chosen)
}

fn choose_all<'a>(
    job: &Job<'_>,
    chosen: &[&'a DatasetConfig],
    notes: &mut Vec<String>,
) -> Result<Vec<Choice<'a>>> {
    let Job {
        context,
        config,
        args,
        ..
    } = job;
    if let Some(from) = args.from.as_deref().filter(|from| choose::is_file(from)) {
        if let DatasetKind::Bucket(_) = &chosen[0].kind {
            return Err(
                Failure::new("a bucket is not restored from a bare file").hint(
                    "its objects lie in several archives: name a backup of a store with --from ID",
                ),
            );
        }
        let source = Source::bare(
            context,
            config,
            chosen[0],
            Path::new(from),
            job.identities.as_ref(),
        )?;
        return Ok(vec![Choice {
            dataset: chosen[0],
            source,
        }]);
    }
    let id = match args.from.as_deref() {
        None | Some("latest") => None,
        Some(id) => Some(id.parse()?),
    };
    let at = args
        .at
        .as_deref()
        .map(|text| choose::time(text, &context.zone))
        .transpose()?;
    let wanted = match (&id, at) {
        (Some(id), _) => Wanted::Id(id),
        (None, Some(time)) => Wanted::At(time),
        (None, None) => Wanted::Latest,
    };
    let mut catalog = choose::read(config, args.reading.store.as_deref())?;
    notes.extend(
        catalog
            .unreadable
            .iter()
            .map(|store| format!("a store could not be read: {store}")),
    );
    chosen
        .iter()
        .map(|dataset| pick(&mut catalog, dataset, &wanted))
        .collect()
}

fn pick<'a>(
    catalog: &mut Catalog,
    dataset: &'a DatasetConfig,
    wanted: &Wanted<'_>,
) -> Result<Choice<'a>> {
    let source = choose::choose(catalog, dataset, wanted)?;
    let (kind, found) = (kind_word(&dataset.kind), source.manifest.content.kind());
    if kind != found {
        return Err(Failure::new(format!(
            "{} holds {found}, and {} is {kind}",
            source.name(),
            dataset.name
        )));
    }
    Ok(Choice { dataset, source })
}

fn kind_word(kind: &DatasetKind) -> &'static str {
    match kind {
        DatasetKind::Database(_) => "database",
        DatasetKind::Files(_) => "files",
        DatasetKind::Globals(_) => "globals",
        DatasetKind::Bucket(_) => "bucket",
    }
}

fn environments<'a>(choices: &'a [Choice<'_>]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for choice in choices {
        if !names.contains(&choice.dataset.environment.as_str()) {
            names.push(&choice.dataset.environment);
        }
    }
    names
}

/// Restores what was chosen of one environment: globals first, then all of the rest together.
fn one_point(
    job: &Job<'_>,
    environment: &str,
    choices: &[&Choice<'_>],
    restored: &mut Restored,
) -> Result<()> {
    let mut together: Vec<(Prepared<'_>, &Choice<'_>)> = Vec::new();
    for choice in choices {
        match &choice.dataset.kind {
            DatasetKind::Globals(database) => {
                let question = format!(
                    "make the roles of {} that are missing?",
                    choice.source.name()
                );
                if !job.args.dry_run {
                    job.context.confirm(&question, job.args.yes)?;
                }
                restored.parts.push(globals::restore(
                    job,
                    choice,
                    database,
                    &mut restored.notes,
                )?);
            }
            DatasetKind::Database(database) if !job.args.tables.is_empty() => {
                let done = live::tables(job, choice, database, &mut restored.notes)?;
                restored.parts.push(done);
            }
            DatasetKind::Database(database) if live::must_be_in_place(job, choice, database)? => {
                let done = live::in_place(job, choice, database, &mut restored.notes)?;
                restored.parts.push(done);
            }
            DatasetKind::Database(database) => together.push((
                Prepared::database(job, choice, environment, database)?,
                choice,
            )),
            DatasetKind::Files(files) => {
                together.push((Prepared::files(job, choice, files)?, choice))
            }
            DatasetKind::Bucket(bucket) => {
                let prepared = bucket::Prepared::new(job, choice, bucket)?;
                together.push((Prepared::Bucket(Box::new(prepared)), choice));
            }
        }
    }
    if together.is_empty() {
        return Ok(());
    }
    apart(&together, &mut restored.notes);
    if job.args.dry_run {
        restored.parts.extend(
            together
                .iter()
                .map(|(prepared, choice)| prepared.done(choice)),
        );
        return Ok(());
    }
    job.context.confirm(&question(&together), job.args.yes)?;
    let manners = job.manners();
    let beside = job.args.beside.is_some();
    let units = if beside {
        Vec::new()
    } else {
        exchange::units(job.config, environment, &manners)?
    };
    let guard = Unwind {
        job,
        prepared: &together,
    };
    for (prepared, choice) in &together {
        restored.notes.extend(prepared.fill(job, choice)?);
    }
    if !beside {
        let parts = together
            .iter()
            .map(|(prepared, choice)| prepared.part(choice))
            .collect::<Result<_>>()?;
        let journal = Journal {
            stamp: job.stamp,
            environment: environment.to_owned(),
            units,
            undo: false,
            leave_units: manners.leave_units,
            parts,
        };
        // From here on the journal is responsible for what was prepared.
        std::mem::forget(guard);
        let notes = &mut restored.notes;
        exchange::perform(job.context, job.config, &journal, &manners, &mut || {
            let mut all = together.iter();
            all.try_for_each(|(prepared, choice)| prepared.exchange(job, choice, notes))
        })?;
        clean_up(job, &journal, &mut restored.notes);
    } else {
        std::mem::forget(guard);
    }
    for (prepared, choice) in &together {
        prepared.after();
        restored.parts.push(prepared.done(choice));
    }
    Ok(())
}

/// Backups of one environment that were not made together are said so: the app will see them so.
fn apart(together: &[(Prepared<'_>, &Choice<'_>)], notes: &mut Vec<String>) {
    let stamps: Vec<i64> = together
        .iter()
        .map(|(_, choice)| choice.source.manifest.id.stamp.time().as_second())
        .collect();
    if let (Some(first), Some(last)) = (stamps.iter().min(), stamps.iter().max())
        && last - first > 3600
    {
        notes.push(format!(
            "the backups lie {} apart: what the database says of the files may not hold",
            report::span((last - first).unsigned_abs())
        ));
    }
}

fn question(together: &[(Prepared<'_>, &Choice<'_>)]) -> String {
    let mut lines = Vec::new();
    for (prepared, choice) in together {
        let manifest = &choice.source.manifest;
        let (count, what) = manifest.content.count();
        lines.push(format!(
            "{} with {} ({}, {})",
            prepared.target(),
            choice.source.name(),
            report::bytes(manifest.plain.bytes),
            report::counted(count, what)
        ));
    }
    format!("{}?", lines.join("\n"))
}

/// Removes what was prepared when something fails before the journal takes over.
struct Unwind<'a, 'b> {
    job: &'a Job<'b>,
    prepared: &'a [(Prepared<'b>, &'a Choice<'a>)],
}

impl Drop for Unwind<'_, '_> {
    fn drop(&mut self) {
        for (prepared, _) in self.prepared {
            if let Err(failure) = prepared.discard() {
                tracing::warn!(
                    "{failure}; the next command removes it ({})",
                    self.job.stamp
                );
            }
        }
    }
}
