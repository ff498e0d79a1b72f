//! What lies in a bucket, a page at a time: objects, versions, uploads.
//!
//! A page holds at most [`PAGE`] entries, and one page is in memory. A list that does not go on
//! (the same place twice, more promised and no place named) is an error, not a shorter list. Objects
//! are listed as all tools do it, by [`ObjectPages`].

use aws_sdk_s3::primitives::DateTime;
use jiff::Timestamp;
use rg_common::Result;
use rg_common::s3::{Kind, Listed, ObjectPages, PAGE, S3Error};

use crate::target::Target;

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key, whole.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The server's tag without its quotes; empty where it gives none.
    pub etag: String,
    /// When it was written.
    pub modified: Option<Timestamp>,
}

/// One version of an object, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The object.
    pub object: Object,
    /// The version's id; `null` where it was written before versioning was switched on.
    pub id: String,
    /// Whether it is what a plain GET finds.
    pub latest: bool,
    /// Whether it marks a deletion.
    pub marker: bool,
}

/// An upload that was begun and not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The object it would become.
    pub key: String,
    /// The upload's id.
    pub id: String,
    /// When it began.
    pub begun: Option<Timestamp>,
}

/// The pages of a list of objects.
pub struct Objects<'a> {
    target: &'a Target,
    pages: ObjectPages<'a>,
}

impl<'a> Objects<'a> {
    /// Of keys that begin with `prefix`, which is whole: the target's own is not put before it.
    pub fn new(target: &'a Target, prefix: &str) -> Objects<'a> {
        Objects {
            target,
            pages: ObjectPages::new(&target.client, &target.bucket, prefix),
        }
    }

    /// Behind this key.
    #[must_use]
    pub fn after(mut self, key: Option<String>) -> Self {
        self.pages = self.pages.after(key);
        self
    }

    /// The next page; none when the list has ended.
    pub fn next_page(&mut self) -> Result<Option<Vec<Object>>> {
        let page = self.pages.next_page().map_err(|error| {
            let what = format!("cannot list the bucket `{}`", self.target.bucket);
            self.target.client.failure(what, error)
        })?;
        Ok(page.map(|page| page.into_iter().map(Object::from).collect()))
    }
}

impl From<Listed> for Object {
    fn from(listed: Listed) -> Object {
        Object {
            key: listed.key,
            size: listed.size,
            etag: listed.etag.unwrap_or_default(),
            modified: listed.modified,
        }
    }
}

/// Where a list with two markers goes on.
#[derive(Default)]
struct Place {
    key: Option<String>,
    id: Option<String>,
    ended: bool,
}

impl Place {
    /// Behind a page. One that promises more and does not say where, or says the same place again,
    /// is an error.
    fn advance(
        &mut self,
        truncated: Option<bool>,
        next: (Option<&str>, Option<&str>),
    ) -> Result<(), S3Error> {
        if truncated != Some(true) {
            self.ended = true;
            return Ok(());
        }
        let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let next = (filled(next.0), filled(next.1));
        if next.0.is_none() || (&next.0, &next.1) == (&self.key, &self.id) {
            return Err(S3Error::ours(
                Kind::Broken,
                "the list breaks off: more is promised, but not where",
            ));
        }
        (self.key, self.id) = next;
        Ok(())
    }
}

/// The pages of a list of versions.
pub struct Versions<'a> {
    target: &'a Target,
    prefix: String,
    place: Place,
}

