//! The manifest: what a backup is, and the proof that it is what was written.
//!
//! A manifest is one JSON object whose last field, `manifest_sha256`, is the SHA-256 of every
//! byte before that field's line. A single flipped bit anywhere in the file is found: in the
//! body by the digest, in the digest's line by its exact form. `sed '/^  "manifest_sha256"/,$d'
//! FILE | sha256sum` checks it without our tools.

use std::collections::BTreeMap;

use crate::sha256::Sha256;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dump::Inventory;
use crate::failure::{Failure, OrFail, Result};
use crate::files::FilesInventory;
use crate::names::{BackupId, Stamp};
use crate::postgres::facts::{DatabaseSettings, DatabaseShape};

/// The manifest's format; a reader refuses a newer one.
pub const FORMAT: u32 = 1;
/// A manifest is refused above this size.
pub const BYTES_MAX: u64 = 64 << 20;
const LAST_FIELD: &str = "  \"manifest_sha256\": \"";

/// What a backup is. Sizes in bytes, digests as lowercase hex, times in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of this document; 1.
    pub format: u32,
    /// `DATASET@STAMP`
    pub id: BackupId,
    /// The machine it was made on.
    pub host: String,
    /// When the dump began.
    pub started: Timestamp,
    /// When the data had been written and read back.
    pub finished: Timestamp,
    /// Name and version of the tool that made it.
    pub tool: String,
    /// The data file's name, beside this one.
    pub file: String,
    /// The data before compression and encryption.
    pub plain: Extent,
    /// The data file as it lies in the store.
    pub stored: Extent,
    /// Public keys it is encrypted to; empty when it is not.
    pub encrypted_to: Vec<String>,
    /// The command line that restores it with standard tools.
    pub restore_with: String,
    /// Where an adopted backup came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_from: Option<String>,
    /// What it holds.
    pub content: Content,
    /// Anything an operator should know: files that changed while read, what was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A length and a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 as lowercase hex; `sha256sum` prints the same.
    pub sha256: String,
}

/// What a backup holds, counted while it streamed by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Content {
    /// A database.
    Database(Box<DatabaseContent>),
    /// A directory.
    Files(Box<FilesContent>),
    /// Roles and the other globals of a server.
    Globals(GlobalsContent),
    /// A bucket of the app.
    Bucket(Box<BucketContent>),
}

/// A database's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DatabaseContent {
    /// Every table's rows and checksum, sequences, large objects.
    pub inventory: Inventory,
    /// Encoding and locale, to make a database that can take it.
    pub shape: Option<DatabaseShape>,
    /// What pg_dump leaves out: settings, grants and owner of the database itself.
    pub settings: Option<DatabaseSettings>,
}

/// A directory's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilesContent {
    /// The directory that was backed up.
    pub path: String,
    /// Counts and digests over all entries.
    pub inventory: FilesInventory,
    /// The file beside this one that lists every entry, as JSON lines.
    pub list: Option<ListFile>,
}

/// The list of a directory's entries: too long for a manifest when there are a million.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListFile {
    /// Its name, beside the manifest; compressed and encrypted like the data.
    pub file: String,
    /// Before compression and encryption.
    pub plain: Extent,
    /// As it lies in the store.
    pub stored: Extent,
}

/// A server's globals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalsContent {
    /// The server's version.
    pub server_version: String,
    /// The roles in it.
    pub roles: Vec<String>,
    /// Whether passwords are in it; managed servers do not give them out.
    pub passwords: bool,
}

/// A bucket's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketContent {
    /// The service's address.
    pub service: String,
    /// The bucket's name there.
    pub bucket: String,
    /// Every object that it held, here or in an older archive.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Over key, size, SHA-256 and headers of all objects, whatever their order: XXH3-128 of each,
    /// added modulo 2^128.
    pub digest: String,
    /// Objects that were new or changed: they lie in this backup's own archive.
    pub read: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// The older backups of this dataset whose archives hold the rest. They must be kept as long
    /// as this one is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Need>,
    /// The file beside this one that lists every object, as JSON lines.
    pub list: Option<ListFile>,
}

