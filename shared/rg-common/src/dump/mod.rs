//! Reads `pg_dump`'s own stream as it goes by, for an inventory of what it holds.
//!
//! The promise: an inventory only of a dump that is complete, with every table's rows counted and
//! summed so that a restore can be compared with it ([`RowSum`]). The parser is pushed, takes
//! pieces of any size, keeps to constant memory and is fast enough to sit in the pipe of every
//! backup. The dump may be anybody's: nothing in it makes the parser panic or reserve memory.

mod block;
mod contents;
mod custom;
mod inventory;
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

pub use inventory::{DumpFormat, Inventory, LargeObjects, Sequence, Table};
pub use reader::InventoryReader;
pub use rows::{RowPieces, RowSink, RowSum};

const MAGIC: &[u8] = b"PGDMP";

/// Takes in a dump piece by piece; a custom archive or SQL, told apart by its first bytes.
pub struct DumpParser {
    state: State,
    ledger: Ledger,
    bytes: u64,
}

enum State {
    Start(Vec<u8>),
    Custom(Box<Archive>),
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

    /// Also passes on the rows of one table, named without quotes. [`DumpParser::finish`] fails if
    /// the dump has no data of that table. Rows are passed on as they come: a dump may turn out to
    /// be incomplete after all of them.
    #[must_use]
    pub fn extract(mut self, schema: &str, table: &str, sink: Box<dyn RowSink>) -> Self {
        self.ledger.wanted = Some(Wanted {
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
            State::Start(head) => {
                head.extend_from_slice(bytes);
                if head.len() < MAGIC.len() {
                    return Ok(());
                }
                let head = std::mem::take(head);
                let Some(rest) = head.strip_prefix(MAGIC) else {
                    return Err(Failure::new("this is not a custom archive of pg_dump"));
                };
                self.state = State::Custom(Box::new(Archive::new()));
                self.take(rest)
            }
        }
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
            State::Custom(archive) => {
                archive.finish()?;
                self.ledger.finish(DumpFormat::Custom)
            }
        }
    }
}

impl Default for DumpParser {
    fn default() -> Self {
        DumpParser::new()
    }
}
