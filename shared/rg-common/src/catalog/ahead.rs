//! Manifests and proofs read ahead of whoever looks at them, a batch at a time: a store far away
//! reads the objects of a batch side by side.

use std::collections::{HashMap, VecDeque};

use super::{MANIFEST, PROOF, manifest};
use crate::failure::Result;
use crate::store::{Key, Object, Store};

/// How many objects a batch holds at most.
const BATCH: usize = 512;
/// How many bytes a batch holds at most, unless one object alone is longer.
const BATCH_BYTES: u64 = 16 << 20;
/// A proof is two short findings; what is longer is cut, and then proves nothing.
const PROOF_BYTES_MAX: u64 = 1 << 20;

/// What is yet to be read, in the list's order, and what has been.
pub(super) struct Ahead<'a> {
    store: &'a dyn Store,
    wanted: VecDeque<(&'a Key, u64)>,
    ready: HashMap<&'a Key, Result<Vec<u8>>>,
}

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
        }
    }

    /// One of them whole; each can be taken once.
    pub(super) fn take(&mut self, key: &Key) -> Result<Vec<u8>> {
        loop {
            if let Some(read) = self.ready.remove(key) {
                return read;
            }
            if self.wanted.is_empty() {
                let alone = self
                    .store
                    .get_small(std::slice::from_ref(key), manifest::BYTES_MAX);
                return alone.into_iter().next().unwrap_or_else(|| Ok(Vec::new()));
            }
            self.read_batch();
        }
    }

    fn read_batch(&mut self) {
        // Those that nobody took belong to no backup of this dataset.
        self.ready.clear();
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
        self.ready.extend(batch.into_iter().zip(read));
    }
}
