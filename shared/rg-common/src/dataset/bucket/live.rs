//! What a bucket holds now: its list, and its objects one by one.

use std::fs::File;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::Headers;
use super::sorted::{Named, Sorted, Sorter};
use crate::failure::{Failure, Result};
use crate::s3::{Client, Kind, S3Error};

/// An object up to this size is fetched whole, several at a time.
pub(super) const SMALL_BYTES: u64 = 256 << 10;
/// So many times in a row may a connection bring nothing.
pub(super) const IDLE_TRIES: u32 = 5;
/// So many pages in a row may be empty and still promise more.
const EMPTY_PAGES_MAX: u32 = 10;

/// A bucket and the way to it.
#[derive(Clone)]
pub(super) struct Bucket {
    pub client: Client,
    pub name: String,
}

/// An object as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub key: String,
    pub size: u64,
    pub etag: Option<String>,
    pub modified: Timestamp,
}

impl Named for Listed {
    fn name(&self) -> &str {
        &self.key
    }
}

impl Bucket {
    /// What could not be done with it.
    pub fn failure(&self, doing: &str, error: S3Error) -> Failure {
        self.client.failure(format!("cannot {doing}"), error)
    }

    /// Everything in it, sorted by key; all of it or an error. `room` makes an empty file.
    pub fn list(&self, room: impl FnMut() -> Result<File>) -> Result<Sorted<Listed>> {
        let mut sorter = Sorter::new(room);
        let mut token: Option<String> = None;
        let mut empty = 0;
        let cannot = |error| self.failure(&format!("list bucket `{}`", self.name), error);
        loop {
            let call = self.client.sdk().list_objects_v2().bucket(&self.name);
            let call = call.set_continuation_token(token.clone());
            let page = self.client.call(call.send()).map_err(cannot)?;
            for object in page.contents() {
                let (Some(key), Some(size)) = (object.key(), object.size()) else {
                    return Err(cannot(broken("an object without key or size")));
                };
                sorter.push(Listed {
                    key: key.to_owned(),
                    size: u64::try_from(size).unwrap_or(0),
                    etag: object.e_tag().map(bare),
                    modified: object.last_modified().map(time).unwrap_or_default(),
                })?;
            }
            if page.is_truncated() != Some(true) {
                return sorter.finish();
            }
            empty = if page.contents().is_empty() {
                empty + 1
            } else {
                0
            };
            let next = page.next_continuation_token().map(str::to_owned);
            if next.is_none() || next == token || empty > EMPTY_PAGES_MAX {
                return Err(cannot(broken(
                    "the list breaks off: more is promised, but not where",
                )));
            }
            token = next;
        }
    }

    /// A call for an object; of a known one the same content or none at all.
    fn get(
        &self,
        key: &str,
        of: Option<&Known>,
        from: u64,
    ) -> aws_sdk_s3::operation::get_object::builders::GetObjectFluentBuilder {
        let mut call = self.client.sdk().get_object().bucket(&self.name).key(key);
        if let Some(known) = of {
            call = match &known.version {
                Some(version) => call.version_id(version),
                None => call.set_if_match(known.etag.clone()),
            };
        }
        if from > 0 {
            call = call.range(format!("bytes={from}-"));
        }
        call
    }

