//! Objects into a bucket, whole or not at all.
//!
//! A body shorter than one part is one PUT. A longer one is a multipart upload whose parts are all
//! of [`PART_BYTES`] but the last: R2 refuses parts of different sizes, so the size cannot grow on
//! the way, and the length of a dump is not known before its end. Several parts travel while the
//! next one is filled; a part stays in memory until the service has it, so that it can be sent
//! again. The upload is completed only after the body's clean end; every other end aborts it.
//!
//! What arrived is proven three times: by `Content-MD5` on each part, by the ETag where it is an
//! MD5, and by a look at the finished object. Where the ETag is something else (encryption by the
//! service's own keys, R2) the first such object is read back.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ObjectLockMode, StorageClass};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Bucket, read};
use crate::catalog::manifest::hex;
use crate::failure::Failure;
use crate::s3::{self, Kind, Md5, S3Error};
use crate::sha256::Sha256;
use crate::stop;
use crate::store::{Key, PutError};

/// The length of a part. With S3's 10,000 parts an object can have 156 GiB.
pub const PART_BYTES: usize = 16 << 20;
/// How many parts travel at once. One more is being filled: 64 MiB in all.
pub const PARTS_IN_FLIGHT: usize = 3;
/// S3's own limit.
const PARTS_MAX: usize = 10_000;
/// Objects up to this length stay in the service's default class: cold classes bill them as longer
/// ones, and the catalog is read out of them.
const CLASS_BYTES_MIN: usize = 128 << 10;
/// A part that was changed on its way is sent again so often.
const DAMAGED_TRIES: u32 = 3;
/// An abort is asked for so often: parts that were still travelling may arrive after the first.
const ABORT_TRIES: u32 = 4;
/// The pause between them.
const ABORT_PAUSE: Duration = Duration::from_millis(250);
/// The metadata that tells one write from another of the same key.
const WRITE_MARK: &str = "rg-write";
/// The metadata with the SHA-256 of an object that was sent in one piece.
const SHA256_MARK: &str = "rg-sha256";
const DAY_SECONDS: i64 = 86_400;

/// See [`super::Store::put`].
pub(super) fn put(store: &Bucket, key: &Key, body: &mut dyn Read) -> Result<u64, PutError> {
    let failed = |error: S3Error| PutError::Store(store.failure("write", key.as_str(), error));
    let mut first = Vec::new();
    let whole = fill(body, &mut first).map_err(PutError::Body)?;
    if whole {
        let bytes = first.len() as u64;
        put_single(store, key, Bytes::from(first)).map_err(failed)?;
        return Ok(bytes);
    }
    let mut upload = Upload::begin(store, store.full(key.as_str())).map_err(failed)?;
    let mut part = first;
    loop {
        upload.send(Bytes::from(part)).map_err(failed)?;
        part = Vec::with_capacity(PART_BYTES);
        // An error here drops the upload, which aborts it: a dead dump never becomes an object.
        let last = fill(body, &mut part).map_err(PutError::Body)?;
        if last {
            break;
        }
        if upload.begun == PARTS_MAX - 1 {
            return Err(PutError::Store(too_large(store, key)));
        }
    }
    if !part.is_empty() {
        upload.send(Bytes::from(part)).map_err(failed)?;
    }
    upload.complete().map_err(failed)
}

fn too_large(store: &Bucket, key: &Key) -> Failure {
    let gib = (PARTS_MAX * PART_BYTES) >> 30;
    Failure::new(format!(
        "cannot write {key} in store `{}`: it is larger than {gib} GiB, the most that {PARTS_MAX} parts of {} MiB hold",
        store.name,
        PART_BYTES >> 20
    ))
    .hint("leave out what need not be kept (exclude), or write this dataset to a file:// store")
}

/// Reads up to a part; true at the body's end.
fn fill(body: &mut dyn Read, part: &mut Vec<u8>) -> io::Result<bool> {
    const FIRST: usize = 64 << 10;
    let mut len = 0;
    loop {
        if len == part.len() {
            if len == PART_BYTES {
                return Ok(false);
            }
            // Small objects stay small in memory.
            let more = (2 * len).max(FIRST).max(part.capacity());
            part.resize(more.min(PART_BYTES), 0);
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
        look(store, &full)?
            .check_locked()
            .inspect_err(|_| remove(store, &full))?;
    }
    let digests = [digest];
    let good = s3::etag_md5(&digest);
    check_etag(
        store,
        &full,
        answer.e_tag(),
        &good,
        &digests,
        bytes.len() as u64,
    )
}

/// A multipart upload under way. Dropped before it is complete, it is aborted.
struct Upload<'a> {
    store: &'a Bucket,
    key: String,
    id: String,
    mark: String,
    locked: bool,
    travelling: JoinSet<Result<Sent, S3Error>>,
    /// By part number, from 1; the ETags as the service gave them.
    sent: Vec<Option<Sent>>,
    begun: usize,
    bytes: u64,
    open: bool,
}

