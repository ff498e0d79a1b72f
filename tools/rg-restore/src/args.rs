//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use rg_common::cli::{Common, EXIT_CODES};
use rg_common::names::BackupId;

const EXAMPLES: &str = "Examples:\n  rg-restore\n  rg-restore run production --yes\n  rg-restore run production/database --at '2026-01-23 02:30' --beside look\n  rg-restore undo production/database\n  rg-restore drill --identity /root/backup.key\n\n";

/// Restores what was backed up: beside the live data, compared, then exchanged in one step.
#[derive(Debug, Parser)]
#[command(name = "rg-restore", version, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
pub struct Args {
    /// What all tools share.
    #[command(flatten)]
    pub common: Common,
    /// What to do; nothing lists what can be restored.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what can be restored, the newest last (the default)
    List(List),
    /// Restore; default the newest backup, over the live data by an atomic exchange
    Run(Run),
    /// Put back what the last restore replaced
    Undo(Undo),
    /// Restore into a scratch place, compare with what the backup recorded, record the proof
    Drill(Drill),
    /// Fetch a backup's data file out of its store
    Fetch(Fetch),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// `rg-restore list`
#[derive(Debug, Default, ClapArgs)]
pub struct List {
    /// Only these datasets or environments
    pub datasets: Vec<String>,
}

/// What is shared by all that reads backups.
#[derive(Debug, Clone, ClapArgs)]
pub struct Reading {
    /// The age identity (private key) that opens encrypted backups
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Read from this store only
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// Parallel jobs of pg_restore and of the comparison [default: the processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Give everything in a database to the connecting role and leave grants out
    #[arg(long)]
    pub no_owner: bool,
}

/// `rg-restore run`
#[derive(Debug, Clone, ClapArgs)]
pub struct Run {
    /// Datasets (production/database) or environments (production)
    #[arg(required = true)]
    pub datasets: Vec<String>,
    /// A backup id, or a bare .sql, .sql.gz, .dump or .tar.gz file
    #[arg(long, value_name = "ID|FILE", conflicts_with = "at")]
    pub from: Option<String>,
    /// The newest backup at that time (host's time zone): '2026-01-23 02:30'
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Restore under this name (a database, or a new directory) and leave the live one alone
    #[arg(long, value_name = "NAME")]
    pub beside: Option<String>,
    /// Replace only the rows of this table (may be repeated)
    #[arg(long = "table", value_name = "T", conflicts_with = "beside")]
    pub tables: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
    /// Leave the app's units alone: neither stop nor start them, nor ask for health
    #[arg(long)]
    pub leave_units: bool,
    /// How long the app may take to come up healthy, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub health_timeout: u64,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Check everything that can be checked and show the plan; change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-restore undo`
#[derive(Debug, Clone, ClapArgs)]
pub struct Undo {
    /// The dataset or environment
    pub dataset: String,
    /// Leave the app's units alone
    #[arg(long)]
    pub leave_units: bool,
    /// How long the app may take to come up healthy, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub health_timeout: u64,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Show what would be put back
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-restore drill`
#[derive(Debug, Clone, ClapArgs)]
pub struct Drill {
    /// Only these datasets or environments
    pub datasets: Vec<String>,
    /// Drill this backup instead of the newest
    #[arg(long, value_name = "ID")]
    pub from: Option<BackupId>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
    /// Show what would be drilled
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-restore fetch`
#[derive(Debug, Clone, ClapArgs)]
pub struct Fetch {
    /// The backup
    pub id: BackupId,
    /// Where the file goes
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,
    /// Decrypt and decompress it
    #[arg(long)]
    pub plain: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub reading: Reading,
    /// Show what would be written
    #[arg(long)]
    pub dry_run: bool,
}
