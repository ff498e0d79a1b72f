//! A multipart upload on its way: parts that travel side by side, each proven by its MD5.
//!
//! The promise: what is not completed is aborted, and no part of it stays on the service. Memory is
//! the parts that travel, for a part stays until the service has it, so that it can be sent again.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Client, Kind, Md5, S3Error, base64, completing, md5, sending};

/// A part that was changed on its way is sent again so often.
pub const DAMAGED_TRIES: u32 = 3;
/// An abort is asked for so often: parts that were still travelling may arrive after the first.
const ABORT_TRIES: u32 = 4;
/// The pause between them.
const ABORT_PAUSE: Duration = Duration::from_millis(250);

/// A multipart upload that was begun. Dropped before it is closed, it is aborted.
pub struct Upload {
    client: Client,
    bucket: String,
    key: String,
    id: String,
    travelling: JoinSet<Result<Sent, S3Error>>,
    /// By part number, from 1.
    sent: Vec<Option<Sent>>,
    spare: Vec<Vec<u8>>,
    bytes: u64,
    open: bool,
}

/// A part that arrived.
struct Sent {
    number: usize,
    /// As the service gave it.
    etag: Option<String>,
    /// Of what was sent.
    md5: Md5,
    /// What it was held in.
    buffer: Vec<u8>,
}

impl Upload {
    /// One that the service has begun under this id.
    pub fn new(
        client: &Client,
        bucket: &str,
        key: &str,
        id: Option<&str>,
    ) -> Result<Self, S3Error> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            let said = "the answer to the upload's begin names no upload";
            return Err(S3Error::ours(Kind::NotS3, said));
        };
        Ok(Upload {
            client: client.clone(),
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            id: id.to_owned(),
            travelling: JoinSet::new(),
            sent: Vec::new(),
            spare: Vec::new(),
            bytes: 0,
            open: true,
        })
    }

    /// The object that it becomes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How many parts were begun.
    pub fn parts(&self) -> usize {
        self.sent.len()
    }

    /// How many bytes were begun to be sent.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What an earlier part was held in, empty, for the next one.
    pub fn spare(&mut self) -> Option<Vec<u8>> {
        self.spare.pop()
    }

    /// Sends the next part; waits first until fewer than `at_once` travel.
    pub fn send(&mut self, part: Bytes, at_once: usize) -> Result<(), S3Error> {
        self.settle(at_once.saturating_sub(1))?;
        self.bytes += part.len() as u64;
        self.sent.push(None);
        let (client, number) = (self.client.clone(), self.sent.len());
        let (bucket, key, id) = (self.bucket.clone(), self.key.clone(), self.id.clone());
        let task = async move { send_part(&client, &bucket, &key, &id, number, part).await };
        self.travelling.spawn_on(task, self.client.network());
        Ok(())
    }

    /// Waits until no more than so many parts travel.
    pub fn settle(&mut self, parts: usize) -> Result<(), S3Error> {
        while self.travelling.len() > parts {
            let next = self.client.wait(self.travelling.join_next());
            match next.map_err(S3Error::stopped)? {
                Some(Ok(sent)) => {
                    let mut sent = sent?;
                    let mut buffer = std::mem::take(&mut sent.buffer);
                    buffer.clear();
                    self.spare.push(buffer);
                    let at = sent.number - 1;
                    self.sent[at] = Some(sent);
                }
                Some(Err(panic)) => {
                    let said = format!("a part was not sent: {panic}");
                    return Err(S3Error::ours(Kind::Other, said));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The MD5s of the parts that arrived, in order.
    pub fn digests(&self) -> Vec<Md5> {
        self.sent.iter().flatten().map(|part| part.md5).collect()
    }

    /// Makes the object of its parts. A cut connection leaves open whether the service got as far,
    /// and a second attempt is then told that there is no such upload: after an error the caller
    /// looks at the object itself, and says by [`Upload::close`] that it is whole.
    pub fn complete(&mut self) -> Result<(), S3Error> {
        self.settle(0)?;
        let parts = self.sent.iter().flatten().map(|part| {
            CompletedPart::builder()
                .part_number(i32::try_from(part.number).unwrap_or(i32::MAX))
                .set_e_tag(part.etag.clone())
                .build()
        });
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let call = self.client.sdk().complete_multipart_upload();
        let call = call
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(&self.id)
            .multipart_upload(list.build())
            .customize()
            .config_override(completing());
        self.client.call(call.send()).map(drop)
    }

    /// There is nothing left to abort.
    pub fn close(&mut self) {
        self.open = false;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        self.travelling.abort_all();
        let client = &self.client;
        client.clean_up(async { while self.travelling.join_next().await.is_some() {} });
        if let Err(error) = abort_upload(client, &self.bucket, &self.key, &self.id) {
            let what = format!("an upload of {} was not aborted", self.key);
            tracing::warn!("{}; a later run does it", client.failure(what, error));
        }
    }
}

async fn send_part(
    client: &Client,
    bucket: &str,
    key: &str,
    id: &str,
    number: usize,
    part: Bytes,
) -> Result<Sent, S3Error> {
    let md5 = md5(&part);
    let mut tries = 0;
    loop {
        tries += 1;
        let call = client.sdk().upload_part();
        let mut call = call
            .bucket(bucket)
            .key(key)
            .upload_id(id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .content_md5(base64(&md5))
            .body(ByteStream::from(part.clone()))
            .customize()
            .config_override(sending(part.len() as u64));
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

/// Aborts an upload and makes sure that no part of it stays; it may be gone already.
pub fn abort_upload(client: &Client, bucket: &str, key: &str, id: &str) -> Result<(), S3Error> {
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
