//! age: encryption to public keys, in the binary format of the `age` and `rage` programs.
//!
//! The promise: what is written can be read by each recipient's identity and by nothing on this
//! machine; a stream that was cut or changed is never taken for a whole one (the format
//! authenticates every 64 KiB and marks the last). Identities never appear in a message.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Chain, Cursor, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use age::stream::{StreamReader, StreamWriter};
use age::x25519::{Identity, Recipient};
use age::{DecryptError, Decryptor, Encryptor};

use super::open::blame;
use crate::failure::{Failure, OrFail, Result};

/// The header of an encrypted file is at most this long: about 600 recipients.
const HEADER_BYTES_MAX: u64 = 64 << 10;
/// A file of identities is at most this long.
const IDENTITY_FILE_BYTES_MAX: u64 = 64 << 10;

/// Public keys (`age1…`, X25519) that data is encrypted to; none means that it is not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Reads public keys as `age-keygen` prints them. Fails at the first that is none, naming it;
    /// a key given twice counts once.
    pub fn parse<S: AsRef<str>>(keys: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut recipients = Vec::new();
        for key in keys {
            let recipient = parse_recipient(key.as_ref().trim())?;
            if !recipients.contains(&recipient) {
                recipients.push(recipient);
            }
        }
        Ok(Recipients(recipients))
    }

    /// Whether there is no recipient, that is, no encryption.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_recipient(key: &str) -> Result<Recipient> {
    // Of a secret key in the wrong place not even a part may be shown.
    if key.to_ascii_uppercase().starts_with("AGE-") {
        return Err(Failure::new("a recipient is a secret key (AGE-…), not a public one")
            .hint("put its public key there instead (`age-keygen -y FILE` prints it), and make a new key if others could read this one"));
    }
    key.parse::<Recipient>().map_err(|_| {
        let failure = Failure::new(format!("`{key}` is not an age public key"));
        if key.starts_with("ssh-") || key.starts_with("age1pq1") || key.starts_with("age1tag") {
            failure.hint("only X25519 keys are supported; `age-keygen` makes one")
        } else {
            failure.hint("it looks like `age1` and 58 more letters and digits; `age-keygen -y FILE` prints it again")
        }
    })
}

/// Secret keys that open encrypted backups. Kept off the server; never printed.
#[derive(Clone)]
pub struct Identities(Vec<Identity>);

impl Identities {
    /// Reads a file as `age-keygen -o FILE` writes it: lines of `AGE-SECRET-KEY-1…`, `#` comments.
    /// Fails on a file that is encrypted itself, that holds no key, or that is larger than 64 KiB.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| {
                file.take(IDENTITY_FILE_BYTES_MAX + 1)
                    .read_to_end(&mut text)
            })
            .or_fail(|| format!("cannot read the identity file {}", path.display()))?;
        let what = |problem: &str| format!("the identity file {} {problem}", path.display());
        if text.len() as u64 > IDENTITY_FILE_BYTES_MAX {
            return Err(Failure::new(what("is larger than 64 KiB"))
                .hint("it holds lines of AGE-SECRET-KEY-1…; is it the right file?"));
        }
        if text.starts_with(b"age-encryption.org/") || text.starts_with(b"-----BEGIN AGE") {
            return Err(Failure::new(what("is itself encrypted")).hint(format!(
                "decrypt it into memory first: age -d {0} > /dev/shm/identity, and remove it afterwards",
                path.display()
            )));
        }
        let text = String::from_utf8(text)
            .map_err(|_| Failure::new(what("is not text")).hint("is it the right file?"))?;
        Identities::parse(&text).map_err(|(problem, hint)| Failure::new(what(&problem)).hint(hint))
    }

    /// The problem, as what a file does, and a hint.
    pub(super) fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let mut identities = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Ok(identity) = line.parse() else {
                return Err(if line.starts_with("age1") {
                    (
                        format!("holds a public key in line {number}"),
                        "that one encrypts; the identity is the line that begins with AGE-SECRET-KEY-1",
                    )
                } else {
                    (
                        format!("holds no age secret key in line {number}"),
                        "only X25519 keys are supported: AGE-SECRET-KEY-1 and 58 more letters and digits",
                    )
                });
            };
            identities.push(identity);
        }
        if identities.is_empty() {
            return Err((
                "holds no secret key".to_owned(),
                "it holds lines of AGE-SECRET-KEY-1…; is it the right file?",
            ));
        }
        Ok(Identities(identities))
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The writing side.
pub(super) struct Encrypter {
    /// Taken at the close.
    writer: Option<StreamWriter<Sink>>,
    sink: Sink,
}

