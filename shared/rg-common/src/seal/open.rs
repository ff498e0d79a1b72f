//! Stored bytes back to plain bytes, the layers chosen by the name's extensions.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::age::{Decrypter, Identities};
use super::digest::{Aside, Digest, Digests};
use super::{READ_BYTES, gzip, read_retrying, zstd};
use crate::failure::{Failure, Result};

/// Begins to turn `stored` back into plain bytes. The layers are those that the name ends in:
/// `.age` outermost, then `.zst` or `.gz`; any other name is read as it is. Reads the header of the
/// encryption, so a missing or a wrong identity is known at once.
pub fn open<R: Read>(
    stored: R,
    name_or_extension: &str,
    identities: Option<&Identities>,
) -> Result<Opener<R>> {
    let (name, encrypted) = match name_or_extension.strip_suffix(".age") {
        Some(name) => (name, true),
        None => (name_or_extension, false),
    };
    let tap = Tap(Arc::new(Mutex::new(Stored {
        source: stored,
        digest: Digest::default(),
        error: None,
    })));
    let buffered = BufReader::with_capacity(READ_BYTES, tap.clone());
    let outer = if encrypted {
        let identities = identities.ok_or_else(|| {
            Failure::new(format!(
                "`{name_or_extension}` is encrypted, and no identity was given"
            ))
            .hint("the identity is kept off the server; pass it with --identity FILE")
        })?;
        match Decrypter::new(buffered, identities) {
            Ok(decrypter) => Outer::Age(Box::new(BufReader::with_capacity(READ_BYTES, decrypter))),
            Err(failure) => {
                return Err(match tap.lock().error.take() {
                    Some(error) => Failure::from_io("cannot read the stored bytes", error),
                    None => failure,
                });
            }
        }
    } else {
        Outer::Stored(buffered)
    };
    let layers = if name.ends_with(".zst") {
        Layers::Zstd(zstd::Decompressor::new(outer)?)
    } else if name.ends_with(".gz") {
        Layers::Gzip(Box::new(gzip::Decompressor::new(outer)))
    } else {
        Layers::None(outer)
    };
    Ok(Opener {
        layers,
        tap,
        plain: Aside::new()?,
        state: State::Reading,
    })
}

/// Reads as the plain bytes. Its end comes only after every layer ended where its format says it
/// ends, checksums held, and nothing came after; after an error it stays an error.
pub struct Opener<R: Read> {
    layers: Layers<R>,
    tap: Tap<R>,
    plain: Aside,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

enum Layers<R: Read> {
    Zstd(zstd::Decompressor<Outer<R>>),
    Gzip(Box<gzip::Decompressor<Outer<R>>>),
    None(Outer<R>),
}

enum Outer<R: Read> {
    Age(Box<BufReader<Decrypter<BufReader<Tap<R>>>>>),
    Stored(BufReader<Tap<R>>),
}

impl<R: Read> Opener<R> {
    /// Gives back the source and says what went by, on both sides. An error unless the plain bytes
    /// were read up to their clean end (a read that returned 0).
    pub fn finish(self) -> Result<(R, Digests)> {
        if self.state != State::Ended {
            return Err(Failure::new("the plain bytes were not read to their end"));
        }
        let passes_through = self.passes_through();
        drop(self.layers);
        let stored = Arc::into_inner(self.tap.0).expect("the layers held the only other handles");
        let stored = stored.into_inner().unwrap_or_else(PoisonError::into_inner);
        let plain = match passes_through {
            true => stored.digest.clone(),
            false => self.plain.finish()?,
        };
        Ok((stored.source, Digests::of(plain, stored.digest)))
    }

    /// Whether the plain bytes are the stored ones, so that one digest says both.
    fn passes_through(&self) -> bool {
        matches!(self.layers, Layers::None(Outer::Stored(_)))
    }

    /// The layers have ended; so must the stored bytes.
    fn expect_end(&mut self) -> io::Result<()> {
        let left = match &mut self.layers {
            Layers::Zstd(zstd) => zstd.stored().fill_buf()?,
            Layers::Gzip(gzip) => gzip.stored().fill_buf()?,
            Layers::None(outer) => outer.fill_buf()?,
        };
        match left.is_empty() {
            true => Ok(()),
            false => Err(Failure::new("something follows the end of the stored bytes").into_io()),
        }
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.state {
            _ if buf.is_empty() => return Ok(0),
            State::Ended => return Ok(0),
            State::Failed => return Err(io::Error::other("the stream has failed before")),
            State::Reading => {}
        }
        let read = match &mut self.layers {
            Layers::Zstd(zstd) => read_retrying(zstd, buf),
            Layers::Gzip(gzip) => read_retrying(gzip.as_mut(), buf),
            Layers::None(outer) => read_retrying(outer, buf),
        };
        let read = match read {
            Ok(0) => self.expect_end().map(|()| 0),
            other => other,
        };
        match read {
            Ok(0) => self.state = State::Ended,
            Ok(_) if self.passes_through() => {}
            Ok(n) => self.plain.copy(&buf[..n]),
            Err(_) => self.state = State::Failed,
        }
        // What the source said comes through unchanged, whatever a layer made of it.
        read.map_err(|error| self.tap.lock().error.take().unwrap_or(error))
    }
}

/// Says that a layer could not be read. A failure from further out is passed on as it is.
pub(super) fn blame(layer: &str, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted
        || error.get_ref().is_some_and(|inner| inner.is::<Failure>())
    {
        return error;
    }
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("the {layer} data is cut short"),
        _ => format!("the {layer} data is damaged or cut short"),
    };
    Failure::because(what, error)
        .hint("this copy cannot be used; take another backup or the same one from another store")
        .into_io()
}

impl<R: Read> Read for Outer<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Outer::Age(age) => age.read(buf),
            Outer::Stored(stored) => stored.read(buf),
        }
    }
}

impl<R: Read> BufRead for Outer<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Outer::Age(age) => age.fill_buf(),
            Outer::Stored(stored) => stored.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self {
            Outer::Age(age) => age.consume(n),
            Outer::Stored(stored) => stored.consume(n),
        }
    }
}

/// A handle on the source beneath all layers: the layers read through one, the opener keeps one.
struct Tap<R>(Arc<Mutex<Stored<R>>>);

struct Stored<R> {
    source: R,
    digest: Digest,
    /// What the source failed with; the layers above see a stand-in.
    error: Option<io::Error>,
}

impl<R> Tap<R> {
    fn lock(&self) -> MutexGuard<'_, Stored<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Clone for Tap<R> {
    fn clone(&self) -> Self {
        Tap(Arc::clone(&self.0))
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut stored = self.lock();
        match read_retrying(&mut stored.source, buf) {
            Ok(n) => {
                stored.digest.update(&buf[..n]);
                Ok(n)
            }
            Err(error) => {
                let stand_in = io::Error::from(error.kind());
                stored.error = Some(error);
                Err(stand_in)
            }
        }
    }
}
