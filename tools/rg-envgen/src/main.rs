//! Writes the apps' environment files, keeps them right, and renders what is made from them.

use std::process::ExitCode;

fn main() -> ExitCode {
    rg_common::cli::main::<rg_envgen::Args>()
}
