//! `usage`: how much lies in a bucket, what is paid for unseen (old versions, delete markers,
//! uploads that were never completed) included. Pages are counted and dropped.

use jiff::Timestamp;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::s3::S3Error;
use rg_common::{Result, stop};
use serde::Serialize;

use crate::args;
use crate::pages::{Objects, Uploads, Versions, uploaded_bytes};
use crate::target::{Target, choose};

#[derive(Serialize)]
struct Usage {
    buckets: Vec<Figures>,
    failed: Vec<String>,
}

#[derive(Serialize, Default)]
struct Figures {
    name: String,
    bucket: String,
    objects: u64,
    bytes: u64,
    oldest: Option<String>,
    newest: Option<String>,
    /// None where the server has no versions.
    old_versions: Option<u64>,
    old_version_bytes: Option<u64>,
    delete_markers: Option<u64>,
    /// None where the server cannot list uploads.
    open_uploads: Option<u64>,
    /// Of those uploads whose parts the server lists.
    open_upload_bytes: Option<u64>,
}

/// `rg-bucket usage`
pub fn usage(context: &Context, args: &args::Usage) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut usage = Usage {
        buckets: Vec::new(),
        failed: Vec::new(),
    };
    for choice in choose(&config, &args.buckets)? {
        match choice
            .open(context, &config)
            .and_then(|target| count(&target))
        {
            Ok(figures) => usage.buckets.push(figures),
            Err(failure) => usage.failed.push(report::with_hints(&failure)),
        }
    }
    Ok(Box::new(usage))
}

fn count(target: &Target) -> Result<Figures> {
    let mut figures = Figures {
        name: target.name.clone(),
        bucket: target.bucket.clone(),
        ..Figures::default()
    };
    let (mut oldest, mut newest): (Option<Timestamp>, Option<Timestamp>) = (None, None);
    let mut pages = Objects::new(target, &target.prefix);
    while let Some(page) = pages.next_page()? {
        for object in page {
            figures.objects += 1;
            figures.bytes += object.size;
            oldest = oldest.into_iter().chain(object.modified).min();
            newest = newest.into_iter().chain(object.modified).max();
        }
    }
    figures.oldest = oldest.map(|time| time.to_string());
    figures.newest = newest.map(|time| time.to_string());
    if let Some([versions, bytes, markers]) = versions(target)? {
        figures.old_versions = Some(versions);
        figures.old_version_bytes = Some(bytes);
        figures.delete_markers = Some(markers);
    }
    if let Some([uploads, bytes]) = uploads(target)? {
        figures.open_uploads = Some(uploads);
        figures.open_upload_bytes = Some(bytes);
    }
    Ok(figures)
}

/// None where the server has no such call; a failure where it has, and did not answer.
fn lacking<T>(target: &Target, what: &str, error: S3Error) -> Result<Option<T>> {
    if error.is_unsupported() || error.status == Some(400) || error.status.is_some_and(|s| s < 300)
    {
        return Ok(None);
    }
    Err(target.client.failure(
        format!("cannot list the {what} in the bucket `{}`", target.bucket),
        error,
    ))
}

fn versions(target: &Target) -> Result<Option<[u64; 3]>> {
    let mut sums = [0; 3];
    let mut pages = Versions::new(target, &target.prefix);
    loop {
        stop::check()?;
        let page = match pages.next_page() {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(Some(sums)),
            Err(error) => return lacking(target, "versions", error),
        };
        for version in page {
            if version.marker {
                sums[2] += 1;
            } else if !version.latest {
                sums[0] += 1;
                sums[1] += version.object.size;
            }
        }
    }
}

fn uploads(target: &Target) -> Result<Option<[u64; 2]>> {
    let mut sums = [0; 2];
    let mut pages = Uploads::new(target, &target.prefix);
    loop {
        stop::check()?;
        let page = match pages.next_page() {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(Some(sums)),
            Err(error) => return lacking(target, "uploads", error),
        };
        for upload in page {
            sums[0] += 1;
            sums[1] += uploaded_bytes(target, &upload).unwrap_or(0);
        }
    }
}

impl Report for Usage {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let pair = |count: Option<u64>, bytes: Option<u64>| match (count, bytes) {
            (Some(0), _) => "0".to_owned(),
            (Some(count), Some(bytes)) => {
                format!("{} ({})", report::count(count), report::bytes(bytes))
            }
            (Some(count), None) => report::count(count),
            (None, _) => "not told".to_owned(),
        };
        let rows: Vec<Vec<(Tone, String)>> = self
            .buckets
            .iter()
            .map(|figures| {
                [
                    figures.name.clone(),
                    report::count(figures.objects),
                    report::bytes(figures.bytes),
                    pair(figures.old_versions, figures.old_version_bytes),
                    pair(figures.delete_markers, None),
                    pair(figures.open_uploads, figures.open_upload_bytes),
                ]
                .into_iter()
                .map(|cell| (Tone::Plain, cell))
                .collect()
            })
            .collect();
        page.table(
            &[
                "BUCKET",
                "OBJECTS",
                "SIZE",
                "OLD VERSIONS",
                "DELETE MARKERS",
                "OPEN UPLOADS",
            ],
            &rows,
        );
        for failure in &self.failed {
            page.line(format!("{}  {failure}", page.tone(Tone::Bad, "✗")));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.failed.is_empty() {
            Outcome::Well
        } else {
            Outcome::Incomplete
        }
    }
}
