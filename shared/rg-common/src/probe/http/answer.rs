//! An HTTP/1.1 answer off the wire, from somebody who may not speak HTTP at all.
//!
//! Everything is bounded: the head by its bytes and lines, the body by [`BODY_BYTES_MAX`], of
//! which no more is kept than asked for. The time is bounded by whoever calls.

use std::io;

use memchr::{memchr, memmem};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::probe::excerpt;

/// The largest head of an answer, in bytes.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most headers.
const HEADERS_MAX: usize = 100;
/// The most answers of the kind `103 Early Hints` before the real one.
const INTERIM_MAX: usize = 20;
/// The most that is read of a body; a longer one is left there.
pub const BODY_BYTES_MAX: u64 = 1 << 20;
/// The longest line that gives a chunk's size.
const CHUNK_LINE_MAX: usize = 1024;
/// What is read at once.
const PIECE: usize = 4 * 1024;

/// How an answer is not one.
#[derive(Debug)]
pub(super) enum Bad {
    /// The connection broke.
    Io(io::Error),
    /// It ended too early.
    Closed(String),
    /// It is not HTTP.
    Garbage(String),
}

/// Status and headers.
#[derive(Debug)]
pub(super) struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let same = move |(one, _): &&(String, String)| one.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(same)
            .map(|(_, value)| value.trim())
    }
}

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Its first bytes.
    pub kept: Vec<u8>,
    /// How many came.
    pub received: u64,
    /// Whether there would have been more than [`BODY_BYTES_MAX`].
    pub cut: bool,
}

/// Where reading a body stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// At its end, or cut.
    Done,
    /// At the most that may be kept for now.
    Full,
}

/// How the body's end is known.
#[derive(Debug)]
enum Framing {
    Length { left: u64, of: u64 },
    Chunked(Chunk),
    ToTheEnd,
    Over,
}

#[derive(Debug)]
enum Chunk {
    Size,
    Data(u64),
    AfterData,
}

