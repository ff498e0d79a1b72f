//! S3 access keys in a rotation. A pair of access key and secret is one unit, with every variable
//! that is made of the two: either both work or both are retired.
//!
//! There are three ways to a new pair. A service with an IAM interface makes it ([`super::issue`]). A
//! server of one's own (MinIO) takes it from its environment when it starts ([`super::containers`]). Any
//! other service's is made by a person and given by `--value-from`. A new pair counts when it has
//! listed each bucket, and put, read and deleted an object there; an old one is retired when the
//! server refuses it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rg_common::config::{BucketConfig, Config, DatasetKind, StorePlace};
use rg_common::s3::{Client, Credentials, Kind, S3Config};
use rg_common::secret::Secret;
use rg_common::{Failure, Result, stop};
use serde::{Deserialize, Serialize};

use super::Work;
use super::canary::{Trouble, canary, list, locks, sweep};
use super::containers::Container;

/// The wait between two logins with a pair that is not known yet, or still is.
const BETWEEN: Duration = Duration::from_millis(250);

/// An access key pair of an environment, before and after.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChange {
    pub(super) service: Service,
    pub(super) way: Way,
    pub(super) old: Pair,
    /// While [`Way::Issued`] waits for the service this holds marks, which the files' new texts have too.
    pub(super) new: Pair,
    /// The object that proves it, the same for every attempt of this rotation.
    pub(super) canary: String,
    /// Whether the old pair may write, as far as is known: the new one must be able to do the same.
    pub(super) writes: bool,
}

/// Where a pair logs in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    endpoint: Option<String>,
    region: String,
    path_style: Option<bool>,
    pub(super) buckets: Vec<String>,
}

/// An access key with its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    pub(super) access: String,
    pub(super) secret: String,
}

/// How the server gets to know a new pair.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase", deny_unknown_fields)]
pub enum Way {
    /// It makes one when its IAM interface is asked to.
    Issued {
        /// The key's user; none when the app's own key asks for itself.
        user: Option<String>,
        /// The file with an administrator's keys.
        admin: Option<PathBuf>,
        /// The access keys that were there before.
        before: Vec<String>,
        /// The service's clock then.
        asked: Option<jiff::Timestamp>,
        /// Whether the new pair is known here.
        known: bool,
    },
    /// It reads its environment when it starts.
    Started {
        /// The containers that have it there; the environment's units otherwise.
        containers: Vec<Container>,
    },
    /// A person had it made.
    Given,
}

impl Pair {
    /// The pair as credentials; `origin` says for hints where it stands.
    pub(super) fn credentials(&self, origin: &str) -> Credentials {
        let secret = |text: &str| Secret::new(text);
        Credentials::new(secret(&self.access), secret(&self.secret), origin)
    }
}

impl KeyChange {
    /// The pair's service and buckets, as `rg.toml` says.
    pub(super) fn new(config: &S3Config, buckets: Vec<String>, way: Way, pairs: [Pair; 2]) -> Self {
        let [old, new] = pairs;
        KeyChange {
            service: Service {
                endpoint: config.endpoint.clone(),
                region: config.region.clone(),
                path_style: config.path_style,
                buckets,
            },
            way,
            old,
            new,
            canary: String::new(),
            writes: true,
        }
    }

    pub(super) fn config(&self, credentials: Credentials) -> S3Config {
        S3Config {
            endpoint: self.service.endpoint.clone(),
            region: self.service.region.clone(),
            path_style: self.service.path_style,
            credentials: Some(credentials),
        }
    }

    /// Whether the server learns the pair only by a restart.
    pub(super) fn is_started(&self) -> bool {
        matches!(self.way, Way::Started { .. })
    }
}

/// The end of an access key, enough to find it in a list.
pub(super) fn ending(id: &str) -> String {
    match id.len() {
        12.. => format!("…{}", id.get(id.len() - 4..).unwrap_or_default()),
        _ => "***".to_owned(),
    }
}

