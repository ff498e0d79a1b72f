//! Reads a custom archive (`pg_dump -Fc`): its contents, then block after block of data.
//!
//! The promise: it ends well only if every entry that has data got its block, every block its end,
//! every table its closing line, and nothing follows. Memory does not depend on the data.

use super::block::{Compression, Decoder};
use super::contents::{Contents, Expected};
use super::inventory::{Ledger, OpenTable};
use super::rows::RowPieces;
use super::values::{Values, damaged};
use crate::failure::{Failure, Result};

/// What a block of a table's data begins with.
pub(super) const BLOCK_TABLE: u8 = 1;
/// What a block of large objects begins with.
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// An archive that is being read.
pub(super) struct Archive {
    part: Part,
    values: Values,
    contents: Contents,
    block: Option<Block>,
    /// Scratch memory for decompressed data.
    out: Vec<u8>,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Part {
    Contents,
    BlockKind,
    BlockId(u8),
    LargeObject,
    ChunkLength,
    Chunk(u64),
    /// Nothing, after a second table of contents.
    Nothing,
}

/// The block that is going by.
struct Block {
    decoder: Decoder,
    target: Target,
}

enum Target {
    Rows(OpenTable),
    Other,
    LargeObjects(Option<Box<RowPieces>>),
}

impl Archive {
    /// An archive whose magic has just gone by.
    pub fn new() -> Self {
        Archive {
            part: Part::Contents,
            values: Values::new(),
            contents: Contents::new(),
            block: None,
            out: Vec::new(),
        }
    }

    /// Takes in the archive's next bytes.
    pub fn push(&mut self, ledger: &mut Ledger, mut input: &[u8]) -> Result<()> {
        while !input.is_empty() {
            self.step(ledger, &mut input)?;
        }
        Ok(())
    }

    /// The archive's end: an error unless it is complete.
    pub fn finish(&self) -> Result<()> {
        let missing = self.contents.expected.values();
        let cut = match self.part {
            Part::Nothing => return Ok(()),
            Part::BlockKind if missing.len() == 0 => return Ok(()),
            Part::BlockKind => {
                let first = missing
                    .clone()
                    .map(Expected::name)
                    .min()
                    .unwrap_or_default();
                format!(
                    "the data of {} entries are missing, the first is {first}",
                    missing.len()
                )
            }
            Part::Contents => self.contents.whereabouts(),
            Part::BlockId(_) | Part::LargeObject | Part::ChunkLength | Part::Chunk(_) => {
                "it ends within a block of data".into()
            }
        };
        Err(Failure::new(format!("the dump is incomplete: {cut}")).hint(
            "pg_dump was interrupted or the file was cut; only a new dump or another copy helps",
        ))
    }

    fn step(&mut self, ledger: &mut Ledger, input: &mut &[u8]) -> Result<()> {
        match self.part {
            Part::Chunk(left) => {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let (chunk, rest) = input.split_at(length);
                *input = rest;
                self.part = match left - length as u64 {
                    0 => Part::ChunkLength,
                    left => Part::Chunk(left),
                };
                self.data(ledger, chunk)
            }
            Part::ChunkLength => match self.values.int(input) {
                Some(0) => self.end_of_chunks(ledger),
                Some(length) => match u64::try_from(length) {
                    Ok(length) => {
                        self.part = Part::Chunk(length);
                        Ok(())
                    }
                    Err(_) => Err(damaged(format!("a chunk of data has the length {length}"))),
                },
                None => Ok(()),
            },
            Part::Contents => {
                self.contents.step(&mut self.values, ledger, input)?;
                if self.contents.is_at_end() {
                    self.part = match self.contents.is_repeated() {
                        true => Part::Nothing,
                        false => Part::BlockKind,
                    };
                }
                Ok(())
            }
            Part::BlockKind => {
                match self.values.fixed(input, 1).map(|kind| kind[0]) {
                    // No kind of block, but the sign of a number of entries.
                    Some(0) if self.contents.expected.is_empty() => {
                        self.contents.repeat();
                        self.values.unread(0);
                        self.part = Part::Contents;
                    }
                    Some(kind) => self.part = Part::BlockId(kind),
                    None => {}
                }
                Ok(())
            }
            Part::Nothing => Err(damaged("it goes on behind its end".into())),
            Part::BlockId(kind) => match self.values.int(input) {
                Some(id) => self.begin_block(ledger, kind, id),
                None => Ok(()),
            },
            Part::LargeObject => match self.values.int(input) {
                Some(oid) => self.begin_large_object(oid),
                None => Ok(()),
            },
        }
    }

