//! Objects out of a bucket: every byte, or an error.
//!
//! A reader asks for ranges, several ahead of what is read, and takes them in order. A cut
//! connection goes on at the byte where it was cut. Each further range is asked for with the first
//! one's ETag as a condition, so that an object that is replaced meanwhile is an error and never a
//! mixture of two.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::{Bucket, SMALL_IN_FLIGHT};
use crate::failure::Failure;
use crate::s3::{Client, Kind, S3Error};

/// The length of a range.
const RANGE_BYTES: u64 = 8 << 20;
/// How many ranges travel or wait ahead of the reader: 32 MiB with the one that is being read.
const RANGES_AHEAD: usize = 3;
/// So many attempts in a row may bring nothing.
const IDLE_TRIES: u32 = 6;
/// The pause after the first such attempt; doubled each time.
const IDLE_PAUSE: Duration = Duration::from_millis(200);

/// A part of an object, and where it stands.
#[derive(Clone)]
struct Source {
    client: Client,
    bucket: Arc<str>,
    key: Arc<str>,
}

/// What is known of an object once its first range came.
struct First {
    bytes: Bytes,
    total: u64,
    etag: Option<String>,
}

/// An object being read.
pub(super) struct Reader {
    source: Source,
    etag: Option<String>,
    total: u64,
    /// What is taken from; then what was asked for, in order.
    now: Bytes,
    ahead: VecDeque<JoinHandle<Result<Bytes, S3Error>>>,
    /// Where the next range begins.
    next: u64,
    given: u64,
}

/// Asks for the first range.
pub(super) fn open(client: &Client, bucket: &str, key: &str) -> Result<Reader, S3Error> {
    let source = Source {
        client: client.clone(),
        bucket: bucket.into(),
        key: key.into(),
    };
    let first = client
        .wait(source.first(RANGE_BYTES))
        .map_err(S3Error::stopped)??;
    let mut reader = Reader {
        next: first.bytes.len() as u64,
        source,
        etag: first.etag,
        total: first.total,
        now: first.bytes,
        ahead: VecDeque::new(),
        given: 0,
    };
    reader.ask();
    Ok(reader)
}

/// Reads small objects side by side, the first `bytes_max` of each.
pub(super) fn small(
    client: &Client,
    bucket: &str,
    keys: Vec<String>,
    bytes_max: u64,
) -> Vec<Result<Vec<u8>, S3Error>> {
    let bucket: Arc<str> = bucket.into();
    let mut found: Vec<Option<Result<Vec<u8>, S3Error>>> = keys.iter().map(|_| None).collect();
    let done = client.wait(async {
        let mut tasks = JoinSet::new();
        let room = Arc::new(Semaphore::new(SMALL_IN_FLIGHT));
        for (index, key) in keys.into_iter().enumerate() {
            let room = Arc::clone(&room).acquire_owned().await;
            let source = Source {
                client: client.clone(),
                bucket: Arc::clone(&bucket),
                key: key.into(),
            };
            tasks.spawn(async move {
                let read = source.first(bytes_max.max(1)).await;
                drop(room);
                (index, read.map(|first| first.bytes.to_vec()))
            });
            while let Some(ready) = tasks.try_join_next() {
                keep(&mut found, ready);
            }
        }
        while let Some(ready) = tasks.join_next().await {
            keep(&mut found, ready);
        }
    });
    let stopped = done.err().map(|failure| failure.to_string());
    let found = found.into_iter().map(|read| {
        read.unwrap_or_else(|| {
            let said = stopped
                .clone()
                .unwrap_or_else(|| "it was not read".to_owned());
            Err(S3Error::ours(Kind::Stopped, said))
        })
    });
    found.collect()
}

type Small = (usize, Result<Vec<u8>, S3Error>);

fn keep(
    found: &mut [Option<Result<Vec<u8>, S3Error>>],
    ready: Result<Small, tokio::task::JoinError>,
) {
    if let Ok((index, read)) = ready {
        found[index] = Some(read);
    }
}

