//! rg-bucket: makes buckets what `rg.toml` says they are, and proves it.
//!
//! The story: `wanted` is what the configuration declares, `live` asks the service what is found,
//! `plan` compares the two and yields steps, `apply` performs them and asks again. What somebody
//! without a key can do is not read from a policy alone: `stranger` tries it. There is no state
//! file, and no step that replaces or empties a bucket. `list`, `usage`, `probe`, `presign`,
//! `clean` and `mirror` work on the objects.

mod apply;
mod args;
mod clean;
mod endpoint;
mod exposure;
mod found;
mod lifecycle;
mod list;
mod live;
mod mirror;
mod pages;
mod plan;
mod policy;
mod presign;
mod probe;
mod review;
mod server;
mod span;
mod stranger;
mod target;
mod typed;
mod usage;
mod wanted;

pub use args::Args;
use args::Command;
use rg_common::Result;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::Report;

impl Tool for Args {
    const NAME: &'static str = "rg-bucket";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, context: &Context) -> Result<Box<dyn Report>> {
        match self.command {
            Command::Plan(args) => review::plan(context, &args),
            Command::Apply(args) => review::apply(context, &args),
            Command::List(args) => list::list(context, &args),
            Command::Usage(args) => usage::usage(context, &args),
            Command::Probe(args) => probe::probe(context, &args),
            Command::Mirror(args) => mirror::mirror(context, &args),
            Command::Presign(args) => presign::presign(context, &args),
            Command::Clean(args) => clean::clean(context, &args),
            Command::Completions { shell } => Ok(cli::completions::<Args>(shell)),
        }
    }
}
