//! A directory: a tar archive written by our own walk, and a list of its entries beside it.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Dump, Dumped, Request};
use crate::ahead::Ahead;
use crate::catalog::Content;
use crate::catalog::manifest::FilesContent;
use crate::config::FilesConfig;
use crate::failure::{Failure, OrFail, Result};
use crate::files::{Archive, ArchiveOptions, Entry, Pattern, archive};
use crate::nouns::counted;

/// Begins to archive a directory.
pub fn dump<'a>(request: &Request<'a>, config: &'a FilesConfig) -> Result<Box<dyn Dump + 'a>> {
    let exclude = config
        .exclude
        .iter()
        .map(|text| Pattern::parse(text))
        .collect::<Result<_>>()?;
    // First, because it makes the state directory where there is none yet.
    let list = Arc::new(Mutex::new(BufWriter::with_capacity(
        1 << 16,
        spool(request, "list")?,
    )));
    // A store below the directory would swallow itself.
    let skip = request
        .ours
        .iter()
        .filter_map(|path| fs::metadata(path).ok())
        .map(|m| (m.dev(), m.ino()))
        .collect();
    let sink = {
        let list = Arc::clone(&list);
        move |entry: &Entry| -> io::Result<()> {
            let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::to_writer(&mut *list, entry)?;
            list.write_all(b"\n")
        }
    };
    let archive = archive(&config.path, ArchiveOptions { exclude, skip }, sink)?;
    let path = config.path.display().to_string();
    let dump = FilesDump {
        archive,
        list,
        path,
    };
    Ok(Box::new(Ahead::new(dump, Dump::next_piece)?))
}

/// Tells one such file from another within a process.
static SPOOLED: AtomicU64 = AtomicU64::new(0);

/// A file without a name in the state directory: a million entries do not fit into memory, and
/// nothing is left of it whenever we end.
pub(super) fn spool(request: &Request<'_>, what_for: &str) -> Result<File> {
    let folder = request.config.state.join("tmp");
    let what = || format!("cannot make a temporary file in {}", folder.display());
    fs::create_dir_all(&folder).map_err(|error| {
        Failure::because(what(), error)
            .hint("the directory is `state` in rg.toml; this user must be able to write there")
    })?;
    let number = SPOOLED.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!(
        "{what_for}-{}-{}-{number}",
        std::process::id(),
        request.now.as_nanosecond()
    ));
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .or_fail(what)?;
    fs::remove_file(&path).or_fail(what)?;
    Ok(file)
}

struct FilesDump {
    archive: Archive<'static>,
    list: Arc<Mutex<BufWriter<File>>>,
    path: String,
}

impl Read for FilesDump {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read(buffer)
    }
}

impl Dump for FilesDump {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.archive.next_piece(piece)
    }

    fn finish(self: Box<Self>) -> Result<Dumped> {
        let inventory = self.archive.finish()?;
        let list = Arc::into_inner(self.list)
            .ok_or_else(|| Failure::new("the list of files is still being written"))?;
        let list = list.into_inner().unwrap_or_else(PoisonError::into_inner);
        let what = || "cannot write the list of files".to_owned();
        let mut list = list
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .or_fail(what)?;
        list.seek(SeekFrom::Start(0)).or_fail(what)?;
        let mut notes = inventory.notes.clone();
        for (count, said) in [
            (inventory.changed, "changed while read"),
            (inventory.vanished, "vanished while read"),
        ] {
            if count > 0 {
                notes.insert(0, format!("{} {said}", counted(count, "files")));
            }
        }
        let content = FilesContent {
            path: self.path,
            inventory,
            list: None,
        };
        Ok(Dumped {
            content: Content::Files(Box::new(content)),
            list: Some(list),
            notes,
            recorded: None,
        })
    }
}
