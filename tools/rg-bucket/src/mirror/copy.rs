//! One object from one bucket to another: streamed, bounded, verified from the other side.
//!
//! The source is read under its tag, so that an object that changes meanwhile is never copied in
//! halves. What the target says it stored (its tag) is compared with the MD5 of what was sent;
//! where it says nothing comparable, or on request, the copy is read back and its SHA-256 compared.

use std::sync::Arc;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, Tagging};
use md5::{Digest, Md5};
use rg_common::catalog::manifest::hex;
use rg_common::s3::{Kind, S3Error, completing, sending};
use tokio::sync::Semaphore;

use super::body::{Body, MEMORY_MIB, OBJECT_BYTES_MAX, PART_BYTES, bare, digest, part_bytes};
use super::manifest::Known;
use super::spool::Entry;
use super::trouble::{Stumble, Trouble, Unread, is_about_the_name};
use super::uploads::Uploads;
use crate::target::Target;

/// How often a copy that was cut off is begun again.
const ATTEMPTS: u32 = 3;
/// Both sides, and what is under way.
pub struct Copier<'a> {
    /// What is read.
    pub from: &'a Target,
    /// What is written.
    pub to: &'a Target,
    /// Whether writes carry a checksum of their own, as a bucket with object lock demands.
    pub checksums: bool,
    /// Whether every copy is read back.
    pub reread: bool,
    memory: Semaphore,
    /// What was begun and is not completed.
    pub uploads: Arc<Uploads>,
}

/// A copy that is proven.
pub struct Done {
    /// For the manifest.
    pub known: Known,
    /// Whether the proof was to read it back, and not the server's checksum.
    pub was_reread: bool,
    /// The source has tags that the target did not take.
    pub lost_tags: bool,
}