impl Work<'_> {
    /// The limit of every wait for an app or a server.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.args.health_timeout)
    }

    fn client(&self, key: &KeyChange, pair: &Pair, origin: &str) -> Result<Client> {
        Client::new(&self.context.network, &key.config(pair.credentials(origin)))
    }

    /// Sees that the old pair logs in. Nothing is written.
    pub(super) fn prepare_key(&self, key: &mut KeyChange) -> Result<()> {
        let client = self.client(key, &key.old, "the env file")?;
        key.canary = format!("rg-probe-{}", self.context.now.as_nanosecond());
        for bucket in &key.service.buckets {
            list(&client, bucket).map_err(|error| {
                let what = format!("the access key that is in the file does not list {bucket}");
                client
                    .failure(what, error)
                    .hint("nothing was changed; rg-envgen check finds where the file went wrong")
            })?;
        }
        Ok(())
    }

    /// Finds out whether the old pair may write. The journal is there already, so that what a kill
    /// leaves in the bucket is taken away by the next run.
    pub(super) fn try_old(&self, key: &mut KeyChange) -> Result<()> {
        let client = self.client(key, &key.old, "the env file")?;
        for bucket in &key.service.buckets {
            if locks(&client, bucket) {
                key.writes = false;
                continue;
            }
            match canary(&client, bucket, &key.canary) {
                Err(Trouble::Refused(error))
                    if matches!(error.kind, Kind::Denied | Kind::Locked) =>
                {
                    key.writes = false;
                }
                other => other.map_err(|trouble| trouble.said(&client, bucket))?,
            }
        }
        Ok(())
    }

    /// The new pair does what the old one did, in every bucket; waits until the server knows it.
    pub(super) fn prove_key(&self, key: &KeyChange) -> Result<()> {
        self.prove_pair(key, &key.new, "the new access key")
    }

    /// The same of the old pair, for a server that has been started with it again.
    pub(super) fn prove_old(&self, key: &KeyChange) -> Result<()> {
        self.prove_pair(key, &key.old, "the old access key")
    }

    fn prove_pair(&self, key: &KeyChange, pair: &Pair, what: &str) -> Result<()> {
        let client = self.client(key, pair, "the env file")?;
        let began = Instant::now();
        for bucket in &key.service.buckets {
            loop {
                let tried = list(&client, bucket).map_err(Trouble::Refused);
                let tried = match key.writes {
                    true => tried.and_then(|()| canary(&client, bucket, &key.canary)),
                    false => tried,
                };
                match tried {
                    Ok(()) => break,
                    // A pair that a person gives is known already, or wrong.
                    Err(Trouble::Refused(error))
                        if error.kind != Kind::Stopped
                            && !matches!(key.way, Way::Given)
                            && began.elapsed() < self.limit() =>
                    {
                        tracing::debug!("{what} is not known yet: {error}");
                        stop::pause(BETWEEN)?;
                    }
                    Err(trouble) => {
                        let failure = trouble.said(&client, bucket);
                        let failure = failure.context(format!("{what} does not log in"));
                        return Err(match key.is_started() {
                            true => failure.hint("the server reads it when it starts: its unit belongs into app.units of rg.toml, its container into app.containers"),
                            false => failure,
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// The old pair is refused; waits until it is.
    pub(super) fn refused(&self, key: &KeyChange) -> Result<()> {
        let client = self.client(key, &key.old, "the env file")?;
        let bucket = &key.service.buckets[0];
        let began = Instant::now();
        loop {
            let found = match list(&client, bucket) {
                Err(error) if matches!(error.kind, Kind::WrongKey | Kind::WrongSecret) => {
                    return Ok(());
                }
                Err(error) => client.failure(
                    "it cannot be told whether the old access key is refused",
                    error,
                ),
                Ok(()) => Failure::new("the old access key still logs in"),
            };
            if began.elapsed() >= self.limit() {
                return Err(found);
            }
            stop::pause(BETWEEN)?;
        }
    }

    /// Takes away what a run that was killed between put and delete left in the buckets.
    pub(super) fn sweep_canary(&self, key: &KeyChange, pair: &Pair) -> Result<()> {
        if !key.writes || !self.recovering.get() {
            return Ok(());
        }
        let client = self.client(key, pair, "the env file")?;
        for bucket in &key.service.buckets {
            sweep(&client, bucket, &key.canary).map_err(|error| {
                client.failure(
                    format!("cannot delete {} in the bucket {bucket}", key.canary),
                    error,
                )
            })?;
        }
        Ok(())
    }
}

/// The buckets of an environment whose two keys are these variables, by the names in its files.
pub(super) fn buckets_of<'c>(
    config: &'c Config,
    environment: &str,
    mut is_pair: impl FnMut(&str, &str) -> bool,
) -> Vec<&'c BucketConfig> {
    let datasets = config.datasets.iter();
    let mine = datasets.filter(|dataset| dataset.environment == environment);
    mine.filter_map(|dataset| match &dataset.kind {
        DatasetKind::Bucket(bucket) => Some(&**bucket),
        _ => None,
    })
    .filter(|bucket| {
        let name = |value: &'c Option<rg_common::config::Value>| value.as_ref()?.only_name();
        match (name(&bucket.access_key), name(&bucket.secret_key)) {
            (Some(access), Some(secret)) => is_pair(access, secret),
            _ => false,
        }
    })
    .collect()
}

/// Refuses a pair that somebody else would lose: another environment, or a store of backups.
pub(super) fn refuse_shared(config: &Config, environment: &str, access: &str) -> Result<()> {
    let shared = |whose: String| {
        let failure = Failure::new(format!("{whose} has the same access key"));
        Err(failure.hint("give it a key of its own first: it would lose this one"))
    };
    for dataset in &config.datasets {
        let DatasetKind::Bucket(bucket) = &dataset.kind else {
            continue;
        };
        // What cannot be read cannot use the key either.
        let keys = config
            .bucket_service(&dataset.environment, bucket)
            .ok()
            .and_then(|(service, _)| service.credentials);
        let same = keys.is_some_and(|keys| keys.access_key().reveal() == access);
        if same && dataset.environment != environment {
            return shared(format!("the environment {}", dataset.environment));
        }
    }
    for store in &config.stores {
        let StorePlace::Bucket(place) = &store.place else {
            continue;
        };
        let keys = place.service().ok().and_then(|service| service.credentials);
        if keys.is_some_and(|keys| keys.access_key().reveal() == access) {
            return shared(format!("the store `{}`", store.name));
        }
    }
    Ok(())
}
