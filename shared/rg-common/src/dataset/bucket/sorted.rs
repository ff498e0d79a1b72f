//! Sorts more lines than fit into memory: runs of [`RUN_ITEMS`] are sorted and laid aside in
//! files without names, then merged. Services list objects in orders of their own (by folder, by
//! bytes); what is compared here is compared by bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, OrFail, Result};

/// So many items are sorted in memory at once: some 10 MB of keys of usual length.
const RUN_ITEMS: usize = 50_000;

/// Something with a name that it is sorted by.
pub(super) trait Named: Serialize + DeserializeOwned {
    /// What it is sorted by.
    fn name(&self) -> &str;
}

/// Takes items in any order.
pub(super) struct Sorter<T, F> {
    items: Vec<T>,
    runs: Vec<File>,
    room: F,
}

impl<T: Named, F: FnMut() -> Result<File>> Sorter<T, F> {
    /// `room` makes an empty file for a run.
    pub fn new(room: F) -> Self {
        Sorter {
            items: Vec::new(),
            runs: Vec::new(),
            room,
        }
    }

    /// Takes one more.
    pub fn push(&mut self, item: T) -> Result<()> {
        self.items.push(item);
        match self.items.len() {
            RUN_ITEMS => self.spill(),
            _ => Ok(()),
        }
    }

    fn spill(&mut self) -> Result<()> {
        let what = || "cannot lay aside the list of objects".to_owned();
        self.items.sort_by(|a, b| a.name().cmp(b.name()));
        let mut file = BufWriter::new((self.room)()?);
        for item in self.items.drain(..) {
            serde_json::to_writer(&mut file, &item).or_fail(what)?;
            file.write_all(b"\n").or_fail(what)?;
        }
        let mut file = file
            .into_inner()
            .map_err(|e| e.into_error())
            .or_fail(what)?;
        file.seek(SeekFrom::Start(0)).or_fail(what)?;
        self.runs.push(file);
        Ok(())
    }

    /// All of them in order.
    pub fn finish(mut self) -> Result<Sorted<T>> {
        self.items.sort_by(|a, b| b.name().cmp(a.name()));
        let mut sorted = Sorted {
            last: self.items,
            runs: self.runs.into_iter().map(BufReader::new).collect(),
            heads: BinaryHeap::new(),
        };
        for run in 0..sorted.runs.len() {
            sorted.refill(run)?;
        }
        Ok(sorted)
    }
}

/// Gives items in order.
pub(super) struct Sorted<T> {
    /// The run that never left memory, its first item last.
    last: Vec<T>,
    runs: Vec<BufReader<File>>,
    heads: BinaryHeap<Reverse<Head<T>>>,
}

struct Head<T> {
    item: T,
    run: usize,
}

impl<T: Named> PartialEq for Head<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<T: Named> Eq for Head<T> {}
impl<T: Named> PartialOrd for Head<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T: Named> Ord for Head<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.item.name().cmp(other.item.name())
    }
}

impl<T: Named> Sorted<T> {
    /// What lies in a file, one JSON line each, already in order.
    pub fn of_file(file: File) -> Result<Self> {
        let mut sorted = Sorted {
            last: Vec::new(),
            runs: vec![BufReader::new(file)],
            heads: BinaryHeap::new(),
        };
        sorted.refill(0)?;
        Ok(sorted)
    }

    fn refill(&mut self, run: usize) -> Result<()> {
        if let Some(item) = read_line(&mut self.runs[run])? {
            self.heads.push(Reverse(Head { item, run }));
        }
        Ok(())
    }

    /// The next in order.
    pub fn next(&mut self) -> Result<Option<T>> {
        let from_runs = match (self.heads.peek(), self.last.last()) {
            (Some(Reverse(head)), Some(last)) => head.item.name() <= last.name(),
            (head, _) => head.is_some(),
        };
        if !from_runs {
            return Ok(self.last.pop());
        }
        let Some(Reverse(head)) = self.heads.pop() else {
            return Ok(None);
        };
        self.refill(head.run)?;
        Ok(Some(head.item))
    }
}

/// One JSON line; none at the end.
pub(super) fn read_line<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>> {
    let what = || "cannot read the list of objects".to_owned();
    let mut line = Vec::new();
    let read = from.read_until(b'\n', &mut line);
    if read.map_err(|error| Failure::from_io(what(), error))? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).or_fail(what).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize)]
    struct Item(String);

    impl Named for Item {
        fn name(&self) -> &str {
            &self.0
        }
    }

    #[test]
    fn more_than_fits_comes_back_in_the_order_of_bytes() {
        let mut made = 0;
        let mut sorter = Sorter::new(|| {
            made += 1;
            tempfile()
        });
        let count = 2 * RUN_ITEMS + 17;
        for n in 0..count {
            sorter
                .push(Item(format!("{:08}", (n * 7919) % count)))
                .unwrap();
        }
        let mut sorted = sorter.finish().unwrap();
        for n in 0..count {
            assert_eq!(sorted.next().unwrap().unwrap().0, format!("{n:08}"));
        }
        assert!(sorted.next().unwrap().is_none());
        assert_eq!(made, 2);
    }

    fn tempfile() -> Result<File> {
        let path = std::env::temp_dir().join(format!(
            "rg-sorted-{}-{:?}",
            std::process::id(),
            std::time::Instant::now()
        ));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = file.or_fail(|| "cannot make a file".to_owned())?;
        std::fs::remove_file(&path).or_fail(|| "cannot remove it".to_owned())?;
        Ok(file)
    }
}
