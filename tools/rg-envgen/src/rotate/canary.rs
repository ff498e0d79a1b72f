//! What proves that a pair works: a bucket is listed, and an object is put, read and taken back.

use aws_sdk_s3::primitives::ByteStream;
use rg_common::s3::{Client, S3Error};
use rg_common::{Failure, OrFail, Result};

/// What is put to prove a pair, for whoever finds one.
const CANARY: &[u8] = b"written by rg-envgen to prove an access key; it can be deleted\n";
/// What a canary met.
pub(super) enum Trouble {
    /// The service refused.
    Refused(S3Error),
    /// What was read is not what was written, or could not be read to its end.
    Else(Failure),
}

impl Trouble {
    pub(super) fn said(self, client: &Client, bucket: &str) -> Failure {
        match self {
            Trouble::Refused(error) => {
                client.failure(format!("cannot use the bucket {bucket}"), error)
            }
            Trouble::Else(failure) => failure,
        }
    }
}

/// Lists a bucket, one key of it.
pub(super) fn list(client: &Client, bucket: &str) -> Result<(), S3Error> {
    let call = client.sdk().list_objects_v2().bucket(bucket).max_keys(1);
    client.call(call.send()).map(drop)
}

/// Whether what is written there could not be deleted again.
pub(super) fn locks(client: &Client, bucket: &str) -> bool {
    let call = client.sdk().get_object_lock_configuration().bucket(bucket);
    let found = client.call(call.send());
    found.is_ok_and(|found| {
        let settings = found.object_lock_configuration();
        settings.is_some_and(|settings| settings.rule().is_some())
    })
}

/// Puts an object, reads it back and takes it away, with its version where there are versions.
pub(super) fn canary(client: &Client, bucket: &str, key: &str) -> Result<(), Trouble> {
    let sdk = client.sdk();
    let put = sdk.put_object().bucket(bucket).key(key);
    let put = client.call(put.body(ByteStream::from_static(CANARY)).send());
    let put = put.map_err(Trouble::Refused)?;
    let read = || {
        let got = client.call(sdk.get_object().bucket(bucket).key(key).send());
        let body = client.wait(got.map_err(Trouble::Refused)?.body.collect());
        let body = body.map_err(Trouble::Else)?;
        let body = body
            .or_fail(|| format!("cannot read {key}"))
            .map_err(Trouble::Else)?;
        match body.into_bytes() == CANARY {
            true => Ok(()),
            false => Err(Trouble::Else(Failure::new(format!(
                "{key} in the bucket {bucket} holds other bytes than were put"
            )))),
        }
    };
    let read = read();
    let version = put.version_id.filter(|version| version != "null");
    let delete = sdk.delete_object().bucket(bucket).key(key);
    let deleted = client.call(delete.set_version_id(version).send());
    read.and(deleted.map(drop).map_err(Trouble::Refused))
}

/// Takes away what a run that was killed between put and delete left, with all its versions.
pub(super) fn sweep(client: &Client, bucket: &str, key: &str) -> Result<(), S3Error> {
    let sdk = client.sdk();
    let versions = sdk.list_object_versions().bucket(bucket).prefix(key);
    let found = client.call(versions.send());
    let mut versions: Vec<Option<String>> = Vec::new();
    if let Ok(found) = found {
        let ours = |name: Option<&str>| name == Some(key);
        let of = |id: Option<&str>| id.filter(|id| *id != "null").map(str::to_owned);
        let objects = found.versions().iter().filter(|one| ours(one.key()));
        versions.extend(objects.map(|one| of(one.version_id())));
        let markers = found.delete_markers().iter().filter(|one| ours(one.key()));
        versions.extend(markers.map(|one| of(one.version_id())));
    } else {
        // A server without versions, or a key that may not list them.
        let there = client.call(sdk.head_object().bucket(bucket).key(key).send());
        versions.extend(there.is_ok().then_some(None));
    }
    for version in versions {
        let call = sdk.delete_object().bucket(bucket).key(key);
        client.call(call.set_version_id(version).send())?;
    }
    Ok(())
}
