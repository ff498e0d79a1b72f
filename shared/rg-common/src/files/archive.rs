//! A tree as a POSIX pax archive, produced while it is read.
//!
//! The promise: the end of the stream comes only after everything in the tree was read; whatever
//! could not be read is an error, again and again, never an early end. A file that changes
//! meanwhile keeps the size that its header declared: cut, or filled up with zeros, and counted.
//! The same tree gives the same bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sha256::Sha256;
use rustix::fs::{SeekFrom, Stat, fstat, seek};
use rustix::io::Errno;

use super::entry::{Entry, Kind, escape};
use super::header::{self, BLOCK, SparseMap};
use super::inventory::FilesInventory;
use super::walk::{Found, Opened, Walk, differs};
use super::{ArchiveOptions, ZEROS};
use crate::failure::{Failure, OrFail, Result};

/// Files up to this size are read before their header goes out, and once more if they changed.
const SMALL_FILE_BYTES: u64 = 128 << 10;
/// A piece of the archive has at least so many bytes, unless it is the last one, and at most as
/// many more as a small file and its header.
const PIECE_BYTES: usize = 256 << 10;
/// Stretches of data between holes; further ones are stored with the holes between them.
const SEGMENTS_MAX: usize = 10_000;

/// Begins the archive of a directory; a root that is missing or is no directory is an error here.
/// `sink` gets every entry when its data has gone out, directories before their content; an error
/// of the sink ends the archive.
pub fn archive<'a>(
    root: &Path,
    options: ArchiveOptions,
    sink: impl FnMut(&Entry) -> io::Result<()> + Send + 'a,
) -> Result<Archive<'a>> {
    let (walk, root) = Walk::start(root, options)?;
    Ok(Archive {
        walk,
        first: Some(root),
        sink: Box::new(sink),
        ready: Vec::new(),
        header: Vec::new(),
        body: None,
        piece: Vec::new(),
        taken: 0,
        state: State::Walking,
    })
}

/// The archive as a stream: of pieces ([`Archive::next_piece`], without a copy) or of bytes
/// ([`Read`]). An error carries a [`Failure`], and comes again if it is asked again.
pub struct Archive<'a> {
    walk: Walk,
    first: Option<Found>,
    sink: Sink<'a>,
    /// The next piece: what files hold is read to where it goes out from.
    ready: Vec<u8>,
    /// Where a header is put together: the format's padding counts from its beginning.
    header: Vec<u8>,
    body: Option<Body>,
    state: State,
    /// For [`Read`]: a piece of which `taken` bytes are gone.
    piece: Vec<u8>,
    taken: usize,
}

/// Takes entries as they are finished.
type Sink<'a> = Box<dyn FnMut(&Entry) -> io::Result<()> + Send + 'a>;

enum State {
    Walking,
    Closing,
    Ended,
    Failed(String),
}

/// A file too large to be read at once.
struct Body {
    file: File,
    stat: Stat,
    entry: Entry,
    /// What is still to be sent: offset and length of each stretch of data, the last one first.
    segments: Vec<(u64, u64)>,
    /// Everything before this offset has been hashed.
    hashed: u64,
    stored: u64,
    hash: Sha256,
    short: bool,
}

