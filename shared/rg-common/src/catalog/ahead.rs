//! Manifests and proofs read ahead of whoever looks at them, a batch at a time: a store far away
//! reads the objects of a batch side by side, and manifests are parsed on all processors: a list of
//! ten thousand backups is bound by that.

use std::collections::{HashMap, VecDeque};

use super::{MANIFEST, Manifest, PROOF, manifest};
use crate::failure::Result;
use crate::store::{Key, Object, Store};

/// How many objects a batch holds at most.
const BATCH: usize = 512;
/// How many bytes a batch holds at most, unless one object alone is longer.
const BATCH_BYTES: u64 = 16 << 20;
/// So many threads parse manifests at most.
const PARSERS_MAX: usize = 8;
/// A proof is two short findings; what is longer is cut, and then proves nothing.
const PROOF_BYTES_MAX: u64 = 1 << 20;

/// What is yet to be read, in the list's order, and what has been.
pub(super) struct Ahead<'a> {
    store: &'a dyn Store,
    wanted: VecDeque<(&'a Key, u64)>,
    ready: HashMap<&'a Key, Result<Vec<u8>>>,
    manifests: HashMap<&'a Key, Read>,
}

/// Outside what kept a manifest from being read, inside what is wrong with it.
pub(super) type Read = Result<Result<Manifest>>;

impl<'a> Ahead<'a> {
    /// All manifests and proofs of a list.
    pub(super) fn new(store: &'a dyn Store, objects: &'a [Object]) -> Self {
        let small = objects.iter().filter(|object| {
            let name = object.key.as_str();
            (name.ends_with(MANIFEST) && object.bytes <= manifest::BYTES_MAX)
                || (name.ends_with(PROOF) && object.bytes <= PROOF_BYTES_MAX)
        });
        Ahead {
            store,
            wanted: small.map(|object| (&object.key, object.bytes)).collect(),
            ready: HashMap::new(),
            manifests: HashMap::new(),
        }
    }

    /// One of the proofs whole; each can be taken once.
    pub(super) fn take(&mut self, key: &Key) -> Result<Vec<u8>> {
        loop {
            if let Some(read) = self.ready.remove(key) {
                return read;
            }
            if self.wanted.is_empty() {
                return self.alone(key);
            }
            self.read_batch();
        }
    }

    /// One of the manifests; each can be taken once.
    pub(super) fn take_manifest(&mut self, key: &Key) -> Read {
        loop {
            if let Some(read) = self.manifests.remove(key) {
                return read;
            }
            if self.wanted.is_empty() {
                return self.alone(key).map(|text| Manifest::parse(&text));
            }
            self.read_batch();
        }
    }

    fn alone(&self, key: &Key) -> Result<Vec<u8>> {
        let alone = self
            .store
            .get_small(std::slice::from_ref(key), manifest::BYTES_MAX);
        alone.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn read_batch(&mut self) {
        // Those that nobody took belong to no backup of this dataset.
        self.ready.clear();
        self.manifests.clear();
        let (mut batch, mut total) = (Vec::new(), 0);
        while let Some(&(key, bytes)) = self.wanted.front() {
            if batch.len() >= BATCH || (total + bytes > BATCH_BYTES && !batch.is_empty()) {
                break;
            }
            total += bytes;
            batch.push(key);
            self.wanted.pop_front();
        }
        let keys: Vec<Key> = batch.iter().map(|key| (*key).clone()).collect();
        let read = self.store.get_small(&keys, manifest::BYTES_MAX);
        let (manifests, proofs) = batch
            .into_iter()
            .zip(read)
            .partition::<Vec<_>, _>(|(key, _)| key.as_str().ends_with(MANIFEST));
        self.ready.extend(proofs);
        self.manifests.extend(parse(manifests));
    }
}

/// Parses manifests on all processors.
fn parse<'a>(texts: Vec<(&'a Key, Result<Vec<u8>>)>) -> Vec<(&'a Key, Read)> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let length = texts.len().div_ceil(threads.min(PARSERS_MAX)).max(1);
    let mut texts = texts.into_iter();
    std::thread::scope(|scope| {
        let mut parsing = Vec::new();
        loop {
            let part: Vec<_> = texts.by_ref().take(length).collect();
            if part.is_empty() {
                break;
            }
            let parse = |(key, text): (&'a Key, Result<Vec<u8>>)| {
                (key, text.map(|text| Manifest::parse(&text)))
            };
            parsing.push(scope.spawn(move || part.into_iter().map(parse).collect::<Vec<_>>()));
        }
        let parsed = parsing.into_iter().filter_map(|thread| thread.join().ok());
        parsed.flatten().collect()
    })
}
