//! rg-backup: backs up what `rg.toml` names, and proves it.
//!
//! The story: `run` dumps a dataset through `seal` into its first store, reads it back, records
//! it, copies it to the other stores and lets `retention` say what is no longer wanted. `list`,
//! `verify`, `sync`, `prune`, `pin` work on the catalog; `adopt` takes the old scripts' files
//! into it; `schedule` turns the configuration's cron expressions into systemd timers.

mod adopt;
mod args;
mod list;
mod pin;
mod prune;
pub mod retention;
mod run;
mod schedule;
mod sync;
mod verify;

pub use args::Args;
use args::Command;
use rg_common::Result;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::Report;

impl Tool for Args {
    const NAME: &'static str = "rg-backup";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, context: &Context) -> Result<Box<dyn Report>> {
        match self.command {
            Command::Run(args) => run::run(context, &args),
            Command::List(args) => list::list(context, &args),
            Command::Verify(args) => verify::verify(context, &args),
            Command::Sync(args) => sync::sync(context, &args),
            Command::Prune(args) => prune::prune(context, &args),
            Command::Pin(args) => pin::set(context, &args, true),
            Command::Unpin(args) => pin::set(context, &args, false),
            Command::Adopt(args) => adopt::adopt(context, &args),
            Command::Schedule(args) => schedule::schedule(context, &args),
            Command::Completions { shell } => Ok(cli::completions::<Args>(shell)),
        }
    }
}