struct Sent {
    number: usize,
    etag: Option<String>,
    md5: Md5,
}

impl<'a> Upload<'a> {
    fn begin(store: &'a Bucket, key: String) -> Result<Upload<'a>, S3Error> {
        store.check_lease()?;
        let mark = mark()?;
        let lock = retention(store)?;
        let call = store.client.sdk().create_multipart_upload();
        let call = call
            .bucket(&store.place.bucket)
            .key(&key)
            .metadata(WRITE_MARK, &mark)
            .set_storage_class(class(store))
            .set_object_lock_mode(lock.map(|_| ObjectLockMode::Compliance))
            .set_object_lock_retain_until_date(lock);
        let begun = store.client.call(call.send());
        let begun = begun.map_err(|error| explain_lock(store, error))?;
        let id = begun.upload_id().unwrap_or_default().to_owned();
        if id.is_empty() {
            let said = "the answer to the upload's begin names no upload";
            return Err(S3Error::ours(Kind::NotS3, said));
        }
        Ok(Upload {
            store,
            key,
            id,
            mark,
            locked: lock.is_some(),
            travelling: JoinSet::new(),
            sent: Vec::new(),
            begun: 0,
            bytes: 0,
            open: true,
        })
    }

    /// Sends a part; waits while as many as may travel do.
    fn send(&mut self, part: Bytes) -> Result<(), S3Error> {
        self.store.check_lease()?;
        stop::check().map_err(S3Error::stopped)?;
        while self.travelling.len() >= PARTS_IN_FLIGHT {
            self.arrived()?;
        }
        self.begun += 1;
        self.bytes += part.len() as u64;
        self.sent.push(None);
        let client = self.store.client.clone();
        let (bucket, key, id) = (
            self.store.place.bucket.clone(),
            self.key.clone(),
            self.id.clone(),
        );
        let number = self.begun;
        let task = async move { send_part(&client, bucket, key, id, number, part).await };
        self.travelling.spawn_on(task, self.store.client.network());
        Ok(())
    }

    /// Waits for one part.
    fn arrived(&mut self) -> Result<(), S3Error> {
        let client = &self.store.client;
        let next = client.wait(self.travelling.join_next());
        match next.map_err(S3Error::stopped)? {
            Some(Ok(sent)) => {
                let sent = sent?;
                let at = sent.number - 1;
                self.sent[at] = Some(sent);
                Ok(())
            }
            Some(Err(panic)) => Err(S3Error::ours(
                Kind::Other,
                format!("a part was not sent: {panic}"),
            )),
            None => Ok(()),
        }
    }

    fn complete(mut self) -> Result<u64, S3Error> {
        while !self.travelling.is_empty() {
            self.arrived()?;
        }
        self.store.check_lease()?;
        let sent: Vec<&Sent> = self.sent.iter().flatten().collect();
        let parts = sent.iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
                .set_e_tag(part.etag.clone())
                .build()
        });
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let call = self.store.client.sdk().complete_multipart_upload();
        let call = call
            .bucket(&self.store.place.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(list.build())
            .customize()
            .config_override(s3::completing());
        let failed = match self.store.client.call(call.send()) {
            Ok(_) => None,
            Err(error) if error.kind == Kind::Stopped => return Err(error),
            Err(error) => Some(error),
        };
        let digests: Vec<Md5> = sent.iter().map(|part| part.md5).collect();
        let good = s3::multipart_etag(&digests);
        // A cut connection leaves open whether the service got as far as completing it, and a
        // second attempt is then told that there is no such upload: the object itself knows.
        let found = match (failed, look(self.store, &self.key)) {
            (None, found) => found?,
            (Some(_), Ok(found)) if found.is(self.bytes, &self.mark, &good) => found,
            (Some(error), _) => return Err(error),
        };
        self.open = false;
        if found.bytes != self.bytes {
            let said = format!("{} bytes were sent and {} arrived", self.bytes, found.bytes);
            remove(self.store, &self.key);
            return Err(S3Error::ours(Kind::Damaged, said));
        }
        if self.locked {
            found
                .check_locked()
                .inspect_err(|_| remove(self.store, &self.key))?;
        }
        check_etag(
            self.store,
            &self.key,
            found.etag.as_deref(),
            &good,
            &digests,
            self.bytes,
        )?;
        Ok(self.bytes)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.travelling.abort_all();
        let client = &self.store.client;
        client.clean_up(async { while self.travelling.join_next().await.is_some() {} });
        if let Err(error) = abort(self.store, &self.key, &self.id) {
            let what = format!("an upload of {} was not aborted", self.key);
            tracing::warn!("{}; a later run does it", client.failure(what, error));
        }
    }
}