impl Archive<'_> {
    /// The inventory of what went out. An error unless the stream was read to its end.
    pub fn finish(self) -> Result<FilesInventory> {
        match self.state {
            State::Ended if self.taken == self.piece.len() => Ok(self.walk.tally.finish()),
            State::Failed(what) => Err(Failure::new(what)),
            _ => Err(Failure::new("the archive was not read to its end")),
        }
    }

    /// Called with each path right before it is opened.
    #[cfg(test)]
    pub(super) fn observe(&mut self, observer: super::walk::Observer) {
        self.walk.observer = Some(observer);
    }

    /// Puts the archive's next bytes in the place of what `piece` holds; none are its end.
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        if let State::Failed(what) = &self.state {
            return Err(Failure::new(what.clone()).into_io());
        }
        self.fill().map_err(|failure| {
            self.state = State::Failed(failure.to_string());
            failure.into_io()
        })?;
        std::mem::swap(piece, &mut self.ready);
        self.ready.clear();
        Ok(())
    }

    fn fill(&mut self) -> Result<()> {
        while self.ready.len() < PIECE_BYTES {
            match self.state {
                State::Walking if self.body.is_some() => self.stream()?,
                State::Walking => self.advance()?,
                State::Closing => {
                    self.pad(2 * BLOCK);
                    self.state = State::Ended;
                }
                State::Ended | State::Failed(_) => break,
            }
        }
        Ok(())
    }

    fn pad(&mut self, zeros: usize) {
        self.ready.resize(self.ready.len() + zeros, 0);
    }

    fn write_header(&mut self, entry: &Entry, map: Option<&SparseMap>) {
        self.header.clear();
        header::write(&mut self.header, entry, map);
        self.ready.extend_from_slice(&self.header);
    }

    /// The next name: into `ready`, or as a body.
    fn advance(&mut self) -> Result<()> {
        let next = match self.first.take() {
            Some(root) => Some(root),
            None => self.walk.next()?,
        };
        let Some(Found { entry, file }) = next else {
            self.state = State::Closing;
            return Ok(());
        };
        match file {
            None => {
                self.write_header(&entry, None);
                self.done(&entry)
            }
            Some(opened) if entry.size <= SMALL_FILE_BYTES => self.small(entry, opened),
            Some(opened) => self.large(entry, opened),
        }
    }

    /// Reads a small file whole, once more if it changed meanwhile.
    fn small(&mut self, mut entry: Entry, opened: Opened) -> Result<()> {
        let Opened { file, mut stat } = opened;
        let start = self.ready.len();
        let mut second = false;
        let (data, changed) = loop {
            self.ready.truncate(start);
            self.write_header(&entry, None);
            let data = self.ready.len();
            self.pad(entry.size as usize);
            let read = read_at_most(&file, &mut self.ready[data..], 0);
            let (read, now) = self.checked(&entry, &file, read)?;
            let changed = differs(&stat, &now) || data + read < self.ready.len();
            let size = u64::try_from(now.st_size).unwrap_or(0);
            if !changed || second || size > SMALL_FILE_BYTES {
                self.ready[data + read..].fill(0);
                break (data, changed);
            }
            second = true;
            entry.size = size;
            entry.mtime = super::walk::mtime(&now);
            stat = now;
        };
        entry.sha256 = Some(Sha256::digest(&self.ready[data..]));
        self.pad(padding(entry.size));
        self.file_done(&entry, &stat, changed)
    }

    fn large(&mut self, mut entry: Entry, opened: Opened) -> Result<()> {
        let Opened { file, stat } = opened;
        let what = || format!("cannot find the holes of {}", self.walk.show(&entry.path));
        let holes = holes(&file, &stat).map_err(io::Error::from).or_fail(what)?;
        let map = holes.as_deref().map(SparseMap::new);
        entry.sparse = map.is_some();
        self.write_header(&entry, map.as_ref());
        let mut segments = holes.unwrap_or_else(|| vec![(0, entry.size)]);
        segments.reverse();
        self.body = Some(Body {
            file,
            stat,
            segments,
            hashed: 0,
            stored: map.map_or(entry.size, |map| map.stored),
            hash: Sha256::new(),
            short: false,
            entry,
        });
        Ok(())
    }

    /// Reads a portion of the body, or finishes it.
    fn stream(&mut self) -> Result<()> {
        let body = self.body.as_mut().expect("the caller saw a body");
        let Some((offset, len)) = body.segments.last_mut() else {
            return self.end_body();
        };
        hash_zeros(&mut body.hash, *offset - body.hashed);
        body.hashed = *offset;
        if *len == 0 {
            body.segments.pop();
            return Ok(());
        }
        let start = self.ready.len();
        let room = PIECE_BYTES.saturating_sub(start).max(BLOCK);
        let wanted = (*len).min(room as u64) as usize;
        self.ready.resize(start + wanted, 0);
        let target = &mut self.ready[start..];
        let read = read_at_most(&body.file, target, *offset);
        let read = read.or_fail(|| format!("cannot read {}", self.walk.show(&body.entry.path)))?;
        if read < wanted {
            target[read..].fill(0);
            body.short = true;
        }
        body.hash.update(&*target);
        *offset += wanted as u64;
        *len -= wanted as u64;
        body.hashed = *offset;
        Ok(())
    }

    fn end_body(&mut self) -> Result<()> {
        let mut body = self.body.take().expect("the caller saw a body");
        hash_zeros(&mut body.hash, body.entry.size - body.hashed);
        let (_, now) = self.checked(&body.entry, &body.file, Ok(0))?;
        body.entry.sha256 = Some(body.hash.finalize());
        self.pad(padding(body.stored));
        let changed = body.short || differs(&body.stat, &now);
        self.file_done(&body.entry, &body.stat, changed)
    }

    fn checked(
        &self,
        entry: &Entry,
        file: &File,
        read: io::Result<usize>,
    ) -> Result<(usize, Stat)> {
        let what = || format!("cannot read {}", self.walk.show(&entry.path));
        let read = read.or_fail(what)?;
        Ok((read, fstat(file).map_err(io::Error::from).or_fail(what)?))
    }

    fn file_done(&mut self, entry: &Entry, stat: &Stat, changed: bool) -> Result<()> {
        if changed {
            let note = format!("changed while it was read: {}", escape(&entry.path));
            self.walk.tally.changed(note);
        }
        self.walk.hashed(entry, stat);
        self.done(entry)
    }

    fn done(&mut self, entry: &Entry) -> Result<()> {
        debug_assert!(entry.kind != Kind::File || entry.sha256.is_some());
        self.walk.tally.record(entry);
        (self.sink)(entry).map_err(|error| Failure::from_io("cannot keep the inventory", error))
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.piece.len() && !buf.is_empty() {
            let mut piece = std::mem::take(&mut self.piece);
            self.taken = 0;
            self.next_piece(&mut piece)?;
            self.piece = piece;
        }
        let n = buf.len().min(self.piece.len() - self.taken);
        buf[..n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

/// Zeros behind so many bytes of data, up to a whole block.
fn padding(data: u64) -> usize {
    (data.next_multiple_of(BLOCK as u64) - data) as usize
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_at_most(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buf.len() {
        match file.read_at(&mut buf[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Hashes as many zeros as a hole is long.
pub(super) fn hash_zeros(hash: &mut Sha256, mut len: u64) {
    while len > 0 {
        let n = len.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..n as usize]);
        len -= n;
    }
}

/// The stretches of data of a file that has holes; none for a file without. As GNU tar does it,
/// a hole at the end is closed by a stretch of no bytes there.
fn holes(file: &File, stat: &Stat) -> Result<Option<Vec<(u64, u64)>>, Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    #[allow(clippy::unnecessary_cast)] // The field's type differs between architectures.
    let allocated = (stat.st_blocks as u64).saturating_mul(512);
    if allocated >= size {
        return Ok(None);
    }
    let mut segments: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            // The file system does not tell.
            Err(Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            _ if segments.len() + 1 >= SEGMENTS_MAX => size,
            Ok(end) => end.min(size),
            // It was cut just now: what is missing will be zeros, and it counts as changed.
            Err(Errno::NXIO) => size,
            Err(error) => return Err(error),
        };
        segments.push((start, end - start));
        at = end.max(start + 1);
    }
    if segments == [(0, size)] {
        return Ok(None);
    }
    if segments
        .last()
        .is_none_or(|(start, len)| start + len < size)
    {
        segments.push((size, 0));
    }
    Ok(Some(segments))
}
