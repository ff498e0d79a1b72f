//! Reads a tar archive member by member, believing nothing.
//!
//! Understands POSIX pax, GNU tar's own format with long names, ustar and the seventh edition's,
//! and files with holes in all of GNU tar's formats. Every header's checksum is checked, every
//! length is bounded before memory is taken for it, and an archive without its two end blocks is
//! an error: it was cut.

use std::io::{BufRead, BufReader, ErrorKind, Read};

use tar::Header;

use super::entry::{Mtime, Xattr, escape};
use super::header::BLOCK;
use super::pax::Extended;
use super::{CHUNK, attributes};
use crate::failure::{Failure, Result};

/// Bytes of one extended header.
const EXTENDED_BYTES_MAX: u64 = 4 << 20;
/// Extended headers in front of one member.
const EXTENDED_MAX: usize = 16;
/// Zeros behind the end blocks: tar fills up to its blocking factor.
const PADDING_BYTES_MAX: u64 = 16 << 20;

/// A member as the archive describes it; nothing in it has been judged.
pub(crate) struct Member {
    pub path: Vec<u8>,
    pub kind: MemberKind,
    /// Bytes of the file once it is extracted.
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub owner: Option<String>,
    pub group: Option<String>,
    pub mtime: Mtime,
    pub link: Vec<u8>,
    pub xattrs: Vec<Xattr>,
    /// Offset and length of each stretch of data of a file with holes, checked and in order.
    pub segments: Option<Vec<(u64, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberKind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// An archive being read.
pub(crate) struct Members<R: Read> {
    input: BufReader<R>,
    /// Bytes of the current member's data and padding still to come.
    pub(super) data: u64,
    padding: u64,
    offset: u64,
}

impl<R: Read> Members<R> {
    pub fn new(input: R) -> Self {
        Members {
            input: BufReader::with_capacity(CHUNK, input),
            data: 0,
            padding: 0,
            offset: 0,
        }
    }

    /// The next member, or none after a whole archive. Data not taken is passed over.
    pub fn next(&mut self) -> Result<Option<Member>> {
        while self.data > 0 {
            let len = self.chunk()?.len();
            self.consume(len);
        }
        self.skip_padding()?;
        let mut extended = Extended::default();
        for _ in 0..=EXTENDED_MAX {
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = number(&header.as_old().size)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| self.damaged("a size that is no number"))?;
            match header.as_old().linkflag[0] {
                b'x' => {
                    let text = self.small(size)?;
                    extended
                        .read(&text)
                        .ok_or_else(|| self.damaged("a malformed extended header"))?;
                }
                b'g' => {
                    let text = self.small(size)?;
                    let mut all = Extended::records(&text);
                    if all.any(|record| !matches!(record, Some((b"comment", _)))) {
                        return Err(self.damaged("an extended header for all members"));
                    }
                }
                b'L' => extended.path = Some(until_nul(&self.small(size)?)),
                b'K' => extended.link = Some(until_nul(&self.small(size)?)),
                b'V' => self.pass(size)?,
                _ => return self.member(&header, size, extended).map(Some),
            }
        }
        Err(self.damaged("too many extended headers in a row"))
    }

    /// Data of the current member, as much as is at hand; empty at its end.
    pub fn chunk(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let data = self.data;
        let offset = self.offset;
        loop {
            // Filled twice: once to see the error, once to hand out what is there.
            match self.input.fill_buf() {
                Ok([]) => return Err(cut(offset)),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::from_io("cannot read the archive", error)),
            }
        }
        let bytes = self.input.buffer();
        let len = (bytes.len() as u64).min(data) as usize;
        Ok(&bytes[..len])
    }

    /// Marks bytes of [`Members::chunk`] as taken.
    pub fn consume(&mut self, len: usize) {
        self.input.consume(len);
        self.data -= len as u64;
        self.offset += len as u64;
    }

