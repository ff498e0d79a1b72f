//! Objects into a bucket, whole or not at all.
//!
//! A body shorter than one part is one PUT. A longer one is a multipart upload whose parts are all
//! equally long but the last: R2 refuses parts of different sizes, so the size cannot grow on the
//! way, and the length of a dump is not known before its end. Whoever has larger objects than
//! 10,000 parts hold sets `part_mib` and pays in memory. Several parts travel while the
//! next one is filled; a part stays in memory until the service has it, so that it can be sent
//! again. The upload is completed only after the body's clean end; every other end aborts it.
//!
//! What arrived is proven three times: by `Content-MD5` on each part, by the ETag where it is an
//! MD5, and by a look at the finished object. Where the ETag is something else (encryption by the
//! service's own keys, R2) the first such object is read back.

use std::io::{self, Read};

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ObjectLockMode, StorageClass};
use bytes::Bytes;

use super::Bucket;
use super::arrived::{self, WRITE_MARK};
use super::upload::{PARTS_IN_FLIGHT, Upload};
use crate::catalog::manifest::hex;
use crate::failure::Failure;
use crate::s3::{self, DAMAGED_TRIES, Kind, S3Error};
use crate::sha256::Sha256;
use crate::store::{Key, PutError};

/// S3's own limit.
const PARTS_MAX: usize = 10_000;
/// Objects up to this length stay in the service's default class: cold classes bill them as longer
/// ones, and the catalog is read out of them.
const CLASS_BYTES_MIN: usize = 128 << 10;
/// The metadata with the SHA-256 of an object that was sent in one piece.
const SHA256_MARK: &str = "rg-sha256";
const DAY_SECONDS: i64 = 86_400;

/// See [`super::Store::put`].
pub(super) fn put(store: &Bucket, key: &Key, body: &mut dyn Read) -> Result<u64, PutError> {
    let failed = |error: S3Error| PutError::Store(store.failure("write", key.as_str(), error));
    let length = store.place.part_bytes();
    let mut first = Vec::new();
    let whole = fill(body, &mut first, length).map_err(PutError::Body)?;
    if whole {
        let bytes = first.len() as u64;
        put_single(store, key, Bytes::from(first)).map_err(failed)?;
        return Ok(bytes);
    }
    let mut upload = Upload::begin(store, &store.full(key.as_str())).map_err(failed)?;
    let mut part = first;
    loop {
        upload.send(Bytes::from(part)).map_err(failed)?;
        let spare = upload.spare().filter(|spare| spare.capacity() >= length);
        part = spare.unwrap_or_else(|| Vec::with_capacity(length));
        // An error here drops the upload, which aborts it: a dead dump never becomes an object.
        let last = fill(body, &mut part, length).map_err(PutError::Body)?;
        if last {
            break;
        }
        if upload.begun() == PARTS_MAX - 1 {
            return Err(PutError::Store(too_large(store, key)));
        }
    }
    if !part.is_empty() {
        upload.send(Bytes::from(part)).map_err(failed)?;
    }
    upload.complete().map_err(failed)
}

fn too_large(store: &Bucket, key: &Key) -> Failure {
    let mib = store.place.part_mib;
    let gib = (PARTS_MAX * store.place.part_bytes()) >> 30;
    Failure::new(format!(
        "cannot write {key} in store `{}`: it is larger than {gib} GiB, the most that {PARTS_MAX} parts of {mib} MiB hold",
        store.name
    ))
    .hint(format!(
        "set part_mib = {} in [stores.{}]; each MiB costs {} MiB of memory",
        mib * 4,
        store.name,
        PARTS_IN_FLIGHT + 1
    ))
}

/// Reads up to a part; true at the body's end.
fn fill(body: &mut dyn Read, part: &mut Vec<u8>, length: usize) -> io::Result<bool> {
    const FIRST: usize = 64 << 10;
    let mut len = 0;
    loop {
        if len == part.len() {
            if len == length {
                return Ok(false);
            }
            // Small objects stay small in memory; the last part of a long one may be short too.
            let more = (2 * len).max(FIRST).min(length);
            part.reserve_exact(more - len);
            part.resize(more, 0);
        }
        match body.read(&mut part[len..]) {
            Ok(0) => {
                part.truncate(len);
                return Ok(true);
            }
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn put_single(store: &Bucket, key: &Key, bytes: Bytes) -> Result<(), S3Error> {
    store.check_lease()?;
    let full = store.full(key.as_str());
    let digest = s3::md5(&bytes);
    let mark = mark()?;
    let lock = retention(store)?;
    let class = (bytes.len() >= CLASS_BYTES_MIN)
        .then(|| class(store))
        .flatten();
    let call = || {
        store
            .client
            .sdk()
            .put_object()
            .bucket(&store.place.bucket)
            .key(&full)
            .content_md5(s3::base64(&digest))
            .metadata(WRITE_MARK, &mark)
            .metadata(SHA256_MARK, hex(&Sha256::digest(&bytes)))
            .set_storage_class(class.clone())
            .set_object_lock_mode(lock.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(lock)
            .body(ByteStream::from(bytes.clone()))
            .customize()
            .config_override(s3::sending(bytes.len() as u64))
            .send()
    };
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        match store.client.call(call()) {
            Err(error) if error.kind == Kind::Damaged && tries < DAMAGED_TRIES => {}
            other => break other.map_err(|error| explain_lock(store, error))?,
        }
    };
    if lock.is_some() {
        arrived::look(store, &full)?
            .check_locked()
            .inspect_err(|_| arrived::remove(store, &full))?;
    }
    let digests = [digest];
    let good = s3::etag_md5(&digest);
    arrived::check_etag(
        store,
        &full,
        answer.e_tag(),
        &good,
        &digests,
        bytes.len() as u64,
    )
}

/// Until when what is written now is locked, by the service's clock.
pub(super) fn retention(store: &Bucket) -> Result<Option<DateTime>, S3Error> {
    let Some(days) = store.place.lock_days else {
        return Ok(None);
    };
    if store.client.service_time().is_none() {
        let call = store.client.sdk().head_bucket();
        store.client.call(call.bucket(&store.place.bucket).send())?;
    }
    let now = store.client.service_time().unwrap_or_default();
    Ok(Some(DateTime::from_secs(
        now + i64::from(days) * DAY_SECONDS,
    )))
}

pub(super) fn explain_lock(store: &Bucket, error: S3Error) -> S3Error {
    let lockless = error.status == Some(400) && error.to_string().contains("ock");
    if store.place.lock_days.is_some() && (lockless || error.is_unsupported()) {
        return S3Error::ours(
            Kind::Unsupported,
            format!("lock_days is set, but the bucket has no object lock: {error}"),
        );
    }
    error
}

pub(super) fn class(store: &Bucket) -> Option<StorageClass> {
    store.place.storage_class.as_deref().map(StorageClass::from)
}

pub(super) fn mark() -> Result<String, S3Error> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random)
        .map_err(|error| S3Error::ours(Kind::Other, format!("no random bytes: {error}")))?;
    Ok(hex(&random))
}
