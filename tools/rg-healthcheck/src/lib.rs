//! rg-healthcheck: knows first, tells once, and says why.
//!
//! The story of a run: `plan` derives the checks from `rg.toml`, `round` runs them side by side
//! with a deadline each, `cause` finds which failure is another's consequence, `alert` (a pure state machine over
//! `state`) says what is due, and the outbox sends it. Then the findings are remembered in the
//! `history`, which may fail without failing a check.

pub mod alert;
mod args;
mod cause;
mod history;
mod logs;
mod look;
mod page;
mod plan;
mod quiet;
mod report;
mod round;
mod run;
mod seen;
mod show;
pub mod silence;
pub mod state;
mod status;
mod watch;

pub use args::Args;
use args::Command;
use rg_common::Result;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::Report;

impl Tool for Args {
    const NAME: &'static str = "rg-healthcheck";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, context: &Context) -> Result<Box<dyn Report>> {
        match self.command()? {
            Command::Run(args) => run::run(context, &args),
            Command::Watch(args) => watch::watch(context, &args),
            Command::Status(args) => status::status(context, &args),
            Command::Report(args) => report::report(context, &args),
            Command::Logs(args) => logs::logs(context, &args),
            Command::Silence(args) => quiet::silence(context, &args),
            Command::AlertTest(args) => quiet::alert_test(context, &args),
            Command::Completions { shell } => Ok(cli::completions::<Args>(shell)),
        }
    }
}
