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
use super::{CHUNK, attributes};
use crate::failure::{Failure, Result};

/// Bytes of one extended header.
const EXTENDED_BYTES_MAX: u64 = 4 << 20;
/// Extended headers in front of one member.
const EXTENDED_MAX: usize = 16;
/// Stretches of data in one sparse file.
const SEGMENTS_MAX: usize = 1_000_000;
/// Zeros behind the end blocks: tar fills up to its blocking factor.
const PADDING_BYTES_MAX: u64 = 16 << 20;

/// A member as the archive describes it; nothing in it has been judged.
pub(super) struct Member {
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
pub(super) enum MemberKind {
    File,
    Dir,
    Symlink,
    Hardlink,
    Fifo,
    Device,
}

/// An archive being read.
pub(super) struct Members<R: Read> {
    input: BufReader<R>,
    /// Bytes of the current member's data and padding still to come.
    data: u64,
    padding: u64,
    offset: u64,
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    owner: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
    mtime: Option<Mtime>,
    xattrs: Vec<Xattr>,
    sparse_name: Option<Vec<u8>>,
    sparse_size: Option<u64>,
    sparse_major: Option<u64>,
    sparse_offset: Option<u64>,
    sparse_map: Vec<(u64, u64)>,
    is_sparse: bool,
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

    /// The map of GNU tar's own format: four stretches in the header, more in blocks behind it.
    fn old_gnu_map(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>)> {
        let bytes = *header.as_bytes();
        let bad = || Failure::new("the archive holds a malformed map of a file with holes");
        let real = number(&bytes[483..495]).and_then(|n| u64::try_from(n).ok());
        let mut map = Vec::new();
        let mut more = bytes[482] != 0;
        stretches(&bytes[386..482], &mut map).ok_or_else(bad)?;
        while more {
            let mut block = [0; BLOCK];
            self.exactly(&mut block)?;
            stretches(&block[..504], &mut map).ok_or_else(bad)?;
            more = block[504] != 0;
        }
        Ok((real.ok_or_else(bad)?, map))
    }

