//! What lies below a prefix: all of it, each object once, or an error; and the sweep of uploads that
//! nobody goes on with.

use super::Bucket;
use crate::s3::{self, Kind, ObjectPages, S3Error};
use crate::store::{Key, Object};

/// Abandoned uploads younger than this are left alone: another machine may still be writing.
pub(super) const ABANDONED_AGE_SECONDS: i64 = super::lease::LEASE_SECONDS;

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
    let mut pages = ObjectPages::new(&store.client, &store.place.bucket, below);
    while let Some(page) = pages.next_page()? {
        // Names that no store can have are not ours: `folder/`, `.hidden`.
        let ours = page.into_iter().filter_map(|object| {
            let key = Key::new(object.key.get(strip..)?).ok()?;
            Some(Object {
                key,
                bytes: object.size,
            })
        });
        objects.extend(ours);
    }
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    if let Some(twice) = objects.windows(2).find(|two| two[0].key == two[1].key) {
        let said = format!("the list holds `{}` twice", twice[0].key);
        return Err(S3Error::ours(Kind::Broken, said));
    }
    Ok(objects)
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
                s3::abort_upload(&store.client, &store.place.bucket, key, id)?;
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
