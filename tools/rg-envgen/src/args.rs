//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use rg_common::cli::{Common, EXIT_CODES};

const EXAMPLES: &str = "Examples:\n  rg-envgen init --profile rgrid --dir /etc/rg\n  rg-envgen write --dry-run\n  rg-envgen rotate DB_PASSWORD --env production\n  rg-envgen export -o kit.age\n  rg-envgen render compose --env staging\n\n";

/// Writes the apps' environment files, keeps them right, and renders what is made from them.
#[derive(Debug, Parser)]
#[command(name = "rg-envgen", version, after_help = format!("{EXAMPLES}{EXIT_CODES}"))]
pub struct Args {
    /// What all tools share.
    #[command(flatten)]
    pub common: Common,
    /// The schema (default: env.schema.toml beside the configuration)
    #[arg(long, value_name = "FILE", global = true)]
    pub schema: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first rg.toml, the schema, and env files with fresh secrets
    Init(Init),
    /// Write what the env files lack; an existing secret never changes
    Write(Write),
    /// Find what is missing, renamed, weak, shared or read differently (exit 1 on findings)
    Check(Check),
    /// Compare the files with the schema, with each other and with what runs
    Diff(Diff),
    /// Give secrets new values, on the server and in the files, everywhere or nowhere
    Rotate(Rotate),
    /// Write everything that rebuilds the deployment into one file encrypted by age
    Export(Export),
    /// Bring back what `export` wrote
    Import(Import),
    /// Print compose files, units and proxy sites made from the same source
    Render(Render),
    /// Print the schema, or its JSON Schema for editors
    Schema(Schema),
    /// Show a variable: where it comes from and who reads it; its value only with --reveal
    Show(Show),
    /// Print a completion script
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// The deployments that ship with the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Staging and production side by side, in docker.
    Rgrid,
    /// One environment without docker.
    Toolkitrag,
}

/// `rg-envgen init`
#[derive(Debug, ClapArgs)]
pub struct Init {
    /// The deployment to begin from
    #[arg(long, value_enum)]
    pub profile: Profile,
    /// Write everything into this directory (default: where the profile's servers have it)
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// What only a person can give
    #[command(flatten)]
    pub given: Given,
    /// A database password is wanted though the database exists or cannot be asked: it will be set
    /// there by hand
    #[arg(long)]
    pub new_database_password: bool,
    /// Set the mode of files that others can read
    #[arg(long)]
    pub fix_modes: bool,
    /// Show what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// Values that a person gives.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct Given {
    /// A value that is no secret, for all environments or for one (production.DOMAIN=…)
    #[arg(long = "set", value_name = "[ENV.]NAME=VALUE")]
    pub set: Vec<String>,
    /// Lines `[ENV.]NAME=VALUE` from this file (`-` for standard input): the way for secrets
    #[arg(long, value_name = "FILE")]
    pub set_from: Option<PathBuf>,
}