    /// Begins to read an object; none when it is gone.
    pub async fn open(&self, key: &str) -> Result<Option<(Known, ByteStream)>, S3Error> {
        match self.get(key, None, 0).send().await {
            Ok(answer) => Known::of(&answer).map(|known| Some((known, answer.body))),
            Err(error) => match S3Error::of(error) {
                gone if gone.kind == Kind::NoObject => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Goes on at a byte, with the same content or not at all.
    pub async fn go_on(&self, key: &str, known: &Known, from: u64) -> Result<ByteStream, S3Error> {
        let answer = self.get(key, Some(known), from).send().await;
        let answer = answer.map_err(S3Error::of)?;
        let begins = answer.content_range().and_then(|range| {
            let begin = range.trim_start_matches("bytes ").split('-').next()?;
            begin.parse::<u64>().ok()
        });
        match (from, begins) {
            (0, None) => Ok(answer.body),
            (from, Some(begins)) if from == begins => Ok(answer.body),
            _ => Err(broken("other bytes came than were asked for")),
        }
    }

    /// A whole small object; none when it is gone.
    pub async fn small(&self, key: &str) -> Result<Option<(Known, Bytes)>, S3Error> {
        let mut tries = 0;
        loop {
            let Some((known, mut body)) = self.open(key).await? else {
                return Ok(None);
            };
            if known.size > 4 * SMALL_BYTES {
                // It has grown since it was listed.
                return Err(S3Error::ours(
                    Kind::Other,
                    "it grew while it was read".to_owned(),
                ));
            }
            let mut bytes = BytesMut::with_capacity(known.size as usize);
            while let Ok(Some(chunk)) = body.try_next().await {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 >= known.size {
                    break;
                }
            }
            if bytes.len() as u64 == known.size {
                return Ok(Some((known, bytes.freeze())));
            }
            tries += 1;
            if tries >= IDLE_TRIES {
                return Err(S3Error::ours(
                    Kind::Unreachable,
                    "it ends too early".to_owned(),
                ));
            }
        }
    }
}

/// What an answer tells of an object.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub size: u64,
    pub etag: Option<String>,
    pub version: Option<String>,
    pub modified: Timestamp,
    pub headers: Headers,
}

/// GET and HEAD answer alike, with types of their own.
macro_rules! known {
    ($answer:expr) => {{
        let answer = $answer;
        let size = answer.content_length();
        let size = size.and_then(|size| u64::try_from(size).ok());
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let metadata = answer.metadata().into_iter().flatten();
        Ok(Known {
            size: size.ok_or_else(|| broken("the answer does not say how long it is"))?,
            etag: answer.e_tag().map(bare),
            version: text(answer.version_id()).filter(|version| version != "null"),
            modified: answer.last_modified().map(time).unwrap_or_default(),
            headers: Headers {
                content_type: text(answer.content_type()),
                cache_control: text(answer.cache_control()),
                content_disposition: text(answer.content_disposition()),
                content_encoding: text(answer.content_encoding())
                    .filter(|encoding| encoding != "aws-chunked"),
                content_language: text(answer.content_language()),
                metadata: metadata
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            },
        })
    }};
}

impl Known {
    fn of(answer: &GetObjectOutput) -> Result<Known, S3Error> {
        known!(answer)
    }

    /// Of an answer without content.
    pub fn of_head(answer: &HeadObjectOutput) -> Result<Known, S3Error> {
        known!(answer)
    }
}

/// An object too large to be held, as it comes.
pub(super) struct Stream {
    bucket: Bucket,
    key: String,
    pub known: Known,
    body: Option<ByteStream>,
    at: u64,
    idle: u32,
}

impl Stream {
    /// Begins to read; none when it is gone.
    pub fn open(bucket: &Bucket, key: &str) -> Result<Option<Stream>> {
        let opened = bucket.client.wait(bucket.open(key))?;
        let opened =
            opened.map_err(|error| bucket.failure(&format!("read object `{key}`"), error))?;
        Ok(opened.map(|(known, body)| Stream {
            bucket: bucket.clone(),
            key: key.to_owned(),
            known,
            body: Some(body),
            at: 0,
            idle: 0,
        }))
    }

    /// The next bytes; none at its end. A cut connection goes on where it was cut.
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        while self.at < self.known.size {
            let came = self.bucket.client.wait(async {
                let mut body = match self.body.take() {
                    Some(body) => body,
                    None => self.bucket.go_on(&self.key, &self.known, self.at).await?,
                };
                // How a connection was cut does not matter: the next try says what is the matter.
                let chunk = body.try_next().await.ok().flatten();
                Ok::<_, S3Error>((body, chunk))
            })?;
            let (body, chunk) = came.map_err(|error| self.failed(error))?;
            match chunk {
                Some(mut chunk) if !chunk.is_empty() => {
                    let left = usize::try_from(self.known.size - self.at).unwrap_or(usize::MAX);
                    chunk.truncate(left);
                    self.at += chunk.len() as u64;
                    self.idle = 0;
                    self.body = Some(body);
                    return Ok(Some(chunk));
                }
                Some(_) => self.body = Some(body),
                None => {
                    self.idle += 1;
                    if self.idle >= IDLE_TRIES {
                        let early = "it ends too early".to_owned();
                        return Err(self.failed(S3Error::ours(Kind::Unreachable, early)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn failed(&self, error: S3Error) -> Failure {
        let replaced = error.status == Some(412);
        let failure = self
            .bucket
            .failure(&format!("read object `{}`", self.key), error);
        match replaced {
            true => failure
                .context("it was replaced while it was read")
                .hint("run it again; a bucket with versioning lets the old version be read on"),
            false => failure,
        }
    }
}

fn broken(said: &str) -> S3Error {
    S3Error::ours(Kind::Other, said.to_owned())
}

/// An ETag without its quotes.
fn bare(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// In whole seconds: some services give a list with fractions and an object's own answer without.
fn time(time: &DateTime) -> Timestamp {
    Timestamp::from_second(time.secs()).unwrap_or_default()
}
