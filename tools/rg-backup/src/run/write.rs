//! One backup's bytes on their way into a store: sealed, written, read back, described.

use std::fs::File;
use std::io;

use rg_common::catalog::manifest::{Extent, FORMAT, ListFile};
use rg_common::catalog::{self, Content, Manifest};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig};
use rg_common::dataset::{self, Dump, Dumped, Recorded};
use rg_common::names::BackupId;
use rg_common::progress::Progress;
use rg_common::seal::{self, Digests, Recipe, Sealer};
use rg_common::stop::{self, Stoppable};
use rg_common::store::Store;
use rg_common::{Failure, Result};

/// Writes the data and what lies beside it, reads it back, and says what it is. The caller
/// records it, or abandons it.
#[allow(
    clippy::too_many_arguments,
    reason = "each is one thing the manifest says"
)]
pub(super) fn write(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    store: &dyn Store,
    recipe: &Recipe,
    id: &BackupId,
    dump: Box<dyn Dump + '_>,
    expected: Option<u64>,
) -> Result<(Manifest, Option<Recorded>)> {
    let started = context.clock();
    let file = format!(
        "{}{}{}",
        id.stem(),
        dataset::extension(&dataset.kind),
        recipe.extension()
    );
    let what = format!("cannot back up {}", dataset.name);
    let progress = Progress::new(context, dataset.name.as_str(), expected, dump);
    let sealer = seal::seal_pieces(progress, next_piece, recipe)?;
    let (progress, digests) = put(store, id, &file, sealer, &what)?;
    let Dumped {
        mut content,
        list,
        notes,
        recorded,
    } = progress.into_inner().finish()?;
    // The data are read back while the list is written.
    let (back, list) = std::thread::scope(|scope| {
        let content = &content;
        let list =
            list.map(|list| scope.spawn(|| write_list(store, id, content, list, recipe, &what)));
        let back = read_back(store, id, &file, &digests, &what);
        let aborted = |_| Err(Failure::new("the thread that writes the list was aborted"));
        (back, list.map(|list| list.join().unwrap_or_else(aborted)))
    });
    back?;
    if let Some(list) = list {
        content.set_list(list?);
    }
    let needed = content.needs().iter().map(|need| need.file.as_str());
    let files: Vec<&str> = needed.chain([file.as_str()]).collect();
    let manifest = Manifest {
        format: FORMAT,
        id: id.clone(),
        host: config.host.clone(),
        started,
        finished: context.clock(),
        tool: context.tool.clone(),
        plain: extent(digests.plain_bytes, &digests.plain_sha256),
        stored: extent(digests.stored_bytes, &digests.stored_sha256),
        encrypted_to: config.recipients.clone(),
        restore_with: dataset::restore_with_all(&files),
        file,
        adopted_from: None,
        content,
        notes,
    };
    Ok((manifest, recorded))
}

fn write_list(
    store: &dyn Store,
    id: &BackupId,
    content: &Content,
    list: File,
    recipe: &Recipe,
    what: &str,
) -> Result<ListFile> {
    let of = match content {
        Content::Bucket(_) => "objects",
        _ => "files",
    };
    let file = format!("{}.{of}.jsonl{}", id.stem(), recipe.extension());
    let (_, digests) = put(store, id, &file, seal::seal(list, recipe)?, what)?;
    read_back(store, id, &file, &digests, what)?;
    let plain = extent(digests.plain_bytes, &digests.plain_sha256);
    Ok(ListFile {
        file,
        plain,
        stored: extent(digests.stored_bytes, &digests.stored_sha256),
    })
}

/// The dump's next piece, unless the process was asked to stop.
fn next_piece(dump: &mut Progress<Box<dyn Dump + '_>>, piece: &mut Vec<u8>) -> io::Result<()> {
    stop::check().map_err(Failure::into_io)?;
    dump.bring(|dump| {
        dump.next_piece(piece)?;
        Ok(piece.len())
    })
}

/// Puts a stream into a store; its source comes back with the digests.
fn put<R>(
    store: &dyn Store,
    id: &BackupId,
    file: &str,
    mut sealer: Sealer<R>,
    what: &str,
) -> Result<(R, Digests)> {
    let key = catalog::beside(id, file)?;
    store
        .put(&key, &mut sealer)
        .map_err(|error| error.into_failure(what))?;
    sealer.finish()
}

/// What cannot be read back was not written.
fn read_back(
    store: &dyn Store,
    id: &BackupId,
    file: &str,
    digests: &Digests,
    what: &str,
) -> Result<()> {
    let key = catalog::beside(id, file)?;
    let found = seal::stored_fingerprint(Stoppable(store.get(&key)?))
        .map_err(|failure| failure.context(format!("{what}: reading {key} back")))?;
    if found != (digests.stored_bytes, digests.stored_fingerprint) {
        return Err(Failure::new(format!(
            "{what}: {key} reads back otherwise than it was written to store `{}`",
            store.name()
        ))
        .hint("its disk or the memory of this machine is failing"));
    }
    Ok(())
}

fn extent(bytes: u64, sha256: &str) -> Extent {
    Extent {
        bytes,
        sha256: sha256.to_owned(),
    }
}