/// Reads an object through in pieces of `length` until one is not liked; whether all were.
pub(super) fn in_parts(
    store: &Bucket,
    key: &str,
    length: usize,
    mut look: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<bool, S3Error> {
    let mut reader = open(&store.client, &store.place.bucket, key)?;
    let mut piece = Vec::with_capacity(length);
    loop {
        piece.clear();
        let read = (&mut reader).take(length as u64).read_to_end(&mut piece);
        read.map_err(|error| S3Error::stopped(Failure::from_io("cannot read it back", error)))?;
        if piece.is_empty() {
            return Ok(true);
        }
        if look(&piece).is_break() {
            return Ok(false);
        }
    }
}

impl Reader {
    /// Keeps as many ranges on their way as there may be.
    fn ask(&mut self) {
        while self.next < self.total && self.ahead.len() < RANGES_AHEAD {
            let length = RANGE_BYTES.min(self.total - self.next);
            let (source, from, etag) = (self.source.clone(), self.next, self.etag.clone());
            let task = async move { source.range(from, length, etag).await };
            self.ahead
                .push_back(self.source.client.network().spawn(task));
            self.next += length;
        }
    }

    fn advance(&mut self) -> Result<(), S3Error> {
        let Some(next) = self.ahead.front_mut() else {
            return Ok(());
        };
        let came = self.source.client.wait(next).map_err(S3Error::stopped)?;
        self.ahead.pop_front();
        self.now = came.map_err(|panic| S3Error::ours(Kind::Other, panic.to_string()))??;
        self.ask();
        Ok(())
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.now.is_empty() && self.given < self.total {
            self.advance().map_err(|error| {
                let what = format!("cannot read {}", self.source.key);
                self.source.client.failure(what, error).into_io()
            })?;
        }
        let count = buffer.len().min(self.now.len());
        self.now.copy_to_slice(&mut buffer[..count]);
        self.given += count as u64;
        Ok(count)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ahead.iter().for_each(JoinHandle::abort);
    }
}

impl Source {
    /// The first bytes, up to `length`, and what they tell of the whole.
    async fn first(&self, length: u64) -> Result<First, S3Error> {
        let answer = match self.get(0, length, None).await {
            Ok(answer) => answer,
            // An empty object has no first byte: 416.
            Err(error) if error.status == Some(416) => {
                return Ok(First {
                    bytes: Bytes::new(),
                    total: 0,
                    etag: None,
                });
            }
            Err(error) => return Err(error),
        };
        let total = total(&answer)?;
        let etag = answer.e_tag().map(str::to_owned);
        let length = length.min(total);
        let mut bytes = BytesMut::new();
        let mut idle = 0;
        let mut body = Some(answer);
        while (bytes.len() as u64) < length {
            self.go_on(&mut bytes, 0, length, etag.as_deref(), &mut body, &mut idle)
                .await?;
        }
        Ok(First {
            bytes: bytes.freeze(),
            total,
            etag,
        })
    }

    /// A range in the middle.
    async fn range(&self, from: u64, length: u64, etag: Option<String>) -> Result<Bytes, S3Error> {
        let capacity = usize::try_from(length).unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(capacity);
        let mut idle = 0;
        let mut body = None;
        while (bytes.len() as u64) < length {
            self.go_on(
                &mut bytes,
                from,
                length,
                etag.as_deref(),
                &mut body,
                &mut idle,
            )
            .await?;
        }
        Ok(bytes.freeze())
    }

    /// One attempt to bring a range further: from an answer that is at hand, or a new one.
    async fn go_on(
        &self,
        bytes: &mut BytesMut,
        from: u64,
        length: u64,
        etag: Option<&str>,
        body: &mut Option<Answer>,
        idle: &mut u32,
    ) -> Result<(), S3Error> {
        let before = bytes.len();
        let at = from + before as u64;
        let mut answer = match body.take() {
            Some(answer) => answer,
            None => {
                let answer = self.get(at, length - before as u64, etag).await?;
                check_start(&answer, at)?;
                answer
            }
        };
        let mut cut = None;
        while (bytes.len() as u64) < length {
            match answer.body.try_next().await {
                Ok(Some(chunk)) => {
                    let wanted = usize::try_from(length - bytes.len() as u64);
                    let wanted = wanted.unwrap_or(usize::MAX).min(chunk.len());
                    bytes.extend_from_slice(&chunk[..wanted]);
                }
                Ok(None) => break,
                Err(error) => {
                    cut = Some(error.to_string());
                    break;
                }
            }
        }
        if bytes.len() as u64 == length {
            return Ok(());
        }
        *idle = if bytes.len() > before { 0 } else { *idle + 1 };
        if *idle >= IDLE_TRIES {
            let said = cut.unwrap_or_else(|| "it ends too early".to_owned());
            return Err(S3Error::ours(Kind::Unreachable, said));
        }
        tracing::debug!(key = %self.key, at = from + bytes.len() as u64, "the connection was cut; going on");
        tokio::time::sleep(IDLE_PAUSE * (1 << *idle)).await;
        Ok(())
    }

    async fn get(&self, from: u64, length: u64, etag: Option<&str>) -> Result<Answer, S3Error> {
        let call = self.client.sdk().get_object();
        let call = call
            .bucket(&*self.bucket)
            .key(&*self.key)
            .range(format!("bytes={from}-{}", from + length - 1))
            .set_if_match(etag.map(str::to_owned));
        call.send().await.map_err(S3Error::of)
    }
}

type Answer = aws_sdk_s3::operation::get_object::GetObjectOutput;

/// The whole object's length: `bytes 0-99/1234`, or all of it where the range was ignored.
fn total(answer: &Answer) -> Result<u64, S3Error> {
    let length = match answer.content_range() {
        Some(range) => range
            .rsplit('/')
            .next()
            .and_then(|total| total.parse().ok()),
        None => answer
            .content_length()
            .and_then(|all| u64::try_from(all).ok()),
    };
    length.ok_or_else(|| {
        S3Error::ours(
            Kind::NotS3,
            "the answer does not say how long the object is",
        )
    })
}

fn check_start(answer: &Answer, at: u64) -> Result<(), S3Error> {
    let range = answer.content_range().unwrap_or_default();
    let start = range.trim_start_matches("bytes ").split('-').next();
    if start.and_then(|start| start.parse().ok()) == Some(at) {
        return Ok(());
    }
    let said = format!("bytes from {at} were asked for, and `{range}` came");
    Err(S3Error::ours(Kind::Broken, said))
}
