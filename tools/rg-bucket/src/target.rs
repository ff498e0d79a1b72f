//! Which buckets a command means, and the way to each.

use std::collections::BTreeSet;

use aws_sdk_s3::presigning::PresigningConfig;
use rg_common::cli::Context;
use rg_common::config::{
    BucketConfig, BucketStore, Config, DatasetConfig, DatasetKind, StorePlace, nearest,
};
use rg_common::s3::{Client, S3Config};
use rg_common::{Failure, OrFail, Result};

use crate::wanted::Wanted;

/// What a store's name begins with on the command line: `store:offsite`.
const STORE: &str = "store:";
/// For how long the addresses hold that are only taken apart.
const ADDRESS_SECONDS: u64 = 60;

/// A bucket that the configuration names.
pub enum Choice<'a> {
    /// Of an environment's app.
    App(&'a DatasetConfig, &'a BucketConfig),
    /// Of a store.
    Store(String, &'a BucketStore),
}

/// A bucket, what is wanted of it, and a client with its key.
pub struct Target {
    /// `production/buckets/artifacts`, `store:offsite`.
    pub name: String,
    /// The bucket's name at the service.
    pub bucket: String,
    /// What every key of ours begins with: empty, or ending in a slash.
    pub prefix: String,
    /// The service and the key.
    pub client: Client,
    /// How the service is reached.
    pub service: S3Config,
    /// What is declared.
    pub wanted: Wanted,
    /// Whether it holds backups.
    pub is_store: bool,
}

/// The buckets that the words mean; without words all of the environments'. A word that means
/// none is an error that names the nearest.
pub fn choose<'a>(config: &'a Config, words: &[String]) -> Result<Vec<Choice<'a>>> {
    let all = every(config);
    let meant = |choice: &Choice, word: &str| match choice {
        Choice::App(dataset, _) => dataset.name.is_selected_by(word),
        Choice::Store(name, _) => name == word,
    };
    for word in words {
        if !all.iter().any(|choice| meant(choice, word)) {
            return Err(unknown(config, &all, word));
        }
    }
    let chosen: Vec<Choice> = all
        .into_iter()
        .filter(|choice| match words {
            [] => matches!(choice, Choice::App(..)),
            _ => words.iter().any(|word| meant(choice, word)),
        })
        .collect();
    if chosen.is_empty() {
        return Err(Failure::new(format!("no bucket in {}", config.path.display()))
            .hint("add [environments.ENV.buckets.NAME] with endpoint, name and keys, or name a store: store:NAME"));
    }
    Ok(chosen)
}

/// The one bucket that a word means; without a word the only one there is.
pub fn choose_one<'a>(config: &'a Config, word: Option<&str>) -> Result<Choice<'a>> {
    let words: Vec<String> = word.map(str::to_owned).into_iter().collect();
    let mut chosen = choose(config, &words)?;
    if let (Some(one), true) = (chosen.pop(), chosen.is_empty()) {
        return Ok(one);
    }
    let all = choose(config, &words)?;
    let names: Vec<&str> = all.iter().map(Choice::name).collect();
    Err(Failure::new("more than one bucket is meant")
        .hint(format!("name one of {}", names.join(", "))))
}

fn every(config: &Config) -> Vec<Choice<'_>> {
    let apps = config
        .datasets
        .iter()
        .filter_map(|dataset| match &dataset.kind {
            DatasetKind::Bucket(bucket) => Some(Choice::App(dataset, bucket)),
            _ => None,
        });
    let stores = config.stores.iter().filter_map(|store| match &store.place {
        StorePlace::Bucket(bucket) => Some(Choice::Store(format!("{STORE}{}", store.name), bucket)),
        StorePlace::Folder(_) => None,
    });
    apps.chain(stores).collect()
}

fn unknown(config: &Config, all: &[Choice], word: &str) -> Failure {
    let environments: BTreeSet<&str> = config
        .environments
        .iter()
        .map(|e| e.name.as_str())
        .collect();
    let names: Vec<&str> = all.iter().map(Choice::name).collect();
    let failure = Failure::new(format!("no bucket `{word}` in {}", config.path.display()));
    match nearest(word, names.iter().copied().chain(environments)) {
        Some(near) if near != word => failure.hint(format!("did you mean `{near}`?")),
        _ if names.is_empty() => failure.hint("no bucket is configured at all"),
        _ => failure.hint(format!("configured are: {}", names.join(", "))),
    }
}

impl Choice<'_> {
    /// The name on the command line.
    pub fn name(&self) -> &str {
        match self {
            Choice::App(dataset, _) => dataset.name.as_str(),
            Choice::Store(name, _) => name,
        }
    }

    /// Looks up its keys and makes a client; nothing is sent yet.
    pub fn open(&self, context: &Context, config: &Config) -> Result<Target> {
        let at = |failure: Failure| failure.context(self.name().to_owned());
        let (service, bucket, prefix, wanted, is_store) = match self {
            Choice::App(dataset, raw) => {
                let (service, name) = config
                    .bucket_service(&dataset.environment, raw)
                    .map_err(at)?;
                let wanted = Wanted::of_bucket(raw, &name).map_err(at)?;
                (service, name, String::new(), wanted, false)
            }
            Choice::Store(_, store) => {
                let prefix = if store.prefix.is_empty() {
                    String::new()
                } else {
                    format!("{}/", store.prefix)
                };
                (
                    store.service().map_err(at)?,
                    store.bucket.clone(),
                    prefix,
                    Wanted::of_store(store),
                    true,
                )
            }
        };
        Ok(Target {
            name: self.name().to_owned(),
            bucket,
            prefix,
            client: Client::new(&context.network, &service).map_err(at)?,
            service,
            wanted,
            is_store,
        })
    }
}

impl Target {
    /// For messages: ``bucket `rgrid-production` at http://…``.
    pub fn shown(&self) -> String {
        format!("`{}` at {}", self.bucket, self.client.shown())
    }

    /// The address of an object as somebody without a key would ask for it.
    pub fn address(&self, key: &str) -> Result<String> {
        let what = || format!("cannot make an address for {key}");
        let limit = PresigningConfig::expires_in(std::time::Duration::from_secs(ADDRESS_SECONDS))
            .or_fail(what)?;
        let call = self.client.sdk().get_object().bucket(&self.bucket).key(key);
        let signed = self.client.wait(call.presigned(limit))?.or_fail(what)?;
        Ok(signed
            .uri()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned())
    }

    /// The address at which somebody without a key would ask for the list of keys.
    pub fn list_address(&self) -> Result<String> {
        let object = self.address("k")?;
        let base = object.strip_suffix("/k").unwrap_or(&object);
        let bare = base
            .split("://")
            .nth(1)
            .is_some_and(|rest| !rest.contains('/'));
        let slash = if bare { "/" } else { "" };
        Ok(format!("{base}{slash}?list-type=2&max-keys=1"))
    }
}
