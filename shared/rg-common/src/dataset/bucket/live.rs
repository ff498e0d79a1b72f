//! What a bucket holds now: its list, and its objects one by one.

use std::fs::File;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::Headers;
use super::sorted::{Named, Sorted, Sorter};
use crate::failure::{Failure, Result};
use crate::s3::{Client, Kind, ObjectPages, S3Error};

/// An object up to this size is fetched whole, several at a time.
pub(super) const SMALL_BYTES: u64 = 256 << 10;
/// So many times in a row may a connection bring nothing.
pub(super) const IDLE_TRIES: u32 = 5;
/// An object that was small when it was listed is held up to this size, however it has grown since.
const HELD_BYTES_MAX: u64 = 4 * SMALL_BYTES;
/// The pause after the first connection that brings nothing; doubled each time.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

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
        let mut pages = ObjectPages::new(&self.client, &self.name, "");
        loop {
            let page = pages.next_page().map_err(|error| {
                let doing = format!("list bucket `{}`", self.name);
                self.failure(&doing, error)
            })?;
            let Some(page) = page else {
                return sorter.finish();
            };
            for object in page {
                sorter.push(Listed {
                    key: object.key,
                    size: object.size,
                    etag: object.etag,
                    modified: object.modified.unwrap_or_default(),
                })?;
            }
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

    /// An object that was small when it was listed.
    pub async fn small(&self, key: &str) -> Result<Small, S3Error> {
        let mut tries = 0;
        loop {
            let Some((known, mut body)) = self.open(key).await? else {
                return Ok(Small::Gone);
            };
            if known.size > HELD_BYTES_MAX {
                return Ok(Small::Grown);
            }
            let mut bytes = BytesMut::with_capacity(known.size as usize);
            while let Ok(Some(chunk)) = body.try_next().await {
                bytes.extend_from_slice(&chunk);
                if bytes.len() as u64 >= known.size {
                    break;
                }
            }
            if bytes.len() as u64 == known.size {
                return Ok(Small::Whole(Box::new(known), bytes.freeze()));
            }
            tries += 1;
            if tries >= IDLE_TRIES {
                return Err(ends_early());
            }
            pause(tries).await;
        }
    }
}

/// What came of an object that was small when it was listed.
pub(super) enum Small {
    /// All of it.
    Whole(Box<Known>, Bytes),
    /// It is there, and too large by now to be held.
    Grown,
    /// It is not there any more.
    Gone,
}

/// So many tries in a row brought nothing.
pub(super) fn ends_early() -> S3Error {
    S3Error::ours(Kind::Unreachable, "it ends too early")
}

/// Before the next try, when so many in a row brought nothing: a busy service must not be asked
/// again at once by sixteen at a time.
pub(super) async fn pause(tries: u32) {
    tokio::time::sleep(IDLE_PAUSE * (1 << tries.min(IDLE_TRIES))).await;
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
                        return Err(self.failed(ends_early()));
                    }
                    self.bucket.client.wait(pause(self.idle))?;
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
    S3Error::ours(Kind::Broken, said)
}

/// An ETag without its quotes.
fn bare(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// In whole seconds: some services give a list with fractions and an object's own answer without.
fn time(time: &DateTime) -> Timestamp {
    Timestamp::from_second(time.secs()).unwrap_or_default()
}
