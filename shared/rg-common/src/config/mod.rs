//! `rg.toml` as validated types. Parsed once; then nothing checks again.
//!
//! Unknown keys are errors that name the line and the nearest known key. No secret stands in the
//! file: `$NAME` in a value is looked up in the environment's `env_file`, and only when the value
//! is needed, so that listing backups works where the env file cannot be read.

mod bucket;
mod checks;
mod ordered;
mod raw;
mod value;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::env_file::EnvFile;
use crate::failure::{Failure, OrFail, Result};
use crate::keep::Keep;
use crate::names::{DatasetName, is_word};
use crate::schedule::Schedule;
pub use bucket::{
    Access, BucketConfig, BucketStore, CorsRule, CredentialsPlace, LockConfig, LockMode,
};
pub use checks::{
    AlertsConfig, CheckConfig, CheckKind, HttpCheck, LogPlace, Maintenance, Patience,
    SqlExpectation, duration,
};
pub use ordered::Ordered;
pub use value::Value;

/// Where the configuration is looked for when neither `--config` nor `$RG_CONFIG` names one.
pub const DEFAULT_PATH: &str = "/etc/rg/rg.toml";
/// `rg.toml` is refused above this size.
const BYTES_MAX: u64 = 4 << 20;

/// Everything that `rg.toml` says, with paths made absolute.
#[derive(Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The name of this machine in manifests and messages.
    pub host: String,
    /// Where the tools keep what is not a backup: locks, journals, the proof of drills.
    pub state: PathBuf,
    /// Where backups go, in the file's order; the first is written by `run`, the others get copies.
    pub stores: Vec<StoreConfig>,
    /// Public keys; empty means that backups are not encrypted.
    pub recipients: Vec<String>,
    /// Whom to tell.
    pub notify: Vec<NotifyConfig>,
    /// Everything that can be backed up, in the file's order, globals first.
    pub datasets: Vec<DatasetConfig>,
    /// The environments by name, in the file's order.
    pub environments: Vec<Environment>,
    /// The checks of `[[check]]`, in the file's order.
    pub checks: Vec<CheckConfig>,
    /// When somebody is told of failed checks.
    pub alerts: AlertsConfig,
    /// When nobody is.
    pub maintenance: Vec<Maintenance>,
}

/// A place for backups.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Its name in `rg.toml`.
    pub name: String,
    /// What kind of place it is.
    pub place: StorePlace,
}

/// What kind of place a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// A directory on this machine.
    Folder(PathBuf),
    /// A part of an S3-compatible bucket.
    Bucket(Box<BucketStore>),
}

impl StorePlace {
    /// Whether two names are the same place, however it is reached.
    fn is_same(&self, other: &StorePlace) -> bool {
        match (self, other) {
            (StorePlace::Folder(one), StorePlace::Folder(other)) => one == other,
            (StorePlace::Bucket(one), StorePlace::Bucket(other)) => one.is_same(other),
            _ => false,
        }
    }
}

/// Somebody or something to tell.
#[derive(Debug, Clone)]
pub struct NotifyConfig {
    /// Its name in `rg.toml`.
    pub name: String,
    /// `mail`, `webhook`, `slack`, `discord`, `ntfy` or `ping`.
    pub kind: NotifyKind,
    /// The address to post to; for mail `smtps://…` or `smtp://…`, and the machine's sendmail without.
    pub url: Option<Value>,
    /// Where `$NAME` in the address is looked up; the process's own environment otherwise.
    pub env_file: Option<PathBuf>,
    /// For mail: the address it goes to, or several with commas.
    pub to: Option<String>,
    /// For mail: the sender; `rg@HOST` otherwise.
    pub from: Option<String>,
    /// The least that is told here.
    pub level: NotifyLevel,
    /// Told only what no other channel could deliver.
    pub fallback: bool,
    /// The tools that tell it; empty: all.
    pub tools: Vec<String>,
}

impl NotifyConfig {
    /// Whether this tool tells it. A dead man's switch that two tools share hides the silence of one.
    pub fn hears(&self, tool: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|name| name == tool)
    }
}

