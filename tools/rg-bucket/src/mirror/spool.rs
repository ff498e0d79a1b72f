//! A list of any length, sorted by key, in bounded memory: runs of [`RUN_ENTRIES`] are sorted and
//! written to files, and merged when they are read.
//!
//! Servers do not agree on an order (some list `a/b` before `a-b`), so no list is trusted to come
//! in one. A key that comes twice is an error: such a list was not read in one piece.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

use crate::pages::printable;

/// Entries that are sorted in memory: some ten MiB.
const RUN_ENTRIES: usize = 50_000;

/// What a list says of an object; the key is without the bucket's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The server's tag; changes when the object does.
    pub etag: String,
}

/// A list that is being written.
pub struct Spool {
    place: PathBuf,
    name: &'static str,
    run_entries: usize,
    run: Vec<Entry>,
    runs: Vec<PathBuf>,
    count: u64,
}

/// A list that is complete.
pub struct Sorted {
    name: &'static str,
    /// The whole list, when it is short.
    run: Vec<Entry>,
    runs: Vec<PathBuf>,
    /// How many entries.
    pub count: u64,
}

impl Spool {
    /// Writes its runs into the folder `place`; `name` is for files and messages.
    pub fn new(place: &Path, name: &'static str) -> Spool {
        Spool {
            place: place.to_owned(),
            name,
            run_entries: RUN_ENTRIES,
            run: Vec::new(),
            runs: Vec::new(),
            count: 0,
        }
    }

    /// Takes an entry.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        self.count += 1;
        self.run.push(entry);
        if self.run.len() < self.run_entries {
            return Ok(());
        }
        self.run.sort_unstable();
        let path = self
            .place
            .join(format!("{}.{}", self.name, self.runs.len()));
        let what = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(&path).or_fail(what)?);
        for entry in self.run.drain(..) {
            serde_json::to_writer(&mut file, &entry).or_fail(what)?;
            file.write_all(b"\n").or_fail(what)?;
        }
        file.flush().or_fail(what)?;
        self.runs.push(path);
        Ok(())
    }

    /// The list is complete.
    pub fn finish(mut self) -> Sorted {
        self.run.sort_unstable();
        Sorted {
            name: self.name,
            run: self.run,
            runs: self.runs,
            count: self.count,
        }
    }
}

impl Sorted {
    /// Reads it from the beginning, in the order of the keys' bytes.
    pub fn read(&self) -> Result<Merge> {
        let mut merge = Merge {
            name: self.name,
            files: Vec::new(),
            heap: BinaryHeap::new(),
            last: None,
        };
        for path in &self.runs {
            let what = || format!("cannot read {}", path.display());
            merge.files.push(Source::File(BufReader::new(
                File::open(path).or_fail(what)?,
            )));
        }
        merge
            .files
            .push(Source::Memory(self.run.clone().into_iter()));
        for index in 0..merge.files.len() {
            merge.fill(index)?;
        }
        Ok(merge)
    }
}

enum Source {
    File(BufReader<File>),
    Memory(std::vec::IntoIter<Entry>),
}

/// A sorted list that is being read.
pub struct Merge {
    name: &'static str,
    files: Vec<Source>,
    heap: BinaryHeap<Reverse<(Entry, usize)>>,
    last: Option<String>,
}

impl Merge {
    fn fill(&mut self, index: usize) -> Result<()> {
        let next = match &mut self.files[index] {
            Source::Memory(entries) => entries.next(),
            Source::File(file) => {
                let mut line = String::new();
                let what = || format!("cannot read the list of the {}", self.name);
                if file.read_line(&mut line).or_fail(what)? == 0 {
                    None
                } else {
                    Some(serde_json::from_str(&line).or_fail(what)?)
                }
            }
        };
        if let Some(entry) = next {
            self.heap.push(Reverse((entry, index)));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Entry>> {
        let Some(Reverse((entry, index))) = self.heap.pop() else {
            return Ok(None);
        };
        self.fill(index)?;
        if self.last.as_deref() == Some(&entry.key) {
            return Err(Failure::new(format!("the list of the {} names {} twice", self.name, printable(&entry.key)))
                .hint("something was written while it was listed, or the server repeats itself; run it again"));
        }
        self.last = Some(entry.key.clone());
        Ok(Some(entry))
    }
}

impl Iterator for Merge {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take().transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.to_owned(),
            size: 1,
            etag: "e".to_owned(),
        }
    }

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("rg-spool-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        place
    }

    fn sorted(place: &Path, keys: &[String], run_entries: usize) -> Result<Vec<String>> {
        let mut spool = Spool {
            run_entries,
            ..Spool::new(place, "source")
        };
        for key in keys {
            spool.push(entry(key))?;
        }
        spool.finish().read()?.map(|entry| Ok(entry?.key)).collect()
    }

    #[test]
    fn a_list_that_names_a_key_twice_is_refused() {
        let place = place("twice");
        let keys = ["b", "a", "c", "a"].map(str::to_owned);
        let said = sorted(&place, &keys, 2).unwrap_err().to_string();
        assert_eq!(said, "the list of the source names a twice");
        std::fs::remove_dir_all(place).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_order_becomes_the_order_of_bytes(keys in proptest::collection::btree_set("[a-c/é.\n-]{1,4}", 0..40), run in 1usize..20) {
            let place = place("order");
            let mut shuffled: Vec<String> = keys.iter().cloned().collect();
            shuffled.reverse();
            shuffled.rotate_left(keys.len() / 3);
            let read = sorted(&place, &shuffled, run).unwrap();
            prop_assert_eq!(read, keys.into_iter().collect::<Vec<_>>());
            std::fs::remove_dir_all(place).unwrap();
        }
    }
}
