//! A dump that is read ahead: the thread that reads gives it back to say what it was.

use std::io;

use super::{Dump, Dumped};
use crate::ahead::Ahead;
use crate::failure::{Failure, Result};

impl<D: Dump + Send + 'static> Dump for Ahead<D> {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        Ahead::next_piece(self, piece)
    }

    fn finish(self: Box<Self>) -> Result<Dumped> {
        match self.into_source() {
            Some(dump) => Box::new(dump).finish(),
            None => Err(Failure::new("the thread that reads was aborted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
        Box::new(Ahead::new(Source { left, fails }, Source::next_piece).expect("a thread"))
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
