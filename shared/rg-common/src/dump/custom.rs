//! Reads a custom archive (`pg_dump -Fc`): header, table of contents, blocks of data.
//!
//! The promise: it ends well only if every entry that has data got its block, every block its end,
//! every table its closing line, and nothing follows. Memory does not depend on the data; what is
//! kept of the table of contents is bounded in the [`Ledger`]. A length in the archive is never
//! reserved in memory, only counted down.

use std::collections::HashMap;

use super::block::{Compression, Decoder};
use super::inventory::{Ledger, OpenTable};
use super::rows::RowPieces;
use super::sql::{client_encoding, copy_from_stdin, lossy, roles, setval};
use super::toc::{self, Field, Kind};
use crate::failure::{Failure, Result};

/// The longest text that is looked into: a `COPY` with 1600 quoted columns takes 0.2 MB.
const TEXT_BYTES_MAX: i64 = 4 << 20;
/// The longest value of fixed length: an integer of 8 bytes with its sign, and the preamble.
const FIXED_BYTES_MAX: usize = 16;
/// After the magic: version (3 bytes), size of integers, size of offsets, format.
const PREAMBLE_BYTES: usize = 6;
/// The format's number for a custom archive; 3 is tar, 5 a directory.
const FORMAT_CUSTOM: u8 = 1;
const BLOCK_TABLE: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// An archive that is being read.
pub(super) struct Archive {
    part: Part,
    fixed: Fixed,
    text: Option<TextValue>,
    minor: u8,
    int_bytes: usize,
    offset_bytes: usize,
    compression: Compression,
    entries_left: i64,
    entry: Entry,
    /// What the blocks to come belong to, by dump id.
    expected: HashMap<i64, Expected>,
    block: Option<Block>,
    out: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Part {
    Preamble,
    Header(usize, Field, Kind),
    Entry(usize, Field, Kind),
    BlockKind,
    BlockId(u8),
    LargeObject,
    ChunkLength,
    Chunk(u64),
}

/// A value of fixed length that comes in pieces.
#[derive(Default)]
struct Fixed {
    bytes: [u8; FIXED_BYTES_MAX],
    got: usize,
}

/// A text that comes in pieces.
struct TextValue {
    left: i64,
    kept: Option<Vec<u8>>,
}

/// One entry of the table of contents, as far as it is needed.
#[derive(Default)]
struct Entry {
    dump_id: i64,
    has_data: bool,
    tag: String,
    description: String,
    definition: Vec<u8>,
    copy: Vec<u8>,
    namespace: String,
    owner: String,
}

/// An entry whose data are still to come.
enum Expected {
    Rows {
        schema: String,
        name: String,
        columns: String,
    },
    /// Data that are not `COPY` text.
    Other(String),
    LargeObjects,
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
            part: Part::Preamble,
            fixed: Fixed::default(),
            text: None,
            minor: 0,
            int_bytes: 4,
            offset_bytes: 8,
            compression: Compression::None,
            entries_left: 0,
            entry: Entry::default(),
            expected: HashMap::new(),
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
        let cut = match self.part {
            Part::BlockKind if self.expected.is_empty() => return Ok(()),
            Part::BlockKind => {
                let mut missing: Vec<String> = self.expected.values().map(Expected::name).collect();
                missing.sort();
                let some = missing[..missing.len().min(3)].join(", ");
                format!(
                    "the data of {} entries are missing, such as {some}",
                    missing.len()
                )
            }
            Part::Preamble | Part::Header(..) => "it ends within its header".into(),
            Part::Entry(..) => format!(
                "it ends within its table of contents, {} entries before the end",
                self.entries_left
            ),
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
            Part::ChunkLength => match self.int(input) {
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
            Part::Preamble => match self.fixed.take(input, PREAMBLE_BYTES) {
                Some(bytes) => self.preamble(ledger, &bytes),
                None => Ok(()),
            },
            Part::Header(at, field, kind) | Part::Entry(at, field, kind) => {
                self.field(ledger, input, at, field, kind)
            }
            Part::BlockKind => {
                if let Some(kind) = self.fixed.take(input, 1) {
                    self.part = Part::BlockId(kind[0]);
                }
                Ok(())
            }
            Part::BlockId(kind) => match self.int(input) {
                Some(id) => self.begin_block(ledger, kind, id),
                None => Ok(()),
            },
            Part::LargeObject => match self.int(input) {
                Some(oid) => self.begin_large_object(oid),
                None => Ok(()),
            },
        }
    }

