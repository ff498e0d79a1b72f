//! Extended headers: records of keyword and value in front of a member.

use super::entry::{Mtime, Xattr};

/// What extended headers say about the next member.
#[derive(Default)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub owner: Option<Vec<u8>>,
    pub group: Option<Vec<u8>>,
    pub mtime: Option<Mtime>,
    pub xattrs: Vec<Xattr>,
    pub sparse_name: Option<Vec<u8>>,
    pub sparse_size: Option<u64>,
    pub sparse_major: Option<u64>,
    pub sparse_offset: Option<u64>,
    pub sparse_map: Vec<(u64, u64)>,
    pub is_sparse: bool,
}

impl Extended {
    /// Takes over the records of a header; none if one is malformed.
    pub fn read(&mut self, text: &[u8]) -> Option<()> {
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
    pub fn records(mut text: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
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

/// Decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_towards_the_past() {
        let parse = |text: &str| time(text.as_bytes()).map(String::from);
        assert_eq!(parse("1"), Some("1.000000000".into()));
        assert_eq!(parse("1.0000000019"), Some("1.000000001".into()));
        assert_eq!(parse("-0.75"), Some("-1.250000000".into()));
        assert_eq!(parse("-2"), Some("-2.000000000".into()));
        for bad in ["", ".", "1.x", "99999999999999999999", "--1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_attributes_name_survives_its_keyword() {
        for name in [&b"user.a"[..], b"user.a=b", b"user.%3D", b"user.%"] {
            let key = super::super::header::attribute_key(name);
            let name_in_key = key.strip_prefix(b"SCHILY.xattr.").unwrap();
            assert_eq!(attribute_name(name_in_key), name);
        }
    }
}
