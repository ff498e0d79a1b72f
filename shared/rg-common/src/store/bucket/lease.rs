//! Who may write below a prefix.
//!
//! On one machine the kernel's own lock decides, which dies with its process. Between machines a
//! small object does, `.rg-lock`, that names its writer and is written anew every minute and a
//! half. One that nobody has renewed for [`LEASE_SECONDS`], by the service's clock, counts for
//! nothing, and neither does one of this same machine: the kernel's lock has shown that its writer
//! is dead. So it never goes stale.
//!
//! The limit: it is made with `If-None-Match`, and services without conditional writes (Garage,
//! older MinIO, B2) let two machines win that begin within one round trip of each other. There each
//! reads it back once, which finds most such meetings, not all. Give each machine a prefix of its
//! own and the question does not arise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::primitives::ByteStream;
use serde::{Deserialize, Serialize};

use super::{Bucket, LOCK};
use crate::failure::{Failure, OrFail, Result};
use crate::s3::{self, Client, Kind, S3Error};
use crate::stop;

/// For how long a lease holds that is not renewed.
pub(super) const LEASE_SECONDS: i64 = 300;
/// How often it is renewed: twice may fail.
const RENEW: Duration = Duration::from_secs(90);
/// How long to wait for another machine before naming it.
const WAIT: Duration = Duration::from_secs(10);
/// How often to look meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// A lease is a line.
const BYTES_MAX: u64 = 4 << 10;

/// A lease that is held; given back when dropped.
pub struct Lease {
    spot: Spot,
    renewing: tokio::task::JoinHandle<()>,
    lost: Arc<AtomicBool>,
}

/// What stands in the object.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
struct Holder {
    host: String,
    process: u32,
    nonce: String,
}

#[derive(Clone)]
struct Spot {
    client: Client,
    bucket: String,
    key: String,
    holder: Holder,
}

/// Another machine's lease.
struct Other {
    holder: Option<Holder>,
    etag: Option<String>,
    age_seconds: i64,
}

impl Bucket {
    /// An error once another machine took over what is being written.
    pub(super) fn check_lease(&self) -> Result<(), S3Error> {
        if !self.lost.load(Ordering::Relaxed) {
            return Ok(());
        }
        let failure = Failure::new("another machine writes there now").hint(format!(
            "the lease could not be renewed for {LEASE_SECONDS} s; run it again when the other has ended"
        ));
        Err(S3Error::stopped(failure))
    }
}

/// Takes the lease of a prefix. This host's own lock is held already.
pub(super) fn take(store: &Bucket, prefix: &str) -> Result<Lease> {
    let mut nonce = [0u8; 8];
    getrandom::fill(&mut nonce).or_fail(|| "cannot get random bytes from the system".to_owned())?;
    let spot = Spot {
        client: store.client.clone(),
        bucket: store.place.bucket.clone(),
        key: format!("{}/{LOCK}", store.full(prefix)),
        holder: Holder {
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            process: std::process::id(),
            nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
    };
    let what = || format!("cannot lock {prefix} in store `{}`", store.name);
    let began = Instant::now();
    loop {
        match spot.client.wait(spot.try_take())? {
            Ok(None) => break,
            Ok(Some(other)) if began.elapsed() >= WAIT => {
                let who = other.holder.map_or_else(
                    || "somebody".to_owned(),
                    |holder| format!("process {} on {}", holder.process, holder.host),
                );
                let left = (LEASE_SECONDS - other.age_seconds).max(0);
                return Err(Failure::new(format!(
                    "{prefix} in store `{}` is in use by {who}",
                    store.name
                ))
                .hint(format!(
                    "if that machine is gone for good, its lease ends in {left} s by itself"
                )));
            }
            Ok(Some(_)) => stop::pause(LOOK)?,
            Err(error) => return Err(spot.client.failure(what(), error)),
        }
    }
    store.lost.store(false, Ordering::Relaxed);
    let lost = Arc::clone(&store.lost);
    let task = renew(spot.clone(), Arc::clone(&lost));
    Ok(Lease {
        renewing: spot.client.network().spawn(task),
        spot,
        lost,
    })
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
        if self.lost.load(Ordering::Relaxed) {
            // It is another's now.
            return;
        }
        let call = self.spot.client.sdk().delete_object();
        let call = call.bucket(&self.spot.bucket).key(&self.spot.key).send();
        if let Some(Err(error)) = self.spot.client.clean_up(call) {
            // Left behind it ends by itself, and at once for this machine.
            tracing::debug!("the lease was not given back: {}", S3Error::of(error));
        }
    }
}

