//! Rows into and out of a session, as `COPY` text, inside whatever transaction it is in.
//!
//! The promise: constant memory in both directions, nothing waits without a limit, and rows that
//! were not ended by [`CopyIn::finish`] never count: the server is told that the `COPY` failed.

use std::future::Future;
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::runtime::Handle;
use tokio_postgres::{CopyInSink, Error};

use super::connect::Session;
use super::trouble;
use super::url::DatabaseUrl;
use crate::dump::{RowPieces, RowSum};
use crate::failure::{Failure, Result};

/// The longest wait for the server to take or give one piece, or to end a `COPY`.
pub const STALL_LIMIT: Duration = Duration::from_secs(600);
/// Rows are sent in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;

impl Session {
    /// Begins a `COPY … FROM STDIN`. Until it is finished or dropped the session is taken.
    pub fn copy_in(&self, sql: &str) -> Result<CopyIn> {
        let handle = self.connector().handle().clone();
        let sink = wait(&handle, self.url(), sql, self.client().copy_in(sql))?;
        Ok(CopyIn {
            handle,
            url: self.url().clone(),
            sql: sql.to_owned(),
            sink: Box::pin(sink),
            piece: BytesMut::with_capacity(PIECE_BYTES),
        })
    }

    /// Runs a `COPY … TO STDOUT` and sums its rows: their text is that of the session's settings.
    pub fn copy_sum(&self, sql: &str) -> Result<RowSum> {
        let handle = self.connector().handle();
        let stream = wait(handle, self.url(), sql, self.client().copy_out(sql))?;
        let mut stream = pin!(stream);
        let mut sum = RowSum::new();
        // Always one row a message, says the protocol; if not, a row in pieces is put together.
        let mut pieces: Option<RowPieces> = None;
        loop {
            let next = async { stream.next().await.transpose() };
            let Some(message) = wait(handle, self.url(), sql, next)? else {
                break;
            };
            let whole = message.strip_suffix(b"\n");
            match (pieces.take(), whole) {
                (None, Some(row)) => sum.add_row(row),
                (started, end) => {
                    let mut row = started.unwrap_or_default();
                    row.push(end.unwrap_or(&message));
                    match end {
                        Some(_) => sum.add_pieces(&row),
                        None => pieces = Some(row),
                    }
                }
            }
        }
        match pieces {
            None => Ok(sum),
            Some(_) => Err(Failure::new(format!(
                "the answer to `{sql}` ended in the middle of a row"
            ))),
        }
    }
}

/// A `COPY … FROM STDIN` under way. Dropped unfinished it fails on the server.
pub struct CopyIn {
    handle: Handle,
    url: DatabaseUrl,
    sql: String,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    piece: BytesMut,
}

impl CopyIn {
    /// Passes on a piece of text as it is, without a copy of it; it goes at once.
    pub fn piece(&mut self, piece: Bytes) -> Result<()> {
        self.send()?;
        wait(&self.handle, &self.url, &self.sql, self.sink.send(piece))
    }

    /// Says that all rows have come; how many the server took.
    pub fn finish(mut self) -> Result<u64> {
        self.send()?;
        let end = self.sink.as_mut().finish();
        wait(&self.handle, &self.url, &self.sql, end)
    }

    fn send(&mut self) -> Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.piece.reserve(PIECE_BYTES);
        wait(&self.handle, &self.url, &self.sql, self.sink.send(piece))
    }
}

impl Write for CopyIn {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = &text[..text.len().min(room)];
        self.piece.extend_from_slice(taken);
        if self.piece.len() == PIECE_BYTES {
            self.send().map_err(Failure::into_io)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send().map_err(Failure::into_io)
    }
}

fn wait<T>(
    handle: &Handle,
    url: &DatabaseUrl,
    sql: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T> {
    let answer = handle.block_on(async { tokio::time::timeout(STALL_LIMIT, answer).await });
    match answer {
        Ok(answer) => answer.map_err(|error| trouble::asking(url, sql, error)),
        Err(_) => Err(trouble::too_late(url, sql, STALL_LIMIT)),
    }
}