/// An answer in the making.
pub(super) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
    at: usize,
    framing: Framing,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S) -> Reader<S> {
        Reader {
            stream,
            buffer: Vec::new(),
            at: 0,
            framing: Framing::ToTheEnd,
        }
    }

    /// Waits for the first byte.
    pub async fn first_byte(&mut self) -> Result<(), Bad> {
        if !self.more().await? {
            let what = "it closed the connection without an answer";
            return Err(Bad::Closed(what.to_owned()));
        }
        Ok(())
    }

    /// The head of the real answer.
    pub async fn head(&mut self) -> Result<Head, Bad> {
        for _ in 0..INTERIM_MAX {
            let head = self.one_head().await?;
            if !(100..200).contains(&head.status) {
                self.framing = framing(&head)?;
                return Ok(head);
            }
        }
        Err(garbage("it sends one interim answer after the other"))
    }

    async fn one_head(&mut self) -> Result<Head, Bad> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.at..];
            let begin = unread.len().min(5);
            if unread[..begin] != b"HTTP/"[..begin] {
                return Err(garbage(&format!(
                    "it does not answer in HTTP/1.1 but with `{}`",
                    excerpt::bytes(unread)
                )));
            }
            // The end of the head can begin up to two bytes before what is new.
            let from = looked.max(2) - 2;
            if let Some(end) = head_end(&unread[from..]) {
                let head = parse_head(&unread[..from + end])?;
                self.at += from + end;
                return Ok(head);
            }
            looked = unread.len();
            if looked > HEAD_BYTES_MAX {
                let limit = crate::report::bytes(HEAD_BYTES_MAX as u64);
                return Err(garbage(&format!("its headers are longer than {limit}")));
            }
            if !self.more().await? {
                return Err(Bad::Closed(
                    "it closed the connection within its headers".to_owned(),
                ));
            }
        }
    }

    /// Reads on until the body's end, or until `keep` bytes are kept and `pause` is asked for.
    pub async fn body(&mut self, body: &mut Body, keep: usize, pause: bool) -> Result<Step, Bad> {
        loop {
            if body.cut {
                return Ok(Step::Done);
            }
            if pause && body.kept.len() >= keep {
                return Ok(Step::Full);
            }
            match &mut self.framing {
                Framing::Over | Framing::Length { left: 0, .. } => return Ok(Step::Done),
                Framing::Length { left, of } => {
                    let (left, of) = (*left, *of);
                    if self.is_empty() && !self.more_or_end().await? {
                        return Err(Bad::Closed(format!(
                            "it closed the connection after {} of its {of} bytes",
                            of - left
                        )));
                    }
                    let taken = self.take(left, body, keep);
                    self.framing = Framing::Length {
                        left: left - taken,
                        of,
                    };
                }
                Framing::ToTheEnd => {
                    if self.is_empty() && !self.more_or_end().await? {
                        self.framing = Framing::Over;
                    }
                    self.take(u64::MAX, body, keep);
                }
                Framing::Chunked(Chunk::Data(left)) => {
                    let left = *left;
                    if self.is_empty() {
                        self.more_of_chunks().await?;
                    }
                    let left = left - self.take(left, body, keep);
                    self.framing = Framing::Chunked(match left {
                        0 => Chunk::AfterData,
                        left => Chunk::Data(left),
                    });
                }
                Framing::Chunked(Chunk::AfterData) => {
                    let line = self.line().await?;
                    if !line.is_empty() {
                        return Err(garbage("its chunks have not the size they say"));
                    }
                    self.framing = Framing::Chunked(Chunk::Size);
                }
                Framing::Chunked(Chunk::Size) => {
                    let line = self.line().await?;
                    self.framing = match chunk_size(&line)? {
                        // Trailers are not looked at: the connection ends here.
                        0 => Framing::Over,
                        size => Framing::Chunked(Chunk::Data(size)),
                    };
                }
            }
        }
    }

    /// Moves what is there, up to `most`, into the body. Returns how much that was.
    fn take(&mut self, most: u64, body: &mut Body, keep: usize) -> u64 {
        let unread = &self.buffer[self.at..];
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .min(unread.len());
        let room = usize::try_from(BODY_BYTES_MAX - body.received).unwrap_or(0);
        let taken = &unread[..most.min(room)];
        let kept = taken.len().min(keep.saturating_sub(body.kept.len()));
        body.kept.extend_from_slice(&taken[..kept]);
        body.received += taken.len() as u64;
        body.cut = most > room;
        self.at += taken.len();
        taken.len() as u64
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<Vec<u8>, Bad> {
        loop {
            let unread = &self.buffer[self.at..];
            if let Some(end) = memchr(b'\n', unread) {
                let line = unread[..end].strip_suffix(b"\r").unwrap_or(&unread[..end]);
                let line = line.to_vec();
                self.at += end + 1;
                return Ok(line);
            }
            if unread.len() > CHUNK_LINE_MAX {
                return Err(garbage("its chunks have no sizes"));
            }
            self.more_of_chunks().await?;
        }
    }

    fn is_empty(&self) -> bool {
        self.at == self.buffer.len()
    }

    async fn more_of_chunks(&mut self) -> Result<(), Bad> {
        if self.more_or_end().await? {
            return Ok(());
        }
        let what = "it closed the connection before its last chunk";
        Err(Bad::Closed(what.to_owned()))
    }

    /// Like `more`; a TLS connection that ends without its goodbye has ended all the same: whether
    /// all of the body came is known from its framing.
    async fn more_or_end(&mut self) -> Result<bool, Bad> {
        match self.more().await {
            Err(Bad::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            other => other,
        }
    }

    /// Reads a piece; false at the end.
    async fn more(&mut self) -> Result<bool, Bad> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve(PIECE);
        let came = self.stream.read_buf(&mut self.buffer).await;
        Ok(came.map_err(Bad::Io)? > 0)
    }
}

fn garbage(what: &str) -> Bad {
    Bad::Garbage(what.to_owned())
}

/// Behind the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let strict = memmem::find(bytes, b"\n\r\n").map(|at| at + 3);
    let loose = memmem::find(bytes, b"\n\n").map(|at| at + 2);
    match (strict, loose) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Bad> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(garbage("its headers do not end")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(garbage(&format!(
                "it sends more than {HEADERS_MAX} headers"
            )));
        }
        Err(error) => return Err(garbage(&format!("its headers are not HTTP: {error}"))),
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Head {
        status: answer.code.unwrap_or(0),
        headers: answer
            .headers
            .iter()
            .map(|one| (one.name.to_owned(), text(one.value)))
            .collect(),
    })
}