async fn renew(spot: Spot, lost: Arc<AtomicBool>) {
    let mut since = tokio::time::Instant::now();
    let limit = Duration::from_secs(LEASE_SECONDS.unsigned_abs());
    loop {
        tokio::time::sleep(RENEW).await;
        let ours = match spot.read().await {
            Ok(other) => other.is_some_and(|other| other.holder.as_ref() == Some(&spot.holder)),
            Err(_) => since.elapsed() < limit,
        };
        if !ours {
            lost.store(true, Ordering::Relaxed);
            return;
        }
        if spot.write(Condition::None).await.is_ok() {
            since = tokio::time::Instant::now();
        } else if since.elapsed() >= limit {
            lost.store(true, Ordering::Relaxed);
            return;
        }
    }
}

enum Condition {
    Absent,
    Still(Option<String>),
    None,
}

impl Spot {
    /// One attempt; who holds it if it is not us now.
    async fn try_take(&self) -> Result<Option<Other>, S3Error> {
        let condition = match self.read().await? {
            None => Condition::Absent,
            Some(other) if !self.may_replace(&other) => return Ok(Some(other)),
            Some(other) => Condition::Still(other.etag),
        };
        match self.write(condition).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::Precondition => {}
            Err(error) => return Err(error),
        }
        // Where conditions are ignored the last writer wins, and this tells who that was.
        Ok(self
            .read()
            .await?
            .filter(|found| found.holder.as_ref() != Some(&self.holder)))
    }

    fn may_replace(&self, other: &Other) -> bool {
        let same_host = other
            .holder
            .as_ref()
            .is_some_and(|holder| holder.host == self.holder.host);
        same_host || other.age_seconds >= LEASE_SECONDS
    }

    async fn read(&self) -> Result<Option<Other>, S3Error> {
        let call = self.client.sdk().get_object();
        let answer = match call.bucket(&self.bucket).key(&self.key).send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match S3Error::of(error) {
                    error if error.kind == Kind::NoObject => Ok(None),
                    error => Err(error),
                };
            }
        };
        let written = answer.last_modified().map(|time| time.secs());
        let now = self.client.service_time();
        let etag = answer.e_tag().map(str::to_owned);
        let short = answer
            .content_length()
            .is_some_and(|length| u64::try_from(length).is_ok_and(|length| length <= BYTES_MAX));
        let holder = match answer.body.collect().await {
            Ok(bytes) if short => serde_json::from_slice(&bytes.into_bytes()).ok(),
            _ => None,
        };
        Ok(Some(Other {
            holder,
            etag,
            age_seconds: now.zip(written).map_or(0, |(now, written)| now - written),
        }))
    }

    async fn write(&self, condition: Condition) -> Result<(), S3Error> {
        let text = serde_json::to_vec(&self.holder).unwrap_or_default();
        let call = |condition: &Condition| {
            let call = self.client.sdk().put_object();
            let call = call
                .bucket(&self.bucket)
                .key(&self.key)
                .content_md5(s3::base64(&s3::md5(&text)))
                .body(ByteStream::from(text.clone()));
            match condition {
                Condition::Absent => call.if_none_match("*"),
                Condition::Still(etag) => call.set_if_match(etag.clone()),
                Condition::None => call,
            }
            .send()
        };
        match call(&condition).await.map_err(S3Error::of) {
            // B2 has no conditions and says so.
            Err(error) if error.is_unsupported() => {
                call(&Condition::None).await.map_err(S3Error::of)?;
            }
            other => {
                other?;
            }
        }
        Ok(())
    }
}
