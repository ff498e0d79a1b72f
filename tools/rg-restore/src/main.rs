//! Puts back what rg-backup took, and can take it back.

use std::process::ExitCode;

fn main() -> ExitCode {
    rg_common::cli::main::<rg_restore::Args>()
}
