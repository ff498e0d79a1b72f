//! The list of a bucket's objects, a page at a time: the one loop that all tools list by.
//!
//! The promise: everything below a prefix, or an error. A page that repeats what came before, that
//! lies outside what was asked for, that holds fewer keys than it says, or that promises more and
//! does not say where, is an error: a list that is too short would make retention and `sync` believe
//! that backups are gone, and a mirror delete what is there. The order is the service's: not all of
//! them list by the keys' bytes. One page is in memory, and eight bytes of each before it.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::Object;
use jiff::Timestamp;

use super::{Client, Kind, S3Error};

/// Entries a page; the most that S3 gives.
pub const PAGE: i32 = 1000;
/// So many pages in a row may be empty and still promise more.
const EMPTY_PAGES_MAX: u32 = 10;

/// An object as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key, whole.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The service's tag without its quotes.
    pub etag: Option<String>,
    /// When it was written, in whole seconds: some services give a list with fractions and an
    /// object's own answer without.
    pub modified: Option<Timestamp>,
}

/// The pages of a list of objects.
pub struct ObjectPages<'a> {
    client: &'a Client,
    bucket: &'a str,
    prefix: String,
    after: Option<String>,
    token: Option<String>,
    // As services sort in different ways, only a page that begins where an earlier one began tells a
    // list that goes round in circles.
    begins: HashSet<u64>,
    hasher: RandomState,
    empty: u32,
    ended: bool,
}

impl<'a> ObjectPages<'a> {
    /// Of all keys that begin with `prefix`; nothing is asked yet.
    pub fn new(client: &'a Client, bucket: &'a str, prefix: impl Into<String>) -> Self {
        ObjectPages {
            client,
            bucket,
            prefix: prefix.into(),
            after: None,
            token: None,
            begins: HashSet::new(),
            hasher: RandomState::new(),
            empty: 0,
            ended: false,
        }
    }

    /// Only what the service lists behind this key.
    #[must_use]
    pub fn after(mut self, key: Option<String>) -> Self {
        self.after = key;
        self
    }

    /// The next page, which may be empty; none when the list has ended.
    pub fn next_page(&mut self) -> Result<Option<Vec<Listed>>, S3Error> {
        if self.ended {
            return Ok(None);
        }
        let call = self.client.sdk().list_objects_v2();
        let call = call
            .bucket(self.bucket)
            .max_keys(PAGE)
            .set_prefix(Some(self.prefix.clone()).filter(|prefix| !prefix.is_empty()))
            .set_continuation_token(self.token.clone())
            .set_start_after(self.after.take_if(|_| self.token.is_none()));
        let page = self.client.call(call.send())?;
        self.look(&page)?;
        let objects = page.contents().iter();
        let objects: Result<Vec<Listed>, S3Error> =
            objects.map(|object| self.read(object)).collect();
        self.advance(&page)?;
        objects.map(Some)
    }

    /// Whether a page can be what was asked for.
    fn look(&mut self, page: &ListObjectsV2Output) -> Result<(), S3Error> {
        let contents = page.contents();
        if let Some(count) = page.key_count()
            && usize::try_from(count) != Ok(contents.len())
        {
            let held = contents.len();
            return Err(broken(format!(
                "a page of the list says {count} keys and holds {held}"
            )));
        }
        if let Some(first) = contents.first().and_then(Object::key)
            && !self.begins.insert(self.hasher.hash_one(first))
        {
            return Err(broken(format!("the list comes to `{first}` a second time")));
        }
        Ok(())
    }

    fn read(&self, object: &Object) -> Result<Listed, S3Error> {
        let Some(key) = object.key() else {
            return Err(broken("the list holds an object without a key".to_owned()));
        };
        if !key.starts_with(&self.prefix) {
            let prefix = &self.prefix;
            return Err(broken(format!(
                "the list holds `{key}`, outside `{prefix}`"
            )));
        }
        let size = object.size().and_then(|size| u64::try_from(size).ok());
        Ok(Listed {
            key: key.to_owned(),
            size: size.ok_or_else(|| broken(format!("the list gives no size of `{key}`")))?,
            etag: object.e_tag().map(|etag| etag.trim_matches('"').to_owned()),
            modified: object.last_modified().and_then(time),
        })
    }

    /// Behind a page.
    fn advance(&mut self, page: &ListObjectsV2Output) -> Result<(), S3Error> {
        if page.is_truncated() != Some(true) {
            self.ended = true;
            return Ok(());
        }
        self.empty = match page.contents() {
            [] => self.empty + 1,
            _ => 0,
        };
        let next = page.next_continuation_token().map(str::to_owned);
        if next.is_none() || next == self.token || self.empty > EMPTY_PAGES_MAX {
            let said = "the list breaks off: more is promised, but not where";
            return Err(broken(said.to_owned()));
        }
        self.token = next;
        Ok(())
    }
}

fn broken(said: String) -> S3Error {
    S3Error::ours(Kind::Broken, said)
}

fn time(time: &DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}
