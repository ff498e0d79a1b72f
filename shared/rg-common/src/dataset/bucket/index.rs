//! What the last backup of a bucket knew, kept in `STATE/buckets/` so that an object that has not
//! changed is not read again. It is only a shortcut: without it everything is read once more. The
//! lists in the stores cannot serve, because this machine may not be able to decrypt them.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::object::ObjectEntry;
use super::sorted::read_line;
use crate::failure::{OrFail, Result};
use crate::names::DatasetName;

/// Whose objects an index knows; its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub format: u32,
    pub service: String,
    pub bucket: String,
}

/// Gives the known objects in the order of their keys.
#[derive(Default)]
pub(super) struct Index {
    from: Option<BufReader<File>>,
    next: Option<ObjectEntry>,
}

impl Index {
    /// What is known of this bucket; nothing where there is no index, or another bucket's.
    pub fn open(path: &Path, owner: &Owner) -> Index {
        let mut index = Index::default();
        let Ok(file) = File::open(path) else {
            return index;
        };
        let mut from = BufReader::new(file);
        if read_line::<Owner>(&mut from).ok().flatten().as_ref() == Some(owner) {
            index.from = Some(from);
            index.advance();
        }
        index
    }

    fn advance(&mut self) {
        let next = self.from.as_mut().map(read_line);
        self.next = match next {
            Some(Ok(entry)) => entry,
            Some(Err(failure)) => {
                tracing::warn!(
                    "what the last backup knew is damaged: all objects are read again: {failure}"
                );
                self.from = None;
                None
            }
            None => None,
        };
    }

    /// What is known of a key. Keys must be asked for in their order.
    pub fn find(&mut self, key: &str) -> Option<ObjectEntry> {
        while self
            .next
            .as_ref()
            .is_some_and(|next| next.key.as_str() < key)
        {
            self.advance();
        }
        match &self.next {
            Some(next) if next.key == key => {
                let found = self.next.take();
                self.advance();
                found
            }
            _ => None,
        }
    }
}

/// Keeps a list as the index of the next backup; whole or not at all.
pub(super) fn keep(path: &Path, owner: &Owner, list: &mut File) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let what = || format!("cannot write {}", path.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .or_fail(what)?;
    let temporary = path.with_extension("tmp");
    fs::remove_file(&temporary).ok();
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .or_fail(what)?;
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, owner).or_fail(what)?;
    file.write_all(b"\n").or_fail(what)?;
    list.seek(SeekFrom::Start(0)).or_fail(what)?;
    io::copy(list, &mut file).or_fail(what)?;
    let file = file
        .into_inner()
        .map_err(|e| e.into_error())
        .or_fail(what)?;
    file.sync_all().or_fail(what)?;
    fs::rename(&temporary, path).or_fail(what)
}

/// Where the index of a dataset lies.
pub(super) fn path(state: &Path, dataset: &DatasetName) -> PathBuf {
    let name = dataset.as_str().replace('/', "+");
    state.join("buckets").join(format!("{name}.jsonl"))
}
