//! Reads the header and the table of contents of a custom archive.
//!
//! Only what the inventory needs is looked at and little of that is kept, bounded in the [`Ledger`];
//! everything else is passed over.

use std::collections::HashMap;

use super::archive::ArchivedTable;
use super::block::Compression;
use super::inventory::Ledger;
use super::sql::{client_encoding, copy_from_stdin, lossy, roles, setval};
use super::toc::{self, Field, Kind};
use super::values::{Text, Values, damaged};
use crate::failure::{Failure, Result};

/// After the magic: version (3 bytes), size of integers, size of offsets, format.
const PREAMBLE_BYTES: usize = 6;
/// The format's number for a custom archive; 3 is tar, 5 a directory.
const FORMAT_CUSTOM: u8 = 1;
/// The section of an entry that `pg_restore --section=data` takes.
const SECTION_DATA: i64 = 3;

/// The part of an archive before its data.
pub(super) struct Contents {
    at: At,
    minor: u8,
    offset_bytes: usize,
    entries: i64,
    entries_left: i64,
    entry: Entry,
    /// The table of contents is coming a second time and says nothing new.
    is_repeated: bool,
    /// How the data that follow are compressed.
    pub compression: Compression,
    /// What the blocks that follow belong to, by dump id.
    pub expected: HashMap<i64, Expected>,
    /// Dump ids of all entries, and which of them are made of one table's rows and nothing else; only
    /// where somebody asked for it.
    pub order: Option<Order>,
    /// The first entry of the data section that is neither rows nor the state of a sequence.
    pub unusual: Option<String>,
}

/// What a loader wants to know of the entries.
#[derive(Default)]
pub(super) struct Order {
    /// Dump ids in the archive's order.
    pub ids: Vec<i64>,
    /// Tables by dump id.
    pub tables: HashMap<i64, (String, String)>,
    /// Indexes, and constraints that are indexes, with the dump id of the table that is all they
    /// depend on.
    pub indexes: Vec<(i64, i64)>,
}

/// Which value comes next.
#[derive(Clone, Copy)]
enum At {
    Preamble,
    Header(usize, Field, Kind),
    Entry(usize, Field, Kind),
    End,
}

/// One entry of the table of contents, as far as it is needed.
#[derive(Default)]
struct Entry {
    dump_id: i64,
    has_data: bool,
    is_data: bool,
    tag: String,
    description: String,
    definition: Vec<u8>,
    copy: Vec<u8>,
    namespace: String,
    owner: String,
    dependencies: Vec<i64>,
}

/// An entry whose data are still to come.
pub(super) enum Expected {
    Rows {
        schema: String,
        name: String,
        columns: String,
    },
    /// Data that are not `COPY` text.
    Other(String),
    LargeObjects,
}

impl Contents {
    /// The contents of an archive whose magic has just gone by.
    pub fn new() -> Self {
        Contents {
            at: At::Preamble,
            minor: 0,
            offset_bytes: 8,
            entries: 0,
            entries_left: 0,
            entry: Entry::default(),
            is_repeated: false,
            compression: Compression::None,
            expected: HashMap::new(),
            unusual: None,
            order: None,
        }
    }

    /// The same table of contents once more. `pg_dump -Fc >FILE` of 16 and later appends it where
    /// it means to fill in the offsets, as it opens its output for appending; `pg_restore` never
    /// looks there.
    pub fn repeat(&mut self) {
        self.is_repeated = true;
        self.at = At::Header(toc::HEADER.len() - 1, Field::EntryCount, Kind::Int);
    }

    /// Whether all entries have come and blocks follow.
    pub fn is_at_end(&self) -> bool {
        matches!(self.at, At::End)
    }

    /// See [`Contents::repeat`].
    pub fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// For a message: where the archive stops short.
    pub fn whereabouts(&self) -> String {
        match self.at {
            At::Preamble | At::Header(..) => "it ends within its header".into(),
            At::Entry(..) | At::End => format!(
                "it ends within its table of contents, {} entries before the end",
                self.entries_left
            ),
        }
    }

    /// Takes the next value, or what has come of it.
    pub fn step(
        &mut self,
        values: &mut Values,
        ledger: &mut Ledger,
        input: &mut &[u8],
    ) -> Result<()> {
        let (field, kind) = match self.at {
            At::End => return Ok(()),
            At::Header(_, field, kind) | At::Entry(_, field, kind) => (field, kind),
            At::Preamble => {
                let Some(bytes) = values.fixed(input, PREAMBLE_BYTES) else {
                    return Ok(());
                };
                let [major, minor, _, int_bytes, offset_bytes, format, ..] = bytes;
                check_preamble(major, minor, int_bytes, offset_bytes, format)?;
                self.minor = minor;
                values.int_bytes = int_bytes.into();
                self.offset_bytes = offset_bytes.into();
                ledger.archive_version = Some(format!("{major}.{minor}"));
                return self.go_on(ledger);
            }
        };
        let finished = match kind {
            Kind::Byte => match values.fixed(input, 1) {
                Some(byte) => self.number(field, byte[0].into()).map(|()| true)?,
                None => false,
            },
            Kind::Int => match values.int(input) {
                Some(number) => self.number(field, number).map(|()| true)?,
                None => false,
            },
            Kind::Offset => values.fixed(input, 1 + self.offset_bytes).is_some(),
            Kind::Text => match values.text(input, self.is_kept(field))? {
                Text::Unfinished => false,
                Text::Absent => {
                    self.said(ledger, field, Vec::new());
                    true
                }
                Text::Present(text) => {
                    self.said(ledger, field, text);
                    field != Field::Dependency
                }
            },
        };
        match finished {
            true => self.go_on(ledger),
            false => Ok(()),
        }
    }

