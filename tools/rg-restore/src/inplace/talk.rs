//! A conversation with `psql`: what is asked goes in, and the answer comes out between markers.
//!
//! The promise: its output is always being read while it is fed, so neither waits for the other; an
//! answer counts only when its marker has come; memory does not grow with rows or their length.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};

use rg_common::dump::{RowPieces, RowSum};
use rg_common::failure::{Failure, OrFail, Result};
use rg_common::program::{Conversation, Program};

use super::feed::Broken;

/// Output is read in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// An answer that is kept in memory may have this many bytes in a line.
const LINE_BYTES_MAX: usize = 4 << 20;

/// One `psql`, inside a transaction.
pub(super) struct Talk {
    psql: Option<Conversation>,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    marker: String,
}

/// One line of an answer, without its newline.
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// Too long for a piece: its first bytes, and all of it hashed.
    Long(&'a [u8], &'a RowPieces),
}

impl Talk {
    /// Starts `psql`, which runs `statements` first; [`Talk::answer`] reads what they print.
    pub fn begin(psql: Program, statements: impl Fn(&str) -> Vec<String>) -> Result<Talk> {
        let marker = marker()?;
        let mut psql = psql
            .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
            .args(["--no-password", "--set=ON_ERROR_STOP=1"]);
        for statement in statements(&marker) {
            psql = psql.arg(format!("--command={statement}"));
        }
        let psql = psql
            .arg(format!("--command=\\echo {marker}"))
            .arg("--file=-");
        let mut psql = psql.conversation()?;
        let (stdin, stdout) = (psql.stdin.take(), psql.stdout.take());
        let stdout = stdout.ok_or_else(|| Failure::new("psql has no output"))?;
        Ok(Talk {
            psql: Some(psql),
            stdin,
            stdout: BufReader::with_capacity(PIECE_BYTES, stdout),
            marker,
        })
    }

    /// A word that nobody's data holds.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// Runs a statement, which must be whole; its lines are handed over one by one.
    pub fn ask(&mut self, sql: &str, take: impl FnMut(Line<'_>)) -> Result<()> {
        let asked = match &mut self.stdin {
            Some(stdin) => stdin.write_all(format!("{sql};\n\\echo {}\n", self.marker).as_bytes()),
            None => return Err(self.ended()),
        };
        // A psql that has ended says why better than a broken pipe.
        match asked {
            Ok(()) => self.read(take),
            Err(_) => Err(self.ended()),
        }
    }

    /// The one line that has been asked for, as text.
    pub fn one(&mut self, sql: &str) -> Result<String> {
        let mut line = String::new();
        self.ask(sql, |found| line = text(&found))?;
        Ok(line)
    }

    /// All rows of a `COPY … TO STDOUT`.
    pub fn sum(&mut self, sql: &str) -> Result<RowSum> {
        let mut sum = RowSum::new();
        self.ask(sql, |line| match line {
            Line::Whole(row) => sum.add_row(row),
            Line::Long(_, pieces) => sum.add_pieces(pieces),
        })?;
        Ok(sum)
    }

    /// The last line before the next marker.
    pub fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.read(|found| line = text(&found))?;
        Ok(line)
    }

    /// Lets `feed` write on a thread of its own, all but the marker's line, while what comes out is
    /// read and forgotten.
    pub fn pour(
        &mut self,
        feed: impl FnOnce(&mut ChildStdin, &str) -> Result<(), Broken> + Send,
    ) -> Result<(), Broken> {
        let Some(mut stdin) = self.stdin.take() else {
            return Err(Broken::Psql);
        };
        let marker = self.marker.clone();
        let (fed, read, stdin) = std::thread::scope(|scope| {
            let feeder = scope.spawn(move || {
                let fed = feed(&mut stdin, &marker);
                // Without the marker psql must see the end, or both would wait.
                let stdin = fed.is_ok().then_some(stdin);
                (fed, stdin)
            });
            let read = self.lines(|_| {});
            let (fed, stdin) = match feeder.join() {
                Ok(fed) => fed,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            (fed, read, stdin)
        });
        self.stdin = stdin;
        fed?;
        match read {
            Ok(true) => Ok(()),
            _ => Err(Broken::Psql),
        }
    }

    /// Ends it. Without a `COMMIT` before, the server rolls back.
    pub fn finish(&mut self) -> Result<()> {
        self.stdin = None;
        self.psql.take().map_or(Ok(()), Conversation::finish)
    }

    /// Why it ended before it was told to.
    pub fn ended(&mut self) -> Failure {
        match self.finish() {
            Err(failure) => failure,
            Ok(()) => Failure::new("psql ended before it was told to"),
        }
    }

    fn read(&mut self, take: impl FnMut(Line<'_>)) -> Result<()> {
        match self.lines(take) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.ended()),
            Err(failure) => Err(failure),
        }
    }

    /// Hands over every line up to the marker; false if the output ended first.
    fn lines(&mut self, mut take: impl FnMut(Line<'_>)) -> Result<bool> {
        // A line that lies in several pieces: its first bytes, and all of it.
        let mut head: Vec<u8> = Vec::new();
        let mut pieces: Option<RowPieces> = None;
        loop {
            let text = self
                .stdout
                .fill_buf()
                .or_fail(|| "cannot read what psql prints".to_owned())?;
            if text.is_empty() {
                return Ok(false);
            }
            let Some(end) = memchr::memchr(b'\n', text) else {
                pieces.get_or_insert_default().push(text);
                keep(&mut head, text);
                let length = text.len();
                self.stdout.consume(length);
                continue;
            };
            let row = &text[..end];
            let over = match pieces.take() {
                None if row == self.marker.as_bytes() => true,
                None => {
                    take(Line::Whole(row));
                    false
                }
                Some(mut pieces) => {
                    pieces.push(row);
                    keep(&mut head, row);
                    let over = head == self.marker.as_bytes();
                    if !over {
                        take(Line::Long(&head, &pieces));
                    }
                    head.clear();
                    over
                }
            };
            self.stdout.consume(end + 1);
            if over {
                return Ok(true);
            }
        }
    }
}

fn keep(head: &mut Vec<u8>, text: &[u8]) {
    let room = LINE_BYTES_MAX - head.len();
    head.extend_from_slice(&text[..text.len().min(room)]);
}

fn text(line: &Line<'_>) -> String {
    let (Line::Whole(bytes) | Line::Long(bytes, _)) = line;
    String::from_utf8_lossy(bytes).into_owned()
}

/// A line that nobody's data holds.
fn marker() -> Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).or_fail(|| "cannot get random bytes from the system".to_owned())?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("rg-{digits}"))
}
