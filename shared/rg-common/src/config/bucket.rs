//! What `rg.toml` says of buckets: those that hold backups, and those of the app.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, Value};
use crate::failure::{Failure, Result};
use crate::s3::{Credentials, S3Config};

/// The region that requests are signed for when none is configured.
const REGION: &str = "us-east-1";
/// A part's length unless configured: objects of up to 97 GiB, 40 MiB of memory.
pub(super) const PART_MIB: u32 = 10;
/// S3 takes no shorter parts.
const PART_MIB_MIN: u32 = 5;
/// Four of these are held in memory.
const PART_MIB_MAX: u32 = 512;
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
    /// The length of a part of an object that is sent in parts; an object can have 10,000.
    pub part_mib: u32,
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

    /// [`BucketStore::part_mib`] in bytes.
    pub fn part_bytes(&self) -> usize {
        (self.part_mib as usize) << 20
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
    /// A file with an administrator's keys, who may make and delete the app's access keys; without
    /// it the app's own key must be allowed to.
    pub admin_credentials: Option<PathBuf>,
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

/// A secret key, which must be looked up elsewhere: `rg.toml` is read by more people than may know it.
pub(super) fn secret(text: &str) -> Result<Value> {
    let value = Value::parse(text)?;
    if value.has_names() {
        return Ok(value);
    }
    Err(Failure::new("a secret key does not belong into rg.toml")
        .hint("write secret_key = \"$NAME\" here, and NAME=… into the environment's env_file"))
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

/// A part's length that services take.
pub(super) fn check_part(mib: Option<u32>) -> Result<u32> {
    match mib.unwrap_or(PART_MIB) {
        mib @ PART_MIB_MIN..=PART_MIB_MAX => Ok(mib),
        other => Err(Failure::new(format!(
            "part_mib is {other}, not between {PART_MIB_MIN} and {PART_MIB_MAX}"
        ))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DatasetKind, StorePlace, raw};

    fn parse(text: &str) -> Result<Config> {
        raw::parse(text, Path::new("/etc/rg"), "vps-1")
    }

    fn refused(text: &str) -> (String, String) {
        let failure = parse(text).expect_err("it must be refused");
        (failure.to_string(), failure.hints().join(" | "))
    }

    const OFFSITE: &str = "[stores.offsite]\nurl = \"s3://acme-backups/vps-1/\"\n\
        endpoint = \"https://s3.eu-central-003.backblazeb2.com\"\nregion = \"eu-central-003\"\n\
        credentials = \"offsite.env\"\nstorage_class = \"STANDARD_IA\"\nlock_days = 30\n";

    #[test]
    fn a_key_nobody_knows_a_bad_name_and_one_place_twice_are_refused() {
        let (said, hint) = refused(&format!("{OFFSITE}regoin = \"x\"\n"));
        assert_eq!(said, "line 8: unknown key `regoin`");
        assert_eq!(hint, "did you mean `region`?");
        let (said, _) = refused("[stores.offsite]\nurl = \"s3://Acme/x\"\n");
        assert_eq!(
            said,
            "stores.offsite.url is `s3://Acme/x`: `Acme` cannot be a bucket's name"
        );
        let (said, _) = refused("[stores.offsite]\nurl = \"s3://acme/../x\"\n");
        assert!(
            said.contains("cannot be the part of a bucket that is ours"),
            "{said}"
        );
        let (said, _) = refused("[stores.offsite]\nurl = \"s3://acme\"\npart_mib = 4\n");
        assert!(
            said.ends_with("part_mib is 4, not between 5 and 512"),
            "{said}"
        );
        let again = OFFSITE.replace("stores.offsite", "stores.again");
        let again = again.replace("backblazeb2.com", "BACKBLAZEB2.com/");
        let (said, _) = refused(&format!("{OFFSITE}{again}"));
        assert_eq!(said, "the stores `offsite` and `again` are the same place");
    }

    #[test]
    fn a_store_in_a_bucket_is_read_with_all_its_keys() {
        let config = parse(OFFSITE).unwrap();
        let StorePlace::Bucket(place) = &config.stores[0].place else {
            panic!("a bucket");
        };
        assert_eq!((&*place.bucket, &*place.prefix), ("acme-backups", "vps-1"));
        assert_eq!(
            place.credentials,
            CredentialsPlace::File("/etc/rg/offsite.env".into())
        );
        assert_eq!((place.lock_days, place.part_mib), (Some(30), PART_MIB));
        assert_eq!(place.locks, Path::new("/var/lib/rg/locks"));
    }

    #[test]
    fn a_bucket_of_the_app_is_read_with_all_its_keys() {
        let bucket = "[environments.app.buckets.artifacts]\nendpoint = \"http://$H\"\nname = \"$N\"\n\
            access_key = \"$A\"\nsecret_key = \"$S\"\naccess = \"public-read\"\nversioning = true\n\
            noncurrent_days = 30\nlock = { mode = \"governance\", days = 3 }\n\
            cors = [{ origins = [\"*\"], methods = [\"GET\"] }]\n";
        let config = parse(&format!("{OFFSITE}{bucket}")).unwrap();
        let DatasetKind::Bucket(bucket) = &config.datasets[0].kind else {
            panic!("a bucket");
        };
        assert_eq!(bucket.access, Some(Access::PublicRead));
        assert_eq!(bucket.lock.unwrap().mode, LockMode::Governance);
        assert_eq!(bucket.cors.as_ref().unwrap()[0].methods, ["GET"]);
        assert_eq!((bucket.versioning, bucket.expire_days), (Some(true), None));
    }
}
