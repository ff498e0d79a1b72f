//! One name of a tree as the inventory knows it, and its line in JSON.
//!
//! Names, link targets and attributes are bytes: Linux promises no character set. In JSON they
//! are escaped without loss: text stays as it is, except that `%`, control characters and bytes
//! that are not UTF-8 become `%` and two hexadecimal digits, as in addresses of web pages.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an inventory holds about one name: everything that a restore must bring back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the root, without `./` in front or `/` behind; the root itself is `.`.
    #[serde(with = "escaped")]
    pub path: Vec<u8>,
    /// What the name stands for.
    pub kind: Kind,
    /// Bytes of a file as a reader sees them, holes included; 0 for everything else.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    /// Permission bits with set-id and sticky (at most `07777`); always `0777` for a symbolic link.
    #[serde(with = "octal")]
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// The owner's name on the machine where the entry was read, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group's name on the machine where the entry was read, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When the content last changed.
    pub mtime: Mtime,
    /// SHA-256 of the content, for files and hard links.
    #[serde(default, with = "hex", skip_serializing_if = "Option::is_none")]
    pub sha256: Option<[u8; 32]>,
    /// Where a symbolic link points, as written in it; for a hard link the path of the first name.
    #[serde(
        default,
        with = "escaped_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub link: Option<Vec<u8>>,
    /// Extended attributes, sorted by name: `user.*`, POSIX ACLs, file capabilities.
    #[serde(default, with = "attributes", skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
    /// The file has holes. Not part of any digest: a hole and zeros read the same.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sparse: bool,
}

/// An extended attribute: its name with the prefix (`user.note`) and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What a name in a tree stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, never followed.
    Symlink,
    /// One more name of a file that came earlier.
    Hardlink,
    /// A named pipe.
    Fifo,
}

/// A point in time as `stat` gives it. In JSON: seconds, a dot and nine digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mtime {
    /// Seconds since 1970-01-01 00:00 UTC; negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl From<Mtime> for String {
    fn from(time: Mtime) -> String {
        format!("{}.{:09}", time.seconds, time.nanoseconds)
    }
}

impl TryFrom<String> for Mtime {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("`{text}` is not seconds, a dot and nine digits");
        let (seconds, fraction) = text.split_once('.').ok_or_else(bad)?;
        if fraction.len() != 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Mtime {
            seconds: seconds.parse().map_err(|_| bad())?,
            nanoseconds: fraction.parse().map_err(|_| bad())?,
        })
    }
}

/// Bytes as text without loss: `%`, control characters and what is not UTF-8 become `%XX`.
/// Also how paths appear in messages, so that no name can play tricks with a terminal.
pub fn escape(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    let hex = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            write!(text, "%{byte:02X}").expect("a string takes everything");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        hex(&mut text, chunk.invalid());
    }
    text
}

/// The bytes behind [`escape`]d text; `None` when a `%` is not followed by two hexadecimal digits.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(digit(digits[0])? * 16 + digit(digits[1])?);
        rest = after;
    }
    Some(bytes)
}

fn digit(c: u8) -> Option<u8> {
    (c as char).to_digit(16).map(|d| d as u8)
}

fn is_zero(size: &u64) -> bool {
    *size == 0
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn unescaped<'de, D: Deserializer<'de>>(text: &str) -> Result<Vec<u8>, D::Error> {
    unescape(text).ok_or_else(|| D::Error::custom(format!("bad escape in `{text}`")))
}

mod escaped {
    use super::*;
    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&escape(bytes))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        unescaped::<D>(&String::deserialize(from)?)
    }
}

mod escaped_option {
    use super::*;
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_deref().map(escape).serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| unescaped::<D>(&text)).transpose()
    }
}

mod attributes {
    use super::*;
    use std::collections::BTreeMap;
    pub fn serialize<S: Serializer>(attributes: &[Xattr], to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(attributes.iter().map(|(n, v)| (escape(n), escape(v))))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Xattr>, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(from)?;
        let mut all = Vec::with_capacity(map.len());
        for (name, value) in map {
            all.push((unescaped::<D>(&name)?, unescaped::<D>(&value)?));
        }
        all.sort();
        Ok(all)
    }
}

mod octal {
    use super::*;
    pub fn serialize<S: Serializer>(mode: &u32, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{mode:04o}"))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
        let text = String::deserialize(from)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|m| *m <= 0o7777);
        mode.ok_or_else(|| D::Error::custom(format!("`{text}` is not a mode such as 0644")))
    }
}

mod hex {
    use super::*;
    pub fn serialize<S: Serializer>(sum: &Option<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        sum.as_ref()
            .map(|s| super::super::inventory::hex(s))
            .serialize(to)
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<[u8; 32]>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let bad = || D::Error::custom(format!("`{text}` is not a SHA-256 of 64 digits"));
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(bad());
        }
        let mut sum = [0; 32];
        for (byte, pair) in sum.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0]).ok_or_else(bad)? * 16 + digit(pair[1]).ok_or_else(bad)?;
        }
        Ok(Some(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_json_is_a_promise() {
        let entry = Entry {
            path: b"caf\xc3\xa9/100%\xff\n".to_vec(),
            kind: Kind::File,
            size: 3,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            owner: Some("deployer".into()),
            group: None,
            mtime: Mtime {
                seconds: -1,
                nanoseconds: 5,
            },
            sha256: Some([0xab; 32]),
            link: None,
            xattrs: vec![(b"user.note".to_vec(), b"\0x".to_vec())],
            sparse: false,
        };
        let line = serde_json::to_string(&entry).unwrap();
        let expected = format!(
            r#"{{"path":"café/100%25%FF%0A","kind":"file","size":3,"mode":"0644","uid":1000,"gid":1000,"owner":"deployer","mtime":"-1.000000005","sha256":"{}","xattrs":{{"user.note":"%00x"}}}}"#,
            "ab".repeat(32)
        );
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_str::<Entry>(&line).unwrap(), entry);
    }

    #[test]
    fn a_damaged_line_is_refused() {
        for bad in [
            r#"{"path":"%Z1","kind":"dir","mode":"0755","uid":0,"gid":0,"mtime":"0.000000000"}"#,
            r#"{"path":"a","kind":"dir","mode":"99999","uid":0,"gid":0,"mtime":"0.000000000"}"#,
            r#"{"path":"a","kind":"dir","mode":"0755","uid":0,"gid":0,"mtime":"0.1"}"#,
            r#"{"path":"a","kind":"dir","mode":"0755","uid":0,"gid":0,"mtime":"0.000000000","sha256":"ab"}"#,
        ] {
            assert!(serde_json::from_str::<Entry>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_escape(bytes: Vec<u8>) {
            prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes));
        }
    }
}
