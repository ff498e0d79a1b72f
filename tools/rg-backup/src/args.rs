//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use rg_common::cli::{Common, EXIT_CODES};
use rg_common::names::{BackupId, DatasetName};

const EXAMPLES: &str = "Examples:\n  rg-backup run production\n  rg-backup list\n  rg-backup verify --all --identity ~/backup.key\n  rg-backup prune --dry-run\n\n";

/// Backs up databases, directories and globals, and proves what lies in the stores.
#[derive(Debug, Parser)]
#[command(name = "rg-backup", version, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
pub struct Args {
    /// What all tools share.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up (default: everything), copy to the other stores, then apply retention
    Run(Run),
    /// Show the catalog: id, age, size, content, stores, proof
    List(List),
    /// Re-read stored bytes and prove digests and readability (exit 1 on any damage)
    Verify(Verify),
    /// Copy what a store lacks, after an outage
    Sync(Sync),
    /// Apply retention now; --dry-run prints the plan with the reason for each line
    Prune(Prune),
    /// Keep a backup for ever
    Pin(Pin),
    /// Keep a backup no longer than retention says
    Unpin(Pin),
    /// Take the old scripts' *.sql, *.sql.gz, *.dump and *.tar.gz into the catalog
    Adopt(Adopt),
    /// Show the next runs; --install writes the systemd timers
    Schedule(Schedule),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// `rg-backup run`
#[derive(Debug, ClapArgs)]
pub struct Run {
    /// Datasets (production/database), environments (production) or globals
    pub datasets: Vec<String>,
    /// Dump a database under this exported snapshot (`pg_export_snapshot()`) of another session
    #[arg(long, value_name = "ID")]
    pub snapshot: Option<String>,
    /// Leave retention for another time
    #[arg(long)]
    pub no_prune: bool,
    /// Check everything that can be checked, write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup list`
#[derive(Debug, ClapArgs)]
pub struct List {
    /// Only these datasets or environments
    pub datasets: Vec<String>,
}

/// `rg-backup verify`
#[derive(Debug, ClapArgs)]
pub struct Verify {
    /// Backup ids
    pub ids: Vec<BackupId>,
    /// The newest backup of every dataset (the default)
    #[arg(long, conflicts_with_all = ["ids", "all"])]
    pub latest: bool,
    /// Every backup
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Only the copies in this store
    #[arg(long, value_name = "STORE")]
    pub store: Option<String>,
    /// The age identity (private key), to prove the content of encrypted backups too
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Record nothing in the store
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup sync`
#[derive(Debug, ClapArgs)]
pub struct Sync {
    /// Only these datasets or environments
    pub datasets: Vec<String>,
    /// Show what would be copied
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup prune`
#[derive(Debug, ClapArgs)]
pub struct Prune {
    /// Only these datasets or environments
    pub datasets: Vec<String>,
    /// Show the plan with the reason for each line
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup pin` and `unpin`
#[derive(Debug, ClapArgs)]
pub struct Pin {
    /// The backup
    pub id: BackupId,
    /// Change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup adopt`
#[derive(Debug, ClapArgs)]
pub struct Adopt {
    /// The folder with the old backups, or one file
    pub path: PathBuf,
    /// The dataset they are backups of
    #[arg(long = "as", value_name = "DATASET")]
    pub dataset: DatasetName,
    /// Read and judge them, take none
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-backup schedule`
#[derive(Debug, ClapArgs)]
pub struct Schedule {
    /// Write the timers
    #[arg(long)]
    pub install: bool,
    /// Where the units are written
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    pub dir: PathBuf,
    /// Show what would be written
    #[arg(long)]
    pub dry_run: bool,
}
