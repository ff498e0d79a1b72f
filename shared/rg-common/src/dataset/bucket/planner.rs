//! Decides for each key what is to be done, asking for headers where the list does not tell.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use tokio::task::JoinHandle;

use super::changes::{self, Changes, Scope};
use super::live::{Bucket, Listed};
use super::object::{Headers, ObjectEntry};
use super::pairs::{Gone, Pair};
use super::prove::Wanted;
use super::read_back::{self, same_headers};
use super::target::create;
use crate::failure::{OrFail, Result};
use crate::s3::S3Error;

/// The headers of so many objects are asked for at once.
const LOOKS_MAX: usize = 16;
/// So many objects may wait behind one whose headers are still asked for.
const WAITING_MAX: usize = 1024;

/// An object that was written so shortly before it was read may have been written again since, with
/// the same time.
const SLACK_SECONDS: i64 = 2;

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

/// Takes pairs in the order of keys and decides.
pub(super) struct Planner<'a> {
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

impl<'a> Planner<'a> {
    /// The plan's files go into `folder`.
    pub fn new(bucket: &'a Bucket, scope: Scope<'_>, folder: &Path) -> Result<Planner<'a>> {
        Ok(Planner {
            bucket,
            gone: Gone::of(scope)?,
            changes: Changes::none(folder),
            files: Files {
                puts: Out::new(folder, changes::PUTS)?,
                replaced: Out::new(folder, changes::REPLACED)?,
                creates: Out::new(folder, changes::CREATES)?,
                deletes: Out::new(folder, changes::DELETES)?,
            },
            waiting: VecDeque::new(),
            looking: 0,
        })
    }

    /// The next pair.
    pub fn take(&mut self, pair: Pair) -> Result<()> {
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

    /// The plan, its files written.
    pub fn finish(mut self) -> Result<Changes> {
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
