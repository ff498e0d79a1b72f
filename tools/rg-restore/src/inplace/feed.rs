//! The dump on its way into `psql`: as it is, or through `pg_restore`.
//!
//! The promise: the marker that lets the restore go on is written only when the dump was read to its
//! end, is what its manifest says, and `pg_restore` ended well.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};

use rg_common::dump::{Inventory, InventoryReader};
use rg_common::failure::{Failure, Result};
use rg_common::program::Conversation;

use super::sieve::Sieve;

/// The dump is passed on in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// How the dump becomes SQL.
pub(super) enum Feed {
    /// It is SQL.
    Plain,
    /// `pg_restore --file=-` makes it.
    Custom(Box<Conversation>),
}

/// Why the feeding stopped.
pub(super) enum Broken {
    /// The dump, or `pg_restore`.
    Before(Failure),
    /// `psql` ended; it says why.
    Psql,
}

impl Feed {
    /// Writes the dump's SQL to `stdin`, and the marker after it.
    pub fn run(
        self,
        dump: Box<dyn Read + Send>,
        inventory: &Inventory,
        mut sieve: Sieve,
        stdin: &mut ChildStdin,
        marker: &str,
    ) -> Result<(), Broken> {
        let mut dump = InventoryReader::new(dump);
        match self {
            Feed::Plain => {
                pass(&mut dump, "the backup's dump", &mut sieve, stdin)?;
                same(dump, inventory).map_err(Broken::Before)?;
            }
            Feed::Custom(pg_restore) => {
                through(*pg_restore, dump, inventory, &mut sieve, stdin)?;
            }
        }
        // On a line of its own, whatever the dump's last one was.
        let marked = stdin.write_all(format!("\n\\echo {marker}\n").as_bytes());
        marked.map_err(|_| Broken::Psql)
    }
}

fn through(
    mut pg_restore: Conversation,
    dump: InventoryReader<Box<dyn Read + Send>>,
    inventory: &Inventory,
    sieve: &mut Sieve,
    psql: &mut ChildStdin,
) -> Result<(), Broken> {
    let (Some(into), Some(mut out)) = (pg_restore.stdin.take(), pg_restore.stdout.take()) else {
        return Err(Broken::Before(Failure::new("pg_restore has no pipes")));
    };
    let given_up = AtomicBool::new(false);
    let (read, passed, ended) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut dump = dump;
            fill(&mut dump, into, &given_up)?;
            same(dump, inventory)
        });
        let passed = pass::<ChildStdout>(&mut out, "pg_restore's output", sieve, psql);
        given_up.store(passed.is_err(), Ordering::Relaxed);
        drop(out);
        let ended = match &passed {
            Ok(()) => pg_restore.finish(),
            // Dropped, it is ended.
            Err(_) => {
                drop(pg_restore);
                Ok(())
            }
        };
        given_up.fetch_or(ended.is_err(), Ordering::Relaxed);
        let read = match reader.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (read, passed, ended)
    });
    // What went wrong first: a psql that has ended stops the others, a broken dump stops pg_restore.
    passed?;
    match (read, ended) {
        (Err(failure), Ok(())) => Err(Broken::Before(failure)),
        (Err(failure), Err(_)) if !is_given_up(&failure) => Err(Broken::Before(failure)),
        (_, Err(failure)) => Err(Broken::Before(
            failure.hint("is pg_restore older than the pg_dump that made the backup?"),
        )),
        (Ok(()), Ok(())) => Ok(()),
    }
}

const GIVEN_UP: &str = "the dump was not read to its end";

fn is_given_up(failure: &Failure) -> bool {
    failure.to_string() == GIVEN_UP
}

/// The dump into `pg_restore`, which may have enough before the last bytes; they are read anyway.
fn fill(dump: &mut impl Read, into: ChildStdin, given_up: &AtomicBool) -> Result<()> {
    let mut into = Some(into);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = read(dump, &mut piece, "the backup's dump")?;
        if length == 0 {
            return Ok(());
        }
        if let Some(pipe) = &mut into
            && pipe.write_all(&piece[..length]).is_err()
        {
            into = None;
        }
        if given_up.load(Ordering::Relaxed) {
            return Err(Failure::new(GIVEN_UP));
        }
    }
}

/// SQL into `psql`, less what it must not run.
fn pass<R: Read>(
    sql: &mut R,
    what: &str,
    sieve: &mut Sieve,
    psql: &mut ChildStdin,
) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut out = Vec::with_capacity(2 * PIECE_BYTES);
    loop {
        let length = read(sql, &mut piece, what).map_err(Broken::Before)?;
        out.clear();
        match length {
            0 => sieve.finish(&mut out),
            _ => sieve.push(&piece[..length], &mut out),
        }
        psql.write_all(&out).map_err(|_| Broken::Psql)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn read(from: &mut impl Read, piece: &mut [u8], what: &str) -> Result<usize> {
    loop {
        match from.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => {
                return outcome
                    .map_err(|error| Failure::from_io(format!("cannot read {what}"), error));
            }
        }
    }
}

/// A failure unless the dump that went by is the one that the manifest describes.
fn same<R: Read>(dump: InventoryReader<R>, inventory: &Inventory) -> Result<()> {
    let (_, found) = dump.finish()?;
    if found.tables == inventory.tables
        && found.sequences == inventory.sequences
        && found.large_objects == inventory.large_objects
    {
        return Ok(());
    }
    Err(
        Failure::new("the dump holds other rows than its manifest says")
            .hint("`rg-backup verify` tells whether the backup is damaged; take another one"),
    )
}
