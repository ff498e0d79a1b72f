//! A small object that is put to be asked for, and always taken back.

use std::cell::RefCell;

use aws_sdk_s3::primitives::ByteStream;

use super::{Client, Kind, S3Error};
use crate::failure::{OrFail, Result};

/// What it says, for whoever finds one.
pub const TEXT: &[u8] = b"written by rg to try this bucket; it can be deleted\n";

/// A canary in a bucket. [`Canary::remove`] says whether it went; one that is dropped is removed
/// too, and the log says when that failed.
pub struct Canary<'a> {
    client: &'a Client,
    bucket: &'a str,
    key: String,
    /// Every version that was written, so that none stays in a bucket with versions.
    versions: RefCell<Vec<Option<String>>>,
    gone: bool,
}

impl<'a> Canary<'a> {
    /// Puts one under a name that nobody uses. `prefix` is what every key of ours begins with.
    pub fn put(client: &'a Client, bucket: &'a str, prefix: &str) -> Result<Canary<'a>> {
        let key = format!("{prefix}{}", nonce("rg-probe-")?);
        // Made before the call: one that was cut off may have written all the same.
        let mut canary = Canary {
            client,
            bucket,
            key,
            versions: RefCell::new(vec![None]),
            gone: false,
        };
        let call = client.sdk().put_object().bucket(bucket).key(&canary.key);
        match client.call(call.body(ByteStream::from_static(TEXT)).send()) {
            Ok(put) => {
                canary.versions = RefCell::new(vec![put.version_id]);
                Ok(canary)
            }
            Err(error) => {
                // A refusal wrote nothing.
                canary.gone = error.kind == Kind::Denied;
                let what = format!("cannot write an object into the bucket `{bucket}`");
                Err(client.failure(what, error))
            }
        }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Reads it back.
    pub fn get(&self) -> Result<Vec<u8>> {
        let what = || format!("cannot read an object in the bucket `{}`", self.bucket);
        let call = self
            .client
            .sdk()
            .get_object()
            .bucket(self.bucket)
            .key(&self.key);
        let got = self
            .client
            .call(call.send())
            .map_err(|error| self.client.failure(what(), error))?;
        // No longer than what was put, and a byte that shows that it is longer.
        let mut body = got.body;
        let mut bytes = Vec::new();
        while bytes.len() <= TEXT.len() {
            match self.client.wait(body.next())? {
                Some(part) => bytes.extend_from_slice(&part.or_fail(what)?),
                None => break,
            }
        }
        Ok(bytes)
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
            self.client.failure(what, error)
        })
    }

    /// The same, and whether it is really gone.
    pub fn remove_and_see(self) -> Result<bool> {
        let (client, bucket, key) = (self.client, self.bucket, self.key.clone());
        self.remove()?;
        let head = client.sdk().head_object().bucket(bucket).key(key).send();
        match client.call(head) {
            Err(error) if error.kind == Kind::NoObject => Ok(true),
            // A key without the right to list is told "denied" of what is not there.
            Err(error) if error.kind == Kind::Denied => Ok(true),
            Ok(_) => Ok(false),
            Err(error) => Err(client.failure("cannot see whether the object is gone", error)),
        }
    }

    fn delete(&self) -> Result<(), S3Error> {
        for version in self.versions.borrow().iter() {
            let version = version.clone().filter(|version| version != "null");
            let call = self
                .client
                .sdk()
                .delete_object()
                .bucket(self.bucket)
                .key(&self.key)
                .set_version_id(version);
            match self.client.clean_up(call.send()) {
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
                self.bucket
            );
        }
    }
}

/// A name that nobody uses: `begin` and 16 random hexadecimal digits.
pub fn nonce(begin: &str) -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).or_fail(|| "the system gives no random numbers".to_owned())?;
    Ok(format!("{begin}{:016x}", u64::from_be_bytes(bytes)))
}
