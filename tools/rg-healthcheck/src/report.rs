//! `report --html`: the status page as a file.

use rg_common::cli::Context;
use rg_common::report::{Outcome, Plain, Report};
use rg_common::{Failure, Result, whole};
use serde::Serialize;

use crate::history::History;
use crate::{args, page, state};

/// Web servers must read it; it holds no secret.
const MODE: u32 = 0o644;

#[derive(Serialize)]
struct Written {
    html: std::path::PathBuf,
    bytes: usize,
}

/// Writes the page from what is remembered; nothing is checked.
pub fn report(context: &Context, args: &args::Report) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    for name in &args.environments {
        known(&config, name)?;
    }
    state::make_folder(&config.state)?;
    let history = History::open(&state::folder(&config.state))?;
    let wanted = |environment: Option<&str>| {
        args.environments.is_empty()
            || environment.is_some_and(|name| args.environments.iter().any(|e| e == name))
    };
    let html = page::render(&history, &config.host, context.now, &context.zone, wanted)?;
    whole::write(&args.html, html.as_bytes(), MODE)?;
    let mut text = format!("wrote {}", args.html.display());
    if let Some(told) = &history.put_aside {
        text = format!("note: {told}\n{text}");
    }
    Ok(Box::new(Plain {
        document: Written {
            html: args.html.clone(),
            bytes: html.len(),
        },
        text,
        outcome: Outcome::Well,
    }))
}

/// An environment of the configuration, or an error that names the nearest.
pub fn known(config: &rg_common::config::Config, name: &str) -> Result<()> {
    if config.environment(name).is_some() {
        return Ok(());
    }
    let failure = Failure::new(format!(
        "no environment `{name}` in {}",
        config.path.display()
    ));
    let names = config.environments.iter().map(|e| e.name.as_str());
    Err(match rg_common::config::nearest(name, names) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    })
}
