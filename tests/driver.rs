//! The tools behind one door: `rg-driver rg-backup ARGS…`. Cargo builds what the suite runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.first().and_then(|name| name.to_str()) {
        Some("rg-backup") => rg_common::cli::run::<rg_backup::Args>(args),
        Some("rg-envgen") => rg_common::cli::run::<rg_envgen::Args>(args),
        Some("rg-bucket") => rg_common::cli::run::<rg_bucket::Args>(args),
        Some("rg-healthcheck") => rg_common::cli::run::<rg_healthcheck::Args>(args),
        Some("rg-restore") => rg_common::cli::run::<rg_restore::Args>(args),
        _ => ExitCode::from(64),
    }
}
