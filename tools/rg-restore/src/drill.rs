//! Proving that backups can be restored, on a timer: restored into a scratch place, compared with
//! what was recorded, removed; the proof and the time it took lie beside the backup.

use rg_common::catalog::{self, Finding};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig, DatasetKind};
use rg_common::names::Stamp;
use rg_common::postgres::create;
use rg_common::postgres::scratch::{self as databases, Purpose};
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::seal::Identities;
use rg_common::{Failure, Result, stop, store};
use serde::Serialize;

use crate::args::Drill;
use crate::choose::{self, Catalog, Wanted};
use crate::database::{self, Server, Trouble};
use crate::source::Source;
use crate::{bucket, exchange, files, globals, scratch};

/// What a drill has proven.
pub const COMPARED: &str = "restored and compared";

#[derive(Serialize)]
struct Drilled {
    dry_run: bool,
    drills: Vec<One>,
}

#[derive(Serialize)]
struct One {
    dataset: String,
    id: Option<String>,
    /// `proven`, `bad` or `unknown`.
    verdict: &'static str,
    seconds: u64,
    said: String,
    hints: Vec<String>,
}

/// Drills the newest backup of every chosen dataset. One that fails does not stop the others.
pub fn drill(context: &Context, args: &Drill) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let identities = args
        .reading
        .identity
        .as_deref()
        .map(Identities::from_file)
        .transpose()?;
    let selection = match &args.from {
        Some(id) => vec![id.dataset.to_string()],
        None => args.datasets.clone(),
    };
    let chosen = config.select(&selection)?;
    let _lock = scratch::lock(&config)?;
    if !args.dry_run {
        exchange::recover(context, &config)?;
        scratch::sweep(&config)?;
    }
    let mut catalog = choose::read(&config, args.reading.store.as_deref())?;
    let mut drilled = Drilled {
        dry_run: args.dry_run,
        drills: Vec::new(),
    };
    for dataset in chosen {
        stop::check()?;
        drilled.drills.push(one(
            context,
            &config,
            dataset,
            args,
            &mut catalog,
            identities.as_ref(),
        ));
    }
    Ok(Box::new(drilled))
}

fn one(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    args: &Drill,
    catalog: &mut Catalog,
    identities: Option<&Identities>,
) -> One {
    let mut one = One {
        dataset: dataset.name.to_string(),
        id: None,
        verdict: "unknown",
        seconds: 0,
        said: String::new(),
        hints: Vec::new(),
    };
    let began = context.clock();
    let wanted = args.from.as_ref().map_or(Wanted::Latest, Wanted::Id);
    let outcome = choose::choose(catalog, dataset, &wanted)
        .map_err(Trouble::from)
        .and_then(|source| {
            one.id = Some(source.manifest.id.to_string());
            if args.dry_run {
                return Ok(source);
            }
            let proven = prove(context, config, dataset, args, &source, identities);
            let seconds = (context.clock().as_second() - began.as_second())
                .max(0)
                .unsigned_abs();
            one.seconds = seconds;
            // Only what was seen is recorded: what could not be told proves nothing either way.
            let finding = |good, said: String| Finding {
                at: context.clock(),
                good,
                seconds,
                said,
            };
            match proven {
                Ok(said) => record(config, &source, finding(true, said.to_owned()))
                    .map(|()| {
                        one.said = said.to_owned();
                        source
                    })
                    .map_err(Trouble::from),
                Err(Trouble::Bad(failure)) => {
                    if let Err(left) = record(config, &source, finding(false, failure.to_string()))
                    {
                        tracing::warn!("the finding could not be recorded: {left}");
                    }
                    Err(Trouble::Bad(failure))
                }
                Err(unknown) => Err(unknown),
            }
        });
    match outcome {
        Ok(source) => {
            let (count, what) = source.manifest.content.count();
            one.verdict = "proven";
            let verb = match args.dry_run {
                true => "would be restored and compared",
                false => &one.said,
            };
            one.said = format!("{} {verb}", report::counted(count, what));
        }
        Err(trouble) => {
            one.verdict = if matches!(trouble, Trouble::Bad(_)) {
                "bad"
            } else {
                "unknown"
            };
            let failure = trouble.into_failure();
            one.said = failure.to_string();
            one.hints = failure.hints().into_iter().map(str::to_owned).collect();
        }
    }
    one
}

fn prove(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    args: &Drill,
    source: &Source,
    identities: Option<&Identities>,
) -> Result<&'static str, Trouble> {
    if !source.manifest.encrypted_to.is_empty() && identities.is_none() {
        return Err(Trouble::Unknown(
            Failure::new("the backup is encrypted")
                .hint("the identity is kept off the server; pass it with --identity FILE"),
        ));
    }
    match &dataset.kind {
        DatasetKind::Database(database) => {
            let server = Server::open(context, config, &dataset.environment, database)?;
            server.sweep()?;
            database::check(&server, source, &args.reading)?;
            let name = databases::scratch_name(
                server.live(),
                Purpose::Drill,
                &Stamp::at(context.clock()).to_string(),
            );
            database::load(&server, source, &name, &args.reading, identities)?;
            create::drop_database(&server.admin, &name, true)?;
        }
        DatasetKind::Files(files) => {
            files::sweep(&files.path)?;
            let scratch = scratch::Folder::new(config, context, "drill")?;
            files::check(source, files, scratch.parent())?;
            files::unpack(context, config, source, files, scratch.path(), identities)?;
        }
        DatasetKind::Globals(database) => {
            globals::drill(context, config, dataset, database, source, identities)?;
        }
        DatasetKind::Bucket(bucket) => {
            return bucket::drill(context, config, dataset, bucket, source, identities);
        }
    }
    Ok(COMPARED)
}

/// Puts a finding beside the backup.
pub fn record(config: &Config, source: &Source, finding: Finding) -> Result<()> {
    let Some(name) = source.store() else {
        return Ok(());
    };
    let store = store::open_named(config, name)?;
    let id = &source.manifest.id;
    let _lock = store.lock(id.dataset.as_str())?;
    catalog::write_proof(&*store, id, |proof| proof.drilled = Some(finding))
}

impl Report for Drilled {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for one in &self.drills {
            let (tone, sign) = match one.verdict {
                "proven" => (Tone::Good, "✓"),
                "bad" => (Tone::Bad, "✗"),
                _ => (Tone::Warn, "?"),
            };
            let name = one.id.as_ref().unwrap_or(&one.dataset);
            let sign = page.tone(tone, sign);
            page.line(format!(
                "{sign}  {name}: {} ({})",
                one.said,
                report::span(one.seconds)
            ));
            for hint in &one.hints {
                page.line(format!("   hint: {hint}"));
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match () {
            () if self.drills.iter().any(|one| one.verdict == "bad") => Outcome::BadNews,
            () if self.drills.iter().any(|one| one.verdict == "unknown") => Outcome::Incomplete,
            () => Outcome::Well,
        }
    }
}
