//! Putting back what the last restore replaced. An undo is itself an exchange, so that it can be
//! undone too: nothing is ever thrown away here.

use std::time::Duration;

use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::names::Stamp;
use rg_common::postgres::scratch::{self as databases, Purpose};
use rg_common::report::{Outcome, Plain, Report};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::Undo;
use crate::exchange::{self, Manners};
use crate::journal::{self, Journal, Part};
use crate::{bucket, files, live, scratch};

#[derive(Serialize)]
struct Undone {
    dry_run: bool,
    put_back: Vec<Back>,
}

#[derive(Serialize)]
struct Back {
    dataset: String,
    from: String,
}

/// Undoes the newest restore of the selected datasets.
pub fn undo(context: &Context, args: &Undo) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    config.select(std::slice::from_ref(&args.dataset))?;
    let _lock = scratch::lock(&config)?;
    if !args.dry_run {
        exchange::recover(context, &config)?;
        scratch::sweep(&config)?;
    }
    let selected = |part: &Part| part.dataset().is_selected_by(&args.dataset);
    let last = journal::undoable(&config)?
        .into_iter()
        .rev()
        .find(|journal| journal.parts.iter().any(selected));
    let last = last.ok_or_else(|| {
        Failure::new(format!("there is no restore of {} to undo", args.dataset)).hint(
            "only the last restore of a dataset can be undone; `rg-restore list` shows what can be",
        )
    })?;
    let parts: Vec<&Part> = last.parts.iter().filter(|part| selected(part)).collect();
    let undone = Undone {
        dry_run: args.dry_run,
        put_back: parts
            .iter()
            .map(|part| Back {
                dataset: part.dataset().to_string(),
                from: part.kept().unwrap_or_else(|| "nothing".to_owned()),
            })
            .collect(),
    };
    if !args.dry_run {
        let what: Vec<String> = undone
            .put_back
            .iter()
            .map(|back| format!("{} from {}", back.dataset, back.from))
            .collect();
        context.confirm(&format!("put back {}?", what.join(" and ")), args.yes)?;
        put_back(context, &config, args, &last, &parts)?;
    }
    let verb = if args.dry_run {
        "would be put back"
    } else {
        "is as it was before the restore"
    };
    let lines: Vec<String> = undone
        .put_back
        .iter()
        .map(|back| format!("{} {verb} ({})", back.dataset, back.from))
        .collect();
    Ok(Box::new(Plain {
        document: undone,
        text: lines.join("\n"),
        outcome: Outcome::Well,
    }))
}

fn put_back(
    context: &Context,
    config: &Config,
    args: &Undo,
    last: &Journal,
    parts: &[&Part],
) -> Result<()> {
    let manners = Manners {
        leave_units: args.leave_units,
        health_limit: Duration::from_secs(args.health_timeout),
    };
    let stamp = journal::free_stamp(config, context.now)?;
    let (in_live, apart): (Vec<&Part>, Vec<&Part>) = parts
        .iter()
        .partition(|part| matches!(part, Part::Tables { .. } | Part::InPlace { .. }));
    for part in in_live {
        live::undo(context, config, last, part, stamp, &manners)?;
    }
    if apart.is_empty() {
        return Ok(());
    }
    let exchanges = apart
        .iter()
        .map(|part| reversed(context, config, part, stamp))
        .collect::<Result<Vec<_>>>()?;
    let buckets = exchanges
        .iter()
        .filter(|part| matches!(part, Part::Bucket { .. }))
        .map(|part| bucket::PutBack::prove(context, config, part, last.stamp))
        .collect::<Result<Vec<_>>>()?;
    let units = exchange::units(config, &last.environment, &manners)?;
    let journal = Journal {
        stamp,
        environment: last.environment.clone(),
        units,
        undo: true,
        leave_units: manners.leave_units,
        parts: exchanges,
    };
    exchange::perform(context, config, &journal, &manners, &mut || {
        buckets.iter().try_for_each(|one| one.put_back(stamp))
    })?;
    live::sweep(config)
}

/// The exchange that takes a part back: what was set aside becomes the fresh one.
fn reversed(context: &Context, config: &Config, part: &Part, stamp: Stamp) -> Result<Part> {
    match part {
        Part::Database {
            dataset,
            live,
            aside,
            replaces: true,
            ..
        } => {
            let server = exchange::server(context, config, dataset)?;
            let oid = server.oid(aside)?.ok_or_else(|| {
                Failure::new(format!("database {aside} is gone"))
                    .hint("restore a backup from before: rg-restore run … --at TIME")
            })?;
            Ok(Part::Database {
                dataset: dataset.clone(),
                live: live.clone(),
                fresh: aside.clone(),
                fresh_oid: oid,
                aside: databases::scratch_name(live, Purpose::Before, &stamp.to_string()),
                replaces: server.oid(live)?.is_some(),
            })
        }
        Part::Files {
            dataset,
            live,
            aside,
            replaces: true,
            ..
        } => {
            let id = files::identity(aside).ok_or_else(|| {
                Failure::new(format!("{} is gone", aside.display()))
                    .hint("restore a backup from before: rg-restore run … --at TIME")
            })?;
            Ok(Part::Files {
                dataset: dataset.clone(),
                live: live.clone(),
                fresh: aside.clone(),
                fresh_id: id,
                aside: files::sibling(live, "before", stamp)?,
                replaces: live.symlink_metadata().is_ok(),
            })
        }
        Part::Database { dataset, .. } | Part::Files { dataset, .. } => Err(Failure::new(format!(
            "nothing was there before the restore of {dataset}: there is nothing to put back"
        ))),
        Part::Bucket {
            dataset,
            service,
            bucket,
            safety,
            ..
        } => Ok(Part::Bucket {
            dataset: dataset.clone(),
            service: service.clone(),
            bucket: bucket.clone(),
            safety: bucket::safety_path(config, dataset, stamp)?,
            puts_back: Some(safety.clone()),
        }),
        Part::Tables { dataset, .. } | Part::InPlace { dataset, .. } => Err(Failure::new(format!(
            "the restore of {dataset} cannot be undone by an exchange"
        ))),
    }
}