/// RFC 9112, 6.3, for an answer to GET.
fn framing(head: &Head) -> Result<Framing, Bad> {
    if matches!(head.status, 204 | 304) {
        return Ok(Framing::Over);
    }
    let codings: Vec<&str> = head.all("transfer-encoding").collect();
    match codings.as_slice() {
        [] => {}
        [one] if one.eq_ignore_ascii_case("chunked") => return Ok(Framing::Chunked(Chunk::Size)),
        other => {
            let coding = excerpt::text(&other.join(", "));
            return Err(garbage(&format!(
                "its body comes in the coding `{coding}`, which was not asked for"
            )));
        }
    }
    let mut lengths = head.all("content-length").flat_map(|one| one.split(','));
    let Some(first) = lengths.next() else {
        return Ok(Framing::ToTheEnd);
    };
    let first = first.trim();
    let number = first.bytes().all(|byte| byte.is_ascii_digit());
    match first.parse() {
        Ok(of) if number && lengths.all(|one| one.trim() == first) => {
            Ok(Framing::Length { left: of, of })
        }
        _ => Err(garbage("its Content-Length is not a number")),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, Bad> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| u64::from_str_radix(text, 16).ok());
    size.filter(|_| hex)
        .ok_or_else(|| garbage("its chunks have no sizes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Status, kept body, whether cut; or the words.
    async fn read(wire: &[u8], step: usize) -> Result<(u16, Vec<u8>, bool), String> {
        let (here, mut there) = tokio::io::duplex(step);
        let wire = wire.to_vec();
        let writer = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            drop(there.write_all(&wire).await);
        });
        let mut reader = Reader::new(here);
        let mut body = Body::default();
        let outcome = async {
            reader.first_byte().await?;
            let head = reader.head().await?;
            let step = reader.body(&mut body, 1 << 20, false).await?;
            assert_eq!(step, Step::Done);
            Ok(head.status)
        }
        .await;
        drop(reader);
        writer.await.unwrap();
        match outcome {
            Ok(status) => Ok((status, body.kept, body.cut)),
            Err(Bad::Io(error)) => Err(error.to_string()),
            Err(Bad::Closed(what) | Bad::Garbage(what)) => Err(what),
        }
    }

    #[tokio::test]
    async fn a_body_ends_where_its_framing_says() {
        for step in [1, 7, 4096] {
            for (wire, status, body) in [
                (
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokMORE",
                    200,
                    "ok",
                ),
                (
                    "HTTP/1.0 404 Not\r\n\r\nuntil the end",
                    404,
                    "until the end",
                ),
                ("HTTP/1.1 204 No\r\n\r\n", 204, ""),
                ("HTTP/1.1 200\nContent-Length: 2, 2\n\nok", 200, "ok"),
                (
                    "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                     2;ext=1\r\nok\r\n00c\r\n and no more\r\n0\r\nTrailer: x\r\n\r\n",
                    200,
                    "ok and no more",
                ),
            ] {
                let read = read(wire.as_bytes(), step).await;
                assert_eq!(
                    read,
                    Ok((status, body.as_bytes().to_vec(), false)),
                    "{wire}"
                );
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_an_answer_is_said_in_words() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(100_000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
        let hints = "HTTP/1.1 100 Continue\r\n\r\n".repeat(50);
        let no_size = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "1".repeat(5000)
        );
        for (wire, words) in [
            ("", "it closed the connection without an answer"),
            (
                "SSH-2.0-OpenSSH_9.2\r\n",
                "it does not answer in HTTP/1.1 but with `SSH-2.0-OpenSSH_9.2`",
            ),
            (
                "HTTP/1.1 200 OK\r\nA: b",
                "it closed the connection within its headers",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
                "it closed the connection after 2 of its 9 bytes",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
                "it closed the connection before its last chunk",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok",
                "its chunks have no sizes",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                "its chunks have no sizes",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n",
                "its chunks have not the size they say",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                "its body comes in the coding `gzip, chunked`, which was not asked for",
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
                "its Content-Length is not a number",
            ),
            (
                "HTTP/1.1 9999 x\r\n\r\n",
                "its headers are not HTTP: invalid response status",
            ),
            (&long, "its headers are longer than 32.0 KiB"),
            (&many, "it sends more than 100 headers"),
            (&hints, "it sends one interim answer after the other"),
            (&no_size, "its chunks have no sizes"),
        ] {
            let read = read(wire.as_bytes(), 4096).await;
            assert_eq!(read.unwrap_err(), words);
        }
    }

    #[tokio::test]
    async fn a_body_is_cut_at_its_limit_and_not_before() {
        let limit = BODY_BYTES_MAX as usize;
        for (length, cut) in [(limit, false), (limit + 1, true), (4 * limit, true)] {
            let mut wire = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            wire.resize(wire.len() + length, b'x');
            let (_, kept, was_cut) = read(&wire, 64 * 1024).await.unwrap();
            assert_eq!((kept.len(), was_cut), (limit, cut));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_said_not_to_be_one(tail: Vec<u8>, begin in 0usize..4, step in 1usize..64) {
            let begin: &[u8] = [
                &b""[..],
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            ][begin];
            let wire = [begin, &tail].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let whole = runtime.block_on(read(&wire, 4096));
            let pieces = runtime.block_on(read(&wire, step));
            // What HTTP it is not depends on how much of it was seen.
            prop_assert_eq!(whole.is_ok(), pieces.is_ok());
        }
    }
}
