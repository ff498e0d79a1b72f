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
mod page;
mod plan;
mod round;
mod show;
pub mod silence;
pub mod state;

pub use args::Args;
use args::Command;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::{Outcome, Plain, Report};
use rg_common::{Failure, Result};

impl Tool for Args {
    const NAME: &'static str = "rg-healthcheck";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, _context: &Context) -> Result<Box<dyn Report>> {
        match self.command {
            Some(Command::Completions { shell }) => {
                let text = cli::completions::<Args>(shell, Self::NAME);
                Ok(Box::new(Plain {
                    document: text.clone(),
                    text,
                    outcome: Outcome::Well,
                }))
            }
            _ => Err(Failure::new("not there yet")),
        }
    }
}
