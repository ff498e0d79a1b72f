//! A dump that is read on a thread of its own while what was read is sealed and stored.
//!
//! Walking a tree, reading its files and hashing each of them is about as much work as
//! compressing, encrypting and writing them: side by side it takes half the time. An error comes
//! through at its place, and the clean end only after the dump's own. Pieces go through without a
//! copy and come back to be filled again. Memory: [`WAITING`] + 2 pieces besides those that the
//! reader holds.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::{Dump, Dumped};
use crate::failure::{Failure, OrFail, Result};

/// So many pieces may lie between reading and sealing.
const WAITING: usize = 4;

/// Reads a dump ahead. Dropped early it waits for the read that is under way, so the dump must be
/// one whose reads end by themselves.
pub(super) struct Ahead<D> {
    full: Option<Receiver<io::Result<Vec<u8>>>>,
    emptied: Sender<Vec<u8>>,
    thread: Option<JoinHandle<D>>,
    piece: Vec<u8>,
    taken: usize,
}

impl<D: Dump + Send + 'static> Ahead<D> {
    /// Begins to read. Fails when no thread can be started.
    pub fn new(mut dump: D) -> Result<Self> {
        let (filled, full) = mpsc::sync_channel(WAITING);
        let (emptied, empty) = mpsc::channel::<Vec<u8>>();
        let reading = move || {
            loop {
                let mut piece = empty.try_recv().unwrap_or_default();
                let read = dump.next_piece(&mut piece).map(|()| piece);
                let last = read.as_ref().map_or(true, Vec::is_empty);
                // Nobody takes it any more when sealing or storing has failed.
                if filled.send(read).is_err() || last {
                    return dump;
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

impl<D> Ahead<D> {
    fn receive(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        piece.clear();
        let Some(full) = &self.full else {
            return Ok(());
        };
        let next = match full.recv() {
            Ok(next) => next?,
            // After an error, or when the reading thread panicked.
            Err(_) => return Err(io::Error::other("the dump has failed before")),
        };
        if next.is_empty() {
            self.full = None;
        }
        let piece = std::mem::replace(piece, next);
        // The thread may have ended with all that there was.
        self.emptied.send(piece).ok();
        Ok(())
    }
}

impl<D> Read for Ahead<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && !buffer.is_empty() {
            let mut piece = std::mem::take(&mut self.piece);
            self.taken = 0;
            self.receive(&mut piece)?;
            self.piece = piece;
        }
        let n = buffer.len().min(self.piece.len() - self.taken);
        buffer[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

impl<D: Dump + Send + 'static> Dump for Ahead<D> {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.receive(piece)
    }

    fn finish(mut self: Box<Self>) -> Result<Dumped> {
        self.full = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(dump)) => Box::new(dump).finish(),
            _ => Err(Failure::new("the thread that reads was aborted")),
        }
    }
}

impl<D> Drop for Ahead<D> {
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
    use crate::catalog::Content;
    use crate::catalog::manifest::GlobalsContent;

    /// Gives `left` bytes in odd pieces, then its end or an error.
    struct Source {
        left: usize,
        fails: bool,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.left.min(buffer.len()).min(100_003);
            if n == 0 && self.fails {
                return Err(Failure::new("the disk gave up").into_io());
            }
            buffer[..n].fill(7);
            self.left -= n;
            Ok(n)
        }
    }

    impl Dump for Source {
        fn finish(self: Box<Self>) -> Result<Dumped> {
            match self.left {
                0 if !self.fails => Ok(Dumped {
                    content: Content::Globals(GlobalsContent {
                        server_version: String::new(),
                        roles: Vec::new(),
                        passwords: false,
                    }),
                    list: None,
                    notes: vec!["whole".to_owned()],
                    recorded: None,
                }),
                _ => Err(Failure::new("not read to its end")),
            }
        }
    }

    fn source(left: usize, fails: bool) -> Box<Ahead<Source>> {
        Box::new(Ahead::new(Source { left, fails }).expect("a thread"))
    }

    #[test]
    fn an_error_comes_at_its_place_and_never_as_an_end() {
        let mut ahead = source(3 << 20, true);
        let mut read = Vec::new();
        let error = ahead.read_to_end(&mut read).expect_err("it fails");
        assert_eq!(error.to_string(), "the disk gave up");
        assert_eq!(read.len(), 3 << 20);
        assert!(ahead.read(&mut [0; 8]).is_err());
        assert!(ahead.finish().is_err());
    }

    #[test]
    fn everything_comes_and_the_dump_says_what_it_was() {
        let mut ahead = source((5 << 20) + 17, false);
        let mut read = Vec::new();
        ahead.read_to_end(&mut read).expect("whole");
        assert_eq!(read.len(), (5 << 20) + 17);
        assert_eq!(ahead.finish().expect("whole").notes, ["whole"]);
    }

    #[test]
    fn a_dump_that_is_given_up_ends_its_thread() {
        let mut ahead = source(usize::MAX, false);
        ahead.read_exact(&mut [0; 1000]).expect("some");
        drop(ahead);
        assert!(source(1 << 30, false).finish().is_err());
    }
}
