//! An object in parts into a store: only while the lease is ours, and believed only after a look at
//! what the service made of it.

use aws_sdk_s3::types::ObjectLockMode;
use bytes::Bytes;

use super::Bucket;
use super::arrived::{self, WRITE_MARK};
use super::write::{class, explain_lock, mark, retention};
use crate::s3::{self, Kind, S3Error};
use crate::stop;

/// How many parts travel at once. One more is being filled: 40 MiB in all, of 10 MiB each.
pub const PARTS_IN_FLIGHT: usize = 3;

/// A multipart upload under way. Dropped before it is complete, it is aborted.
pub(super) struct Upload<'a> {
    store: &'a Bucket,
    parts: s3::Upload,
    mark: String,
    locked: bool,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(store: &'a Bucket, key: &str) -> Result<Upload<'a>, S3Error> {
        store.check_lease()?;
        let mark = mark()?;
        let lock = retention(store)?;
        let bucket = &store.place.bucket;
        let call = store.client.sdk().create_multipart_upload();
        let call = call
            .bucket(bucket)
            .key(key)
            .metadata(WRITE_MARK, &mark)
            .set_storage_class(class(store))
            .set_object_lock_mode(lock.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(lock);
        let begun = store.client.call(call.send());
        let begun = begun.map_err(|error| explain_lock(store, error))?;
        Ok(Upload {
            store,
            parts: s3::Upload::new(&store.client, bucket, key, begun.upload_id())?,
            mark,
            locked: lock.is_some(),
        })
    }

    /// How many parts were begun.
    pub(super) fn begun(&self) -> usize {
        self.parts.parts()
    }

    /// What an earlier part was held in, for the next one.
    pub(super) fn spare(&mut self) -> Option<Vec<u8>> {
        self.parts.spare()
    }

    /// Sends a part; waits while as many as may travel do.
    pub(super) fn send(&mut self, part: Bytes) -> Result<(), S3Error> {
        self.store.check_lease()?;
        stop::check().map_err(S3Error::stopped)?;
        self.parts.send(part, PARTS_IN_FLIGHT)
    }

    pub(super) fn complete(mut self) -> Result<u64, S3Error> {
        self.parts.settle(0)?;
        self.store.check_lease()?;
        let failed = match self.parts.complete() {
            Ok(()) => None,
            Err(error) if error.kind == Kind::Stopped => return Err(error),
            Err(error) => Some(error),
        };
        let (key, bytes) = (self.parts.key().to_owned(), self.parts.bytes());
        let digests = self.parts.digests();
        let good = s3::multipart_etag(&digests);
        // After a cut connection the object itself knows whether it was completed.
        let found = match (failed, arrived::look(self.store, &key)) {
            (None, found) => found?,
            (Some(_), Ok(found)) if found.is(bytes, &self.mark, &good) => found,
            (Some(error), _) => return Err(error),
        };
        self.parts.close();
        if found.bytes != bytes {
            let said = format!("{bytes} bytes were sent and {} arrived", found.bytes);
            arrived::remove(self.store, &key);
            return Err(S3Error::ours(Kind::Damaged, said));
        }
        if self.locked {
            found
                .check_locked()
                .inspect_err(|_| arrived::remove(self.store, &key))?;
        }
        let etag = found.etag.as_deref();
        arrived::check_etag(self.store, &key, etag, &good, &digests, bytes)?;
        Ok(bytes)
    }
}