    /// Version, sizes and format.
    fn preamble(&mut self, ledger: &mut Ledger, bytes: &[u8; FIXED_BYTES_MAX]) -> Result<()> {
        let [major, minor, _, int_bytes, offset_bytes, format, ..] = *bytes;
        if major != 1 || !toc::MINOR_VERSIONS.contains(&minor) {
            return Err(Failure::new(format!(
                "the dump's archive version {major}.{minor} is not known here; known are 1.{} to 1.{}",
                toc::MINOR_VERSIONS.start(),
                toc::MINOR_VERSIONS.end()
            ))
            .hint("PostgreSQL 9.0 to 18 write these; for a newer one, update these tools"));
        }
        if format != FORMAT_CUSTOM {
            return Err(Failure::new(format!(
                "the dump is an archive of format {format}, not a custom one"
            ))
            .hint("tar and directory dumps cannot be read here; dump with -Fc or -Fp"));
        }
        if !(1..=8).contains(&int_bytes) || !(1..=8).contains(&offset_bytes) {
            return Err(damaged(format!(
                "integers of {int_bytes} and offsets of {offset_bytes} bytes"
            )));
        }
        self.minor = minor;
        self.int_bytes = int_bytes.into();
        self.offset_bytes = offset_bytes.into();
        ledger.archive_version = Some(format!("{major}.{minor}"));
        self.go_on(ledger, None)
    }

    /// One field of the header or of an entry.
    fn field(
        &mut self,
        ledger: &mut Ledger,
        input: &mut &[u8],
        at: usize,
        field: Field,
        kind: Kind,
    ) -> Result<()> {
        match kind {
            Kind::Byte => {
                let Some(byte) = self.fixed.take(input, 1) else {
                    return Ok(());
                };
                self.number(field, byte[0].into())?;
            }
            Kind::Int => {
                let Some(number) = self.int(input) else {
                    return Ok(());
                };
                self.number(field, number)?;
            }
            Kind::Offset => {
                if self.fixed.take(input, 1 + self.offset_bytes).is_none() {
                    return Ok(());
                }
            }
            Kind::Text => {
                let Some(text) = self.text(input, field)? else {
                    return Ok(());
                };
                if field == Field::Dependency && text.is_some() {
                    return Ok(());
                }
                self.said(ledger, field, text);
            }
        }
        self.go_on(ledger, Some(at))
    }

    /// The field after this one, the entry after its last, the blocks after the last entry.
    fn go_on(&mut self, ledger: &mut Ledger, at: Option<usize>) -> Result<()> {
        let from = at.map_or(0, |at| at + 1);
        let in_header = !matches!(self.part, Part::Entry(..));
        if in_header && let Some((at, field, kind)) = toc::field(toc::HEADER, from, self.minor) {
            self.part = Part::Header(at, field, kind);
            return Ok(());
        }
        let from = if in_header { 0 } else { from };
        let mut next = toc::field(toc::ENTRY, from, self.minor);
        if !in_header && next.is_none() {
            self.end_of_entry(ledger)?;
            self.entries_left -= 1;
            next = toc::field(toc::ENTRY, 0, self.minor);
        }
        self.part = match next {
            Some((at, field, kind)) if self.entries_left > 0 => Part::Entry(at, field, kind),
            _ => Part::BlockKind,
        };
        Ok(())
    }