/// An older backup that another one cannot be restored without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Its stamp; its dataset is the same.
    pub stamp: Stamp,
    /// Its data file.
    pub file: String,
}

impl Content {
    /// The list of entries that lies beside the data, where there is one.
    pub fn list(&self) -> Option<&ListFile> {
        match self {
            Content::Files(files) => files.list.as_ref(),
            Content::Bucket(bucket) => bucket.list.as_ref(),
            Content::Database(_) | Content::Globals(_) => None,
        }
    }

    /// Says where the list of entries lies.
    pub fn set_list(&mut self, list: ListFile) {
        match self {
            Content::Files(files) => files.list = Some(list),
            Content::Bucket(bucket) => bucket.list = Some(list),
            Content::Database(_) | Content::Globals(_) => {}
        }
    }

    /// The older backups without which it cannot be restored.
    pub fn needs(&self) -> &[Need] {
        match self {
            Content::Bucket(bucket) => &bucket.needs,
            _ => &[],
        }
    }

    /// The word for its kind, as in dataset names.
    pub fn kind(&self) -> &'static str {
        match self {
            Content::Database(_) => "database",
            Content::Files(_) => "files",
            Content::Globals(_) => "globals",
            Content::Bucket(_) => "bucket",
        }
    }

    /// Rows of a database, files of a directory, roles of a server, objects of a bucket.
    pub fn count(&self) -> (u64, &'static str) {
        match self {
            Content::Database(db) => (db.inventory.tables.iter().map(|t| t.rows).sum(), "rows"),
            Content::Files(files) => (files.inventory.files, "files"),
            Content::Globals(globals) => (globals.roles.len() as u64, "roles"),
            Content::Bucket(bucket) => (bucket.objects, "objects"),
        }
    }
}

impl Manifest {
    /// The text to store.
    pub fn render(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .or_fail(|| format!("cannot write the manifest of {}", self.id))?;
        // The closing brace makes room for the last field.
        text.truncate(text.trim_end_matches('}').trim_end().len());
        text.push_str(",\n");
        let digest = hex(&Sha256::digest(text.as_bytes()));
        text.push_str(LAST_FIELD);
        text.push_str(&digest);
        text.push_str("\"\n}\n");
        Ok(text)
    }

    /// Reads a stored text; every flipped bit and every truncation is an error.
    pub fn parse(text: &[u8]) -> Result<Manifest> {
        let damaged = |why: &str| Failure::new(format!("damaged: {why}"));
        let text = std::str::from_utf8(text).map_err(|_| damaged("not UTF-8"))?;
        let tail = LAST_FIELD.len() + 64 + "\"\n}\n".len();
        let at = text
            .len()
            .checked_sub(tail)
            .filter(|at| text.is_char_boundary(*at));
        let (body, last) = text.split_at(at.ok_or_else(|| damaged("too short"))?);
        let digest = last
            .strip_prefix(LAST_FIELD)
            .and_then(|rest| rest.strip_suffix("\"\n}\n"));
        let digest = digest.ok_or_else(|| damaged("its last lines are missing"))?;
        if digest != hex(&Sha256::digest(body.as_bytes())) {
            return Err(damaged("its digest does not match its text"));
        }
        let fields: BTreeMap<String, serde_json::Value> =
            serde_json::from_str(text).map_err(|e| damaged(&e.to_string()))?;
        match fields.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(newer) => {
                return Err(Failure::new(format!(
                    "format {newer} is newer than this tool understands"
                ))
                .hint("use the version of the tools that wrote it, or a newer one"));
            }
            None => return Err(damaged("no format in it")),
        }
        serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))
    }
}

/// Bytes as lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").ok();
            text
        })
}
