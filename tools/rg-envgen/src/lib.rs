//! rg-envgen: environment files that are right, and stay right.
//!
//! The story: a `schema` names each variable once, for all environments and all who read it.
//! `init` writes a first configuration, `write` adds what the files lack and changes nothing that
//! is there, `check` and `diff` find what is wrong, `rotate` gives secrets new values everywhere
//! or nowhere, `export` and `import` carry everything to another machine, and `render` makes the
//! deployment's other files from the same source.

mod address;
mod args;
mod audit;
mod check;
mod derive;
mod diff;
mod edit;
mod exists;
mod explain;
mod export;
mod generate;
mod given;
mod import;
mod init;
mod kit;
mod owners;
mod passphrase;
mod place;
mod profile;
mod render;
mod replace;
mod rotate;
mod safe;
pub mod schema;
mod show;
mod write;

pub use args::Args;
use args::Command;
use rg_common::Result;
use rg_common::cli::{self, Common, Context, Tool};
use rg_common::report::Report;

impl Tool for Args {
    const NAME: &'static str = "rg-envgen";

    fn common(&self) -> &Common {
        &self.common
    }

    fn run(self, context: &Context) -> Result<Box<dyn Report>> {
        let schema = self.schema.as_deref();
        // No secret in a core dump, and no other process of the user reads our memory.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).ok();
        match self.command {
            Command::Init(args) => init::init(context, &args),
            Command::Write(args) => write::write(context, schema, &args),
            Command::Rotate(args) => rotate::rotate(context, schema, &args),
            Command::Render(args) => render::render(context, schema, &args),
            Command::Export(args) => export::export(context, schema, &args),
            Command::Import(args) => import::import(context, &args),
            Command::Schema(args) => show::schema(context, schema, &args),
            Command::Show(args) => show::show(context, schema, &args),
            Command::Diff(args) => diff::diff(context, schema, &args),
            Command::Check(args) => check::check(context, schema, &args),
            Command::Completions { shell } => Ok(cli::completions::<Args>(shell)),
        }
    }
}