    fn begin_block(&mut self, ledger: &mut Ledger, kind: u8, id: i64) -> Result<()> {
        let Some(expected) = self.contents.expected.remove(&id) else {
            return Err(damaged(format!(
                "a block of data (kind {kind}) belongs to no entry or comes twice (dump id {id})"
            )));
        };
        let decoder = Decoder::new(self.contents.compression)?;
        let (part, target) = match (kind, expected) {
            (
                BLOCK_TABLE,
                Expected::Rows {
                    schema,
                    name,
                    columns,
                },
            ) => (
                Part::ChunkLength,
                Target::Rows(ledger.open(schema, name, columns, false)?),
            ),
            (BLOCK_TABLE, Expected::Other(_)) => (Part::ChunkLength, Target::Other),
            (BLOCK_LARGE_OBJECTS, Expected::LargeObjects) => {
                (Part::LargeObject, Target::LargeObjects(None))
            }
            (kind, expected) => {
                return Err(damaged(format!(
                    "the data of {} are in a block of kind {kind}",
                    expected.name()
                )));
            }
        };
        self.part = part;
        self.block = Some(Block { decoder, target });
        Ok(())
    }

    /// An oid, or 0 after the last large object of a block.
    fn begin_large_object(&mut self, oid: i64) -> Result<()> {
        if oid == 0 {
            self.block = None;
            self.part = Part::BlockKind;
            return Ok(());
        }
        // Oids are unsigned, but written as signed integers.
        let oid = (oid as u32).to_le_bytes();
        let mut object = RowPieces::new();
        object.push(&oid);
        self.block = Some(Block {
            decoder: Decoder::new(self.contents.compression)?,
            target: Target::LargeObjects(Some(Box::new(object))),
        });
        self.part = Part::ChunkLength;
        Ok(())
    }

    fn data(&mut self, ledger: &mut Ledger, chunk: &[u8]) -> Result<()> {
        let Some(Block { decoder, target }) = &mut self.block else {
            return Ok(());
        };
        match target {
            Target::Rows(table) => decoder
                .push(chunk, &mut self.out, |text| {
                    let taken = ledger.rows(table, text)?;
                    match text[taken..].iter().all(|&byte| byte == b'\n') {
                        true => Ok(()),
                        false => Err(Failure::new("rows go on behind their closing line")),
                    }
                })
                .map_err(|error| {
                    error.context(format!("cannot read the rows of {}", ledger.name(table)))
                }),
            Target::LargeObjects(Some(object)) => decoder
                .push(chunk, &mut self.out, |content| {
                    object.push(content);
                    Ok(())
                })
                .map_err(|error| error.context("cannot read a large object")),
            Target::LargeObjects(None) | Target::Other => Ok(()),
        }
    }

    fn end_of_chunks(&mut self, ledger: &mut Ledger) -> Result<()> {
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        self.part = Part::BlockKind;
        match &block.target {
            Target::Rows(table) => {
                let name = ledger.name(table);
                block
                    .decoder
                    .finish()
                    .map_err(|error| error.context(format!("cannot read the rows of {name}")))?;
                if !table.text.closed {
                    return Err(damaged(format!("the rows of {name} have no closing line")));
                }
                ledger.close(table);
            }
            Target::LargeObjects(Some(object)) => {
                block
                    .decoder
                    .finish()
                    .map_err(|error| error.context("cannot read a large object"))?;
                if self.contents.compression == Compression::Lz4 {
                    ledger.uncounted(|| {
                        "its large objects are compressed with lz4, which cannot be read here"
                            .into()
                    });
                } else {
                    ledger.large_object(object);
                }
                self.part = Part::LargeObject;
            }
            Target::LargeObjects(None) | Target::Other => {}
        }
        Ok(())
    }
}
