//! Whether what was sent is what arrived: a look at the finished object, its ETag, and where that
//! proves nothing its bytes.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::{Bucket, read};
use crate::s3::{self, Kind, Md5, S3Error};

/// The metadata that tells one write from another of the same key.
pub(super) const WRITE_MARK: &str = "rg-write";

/// Compares the ETag with what it must be if it is an MD5. If it is something else the object is
/// read back, once: a service with odd ETags has them all the time.
pub(super) fn check_etag(
    store: &Bucket,
    key: &str,
    etag: Option<&str>,
    good: &str,
    digests: &[Md5],
    bytes: u64,
) -> Result<(), S3Error> {
    let etag = etag.unwrap_or_default().trim_matches('"');
    if etag.eq_ignore_ascii_case(good) || store.odd_etags.load(Ordering::Relaxed) {
        return Ok(());
    }
    tracing::debug!(%key, %etag, %good, "the ETag is not the content's MD5; reading it back");
    let mut checked = 0;
    let mut left = bytes;
    let same = read::in_parts(store, key, store.place.part_bytes(), |part| {
        let fits = digests.get(checked) == Some(&s3::md5(part));
        checked += 1;
        left = left.saturating_sub(part.len() as u64);
        if fits {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if same && left == 0 {
        store.odd_etags.store(true, Ordering::Relaxed);
        return Ok(());
    }
    remove(store, key);
    Err(S3Error::ours(
        Kind::Damaged,
        format!("its ETag is `{etag}` and not `{good}`, and reading it back shows other bytes"),
    ))
}

/// A finished object as the service describes it.
pub(super) struct Found {
    pub(super) bytes: u64,
    pub(super) etag: Option<String>,
    mark: Option<String>,
    retained: bool,
}

impl Found {
    /// Whether it is surely the one that was just written.
    pub(super) fn is(&self, bytes: u64, mark: &str, etag: &str) -> bool {
        let by_mark = self.mark.as_deref() == Some(mark);
        let by_etag = self.etag.as_deref().map(|e| e.trim_matches('"')) == Some(etag);
        self.bytes == bytes && (by_mark || by_etag)
    }

    pub(super) fn check_locked(&self) -> Result<(), S3Error> {
        if self.retained {
            return Ok(());
        }
        Err(S3Error::ours(
            Kind::Unsupported,
            "lock_days is set, but the service did not lock what it was given",
        ))
    }
}

pub(super) fn look(store: &Bucket, key: &str) -> Result<Found, S3Error> {
    let call = store.client.sdk().head_object();
    let head = store
        .client
        .call(call.bucket(&store.place.bucket).key(key).send())?;
    Ok(Found {
        bytes: u64::try_from(head.content_length().unwrap_or(-1)).unwrap_or(u64::MAX),
        etag: head.e_tag().map(str::to_owned),
        mark: head.metadata().and_then(|all| all.get(WRITE_MARK)).cloned(),
        retained: head.object_lock_retain_until_date().is_some(),
    })
}

/// Removes an object that must not be seen; what cannot be removed is named.
pub(super) fn remove(store: &Bucket, key: &str) {
    let call = store.client.sdk().delete_object();
    let call = call.bucket(&store.place.bucket).key(key).send();
    if let Some(Err(error)) = store.client.clean_up(call) {
        let what = format!("{key} is not as it should be and could not be removed");
        tracing::warn!("{}", store.client.failure(what, S3Error::of(error)));
    }
}
