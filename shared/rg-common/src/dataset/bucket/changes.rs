//! What has to be done to a bucket so that it holds what is wanted: a plan first, then the doing.
//!
//! An object is left alone when its key and size are the wanted one's and its ETag says that its
//! content is too: the ETag that the backup recorded, or the one that the content has here. Where
//! its time is not the recorded one its headers are looked at as well. The plan lies in files, so
//! that its size is not bounded by memory.

use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::task::JoinHandle;

use super::archive::Archive;
use super::contents::{Lines, read_objects};
use super::live::{Bucket, Listed};
use super::object::{Headers, ObjectEntry};
use super::prove::{OpenArchive, Wanted};
use super::put::Flight;
use super::read_back::{self, same_headers};
use super::sorted::{Sorted, read_line};
use super::target::{Target, create, open};
use crate::failure::{Failure, OrFail, Result};
use crate::names::Stamp;
use crate::s3::S3Error;

/// The headers of so many objects are asked for at once.
const LOOKS_MAX: usize = 16;
/// So many objects may wait behind one whose headers are still asked for.
const WAITING_MAX: usize = 1024;

/// An object that was written so shortly before it was read may have been written again since, with
/// the same time.
const SLACK_SECONDS: i64 = 2;

/// What becomes of live objects that are not wanted.
#[derive(Clone, Copy)]
pub enum Scope<'a> {
    /// All of them are deleted.
    Whole,
    /// Those are deleted whose keys stand in this file, sorted, a JSON string a line.
    Only(&'a Path),
}

/// A plan.
#[derive(Debug)]
pub struct Changes {
    /// Objects that are not there yet.
    pub creates: u64,
    /// Objects that take another's place.
    pub replaces: u64,
    /// Objects that go.
    pub deletes: u64,
    /// Objects that are left alone.
    pub unchanged: u64,
    /// Bytes of those that are put.
    pub put_bytes: u64,
    /// Bytes of those that are replaced or go.
    pub replaced_bytes: u64,
    /// The backups whose archives hold what is put.
    stamps: BTreeSet<Stamp>,
    folder: PathBuf,
}

const PUTS: &str = "puts.jsonl";
const REPLACED: &str = "replaced.jsonl";
const CREATES: &str = "creates.jsonl";
const DELETES: &str = "deletes.jsonl";

impl Changes {
    /// Compares what is wanted (a file that [`super::prove`] wrote) with what is live. A bucket that
    /// is not there is empty. The plan's files go into `folder`, which is there.
    pub fn plan(
        target: &Target,
        wanted: &Path,
        scope: Scope<'_>,
        folder: &Path,
    ) -> Result<Changes> {
        let mut planner = Planner {
            bucket: &target.bucket,
            gone: Gone::of(scope)?,
            changes: Changes {
                creates: 0,
                replaces: 0,
                deletes: 0,
                unchanged: 0,
                put_bytes: 0,
                replaced_bytes: 0,
                stamps: BTreeSet::new(),
                folder: folder.to_owned(),
            },
            files: Files {
                puts: Out::new(folder, PUTS)?,
                replaced: Out::new(folder, REPLACED)?,
                creates: Out::new(folder, CREATES)?,
                deletes: Out::new(folder, DELETES)?,
            },
            waiting: VecDeque::new(),
            looking: 0,
        };
        pairs(wanted, target.list()?, |pair| planner.take(pair))?;
        planner.finish()
    }

    /// Objects that are put.
    pub fn puts(&self) -> u64 {
        self.creates + self.replaces
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.puts() + self.deletes == 0
    }

    /// The keys that are not live yet, sorted, a JSON string a line.
    pub fn created_keys(&self) -> PathBuf {
        self.folder.join(CREATES)
    }

    /// The live objects that will be replaced or deleted as an archive; their list goes into
    /// `list`.
    pub fn save(
        &self,
        target: &Target,
        list: &Path,
        stamp: Stamp,
        now: jiff::Timestamp,
    ) -> Result<Saving> {
        let path = self.folder.join(REPLACED);
        let file = File::open(&path).or_fail(|| format!("cannot read {}", path.display()))?;
        let listed = Sorted::of_file(file)?;
        let archive = Archive::alone(target.bucket.clone(), listed, create(list)?, stamp, now);
        Ok(Saving(archive))
    }

