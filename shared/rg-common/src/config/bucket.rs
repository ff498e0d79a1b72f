//! What `rg.toml` says of buckets: those that hold backups, and those of the app.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, Value};
use crate::failure::{Failure, Result};
use crate::s3::{Credentials, S3Config};

/// The region that requests are signed for when none is configured.
const REGION: &str = "us-east-1";
/// The variable in which systemd names the directory of a unit's credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// A store in a bucket: `url = "s3://BUCKET/PREFIX"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketStore {
    /// The url as written.
    pub url: String,
    /// The bucket's name.
    pub bucket: String,
    /// What every key begins with, without slashes at its ends; empty for the whole bucket.
    pub prefix: String,
    /// The service's address; none means AWS.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Whether the bucket's name goes into the path; see [`S3Config::path_style`].
    pub path_style: Option<bool>,
    /// Where the keys come from.
    pub credentials: CredentialsPlace,
    /// What the service keeps the data in, such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// For how many days a written object can be neither changed nor deleted.
    pub lock_days: Option<u32>,
    /// Where this host's locks on it lie: `locks` in `state`.
    pub locks: PathBuf,
}

/// Where a store's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsPlace {
    /// A file of `AWS_ACCESS_KEY_ID=…` and `AWS_SECRET_ACCESS_KEY=…` lines.
    File(PathBuf),
    /// Systemd credentials of these names, or the process's environment.
    Environment,
}

impl BucketStore {
    /// The service and its keys, read now.
    pub fn service(&self) -> Result<S3Config> {
        let credentials = match &self.credentials {
            CredentialsPlace::File(path) => Credentials::from_file(path)?,
            CredentialsPlace::Environment => Credentials::from_environment()?,
        };
        Ok(S3Config {
            endpoint: self.endpoint.clone(),
            region: self.region.clone().unwrap_or_else(|| REGION.to_owned()),
            path_style: self.path_style,
            credentials: Some(credentials),
        })
    }

    /// Whether two stores would write to the same keys of the same bucket.
    pub(super) fn is_same(&self, other: &BucketStore) -> bool {
        let bare = |endpoint: &Option<String>| {
            let endpoint = endpoint.as_deref().unwrap_or_default();
            endpoint.trim_end_matches('/').to_ascii_lowercase()
        };
        bare(&self.endpoint) == bare(&other.endpoint)
            && self.bucket == other.bucket
            && self.prefix == other.prefix
    }
}

/// A bucket of the app, as it is and as it should be. What is none is left as it is found.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// The service's address; none means AWS.
    pub endpoint: Option<Value>,
    /// The bucket's region.
    pub region: Option<Value>,
    /// Whether the bucket's name goes into the path; see [`S3Config::path_style`].
    pub path_style: Option<bool>,
    /// The bucket's name.
    pub name: Value,
    /// The access key, usually `$MINIO_ACCESS_KEY`; with none both keys are the environment's.
    pub access_key: Option<Value>,
    /// The secret key.
    pub secret_key: Option<Value>,
    /// Who may read without keys.
    pub access: Option<Access>,
    /// Whether replaced and deleted objects stay as versions.
    pub versioning: Option<bool>,
    /// Objects are deleted after so many days.
    pub expire_days: Option<u32>,
    /// Replaced and deleted versions are removed after so many days.
    pub noncurrent_days: Option<u32>,
    /// Uploads that were never completed are removed after so many days.
    pub abandoned_upload_days: Option<u32>,
    /// Which pages may use it from a browser; an empty list means none.
    pub cors: Option<Vec<CorsRule>>,
    /// What new objects are locked with.
    pub lock: Option<LockConfig>,
}

/// Who may read a bucket without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nobody.
    Private,
    /// Everybody may get an object whose key is known; nobody may list.
    PublicRead,
}

/// One rule about pages that use a bucket from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsRule {
    /// `https://app.example.org`, or `*`.
    pub origins: Vec<String>,
    /// `GET`, `PUT`, `POST`, `DELETE`, `HEAD`.
    pub methods: Vec<String>,
    /// Request headers that a page may send.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Answer headers that a page may read.
    #[serde(default)]
    pub expose: Vec<String>,
    /// For how long a browser may remember the rule.
    pub max_age_seconds: Option<u32>,
}

/// The lock that a bucket puts on new objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockConfig {
    /// How strictly.
    pub mode: LockMode,
    /// For how long.
    pub days: u32,
}

/// How strict a lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Whoever holds a special permission can lift it.
    Governance,
    /// Nobody can lift it, the service's owner included.
    Compliance,
}

impl Config {
    /// The service behind a bucket of an environment's app, and the bucket's name, with all that
    /// has to be looked up in its env file.
    pub fn bucket_service(
        &self,
        environment: &str,
        bucket: &BucketConfig,
    ) -> Result<(S3Config, String)> {
        let look_up = |value: &Value| self.resolve(environment, value);
        let plain = |value: &Value| Ok::<_, Failure>(look_up(value)?.reveal().trim().to_owned());
        let origin = self
            .environment(environment)
            .and_then(|e| e.env_file.as_ref())
            .map_or_else(
                || self.path.display().to_string(),
                |path| path.display().to_string(),
            );
        let credentials = match (&bucket.access_key, &bucket.secret_key) {
            (Some(access), Some(secret)) => {
                Credentials::new(look_up(access)?, look_up(secret)?, origin)
            }
            (None, None) => Credentials::from_environment()?,
            _ => {
                return Err(Failure::new(
                    "a bucket needs both access_key and secret_key, or neither",
                ));
            }
        };
        let name = plain(&bucket.name)?;
        check_name(&name)?;
        let service = S3Config {
            endpoint: bucket.endpoint.as_ref().map(plain).transpose()?,
            region: match &bucket.region {
                Some(region) => plain(region)?,
                None => REGION.to_owned(),
            },
            path_style: bucket.path_style,
            credentials: Some(credentials),
        };
        Ok((service, name))
    }
}

/// A bucket's name by S3's rules: 3 to 63 of lower-case letters, digits, `.` and `-`.
pub(super) fn check_name(name: &str) -> Result<()> {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let fine = (3..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if fine {
        return Ok(());
    }
    Err(Failure::new(format!("`{name}` cannot be a bucket's name"))
        .hint("3 to 63 of lower-case letters, digits, `.` and `-`"))
}

/// A prefix of plain words, so that no key of ours is one that some service refuses.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    if prefix.is_empty() || prefix.split('/').all(crate::names::is_word) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`{prefix}` cannot be the part of a bucket that is ours"
    ))
    .hint("write s3://BUCKET/WORD/WORD with letters, digits, `.`, `_` and `-`"))
}

/// A path, where `$CREDENTIALS_DIRECTORY/` at its start is systemd's.
#[allow(clippy::disallowed_methods)]
pub(super) fn credentials_path(path: &Path, base: &Path) -> Result<PathBuf> {
    let Ok(name) = path.strip_prefix(format!("${CREDENTIALS_DIRECTORY}")) else {
        return Ok(base.join(path));
    };
    match std::env::var_os(CREDENTIALS_DIRECTORY) {
        Some(folder) => Ok(Path::new(&folder).join(name)),
        // Only whoever opens this store needs it.
        None => Ok(path.to_owned()),
    }
}
