//! Makes buckets what `rg.toml` says they are, and proves it.

use std::process::ExitCode;

fn main() -> ExitCode {
    rg_common::cli::main::<rg_bucket::Args>()
}
