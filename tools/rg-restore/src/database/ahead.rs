//! A backup that is read on a thread of its own, which decrypts, decompresses and digests it, while
//! what was read is loaded or written.
//!
//! The promise: an error comes through at its place, and the end only after the backup's own clean
//! end. Memory: [`WAITING`] + 2 pieces of [`PIECE_BYTES`].

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;

use rg_common::{OrFail, Result};

/// So much is read at once.
const PIECE_BYTES: usize = 256 << 10;
/// So many pieces wait between reading and loading.
const WAITING: usize = 4;

/// Reads ahead. Dropped early it waits for the read that is under way.
pub struct Ahead {
    full: Option<Receiver<io::Result<Vec<u8>>>>,
    emptied: Sender<Vec<u8>>,
    thread: Option<JoinHandle<()>>,
    piece: Vec<u8>,
    taken: usize,
}

impl Ahead {
    /// Begins to read. Fails when no thread can be started.
    pub fn new(mut from: impl Read + Send + 'static) -> Result<Ahead> {
        let (filled, full) = sync_channel(WAITING);
        let (emptied, empty) = channel::<Vec<u8>>();
        let reading = move || {
            loop {
                let mut piece = empty.try_recv().unwrap_or_default();
                piece.resize(PIECE_BYTES, 0);
                let read = match from.read(&mut piece) {
                    Ok(n) => {
                        piece.truncate(n);
                        Ok(piece)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let last = read.as_ref().map_or(true, Vec::is_empty);
                // Nobody takes it any more when loading has failed.
                if filled.send(read).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("reading".to_owned())
            .spawn(reading)
            .or_fail(|| "cannot start the thread that reads".to_owned())?;
        Ok(Ahead {
            full: Some(full),
            emptied,
            thread: Some(thread),
            piece: Vec::new(),
            taken: 0,
        })
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            let Some(full) = &self.full else {
                return Ok(0);
            };
            let next = match full.recv() {
                Ok(next) => next?,
                // After an error, or when the reading thread panicked.
                Err(_) => return Err(io::Error::other("the backup has failed before")),
            };
            if next.is_empty() {
                self.full = None;
                return Ok(0);
            }
            self.taken = 0;
            let piece = std::mem::replace(&mut self.piece, next);
            // The thread may have ended with all that there was.
            self.emptied.send(piece).ok();
        }
        let n = buffer.len().min(self.piece.len() - self.taken);
        buffer[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its pieces one by one, then the error or the end.
    struct Pieces(Vec<&'static [u8]>, Option<io::ErrorKind>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match (self.0.is_empty(), self.1.take()) {
                (true, Some(kind)) => Err(kind.into()),
                (true, None) => Ok(0),
                (false, kind) => {
                    self.1 = kind;
                    let piece = self.0.remove(0);
                    buffer[..piece.len()].copy_from_slice(piece);
                    Ok(piece.len())
                }
            }
        }
    }

    #[test]
    fn an_error_comes_after_what_was_read_before_it_and_is_no_end() {
        let pieces = vec![&b"one "[..], b"two "];
        let broken = Pieces(pieces.clone(), Some(io::ErrorKind::ConnectionReset));
        let mut ahead = Ahead::new(broken).unwrap();
        let mut text = [0; 8];
        ahead.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one two ");
        let error = ahead.read(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(ahead.read(&mut text).is_err());

        let interrupted = Pieces(pieces, Some(io::ErrorKind::Interrupted));
        let mut text = String::new();
        let mut ahead = Ahead::new(interrupted).unwrap();
        ahead.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two ");
        assert_eq!(ahead.read(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn dropped_early_it_ends_although_nobody_takes_what_was_read() {
        drop(Ahead::new(io::repeat(7)).unwrap());
    }
}
