//! Reads `pg_dump`'s own stream as it goes by, for an inventory of what it holds.
//!
//! The promise: an inventory only of a dump that is complete, with every table's rows counted and
//! summed so that a restore can be compared with it ([`RowSum`]). The parser is pushed, takes
//! pieces of any size, keeps to constant memory and is fast enough to sit in the pipe of every
//! backup. The dump may be anybody's: nothing in it makes the parser panic or reserve memory.

mod archive;
mod block;
mod contents;
mod custom;
mod inventory;
mod lexer;
mod plain;
mod reader;
mod rows;
mod sql;
#[cfg(test)]
mod tests;
mod toc;
mod values;

use crate::failure::{Failure, Result};
use custom::Archive;
use inventory::{Ledger, Wanted};
use plain::Script;

pub use archive::{ArchiveReader, ArchivedTable};
pub use inventory::{DumpFormat, Inventory, LargeObjects, Sequence, Table};
pub use reader::InventoryReader;
pub use rows::{RowPieces, RowSink, RowSum};

/// What a custom archive begins with.
const MAGIC: &[u8] = b"PGDMP";
/// So many bytes tell what a file is.
const HEAD_BYTES: usize = 8;
/// What people take for a dump, by its first bytes.
const NOT_DUMPS: &[(&[u8], &str, &str)] = &[
    (
        &[0x1f, 0x8b],
        "gzip-compressed",
        "decompress it first: gunzip",
    ),
    (
        &[0x28, 0xb5, 0x2f, 0xfd],
        "zstd-compressed",
        "decompress it first: zstd -d",
    ),
    (b"BZh", "bzip2-compressed", "decompress it first: bunzip2"),
    (
        &[0xfd, b'7', b'z', b'X', b'Z'],
        "xz-compressed",
        "decompress it first: unxz",
    ),
    (b"PK\x03\x04", "a zip file", "unpack it first: unzip"),
    (
        b"age-encr",
        "encrypted with age",
        "decrypt it first: age -d",
    ),
    (b"toc.dat", "a dump in tar format", "dump with -Fc or -Fp"),
    (
        &[0xff, 0xfe],
        "UTF-16 text",
        "PowerShell's `>` spoils dumps: use pg_dump -f FILE",
    ),
];

/// Takes in a dump piece by piece; a custom archive or SQL, told apart by its first bytes.
pub struct DumpParser {
    state: State,
    ledger: Ledger,
    bytes: u64,
}

enum State {
    Start(Vec<u8>),
    Custom(Box<Archive>),
    Plain(Box<Script>),
    /// An error was returned: there is no way on.
    Failed,
}

impl DumpParser {
    /// A parser at the beginning of a dump.
    pub fn new() -> Self {
        DumpParser {
            state: State::Start(Vec::new()),
            ledger: Ledger::default(),
            bytes: 0,
        }
    }

    /// Also passes on the rows of a table, named without quotes; may be said of several tables.
    /// [`DumpParser::finish`] fails if the dump has no data of one of them. Rows are passed on as they come: a dump may turn out to
    /// be incomplete after all of them.
    #[must_use]
    pub fn extract(mut self, schema: &str, table: &str, sink: Box<dyn RowSink>) -> Self {
        self.ledger.wanted.push(Wanted {
            schema: schema.to_owned(),
            name: table.to_owned(),
            sink,
            found: false,
        });
        self
    }

    /// Takes in the dump's next bytes, cut anywhere. An error means that the dump is damaged, of
    /// no known kind, or that a [`RowSink`] failed; every later call fails too.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let pushed = self.take(bytes);
        self.bytes += bytes.len() as u64;
        pushed.map_err(|error| {
            self.state = State::Failed;
            error.context(format!("cannot read the dump near byte {}", self.bytes))
        })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.state {
            State::Custom(archive) => archive.push(&mut self.ledger, bytes),
            State::Failed => Err(Failure::new("the dump was already found to be damaged")),
            State::Plain(script) => script.push(&mut self.ledger, bytes),
            State::Start(head) => {
                let (first, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - head.len()));
                head.extend_from_slice(first);
                if head.len() < HEAD_BYTES {
                    return Ok(());
                }
                let head = std::mem::take(head);
                self.begin(&head)?;
                self.take(rest)
            }
        }
    }

    fn begin(&mut self, head: &[u8]) -> Result<()> {
        if let Some(rest) = head.strip_prefix(MAGIC) {
            self.state = State::Custom(Box::new(Archive::new()));
            return self.take(rest);
        }
        for (begins, what, hint) in NOT_DUMPS {
            if head.starts_with(begins) {
                return Err(
                    Failure::new(format!("this is {what}, not a plain or custom dump")).hint(*hint),
                );
            }
        }
        self.state = State::Plain(Box::new(Script::new()));
        // Editors on Windows put a byte order mark before UTF-8.
        self.take(head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head))
    }

    /// The inventory, if the dump is complete.
    pub fn finish(self) -> Result<Inventory> {
        self.complete()?;
        match self.state {
            State::Custom(_) => self.ledger.finish(DumpFormat::Custom),
            _ => self.ledger.finish(DumpFormat::Plain),
        }
    }

    /// An error unless the dump could end here.
    fn complete(&self) -> Result<()> {
        match &self.state {
            State::Start(head) if head.is_empty() => Err(Failure::new("the dump is empty")
                .hint("pg_dump wrote nothing: its messages say why")),
            State::Start(_) => Err(Failure::new(
                "the dump is incomplete: it ends after a few bytes",
            )),
            State::Failed => Err(Failure::new("the dump was already found to be damaged")),
            State::Custom(archive) => archive.finish(),
            State::Plain(script) => script.finish(&self.ledger),
        }
    }
}

impl Default for DumpParser {
    fn default() -> Self {
        DumpParser::new()
    }
}
