//! What can be backed up, one kind a file: how its bytes are dumped and what they hold.
//!
//! A [`Dump`] is a stream whose clean end means that everything came, and whose `finish` tells
//! what it held, counted while it went by.

mod ahead;
pub mod bucket;
pub mod database;
pub mod files;
pub mod globals;
mod survey;

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::catalog::Content;
use crate::catalog::manifest::Need;
use crate::config::{CompressionKind, Config, DatasetConfig, DatasetKind};
use crate::failure::Result;
use crate::names::Stamp;
use crate::postgres::Connector;
use crate::seal::{Compression, Recipe, Recipients, read_piece};
pub use survey::survey;

/// A dataset's bytes on their way out.
pub trait Dump: Read {
    /// Puts the next bytes in the place of what `piece` holds; none are the clean end. What `read`
    /// gives, without a copy where the dump has whole pieces; use one or the other.
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        read_piece(self, piece)
    }

    /// What was read, after a clean end; before that an error.
    fn finish(self: Box<Self>) -> Result<Dumped>;
}

/// What a dump held.
pub struct Dumped {
    /// Counts and checksums for the manifest.
    pub content: Content,
    /// The list of a directory's entries as JSON lines, to be stored beside the data.
    pub list: Option<File>,
    /// What an operator should know.
    pub notes: Vec<String>,
    /// What is to be done when the backup has been recorded, such as remembering what it holds.
    pub recorded: Option<Recorded>,
}

/// Done when a backup has been recorded.
pub type Recorded = Box<dyn FnOnce() -> Result<()> + Send>;

/// What a dump needs from outside.
pub struct Request<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The dataset.
    pub dataset: &'a DatasetConfig,
    /// The way to databases.
    pub connector: &'a Connector,
    /// The runtime that the network's work runs on.
    pub network: tokio::runtime::Handle,
    /// The stamp that the backup will have.
    pub stamp: Stamp,
    /// The sound backups that its store has already: what has not changed may lie in them.
    pub earlier: Vec<Need>,
    /// An exported snapshot of another session.
    pub snapshot: Option<&'a str>,
    /// Places that are not part of any dataset: our own stores and state.
    pub ours: Vec<PathBuf>,
    /// The time, to tell one temporary file from another.
    pub now: Timestamp,
}

/// Begins to dump a dataset, after everything that can be checked before was.
pub fn dump<'a>(request: &Request<'a>) -> Result<Box<dyn Dump + 'a>> {
    match &request.dataset.kind {
        DatasetKind::Database(database) => database::dump(request, database),
        DatasetKind::Files(files) => files::dump(request, files),
        DatasetKind::Globals(database) => globals::dump(request, database),
        DatasetKind::Bucket(bucket) => bucket::dump(request, bucket),
    }
}

/// The extension of a dataset's data before compression: `.dump`, `.sql`, `.tar`.
pub fn extension(kind: &DatasetKind) -> &'static str {
    match kind {
        DatasetKind::Database(database) => database::extension(database),
        DatasetKind::Globals(_) => ".sql",
        DatasetKind::Files(_) | DatasetKind::Bucket(_) => ".tar",
    }
}

/// How a dataset's bytes are stored.
pub fn recipe(config: &Config, kind: &DatasetKind) -> Result<Recipe> {
    let compression = match kind {
        DatasetKind::Database(database) | DatasetKind::Globals(database) => database.compression,
        DatasetKind::Files(files) => files.compression,
        DatasetKind::Bucket(_) => CompressionKind::Zstd,
    };
    let compression = match compression {
        CompressionKind::Zstd => Compression::ZSTD,
        CompressionKind::Gzip => Compression::GZIP,
    };
    let recipients = Recipients::parse(&config.recipients)
        .map_err(|failure| failure.context(format!("[encryption] in {}", config.path.display())))?;
    Ok(Recipe {
        compression,
        recipients,
    })
}

/// The command line for data that lie in several files, the oldest first: what a newer one holds
/// replaces what an older one held.
pub fn restore_with_all(files: &[&str]) -> String {
    let lines: Vec<String> = files.iter().map(|file| restore_with(file)).collect();
    lines.join(" && ")
}

/// The command line that restores a file of that name with standard tools: the extensions say
/// which ones read it, outermost last.
pub fn restore_with(file: &str) -> String {
    let mut name = file;
    let mut steps = Vec::new();
    let mut input = format!(" {file}");
    for (suffix, command) in [
        (".age", "age -d -i IDENTITY"),
        (".zst", "zstd -dc"),
        (".gz", "gunzip -c"),
    ] {
        if let Some(inner) = name.strip_suffix(suffix) {
            name = inner;
            steps.push(format!("{command}{input}"));
            input.clear();
        }
    }
    let last = match () {
        () if name.ends_with(".dump") => "pg_restore --exit-on-error --dbname=NEW_DATABASE",
        () if name.ends_with(".sql") => "psql --set=ON_ERROR_STOP=1 --dbname=NEW_DATABASE",
        () => "tar --extract --preserve-permissions --xattrs --acls --directory=NEW_FOLDER",
    };
    let feed = match input.is_empty() {
        true => String::new(),
        false if name.ends_with(".tar") => format!(" --file={}", input.trim_start()),
        false => format!(" <{input}"),
    };
    steps.push(format!("{last}{feed}"));
    steps.join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipe_that_restores_is_read_off_the_extensions() {
        assert_eq!(
            restore_with("production_20260123_020000.dump.zst.age"),
            "age -d -i IDENTITY production_20260123_020000.dump.zst.age | zstd -dc | pg_restore --exit-on-error --dbname=NEW_DATABASE"
        );
        assert_eq!(
            restore_with("a_1.sql.gz"),
            "gunzip -c a_1.sql.gz | psql --set=ON_ERROR_STOP=1 --dbname=NEW_DATABASE"
        );
        assert_eq!(
            restore_with("a_1.sql"),
            "psql --set=ON_ERROR_STOP=1 --dbname=NEW_DATABASE < a_1.sql"
        );
    }
}
