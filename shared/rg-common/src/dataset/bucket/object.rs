//! One object of a bucket as a backup knows it, and its place in an archive.
//!
//! The list beside a backup holds every object that the bucket had, one JSON line each, sorted by
//! key. An object's bytes lie in the archive of the backup named by `in`: this one, or an older one
//! when the object has not changed since.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::Stamp;

/// The folder in the archive that holds objects by their keys.
const OBJECTS: &str = "objects";
/// The folder for keys that no file system takes as a path: percent-encoded, as one word.
const ESCAPED: &str = "escaped";
/// A file name of more bytes than this fits no common file system.
const NAME_BYTES_MAX: usize = 255;

/// An object, as a line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of its content as lowercase hex.
    pub sha256: String,
    /// What the service called its content when it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Its version where the bucket keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When it was last written.
    pub modified: Timestamp,
    /// The stamp of the backup whose archive holds its bytes.
    #[serde(rename = "in")]
    pub stamp: Stamp,
    /// Its path in that archive, where that is not `objects/` and the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// What a service stores with it and gives back with it.
    #[serde(flatten)]
    pub headers: Headers,
}

impl ObjectEntry {
    /// What a restore must bring back of it, as one text: two objects with the same are the same.
    pub fn identity(&self) -> String {
        serde_json::json!([self.key, self.size, self.sha256, self.headers]).to_string()
    }

    /// Its path in the archive.
    pub fn member(&self) -> String {
        self.member
            .clone()
            .unwrap_or_else(|| format!("{OBJECTS}/{}", self.key))
    }
}

/// What is stored with an object besides its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Cache-Control`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Content-Disposition`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Content-Encoding`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Language`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `x-amz-meta-*`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Gives keys, which come sorted, their paths in an archive. Two keys of which one is the other's
/// folder cannot both be files: the longer one is escaped.
#[derive(Default)]
pub(super) struct Members {
    /// Each a leading part of the next: the objects that could be a folder of what comes.
    above: Vec<String>,
}

impl Members {
    /// The path for the next key, where it is not `objects/` and the key.
    pub fn place(&mut self, key: &str) -> Option<String> {
        while self
            .above
            .last()
            .is_some_and(|one| !key.starts_with(one.as_str()))
        {
            self.above.pop();
        }
        let is_below = |one: &String| key.as_bytes().get(one.len()) == Some(&b'/');
        let below_a_file = self.above.iter().any(is_below);
        self.above.push(key.to_owned());
        let word = |word: &str| {
            !word.is_empty()
                && word != "."
                && word != ".."
                && word.len() <= NAME_BYTES_MAX
                && !word.contains('\0')
        };
        let plain = key.split('/').all(word) && !below_a_file;
        (!plain).then(|| format!("{ESCAPED}/{}", escaped(key)))
    }
}

/// A key as one or several file names: percent-encoded, cut into names that file systems take.
fn escaped(key: &str) -> String {
    let mut text = String::new();
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    // `+` is never part of it, so no two keys come out alike.
    let pieces: Vec<&str> = text
        .as_bytes()
        .chunks(NAME_BYTES_MAX - 1)
        .filter_map(|piece| std::str::from_utf8(piece).ok())
        .collect();
    pieces.join("+/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(keys: &[&str]) -> Vec<Option<String>> {
        let mut members = Members::default();
        keys.iter().map(|key| members.place(key)).collect()
    }

    #[test]
    fn a_key_that_is_no_path_is_escaped() {
        let odd = ["", "/a", "../x", "a/", "a//b", "a/./b", "nul\0", "ok/ä.txt"];
        let placed = places(&odd);
        let some = |text: &str| Some(format!("escaped/{text}"));
        assert_eq!(
            placed,
            [
                some(""),
                some("%2Fa"),
                some("%2E%2E%2Fx"),
                some("a%2F"),
                some("a%2F%2Fb"),
                some("a%2F%2E%2Fb"),
                some("nul%00"),
                None
            ]
        );
        let long = "x".repeat(700);
        let place = places(&[&long])[0].clone().unwrap();
        assert!(place.split('/').all(|name| name.len() <= NAME_BYTES_MAX));
    }

    #[test]
    fn an_object_below_another_object_gets_a_path_of_its_own() {
        let placed = places(&["a", "a-b", "a/b", "a/b/c", "b", "b/c"]);
        assert_eq!(placed[0], None);
        assert_eq!(placed[1], None);
        assert_eq!(placed[2].as_deref(), Some("escaped/a%2Fb"));
        assert_eq!(placed[3].as_deref(), Some("escaped/a%2Fb%2Fc"));
        assert_eq!(placed[4], None);
        assert_eq!(placed[5].as_deref(), Some("escaped/b%2Fc"));
    }

    #[test]
    fn a_line_of_the_list_comes_back_as_it_was() {
        let entry = ObjectEntry {
            key: "a/\u{1}b".to_owned(),
            size: 3,
            sha256: "00".repeat(32),
            etag: Some("e".to_owned()),
            version: None,
            modified: "2026-01-23T02:00:00Z".parse().unwrap(),
            stamp: "20260123_020000".parse().unwrap(),
            member: None,
            headers: Headers {
                content_type: Some("text/plain".to_owned()),
                metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
                ..Headers::default()
            },
        };
        let line = serde_json::to_string(&entry).unwrap();
        assert_eq!(serde_json::from_str::<ObjectEntry>(&line).unwrap(), entry);
        assert_eq!(entry.member(), "objects/a/\u{1}b");
    }
}
