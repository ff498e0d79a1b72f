//! `watch`: the checks again and again on a terminal. Nothing is remembered and nobody is told, so
//! that it can run beside the timer.

use std::io::{self, IsTerminal, Write};

use rg_common::cli::Context;
use rg_common::report::{Page, Plain, Report};
use rg_common::{OrFail, Result, stop};

use crate::args;
use crate::run;

/// Clears the screen and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Shows rounds until Ctrl-C, or as many as were asked for; the exit code is the last one's.
pub fn watch(context: &Context, args: &args::Watch) -> Result<Box<dyn Report>> {
    let once = args::Run {
        environments: args.environments.clone(),
        dry_run: true,
        ..args::Run::default()
    };
    let mut done = 0;
    loop {
        let report = run::run(context, &once)?;
        let last = report.outcome();
        show(&*report)?;
        done += 1;
        if args.rounds.is_some_and(|rounds| done >= rounds) || stop::pause(args.every).is_err() {
            return Ok(Box::new(Plain {
                document: done,
                text: String::new(),
                outcome: last,
            }));
        }
    }
}

fn show(report: &dyn Report) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let terminal = stdout.is_terminal();
    let mut page = Page::new(terminal);
    report.human(&mut page);
    let begin = if terminal { CLEAR } else { "" };
    write!(stdout, "{begin}{}", page.text())
        .and_then(|()| stdout.flush())
        .or_fail(|| "cannot write to stdout".to_owned())
}
