//! Takes a custom archive apart for a loader: its table of contents, then the rows table by table.
//!
//! The promise: what comes out as rows is the archive's own `COPY` text, byte for byte, without its
//! closing line, and the end comes only after every table that the contents announce. Rows are not
//! looked into and not counted: the caller knows by the digest of the whole that this is the dump
//! whose inventory was taken. Memory is [`READ_BYTES`] and what the contents describe.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};

use super::MAGIC;
use super::block::Decoder;
use super::contents::{Contents, Expected, Order};
use super::custom::BLOCK_TABLE;
use super::inventory::Ledger;
use super::values::{Values, damaged};
use crate::failure::{Failure, OrFail, Result};

/// The archive is read in pieces of this many bytes.
const READ_BYTES: usize = 256 << 10;
/// Rows are handed out in pieces of about this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// `pg_dump` ends a table's data with `\.` and three newlines; more than this is none of it.
const CLOSING_BYTES_MAX: usize = 16;

/// The rows of one table in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedTable {
    /// The schema's name, not quoted.
    pub schema: String,
    /// The table's name, not quoted.
    pub name: String,
    /// The text between the parentheses of `COPY`, quoted; empty for a table without columns.
    pub columns: String,
}

/// Reads a custom archive; see the module.
pub struct ArchiveReader<R> {
    inner: R,
    piece: Vec<u8>,
    /// So much of the piece is there, and so much of that was taken.
    filled: usize,
    taken: usize,
    contents: Contents,
    values: Values,
    /// Of the table whose rows are coming.
    block: Option<Block>,
    /// The end of what has come of its rows, which may be its closing line.
    text: BytesMut,
    /// Decompressed bytes on their way.
    out: Vec<u8>,
}

struct Block {
    name: String,
    decoder: Decoder,
    /// Bytes of the chunk that have not come yet.
    left: u64,
}

impl<R: Read> ArchiveReader<R> {
    /// Reads up to the end of the table of contents, which goes to `contents`: by itself it is an
    /// archive that holds no data, good for `pg_restore`'s sections before and after them.
    pub fn open(inner: R, contents: &mut impl Write) -> Result<ArchiveReader<R>> {
        let mut archive = ArchiveReader {
            inner,
            piece: vec![0; READ_BYTES],
            filled: 0,
            taken: 0,
            contents: Contents::new(),
            values: Values::new(),
            block: None,
            text: BytesMut::new(),
            out: Vec::new(),
        };
        archive.contents.order = Some(Order::default());
        let mut write = |bytes: &[u8]| {
            contents
                .write_all(bytes)
                .or_fail(|| "cannot write the dump's table of contents".to_owned())
        };
        for &byte in MAGIC {
            if archive.byte()? != Some(byte) {
                return Err(Failure::new("the dump is no custom archive"));
            }
        }
        write(MAGIC)?;
        let mut ledger = Ledger::default();
        while !archive.contents.is_at_end() {
            if !archive.fill()? {
                return Err(damaged(archive.contents.whereabouts()));
            }
            let before = &archive.piece[archive.taken..archive.filled];
            let mut input = before;
            while !input.is_empty() && !archive.contents.is_at_end() {
                archive
                    .contents
                    .step(&mut archive.values, &mut ledger, &mut input)?;
            }
            let length = before.len() - input.len();
            write(&before[..length])?;
            archive.taken += length;
        }
        Ok(archive)
    }

    /// What the archive holds besides rows and the state of sequences that `pg_restore` would load
    /// among the data, or rows that are not `COPY` text: such an archive is left to `pg_restore`.
    pub fn unusual(&self) -> Option<&str> {
        let other = |expected: &&Expected| !matches!(expected, Expected::Rows { .. });
        match &self.contents.unusual {
            Some(unusual) => Some(unusual),
            None => self
                .contents
                .expected
                .values()
                .any(|expected| other(&expected))
                .then_some("data that are not COPY text"),
        }
    }

    /// The tables whose rows are still to come, in no order.
    pub fn tables(&self) -> Vec<ArchivedTable> {
        let expected = self.contents.expected.values();
        expected.filter_map(Expected::table).collect()
    }

    /// The dump ids of all entries in the archive's order, as `pg_restore --use-list` wants them.
    pub fn entries(&self) -> &[i64] {
        let order = self.contents.order.as_ref();
        order.map_or(&[], |order| &order.ids)
    }

    /// The dump ids of the indexes, and of the constraints that are indexes, which need nothing but
    /// one table with its rows; by that table's schema and name.
    pub fn indexes(&self) -> HashMap<(String, String), Vec<i64>> {
        let mut indexes: HashMap<_, Vec<i64>> = HashMap::new();
        if let Some(order) = &self.contents.order {
            for (index, table) in &order.indexes {
                if let Some(name) = order.tables.get(table) {
                    indexes.entry(name.clone()).or_default().push(*index);
                }
            }
        }
        indexes
    }

