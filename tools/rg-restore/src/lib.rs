//! rg-restore: puts back what rg-backup took, and can take it back.
//!
//! The story: `choose` a backup, open it as a `source` whose clean end means that every digest was
//! right, fill a `database` or a directory (`files`) beside the live one and compare it with what
//! was recorded, then `exchange` all of it in one go, written down in a `journal` first. `undo` is
//! the same exchange the other way; `drill` does everything but the exchange.

mod args;
mod bootstrap;
mod bucket;
mod choose;
mod database;
mod drill;
mod exchange;
mod fetch;
mod files;
mod globals;
pub mod inplace;
mod journal;
mod list;
mod live;
mod prepared;
mod proof;
mod run;
mod scratch;
mod source;
pub mod table;
mod undo;

pub use args::Args;
use args::{Command, List};
use rg_common::Result;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::Report;

impl Tool for Args {
    const NAME: &'static str = "rg-restore";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, context: &Context) -> Result<Box<dyn Report>> {
        match self.command.unwrap_or(Command::List(List::default())) {
            Command::List(args) => list::list(context, &args),
            Command::Run(args) => run::run(context, &args),
            Command::Undo(args) => undo::undo(context, &args),
            Command::Drill(args) => drill::drill(context, &args),
            Command::Fetch(args) => fetch::fetch(context, &args),
            Command::Completions { shell } => Ok(cli::completions::<Args>(shell)),
        }
    }
}
