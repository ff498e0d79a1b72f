//! Plain bytes ↔ stored bytes: digest, compress, encrypt; both ways in one place.
//!
//! The promise: a clean end of either stream means that everything came. An error of the source
//! comes through as that error and never as an early end; a stored stream that was cut, changed
//! or continued is an error that names its layer. Data is pulled through `Read`, in memory bounded
//! by the constants here and in the layers, whatever its size.
//!
//! The stored formats are the standard ones, to be read without these tools:
//! `age -d -i FILE | zstd -d`, `gunzip`. Encryption is the outermost layer.

mod age;
mod digest;
mod gzip;
mod open;
#[cfg(test)]
mod tests;
mod zstd;

use std::io::{self, Read};

pub use self::age::{Identities, Recipients};
pub use self::digest::{Digests, stored_digest, stored_fingerprint};
pub use self::open::{Opener, open};

use self::age::Encrypter;
use self::digest::{Aside, Digest};
use crate::failure::{Failure, Result};

/// A source is read in pieces of up to this many bytes; one that gives whole pieces may give a little
/// more.
const READ_BYTES: usize = 256 << 10;
/// More compression threads than this are not started, whatever is asked for.
const THREADS_MAX: usize = 64;

/// How plain bytes become smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// One zstd frame with a content checksum; `threads` 0 compresses on the reading thread.
    Zstd {
        /// 1 (fast) to 19 (small); from 6 on much slower.
        level: i32,
        /// Worker threads besides the reading one.
        threads: u32,
    },
    /// One gzip member.
    Gzip {
        /// 0 (stored) to 9 (small), as zlib-rs counts: its 3 is about as small as `gzip -6`.
        level: u32,
        /// Worker threads besides the reading one, at least one.
        threads: usize,
    },
    /// As it is, for what is compressed already.
    None,
}

impl Compression {
    /// zstd at level 1 on two threads: as small as `gzip -6` at many times its speed.
    pub const ZSTD: Compression = Compression::Zstd {
        level: 1,
        threads: 2,
    };
    /// gzip at zlib-rs's level 3 on two threads. Measured beside `gzip -6`: 4 % smaller for a dump
    /// and 1.3 % larger for source text, in 0.4 to 0.5 of its processor time; level 6 takes a
    /// seventh more and saves 0.3 to 1.2 %.
    pub const GZIP: Compression = Compression::Gzip {
        level: 3,
        threads: 2,
    };
}

impl Default for Compression {
    fn default() -> Self {
        Compression::ZSTD
    }
}

/// What is done to plain bytes before they are stored.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// How they become smaller.
    pub compression: Compression,
    /// Who can read them; nobody named means no encryption.
    pub recipients: Recipients,
}

impl Recipe {
    /// What is appended to a name, innermost layer first: `.zst.age`, `.gz`, or nothing.
    pub fn extension(&self) -> String {
        let compression = match self.compression {
            Compression::Zstd { .. } => ".zst",
            Compression::Gzip { .. } => ".gz",
            Compression::None => "",
        };
        let encryption = if self.recipients.is_empty() {
            ""
        } else {
            ".age"
        };
        format!("{compression}{encryption}")
    }
}

/// Begins to turn `plain` into stored bytes. Fails on a level that the format does not have and
/// when no worker thread can be started; reads nothing yet.
pub fn seal<R: Read>(plain: R, recipe: &Recipe) -> Result<Sealer<R>> {
    seal_pieces(plain, read_piece, recipe)
}

/// What puts the next bytes of a source in the place of what a piece holds; none are its clean end.
pub type NextPiece<R> = fn(&mut R, &mut Vec<u8>) -> io::Result<()>;

/// The same for a source that gives its bytes in whole pieces, which go through without a copy.
pub fn seal_pieces<R>(plain: R, next: NextPiece<R>, recipe: &Recipe) -> Result<Sealer<R>> {
    let compressor = match recipe.compression {
        Compression::Zstd { level, threads } => {
            Compressor::Zstd(zstd::Compressor::new(level, threads)?)
        }
        Compression::Gzip { level, threads } => {
            Compressor::Gzip(gzip::Compressor::new(level, threads)?)
        }
        Compression::None => Compressor::None,
    };
    let encrypter = match recipe.recipients.is_empty() {
        true => None,
        false => Some(Encrypter::new(&recipe.recipients)?),
    };
    Ok(Sealer {
        plain,
        next,
        compressor,
        compressed: Vec::new(),
        encrypter,
        stored: Vec::new(),
        served: 0,
        state: State::Reading,
        plain_digest: Aside::new()?,
        stored_digest: Digest::default(),
    })
}