async fn send_part(
    client: &s3::Client,
    bucket: String,
    key: String,
    id: String,
    number: usize,
    part: Bytes,
) -> Result<Sent, S3Error> {
    let md5 = s3::md5(&part);
    let mut tries = 0;
    loop {
        tries += 1;
        let call = client.sdk().upload_part();
        let mut call = call
            .bucket(&bucket)
            .key(&key)
            .upload_id(&id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .content_md5(s3::base64(&md5))
            .body(ByteStream::from(part.clone()))
            .customize()
            .config_override(s3::sending(part.len() as u64));
        if client.is_encrypted() {
            // TLS and Content-MD5 protect it; a further SHA-256 would only cost time.
            call = call.disable_payload_signing();
        }
        match call.send().await.map_err(S3Error::of) {
            Ok(answer) => {
                let etag = answer.e_tag().map(str::to_owned);
                return Ok(Sent { number, etag, md5 });
            }
            Err(error) if error.kind == Kind::Damaged && tries < DAMAGED_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Aborts an upload and makes sure that no part of it stays.
pub(super) fn abort(store: &Bucket, key: &str, id: &str) -> Result<(), S3Error> {
    let client = &store.client;
    let bucket = &store.place.bucket;
    let work = async {
        for _ in 0..ABORT_TRIES {
            let call = client.sdk().abort_multipart_upload();
            match call.bucket(bucket).key(key).upload_id(id).send().await {
                Ok(_) => {}
                Err(error) => match S3Error::of(error) {
                    error if error.kind == Kind::NoObject => return Ok(()),
                    error => return Err(error),
                },
            }
            let call = client.sdk().list_parts();
            match call.bucket(bucket).key(key).upload_id(id).send().await {
                // A part that was travelling arrived after the abort.
                Ok(parts) if !parts.parts().is_empty() => tokio::time::sleep(ABORT_PAUSE).await,
                // Gone, or a service that does not tell.
                _ => return Ok(()),
            }
        }
        Err(S3Error::ours(Kind::Other, "parts of it keep arriving"))
    };
    client
        .clean_up(work)
        .unwrap_or_else(|| Err(S3Error::ours(Kind::TooLate, "")))
}

/// Removes an object that must not be seen; what cannot be removed is named.
fn remove(store: &Bucket, key: &str) {
    let call = store.client.sdk().delete_object();
    let call = call.bucket(&store.place.bucket).key(key).send();
    if let Some(Err(error)) = store.client.clean_up(call) {
        let what = format!("{key} is not as it should be and could not be removed");
        tracing::warn!("{}", store.client.failure(what, S3Error::of(error)));
    }
}

/// A finished object as the service describes it.
struct Found {
    bytes: u64,
    etag: Option<String>,
    mark: Option<String>,
    retained: bool,
}

impl Found {
    /// Whether it is surely the one that was just written.
    fn is(&self, bytes: u64, mark: &str, etag: &str) -> bool {
        let by_mark = self.mark.as_deref() == Some(mark);
        let by_etag = self.etag.as_deref().map(|e| e.trim_matches('"')) == Some(etag);
        self.bytes == bytes && (by_mark || by_etag)
    }

    fn check_locked(&self) -> Result<(), S3Error> {
        if self.retained {
            return Ok(());
        }
        Err(S3Error::ours(
            Kind::Unsupported,
            "lock_days is set, but the service did not lock what it was given",
        ))
    }
}

fn look(store: &Bucket, key: &str) -> Result<Found, S3Error> {
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

/// Compares the ETag with what it must be if it is an MD5. If it is something else the object is
/// read back, once: a service with odd ETags has them all the time.
fn check_etag(
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
    let same = read::in_parts(store, key, PART_BYTES, |part| {
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

/// Until when what is written now is locked, by the service's clock.
fn retention(store: &Bucket) -> Result<Option<DateTime>, S3Error> {
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

fn explain_lock(store: &Bucket, error: S3Error) -> S3Error {
    let lockless = error.status == Some(400) && error.to_string().contains("ock");
    if store.place.lock_days.is_some() && (lockless || error.is_unsupported()) {
        return S3Error::ours(
            Kind::Unsupported,
            format!("lock_days is set, but the bucket has no object lock: {error}"),
        );
    }
    error
}

fn class(store: &Bucket) -> Option<StorageClass> {
    store.place.storage_class.as_deref().map(StorageClass::from)
}

fn mark() -> Result<String, S3Error> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random)
        .map_err(|error| S3Error::ours(Kind::Other, format!("no random bytes: {error}")))?;
    Ok(hex(&random))
}