/// `rg-envgen write`
#[derive(Debug, ClapArgs)]
pub struct Write {
    /// Only these environments
    pub environments: Vec<String>,
    /// What only a person can give
    #[command(flatten)]
    pub given: Given,
    /// A database password is wanted though the database exists: it was set by hand to what the
    /// file will say, or will be
    #[arg(long)]
    pub new_database_password: bool,
    /// Set the mode of files that others can read
    #[arg(long)]
    pub fix_modes: bool,
    /// Show what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-envgen check`
#[derive(Debug, ClapArgs)]
pub struct Check {
    /// Env files or directories (default: those of the configuration)
    pub paths: Vec<PathBuf>,
    /// Only this environment
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Show a variable's value as each reader sees it
    #[arg(long, value_name = "NAME")]
    pub explain: Option<String>,
    /// Mend what can be mended without losing anything
    #[arg(long)]
    pub fix: bool,
    /// How the findings are written (--json is the same as json)
    #[arg(long, value_enum, value_name = "FORM")]
    pub format: Option<CheckFormat>,
    /// Warnings count too: exit 1
    #[arg(long)]
    pub strict: bool,
    /// Show what check can find, with each code's remedy
    #[arg(long)]
    pub list_codes: bool,
    /// With --fix: show what would be mended
    #[arg(long)]
    pub dry_run: bool,
}

/// How `check` writes its findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people.
    Human,
    /// One JSON document.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// `rg-envgen diff`
#[derive(Debug, ClapArgs)]
pub struct Diff {
    /// One environment: its files against the schema; two: against each other
    pub environments: Vec<String>,
    /// Against what the running unit or container really has
    #[arg(long)]
    pub running: bool,
}

/// `rg-envgen rotate`
#[derive(Debug, ClapArgs)]
pub struct Rotate {
    /// The secrets, by their names in the schema or in the file
    pub names: Vec<String>,
    /// The environment (default: the only one)
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Show the age of each secret instead
    #[arg(long, conflicts_with = "names")]
    pub list: bool,
    /// A file whose first line is the address of a role that may alter others, or with the
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of who may make access keys; the app's own role or
    /// key does it itself otherwise
    #[arg(long, value_name = "FILE")]
    pub admin: Option<PathBuf>,
    /// The new value, from a file's first line (`-` for standard input), for what is made elsewhere;
    /// for an access key AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… lines
    #[arg(long, value_name = "FILE")]
    pub value_from: Option<PathBuf>,
    /// Neither restart units nor ask for health
    #[arg(long)]
    pub leave_units: bool,
    /// How long the app may take to come up healthy, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub health_timeout: u64,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Show what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-envgen export`
#[derive(Debug, ClapArgs)]
pub struct Export {
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Public keys (age1…) that can open it; default: those of the configuration
    #[arg(short, long, value_name = "KEY", conflicts_with_all = ["passphrase", "passphrase_file"])]
    pub recipient: Vec<String>,
    /// Ask for a passphrase on the terminal
    #[arg(long, conflicts_with = "passphrase_file")]
    pub passphrase: bool,
    /// Take the passphrase from a file's first line
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The age identity (private key), to prove at once that the file opens again
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    pub yes: bool,
    /// Show what would be packed
    #[arg(long)]
    pub dry_run: bool,
}

/// `rg-envgen import`
#[derive(Debug, ClapArgs)]
pub struct Import {
    /// The file that `export` wrote
    pub file: PathBuf,
    /// The age identity (private key)
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    pub identity: Option<PathBuf>,
    /// Take the passphrase from a file's first line (asked on the terminal otherwise)
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Put everything into this directory instead of where it was
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Overwrite what differs
    #[arg(long)]
    pub yes: bool,
    /// Show what would change, by names
    #[arg(long)]
    pub dry_run: bool,
}

/// What `render` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A compose file for an environment's containers.
    Compose,
    /// The app's systemd units.
    Systemd,
    /// An nginx site.
    Nginx,
    /// A Caddyfile.
    Caddy,
    /// The SQL that makes the role and the database, with a verifier in place of the password.
    Database,
    /// The user data that makes a fresh server ready, for cloud-init; no secret is in it.
    CloudInit,
}

/// The programs that can stand before the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    /// nginx, with certificates by certbot.
    Nginx,
    /// Caddy, which gets certificates by itself.
    Caddy,
}

impl Proxy {
    /// Its name, as a package's.
    pub fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Caddy => "caddy",
        }
    }
}

/// What `rg-envgen render cloud-init` takes further.
#[derive(Debug, ClapArgs)]
pub struct Server {
    /// cloud-init: a file with the public keys that may log in, one a line
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Vec<PathBuf>,
    /// cloud-init: the user who logs in with them
    #[arg(long, value_name = "NAME", default_value = "ops")]
    pub admin: String,
    /// cloud-init: what stands before the app (default: nginx for rgrid, caddy for toolkitrag)
    #[arg(long, value_enum)]
    pub proxy: Option<Proxy>,
    /// cloud-init: where the server gets the package of these tools (default: you copy it there)
    #[arg(long, value_name = "URL", requires = "package_sha256")]
    pub package: Option<String>,
    /// cloud-init: its SHA-256
    #[arg(long, value_name = "HEX", requires = "package")]
    pub package_sha256: Option<String>,
}

impl Server {
    /// Whether any of it was given.
    pub fn is_given(&self) -> bool {
        !self.ssh_key.is_empty() || self.proxy.is_some() || self.package.is_some()
    }
}

/// `rg-envgen render`
#[derive(Debug, ClapArgs)]
pub struct Render {
    /// What to make
    #[arg(value_enum)]
    pub kind: Kind,
    /// Only this environment
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Write the files into this directory instead of printing them
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Show which files would be written
    #[arg(long)]
    pub dry_run: bool,
    /// For cloud-init.
    #[command(flatten)]
    pub server: Server,
}

/// `rg-envgen schema`
#[derive(Debug, ClapArgs)]
pub struct Schema {
    /// A shipped schema instead of the one in use
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
}

/// `rg-envgen show`
#[derive(Debug, ClapArgs)]
pub struct Show {
    /// The variable
    pub name: String,
    /// Only this environment
    #[arg(long, value_name = "ENV")]
    pub env: Option<String>,
    /// Show its value too
    #[arg(long)]
    pub reveal: bool,
}
