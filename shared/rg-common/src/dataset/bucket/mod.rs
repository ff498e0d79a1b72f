//! A bucket of the app: a tar archive of the objects that are new or have changed, and a list of
//! every object the bucket holds, which says of each in which backup's archive it lies.
//!
//! An object is unchanged when key, size, ETag and time are those of the last backup; it is then
//! not read again, unless its archive is older than [`REREAD_DAYS`]: so every object is read and
//! hashed once in a while, and old archives come out of use one after the other. A backup needs the
//! archives that its list names; retention and copies know that from its manifest.

mod archive;
mod changes;
mod contents;
mod index;
mod live;
mod object;
mod pairs;
mod planner;
mod prove;
mod put;
mod read_back;
mod sorted;
mod target;

use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Dump, Dumped, Request};
use crate::catalog::Content;
use crate::catalog::manifest::BucketContent;
use crate::config::BucketConfig;
use crate::failure::{OrFail, Result};
use crate::nouns::counted;
use crate::s3::Client;

use archive::Archive;
use index::{Index, Owner};
use live::Bucket;

pub use changes::{Changes, Scope};
pub use contents::{Lines, read_objects};
pub use object::{Headers, ObjectEntry};
pub use prove::{OpenArchive, Wanted, prove, wanted_as_listed};
pub use put::PART_BYTES;
pub use target::Target;

/// An object whose archive is older than this is read again.
pub const REREAD_DAYS: i64 = 30;
/// The format of the index in `state`.
const INDEX_FORMAT: u32 = 1;

/// Begins to back up a bucket: its list has been read when this returns.
pub fn dump<'a>(request: &Request<'a>, config: &BucketConfig) -> Result<Box<dyn Dump + 'a>> {
    let (service, name) = request
        .config
        .bucket_service(&request.dataset.environment, config)?;
    let client = Client::new(&request.network, &service)?;
    let owner = Owner {
        format: INDEX_FORMAT,
        service: service.shown(),
        bucket: name.clone(),
    };
    let bucket = Bucket { client, name };
    let listed = bucket.list(|| super::files::spool(request, "objects"))?;
    let index_path = index::path(&request.config.state, &request.dataset.name);
    let index = Index::open(&index_path, &owner);
    let list = super::files::spool(request, "list")?;
    let archive = Archive::new(bucket, listed, index, list, request);
    Ok(Box::new(BucketDump {
        archive,
        owner,
        index: index_path,
    }))
}

struct BucketDump {
    archive: Archive,
    owner: Owner,
    /// Where the list is kept for the next backup.
    index: PathBuf,
}

impl Read for BucketDump {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.archive.read(buffer)
    }
}

impl Dump for BucketDump {
    fn finish(self: Box<Self>) -> Result<Dumped> {
        let what = || "cannot read the list of objects".to_owned();
        let (tally, mut list) = self.archive.finish()?;
        list.seek(SeekFrom::Start(0)).or_fail(what)?;
        let mut again = list.try_clone().or_fail(what)?;
        let notes = match tally.vanished {
            0 => Vec::new(),
            count => vec![format!("{} vanished while read", counted(count, "objects"))],
        };
        let content = BucketContent {
            service: self.owner.service.clone(),
            bucket: self.owner.bucket.clone(),
            objects: tally.objects,
            bytes: tally.bytes,
            digest: tally.digest,
            read: tally.read,
            read_bytes: tally.read_bytes,
            needs: tally.needs,
            list: None,
        };
        let (owner, path) = (self.owner, self.index);
        let recorded = move || index::keep(&path, &owner, &mut again);
        Ok(Dumped {
            content: Content::Bucket(Box::new(content)),
            list: Some(list),
            notes,
            recorded: Some(Box::new(recorded)),
        })
    }
}

/// Whether an archive of that time is still young enough to rely on.
fn is_young(stamp: Timestamp, now: Timestamp) -> bool {
    now.duration_since(stamp).as_hours() < REREAD_DAYS * 24
}
