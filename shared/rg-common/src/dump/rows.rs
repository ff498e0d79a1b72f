//! The rows of a table as `COPY` writes them, counted and summed as they go by.
//!
//! The promise: constant memory whatever a row's length, the same sum however the bytes were cut
//! into pieces. A row that lies whole in what was pushed is hashed where it lies; one that does not
//! is collected up to [`ROW_COLLECTED_MAX`] and hashed in a stream beyond.

use std::io;

use memchr::memchr;
use twox_hash::xxhash3_128::{DEFAULT_SECRET_LENGTH, Hasher, RawHasher, SecretBuffer};

use crate::failure::{Failure, Result};

/// A row in pieces is collected up to this many bytes, then hashed in a stream.
const ROW_COLLECTED_MAX: usize = 64 << 10;

/// Rows counted and summed, in no order: XXH3-128 (seed 0) of each row's `COPY` text without its
/// newline, added modulo 2^128. The order of rows does not matter, how often each occurs does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSum {
    rows: u64,
    sum: u128,
}

impl RowSum {
    /// No rows: a checksum of zeros.
    pub fn new() -> Self {
        RowSum::default()
    }

    /// Adds one row: its line of `COPY … TO STDOUT` without the newline.
    #[inline]
    pub fn add_row(&mut self, row: &[u8]) {
        self.add(Hasher::oneshot(row));
    }

    /// Adds one row that came in pieces (see [`RowPieces`]).
    pub fn add_pieces(&mut self, row: &RowPieces) {
        self.add(row.0.finish_128());
    }

    /// Adds all rows of another sum, as if they had been added here.
    pub fn add_all(&mut self, other: &RowSum) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    #[inline]
    fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The sum as 32 lowercase hexadecimal digits, the most significant first.
    pub fn checksum(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// One row whose bytes come in pieces of any length; takes about 600 bytes.
pub struct RowPieces(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl RowPieces {
    /// A row of which nothing has come yet.
    pub fn new() -> Self {
        RowPieces(RawHasher::new(SecretBuffer::default()))
    }

    /// The row's next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }
}

impl Default for RowPieces {
    fn default() -> Self {
        RowPieces::new()
    }
}

/// Takes the rows of a table that is wanted (see [`DumpParser::extract`]).
///
/// [`DumpParser::extract`]: super::DumpParser::extract
pub trait RowSink: Send {
    /// Comes once before the first row. `columns` is the text between the parentheses of the
    /// dump's own `COPY`, empty for a table without columns.
    fn begin(&mut self, columns: &str) -> io::Result<()> {
        let _ = columns;
        Ok(())
    }

    /// The next bytes of the table's `COPY` text: rows ended by newlines, cut anywhere, without
    /// the closing `\.` line. Many small pieces: put a buffer behind it.
    fn rows(&mut self, text: &[u8]) -> io::Result<()>;
}

impl<F: FnMut(&[u8]) -> io::Result<()> + Send> RowSink for F {
    fn rows(&mut self, text: &[u8]) -> io::Result<()> {
        self(text)
    }
}

/// The sink of the table that is being read, if it is a wanted one.
pub(super) type Sink<'a> = Option<&'a mut Box<dyn RowSink>>;

/// Cuts `COPY` text into rows up to its closing `\.` line.
#[derive(Default)]
pub(super) struct CopyText {
    pub sum: RowSum,
    /// Bytes of all rows with their newlines (without a carriage return before one).
    pub bytes: u64,
    /// The closing line has been seen; nothing may follow.
    pub closed: bool,
    /// Lines end with CR LF: a carriage return before a newline is no part of the row. (`COPY`
    /// writes one that is data as `\r`.)
    crlf: bool,
    collected: Vec<u8>,
    spilled: Option<Box<Spilled>>,
}

struct Spilled {
    row: RowPieces,
    /// With CR LF: a carriage return at the end of the last piece, data or not.
    carriage_return: bool,
}

impl CopyText {
    pub fn new(crlf: bool) -> Self {
        CopyText {
            crlf,
            ..CopyText::default()
        }
    }

    /// Takes in text up to the closing line; says how much of `text` that was.
    pub fn push(&mut self, text: &[u8], mut sink: Sink) -> Result<usize> {
        let mut at = 0;
        if self.is_in_row() {
            let Some(end) = memchr(b'\n', text) else {
                self.collect(text, &mut sink)?;
                return Ok(text.len());
            };
            self.collect(&text[..end], &mut sink)?;
            self.end_collected(&mut sink)?;
            at = end + 1;
        }
        while !self.closed && at < text.len() {
            let rest = &text[at..];
            let Some(end) = memchr(b'\n', rest) else {
                self.collect(rest, &mut sink)?;
                return Ok(text.len());
            };
            self.line(&rest[..end], &mut sink)?;
            at += end + 1;
        }
        Ok(at)
    }

    /// Whether the text stands inside a row, not at the beginning of one.
    pub fn is_in_row(&self) -> bool {
        !self.collected.is_empty() || self.spilled.is_some()
    }

    /// A whole line, where it lies.
    #[inline]
    fn line(&mut self, line: &[u8], sink: &mut Sink) -> Result<()> {
        let line = match line {
            [rest @ .., b'\r'] if self.crlf => rest,
            line => line,
        };
        if line == b"\\." {
            self.closed = true;
            return Ok(());
        }
        self.bytes += line.len() as u64 + 1;
        self.sum.add_row(line);
        pass(sink, line)?;
        pass(sink, b"\n")
    }

    /// A part of a line.
    fn collect(&mut self, piece: &[u8], sink: &mut Sink) -> Result<()> {
        if self.spilled.is_none() {
            if self.collected.len() + piece.len() <= ROW_COLLECTED_MAX {
                self.collected.extend_from_slice(piece);
                return Ok(());
            }
            self.spilled = Some(Box::new(Spilled {
                row: RowPieces::new(),
                carriage_return: false,
            }));
            let collected = std::mem::take(&mut self.collected);
            self.stream(&collected, sink)?;
            self.collected = collected;
            self.collected.clear();
        }
        self.stream(piece, sink)
    }

    /// A part of a line that is too long to be collected.
    fn stream(&mut self, piece: &[u8], sink: &mut Sink) -> Result<()> {
        let Some(spilled) = &mut self.spilled else {
            return Ok(());
        };
        if piece.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut spilled.carriage_return) {
            spilled.row.push(b"\r");
            self.bytes += 1;
            pass(sink, b"\r")?;
        }
        let piece = match piece {
            [rest @ .., b'\r'] if self.crlf => {
                spilled.carriage_return = true;
                rest
            }
            piece => piece,
        };
        spilled.row.push(piece);
        self.bytes += piece.len() as u64;
        pass(sink, piece)
    }

    /// The newline after parts of a line.
    fn end_collected(&mut self, sink: &mut Sink) -> Result<()> {
        match self.spilled.take() {
            Some(spilled) => {
                self.sum.add_pieces(&spilled.row);
                self.bytes += 1;
                pass(sink, b"\n")
            }
            None => {
                let mut collected = std::mem::take(&mut self.collected);
                let done = self.line(&collected, sink);
                collected.clear();
                self.collected = collected;
                done
            }
        }
    }
}

#[inline]
fn pass(sink: &mut Sink, text: &[u8]) -> Result<()> {
    match sink {
        Some(sink) => sink.rows(text).map_err(|error| {
            Failure::from_io("cannot pass on the rows of the wanted table", error)
        }),
        None => Ok(()),
    }
}
