//! A bucket's new and changed objects as a tar archive, produced while they are read.
//!
//! The promise: the end of the stream comes only after every object of the list was either found
//! unchanged or read whole. Small objects are fetched several at a time; the order is the keys'.
//! Memory: [`AHEAD`] small objects, or one chunk of a large one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::JoinHandle;

use super::index::Index;
use super::live::{Bucket, Known, Listed, SMALL_BYTES, Small, Stream};
use super::object::{Members, ObjectEntry};
use super::sorted::Sorted;
use super::{Request, is_young};
use crate::catalog::manifest::Need;
use crate::catalog::manifest::hex;
use crate::dump::RowSum;
use crate::failure::{Failure, OrFail, Result};
use crate::files::header::{self, BLOCK};
use crate::files::{Entry, Kind, Mtime};
use crate::names::Stamp;
use crate::s3::S3Error;
use crate::sha256::Sha256;

/// So many small objects are on their way or wait for their turn: 4 MiB.
const AHEAD: usize = 16;
/// So many unchanged objects may wait behind one that is still being fetched.
const WAITING_MAX: usize = 4096;

/// What went by.
#[derive(Default)]
pub(super) struct Tally {
    /// Everything in the bucket.
    pub objects: u64,
    pub bytes: u64,
    /// Over all entries; see [`BucketContent`](crate::catalog::manifest::BucketContent).
    pub digest: String,
    /// What was read and lies in this archive.
    pub read: u64,
    pub read_bytes: u64,
    pub vanished: u64,
    /// The older backups whose archives hold the rest.
    pub needs: Vec<Need>,
}

pub(super) struct Archive {
    bucket: Bucket,
    listed: Sorted<Listed>,
    index: Index,
    /// File names by the stamps of the backups that unchanged objects may lie in.
    earlier: BTreeMap<Stamp, String>,
    stamp: Stamp,
    now: Timestamp,
    members: Members,
    queue: VecDeque<Next>,
    fetching: usize,
    listed_all: bool,
    list: Option<BufWriter<File>>,
    tally: Tally,
    sum: RowSum,
    needs: BTreeSet<Stamp>,
    ready: Bytes,
    body: Option<Body>,
    state: State,
}

enum State {
    Going,
    Ended,
    Failed(String),
}

/// What comes next, in the order of keys.
enum Next {
    Unchanged(Box<ObjectEntry>),
    Small(Listed, Option<String>, Fetch),
    Large(Listed, Option<String>),
}

type Fetch = JoinHandle<Result<Small, S3Error>>;

/// A large object going out.
struct Body {
    key: String,
    member: Option<String>,
    stream: Stream,
    hash: Sha256,
}

impl Archive {
    pub fn new(
        bucket: Bucket,
        listed: Sorted<Listed>,
        index: Index,
        list: File,
        request: &Request<'_>,
    ) -> Archive {
        let young = |need: &&Need| is_young(need.stamp.time(), request.now);
        let earlier = request.earlier.iter().filter(young);
        let mut archive = Archive::alone(bucket, listed, list, request.stamp, request.now);
        archive.index = index;
        archive.earlier = earlier
            .map(|need| (need.stamp, need.file.clone()))
            .collect();
        archive
    }

    /// Of all that is listed, whatever earlier backups hold.
    pub fn alone(
        bucket: Bucket,
        listed: Sorted<Listed>,
        list: File,
        stamp: Stamp,
        now: Timestamp,
    ) -> Archive {
        Archive {
            bucket,
            listed,
            index: Index::default(),
            earlier: BTreeMap::new(),
            stamp,
            now,
            members: Members::default(),
            queue: VecDeque::new(),
            fetching: 0,
            listed_all: false,
            list: Some(BufWriter::with_capacity(1 << 16, list)),
            tally: Tally::default(),
            sum: RowSum::new(),
            needs: BTreeSet::new(),
            ready: Bytes::new(),
            body: None,
            state: State::Going,
        }
    }

    /// What went out, and the list. An error unless the stream was read to its end.
    pub fn finish(mut self) -> Result<(Tally, File)> {
        match &self.state {
            State::Ended => {}
            State::Failed(what) => return Err(Failure::new(what.clone())),
            State::Going => return Err(Failure::new("the bucket was not read to its end")),
        }
        self.tally.digest = self.sum.checksum();
        self.tally.needs = self
            .needs
            .iter()
            .filter_map(|stamp| {
                let file = self.earlier.get(stamp)?.clone();
                Some(Need {
                    stamp: *stamp,
                    file,
                })
            })
            .collect();
        let what = || "cannot write the list of objects".to_owned();
        let list = self.list.take().ok_or_else(|| Failure::new(what()))?;
        let list = list.into_inner().map_err(io::IntoInnerError::into_error);
        Ok((std::mem::take(&mut self.tally), list.or_fail(what)?))
    }

    /// Looks at more of the list until enough objects are on their way.
    fn look_ahead(&mut self) -> Result<()> {
        while !self.listed_all && self.fetching < AHEAD && self.queue.len() < WAITING_MAX {
            let Some(object) = self.listed.next()? else {
                self.listed_all = true;
                break;
            };
            let member = self.members.place(&object.key);
            let known = self.index.find(&object.key);
            self.queue.push_back(
                match known.filter(|known| self.is_unchanged(&object, known)) {
                    Some(known) => Next::Unchanged(Box::new(known)),
                    None if object.size > SMALL_BYTES => Next::Large(object, member),
                    None => {
                        self.fetching += 1;
                        let (bucket, key) = (self.bucket.clone(), object.key.clone());
                        let fetch = async move { bucket.small(&key).await };
                        Next::Small(object, member, self.bucket.client.network().spawn(fetch))
                    }
                },
            );
        }
        Ok(())
    }

