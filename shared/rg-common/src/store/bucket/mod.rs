//! A bucket as a store, behind any S3-compatible service.
//!
//! The promise is every store's: an object is visible whole or not at all (`write`), reads either
//! bring every byte or end in an error (`read`), a list is all of it or an error (`list`), and of
//! two machines only one writes below a prefix (`lease`). In a bucket that keeps versions a delete
//! leaves a delete marker and the old version; removing those is the bucket's lifecycle's business.

mod arrived;
mod lease;
mod list;
mod read;
mod upload;
mod write;

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;

use super::{Key, Lock, Object, PutError, Store, lock_file};
use crate::config::BucketStore;
use crate::failure::{Failure, OrFail, Result};
use crate::s3::{Client, Kind, S3Error};
use crate::sha256::Sha256;
pub use lease::Lease;
pub use upload::PARTS_IN_FLIGHT;

/// How many small objects are read at once.
pub const SMALL_IN_FLIGHT: usize = 16;
/// The file that this host's lock is taken on.
const LOCK: &str = ".rg-lock";

/// A store in a bucket.
pub struct Bucket {
    name: String,
    place: BucketStore,
    client: Client,
    /// Set when a lease of ours was taken by another machine: nothing is written any more.
    lost: Arc<AtomicBool>,
    /// Set when the service's ETags turned out not to be MD5s.
    odd_etags: AtomicBool,
}

impl Bucket {
    /// Configures it; nothing is asked of the service yet. Must be called on a thread that stands
    /// in the network's runtime, and not on one of the runtime's own.
    pub fn open(name: &str, place: &BucketStore) -> Result<Bucket> {
        let what = || format!("store `{name}` cannot be opened");
        let network = Handle::try_current().or_fail(what)?;
        let client = place
            .service()
            .and_then(|service| Client::new(&network, &service))
            .map_err(|failure| failure.context(what()))?;
        Ok(Bucket {
            name: name.to_owned(),
            place: place.clone(),
            client,
            lost: Arc::default(),
            odd_etags: AtomicBool::new(false),
        })
    }

    /// The whole name of an object in the bucket.
    fn full(&self, key: &str) -> String {
        match (self.place.prefix.as_str(), key) {
            ("", key) => key.to_owned(),
            (prefix, "") => prefix.to_owned(),
            (prefix, key) => format!("{prefix}/{key}"),
        }
    }

    /// A failure about one object.
    fn failure(&self, doing: &str, key: &str, error: S3Error) -> Failure {
        let what = format!("cannot {doing} {key} in store `{}`", self.name);
        self.client.failure(what, error)
    }
}

impl Store for Bucket {
    fn put(&self, key: &Key, body: &mut dyn Read) -> Result<u64, PutError> {
        write::put(self, key, body)
    }

    fn get(&self, key: &Key) -> Result<Box<dyn Read + Send>> {
        let reader = read::open(&self.client, &self.place.bucket, &self.full(key.as_str()));
        let reader = reader.map_err(|error| self.failure("read", key.as_str(), error))?;
        Ok(Box::new(reader))
    }

    fn get_small(&self, keys: &[Key], bytes_max: u64) -> Vec<Result<Vec<u8>>> {
        let full: Vec<String> = keys.iter().map(|key| self.full(key.as_str())).collect();
        let read = read::small(&self.client, &self.place.bucket, full, bytes_max);
        let with_key = read.into_iter().zip(keys);
        with_key
            .map(|(read, key)| read.map_err(|error| self.failure("read", key.as_str(), error)))
            .collect()
    }

    fn list(&self, prefix: &str) -> Result<Vec<Object>> {
        list::all(self, prefix.trim_end_matches('/')).map_err(|error| {
            let what = format!("store `{}`: cannot list {}", self.name, self.place.url);
            self.client.failure(what, error)
        })
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let call = self.client.sdk().delete_object();
        let call = call
            .bucket(&self.place.bucket)
            .key(self.full(key.as_str()))
            .send();
        match self.client.call(call) {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NoObject => Ok(()),
            Err(error) => Err(self.failure("delete", key.as_str(), error)),
        }
    }

    fn lock(&self, prefix: &str) -> Result<Lock> {
        let folder = self.place.locks.join(self.fingerprint()).join(prefix);
        std::fs::create_dir_all(&folder)
            .or_fail(|| format!("cannot make the folder {}", folder.display()))?;
        let what = format!("{prefix} in store `{}`", self.name);
        let mut lock = lock_file(&folder.join(LOCK), &what)?;
        lock.lease = Some(lease::take(self, prefix)?);
        Ok(lock)
    }

    fn sweep(&self, prefix: &str) -> Result<()> {
        list::sweep(self, prefix).map_err(|error| {
            let what = format!("store `{}`: cannot remove abandoned uploads", self.name);
            self.client.failure(what, error)
        })
    }

    fn location(&self) -> String {
        match &self.place.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.place.url),
            None => self.place.url.clone(),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl Bucket {
    /// The same for the same place, whatever the store is called.
    fn fingerprint(&self) -> String {
        let endpoint = self.place.endpoint.as_deref().unwrap_or("aws");
        let place = format!("{endpoint} {} {}", self.place.bucket, self.place.prefix);
        let digest = Sha256::digest(place);
        digest[..8].iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").ok();
            text
        })
    }
}