    /// Deletes and puts. What goes is deleted first: services that keep objects in directories
    /// cannot hold `a` beside `a/b`.
    pub fn apply(&self, target: &Target, archive: &mut OpenArchive<'_>) -> Result<()> {
        let mut flight = Flight::new(&target.bucket);
        let mut deletes = open(&self.folder.join(DELETES))?;
        while let Some(key) = read_line::<String>(&mut deletes)? {
            flight.delete(&key)?;
        }
        flight.land()?;
        let mut flight = Flight::new(&target.bucket);
        for stamp in &self.stamps {
            let mut plain = archive(*stamp)?;
            let mut lines = Lines::new(open(&self.folder.join(PUTS))?);
            read_objects(&mut plain, *stamp, &mut lines, &mut |entry, content| {
                flight.put(entry, content)
            })?;
            std::io::copy(&mut plain, &mut std::io::sink())
                .map_err(|error| Failure::from_io("cannot read the archive to its end", error))?;
        }
        flight.land()
    }

    /// Reads back every object that was put and compares the whole list: what is wrong, in words.
    /// An empty answer means that the bucket holds what is wanted.
    pub fn check(
        &self,
        target: &Target,
        wanted: &Path,
        scope: Scope<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>> {
        let mut wrong =
            read_back::read_back(&target.bucket, open(&self.folder.join(PUTS))?, notes)?;
        let mut gone = Gone::of(scope)?;
        pairs(wanted, target.list()?, |pair| {
            match pair {
                Pair::Wanted(wanted) => {
                    wrong.push(format!("object `{}` is missing", wanted.entry.key));
                }
                Pair::Both(wanted, listed) if wanted.entry.size != listed.size => {
                    let (key, size) = (&listed.key, wanted.entry.size);
                    wrong.push(format!(
                        "object `{key}` has {} bytes, not {size}",
                        listed.size
                    ));
                }
                Pair::Live(listed) if gone.names(&listed.key)? => {
                    wrong.push(format!("object `{}` should not be there", listed.key));
                }
                Pair::Both(..) | Pair::Live(_) => {}
            }
            wrong.truncate(read_back::WRONG_MAX);
            Ok(())
        })?;
        Ok(wrong)
    }
}

/// Live objects on their way into an archive.
pub struct Saving(Archive);

impl Saving {
    /// How many objects and bytes it holds; an error unless it was read to its end.
    pub fn finish(self) -> Result<(u64, u64)> {
        let (tally, list) = self.0.finish()?;
        let what = || "cannot flush the list of objects".to_owned();
        list.sync_all().or_fail(what)?;
        Ok((tally.objects, tally.bytes))
    }
}

impl Read for Saving {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

/// An object that is wanted, live, or both.
enum Pair {
    Wanted(Box<Wanted>),
    Live(Listed),
    Both(Box<Wanted>, Listed),
}

/// What is wanted beside what is live, by key.
fn pairs(
    wanted: &Path,
    live: Option<Sorted<Listed>>,
    mut each: impl FnMut(Pair) -> Result<()>,
) -> Result<()> {
    let mut wanted = open(wanted)?;
    let mut live = live;
    let mut next_live = || live.as_mut().map_or(Ok(None), Sorted::next);
    let (mut one, mut other) = (read_line::<Wanted>(&mut wanted)?, next_live()?);
    loop {
        let order = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.entry.key.cmp(&other.key),
        };
        match (order, one.take(), other.take()) {
            (Ordering::Less, Some(wanted), live) => {
                other = live;
                each(Pair::Wanted(Box::new(wanted)))?;
            }
            (Ordering::Greater, wanted, Some(live)) => {
                one = wanted;
                each(Pair::Live(live))?;
            }
            (_, Some(wanted), Some(live)) => each(Pair::Both(Box::new(wanted), live))?,
            (_, None, None) | (_, Some(_), None) | (_, None, Some(_)) => return Ok(()),
        }
        if one.is_none() {
            one = read_line(&mut wanted)?;
        }
        if other.is_none() {
            other = next_live()?;
        }
    }
}

/// The keys that are to go, asked for in their order.
struct Gone {
    keys: Option<BufReader<File>>,
    next: Option<String>,
}

impl Gone {
    fn of(scope: Scope<'_>) -> Result<Gone> {
        let mut gone = Gone {
            keys: None,
            next: None,
        };
        if let Scope::Only(path) = scope {
            let mut keys = open(path)?;
            gone.next = read_line(&mut keys)?;
            gone.keys = Some(keys);
        }
        Ok(gone)
    }

    fn names(&mut self, key: &str) -> Result<bool> {
        let Some(keys) = &mut self.keys else {
            return Ok(true);
        };
        while self.next.as_deref().is_some_and(|next| next < key) {
            self.next = read_line(keys)?;
        }
        Ok(self.next.as_deref() == Some(key))
    }
}

/// A file of a plan.
struct Out(BufWriter<File>);

impl Out {
    fn new(folder: &Path, name: &str) -> Result<Out> {
        create(&folder.join(name)).map(|file| Out(BufWriter::new(file)))
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let what = || "cannot write the plan".to_owned();
        serde_json::to_writer(&mut self.0, line).or_fail(what)?;
        self.0.write_all(b"\n").or_fail(what)
    }

