//! Lists of objects and of uploads, page by page.
//!
//! A page that repeats what came before, that lies outside what was asked for, that holds fewer
//! keys than it says, or that promises more and does not say where, is an error: a list that is too
//! short would make retention and `sync` believe that backups are gone.

use std::collections::HashSet;

use super::Bucket;
use crate::s3::{Kind, S3Error};
use crate::store::{Key, Object};

/// Abandoned uploads younger than this are left alone: another machine may still be writing.
pub(super) const ABANDONED_AGE_SECONDS: i64 = super::lease::LEASE_SECONDS;
/// So many pages in a row may be empty and still promise more.
const EMPTY_PAGES_MAX: u32 = 10;

/// Everything below `prefix/`, sorted by key.
pub(super) fn all(store: &Bucket, prefix: &str) -> Result<Vec<Object>, S3Error> {
    let below = match store.full(prefix) {
        whole if whole.is_empty() => whole,
        part => format!("{part}/"),
    };
    let strip = match store.place.prefix.len() {
        0 => 0,
        length => length + 1,
    };
    let mut objects = Vec::new();
    let mut token: Option<String> = None;
    // Services sort in different ways (SeaweedFS by folder), so that only a page that begins where
    // an earlier one began tells a list that goes round in circles.
    let mut begins = HashSet::new();
    let mut empty = 0;
    loop {
        let call = store.client.sdk().list_objects_v2();
        let call = call
            .bucket(&store.place.bucket)
            .prefix(&below)
            .set_continuation_token(token.clone());
        let page = store.client.call(call.send())?;
        let contents = page.contents();
        if page
            .key_count()
            .is_some_and(|count| usize::try_from(count) != Ok(contents.len()))
        {
            return Err(broken(format!(
                "a page of the list says {} keys and holds {}",
                page.key_count().unwrap_or_default(),
                contents.len()
            )));
        }
        if let Some(first) = contents.first().and_then(|object| object.key())
            && !begins.insert(first.to_owned())
        {
            return Err(broken(format!("the list comes to `{first}` a second time")));
        }
        for object in contents {
            let full = object.key().unwrap_or_default();
            if !full.starts_with(&below) {
                return Err(broken(format!(
                    "the list holds `{full}`, outside `{below}`"
                )));
            }
            let bytes = u64::try_from(object.size().unwrap_or(-1));
            let bytes = bytes.map_err(|_| broken(format!("the list gives no size of `{full}`")))?;
            // Names that no store can have are not ours: `folder/`, `.hidden`.
            if let Ok(key) = Key::new(&full[strip..]) {
                objects.push(Object { key, bytes });
            }
        }
        if page.is_truncated() != Some(true) {
            break;
        }
        empty = if contents.is_empty() { empty + 1 } else { 0 };
        let next = page.next_continuation_token().map(str::to_owned);
        if next.is_none() || next == token || empty > EMPTY_PAGES_MAX {
            return Err(broken(
                "the list breaks off: more is promised, but not where".into(),
            ));
        }
        token = next;
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    if let Some(twice) = objects.windows(2).find(|two| two[0].key == two[1].key) {
        return Err(broken(format!("the list holds `{}` twice", twice[0].key)));
    }
    Ok(objects)
}

fn broken(said: String) -> S3Error {
    S3Error::ours(Kind::Broken, said)
}

/// Aborts uploads below `prefix/` that nobody has gone on with. A service without the call keeps
/// them until its own rule removes them.
pub(super) fn sweep(store: &Bucket, prefix: &str) -> Result<(), S3Error> {
    let below = format!("{}/", store.full(prefix));
    let (mut key_marker, mut id_marker) = (None::<String>, None::<String>);
    loop {
        let call = store.client.sdk().list_multipart_uploads();
        let call = call
            .bucket(&store.place.bucket)
            .prefix(&below)
            .set_key_marker(key_marker.clone())
            .set_upload_id_marker(id_marker.clone());
        let page = match store.client.call(call.send()) {
            Ok(page) => page,
            Err(error)
                if matches!(error.kind, Kind::Stopped | Kind::Denied) || error.is_passing() =>
            {
                return Err(error);
            }
            Err(error) => {
                tracing::debug!("{} lists no uploads: {error}", store.client.shown());
                return Ok(());
            }
        };
        let now = store.client.service_time();
        for upload in page.uploads() {
            let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else {
                continue;
            };
            let begun = upload
                .initiated()
                .map(aws_sdk_s3::primitives::DateTime::secs);
            let old = begun
                .zip(now)
                .is_some_and(|(begun, now)| now - begun >= ABANDONED_AGE_SECONDS);
            if key.starts_with(&below) && old {
                tracing::info!(%key, "aborting an upload that a killed run left");
                super::upload::abort(store, key, id)?;
            }
        }
        let next = (
            page.next_key_marker().map(str::to_owned),
            page.next_upload_id_marker().map(str::to_owned),
        );
        if page.is_truncated() != Some(true) || next == (key_marker.clone(), id_marker.clone()) {
            return Ok(());
        }
        (key_marker, id_marker) = next;
    }
}
