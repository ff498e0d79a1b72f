//! A small object that is put to be asked for, and always taken back.

use std::cell::RefCell;

use aws_sdk_s3::primitives::ByteStream;
use rg_common::Result;
use rg_common::s3::{Kind, S3Error};

use crate::target::Target;

/// What it says, for whoever finds one.
pub const TEXT: &[u8] = b"written by rg-bucket to try this bucket; it can be deleted\n";

/// A canary in a bucket. [`Canary::remove`] says whether it went; one that is dropped is removed
/// too, and the log says when that failed.
pub struct Canary<'a> {
    target: &'a Target,
    key: String,
    /// Every version that was written, so that none stays in a bucket with versions.
    versions: RefCell<Vec<Option<String>>>,
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
            versions: RefCell::new(vec![None]),
            gone: false,
        };
        let call = target
            .client
            .sdk()
            .put_object()
            .bucket(&target.bucket)
            .key(&canary.key);
        match target
            .client
            .call(call.body(ByteStream::from_static(TEXT)).send())
        {
            Ok(put) => {
                canary.versions = RefCell::new(vec![put.version_id]);
                Ok(canary)
            }
            Err(error) => {
                // A refusal wrote nothing.
                canary.gone = error.kind == Kind::Denied;
                let what = format!("cannot write an object into the bucket `{}`", target.bucket);
                Err(target.client.failure(what, error))
            }
        }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// It was written once more, as this version.
    pub fn also(&self, version: Option<String>) {
        self.versions.borrow_mut().push(version);
    }

    /// Takes it back, with its versions where there are versions.
    pub fn remove(mut self) -> Result<()> {
        self.gone = true;
        self.delete().map_err(|error| {
            let what = format!(
                "cannot delete the object that was written to try the bucket: {}",
                self.key
            );
            self.target.client.failure(what, error)
        })
    }

    /// The same, and whether it is really gone.
    pub fn remove_and_see(self) -> Result<bool> {
        let (target, key) = (self.target, self.key.clone());
        self.remove()?;
        let head = target
            .client
            .sdk()
            .head_object()
            .bucket(&target.bucket)
            .key(key)
            .send();
        match target.client.call(head) {
            Err(error) if error.kind == Kind::NoObject => Ok(true),
            // A key without the right to list is told "denied" of what is not there.
            Err(error) if error.kind == Kind::Denied => Ok(true),
            Ok(_) => Ok(false),
            Err(error) => Err(target
                .client
                .failure("cannot see whether the object is gone", error)),
        }
    }

    fn delete(&self) -> Result<(), S3Error> {
        for version in self.versions.borrow().iter() {
            let version = version.clone().filter(|version| version != "null");
            let call = self
                .target
                .client
                .sdk()
                .delete_object()
                .bucket(&self.target.bucket)
                .key(&self.key)
                .set_version_id(version);
            match self.target.client.clean_up(call.send()) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(S3Error::of(error)),
                None => return Err(S3Error::ours(Kind::TooLate, "")),
            }
        }
        Ok(())
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
