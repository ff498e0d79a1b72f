//! A small object that is put to be asked for, and always taken back.

use aws_sdk_s3::primitives::ByteStream;
use rg_common::Result;

use crate::target::Target;

/// What it says, for whoever finds one.
pub const TEXT: &[u8] = b"written by rg-bucket to try this bucket; it can be deleted\n";

/// A canary in a bucket; [`Canary::remove`] says whether it went, dropping removes it silently.
pub struct Canary<'a> {
    target: &'a Target,
    key: String,
    version: Option<String>,
    gone: bool,
}

impl<'a> Canary<'a> {
    /// Puts one under a name that nobody uses.
    pub fn put(target: &'a Target) -> Result<Canary<'a>> {
        let key = format!("{}{}", target.prefix, crate::nonce("rg-probe-")?);
        // Made before the call: one that was cut off may have written all the same.
        let mut canary = Canary {
            target,
            key,
            version: None,
            gone: false,
        };
        let call = target
            .client
            .sdk()
            .put_object()
            .bucket(&target.bucket)
            .key(&canary.key);
        let put = target
            .client
            .call(call.body(ByteStream::from_static(TEXT)).send())
            .map_err(|error| {
                target.client.failure(
                    format!("cannot write an object into the bucket `{}`", target.bucket),
                    error,
                )
            })?;
        canary.version = put.version_id;
        Ok(canary)
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Takes it back, with its version where there are versions.
    pub fn remove(mut self) -> Result<()> {
        self.gone = true;
        let key = self.key.clone();
        self.delete().map_err(|error| {
            self.target.client.failure(
                format!("cannot delete the object that was written to try the bucket: {key}"),
                error,
            )
        })
    }

    fn delete(&self) -> Result<(), rg_common::s3::S3Error> {
        let call = self
            .target
            .client
            .sdk()
            .delete_object()
            .bucket(&self.target.bucket)
            .key(&self.key);
        let call = call
            .set_version_id(self.version.clone().filter(|version| version != "null"))
            .send();
        match self.target.client.clean_up(call) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(rg_common::s3::S3Error::of(error)),
            None => Err(rg_common::s3::S3Error::ours(
                rg_common::s3::Kind::TooLate,
                "",
            )),
        }
    }
}

impl Drop for Canary<'_> {
    fn drop(&mut self) {
        if !self.gone && self.delete().is_err() {
            tracing::warn!(
                "{} in the bucket `{}` could not be deleted",
                self.key,
                self.target.bucket
            );
        }
    }
}