    fn is_unchanged(&self, object: &Listed, known: &ObjectEntry) -> bool {
        object.etag.is_some()
            && (object.size, &object.etag, object.modified)
                == (known.size, &known.etag, known.modified)
            && self.earlier.contains_key(&known.stamp)
    }

    /// One step: a header and a small object, a chunk of a large one, or an unchanged one.
    fn step(&mut self) -> Result<()> {
        if let Some(body) = &mut self.body {
            match body.stream.next()? {
                Some(chunk) => {
                    body.hash.update(&chunk);
                    self.ready = chunk;
                }
                None => self.end_body()?,
            }
            return Ok(());
        }
        self.look_ahead()?;
        match self.queue.pop_front() {
            Some(Next::Unchanged(entry)) => {
                self.needs.insert(entry.stamp);
                self.record(&entry)
            }
            Some(Next::Small(object, member, fetch)) => {
                self.fetching -= 1;
                let came = self.bucket.client.wait(fetch)?;
                let came = came.or_fail(|| format!("reading `{}` was broken off", object.key))?;
                let doing = format!("read object `{}`", object.key);
                match came.map_err(|error| self.bucket.failure(&doing, error))? {
                    Small::Whole(known, bytes) => self.small(object.key, member, *known, &bytes),
                    Small::Grown => self.large(object.key, member),
                    Small::Gone => self.vanished(&object.key),
                }
            }
            Some(Next::Large(object, member)) => self.large(object.key, member),
            None => {
                self.ready = Bytes::from_static(&[0; 2 * BLOCK]);
                self.state = State::Ended;
                Ok(())
            }
        }
    }

    fn small(
        &mut self,
        key: String,
        member: Option<String>,
        known: Known,
        bytes: &[u8],
    ) -> Result<()> {
        let mut out = self.header(&key, member.as_deref(), &known);
        out.extend_from_slice(bytes);
        header::pad(&mut out);
        self.ready = out.into();
        let sha256 = Sha256::digest(bytes);
        self.read(key, member, known, &sha256)
    }

    /// Begins an object that is read while it goes out.
    fn large(&mut self, key: String, member: Option<String>) -> Result<()> {
        let Some(stream) = Stream::open(&self.bucket, &key)? else {
            return self.vanished(&key);
        };
        self.ready = self.header(&key, member.as_deref(), &stream.known).into();
        self.body = Some(Body {
            key,
            member,
            stream,
            hash: Sha256::new(),
        });
        Ok(())
    }

    fn end_body(&mut self) -> Result<()> {
        let Some(body) = self.body.take() else {
            return Ok(());
        };
        let size = body.stream.known.size;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.ready = vec![0; padding as usize].into();
        let sha256 = body.hash.finalize();
        self.read(body.key, body.member, body.stream.known.clone(), &sha256)
    }

    fn read(
        &mut self,
        key: String,
        member: Option<String>,
        known: Known,
        sha256: &[u8; 32],
    ) -> Result<()> {
        self.tally.read += 1;
        self.tally.read_bytes += known.size;
        let entry = ObjectEntry {
            key,
            size: known.size,
            sha256: hex(sha256),
            etag: known.etag,
            version: known.version,
            modified: known.modified,
            stamp: self.stamp,
            member,
            headers: known.headers,
        };
        self.record(&entry)
    }

    fn record(&mut self, entry: &ObjectEntry) -> Result<()> {
        self.tally.objects += 1;
        self.tally.bytes += entry.size;
        self.sum.add_row(entry.identity().as_bytes());
        let what = || "cannot write the list of objects".to_owned();
        let list = self.list.as_mut().ok_or_else(|| Failure::new(what()))?;
        serde_json::to_writer(&mut *list, entry).or_fail(what)?;
        list.write_all(b"\n").or_fail(what)
    }

    fn vanished(&mut self, key: &str) -> Result<()> {
        tracing::info!("object `{key}` vanished while the bucket was read");
        self.tally.vanished += 1;
        Ok(())
    }

    fn header(&self, key: &str, member: Option<&str>, known: &Known) -> Vec<u8> {
        let path = member.map_or_else(|| format!("objects/{key}"), str::to_owned);
        let seconds = match known.modified.as_second() {
            0 => self.now.as_second(),
            seconds => seconds,
        };
        let entry = Entry {
            path: path.into_bytes(),
            kind: Kind::File,
            size: known.size,
            mode: 0o600,
            uid: 0,
            gid: 0,
            owner: None,
            group: None,
            mtime: Mtime {
                seconds,
                nanoseconds: 0,
            },
            sha256: None,
            link: None,
            xattrs: Vec::new(),
            sparse: false,
        };
        let mut out = Vec::with_capacity(BLOCK);
        header::write(&mut out, &entry, None);
        out
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            match &self.state {
                State::Ended => return Ok(0),
                State::Failed(what) => return Err(Failure::new(what.clone()).into_io()),
                State::Going => {}
            }
            if let Err(failure) = self.step() {
                self.state = State::Failed(failure.to_string());
                return Err(failure.into_io());
            }
        }
        let n = buffer.len().min(self.ready.len());
        buffer[..n].copy_from_slice(&self.ready.split_to(n));
        Ok(n)
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        for next in &self.queue {
            if let Next::Small(_, _, fetch) = next {
                fetch.abort();
            }
        }
    }
}
