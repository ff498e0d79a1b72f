//! Takes the inventory of a dump that is read by somebody else.

use std::io::{self, Read};

use super::{DumpParser, Inventory};
use crate::failure::{Failure, Result};

/// Passes a dump's bytes through unchanged and takes its inventory on the way.
///
/// A dump that is damaged or incomplete ends in a read error (a [`Failure`] inside), never in a
/// clean end: what lies downstream never takes a part for the whole.
pub struct InventoryReader<R> {
    inner: R,
    state: State,
}

enum State {
    Parsing(Box<DumpParser>),
    Done(Box<Inventory>),
    Failed,
}

impl<R: Read> InventoryReader<R> {
    /// Reads the dump in `inner` from its beginning.
    pub fn new(inner: R) -> Self {
        InventoryReader::with_parser(inner, DumpParser::new())
    }

    /// The same with a parser that has been told what to extract.
    pub fn with_parser(inner: R, parser: DumpParser) -> Self {
        InventoryReader {
            inner,
            state: State::Parsing(Box::new(parser)),
        }
    }

    /// The inventory, once the dump has been read to its end; before that an error.
    pub fn finish(self) -> Result<(R, Inventory)> {
        match self.state {
            State::Done(inventory) => Ok((self.inner, *inventory)),
            State::Parsing(_) => Err(Failure::new("the dump has not been read to its end")),
            State::Failed => Err(Failure::new("the dump could not be read to its end")),
        }
    }

    fn failed(&mut self, failure: Failure) -> io::Error {
        self.state = State::Failed;
        failure.into_io()
    }
}

impl<R: Read> Read for InventoryReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Failed => {
                return Err(Failure::new("the dump could not be read to its end").into_io());
            }
            State::Done(_) => return Ok(0),
            State::Parsing(_) if buffer.is_empty() => return Ok(0),
            State::Parsing(_) => {}
        }
        let length = self.inner.read(buffer)?;
        let State::Parsing(parser) = &mut self.state else {
            return Ok(length);
        };
        if length > 0 {
            let pushed = parser.push(&buffer[..length]);
            return pushed.map(|()| length).map_err(|error| self.failed(error));
        }
        match std::mem::take(parser).finish() {
            Ok(inventory) => {
                self.state = State::Done(Box::new(inventory));
                Ok(0)
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}
