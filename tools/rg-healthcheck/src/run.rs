//! `run`: one round from the plan to what was told.
//!
//! The order is the promise: what is found is judged, what is due is written down and sent, then
//! the history and what the looks must remember. Nothing after the judging changes the exit code:
//! what goes wrong there is said beside the findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use rg_common::check::{Finding, Verdict, settle};
use rg_common::cli::Context;
use rg_common::config::{Config, NotifyConfig, NotifyKind};
use rg_common::notify::{self, Event};
use rg_common::report::{Outcome, Plain, Report};
use rg_common::{Failure, Result, whole};

use crate::alert::{self, Memory};
use crate::args::{self, Format};
use crate::history::History;
use crate::look::{self, Tools};
use crate::plan::{self, Plan};
use crate::round::{self, Limits};
use crate::seen::Seen;
use crate::show::{Round, Shown, nagios_failed};
use crate::{cause, report, silence, state};

/// The name under which channels know this tool.
pub const TOOL: &str = "rg-healthcheck";
/// The mode of `--output`: the node exporter runs as another user.
const OUTPUT_MODE: u32 = 0o644;

/// Runs the checks once. The plugin protocol has a code of its own for what could not be done.
pub fn run(context: &Context, args: &args::Run) -> Result<Box<dyn Report>> {
    match round(context, args) {
        Err(failure) if args.format == Format::Nagios => {
            let text = nagios_failed(&failure.to_string());
            Ok(Box::new(Plain {
                document: text.clone(),
                text,
                outcome: Outcome::Plugin(3),
            }))
        }
        other => other,
    }
}

fn round(context: &Context, args: &args::Run) -> Result<Box<dyn Report>> {
    let config = Arc::new(context.config()?);
    for name in &args.environments {
        report::known(&config, name)?;
    }
    let all = plan::plan(&config)?;
    let known: BTreeSet<String> = all.checks().map(|check| check.id.clone()).collect();
    let patience = all
        .checks()
        .map(|check| (check.id.clone(), check.patience))
        .collect();
    let whole_plan = args.environments.is_empty() && args.only.is_empty();
    let plan = all.select(&args.environments, &args.only)?;
    let (found, troubles) = if args.dry_run {
        let memory = state::look(&config.state).unwrap_or_default();
        let looked = looked(context, &config, &plan, &memory, whole_plan)?;
        (looked.round, looked.troubles)
    } else {
        remembered(context, &config, &plan, &known, patience, whole_plan)?
    };
    let shown = Shown {
        round: Round { troubles, ..found },
        format: args.format,
        verbose: context.common.verbose > 0 || args.dry_run,
    };
    match &args.output {
        None => Ok(Box::new(shown)),
        Some(path) => written(shown, path),
    }
}

/// The text in a file, whole or not at all; on stdout where it is.
fn written(shown: Shown, path: &PathBuf) -> Result<Box<dyn Report>> {
    whole::write(path, shown.text().as_bytes(), OUTPUT_MODE)?;
    Ok(Box::new(Plain {
        document: serde_json::json!({ "output": path, "state": shown.round.state() }),
        text: format!("wrote {}", path.display()),
        outcome: shown.outcome(),
    }))
}

/// What a round found, with nothing remembered or told yet.
struct Looked {
    round: Round,
    troubles: Vec<String>,
    seen: Seen,
}

fn looked(
    context: &Context,
    config: &Arc<Config>,
    plan: &Plan,
    memory: &Memory,
    whole_plan: bool,
) -> Result<Looked> {
    let began = Instant::now();
    let (before, trouble) = Seen::read(&state::folder(&config.state));
    let tools = Tools::new(
        config.clone(),
        &context.network,
        before,
        context.now,
        &context.zone,
    )?;
    let tools = Arc::new(tools);
    let looks = |group| look::look(tools.clone(), group);
    let mut findings = context
        .network
        .block_on(round::run(plan, Limits::default(), looks));
    rg_common::stop::check()?;
    if whole_plan {
        findings.push(whether_told(memory, &config.notify, context.now));
    }
    cause::explain(&mut findings, &plan.needs());
    let round = Round {
        host: config.host.clone(),
        at: context.now,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        findings,
        troubles: Vec::new(),
        told: Vec::new(),
    };
    let seen = tools.seen();
    Ok(Looked {
        round,
        troubles: trouble.into_iter().collect(),
        seen,
    })
}

