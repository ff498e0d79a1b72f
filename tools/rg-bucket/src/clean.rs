//! `clean`: uploads that were never completed, which are paid for and never seen, and, only when
//! the bucket's own name is typed, everything in a bucket.
//!
//! What is deleted is counted first, and afterwards it is looked again: what is still there makes
//! it bad news. A bucket that holds backups is never emptied from here.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::s3::S3Error;
use rg_common::{Failure, Result, stop};
use serde::Serialize;

use crate::pages::{Objects, Upload, Uploads, Version, Versions, printable, uploaded_bytes};
use crate::target::{Target, choose_one};
use crate::{args, span, typed};

/// Deletions side by side: one call each, because not every server takes a batch.
const PARALLEL: usize = 8;
/// So many uploads or refusals are named; all are counted.
const SHOWN_MAX: usize = 1000;

#[derive(Serialize, Default)]
struct Cleaned {
    name: String,
    bucket: String,
    /// Whether nothing was deleted because of `--dry-run`.
    dry_run: bool,
    uploads: Vec<Abandoned>,
    upload_count: u64,
    upload_bytes: u64,
    /// Uploads that are too young.
    left_alone: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<Counted>,
    /// What could not be deleted, and why.
    refused: Vec<String>,
    /// What was found when it was looked again.
    still_there: u64,
}

#[derive(Serialize)]
struct Abandoned {
    key: String,
    upload: String,
    age_seconds: Option<i64>,
    bytes: Option<u64>,
}

/// What lies in a bucket before it is emptied.
#[derive(Serialize, Default, Clone, Copy)]
struct Counted {
    objects: u64,
    old_versions: u64,
    delete_markers: u64,
    bytes: u64,
}

/// `rg-bucket clean`
pub fn clean(context: &Context, args: &args::Clean) -> Result<Box<dyn Report>> {
    let older = span::parse(&args.older_than)?;
    let config = context.config()?;
    let target = choose_one(&config, args.bucket.as_deref())?.open(context, &config)?;
    let prefix = format!("{}{}", target.prefix, args.prefix);
    let mut cleaned = Cleaned {
        name: target.name.clone(),
        bucket: target.bucket.clone(),
        dry_run: args.dry_run,
        ..Cleaned::default()
    };
    if args.all_objects {
        empty(&target, &prefix, args, &mut cleaned)?;
    } else {
        sweep(context, &target, &prefix, older, args, &mut cleaned)?;
    }
    Ok(Box::new(cleaned))
}

fn sweep(
    context: &Context,
    target: &Target,
    prefix: &str,
    older: Duration,
    args: &args::Clean,
    cleaned: &mut Cleaned,
) -> Result<()> {
    let mut chosen: Vec<Upload> = Vec::new();
    for upload in all_uploads(target, prefix)? {
        // One of unknown age may be running.
        if age(context.now, upload.begun)
            .is_none_or(|age| age < i64::try_from(older.as_secs()).unwrap_or(i64::MAX))
        {
            cleaned.left_alone += 1;
            continue;
        }
        let bytes = uploaded_bytes(target, &upload);
        cleaned.upload_count += 1;
        cleaned.upload_bytes += bytes.unwrap_or(0);
        if cleaned.uploads.len() < SHOWN_MAX {
            cleaned.uploads.push(Abandoned {
                key: upload.key.clone(),
                upload: upload.id.clone(),
                age_seconds: age(context.now, upload.begun),
                bytes,
            });
        }
        chosen.push(upload);
    }
    if chosen.is_empty() || args.dry_run {
        return Ok(());
    }
    let (count, bytes) = (
        report::counted(cleaned.upload_count, "abandoned uploads"),
        report::bytes(cleaned.upload_bytes),
    );
    context.confirm(
        &format!("drop {count} ({bytes}) in {}?", target.shown()),
        args.yes,
    )?;
    let calls = chosen.iter().map(|upload| {
        let call = target.client.sdk().abort_multipart_upload();
        let call = call
            .bucket(&target.bucket)
            .key(&upload.key)
            .upload_id(&upload.id);
        async move { (upload, call.send().await.map_err(S3Error::of)) }
    });
    let ended = target.client.wait(
        stream::iter(calls)
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>(),
    )?;
    for (upload, outcome) in ended {
        if let Err(error) = outcome {
            cleaned.refuse(format!("{}: {error}", upload.key));
        }
    }
    let left = all_uploads(target, prefix)?;
    cleaned.still_there = left
        .iter()
        .filter(|upload| chosen.iter().any(|gone| gone.id == upload.id))
        .count() as u64;
    Ok(())
}

/// Every upload; they are few, or something is very wrong: bounded by [`UPLOADS_MAX`].
fn all_uploads(target: &Target, prefix: &str) -> Result<Vec<Upload>> {
    /// More open uploads than this are swept in several runs.
    const UPLOADS_MAX: usize = 100_000;
    let mut all = Vec::new();
    let mut pages = Uploads::new(target, prefix);
    while all.len() < UPLOADS_MAX {
        stop::check()?;
        let page = pages.next_page().map_err(|error| {
            target.client.failure(
                format!("cannot list the uploads in the bucket `{}`", target.bucket),
                error,
            )
        })?;
        match page {
            Some(page) => all.extend(page),
            None => break,
        }
    }
    Ok(all)
}

fn age(now: Timestamp, begun: Option<Timestamp>) -> Option<i64> {
    begun.map(|begun| now.as_second() - begun.as_second())
}

