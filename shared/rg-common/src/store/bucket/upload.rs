//! A multipart upload: parts that travel side by side, completed after a clean end, aborted after
//! any other.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ObjectLockMode};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::Bucket;
use super::arrived::{self, WRITE_MARK};
use super::write::{DAMAGED_TRIES, class, explain_lock, mark, retention};
use crate::s3::{self, Kind, Md5, S3Error};
use crate::stop;

/// How many parts travel at once. One more is being filled: 40 MiB in all, of 10 MiB each.
pub const PARTS_IN_FLIGHT: usize = 3;
/// An abort is asked for so often: parts that were still travelling may arrive after the first.
const ABORT_TRIES: u32 = 4;
/// The pause between them.
const ABORT_PAUSE: Duration = Duration::from_millis(250);

/// A multipart upload under way. Dropped before it is complete, it is aborted.
pub(super) struct Upload<'a> {
    store: &'a Bucket,
    key: String,
    id: String,
    mark: String,
    locked: bool,
    travelling: JoinSet<Result<Sent, S3Error>>,
    /// By part number, from 1; the ETags as the service gave them.
    sent: Vec<Option<Sent>>,
    /// What parts that arrived were held in, for the next ones.
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) begun: usize,
    bytes: u64,
    open: bool,
}

struct Sent {
    number: usize,
    etag: Option<String>,
    md5: Md5,
    /// What it was held in.
    buffer: Vec<u8>,
}

impl<'a> Upload<'a> {
    pub(super) fn begin(store: &'a Bucket, key: String) -> Result<Upload<'a>, S3Error> {
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
            spare: Vec::new(),
            begun: 0,
            bytes: 0,
            open: true,
        })
    }

    /// Sends a part; waits while as many as may travel do.
    pub(super) fn send(&mut self, part: Bytes) -> Result<(), S3Error> {
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
                let mut sent = sent?;
                let mut buffer = std::mem::take(&mut sent.buffer);
                buffer.clear();
                self.spare.push(buffer);
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

    pub(super) fn complete(mut self) -> Result<u64, S3Error> {
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
        let found = match (failed, arrived::look(self.store, &self.key)) {
            (None, found) => found?,
            (Some(_), Ok(found)) if found.is(self.bytes, &self.mark, &good) => found,
            (Some(error), _) => return Err(error),
        };
        self.open = false;
        if found.bytes != self.bytes {
            let said = format!("{} bytes were sent and {} arrived", self.bytes, found.bytes);
            arrived::remove(self.store, &self.key);
            return Err(S3Error::ours(Kind::Damaged, said));
        }
        if self.locked {
            found
                .check_locked()
                .inspect_err(|_| arrived::remove(self.store, &self.key))?;
        }
        arrived::check_etag(
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
                // Ours alone again, unless the connection still holds on to it.
                let buffer = part.try_into_mut().map(Vec::from).unwrap_or_default();
                return Ok(Sent {
                    number,
                    etag,
                    md5,
                    buffer,
                });
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