/// Whether whoever is to be told can be told, as a finding of its own.
fn whether_told(memory: &Memory, channels: &[NotifyConfig], now: jiff::Timestamp) -> Finding {
    let ours: Vec<NotifyConfig> = heard(channels);
    let Verdict {
        state,
        found,
        fix,
        figures,
        evidence,
    } = settle(Ok(alert::proven(memory, &ours, now)));
    Finding {
        id: "host/alerts".to_owned(),
        environment: None,
        about: "whoever is to be told can be told".to_owned(),
        state,
        found,
        fix,
        figures,
        evidence,
        took_ms: 0,
        because: None,
    }
}

/// The channels that this tool tells.
pub fn heard(channels: &[NotifyConfig]) -> Vec<NotifyConfig> {
    let ours = channels.iter().filter(|channel| channel.hears(TOOL));
    ours.cloned().collect()
}

fn remembered(
    context: &Context,
    config: &Arc<Config>,
    plan: &Plan,
    known: &BTreeSet<String>,
    patience: BTreeMap<String, rg_common::config::Patience>,
    whole_plan: bool,
) -> Result<(Round, Vec<String>)> {
    let mut run = alert::Run::begin(&config.state, context.now)?;
    let Looked {
        mut round,
        mut troubles,
        mut seen,
    } = looked(context, config, plan, run.memory(), whole_plan)?;
    troubles.extend(run.damaged().map(str::to_owned));
    // What was found is known, and file systems that only other rounds look at.
    let mut known = known.clone();
    known.extend(round.findings.iter().map(|finding| finding.id.clone()));
    if !whole_plan {
        known.insert("host/alerts".to_owned());
        let others = run
            .memory()
            .checks
            .keys()
            .filter(|id| id.starts_with("host/disk"));
        known.extend(others.cloned());
    }
    let quiet = match silence::list(&config.state, context.now) {
        Ok(silences) => silence::quiet(&config.maintenance, &silences, context.now),
        Err(failure) => {
            troubles.push(failure.to_string());
            silence::quiet(&config.maintenance, &[], context.now)
        }
    };
    let channels = heard(&config.notify);
    let rules = alert::Rules {
        patience,
        alerts: config.alerts.clone(),
        quiet,
        channels: alert::Channel::all(&channels),
    };
    let decided = alert::Round {
        findings: &round.findings,
        known: &known,
        now: context.now,
    };
    match run.decide(&decided, &rules) {
        Ok(notices) => round.told = notices.iter().map(told).collect(),
        Err(failure) => troubles.push(failure.to_string()),
    }
    troubles.extend(run.deliver(&context.network, &channels, &config.host, &context.zone));
    let folder = state::folder(&config.state);
    troubles.extend(history(&folder, &round, config));
    seen.keep(&known);
    troubles.extend(seen.write(&folder).err().map(|failure| failure.to_string()));
    if whole_plan {
        troubles.extend(switches(context, &channels, &round));
    }
    Ok((round, troubles))
}

fn told(notice: &alert::Notice) -> String {
    let kind = serde_json::to_value(notice.kind).unwrap_or_default();
    format!(
        "told: {} {}",
        notice.check,
        kind.as_str().unwrap_or_default()
    )
}

/// A broken history never fails a check.
fn history(folder: &std::path::Path, round: &Round, config: &Config) -> Vec<String> {
    let mut troubles = Vec::new();
    let outcome = History::open(folder).and_then(|mut history| {
        troubles.extend(history.put_aside.take());
        history.record(round.at, &round.findings, config.alerts.history)
    });
    troubles.extend(outcome.err().map(|failure: Failure| failure.to_string()));
    troubles
}

/// Dead man's switches: only after a complete round, whatever it found. Their silence means that
/// nobody checks any more; what was found is told elsewhere.
fn switches(context: &Context, channels: &[NotifyConfig], round: &Round) -> Vec<String> {
    let tally = round.tally();
    let account = format!(
        "{}: {} failed, {} unknown, {} warnings, {} well\n",
        round.host, tally.fail, tally.unknown, tally.warn, tally.pass
    );
    let switches = channels.iter().filter(|c| c.kind == NotifyKind::Ping);
    switches
        .filter_map(|channel| {
            let ping = notify::ping(channel, Event::Success, None, &account);
            context.network.block_on(ping).err()
        })
        .map(|failure| failure.to_string())
        .collect()
}