fn empty(target: &Target, prefix: &str, args: &args::Clean, cleaned: &mut Cleaned) -> Result<()> {
    if target.is_store {
        return Err(Failure::new(format!(
            "{} holds backups and is not emptied from here",
            target.name
        ))
        .hint("`rg-backup prune` deletes what retention no longer wants"));
    }
    let mut counted = Counted::default();
    let mut things = Things::new(target, prefix);
    while let Some(page) = things.next_page()? {
        for thing in page {
            match (thing.marker, thing.latest) {
                (true, _) => counted.delete_markers += 1,
                (false, true) => counted.objects += 1,
                (false, false) => counted.old_versions += 1,
            }
            counted.bytes += thing.object.size;
        }
    }
    cleaned.objects = Some(counted);
    if counted.all() == 0 || args.dry_run {
        return Ok(());
    }
    let below = if prefix.is_empty() {
        String::new()
    } else {
        format!(" below {}", printable(prefix))
    };
    let question = format!(
        "delete {} from {}{below}, for ever?",
        counted.said(),
        target.shown()
    );
    typed::confirm(&question, &target.bucket, args.confirm.as_deref())?;
    let mut things = Things::new(target, prefix);
    while let Some(page) = things.next_page()? {
        for error in delete(target, &page)? {
            cleaned.refuse(error);
        }
    }
    let mut things = Things::new(target, prefix);
    while let Some(page) = things.next_page()? {
        cleaned.still_there += page.len() as u64;
    }
    Ok(())
}

/// Deletes a page; what is refused is said by key.
fn delete(target: &Target, page: &[Version]) -> Result<Vec<String>> {
    let calls = page.iter().map(|thing| {
        let version = Some(thing.id.clone()).filter(|id| !id.is_empty());
        let call = target
            .client
            .sdk()
            .delete_object()
            .bucket(&target.bucket)
            .key(&thing.object.key);
        let call = call.set_version_id(version);
        async move {
            let outcome = call.send().await.map_err(S3Error::of);
            outcome
                .err()
                .map(|error| format!("{}: {error}", thing.object.key))
        }
    });
    let ended = target.client.wait(
        stream::iter(calls)
            .buffer_unordered(PARALLEL)
            .collect::<Vec<_>>(),
    )?;
    Ok(ended.into_iter().flatten().collect())
}

/// Versions where the server has them, else plain objects (with an empty id).
enum Things<'a> {
    Versions(Versions<'a>, &'a Target, String),
    Objects(Objects<'a>),
}

impl<'a> Things<'a> {
    fn new(target: &'a Target, prefix: &str) -> Things<'a> {
        Things::Versions(Versions::new(target, prefix), target, prefix.to_owned())
    }

    fn next_page(&mut self) -> Result<Option<Vec<Version>>> {
        stop::check()?;
        if let Things::Versions(versions, target, prefix) = self {
            match versions.next_page() {
                Ok(page) => return Ok(page),
                Err(error) if error.is_unsupported() || error.status == Some(400) => {
                    let (target, prefix) = (*target, prefix.clone());
                    *self = Things::Objects(Objects::new(target, &prefix));
                }
                Err(error) => {
                    return Err(target.client.failure(
                        format!("cannot list the versions in the bucket `{}`", target.bucket),
                        error,
                    ));
                }
            }
        }
        let Things::Objects(objects) = self else {
            return Ok(None);
        };
        let plain = |object| Version {
            object,
            id: String::new(),
            latest: true,
            marker: false,
        };
        Ok(objects
            .next_page()?
            .map(|page| page.into_iter().map(plain).collect()))
    }
}

impl Counted {
    fn all(self) -> u64 {
        self.objects + self.old_versions + self.delete_markers
    }

    fn said(self) -> String {
        format!(
            "{}, {} and {} ({})",
            report::counted(self.objects, "objects"),
            report::counted(self.old_versions, "old versions"),
            report::counted(self.delete_markers, "delete markers"),
            report::bytes(self.bytes)
        )
    }
}

impl Cleaned {
    fn refuse(&mut self, said: String) {
        if self.refused.len() < SHOWN_MAX {
            self.refused.push(said);
        }
    }
}

impl Report for Cleaned {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let would = if self.dry_run { "would be" } else { "were" };
        if let Some(counted) = self.objects {
            page.line(format!(
                "{} {would} deleted from `{}`",
                counted.said(),
                self.bucket
            ));
        } else {
            let rows: Vec<Vec<(Tone, String)>> = self
                .uploads
                .iter()
                .map(|upload| {
                    let age = upload.age_seconds.map_or("?".to_owned(), |age| {
                        report::span(age.max(0).unsigned_abs())
                    });
                    let bytes = upload.bytes.map_or("?".to_owned(), report::bytes);
                    vec![
                        (Tone::Plain, age),
                        (Tone::Plain, bytes),
                        (Tone::Plain, printable(&upload.key)),
                    ]
                })
                .collect();
            page.table(&["AGE", "SIZE", "KEY"], &rows);
            let young = if self.left_alone == 0 {
                String::new()
            } else {
                format!("; {} younger ones were left alone", self.left_alone)
            };
            page.line(format!(
                "{} ({}) {would} dropped in `{}`{young}",
                report::counted(self.upload_count, "abandoned uploads"),
                report::bytes(self.upload_bytes),
                self.bucket
            ));
        }
        for refused in &self.refused {
            page.line(format!(
                "{}  {}",
                page.tone(Tone::Bad, "✗"),
                printable(refused)
            ));
        }
        if self.still_there > 0 {
            page.line(format!(
                "{}  {} are still there",
                page.tone(Tone::Bad, "✗"),
                report::count(self.still_there)
            ));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.refused.is_empty() && self.still_there == 0 {
            Outcome::Well
        } else {
            Outcome::BadNews
        }
    }
}
