//! The dump read once, its rows into all chosen tables.
//!
//! The dump is read, and taken apart, on a thread of its own; this one, which has the session, runs
//! one `COPY` after another as the tables come. Memory: [`WAITING`] + 2 pieces of [`PIECE_BYTES`].

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rg_common::dump::{DumpParser, InventoryReader, RowSink, Table};
use rg_common::failure::{Failure, Result};
use rg_common::postgres::Session;
use rg_common::postgres::copy::CopyIn;
use rg_common::postgres::create::literal;

use super::around::LiveTable;
use super::{BESIDE, Pair, WORK_LIMIT};

/// The dump is read, and rows are passed on, in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// So many pieces of rows wait for the server.
const WAITING: usize = 4;

/// What reading fails with when the server does not take the rows; the server says why.
const GIVEN_UP: &str = "the server takes no more rows";

/// Rows of the table at this place.
type Piece = (usize, Vec<u8>);

/// Empties the tables and loads their rows; how many of each the server took.
pub(super) fn fill(
    session: &Session,
    pairs: &[Pair<'_>],
    encoding: Option<&str>,
    open_dump: &dyn Fn() -> Result<Box<dyn Read + Send>>,
) -> Result<Vec<u64>> {
    for (_, live) in pairs {
        session.execute_within(WORK_LIMIT, &format!("TRUNCATE ONLY {}", live.quoted))?;
    }
    // As the app loads: a check or a generated column may call functions that name no schema.
    session.execute("SET LOCAL search_path TO DEFAULT")?;
    let dump = open_dump()?;
    let (filled, full) = sync_channel(WAITING);
    let (loaded, read) = std::thread::scope(|threads| {
        let reading = threads.spawn(|| read(dump, pairs, filled));
        // When it fails nobody takes pieces any more, which ends the reading too.
        let loaded = pour(session, pairs, encoding, full);
        let read = reading.join();
        (loaded, read)
    });
    let read = read.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match read {
        // A dump that breaks cuts a row, of which the server then complains.
        Err(failure) if !failure.to_string().contains(GIVEN_UP) => Err(failure),
        read => {
            let taken = loaded?;
            read?;
            session.execute("SET LOCAL search_path TO ''")?;
            Ok(taken)
        }
    }
}

/// Compares a table's rows with what the backup recorded.
pub(super) fn compare(
    session: &Session,
    table: &Table,
    live: &LiveTable,
    encoding: Option<&str>,
    taken: u64,
) -> Result<()> {
    let sum = session.copy_sum(&copy(table, live, "TO STDOUT", encoding))?;
    if taken == table.rows && sum.rows() == table.rows && sum.checksum() == table.checksum {
        return Ok(());
    }
    Err(Failure::new(format!(
        "its rows came out different from the backup's: {} instead of {}, checksum {} instead of {}",
        sum.rows(),
        table.rows,
        sum.checksum(),
        table.checksum
    ))
    .hint("the live columns have other types than when the backup was made?")
    .hint(BESIDE))
}

fn copy(table: &Table, live: &LiveTable, way: &str, encoding: Option<&str>) -> String {
    let columns = match table.columns.as_str() {
        "" => String::new(),
        columns => format!(" ({columns})"),
    };
    let options = match encoding {
        Some(encoding) => format!(" WITH (ENCODING {})", literal(encoding)),
        None => String::new(),
    };
    format!("COPY {}{columns} {way}{options}", live.quoted)
}

/// Runs a `COPY` for each run of pieces of one table. The rows of none count before all have come.
fn pour(
    session: &Session,
    pairs: &[Pair<'_>],
    encoding: Option<&str>,
    pieces: Receiver<Piece>,
) -> Result<Vec<u64>> {
    let mut taken = vec![0; pairs.len()];
    let mut open: Option<(usize, CopyIn)> = None;
    let shown = |index: usize| format!("table {}", pairs[index].1.shown);
    let mut finish = |(index, copy): (usize, CopyIn)| -> Result<()> {
        taken[index] += copy.finish().map_err(|f| f.context(shown(index)))?;
        Ok(())
    };
    for (index, text) in pieces {
        let (_, copying) = match open.take() {
            Some(same) if same.0 == index => open.insert(same),
            other => {
                other.map_or(Ok(()), &mut finish)?;
                let (table, live) = pairs[index];
                let begun = session.copy_in(&copy(table, live, "FROM STDIN", encoding));
                open.insert((index, begun.map_err(|f| f.context(shown(index)))?))
            }
        };
        copying
            .piece(text.into())
            .map_err(|f| f.context(shown(index)))?;
    }
    open.map_or(Ok(()), finish)?;
    Ok(taken)
}

/// Reads the dump to its end and passes the tables' rows on.
fn read(dump: Box<dyn Read + Send>, pairs: &[Pair<'_>], filled: SyncSender<Piece>) -> Result<()> {
    let collected = Arc::new(Mutex::new(Collected {
        piece: (0, Vec::with_capacity(PIECE_BYTES)),
        filled,
    }));
    let mut parser = DumpParser::new();
    for (index, (table, _)) in pairs.iter().enumerate() {
        let sink = Rows(index, Arc::clone(&collected));
        parser = parser.extract(&table.schema, &table.name, Box::new(sink));
    }
    let mut reader = InventoryReader::with_parser(dump, parser);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let names: Vec<&str> = pairs.iter().map(|(_, live)| live.shown.as_str()).collect();
                let failure = Failure::from_io("cannot read the backup's dump", error);
                return Err(failure.context(format!("table {}", names.join(", "))));
            }
        }
    }
    let (_, found) = reader.finish()?;
    for (table, live) in pairs {
        if !found.tables.iter().any(|one| one == *table) {
            let other = Failure::new("the dump holds other rows of it than its manifest says");
            return Err(other
                .hint("`rg-backup verify` tells whether the backup is damaged; take another one")
                .context(format!("table {}", live.shown)));
        }
    }
    let mut last = collected.lock().unwrap_or_else(PoisonError::into_inner);
    last.pass_on()
        .map_err(|error| Failure::from_io("cannot pass on the last rows", error))
}

/// Rows of one table on their way.
struct Collected {
    piece: Piece,
    filled: SyncSender<Piece>,
}

impl Collected {
    fn pass_on(&mut self) -> io::Result<()> {
        if self.piece.1.is_empty() {
            return Ok(());
        }
        let text = std::mem::replace(&mut self.piece.1, Vec::with_capacity(PIECE_BYTES));
        let sent = self.filled.send((self.piece.0, text));
        sent.map_err(|_| io::Error::other(GIVEN_UP))
    }
}

/// Where the rows of the table at this place go; the parser owns it.
struct Rows(usize, Arc<Mutex<Collected>>);

impl RowSink for Rows {
    fn rows(&mut self, text: &[u8]) -> io::Result<()> {
        let mut collected = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if collected.piece.0 != self.0 || collected.piece.1.len() + text.len() > PIECE_BYTES {
            collected.pass_on()?;
            collected.piece.0 = self.0;
        }
        collected.piece.1.extend_from_slice(text);
        Ok(())
    }
}
