//! Objects into a bucket: small ones several at a time, large ones in parts, each with its headers.
//!
//! The promise: no byte becomes visible whose SHA-256 was not the recorded one; an object in parts
//! is completed only after the last byte was proven, and aborted otherwise.

use std::collections::HashMap;
use std::io::Read;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::live::Bucket;
use super::object::{Headers, ObjectEntry};
use crate::catalog::manifest::hex;
use crate::failure::{Failure, Result};
use crate::s3::{self, DAMAGED_TRIES, Kind, S3Error};
use crate::sha256::Sha256;

/// Objects up to this size are sent in one piece, larger ones in parts of it.
pub const PART_BYTES: usize = 16 << 20;
/// S3's own limit.
const PARTS_MAX: u64 = 10_000;
/// So many calls travel at once.
const CALLS_MAX: usize = 16;
/// So many bytes travel at once, unless a single part is larger.
const BYTES_MAX: usize = 64 << 20;

/// The length of a part of an object: only above 156 GiB it is more than [`PART_BYTES`].
pub(super) fn part_bytes(size: u64) -> usize {
    let needed = size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    PART_BYTES.max(usize::try_from(needed).unwrap_or(usize::MAX))
}

/// Calls that travel side by side. The first that fails ends it.
pub(super) struct Flight<'a> {
    bucket: &'a Bucket,
    travelling: JoinSet<Result<usize, (String, S3Error)>>,
    bytes: usize,
}

impl<'a> Flight<'a> {
    pub fn new(bucket: &'a Bucket) -> Self {
        Flight {
            bucket,
            travelling: JoinSet::new(),
            bytes: 0,
        }
    }

    /// Puts an object; when this returns it may still travel.
    pub fn put(&mut self, entry: &ObjectEntry, content: &mut dyn Read) -> Result<()> {
        if entry.size > PART_BYTES as u64 {
            // Its parts have the line for themselves.
            self.settle(0, 0)?;
            return put_in_parts(self.bucket, entry, content);
        }
        let size = entry.size as usize;
        self.settle(CALLS_MAX - 1, BYTES_MAX.saturating_sub(size))?;
        let mut bytes = Vec::with_capacity(size);
        content
            .take(entry.size)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::from_io(format!("cannot read `{}`", entry.key), error))?;
        let mut hash = Sha256::new();
        hash.update(&bytes);
        proven(entry, hash)?;
        let (bucket, entry) = (self.bucket.clone(), entry.clone());
        let bytes = Bytes::from(bytes);
        self.bytes += size;
        let call = async move {
            let sent = put_whole(&bucket, &entry, bytes).await;
            match sent {
                Ok(()) => Ok(size),
                Err(error) => Err((format!("write object `{}`", entry.key), error)),
            }
        };
        self.travelling.spawn_on(call, self.bucket.client.network());
        Ok(())
    }

    /// Deletes an object; one that is absent is fine.
    pub fn delete(&mut self, key: &str) -> Result<()> {
        self.settle(CALLS_MAX - 1, BYTES_MAX)?;
        let (bucket, key) = (self.bucket.clone(), key.to_owned());
        let call = async move {
            let call = bucket.client.sdk().delete_object();
            match call.bucket(&bucket.name).key(&key).send().await {
                Ok(_) => Ok(0),
                Err(error) => match S3Error::of(error) {
                    gone if gone.kind == Kind::NoObject => Ok(0),
                    error => Err((format!("delete object `{key}`"), error)),
                },
            }
        };
        self.travelling.spawn_on(call, self.bucket.client.network());
        Ok(())
    }

    /// Waits for all of them.
    pub fn land(mut self) -> Result<()> {
        self.settle(0, 0)
    }

    /// Waits until no more than so many calls and bytes travel.
    fn settle(&mut self, calls: usize, bytes: usize) -> Result<()> {
        while self.travelling.len() > calls || (self.bytes > bytes && !self.travelling.is_empty()) {
            let client = &self.bucket.client;
            match client.wait(self.travelling.join_next())? {
                Some(Ok(Ok(size))) => self.bytes -= size,
                Some(Ok(Err((doing, error)))) => return Err(self.bucket.failure(&doing, error)),
                Some(Err(error)) => return Err(Failure::because("a call broke off", error)),
                None => {}
            }
        }
        Ok(())
    }
}

