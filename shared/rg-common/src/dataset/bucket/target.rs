//! A bucket that is restored into: whether it is there, made when it is not, emptied and removed
//! when it was only for a look.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};

use super::live::{Bucket, Listed};
use super::put::Flight;
use super::sorted::Sorted;
use crate::failure::{Failure, OrFail, Result};
use crate::s3::{Client, Kind, S3Config, S3Error};

/// The region in which AWS makes buckets that name none.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket and a place for lists that do not fit into memory.
#[derive(Clone)]
pub struct Target {
    pub(super) bucket: Bucket,
    pub(super) room: PathBuf,
    region: String,
}

impl Target {
    /// Nothing is sent yet. `room` is a directory of the caller's.
    pub fn new(client: Client, service: &S3Config, name: &str, room: &Path) -> Target {
        Target {
            bucket: Bucket {
                client,
                name: name.to_owned(),
            },
            room: room.to_owned(),
            region: service.region.clone(),
        }
    }

    /// The bucket's name.
    pub fn name(&self) -> &str {
        &self.bucket.name
    }

    /// The same service's bucket of another name.
    pub fn named(&self, name: &str) -> Target {
        let mut other = self.clone();
        other.bucket.name = name.to_owned();
        other
    }

    /// For messages: `bucket `artifacts` at http://127.0.0.1:9000`.
    pub fn shown(&self) -> String {
        format!(
            "bucket `{}` at {}",
            self.bucket.name,
            self.bucket.client.shown()
        )
    }

    /// What a call could not do, in words.
    pub fn failure(&self, what: String, error: S3Error) -> Failure {
        self.bucket.client.failure(what, error)
    }

    /// Everything in it by key; none when there is no such bucket.
    pub(super) fn list(&self) -> Result<Option<Sorted<Listed>>> {
        if !self.exists()? {
            return Ok(None);
        }
        let room = Room::new(&self.room);
        self.bucket.list(|| room.file("listed")).map(Some)
    }

    /// Whether there is such a bucket; that it is somebody else's is an error.
    pub fn exists(&self) -> Result<bool> {
        let client = &self.bucket.client;
        // Not HEAD: its refusals carry no cause.
        let call = client.sdk().list_objects_v2().bucket(self.name());
        match client.call(call.max_keys(1).send()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::NoBucket => Ok(false),
            Err(error) => Err(self
                .bucket
                .failure(&format!("list bucket `{}`", self.name()), error)),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(match self.list()? {
            Some(mut listed) => listed.next()?.is_none(),
            None => true,
        })
    }

    /// Makes it, private and without any setting; false when it was there already.
    pub fn make(&self) -> Result<bool> {
        self.try_make().map_err(|error| {
            self.bucket
                .failure(&format!("make {}", self.shown()), error)
        })
    }

    /// As [`Target::make`], for callers that branch on the kind of trouble.
    pub fn try_make(&self) -> Result<bool, S3Error> {
        let client = &self.bucket.client;
        let place = (client.is_aws() && self.region != DEFAULT_REGION).then(|| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(self.region.as_str()))
                .build()
        });
        let call = client.sdk().create_bucket().bucket(self.name());
        match client.call(call.set_create_bucket_configuration(place).send()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::AlreadyOurs => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes it with everything in it; one that is absent is fine.
    pub fn remove(&self) -> Result<()> {
        let Some(mut listed) = self.list()? else {
            return Ok(());
        };
        let mut flight = Flight::new(&self.bucket);
        while let Some(object) = listed.next()? {
            flight.delete(&object.key)?;
        }
        flight.land()?;
        let client = &self.bucket.client;
        let call = client.sdk().delete_bucket().bucket(self.name());
        match client.call(call.send()) {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NoBucket => Ok(()),
            Err(error) => Err(self
                .bucket
                .failure(&format!("remove {}", self.shown()), error)),
        }
    }

    /// The names of the service's buckets that begin with `prefix`; none when the key may not list
    /// them.
    pub fn neighbours(&self, prefix: &str) -> Result<Vec<String>> {
        let client = &self.bucket.client;
        match client.call(client.sdk().list_buckets().send()) {
            Ok(answer) => Ok(answer
                .buckets()
                .iter()
                .filter_map(|bucket| bucket.name())
                .filter(|name| name.starts_with(prefix))
                .map(str::to_owned)
                .collect()),
            Err(error) if matches!(error.kind, Kind::Denied | Kind::Unsupported) => Ok(Vec::new()),
            Err(error) => Err(self.bucket.failure("list the buckets", error)),
        }
    }
}

static ROOM_FILES: AtomicU32 = AtomicU32::new(0);

/// Files without names in a directory.
pub(super) struct Room(PathBuf);

impl Room {
    pub fn new(folder: &Path) -> Room {
        Room(folder.to_owned())
    }

    /// A new one, to be written and read.
    pub fn file(&self, what_for: &str) -> Result<File> {
        let number = ROOM_FILES.fetch_add(1, Ordering::Relaxed);
        let path = self.0.join(format!("{what_for}-{number}"));
        let file = create(&path)?;
        fs::remove_file(&path).or_fail(|| format!("cannot remove {}", path.display()))?;
        Ok(file)
    }
}

/// A new file that only its owner reads.
pub(super) fn create(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .or_fail(|| format!("cannot write {}", path.display()))
}

/// A file's lines.
pub(super) fn open(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).or_fail(|| format!("cannot read {}", path.display()))?;
    Ok(BufReader::new(file))
}
