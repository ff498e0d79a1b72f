//! Counting and SHA-256, which anybody can check with `wc -c` and `sha256sum`.

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use twox_hash::xxhash3_128;

use super::{READ_BYTES, read_retrying};
use crate::failure::{Failure, OrFail, Result};
use crate::sha256::Sha256;

/// What went through a [`Sealer`](super::Sealer) or an [`Opener`](super::Opener). The digests are
/// 64 lowercase hexadecimal digits, as `sha256sum` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// How many bytes the content has.
    pub plain_bytes: u64,
    /// SHA-256 of the content.
    pub plain_sha256: String,
    /// How many bytes lie in the store.
    pub stored_bytes: u64,
    /// SHA-256 of what lies in the store.
    pub stored_sha256: String,
    /// XXH3-128 of what lies in the store: for reading back what was just written, at many times
    /// the speed of SHA-256. Never stored.
    pub stored_fingerprint: u128,
}

impl Digests {
    pub(super) fn of(plain: Digest, stored: Digest) -> Self {
        let (plain_bytes, plain_sha256) = plain.finish();
        let stored_fingerprint = stored.fingerprint.finish_128();
        let (stored_bytes, stored_sha256) = stored.finish();
        Digests {
            plain_bytes,
            plain_sha256,
            stored_bytes,
            stored_sha256,
            stored_fingerprint,
        }
    }
}

/// Reads to the end: the number of bytes and their SHA-256. Opens no layer, so it needs no key and
/// tells whether a stored object is the one that was written.
pub fn stored_digest(mut stored: impl Read) -> Result<(u64, String)> {
    let mut digest = Digest::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match read_retrying(&mut stored, &mut buffer) {
            Ok(0) => return Ok(digest.finish()),
            Ok(n) => digest.update(&buffer[..n]),
            Err(error) => return Err(Failure::from_io("cannot read the stored bytes", error)),
        }
    }
}

/// Reads to the end: the number of bytes and their XXH3-128, to compare with
/// [`Digests::stored_fingerprint`].
pub fn stored_fingerprint(mut stored: impl Read) -> Result<(u64, u128)> {
    let mut fingerprint = xxhash3_128::Hasher::new();
    let mut bytes = 0;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match read_retrying(&mut stored, &mut buffer) {
            Ok(0) => return Ok((bytes, fingerprint.finish_128())),
            Ok(n) => {
                fingerprint.write(&buffer[..n]);
                bytes += n as u64;
            }
            Err(error) => return Err(Failure::from_io("cannot read the stored bytes", error)),
        }
    }
}

/// A running count, SHA-256 and XXH3-128.
#[derive(Clone, Default)]
pub(super) struct Digest {
    bytes: u64,
    sha256: Sha256,
    fingerprint: xxhash3_128::Hasher,
}

impl Digest {
    pub(super) fn update(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.sha256.update(piece);
        self.fingerprint.write(piece);
    }

    pub(super) fn finish(self) -> (u64, String) {
        let hex = self
            .sha256
            .finalize()
            .iter()
            .fold(String::with_capacity(64), |mut hex, byte| {
                hex.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
                hex.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
                hex
            });
        (self.bytes, hex)
    }
}

/// A [`Digest`] taken on a thread of its own: the thread that pulls the data has enough to do. Both
/// read the same memory. Holds at most [`WAITING`] + 2 pieces.
pub(super) struct Aside {
    filled: Option<SyncSender<Arc<Vec<u8>>>>,
    emptied: Receiver<Arc<Vec<u8>>>,
    /// What [`Aside::copy`] has put together.
    copied: Vec<u8>,
    thread: Option<JoinHandle<Digest>>,
}

/// So many pieces may wait for the digest's thread.
const WAITING: usize = 3;

impl Aside {
    /// Fails when no thread can be started.
    pub(super) fn new() -> Result<Self> {
        let (filled, full) = mpsc::sync_channel::<Arc<Vec<u8>>>(WAITING);
        let (back, emptied) = mpsc::channel();
        let digest = move || {
            let mut digest = Digest::default();
            for piece in full {
                digest.update(&piece);
                // Whoever gave up takes no pieces back.
                back.send(piece).ok();
            }
            digest
        };
        let thread = std::thread::Builder::new()
            .name("digest".to_owned())
            .spawn(digest)
            .or_fail(|| "cannot start the digest's thread".to_owned())?;
        Ok(Aside {
            filled: Some(filled),
            emptied,
            copied: Vec::new(),
            thread: Some(thread),
        })
    }

    /// A piece whose digest has been taken, to be filled again, or a new one.
    pub(super) fn emptied(&self) -> Vec<u8> {
        let piece = self.emptied.try_recv().ok();
        piece.and_then(Arc::into_inner).unwrap_or_default()
    }

    /// Passes a piece on, which its owner goes on reading.
    pub(super) fn update(&self, piece: Vec<u8>) -> Arc<Vec<u8>> {
        let piece = Arc::new(piece);
        if let Some(filled) = &self.filled {
            // The thread ends only when this sender does, or by a panic that `finish` reports.
            filled.send(Arc::clone(&piece)).ok();
        }
        piece
    }

    /// The same for bytes that lie in somebody else's memory.
    pub(super) fn copy(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = READ_BYTES - self.copied.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.copied.extend_from_slice(now);
            bytes = later;
            if self.copied.len() == READ_BYTES {
                let mut next = self.emptied();
                next.clear();
                let piece = std::mem::replace(&mut self.copied, next);
                self.update(piece);
            }
        }
    }

    pub(super) fn finish(mut self) -> Result<Digest> {
        let rest = std::mem::take(&mut self.copied);
        self.update(rest);
        self.filled = None;
        let thread = self.thread.take().map(JoinHandle::join);
        match thread {
            Some(Ok(digest)) => Ok(digest),
            _ => Err(Failure::new("the digest could not be taken")),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.filled = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