impl<'a> Versions<'a> {
    /// Of keys that begin with `prefix`.
    pub fn new(target: &'a Target, prefix: &str) -> Versions<'a> {
        Versions {
            target,
            prefix: prefix.to_owned(),
            place: Place::default(),
        }
    }

    /// The next page; none when the list has ended. The error is the service's, so that a server
    /// without versions can be told.
    pub fn next_page(&mut self) -> Result<Option<Vec<Version>>, S3Error> {
        if self.place.ended {
            return Ok(None);
        }
        let call = self
            .target
            .client
            .sdk()
            .list_object_versions()
            .bucket(&self.target.bucket)
            .max_keys(PAGE);
        let call = call
            .prefix(&self.prefix)
            .set_key_marker(self.place.key.clone())
            .set_version_id_marker(self.place.id.clone());
        let page = self.target.client.call(call.send())?;
        let next = (page.next_key_marker(), page.next_version_id_marker());
        self.place.advance(page.is_truncated(), next)?;
        let mut all: Vec<Version> = Vec::new();
        for version in page.versions() {
            all.push(Version {
                object: read(
                    version.key(),
                    version.size(),
                    version.e_tag(),
                    version.last_modified(),
                ),
                id: version.version_id().unwrap_or("null").to_owned(),
                latest: version.is_latest().unwrap_or(false),
                marker: false,
            });
        }
        for marker in page.delete_markers() {
            all.push(Version {
                object: read(marker.key(), None, None, marker.last_modified()),
                id: marker.version_id().unwrap_or("null").to_owned(),
                latest: marker.is_latest().unwrap_or(false),
                marker: true,
            });
        }
        Ok(Some(all))
    }
}

/// The pages of a list of uploads.
pub struct Uploads<'a> {
    target: &'a Target,
    prefix: String,
    place: Place,
}

impl<'a> Uploads<'a> {
    /// Of keys that begin with `prefix`.
    pub fn new(target: &'a Target, prefix: &str) -> Uploads<'a> {
        Uploads {
            target,
            prefix: prefix.to_owned(),
            place: Place::default(),
        }
    }

    /// The next page; none when the list has ended.
    pub fn next_page(&mut self) -> Result<Option<Vec<Upload>>, S3Error> {
        if self.place.ended {
            return Ok(None);
        }
        let call = self
            .target
            .client
            .sdk()
            .list_multipart_uploads()
            .bucket(&self.target.bucket)
            .max_uploads(PAGE);
        let call = call
            .prefix(&self.prefix)
            .set_key_marker(self.place.key.clone())
            .set_upload_id_marker(self.place.id.clone());
        let page = self.target.client.call(call.send())?;
        let next = (page.next_key_marker(), page.next_upload_id_marker());
        self.place.advance(page.is_truncated(), next)?;
        let uploads = page.uploads().iter();
        Ok(Some(
            uploads
                .map(|upload| Upload {
                    key: upload.key().unwrap_or_default().to_owned(),
                    id: upload.upload_id().unwrap_or_default().to_owned(),
                    begun: upload.initiated().and_then(time),
                })
                .collect(),
        ))
    }
}

/// How many bytes an upload holds so far, in all of its parts; none where the server cannot say.
pub fn uploaded_bytes(target: &Target, upload: &Upload) -> Option<u64> {
    let mut bytes = 0;
    let mut place: Option<String> = None;
    loop {
        let call = target
            .client
            .sdk()
            .list_parts()
            .bucket(&target.bucket)
            .key(&upload.key)
            .upload_id(&upload.id);
        let page = target
            .client
            .call(call.set_part_number_marker(place.clone()).send())
            .ok()?;
        bytes += page
            .parts()
            .iter()
            .filter_map(|part| u64::try_from(part.size()?).ok())
            .sum::<u64>();
        let next = page.next_part_number_marker().map(str::to_owned);
        if page.is_truncated() != Some(true) || next.is_none() || next == place {
            return Some(bytes);
        }
        place = next;
    }
}

fn read(
    key: Option<&str>,
    size: Option<i64>,
    etag: Option<&str>,
    modified: Option<&DateTime>,
) -> Object {
    Object {
        key: key.unwrap_or_default().to_owned(),
        size: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        etag: etag.unwrap_or_default().trim_matches('"').to_owned(),
        modified: modified.and_then(time),
    }
}

fn time(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}

/// A key for a terminal: control characters are escaped.
pub fn printable(key: &str) -> String {
    key.chars()
        .flat_map(|c| {
            let escaped: Vec<char> = if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            };
            escaped
        })
        .collect()
}