    fn member(&mut self, header: &Header, size: u64, extended: Extended) -> Result<Member> {
        let old = header.as_old();
        let ustar = header.as_bytes()[257..].starts_with(b"ustar");
        let posix = header.as_bytes()[257..].starts_with(b"ustar\0");
        let mut path = extended.path.clone().unwrap_or_else(|| {
            let name = until_nul(&old.name);
            let prefix = until_nul(&header.as_bytes()[345..500]);
            if posix && !prefix.is_empty() {
                [&prefix[..], b"/", &name].concat()
            } else {
                name
            }
        });
        let kind = match old.linkflag[0] {
            b'0' | b'7' | b'S' => MemberKind::File,
            // The seventh edition knew directories by the slash behind their name.
            0 if path.ends_with(b"/") => MemberKind::Dir,
            0 => MemberKind::File,
            b'1' => MemberKind::Hardlink,
            b'2' => MemberKind::Symlink,
            b'3' | b'4' => MemberKind::Device,
            b'5' => MemberKind::Dir,
            b'6' => MemberKind::Fifo,
            other => {
                let what = format!("a member of the unknown type `{}`", escape(&[other]));
                return Err(self.damaged(&what));
            }
        };
        // Only files have data; some programs write a size for links and directories as well.
        let stored = match kind {
            MemberKind::File => extended.size.unwrap_or(size),
            _ => 0,
        };
        self.data = stored;
        self.padding = padding(stored);
        let mut real_size = stored;
        let mut segments = None;
        if old.linkflag[0] == b'S' {
            let (real, map) = self.old_gnu_map(header)?;
            real_size = real;
            segments = Some(map);
        } else if extended.is_sparse && kind == MemberKind::File {
            real_size = extended
                .sparse_size
                .ok_or_else(|| self.damaged("a file with holes without its size"))?;
            if let Some(name) = &extended.sparse_name {
                path = name.clone();
            }
            segments = Some(match extended.sparse_major {
                Some(1) => self.map_in_front()?,
                None | Some(0) => extended.sparse_map.clone(),
                Some(_) => return Err(self.damaged("an unknown format of a file with holes")),
            });
        }
        if let Some(map) = &segments {
            self.check_map(map, real_size)?;
        }
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Some(text).filter(|text| !text.is_empty())
        };
        let named = |range: std::ops::Range<usize>| {
            let field = if ustar {
                &header.as_bytes()[range]
            } else {
                &[]
            };
            until_nul(field)
        };
        let owner = extended.owner.unwrap_or_else(|| named(265..297));
        let group = extended.group.unwrap_or_else(|| named(297..329));
        let id = |extended: Option<u64>, field: &[u8]| {
            let id = extended.map(i128::from).or_else(|| number(field));
            id.and_then(|id| u32::try_from(id).ok())
                // The last number means "leave as it is" to the kernel.
                .filter(|id| *id != u32::MAX)
        };
        let uid = id(extended.uid, &old.uid).ok_or_else(|| self.damaged("a bad user number"))?;
        let gid = id(extended.gid, &old.gid).ok_or_else(|| self.damaged("a bad group number"))?;
        let mode = number(&old.mode).ok_or_else(|| self.damaged("a mode that is no number"))?;
        let seconds = number(&old.mtime).and_then(|seconds| i64::try_from(seconds).ok());
        let in_header = seconds.map(|seconds| Mtime {
            seconds,
            nanoseconds: 0,
        });
        let mtime = extended.mtime.or(in_header);
        let mut xattrs = extended.xattrs;
        xattrs.retain(|(name, _)| attributes::is_kept(name));
        xattrs.sort();
        xattrs.dedup_by(|a, b| a.0 == b.0);
        Ok(Member {
            path,
            kind,
            size: real_size,
            mode: (mode & 0o7777) as u32,
            uid,
            gid,
            owner: text(owner),
            group: text(group),
            mtime: mtime.ok_or_else(|| self.damaged("a time that is no number"))?,
            link: extended.link.unwrap_or_else(|| until_nul(&old.linkname)),
            xattrs,
            segments,
        })
    }

    /// A header with a good checksum; none at the end blocks, which must be followed by nothing.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        self.exactly(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|b| *b == 0) {
            let mut second = [0; BLOCK];
            self.exactly(&mut second)?;
            if second.iter().any(|b| *b != 0) {
                return Err(self.damaged("only one end block"));
            }
            self.expect_end()?;
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let (mut unsigned, mut signed) = (0_i128, 0_i128);
        for (at, byte) in bytes.iter().enumerate() {
            // The checksum's own field counts as blanks; old programs summed signed bytes.
            let byte = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            unsigned += i128::from(byte);
            signed += i128::from(byte as i8);
        }
        let found = number(&header.as_old().cksum);
        if found != Some(unsigned) && found != Some(signed) {
            return Err(self.damaged("a header with a wrong checksum"));
        }
        Ok(Some(header))
    }

    /// Only zeros up to the end of the stream, which is thereby seen to end well.
    fn expect_end(&mut self) -> Result<()> {
        let mut zeros = 0;
        loop {
            let bytes = match self.input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::from_io("cannot read the archive", error)),
            };
            zeros += bytes.len() as u64;
            if bytes.iter().any(|b| *b != 0) {
                return Err(self
                    .damaged("something behind its end")
                    .hint("two archives in one file: split them, and restore each"));
            }
            if zeros > PADDING_BYTES_MAX {
                return Err(self.damaged("endless zeros behind its end"));
            }
            let len = bytes.len();
            self.input.consume(len);
        }
    }

    /// The data of an extended header.
    fn small(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENDED_BYTES_MAX {
            return Err(self.damaged("an oversized extended header"));
        }
        let mut bytes = vec![0; size as usize];
        self.exactly(&mut bytes)?;
        self.padding = padding(size);
        self.skip_padding()?;
        Ok(bytes)
    }

    fn pass(&mut self, size: u64) -> Result<()> {
        self.small(size).map(drop)
    }

    fn skip_padding(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        let len = std::mem::take(&mut self.padding) as usize;
        self.exactly(&mut block[..len])
    }

    pub(super) fn exactly(&mut self, out: &mut [u8]) -> Result<()> {
        match self.input.read_exact(out) {
            Ok(()) => {
                self.offset += out.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(cut(self.offset)),
            Err(error) => Err(Failure::from_io("cannot read the archive", error)),
        }
    }

    pub(super) fn damaged(&self, what: &str) -> Failure {
        let at = self.offset;
        Failure::new(format!("the archive holds {what}, near byte {at}"))
            .hint("it is damaged or no tar archive: take another backup")
    }
}

fn cut(offset: u64) -> Failure {
    Failure::new(format!("the archive ends too early, after byte {offset}"))
        .hint("it was cut when it was written or copied: take another backup")
}

/// A number of a header: octal digits among blanks, or GNU tar's binary with the high bit set.
pub(super) fn number(field: &[u8]) -> Option<i128> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement of all the field's bits but the first.
        let start = if first & 0x40 != 0 { -1 } else { 0 };
        let mut value = (start << 6) | i128::from(first & 0x3f);
        for byte in &field[1..] {
            value = (value << 8) | i128::from(*byte);
        }
        return Some(value);
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0, |value, digit| {
        let digit = (*digit as char).to_digit(8)?;
        Some(value * 8 + i128::from(digit))
    })
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes[..end].to_vec()
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