/// The least that a channel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifyLevel {
    /// Warnings, what could not be looked at, failures.
    #[default]
    Warn,
    /// Failures alone.
    Fail,
}

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifyKind {
    /// Mail.
    Mail,
    /// A JSON document by HTTP POST.
    Webhook,
    /// Slack's incoming webhook.
    Slack,
    /// Discord's webhook.
    Discord,
    /// ntfy.
    Ntfy,
    /// A dead man's switch in the style of healthchecks.io: start, success, fail.
    Ping,
}

/// One environment: staging, production.
#[derive(Debug)]
pub struct Environment {
    /// Its name in `rg.toml`.
    pub name: String,
    /// The app's env file, where `$NAME` is looked up.
    pub env_file: Option<PathBuf>,
    /// What runs there.
    pub app: App,
}

/// What runs in an environment.
#[derive(Debug, Default, Clone)]
pub struct App {
    /// systemd units to stop before the exchange and to start after it.
    pub units: Vec<String>,
    /// Containers that belong to it.
    pub containers: Vec<String>,
    /// The name under which the public reaches it.
    pub domain: Option<String>,
    /// Its ports by what listens there, in the file's order.
    pub ports: Vec<(String, u16)>,
    /// Addresses that must answer well before a restore counts as done.
    pub health: Vec<HealthConfig>,
    /// Where the app logs.
    pub log: Option<LogPlace>,
}

/// One address of an app and what it must answer.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthConfig {
    /// `http://…`
    pub url: String,
    /// The status it must answer with.
    pub status: u16,
    /// Values that must be in its JSON answer, by simple path (`$.status`).
    pub json: Vec<(String, serde_json::Value)>,
    /// The most that it may take, in milliseconds.
    pub max_ms: Option<u64>,
}

/// A dataset with everything that is configured for it.
#[derive(Debug, Clone)]
pub struct DatasetConfig {
    /// `production/database`
    pub name: DatasetName,
    /// The environment it belongs to; for globals the one whose server it is.
    pub environment: String,
    /// What it is.
    pub kind: DatasetKind,
    /// When it is backed up by a timer.
    pub schedule: Option<Schedule>,
    /// What retention keeps; none means everything.
    pub keep: Option<Keep>,
    /// The names of its stores, the first being written first.
    pub stores: Vec<String>,
}

/// What a dataset is.
#[derive(Debug, Clone)]
pub enum DatasetKind {
    /// A PostgreSQL database.
    Database(DatabaseConfig),
    /// A directory.
    Files(FilesConfig),
    /// Roles and the other globals of the server behind a database.
    Globals(DatabaseConfig),
    /// A bucket of the app.
    Bucket(Box<BucketConfig>),
}

/// How a database is reached and dumped.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// Its URL, usually `$DATABASE_URL`.
    pub url: Value,
    /// Where pg_dump runs: `local`, `docker:NAME`, `podman:NAME`.
    pub via: String,
    /// pg_dump's format.
    pub format: DumpFormat,
    /// How the dump is compressed.
    pub compression: CompressionKind,
    /// Tables without which a dump is not a backup.
    pub required_tables: Vec<String>,
    /// Extensions that the app needs.
    pub extensions: Vec<String>,
}

/// pg_dump's output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpFormat {
    /// `pg_dump -Fc`, for `pg_restore`.
    #[default]
    Custom,
    /// SQL text, for `psql`.
    Plain,
}

/// How stored bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionKind {
    /// zstd level 1 on two threads, with content checksum.
    #[default]
    Zstd,
    /// gzip level 6 on two threads, one member.
    Gzip,
}

/// A directory to back up.
#[derive(Debug, Clone)]
pub struct FilesConfig {
    /// The directory.
    pub path: PathBuf,
    /// Shell patterns of what to leave out.
    pub exclude: Vec<String>,
    /// `user:group` that a restore gives everything to; as recorded otherwise.
    pub owner: Option<String>,
    /// How the archive is compressed.
    pub compression: CompressionKind,
}

