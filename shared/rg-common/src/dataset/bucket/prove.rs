//! A backup of a bucket proven before anything is written: every object that its list names is read
//! out of the archive that holds it, and its length and SHA-256 are as recorded.
//!
//! What comes out is the list again, with the ETag that each object will have once it was put: a
//! restore leaves alone what is there already.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::contents::{Lines, read_objects};
use super::object::ObjectEntry;
use super::put::part_bytes;
use super::sorted::{Named, Sorter};
use super::target::{Room, open};
use crate::catalog::manifest::BucketContent;
use crate::failure::{Failure, OrFail, Result};
use crate::names::Stamp;
use crate::nouns::counted;
use crate::s3::{self, Md5};

/// An object that a bucket is to hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Wanted {
    /// What it is.
    pub entry: ObjectEntry,
    /// The ETag that it gets when it is put here; none when its content has not been read.
    pub etag: Option<String>,
}

impl Named for Wanted {
    fn name(&self) -> &str {
        &self.entry.key
    }
}

/// Opens the archive of the backup with that stamp; its clean end must mean that its digests are
/// right.
pub type OpenArchive<'a> = dyn FnMut(Stamp) -> Result<Box<dyn Read>> + 'a;

/// Reads every object that `list` (a file of plain lines) names out of the archives of `stamps` and
/// checks it; `wanted` is written. Number, bytes and digest of the list must be those of `content`,
/// where there is one. In constant memory: the list is read once for each archive.
pub fn prove(
    list: &Path,
    content: Option<&BucketContent>,
    stamps: &[Stamp],
    archive: &mut OpenArchive<'_>,
    room: &Path,
    wanted: &Path,
) -> Result<()> {
    let expected = check_list(list, content, stamps)?;
    let room = Room::new(room);
    let mut sorter = Sorter::new(|| room.file("proven"));
    let mut proven = 0;
    for stamp in stamps {
        let mut plain = archive(*stamp)?;
        let mut lines = Lines::new(open(list)?);
        read_objects(&mut plain, *stamp, &mut lines, &mut |entry, content| {
            let etag = etag_of(entry, content)?;
            proven += 1;
            sorter.push(Wanted {
                entry: entry.clone(),
                etag: Some(etag),
            })
        })?;
        // The archive's own end is not the stream's: the digests are checked at the latter.
        std::io::copy(&mut plain, &mut std::io::sink())
            .map_err(|error| Failure::from_io("cannot read the archive to its end", error))?;
    }
    if proven != expected {
        return Err(Failure::new(format!(
            "of {} only {proven} were found in the archives",
            counted(expected, "objects")
        )));
    }
    let what = || format!("cannot write {}", wanted.display());
    let mut out = BufWriter::new(File::create(wanted).or_fail(what)?);
    let mut sorted = sorter.finish()?;
    while let Some(one) = sorted.next()? {
        serde_json::to_writer(&mut out, &one).or_fail(what)?;
        out.write_all(b"\n").or_fail(what)?;
    }
    out.flush().or_fail(what)
}

/// The list as what is wanted, without a look at the archives: for a plan.
pub fn wanted_as_listed(list: &Path, wanted: &Path) -> Result<()> {
    let what = || format!("cannot write {}", wanted.display());
    let mut out = BufWriter::new(File::create(wanted).or_fail(what)?);
    let mut lines = Lines::new(open(list)?);
    while let Some(entry) = lines.entry()? {
        let one = Wanted { entry, etag: None };
        serde_json::to_writer(&mut out, &one).or_fail(what)?;
        out.write_all(b"\n").or_fail(what)?;
    }
    out.flush().or_fail(what)
}

/// The list against what the manifest says of it; how many objects it names.
fn check_list(list: &Path, content: Option<&BucketContent>, stamps: &[Stamp]) -> Result<u64> {
    let known: BTreeSet<&Stamp> = stamps.iter().collect();
    let mut lines = Lines::new(open(list)?);
    while let Some(entry) = lines.entry()? {
        if !known.contains(&entry.stamp) {
            return Err(Failure::new(format!(
                "object `{}` lies in the archive of {}, which the manifest does not name",
                entry.key, entry.stamp
            )));
        }
    }
    let (objects, bytes, digest) = lines.tally();
    match content {
        Some(content)
            if (objects, bytes, &digest) != (content.objects, content.bytes, &content.digest) =>
        {
            Err(Failure::new(format!(
                "the list of objects is not as recorded: {} of {bytes} bytes, recorded were {} of {}",
                counted(objects, "objects"),
                content.objects,
                content.bytes
            )))
        }
        _ => Ok(objects),
    }
}

/// The ETag of an object that is put with [`part_bytes`] a part.
fn etag_of(entry: &ObjectEntry, content: &mut dyn Read) -> Result<String> {
    let part = part_bytes(entry.size);
    let mut digests: Vec<Md5> = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    let mut hash = s3::Md5Sum::new();
    let (mut in_part, mut read) = (0, 0);
    loop {
        let room = buffer.len().min(part - in_part);
        let n = content
            .read(&mut buffer[..room])
            .map_err(|error| Failure::from_io(format!("cannot read `{}`", entry.key), error))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        in_part += n;
        read += n as u64;
        if in_part == part && read < entry.size {
            digests.push(std::mem::replace(&mut hash, s3::Md5Sum::new()).finish());
            in_part = 0;
        }
    }
    let last = hash.finish();
    if digests.is_empty() {
        return Ok(s3::etag_md5(&last));
    }
    digests.push(last);
    Ok(s3::multipart_etag(&digests))
}