    fn number(&mut self, field: Field, number: i64) -> Result<()> {
        match field {
            Field::CompressionLevel => {
                self.compression = match number {
                    0 => Compression::None,
                    _ => Compression::Gzip,
                }
            }
            Field::CompressionAlgorithm => {
                self.compression = match number {
                    0 => Compression::None,
                    1 => Compression::Gzip,
                    2 => Compression::Lz4,
                    3 => Compression::Zstd,
                    _ => return Err(damaged(format!("compression algorithm {number}"))),
                }
            }
            Field::EntryCount if number < 0 => {
                return Err(damaged(format!("{number} entries")));
            }
            Field::EntryCount => self.entries_left = number,
            Field::DumpId => self.entry.dump_id = number,
            Field::HasData => self.entry.has_data = number != 0,
            _ => {}
        }
        Ok(())
    }

    /// Whether a text is looked into; all others are only passed over.
    fn is_kept(&self, field: Field) -> bool {
        match field {
            Field::Database | Field::ServerVersion | Field::DumpVersion => true,
            Field::Tag | Field::Description | Field::Namespace | Field::Owner => true,
            Field::CopyStatement => self.entry.has_data,
            Field::Definition => matches!(
                self.entry.description.as_str(),
                "ACL" | "DEFAULT ACL" | "POLICY" | "USER MAPPING" | "SEQUENCE SET" | "ENCODING"
            ),
            _ => false,
        }
    }