impl Config {
    /// Reads and validates a configuration file. `hostname` is the default of `host`.
    pub fn read(path: &Path, hostname: &str) -> Result<Config> {
        let what = || format!("cannot read the configuration {}", path.display());
        let meta = std::fs::metadata(path).map_err(|error| {
            Failure::because(what(), error)
                .hint("name another one with --config FILE or $RG_CONFIG")
        })?;
        if meta.len() > BYTES_MAX {
            return Err(Failure::new(format!(
                "{} is too large for a configuration",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).or_fail(what)?;
        let base = std::path::absolute(path).or_fail(what)?;
        let base = base.parent().unwrap_or(Path::new("/")).to_owned();
        let mut config =
            raw::parse(&text, &base, hostname).map_err(|failure| failure.context(what()))?;
        config.path = path.to_owned();
        Ok(config)
    }

    /// The datasets that the arguments mean; without arguments all of them. A word that means
    /// none is an error that names the nearest.
    pub fn select(&self, selections: &[String]) -> Result<Vec<&DatasetConfig>> {
        for selection in selections {
            if !self
                .datasets
                .iter()
                .any(|dataset| dataset.name.is_selected_by(selection))
            {
                let known: Vec<&str> = self
                    .datasets
                    .iter()
                    .map(|dataset| dataset.name.as_str())
                    .collect();
                let environments: BTreeSet<&str> =
                    self.environments.iter().map(|e| e.name.as_str()).collect();
                let failure = Failure::new(format!(
                    "no dataset `{selection}` in {}",
                    self.path.display()
                ));
                let all = known.iter().copied().chain(environments);
                return Err(match nearest(selection, all) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure.hint(format!("configured are: {}", known.join(", "))),
                });
            }
        }
        let wanted = |dataset: &&DatasetConfig| {
            selections.is_empty() || selections.iter().any(|s| dataset.name.is_selected_by(s))
        };
        Ok(self.datasets.iter().filter(wanted).collect())
    }

    /// The environment of that name.
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments
            .iter()
            .find(|environment| environment.name == name)
    }

    /// Looks up a value of an environment's dataset in its env file.
    pub fn resolve(&self, environment: &str, value: &Value) -> Result<crate::secret::Secret> {
        let file = match self
            .environment(environment)
            .and_then(|e| e.env_file.as_deref())
        {
            Some(path) if value.has_names() => Some((path, EnvFile::read(path)?)),
            _ => None,
        };
        value.resolve(|name| match &file {
            Some((path, file)) => file.get(name).cloned().ok_or_else(|| {
                let failure = Failure::new(format!("no {name} in {}", path.display()));
                match nearest(name, file.names()) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure,
                }
            }),
            None => Err(Failure::new(format!(
                "`${name}` cannot be looked up: environment `{environment}` has no env_file"
            ))
            .hint(format!(
                "add env_file = \"…\" to [environments.{environment}]"
            ))),
        })
    }
}

/// The known word that is nearest to a misspelt one, if any is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn check_word(what: &str, word: &str) -> Result<()> {
    if is_word(word) {
        return Ok(());
    }
    Err(
        Failure::new(format!("`{word}` cannot be the name of {what}"))
            .hint("names are letters, digits, `.`, `_` and `-`"),
    )
}

/// A variable of the process's own environment: `$NAME` outside any environment of `rg.toml`.
/// A systemd credential of that name (`$CREDENTIALS_DIRECTORY/NAME`) comes first.
#[allow(clippy::disallowed_methods)]
pub fn process_variable(name: &str) -> Option<crate::secret::Secret> {
    let credential = std::env::var_os("CREDENTIALS_DIRECTORY")
        .and_then(|folder| std::fs::read_to_string(Path::new(&folder).join(name)).ok())
        .map(|text| text.trim_end_matches('\n').to_owned());
    credential
        .or_else(|| std::env::var(name).ok())
        .map(crate::secret::Secret::new)
}