impl<'a> Copier<'a> {
    /// Nothing is sent yet.
    pub fn new(from: &'a Target, to: &'a Target, checksums: bool, reread: bool) -> Copier<'a> {
        Copier {
            from,
            to,
            checksums,
            reread,
            memory: Semaphore::new(MEMORY_MIB as usize),
            uploads: Arc::default(),
        }
    }

    /// Copies one object and proves the copy.
    pub async fn copy(&self, entry: &Entry) -> Result<Done, Trouble> {
        if entry.size > OBJECT_BYTES_MAX {
            return Err(Trouble::Failed(format!(
                "larger than {} bytes, which is not copied",
                OBJECT_BYTES_MAX
            )));
        }
        if entry.key.contains(char::REPLACEMENT_CHARACTER) {
            let said =
                "the list cannot say this key: it holds a character that XML has no way to write";
            return Err(Trouble::Failed(said.to_owned()));
        }
        let need = part_bytes(entry.size)
            .min(entry.size)
            .div_ceil(1 << 20)
            .max(1);
        let permits = u32::try_from(need).unwrap_or(MEMORY_MIB).min(MEMORY_MIB);
        let Ok(_held) = self.memory.acquire_many(permits).await else {
            return Err(Trouble::Changed);
        };
        let mut attempt = 1;
        loop {
            match self.attempt(entry).await {
                Ok(done) => return Ok(done),
                Err(stumble) if stumble.is_passing && attempt < ATTEMPTS => attempt += 1,
                Err(stumble) => return Err(stumble.trouble),
            }
        }
    }

    async fn attempt(&self, entry: &Entry) -> Result<Done, Stumble> {
        let source_key = format!("{}{}", self.from.prefix, entry.key);
        let call = self
            .from
            .client
            .sdk()
            .get_object()
            .bucket(&self.from.bucket)
            .key(&source_key);
        let tag = (!entry.etag.is_empty()).then(|| format!("\"{}\"", entry.etag));
        let mut got = call
            .set_if_match(tag)
            .send()
            .await
            .map_err(|error| self.reading(S3Error::of(error)))?;
        if got.content_length().and_then(|n| u64::try_from(n).ok()) != Some(entry.size) {
            return Err(Trouble::Changed.finally());
        }
        let key = format!("{}{}", self.to.prefix, entry.key);
        let body = std::mem::take(&mut got.body);
        let mut body = Body::new(body, entry.size);
        let (sent, said) = if entry.size <= PART_BYTES {
            self.put(&key, &got, &mut body).await?
        } else {
            self.put_parts(&key, &got, &mut body, part_bytes(entry.size))
                .await?
        };
        let sha256 = body.digest();
        let by_checksum = said == sent && !self.reread;
        if !by_checksum {
            self.read_back(&key, &said, &sha256).await?;
        }
        let copy = if said.is_empty() {
            self.tag_of(&key).await?
        } else {
            said
        };
        Ok(Done {
            known: Known {
                key: entry.key.clone(),
                size: entry.size,
                etag: entry.etag.clone(),
                copy,
                sha256: Some(sha256),
            },
            was_reread: !by_checksum,
            lost_tags: self.lost_tags(&source_key, &key, &got).await,
        })
    }

    /// In one piece. The MD5 that was sent, and the tag that came back.
    async fn put(
        &self,
        key: &str,
        got: &GetObjectOutput,
        body: &mut Body,
    ) -> Result<(String, String), Stumble> {
        let part = body.fill(PART_BYTES).await?;
        let sent = hex(&Md5::digest(&part));
        let bytes = part.len() as u64;
        let call = self
            .to
            .client
            .sdk()
            .put_object()
            .bucket(&self.to.bucket)
            .key(key);
        let call = call
            .set_content_type(got.content_type.clone())
            .set_content_encoding(got.content_encoding.clone())
            .set_content_language(got.content_language.clone())
            .set_content_disposition(got.content_disposition.clone())
            .set_cache_control(got.cache_control.clone())
            .set_metadata(got.metadata.clone())
            .set_checksum_algorithm(self.checksum())
            .body(ByteStream::from(part));
        let put = call
            .customize()
            .config_override(sending(bytes))
            .send()
            .await
            .map_err(|error| self.writing(key, S3Error::of(error)))?;
        Ok((sent, bare(put.e_tag())))
    }

    /// In parts, one after the other: several objects are under way at once.
    async fn put_parts(
        &self,
        key: &str,
        got: &GetObjectOutput,
        body: &mut Body,
        part_bytes: u64,
    ) -> Result<(String, String), Stumble> {
        let sdk = self.to.client.sdk();
        let call = sdk
            .create_multipart_upload()
            .bucket(&self.to.bucket)
            .key(key);
        let call = call
            .set_content_type(got.content_type.clone())
            .set_content_encoding(got.content_encoding.clone())
            .set_content_language(got.content_language.clone())
            .set_content_disposition(got.content_disposition.clone())
            .set_cache_control(got.cache_control.clone())
            .set_metadata(got.metadata.clone())
            .set_checksum_algorithm(self.checksum());
        let begun = self.uploads.begin(key, call).await?;
        let id = begun.map_err(|error| self.writing(key, S3Error::of(error)))?;
        let outcome = self.send_parts(key, &id, body, part_bytes).await;
        if outcome.is_err() {
            // A failure to abort is left to `abandon`, which counts it.
            let abort = sdk
                .abort_multipart_upload()
                .bucket(&self.to.bucket)
                .key(key)
                .upload_id(&id);
            if abort.send().await.is_ok() {
                self.uploads.closed(&id);
            }
        } else {
            self.uploads.closed(&id);
        }
        outcome
    }

    async fn send_parts(
        &self,
        key: &str,
        id: &str,
        body: &mut Body,
        part_bytes: u64,
    ) -> Result<(String, String), Stumble> {
        let sdk = self.to.client.sdk();
        let mut parts = Vec::new();
        let mut digests = Md5::new();
        let mut number = 0;
        while body.left > 0 {
            number += 1;
            let part = body.fill(part_bytes).await?;
            let digest = Md5::digest(&part);
            digests.update(digest);
            let bytes = part.len() as u64;
            let call = sdk
                .upload_part()
                .bucket(&self.to.bucket)
                .key(key)
                .upload_id(id)
                .part_number(number);
            let call = call
                .set_checksum_algorithm(self.checksum())
                .body(ByteStream::from(part));
            let sent = call
                .customize()
                .config_override(sending(bytes))
                .send()
                .await
                .map_err(|error| self.writing(key, S3Error::of(error)))?;
            parts.push(
                CompletedPart::builder()
                    .part_number(number)
                    .set_e_tag(sent.e_tag.clone())
                    .set_checksum_sha256(sent.checksum_sha256.clone())
                    .build(),
            );
        }
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let call = sdk
            .complete_multipart_upload()
            .bucket(&self.to.bucket)
            .key(key)
            .upload_id(id)
            .multipart_upload(parts);
        let whole = call
            .customize()
            .config_override(completing())
            .send()
            .await
            .map_err(|error| self.writing(key, S3Error::of(error)))?;
        Ok((
            format!("{}-{number}", hex(&digests.finalize())),
            bare(whole.e_tag()),
        ))
    }

    async fn read_back(&self, key: &str, tag: &str, sha256: &str) -> Result<(), Stumble> {
        let found = match digest(self.to, key, tag).await {
            Ok((found, _)) => found,
            Err(Unread::Refused(error)) if error.kind == Kind::NoObject => {
                let said = "taken, and not there when it is read back";
                return Err(Trouble::CannotHold(said.to_owned()).finally());
            }
            Err(error) => return Err(error.of(|error| self.writing(key, error))),
        };
        if found == sha256 {
            return Ok(());
        }
        Err(Trouble::Differs(format!("sent {sha256}, read back {found}")).finally())
    }

    async fn tag_of(&self, key: &str) -> Result<String, Stumble> {
        let head = self
            .to
            .client
            .sdk()
            .head_object()
            .bucket(&self.to.bucket)
            .key(key)
            .send()
            .await;
        Ok(bare(
            head.map_err(|error| self.writing(key, S3Error::of(error)))?
                .e_tag(),
        ))
    }

    /// Reads an object on both sides, and copies it where they differ.
    pub async fn compare(&self, entry: &Entry) -> Result<(Done, bool), Trouble> {
        let mut attempt = 1;
        let same = loop {
            match self.compared(entry).await {
                Ok(same) => break same,
                Err(stumble) if stumble.is_passing && attempt < ATTEMPTS => attempt += 1,
                Err(stumble) => return Err(stumble.trouble),
            }
        };
        match same {
            Some(known) => Ok((
                Done {
                    known,
                    was_reread: true,
                    lost_tags: false,
                },
                false,
            )),
            None => Ok((self.copy(entry).await?, true)),
        }
    }

    async fn compared(&self, entry: &Entry) -> Result<Option<Known>, Stumble> {
        let key = format!("{}{}", self.from.prefix, entry.key);
        let (source, _) = digest(self.from, &key, &entry.etag)
            .await
            .map_err(|error| error.of(|error| self.reading(error)))?;
        let key = format!("{}{}", self.to.prefix, entry.key);
        let (copy, tag) = digest(self.to, &key, "")
            .await
            .map_err(|error| error.of(|error| self.writing(&key, error)))?;
        Ok((source == copy).then(|| Known {
            key: entry.key.clone(),
            size: entry.size,
            etag: entry.etag.clone(),
            copy: tag,
            sha256: Some(source),
        }))
    }

    /// Whether the source has tags that did not come along.
    async fn lost_tags(&self, source_key: &str, key: &str, got: &GetObjectOutput) -> bool {
        if got.tag_count().unwrap_or(0) <= 0 {
            return false;
        }
        let tags = self
            .from
            .client
            .sdk()
            .get_object_tagging()
            .bucket(&self.from.bucket)
            .key(source_key)
            .send()
            .await;
        let Ok(tags) = tags else { return true };
        let Ok(tags) = Tagging::builder().set_tag_set(Some(tags.tag_set)).build() else {
            return true;
        };
        let put = self
            .to
            .client
            .sdk()
            .put_object_tagging()
            .bucket(&self.to.bucket)
            .key(key)
            .tagging(tags);
        put.send().await.is_err()
    }

    fn checksum(&self) -> Option<ChecksumAlgorithm> {
        self.checksums.then_some(ChecksumAlgorithm::Sha256)
    }

    fn reading(&self, error: S3Error) -> Stumble {
        if matches!(error.kind, Kind::NoObject | Kind::Precondition) {
            return Trouble::Changed.finally();
        }
        let is_passing = error.is_passing();
        let failure = self.from.client.failure("cannot read it", error);
        Stumble {
            trouble: Trouble::Failed(rg_common::report::with_hints(&failure)),
            is_passing,
        }
    }

    fn writing(&self, key: &str, error: S3Error) -> Stumble {
        let code = error.code.clone().unwrap_or_default();
        if is_about_the_name(error.status, &code, &error.to_string()) {
            return Trouble::CannotHold(code).finally();
        }
        let is_passing = error.is_passing();
        let failure = self.to.client.failure(
            format!("cannot write {}", crate::pages::printable(key)),
            error,
        );
        Stumble {
            trouble: Trouble::Failed(rg_common::report::with_hints(&failure)),
            is_passing,
        }
    }
}
