//! Knows first, tells once, and says why.

use std::process::ExitCode;

fn main() -> ExitCode {
    rg_common::cli::main::<rg_healthcheck::Args>()
}