    fn end(mut self) -> Result<()> {
        self.0
            .flush()
            .or_fail(|| "cannot write the plan".to_owned())
    }
}

struct Files {
    puts: Out,
    replaced: Out,
    creates: Out,
    deletes: Out,
}

struct Planner<'a> {
    bucket: &'a Bucket,
    gone: Gone,
    changes: Changes,
    files: Files,
    waiting: VecDeque<(Step, Option<Look>)>,
    looking: usize,
}

enum Step {
    Keep,
    Create(Box<Wanted>),
    Replace(Box<Wanted>, Listed),
    Delete(Listed),
}

/// Whether an object with the recorded ETag was not even written again. Its time tells, but not of
/// writes within the second in which it was read.
fn is_untouched(entry: &ObjectEntry, live: &Listed) -> bool {
    let read = entry.stamp.time().as_second();
    live.modified.as_second() == entry.modified.as_second()
        && entry.modified.as_second() + SLACK_SECONDS < read
}

type Look = JoinHandle<Result<Option<Headers>, S3Error>>;

impl Planner<'_> {
    fn take(&mut self, pair: Pair) -> Result<()> {
        let next = match pair {
            Pair::Wanted(wanted) => (Step::Create(wanted), None),
            Pair::Live(listed) => match self.gone.names(&listed.key)? {
                true => (Step::Delete(listed), None),
                false => return Ok(()),
            },
            Pair::Both(wanted, live) => {
                let entry = &wanted.entry;
                let etag = live.etag.as_ref();
                let recorded = etag.is_some() && live.etag == entry.etag;
                let same = live.size == entry.size
                    && (recorded || (etag.is_some() && live.etag == wanted.etag));
                match () {
                    () if same && recorded && is_untouched(entry, &live) => (Step::Keep, None),
                    () if same => {
                        let look = self.look(&entry.key);
                        (Step::Replace(wanted, live), Some(look))
                    }
                    () => (Step::Replace(wanted, live), None),
                }
            }
        };
        self.waiting.push_back(next);
        while self.looking >= LOOKS_MAX || self.waiting.len() >= WAITING_MAX {
            self.settle_one()?;
        }
        Ok(())
    }

    fn look(&mut self, key: &str) -> Look {
        self.looking += 1;
        let (bucket, key) = (self.bucket.clone(), key.to_owned());
        let call = async move { read_back::headers(&bucket, &key).await };
        self.bucket.client.network().spawn(call)
    }

    fn settle_one(&mut self) -> Result<()> {
        let Some((mut step, look)) = self.waiting.pop_front() else {
            return Ok(());
        };
        if let Some(look) = look {
            self.looking -= 1;
            let found = self.bucket.client.wait(look)?;
            let found = found.or_fail(|| "a call broke off".to_owned())?;
            let headers =
                found.map_err(|error| self.bucket.failure("look at an object's headers", error))?;
            step = match (step, headers) {
                (Step::Replace(wanted, _), Some(headers))
                    if same_headers(&wanted.entry.headers, &headers) =>
                {
                    Step::Keep
                }
                (step, _) => step,
            };
        }
        let changes = &mut self.changes;
        match step {
            Step::Keep => changes.unchanged += 1,
            Step::Create(wanted) => {
                changes.creates += 1;
                self.files.creates.line(&wanted.entry.key)?;
                self.put(&wanted)?;
            }
            Step::Replace(wanted, live) => {
                changes.replaces += 1;
                changes.replaced_bytes += live.size;
                self.files.replaced.line(&live)?;
                self.put(&wanted)?;
            }
            Step::Delete(live) => {
                changes.deletes += 1;
                changes.replaced_bytes += live.size;
                self.files.replaced.line(&live)?;
                self.files.deletes.line(&live.key)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, wanted: &Wanted) -> Result<()> {
        self.changes.put_bytes += wanted.entry.size;
        self.changes.stamps.insert(wanted.entry.stamp);
        self.files.puts.line(&wanted.entry)
    }

    fn finish(mut self) -> Result<Changes> {
        while !self.waiting.is_empty() {
            self.settle_one()?;
        }
        let Files {
            puts,
            replaced,
            creates,
            deletes,
        } = self.files;
        [puts, replaced, creates, deletes]
            .into_iter()
            .try_for_each(Out::end)?;
        Ok(self.changes)
    }
}
