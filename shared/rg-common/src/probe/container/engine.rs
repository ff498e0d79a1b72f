//! HTTP/1.1 on a Unix socket, as much of it as a container engine needs: one GET a connection,
//! answers bounded in time and bytes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// An answer is refused above this size: a container is listed in about 2 KiB.
const ANSWER_BYTES: usize = 8 << 20;
/// What an engine says in an error is quoted up to so many characters.
const QUOTED: usize = 200;

/// What came of a question.
pub(super) enum Answer {
    /// Its answer.
    Body(Vec<u8>),
    /// Nothing listens; why.
    Nobody(String),
}

/// Questions that must all be answered by a time.
pub(super) struct Asking {
    socket: PathBuf,
    until: Instant,
}

impl Asking {
    pub(super) fn new(socket: &Path, until: Instant) -> Asking {
        Asking {
            socket: socket.to_owned(),
            until,
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        let mut stream = match self.connect() {
            Ok(stream) => stream,
            Err(error) => return self.not_connected(error),
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: rg\r\nConnection: close\r\n\r\n");
        let answer = self
            .limit(&stream)
            .and_then(|()| stream.write_all(request.as_bytes()))
            .and_then(|()| self.read(&mut stream));
        let answer = answer.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Failure::new(format!("no answer to {path} in time"))
                    .hint("the engine hangs: systemctl restart docker")
            }
            _ => Failure::because(format!("no answer to {path}"), error),
        })?;
        let (status, body) = split(&answer)
            .ok_or_else(|| Failure::new(format!("the answer to {path} is not HTTP")))?;
        if status != 200 {
            let said = String::from_utf8_lossy(&body);
            let said: String = said.chars().take(QUOTED).collect();
            return Err(Failure::new(format!(
                "{path} was answered with status {status}: {}",
                said.trim()
            )));
        }
        Ok(Answer::Body(body))
    }

    /// Connecting to a Unix socket waits only where the engine takes no more.
    fn connect(&self) -> io::Result<UnixStream> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(&self.socket)?)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    fn not_connected(&self, error: io::Error) -> Result<Answer> {
        let shown = self.socket.display();
        match error.kind() {
            io::ErrorKind::NotFound => Ok(Answer::Nobody(format!("there is no {shown}"))),
            io::ErrorKind::ConnectionRefused => {
                Ok(Answer::Nobody(format!("nothing listens at {shown}")))
            }
            io::ErrorKind::PermissionDenied => Err(Failure::because("it may not be asked", error)
                .hint("run as root, or let this user ask: usermod -aG docker USER (which is as good as root)")),
            _ => Err(Failure::because("it cannot be reached", error)),
        }
    }

    fn limit(&self, stream: &UnixStream) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = left.max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        stream.set_write_timeout(Some(left))
    }

    /// To the end of the connection, or of the answer where its length is told.
    fn read(&self, stream: &mut UnixStream) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        let mut buffer = [0u8; 16 << 10];
        loop {
            self.limit(stream)?;
            let read = stream.read(&mut buffer)?;
            answer.extend_from_slice(&buffer[..read]);
            if answer.len() > ANSWER_BYTES {
                return Err(io::Error::other(format!(
                    "it is longer than {ANSWER_BYTES} bytes"
                )));
            }
            if read == 0 || is_whole(&answer) {
                return Ok(answer);
            }
        }
    }
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    body: usize,
}

fn head(answer: &[u8]) -> Option<Head> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let mut head = Head {
        status: words.next()?.parse().ok()?,
        length: None,
        chunked: false,
        body: end + 4,
    };
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case("chunked");
        }
    }
    Some(head)
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = head(answer) else {
        return false;
    };
    let body = &answer[head.body..];
    match (head.chunked, head.length) {
        (true, _) => body.ends_with(b"0\r\n\r\n") && dechunk(body).is_some(),
        (false, Some(length)) => body.len() >= length,
        (false, None) => false,
    }
}

/// Status and body; none for what is not HTTP, or was cut off.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let head = head(answer)?;
    let body = &answer[head.body..];
    let body = match (head.chunked, head.length) {
        (true, _) => dechunk(body)?,
        (false, Some(length)) => body.get(..length)?.to_vec(),
        (false, None) => body.to_vec(),
    };
    Some((head.status, body))
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

/// A log without docker's frames (eight bytes before each piece: the stream, three zeros, its
/// length); a container with a terminal has none.
pub(super) fn without_frames(log: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = log;
    while let Some((frame, more)) = rest.split_first_chunk::<8>() {
        let [stream, 0, 0, 0, length @ ..] = *frame else {
            return log.to_vec();
        };
        if stream > 2 {
            return log.to_vec();
        }
        let length = (u32::from_be_bytes(length) as usize).min(more.len());
        out.extend_from_slice(&more[..length]);
        rest = &more[length..];
    }
    out
}