/// Reads as the stored bytes. Its end comes only after the end of the plain bytes and after every
/// layer was closed; after an error it stays an error.
pub struct Sealer<R> {
    plain: R,
    next: NextPiece<R>,
    compressor: Compressor,
    compressed: Vec<u8>,
    encrypter: Option<Encrypter>,
    /// Stored bytes of which `served` were handed out.
    stored: Vec<u8>,
    served: usize,
    state: State,
    plain_digest: Aside,
    stored_digest: Digest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The plain bytes have ended; the layers give what they still hold.
    Closing,
    Ended,
    Failed,
}

enum Compressor {
    Zstd(zstd::Compressor),
    Gzip(gzip::Compressor),
    None,
}

impl<R> Sealer<R> {
    /// Gives back the source and says what went by. An error unless the stored bytes were read up
    /// to their end (a read that returned 0).
    pub fn finish(self) -> Result<(R, Digests)> {
        if self.state != State::Ended || self.served < self.stored.len() {
            return Err(Failure::new("the stored bytes were not read to their end"));
        }
        let passes_through = self.passes_through();
        let plain = self.plain_digest.finish()?;
        let stored = match passes_through {
            true => plain.clone(),
            false => self.stored_digest,
        };
        let digests = Digests::of(plain, stored);
        Ok((self.plain, digests))
    }

    /// Whether the stored bytes are the plain ones, so that one digest says both.
    fn passes_through(&self) -> bool {
        matches!(self.compressor, Compressor::None) && self.encrypter.is_none()
    }

    /// One piece through all layers: from the source, or what the layers still hold at the end.
    fn pump(&mut self) -> io::Result<()> {
        self.stored.clear();
        self.served = 0;
        let target = match self.encrypter {
            Some(_) => &mut self.compressed,
            None => &mut self.stored,
        };
        if self.state == State::Reading {
            let mut piece = self.plain_digest.emptied();
            (self.next)(&mut self.plain, &mut piece)?;
            if piece.is_empty() {
                self.state = State::Closing;
            } else {
                let piece = self.plain_digest.update(piece);
                match &mut self.compressor {
                    Compressor::Zstd(zstd) => zstd.push(&piece, target)?,
                    Compressor::Gzip(gzip) => gzip.push(&piece, target)?,
                    Compressor::None => target.extend_from_slice(&piece),
                }
            }
        }
        let closed = self.state == State::Closing
            && match &mut self.compressor {
                Compressor::Zstd(zstd) => zstd.close(target)?,
                Compressor::Gzip(gzip) => gzip.close(target)?,
                Compressor::None => true,
            };
        if let Some(encrypter) = &mut self.encrypter {
            encrypter.push(&self.compressed, &mut self.stored)?;
            self.compressed.clear();
            if closed {
                encrypter.close(&mut self.stored)?;
            }
        }
        if closed {
            self.state = State::Ended;
        }
        if !self.passes_through() {
            self.stored_digest.update(&self.stored);
        }
        Ok(())
    }
}

impl<R> Read for Sealer<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        while self.served == self.stored.len() {
            match self.state {
                State::Ended => return Ok(0),
                State::Failed => return Err(io::Error::other("the stream has failed before")),
                State::Reading | State::Closing => {}
            }
            if let Err(error) = self.pump() {
                self.state = State::Failed;
                self.stored.clear();
                return Err(error);
            }
        }
        let n = buf.len().min(self.stored.len() - self.served);
        buf[..n].copy_from_slice(&self.stored[self.served..self.served + n]);
        self.served += n;
        Ok(n)
    }
}

/// Puts the next bytes of a reader, up to [`READ_BYTES`], in the place of what `piece` holds.
pub fn read_piece<R: Read + ?Sized>(source: &mut R, piece: &mut Vec<u8>) -> io::Result<()> {
    piece.resize(READ_BYTES, 0);
    let read = read_retrying(source, piece);
    piece.truncate(*read.as_ref().unwrap_or(&0));
    read.map(|_| ())
}

/// Reads once; a read that a signal interrupted is tried again.
fn read_retrying(source: &mut (impl Read + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