    /// The field after this one, the entry after its last, the end after the last entry.
    fn go_on(&mut self, ledger: &mut Ledger) -> Result<()> {
        let from = match self.at {
            At::Preamble => 0,
            At::Header(at, ..) | At::Entry(at, ..) => at + 1,
            At::End => return Ok(()),
        };
        if !matches!(self.at, At::Entry(..)) {
            if let Some((at, field, kind)) = toc::field(toc::HEADER, from, self.minor) {
                self.at = At::Header(at, field, kind);
                return Ok(());
            }
        } else if let Some((at, field, kind)) = toc::field(toc::ENTRY, from, self.minor) {
            self.at = At::Entry(at, field, kind);
            return Ok(());
        } else {
            self.end_of_entry(ledger)?;
            self.entries_left -= 1;
        }
        self.at = match toc::field(toc::ENTRY, 0, self.minor) {
            Some((at, field, kind)) if self.entries_left > 0 => At::Entry(at, field, kind),
            _ => At::End,
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
            Field::EntryCount => {
                let is_known = !self.is_repeated || number == self.entries;
                if number < 0 || !is_known {
                    return Err(damaged(format!("a table of contents of {number} entries")));
                }
                self.entries = number;
                self.entries_left = number;
            }
            Field::DumpId => self.entry.dump_id = number,
            Field::HasData => self.entry.has_data = number != 0,
            Field::Section => self.entry.is_data = number == SECTION_DATA,
            _ => {}
        }
        Ok(())
    }

    /// Whether a text is looked into; all others are only passed over.
    fn is_kept(&self, field: Field) -> bool {
        match field {
            _ if self.is_repeated => false,
            Field::Database | Field::ServerVersion | Field::DumpVersion => true,
            Field::Tag | Field::Description | Field::Namespace | Field::Owner => true,
            Field::CopyStatement => self.entry.has_data,
            Field::Dependency => self.order.is_some() && self.entry.is_index(),
            Field::Definition => matches!(
                self.entry.description.as_str(),
                "ACL" | "DEFAULT ACL" | "POLICY" | "USER MAPPING" | "SEQUENCE SET" | "ENCODING"
            ),
            _ => false,
        }
    }

    fn said(&mut self, ledger: &mut Ledger, field: Field, text: Vec<u8>) {
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
            // Two are as much as many: only a single one is of use. It may come once per column.
            Field::Dependency if entry.dependencies.len() < 2 => {
                let id = lossy(&text).parse().ok();
                let is_new = |id: &i64| !entry.dependencies.contains(id);
                let id = id.filter(is_new);
                entry.dependencies.extend(id);
            }
            _ => {}
        }
    }

    fn end_of_entry(&mut self, ledger: &mut Ledger) -> Result<()> {
        let entry = std::mem::take(&mut self.entry);
        if self.is_repeated {
            return Ok(());
        }
        match entry.description.as_str() {
            // They describe the archive, not the database; a plain dump has no comments on them.
            "ENCODING" => ledger.encoding = client_encoding(&entry.definition),
            "STDSTRINGS" | "SEARCHPATH" => {}
            kind => ledger.object(kind)?,
        }
        ledger.role(&entry.owner)?;
        let usual = ["TABLE DATA", "SEQUENCE SET"].contains(&entry.description.as_str());
        if (entry.is_data || entry.has_data) && !usual && self.unusual.is_none() {
            self.unusual = Some(format!("{} {}", entry.description, entry.tag));
        }
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
        if let Some(order) = &mut self.order {
            order.add(ledger, &entry)?;
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
}

impl Entry {
    fn is_index(&self) -> bool {
        ["INDEX", "CONSTRAINT"].contains(&self.description.as_str())
    }
}

impl Order {
    fn add(&mut self, ledger: &mut Ledger, entry: &Entry) -> Result<()> {
        let id = entry.dump_id;
        self.ids.push(id);
        if entry.description == "TABLE" {
            ledger.keep(entry.namespace.len() + entry.tag.len())?;
            let name = (entry.namespace.clone(), entry.tag.clone());
            self.tables.insert(id, name);
        }
        if let (true, [table]) = (entry.is_index(), &entry.dependencies[..]) {
            self.indexes.push((id, *table));
        }
        ledger.keep(0)
    }
}

impl Expected {
    /// The table whose rows they are.
    pub fn table(&self) -> Option<ArchivedTable> {
        match self {
            Expected::Rows {
                schema,
                name,
                columns,
            } => Some(ArchivedTable {
                schema: schema.clone(),
                name: name.clone(),
                columns: columns.clone(),
            }),
            Expected::Other(_) | Expected::LargeObjects => None,
        }
    }

    /// For messages.
    pub fn name(&self) -> String {
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

/// Version, sizes and format must be ones that are known.
fn check_preamble(major: u8, minor: u8, int_bytes: u8, offset_bytes: u8, format: u8) -> Result<()> {
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
    Ok(())
}
