//! What comes after the rows, begun before all of them are there: the indexes of tables that are
//! loaded are made while the next ones are. Loading keeps one of the server's processes busy, this
//! keeps the next.
//!
//! The promise: everything that `pg_restore` would make after the rows is made once, by it; early
//! only what needs nothing but its own table.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rg_common::dump::{ArchiveReader, ArchivedTable};
use rg_common::{Failure, OrFail, Result};

use super::Load;
use super::programs::Parts;
use crate::scratch;

/// A table's indexes are made early when it has at least so many bytes of rows: starting a program
/// for less is dearer than what it saves.
const EARLY_BYTES: u64 = 4 << 20;

/// All that comes after the rows.
pub struct Indexes {
    shared: Arc<Shared>,
    /// All entries of the archive, by dump id.
    entries: Vec<i64>,
    /// Those that need only one table.
    by_table: HashMap<(String, String), Vec<i64>>,
    /// How many bytes of rows tables have.
    bytes: HashMap<(String, String), u64>,
    list: scratch::Folder,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What the loader and the thread that makes indexes share.
struct Shared {
    parts: Parts,
    list: scratch::Folder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// To be made.
    waiting: Vec<i64>,
    /// Made, or being made.
    made: Vec<i64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what waits until nothing does.
    fn work(&self) -> Result<()> {
        loop {
            let now = {
                let mut state = self.lock();
                let now = std::mem::take(&mut state.waiting);
                state.made.extend(&now);
                now
            };
            if now.is_empty() {
                return Ok(());
            }
            self.parts.make(&now, &self.list, Some(1))?;
        }
    }
}

impl Indexes {
    /// Of an archive whose contents `parts` has in its file.
    pub fn new<R: Read>(
        load: &Load<'_>,
        parts: Parts,
        archive: &ArchiveReader<R>,
    ) -> Result<Indexes> {
        let list = |name: &str| scratch::Folder::new(load.server.config, load.server.context, name);
        let tables = load.content.inventory.tables.iter();
        Ok(Indexes {
            shared: Arc::new(Shared {
                parts,
                list: list("early")?,
                state: Mutex::default(),
            }),
            entries: archive.entries().to_vec(),
            by_table: archive.indexes(),
            bytes: tables
                .map(|table| ((table.schema.clone(), table.name.clone()), table.bytes))
                .collect(),
            list: list("rest")?,
            thread: None,
        })
    }

    /// All rows of this table are there, and committed. Fails when an earlier table's indexes could
    /// not be made.
    pub fn loaded(&mut self, table: &ArchivedTable) -> Result<()> {
        let key = (table.schema.clone(), table.name.clone());
        let bytes = self.bytes.get(&key).copied().unwrap_or_default();
        let Some(indexes) = self.by_table.remove(&key) else {
            return Ok(());
        };
        if bytes < EARLY_BYTES {
            return Ok(());
        }
        self.shared.lock().waiting.extend(indexes);
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            self.join()?;
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name("indexes".to_owned())
                .spawn(move || shared.work())
                .or_fail(|| "cannot start the thread that makes indexes".to_owned())?;
            self.thread = Some(thread);
        }
        Ok(())
    }

    /// All rows of all tables are there: makes what is left, with all jobs.
    pub fn finish(mut self) -> Result<()> {
        // What has not been begun is made with the rest.
        self.shared.lock().waiting.clear();
        self.join()?;
        let made: HashSet<i64> = self.shared.lock().made.iter().copied().collect();
        let left = self.entries.iter().copied();
        let left: Vec<i64> = left.filter(|id| !made.contains(id)).collect();
        self.shared.parts.make(&left, &self.list, None)
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(made)) => made,
            Some(Err(_)) => Err(Failure::new("the thread that makes indexes was aborted")),
        }
    }
}

/// After a failure: the database is about to be dropped, and the files here to be removed, which the
/// thread still uses. It waits for what is being made, not for what waits.
impl Drop for Indexes {
    fn drop(&mut self) {
        self.shared.lock().waiting.clear();
        // The failure that led here is the one to be told.
        self.join().ok();
    }
}
