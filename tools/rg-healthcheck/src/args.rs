//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use rg_common::cli::{Common, EXIT_CODES};
use rg_common::{Failure, Result};

const EXAMPLES: &str = "Examples:\n  rg-healthcheck\n  rg-healthcheck production --format nagios\n  rg-healthcheck silence --for 10m --reason deploy\n  rg-healthcheck report --html /var/www/status.html\n  rg-healthcheck logs production --last 1h\n\n--format nagios speaks the plugin protocol and exits with 0, 1, 2 or 3 as that demands.\n\n";

/// Runs the checks once, remembers what they found, tells whom it concerns.
#[derive(Debug, Parser)]
#[command(name = "rg-healthcheck", version, subcommand_precedence_over_arg = true, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
pub struct Args {
    /// What all tools share.
    #[command(flatten)]
    pub common: Common,
    /// What `run` takes, which may be left out.
    #[command(flatten)]
    pub run: Run,
    /// What to do; without it the checks are run.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Args {
    /// What is to be done. Environments before a command would be for nothing.
    pub fn command(self) -> Result<Command> {
        match self.command {
            None => Ok(Command::Run(self.run)),
            Some(command) if self.run == Run::default() => Ok(command),
            Some(_) => Err(Failure::new("there are arguments before the command")
                .hint("write them behind it: rg-healthcheck status production")),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the checks once, remember, send what is due (the default)
    Run(Run),
    /// Show what the checks say, again and again, until Ctrl-C
    Watch(Watch),
    /// Show what is known without checking: states, incidents, uptime
    Status(Status),
    /// Write the status page: one HTML file that needs nothing else
    Report(Report),
    /// Count errors, rate-limit violations, paths and durations in the app's logs
    Logs(Logs),
    /// Tell nobody of failures for a while; checks go on
    Silence(Silence),
    /// Send a test to every channel and record that it arrived
    AlertTest(AlertTest),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// How findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON document.
    Json,
    /// The Nagios plugin protocol, with its exit codes.
    Nagios,
    /// Prometheus' text format.
    Prometheus,
}

/// `rg-healthcheck run`
#[derive(Debug, Default, PartialEq, ClapArgs)]
pub struct Run {
    /// Environments; default: all, and the machine
    pub environments: Vec<String>,
    /// How the findings are written
    #[arg(long, value_enum, default_value = "human")]
    pub format: Format,
    /// Write to this file, whole or not at all, instead of stdout (for Prometheus' textfile collector)
    #[arg(long, value_name = "FILE", requires = "format")]
    pub output: Option<PathBuf>,
    /// Only checks whose id has this in it (may be repeated)
    #[arg(long, value_name = "WORD")]
    pub only: Vec<String>,
    /// Check and show, remember and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-healthcheck watch`
#[derive(Debug, ClapArgs)]
pub struct Watch {
    /// Environments; default: all, and the machine
    pub environments: Vec<String>,
    /// The pause between two rounds
    #[arg(long, default_value = "5s", value_parser = rg_common::config::duration)]
    pub every: std::time::Duration,
    /// End after so many rounds
    #[arg(long)]
    pub rounds: Option<u32>,
}

/// `rg-healthcheck status`
#[derive(Debug, ClapArgs)]
pub struct Status {
    /// Environments; default: all, and the machine
    pub environments: Vec<String>,
}

/// `rg-healthcheck report`
#[derive(Debug, ClapArgs)]
pub struct Report {
    /// The file to write, whole or not at all
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,
    /// Environments; default: all, and the machine
    pub environments: Vec<String>,
}

/// `rg-healthcheck logs`
#[derive(Debug, ClapArgs)]
pub struct Logs {
    /// Environments; default: all that have a log
    pub environments: Vec<String>,
    /// The window that ends now
    #[arg(long, default_value = "1h", value_parser = rg_common::config::duration)]
    pub last: std::time::Duration,
}

/// `rg-healthcheck silence`
#[derive(Debug, ClapArgs)]
pub struct Silence {
    /// Environments or parts of check ids; default: everything
    pub what: Vec<String>,
    /// How long, at most 7d: a silence always ends
    #[arg(long = "for", value_parser = rg_common::config::duration, required_unless_present_any = ["list", "end"])]
    pub lasts: Option<std::time::Duration>,
    /// Why; it is shown with everything that it keeps quiet
    #[arg(long, required_unless_present_any = ["list", "end"])]
    pub reason: Option<String>,
    /// Show the silences
    #[arg(long)]
    pub list: bool,
    /// End all of them now
    #[arg(long)]
    pub end: bool,
}

/// `rg-healthcheck alert-test`
#[derive(Debug, ClapArgs)]
pub struct AlertTest {
    /// Channels of rg.toml; default: all
    pub channels: Vec<String>,
}