impl Encrypter {
    pub(super) fn new(recipients: &Recipients) -> Result<Self> {
        let what = || "cannot start the encryption".to_owned();
        let sink = Sink::default();
        let recipients = recipients.0.iter().map(|key| key as &dyn age::Recipient);
        let writer = Encryptor::with_recipients(recipients)
            .or_fail(what)?
            .wrap_output(sink.clone())
            .or_fail(what)?;
        Ok(Encrypter {
            writer: Some(writer),
            sink,
        })
    }

    /// Takes all of `piece`; appends what is ready. Holds back up to 64 KiB.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(writer) = &mut self.writer {
            writer.write_all(piece)?;
        }
        self.sink.empty_into(out);
        Ok(())
    }

    /// Appends the rest, marked as the last of its stream.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if let Some(writer) = self.writer.take() {
            writer.finish()?;
        }
        self.sink.empty_into(out);
        Ok(())
    }
}

/// Where age's writer, which owns what it writes to, leaves its bytes for us.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn empty_into(&self, out: &mut Vec<u8>) {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() {
            std::mem::swap(out, &mut bytes);
        } else {
            out.append(&mut bytes);
        }
    }
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading side.
pub(super) struct Decrypter<R>(StreamReader<Chain<Cursor<Vec<u8>>, R>>);

impl<R: BufRead> Decrypter<R> {
    pub(super) fn new(mut stored: R, identities: &Identities) -> Result<Self> {
        let header = read_header(&mut stored)?;
        let decryptor =
            Decryptor::new_buffered(Cursor::new(header).chain(stored)).map_err(unreadable)?;
        if decryptor.is_scrypt() {
            return Err(
                Failure::new("encrypted with a passphrase, not to a public key")
                    .hint("decrypt it with `age -d` first"),
            );
        }
        let identities = identities.0.iter().map(|key| key as &dyn age::Identity);
        decryptor
            .decrypt(identities)
            .map(Decrypter)
            .map_err(unreadable)
    }
}

impl<R: Read> Read for Decrypter<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(|error| blame("age", error))
    }
}

/// The header's lines, up to and with the one of its MAC (`--- …`): age's own reader knows no limit.
fn read_header(stored: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut header = Vec::new();
    let mut limited = stored.take(HEADER_BYTES_MAX);
    loop {
        let line = header.len();
        let read = limited.read_until(b'\n', &mut header);
        read.map_err(|error| Failure::from_io("", blame("age", error)))?;
        if line == 0 && !b"age-encryption.org/v1\n".starts_with(&header) {
            let failure = Failure::new("not encrypted with age (version 1, binary)");
            return Err(match header.starts_with(b"-----BEGIN AGE") {
                true => failure.hint("it is in the armored text format; `age -d` reads that"),
                false => failure
                    .hint("the name ends in .age, but the content is damaged or something else"),
            });
        }
        if header[line..].starts_with(b"---") && header.ends_with(b"\n") {
            return Ok(header);
        }
        if header.len() == line || !header.ends_with(b"\n") {
            let cut: io::Error = match limited.limit() {
                0 => io::Error::other("its header has no end"),
                _ => io::ErrorKind::UnexpectedEof.into(),
            };
            return Err(Failure::from_io("", blame("age", cut)));
        }
    }
}

fn unreadable(error: DecryptError) -> Failure {
    match error {
        DecryptError::NoMatchingKeys => {
            Failure::new("none of the given identities can decrypt this")
                .hint("it was encrypted to other public keys; pass the identity of one of these with --identity FILE")
        }
        DecryptError::Io(error) => Failure::from_io("", blame("age", error)),
        other => Failure::from_io("", blame("age", io::Error::other(other))),
    }
}
