//! What was put is read again: the service's word that it has it is not taken for it.

use std::collections::VecDeque;
use std::io::BufRead;

use tokio::task::JoinHandle;

use super::live::{Bucket, IDLE_TRIES, Known, ends_early, pause};
use super::object::{Headers, ObjectEntry};
use super::sorted::read_line;
use crate::catalog::manifest::hex;
use crate::failure::{OrFail, Result};
use crate::s3::{Kind, S3Error};
use crate::sha256::Sha256;

/// So many objects are read back at once.
const READS_MAX: usize = 8;
/// So many wrong objects are named.
pub(super) const WRONG_MAX: usize = 8;
/// So many objects with other headers are named.
const NAMED_HEADERS: usize = 3;

/// Reads every object that `entries` (lines) names and compares its content; what is wrong, in
/// words. Headers that the service does not keep are noted.
pub(super) fn read_back(
    bucket: &Bucket,
    mut entries: impl BufRead,
    notes: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut other_headers = Vec::new();
    let mut reading: VecDeque<(ObjectEntry, JoinHandle<_>)> = VecDeque::new();
    loop {
        let next = read_line::<ObjectEntry>(&mut entries)?;
        let ended = next.is_none();
        if let Some(entry) = next {
            let (bucket, key) = (bucket.clone(), entry.key.clone());
            let network = bucket.client.network().clone();
            let read = async move { digest(&bucket, &key).await };
            reading.push_back((entry, network.spawn(read)));
        }
        while reading.len() >= READS_MAX || (ended && !reading.is_empty()) {
            let Some((entry, read)) = reading.pop_front() else {
                break;
            };
            let doing = format!("read back object `{}`", entry.key);
            let found = bucket.client.wait(read)?;
            let found = found.or_fail(|| doing.clone())?;
            let found = found.map_err(|error| bucket.failure(&doing, error))?;
            match found {
                None => wrong.push(format!("object `{}` is missing", entry.key)),
                Some((_, sha256)) if sha256 != entry.sha256 => wrong.push(format!(
                    "object `{}` reads back with SHA-256 {sha256}, not {}",
                    entry.key, entry.sha256
                )),
                Some((headers, _)) if !same_headers(&entry.headers, &headers) => {
                    other_headers.push(entry.key);
                    other_headers.truncate(NAMED_HEADERS + 1);
                }
                Some(_) => {}
            }
            wrong.truncate(WRONG_MAX);
        }
        if ended {
            break;
        }
    }
    if let [first, rest @ ..] = other_headers.as_slice() {
        let more = match rest.len() {
            0 => String::new(),
            more if more < NAMED_HEADERS => format!(" and {more} more"),
            _ => " and others".to_owned(),
        };
        notes.push(format!(
            "object `{first}`{more}: the service does not keep all headers or metadata of the backup"
        ));
    }
    Ok(wrong)
}

/// Whether an object came back with what is stored beside its content. A content type where none
/// was recorded is the service's own.
pub(super) fn same_headers(wanted: &Headers, found: &Headers) -> bool {
    let mut found = found.clone();
    if wanted.content_type.is_none() {
        found.content_type = None;
    }
    *wanted == found
}

/// An object's headers and the SHA-256 of its content; none when it is not there.
async fn digest(bucket: &Bucket, key: &str) -> Result<Option<(Headers, String)>, S3Error> {
    let Some((known, mut body)) = bucket.open(key).await? else {
        return Ok(None);
    };
    let mut hash = Sha256::new();
    let (mut at, mut idle) = (0, 0);
    while at < known.size {
        match body.try_next().await {
            Ok(Some(chunk)) => {
                hash.update(&chunk);
                at += chunk.len() as u64;
                idle = 0;
            }
            // A cut connection goes on where it was cut; the next try says what is the matter.
            Ok(None) | Err(_) => {
                idle += 1;
                if idle >= IDLE_TRIES {
                    return Err(ends_early());
                }
                pause(idle).await;
                body = bucket.go_on(key, &known, at).await?;
            }
        }
    }
    Ok(Some((known.headers, hex(&hash.finalize()))))
}

/// An object's headers alone; none when it is not there.
pub(super) async fn headers(bucket: &Bucket, key: &str) -> Result<Option<Headers>, S3Error> {
    let call = bucket.client.sdk().head_object().bucket(&bucket.name);
    match call.key(key).send().await {
        Ok(answer) => Known::of_head(&answer).map(|known| Some(known.headers)),
        Err(error) => match S3Error::of(error) {
            gone if gone.kind == Kind::NoObject => Ok(None),
            error => Err(error),
        },
    }
}
