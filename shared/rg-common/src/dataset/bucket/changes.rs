//! What has to be done to a bucket so that it holds what is wanted: a plan first, then the doing.
//!
//! An object is left alone when its key and size are the wanted one's and its ETag says that its
//! content is too: the ETag that the backup recorded, or the one that the content has here. Where
//! its time is not the recorded one its headers are looked at as well. The plan lies in files, so
//! that its size is not bounded by memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::contents::{Lines, read_objects};
use super::pairs::{Gone, Pair, pairs};
use super::planner::Planner;
use super::prove::OpenArchive;
use super::put::Flight;
use super::read_back;
use super::sorted::{Sorted, read_line};
use super::target::{Target, create, open};
use crate::failure::{Failure, OrFail, Result};
use crate::names::Stamp;

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
    pub(super) stamps: BTreeSet<Stamp>,
    folder: PathBuf,
}

pub(super) const PUTS: &str = "puts.jsonl";
pub(super) const REPLACED: &str = "replaced.jsonl";
pub(super) const CREATES: &str = "creates.jsonl";
pub(super) const DELETES: &str = "deletes.jsonl";

impl Changes {
    /// Nothing yet.
    pub(super) fn none(folder: &Path) -> Changes {
        Changes {
            creates: 0,
            replaces: 0,
            deletes: 0,
            unchanged: 0,
            put_bytes: 0,
            replaced_bytes: 0,
            stamps: BTreeSet::new(),
            folder: folder.to_owned(),
        }
    }

    /// Compares what is wanted (a file that [`super::prove`] wrote) with what is live. A bucket that
    /// is not there is empty. The plan's files go into `folder`, which is there.
    pub fn plan(
        target: &Target,
        wanted: &Path,
        scope: Scope<'_>,
        folder: &Path,
    ) -> Result<Changes> {
        let mut planner = Planner::new(&target.bucket, scope, folder)?;
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
