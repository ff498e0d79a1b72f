//! Backs up what `rg.toml` names, and proves it.

use std::process::ExitCode;

fn main() -> ExitCode {
    rg_common::cli::main::<rg_backup::Args>()
}