fn proven(entry: &ObjectEntry, hash: Sha256) -> Result<()> {
    let sha256 = hex(&hash.finalize());
    if sha256 == entry.sha256 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "object `{}` is not as recorded: SHA-256 {sha256}, not {}",
        entry.key, entry.sha256
    )))
}

fn metadata(headers: &Headers) -> Option<HashMap<String, String>> {
    let all = headers.metadata.iter();
    (!headers.metadata.is_empty()).then(|| {
        all.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    })
}

async fn put_whole(bucket: &Bucket, entry: &ObjectEntry, bytes: Bytes) -> Result<(), S3Error> {
    let md5 = s3::base64(&s3::md5(&bytes));
    let headers = &entry.headers;
    let mut tries = 0;
    loop {
        tries += 1;
        let call = bucket.client.sdk().put_object();
        let call = call
            .bucket(&bucket.name)
            .key(&entry.key)
            .content_md5(&md5)
            .set_content_type(headers.content_type.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_metadata(metadata(headers))
            .body(ByteStream::from(bytes.clone()))
            .customize()
            .config_override(s3::sending(bytes.len() as u64));
        match call.send().await.map_err(S3Error::of) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == Kind::Damaged && tries < DAMAGED_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

fn put_in_parts(bucket: &Bucket, entry: &ObjectEntry, content: &mut dyn Read) -> Result<()> {
    let doing = format!("write object `{}`", entry.key);
    let failed = |error| bucket.failure(&doing, error);
    let headers = &entry.headers;
    let call = bucket.client.sdk().create_multipart_upload();
    let call = call
        .bucket(&bucket.name)
        .key(&entry.key)
        .set_content_type(headers.content_type.clone())
        .set_cache_control(headers.cache_control.clone())
        .set_content_disposition(headers.content_disposition.clone())
        .set_content_encoding(headers.content_encoding.clone())
        .set_content_language(headers.content_language.clone())
        .set_metadata(metadata(headers));
    let begun = bucket.client.call(call.send()).map_err(failed)?;
    let id = begun.upload_id();
    let mut upload =
        s3::Upload::new(&bucket.client, &bucket.name, &entry.key, id).map_err(failed)?;
    let part = part_bytes(entry.size);
    let at_once = (BYTES_MAX / part).max(1);
    let mut hash = Sha256::new();
    let mut left = entry.size;
    while left > 0 {
        // Before the next is read: memory is the parts that travel.
        upload.settle(at_once - 1).map_err(failed)?;
        let size = left.min(part as u64);
        let mut bytes = upload.spare().unwrap_or_default();
        bytes.reserve_exact(usize::try_from(size).unwrap_or_default());
        let read = content.take(size).read_to_end(&mut bytes);
        let read =
            read.map_err(|error| Failure::from_io(format!("cannot read `{}`", entry.key), error))?;
        if read as u64 != size {
            return Err(Failure::new(format!("object `{}` ends early", entry.key)));
        }
        hash.update(&bytes);
        left -= size;
        upload.send(Bytes::from(bytes), at_once).map_err(failed)?;
    }
    upload.settle(0).map_err(failed)?;
    // Before it can be seen.
    proven(entry, hash)?;
    match upload.complete() {
        // A second attempt after a cut answer finds no upload any more. Whether the first one made
        // it is seen when it is read back.
        Err(error) if error.kind != Kind::NoObject => return Err(failed(error)),
        _ => upload.close(),
    }
    Ok(())
}