    /// The map of format 1.0: lines of text in front of the data, filled up to whole blocks.
    fn map_in_front(&mut self) -> Result<Vec<(u64, u64)>> {
        let mut map = Vec::new();
        let mut left = None;
        let mut offset = None;
        let mut digits = Vec::new();
        let mut block = [0; BLOCK];
        while left != Some(0) {
            if self.data < BLOCK as u64 {
                return Err(self.damaged("a cut map of a file with holes"));
            }
            self.exactly(&mut block)?;
            self.data -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    if digits.len() > 20 {
                        return Err(self.damaged("a malformed map of a file with holes"));
                    }
                    continue;
                }
                let number = decimal(&digits)
                    .ok_or_else(|| self.damaged("a malformed map of a file with holes"))?;
                digits.clear();
                match (left, offset.take()) {
                    (None, _) if number > SEGMENTS_MAX as u64 => {
                        return Err(self.damaged("a file with too many holes"));
                    }
                    (None, _) => left = Some(number),
                    (Some(_), None) => offset = Some(number),
                    (Some(n), Some(offset)) => {
                        map.push((offset, number));
                        left = Some(n - 1);
                    }
                }
                if left == Some(0) {
                    break;
                }
            }
        }
        Ok(map)
    }

    fn check_map(&self, map: &[(u64, u64)], size: u64) -> Result<()> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        let mut good = map.len() <= SEGMENTS_MAX;
        for (offset, len) in map {
            good &= *offset >= end;
            end = offset.saturating_add(*len);
            sum = sum.saturating_add(*len);
        }
        if good && end <= size && sum == self.data {
            Ok(())
        } else {
            Err(self.damaged("a map of a file with holes that does not fit its data"))
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

    fn exactly(&mut self, out: &mut [u8]) -> Result<()> {
        match self.input.read_exact(out) {
            Ok(()) => {
                self.offset += out.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(cut(self.offset)),
            Err(error) => Err(Failure::from_io("cannot read the archive", error)),
        }
    }

    fn damaged(&self, what: &str) -> Failure {
        let at = self.offset;
        Failure::new(format!("the archive holds {what}, near byte {at}"))
            .hint("it is damaged or no tar archive: take another backup")
    }
}

fn cut(offset: u64) -> Failure {
    Failure::new(format!("the archive ends too early, after byte {offset}"))
        .hint("it was cut when it was written or copied: take another backup")
}

impl Extended {
    /// Takes over the records of a header; none if one is malformed.
    fn read(&mut self, text: &[u8]) -> Option<()> {
        for record in Extended::records(text) {
            let (key, value) = record?;
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value)?),
                b"uid" => self.uid = Some(decimal(value)?),
                b"gid" => self.gid = Some(decimal(value)?),
                b"uname" => self.owner = Some(value.to_vec()),
                b"gname" => self.group = Some(value.to_vec()),
                b"mtime" => self.mtime = Some(time(value)?),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                    self.is_sparse = true;
                    self.sparse_size = Some(decimal(value)?);
                }
                b"GNU.sparse.major" => self.sparse_major = Some(decimal(value)?),
                b"GNU.sparse.offset" => self.sparse_offset = Some(decimal(value)?),
                b"GNU.sparse.numbytes" => {
                    let offset = self.sparse_offset.take()?;
                    self.sparse_map.push((offset, decimal(value)?));
                }
                b"GNU.sparse.map" => {
                    let mut numbers = value.split(|b| *b == b',').map(decimal);
                    while let Some(offset) = numbers.next() {
                        self.sparse_map.push((offset?, numbers.next()??));
                    }
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((attribute_name(name), value.to_vec()));
                    }
                }
            }
        }
        Some(())
    }

    /// Keys and values; a malformed record is none and ends them.
    fn records(mut text: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
        std::iter::from_fn(move || {
            if text.is_empty() {
                return None;
            }
            let record = split_record(text);
            text = record.map_or(&[], |(_, _, rest)| rest);
            Some(record.map(|(key, value, _)| (key, value)))
        })
    }
}

fn split_record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = text.iter().take(12).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(&text[..blank])?).ok()?;
    let (record, rest) = text.split_at_checked(len)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Undoes what [`super::header::attribute_key`] does to a name.
fn attribute_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match rest.get(..3) {
            Some(b"%3D") => (b'=', &rest[3..]),
            Some(b"%25") => (b'%', &rest[3..]),
            _ => (*first, after),
        };
        name.push(byte);
        rest = after;
    }
    name
}

fn stretches(mut fields: &[u8], map: &mut Vec<(u64, u64)>) -> Option<()> {
    while let Some((stretch, rest)) = fields.split_at_checked(24) {
        fields = rest;
        if stretch[0] == 0 {
            continue;
        }
        let offset = u64::try_from(number(&stretch[..12])?).ok()?;
        let len = u64::try_from(number(&stretch[12..])?).ok()?;
        if map.len() >= SEGMENTS_MAX {
            return None;
        }
        map.push((offset, len));
    }
    Some(())
}

/// A number of a header: octal digits among blanks, or GNU tar's binary with the high bit set.
fn number(field: &[u8]) -> Option<i128> {
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

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A decimal fraction of seconds; digits below a nanosecond are cut towards the past.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0;
    let mut scale = 100_000_000;
    for digit in parts.next().unwrap_or_default() {
        nanoseconds += (*digit as char).to_digit(10)? * scale;
        scale /= 10;
    }
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Mtime {
            seconds: whole,
            nanoseconds,
        },
        (true, 0) => Mtime {
            seconds: -whole,
            nanoseconds: 0,
        },
        (true, nanoseconds) => Mtime {
            seconds: -whole - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes[..end].to_vec()
}

fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}