    /// A text, or its absence, once it has come whole.
    #[allow(
        clippy::option_option,
        reason = "not yet here is not the same as absent"
    )]
    fn text(&mut self, input: &mut &[u8], field: Field) -> Result<Option<Option<Vec<u8>>>> {
        if self.text.is_none() {
            let Some(length) = self.int(input) else {
                return Ok(None);
            };
            if length < 0 {
                return Ok(Some(None));
            }
            let kept = self.is_kept(field);
            if kept && length > TEXT_BYTES_MAX {
                return Err(damaged(format!(
                    "a text of {length} bytes in its table of contents"
                )));
            }
            self.text = Some(TextValue {
                left: length,
                kept: kept.then(Vec::new),
            });
        }
        let Some(text) = &mut self.text else {
            return Ok(None);
        };
        let length = usize::try_from(text.left)
            .unwrap_or(usize::MAX)
            .min(input.len());
        let (piece, rest) = input.split_at(length);
        *input = rest;
        text.left -= length as i64;
        if let Some(kept) = &mut text.kept {
            kept.extend_from_slice(piece);
        }
        if text.left > 0 {
            return Ok(None);
        }
        Ok(self
            .text
            .take()
            .map(|text| Some(text.kept.unwrap_or_default())))
    }

    fn said(&mut self, ledger: &mut Ledger, field: Field, text: Option<Vec<u8>>) {
        let text = text.unwrap_or_default();
        let entry = &mut self.entry;
        match field {
            Field::Database => ledger.database = Some(lossy(&text)),
            Field::ServerVersion => ledger.server_version = lossy(&text),
            Field::DumpVersion => ledger.pg_dump_version = lossy(&text),
            Field::Tag => entry.tag = lossy(&text),
            Field::Description => entry.description = lossy(&text),
            Field::Namespace => entry.namespace = lossy(&text),
            Field::Owner => entry.owner = lossy(&text),
            Field::Definition => entry.definition = text,
            Field::CopyStatement => entry.copy = text,
            _ => {}
        }
    }

    fn end_of_entry(&mut self, ledger: &mut Ledger) -> Result<()> {
        let entry = std::mem::take(&mut self.entry);
        match entry.description.as_str() {
            // They describe the archive, not the database; a plain dump has no comments on them.
            "ENCODING" => ledger.encoding = client_encoding(&entry.definition),
            "STDSTRINGS" | "SEARCHPATH" => {}
            kind => ledger.object(kind)?,
        }
        ledger.role(&entry.owner)?;
        match entry.description.as_str() {
            "EXTENSION" => ledger.extension(&entry.tag)?,
            "ACL" | "DEFAULT ACL" | "POLICY" | "USER MAPPING" => {
                for role in roles(&entry.definition, true) {
                    ledger.role(&role)?;
                }
            }
            "SEQUENCE SET" => {
                let Some((_, _, value, is_called)) = setval(&entry.definition, true) else {
                    return Err(damaged(format!(
                        "the sequence `{}.{}` is set by an unknown statement",
                        entry.namespace, entry.tag
                    )));
                };
                let (schema, name) = (entry.namespace.clone(), entry.tag.clone());
                ledger.sequence(schema, name, (value, is_called))?;
            }
            _ => {}
        }
        if entry.has_data {
            let (id, expected) = (entry.dump_id, self.expect(ledger, entry)?);
            ledger.keep(expected.bytes())?;
            if self.expected.insert(id, expected).is_some() {
                return Err(damaged(format!("two entries have the dump id {id}")));
            }
        }
        Ok(())
    }

    /// What the data of an entry will be.
    fn expect(&self, ledger: &mut Ledger, entry: Entry) -> Result<Expected> {
        if matches!(entry.description.as_str(), "BLOBS" | "BLOB") {
            return Ok(Expected::LargeObjects);
        }
        let name = format!("`{}.{}`", entry.namespace, entry.tag);
        if self.compression == Compression::Lz4 {
            ledger.uncounted(|| {
                "its data are compressed with lz4, which cannot be read here; dump with \
                 --compress=none, gzip or zstd"
                    .into()
            });
            return Ok(Expected::Other(name));
        }
        if entry.copy.is_empty() {
            ledger.uncounted(|| {
                format!("the rows of {name} are INSERT statements; dump without --inserts, --column-inserts, --rows-per-insert")
            });
            return Ok(Expected::Other(name));
        }
        let Some(copy) = copy_from_stdin(&entry.copy, true) else {
            return Err(damaged(format!(
                "the rows of {name} are for an unknown statement"
            )));
        };
        Ok(Expected::Rows {
            schema: copy.schema.unwrap_or(entry.namespace),
            name: copy.name,
            columns: copy.columns,
        })
    }

    fn begin_block(&mut self, ledger: &mut Ledger, kind: u8, id: i64) -> Result<()> {
        let Some(expected) = self.expected.remove(&id) else {
            return Err(damaged(format!(
                "a block of data (kind {kind}) belongs to no entry or comes twice (dump id {id})"
            )));
        };
        let decoder = Decoder::new(self.compression)?;
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
            decoder: Decoder::new(self.compression)?,
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
                if self.compression == Compression::Lz4 {
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

    /// An integer: a sign byte and its magnitude.
    #[inline]
    fn int(&mut self, input: &mut &[u8]) -> Option<i64> {
        let bytes = self.fixed.take(input, 1 + self.int_bytes)?;
        let mut magnitude = [0; 8];
        magnitude[..self.int_bytes].copy_from_slice(&bytes[1..=self.int_bytes]);
        let magnitude = u64::from_le_bytes(magnitude) as i64;
        Some(match bytes[0] {
            0 => magnitude,
            _ => magnitude.wrapping_neg(),
        })
    }
}

impl Fixed {
    /// The next `need` bytes, once they are all there.
    #[inline]
    fn take(&mut self, input: &mut &[u8], need: usize) -> Option<[u8; FIXED_BYTES_MAX]> {
        let length = (need - self.got).min(input.len());
        let (piece, rest) = input.split_at(length);
        *input = rest;
        self.bytes[self.got..self.got + length].copy_from_slice(piece);
        self.got += length;
        if self.got < need {
            return None;
        }
        self.got = 0;
        Some(self.bytes)
    }
}

impl Expected {
    fn name(&self) -> String {
        match self {
            Expected::Rows { schema, name, .. } => format!("`{schema}.{name}`"),
            Expected::Other(name) => name.clone(),
            Expected::LargeObjects => "the large objects".into(),
        }
    }

    /// What it takes of the memory that is set apart.
    fn bytes(&self) -> usize {
        match self {
            Expected::Rows {
                schema,
                name,
                columns,
            } => schema.len() + name.len() + columns.len(),
            Expected::Other(name) => name.len(),
            Expected::LargeObjects => 0,
        }
    }
}

fn damaged(what: String) -> Failure {
    Failure::new(format!("the dump is damaged: {what}"))
        .hint("try `pg_restore --file=/dev/null` on it; if that fails too, take another backup")
}
