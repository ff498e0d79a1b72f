//! A source that is read on a thread of its own while what was read is sealed, stored or loaded.
//!
//! Reading a tree and hashing its files, or decrypting and decompressing a backup, is about as much
//! work as what is done with it: side by side it takes half the time. An error comes through at its
//! place, and the clean end only after the source's own. Pieces go through without a copy and come
//! back to be filled again. Memory: [`WAITING`] + 2 pieces besides those that the reader holds.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crate::failure::{OrFail, Result};
use crate::seal::NextPiece;

/// So many pieces may lie between reading and its use.
const WAITING: usize = 4;

/// Reads ahead. Dropped early it waits for the read that is under way, so the source must be one
/// whose reads end by themselves.
pub struct Ahead<T> {
    full: Option<Receiver<io::Result<Vec<u8>>>>,
    emptied: Sender<Vec<u8>>,
    thread: Option<JoinHandle<T>>,
    piece: Vec<u8>,
    taken: usize,
}

impl<T: Send + 'static> Ahead<T> {
    /// Begins to read, piece by piece: [`crate::seal::read_piece`] for any reader. Fails when no
    /// thread can be started.
    pub fn new(mut source: T, next: NextPiece<T>) -> Result<Self> {
        let (filled, full) = mpsc::sync_channel(WAITING);
        let (emptied, empty) = mpsc::channel::<Vec<u8>>();
        let reading = move || {
            loop {
                let mut piece = empty.try_recv().unwrap_or_default();
                let read = next(&mut source, &mut piece).map(|()| piece);
                let last = read.as_ref().map_or(true, Vec::is_empty);
                // Nobody takes it any more when its use has failed.
                if filled.send(read).is_err() || last {
                    return source;
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

impl<T> Ahead<T> {
    /// Puts the next piece in the place of what `piece` holds; an empty one is the clean end.
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        piece.clear();
        let Some(full) = &self.full else {
            return Ok(());
        };
        let next = match full.recv() {
            Ok(next) => next?,
            // After an error, or when the reading thread panicked.
            Err(_) => return Err(io::Error::other("the reading has failed before")),
        };
        if next.is_empty() {
            self.full = None;
        }
        let piece = std::mem::replace(piece, next);
        // The thread may have ended with all that there was.
        self.emptied.send(piece).ok();
        Ok(())
    }

    /// Ends the reading, wherever it is, and gives the source back; none when its thread panicked.
    pub fn into_source(mut self) -> Option<T> {
        self.full = None;
        self.thread.take()?.join().ok()
    }
}

impl<T> Read for Ahead<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && !buffer.is_empty() {
            let mut piece = std::mem::take(&mut self.piece);
            self.taken = 0;
            self.next_piece(&mut piece)?;
            self.piece = piece;
        }
        let n = buffer.len().min(self.piece.len() - self.taken);
        buffer[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

impl<T> Drop for Ahead<T> {
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
    use crate::seal::read_piece;

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
        let mut ahead = Ahead::new(broken, read_piece).unwrap();
        let mut text = [0; 8];
        ahead.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one two ");
        let error = ahead.read(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(ahead.read(&mut text).is_err());

        let interrupted = Pieces(pieces, Some(io::ErrorKind::Interrupted));
        let mut text = String::new();
        let mut ahead = Ahead::new(interrupted, read_piece).unwrap();
        ahead.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two ");
        assert_eq!(ahead.read(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn dropped_early_it_ends_although_nobody_takes_what_was_read() {
        drop(Ahead::new(io::repeat(7), read_piece).unwrap());
    }
}
