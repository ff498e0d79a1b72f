//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use rg_common::cli::{Common, EXIT_CODES};

const EXAMPLES: &str = "Examples:\n  rg-bucket plan production\n  rg-bucket apply production/buckets/artifacts\n  rg-bucket usage store:offsite\n  rg-bucket mirror production/buckets/artifacts store:offsite --dry-run\n  rg-bucket presign reports/march.pdf --expires 1h\n\nBuckets are named as datasets are (production/buckets/artifacts; production means all of its\nbuckets), and the bucket of a store as store:NAME.\n\n";

/// Makes buckets what rg.toml says they are, and proves it.
#[derive(Debug, Parser)]
#[command(name = "rg-bucket", version, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
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
    /// Show what differs from rg.toml, and what somebody without a key can do (exit 1 on either)
    Plan(Plan),
    /// Make it so: create, policy, versioning, lifecycle, CORS, lock; then prove it
    Apply(Apply),
    /// List objects
    List(List),
    /// Count objects, bytes, old versions, delete markers and open uploads
    Usage(Usage),
    /// Put, get, compare, sign and delete a small object, each timed
    Probe(Probe),
    /// Copy what one bucket has to another, and verify it there
    Mirror(Mirror),
    /// Print a link that lets its bearer read one object for a time
    Presign(Presign),
    /// Drop uploads that were never completed; with --all-objects empty the bucket
    Clean(Clean),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// `rg-bucket plan`
#[derive(Debug, ClapArgs)]
pub struct Plan {
    /// Buckets (production/buckets/artifacts, store:offsite) or environments; default: all of the environments'
    pub buckets: Vec<String>,
    /// Show the policy to put, and the least that the application's own key needs
    #[arg(long)]
    pub show_policy: bool,
}

/// `rg-bucket apply`
#[derive(Debug, ClapArgs)]
pub struct Apply {
    /// Buckets or environments; default: all of the environments'
    pub buckets: Vec<String>,
    /// Show the plan, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `rg-bucket list`
#[derive(Debug, ClapArgs)]
pub struct List {
    /// The bucket, where there are several
    pub bucket: Option<String>,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Every version and delete marker
    #[arg(long)]
    pub versions: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Go on behind this key (the report names it when there is more)
    #[arg(long, value_name = "KEY", conflicts_with = "versions")]
    pub after: Option<String>,
}

/// `rg-bucket usage`
#[derive(Debug, ClapArgs)]
pub struct Usage {
    /// Buckets or environments; default: all of the environments'
    pub buckets: Vec<String>,
}

/// `rg-bucket probe`
#[derive(Debug, ClapArgs)]
pub struct Probe {
    /// Buckets or environments; default: all of the environments'
    pub buckets: Vec<String>,
    /// Say what would be tried
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-bucket mirror`
#[derive(Debug, ClapArgs)]
pub struct Mirror {
    /// The bucket that is read
    pub from: String,
    /// The bucket that is written
    pub to: String,
    /// Delete what the source does not have (any more)
    #[arg(long)]
    pub delete: bool,
    /// Refuse to delete more than this share of the target's objects
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    pub max_delete: u8,
    /// Read every copy back and compare SHA-256, instead of trusting the server's checksum
    #[arg(long)]
    pub reread: bool,
    /// Show what would be copied and deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before deleting
    #[arg(long)]
    pub yes: bool,
}

/// `rg-bucket presign`
#[derive(Debug, ClapArgs)]
pub struct Presign {
    /// The object
    pub key: String,
    /// The bucket, where there are several
    #[arg(long, value_name = "BUCKET")]
    pub bucket: Option<String>,
    /// For how long: 15m, 1h, 7d (the longest)
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub expires: String,
    /// The service's public address, where the configured one is this machine's own
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Sign although the address works on this machine only
    #[arg(long)]
    pub loopback: bool,
}

/// `rg-bucket clean`
#[derive(Debug, ClapArgs)]
pub struct Clean {
    /// The bucket, where there are several
    pub bucket: Option<String>,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Uploads that began before this; a running one is younger
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub older_than: String,
    /// Delete every object, with all of its versions
    #[arg(long)]
    pub all_objects: bool,
    /// The bucket's own name, instead of typing it when --all-objects asks
    #[arg(long, value_name = "NAME", requires = "all_objects")]
    pub confirm: Option<String>,
    /// Show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before dropping uploads
    #[arg(long)]
    pub yes: bool,
}

/// `10%` or `10`.
fn percent(text: &str) -> Result<u8, String> {
    match text.trim_end_matches('%').parse() {
        Ok(number @ 0..=100) => Ok(number),
        _ => Err("a share is written 0% to 100%".to_owned()),
    }
}
