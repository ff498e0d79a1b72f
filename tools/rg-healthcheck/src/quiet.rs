//! `silence` and `alert-test`.

use rg_common::cli::Context;
use rg_common::config::nearest;
use rg_common::report::{Outcome, Page, Plain, Report};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::alert::{self, Tested};
use crate::status::silence_line;
use crate::{args, run, silence, state};

/// Begins, lists or ends silences.
pub fn silence(context: &Context, args: &args::Silence) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    state::make_folder(&config.state)?;
    let (silences, none) = if args.end {
        (
            silence::end(&config.state, context.now)?,
            "there was no silence",
        )
    } else if let (Some(lasts), Some(reason), false) = (args.lasts, &args.reason, args.list) {
        let begun = silence::begin(&config.state, args.what.clone(), lasts, reason, context.now)?;
        (vec![begun], "")
    } else {
        (
            silence::list(&config.state, context.now)?,
            "there is no silence",
        )
    };
    let mut text: Vec<String> = silences.iter().map(silence_line).collect();
    if args.end && !silences.is_empty() {
        text.insert(0, "ended:".to_owned());
    }
    if text.is_empty() {
        text.push(none.to_owned());
    }
    Ok(Box::new(Plain {
        document: silences,
        text: text.join("\n"),
        outcome: Outcome::Well,
    }))
}

#[derive(Serialize)]
struct Tests {
    tested: Vec<Tested>,
}

/// Sends a test to each channel; exit 1 when one did not take it.
pub fn alert_test(context: &Context, args: &args::AlertTest) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let ours = run::heard(&config.notify);
    if ours.is_empty() {
        return Err(Failure::new("no channel is configured")
            .hint("add [notify.NAME] with kind = \"mail\" and to = \"…\""));
    }
    for name in &args.channels {
        if !ours.iter().any(|channel| channel.name == *name) {
            let failure = Failure::new(format!("no channel `{name}` is configured"));
            let names = ours.iter().map(|channel| channel.name.as_str());
            return Err(match nearest(name, names) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            });
        }
    }
    let chosen: Vec<_> = ours
        .iter()
        .filter(|channel| args.channels.is_empty() || args.channels.contains(&channel.name))
        .collect();
    let mut run = alert::Run::begin(&config.state, context.now)?;
    let tested = run.test(&context.network, &chosen, &config.host)?;
    Ok(Box::new(Tests { tested }))
}

impl Report for Tests {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for one in &self.tested {
            match &one.error {
                None => page.line(format!(
                    "{}: took the test in {} ms",
                    one.channel, one.took_ms
                )),
                Some(error) => {
                    page.line(error);
                    for hint in &one.hints {
                        page.line(format!("  hint: {hint}"));
                    }
                }
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match self.tested.iter().any(|one| one.error.is_some()) {
            true => Outcome::BadNews,
            false => Outcome::Well,
        }
    }
}
