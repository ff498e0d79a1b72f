//! Where backups lie. One trait, two kinds (`folder`, `bucket`), one contract that both keep:
//!
//! * an object is visible whole or not at all;
//! * a list is all of it, in order, or an error;
//! * deleting what is absent is fine;
//! * a key never leads outside the store.

mod bucket;
mod folder;
mod mark;

use std::fmt;
use std::io::{self, Read};

use crate::config::{StoreConfig, StorePlace};
use crate::failure::{Failure, Result};

pub use bucket::{Bucket, PARTS_IN_FLIGHT};
pub use folder::{Folder, free_bytes, lock_file};
pub use mark::{is_to_be_made, open_to_write};

/// A place for backups. Every method may block for as long as the data takes.
pub trait Store: Send + Sync {
    /// Writes an object whole or not at all, replacing one of that name; the bytes written.
    fn put(&self, key: &Key, body: &mut dyn Read) -> Result<u64, PutError>;
    /// Reads an object from its start.
    fn get(&self, key: &Key) -> Result<Box<dyn Read + Send>>;
    /// Everything whose key begins with `prefix/` (everything at all for an empty prefix), sorted
    /// by key; all of it or an error.
    fn list(&self, prefix: &str) -> Result<Vec<Object>>;
    /// Reads small objects whole, each up to `bytes_max`; what each came to, in the order of `keys`.
    /// A store far away reads several at once.
    fn get_small(&self, keys: &[Key], bytes_max: u64) -> Vec<Result<Vec<u8>>> {
        let read = |key| {
            let mut bytes = Vec::new();
            self.get(key)?
                .take(bytes_max)
                .read_to_end(&mut bytes)
                .map_err(|error| {
                    Failure::from_io(
                        format!("cannot read {key} in store `{}`", self.name()),
                        error,
                    )
                })?;
            Ok(bytes)
        };
        keys.iter().map(read).collect()
    }
    /// Removes an object; one that is absent is fine.
    fn delete(&self, key: &Key) -> Result<()>;
    /// Keeps others from changing what lies below `prefix` until the guard is dropped. The lock
    /// dies with the process; it never goes stale.
    fn lock(&self, prefix: &str) -> Result<Lock>;
    /// Removes what our own killed writes left below `prefix`; only under its lock.
    fn sweep(&self, prefix: &str) -> Result<()>;
    /// Where it is, for people.
    fn location(&self) -> String;
    /// Its name in `rg.toml`.
    fn name(&self) -> &str;
    /// Bytes that can still be written, where that can be told.
    fn free_bytes(&self) -> Option<u64>;
}

/// Holds a lock on a part of a store until it is dropped.
pub struct Lock {
    /// What other machines see, given back before this one lets go.
    #[allow(dead_code, reason = "held for its drop")]
    lease: Option<bucket::Lease>,
    #[allow(dead_code, reason = "held for its drop")]
    file: std::fs::File,
}

/// What lies in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Why an object was not written. The source's failure is not blamed on the store.
#[derive(Debug)]
pub enum PutError {
    /// The body ended in an error: the dump failed, the copy's source was damaged.
    Body(io::Error),
    /// The store could not take it.
    Store(Failure),
}

impl PutError {
    /// As a failure that says which side it was.
    pub fn into_failure(self, what: impl Into<String>) -> Failure {
        match self {
            PutError::Body(error) => Failure::from_io(what, error),
            PutError::Store(failure) => failure,
        }
    }
}

/// An object's name: a relative path of plain words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks that a name stays below the store's root and is not one of the store's own.
    pub fn new(text: impl Into<String>) -> Result<Key> {
        let text = text.into();
        let fine = |word: &str| !word.is_empty() && !word.starts_with('.') && !word.contains('\0');
        if text.split('/').all(fine) {
            return Ok(Key(text));
        }
        Err(Failure::new(format!("`{text}` cannot be an object's name")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last word.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The store that a configuration names. One in a bucket runs on the tokio runtime that its thread
/// stands in (`cli` sees to that).
pub fn open(config: &StoreConfig) -> Result<Box<dyn Store>> {
    match &config.place {
        StorePlace::Folder(root) => Ok(Box::new(Folder::new(&config.name, root))),
        StorePlace::Bucket(place) => Ok(Box::new(Bucket::open(&config.name, place)?)),
    }
}

/// The store of that name, to be read: an error when its disk is not mounted (see `mark.rs`).
pub fn open_named(config: &crate::config::Config, name: &str) -> Result<Box<dyn Store>> {
    let found = config.stores.iter().find(|store| store.name == name);
    let names = || config.stores.iter().map(|store| store.name.as_str());
    match found {
        Some(found) => mark::check(config, found).and_then(|()| open(found)),
        None => Err(
            Failure::new(format!("no store `{name}` is configured")).hint(format!(
                "configured are: {}",
                names().collect::<Vec<_>>().join(", ")
            )),
        ),
    }
}