    /// The table whose rows come next, after those of the one before were all taken; `None` after
    /// the last one, when the whole stream has been read to its clean end.
    pub fn next_table(&mut self) -> Result<Option<ArchivedTable>> {
        if self.block.is_some() {
            return Err(Failure::new("the rows of a table were not all read"));
        }
        let missing = self.contents.expected.len();
        let kind = match self.byte()? {
            Some(kind) if missing > 0 => kind,
            None if missing > 0 => {
                return Err(damaged(format!(
                    "the data of {missing} entries are missing"
                )));
            }
            // A second table of contents, which nobody reads.
            _ => {
                self.taken = self.filled;
                while self.fill()? {
                    self.taken = self.filled;
                }
                return Ok(None);
            }
        };
        let id = self.int()?;
        let expected = self.contents.expected.remove(&id);
        match expected.as_ref().and_then(Expected::table) {
            Some(table) if kind == BLOCK_TABLE => {
                self.block = Some(Block {
                    name: format!("{}.{}", table.schema, table.name),
                    decoder: Decoder::new(self.contents.compression)?,
                    left: 0,
                });
                Ok(Some(table))
            }
            _ => Err(damaged(format!(
                "a block of data (kind {kind}) that was not announced (dump id {id})"
            ))),
        }
    }

    /// The table's next rows, cut anywhere; `None` after its last ones.
    pub fn rows(&mut self) -> Result<Option<Bytes>> {
        if self.block.is_none() {
            return Ok(None);
        }
        let mut text = std::mem::take(&mut self.text);
        text.reserve(PIECE_BYTES + READ_BYTES);
        while text.len() < PIECE_BYTES {
            if !self.chunk(&mut text)? {
                close(&mut text).map_err(|failure| failure.context(self.whose()))?;
                self.block = None;
                return Ok(Some(text.freeze()));
            }
        }
        let ready = text.split_to(text.len() - CLOSING_BYTES_MAX);
        self.text = text;
        Ok(Some(ready.freeze()))
    }

    /// A part of a chunk of the block; false after its last one.
    fn chunk(&mut self, text: &mut BytesMut) -> Result<bool> {
        if self.block.as_ref().is_some_and(|block| block.left == 0) {
            let length = self.int()?;
            let length = u64::try_from(length)
                .map_err(|_| damaged(format!("a chunk of data has the length {length}")))?;
            if let Some(block) = &mut self.block {
                block.left = length;
                if length == 0 {
                    let ended = block.decoder.finish();
                    return ended.map(|()| false).map_err(|f| f.context(self.whose()));
                }
            }
        }
        if !self.fill()? {
            return Err(damaged("it ends within a block of data".to_owned()));
        }
        let Some(block) = &mut self.block else {
            return Err(Failure::new("no table's rows are being read"));
        };
        let there = &self.piece[self.taken..self.filled];
        let left = usize::try_from(block.left).unwrap_or(usize::MAX);
        let bytes = &there[..left.min(there.len()).min(PIECE_BYTES / 4)];
        let decoded = block.decoder.push(bytes, &mut self.out, |plain| {
            text.extend_from_slice(plain);
            Ok(())
        });
        block.left -= bytes.len() as u64;
        self.taken += bytes.len();
        decoded.map(|()| true).map_err(|f| f.context(self.whose()))
    }

    fn whose(&self) -> String {
        let name = self.block.as_ref().map_or("", |block| &block.name);
        format!("cannot read the rows of {name}")
    }

    /// The next byte; `None` at the end of the stream.
    fn byte(&mut self) -> Result<Option<u8>> {
        if !self.fill()? {
            return Ok(None);
        }
        self.taken += 1;
        Ok(Some(self.piece[self.taken - 1]))
    }

    fn int(&mut self) -> Result<i64> {
        loop {
            if !self.fill()? {
                return Err(damaged("it ends within a block of data".to_owned()));
            }
            let before = &self.piece[self.taken..self.filled];
            let mut input = before;
            let number = self.values.int(&mut input);
            self.taken += before.len() - input.len();
            if let Some(number) = number {
                return Ok(number);
            }
        }
    }

    /// Makes sure that a byte is there; false at the end of the stream.
    fn fill(&mut self) -> Result<bool> {
        if self.taken < self.filled {
            return Ok(true);
        }
        (self.taken, self.filled) = (0, 0);
        loop {
            match self.inner.read(&mut self.piece) {
                Ok(length) => {
                    self.filled = length;
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::from_io("cannot read the dump", error)),
            }
        }
    }
}

/// Takes the closing line and what `pg_dump` writes behind it off the end of a table's text.
fn close(text: &mut BytesMut) -> Result<()> {
    while text.last() == Some(&b'\n') {
        text.truncate(text.len() - 1);
    }
    if !text.ends_with(b"\\.") {
        return Err(damaged("they have no closing line".to_owned()));
    }
    text.truncate(text.len() - 2);
    match text.last() {
        None | Some(b'\n') => Ok(()),
        Some(_) => Err(damaged("their closing line stands in a row".to_owned())),
    }
}
