//! `probe`: does this bucket do what it is there for, now, with this key? A small object is put,
//! read back and compared, put again under a condition, read by a signed link, and deleted. Each
//! step is timed, and the object is always taken back.

use std::time::Instant;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::s3::Kind;
use rg_common::s3::canary::{Canary, TEXT};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::exposure;
use crate::plan::Plan;
use crate::stranger::Stranger;
use crate::target::{Target, choose};
use crate::{args, live};

/// A signed link of the probe holds so long.
const LINK_SECONDS: u64 = 60;

#[derive(Serialize)]
struct Probe {
    buckets: Vec<Tried>,
    failed: Vec<String>,
}

#[derive(Serialize)]
struct Tried {
    name: String,
    bucket: String,
    at: String,
    steps: Vec<Step>,
    without_a_key: String,
}

#[derive(Serialize)]
struct Step {
    what: &'static str,
    good: bool,
    ms: u64,
    found: String,
}

/// `rg-bucket probe`
pub fn probe(context: &Context, args: &args::Probe) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut probe = Probe {
        buckets: Vec::new(),
        failed: Vec::new(),
    };
    for choice in choose(&config, &args.buckets)? {
        let tried = choice.open(context, &config).and_then(|target| {
            if args.dry_run {
                let said =
                    "a small object would be put, read, put again, signed and deleted".to_owned();
                let step = Step {
                    what: "probe",
                    good: true,
                    ms: 0,
                    found: said,
                };
                return Ok(Tried::new(&target, vec![step]));
            }
            try_one(&target)
        });
        match tried {
            Ok(tried) => probe.buckets.push(tried),
            Err(failure) => probe.failed.push(report::with_hints(&failure)),
        }
    }
    Ok(Box::new(probe))
}

impl Tried {
    fn new(target: &Target, steps: Vec<Step>) -> Tried {
        Tried {
            name: target.name.clone(),
            bucket: target.bucket.clone(),
            at: target.client.shown().to_owned(),
            steps,
            without_a_key: String::new(),
        }
    }
}

fn try_one(target: &Target) -> Result<Tried> {
    if live::locks_what_is_written(target)? {
        return Err(Failure::new(format!(
            "{} locks every new object: what a probe writes could not be taken back",
            target.shown()
        ))
        .hint("`rg-bucket plan` looks at it without writing"));
    }
    let mut tried = Tried::new(target, Vec::new());
    let begun = Instant::now();
    let canary = Canary::put(&target.client, &target.bucket, &target.prefix)?;
    tried.add("put", begun, true, report::bytes(TEXT.len() as u64));
    let looked = look(target, &canary, &mut tried);
    let begun = Instant::now();
    let removed = canary.remove_and_see();
    looked?;
    tried.add("delete", begun, true, String::new());
    if !removed? {
        tried.steps.push(Step {
            what: "gone",
            good: false,
            ms: 0,
            found: "the object is still read after it was deleted".to_owned(),
        });
    }
    Ok(tried)
}

/// Everything between the put and the delete.
fn look(target: &Target, canary: &Canary, tried: &mut Tried) -> Result<()> {
    let sdk = target.client.sdk();
    let failed = |what: &str, error| {
        target.client.failure(
            format!("cannot {what} in the bucket `{}`", target.bucket),
            error,
        )
    };

    let begun = Instant::now();
    let body = canary.get()?;
    tried.add(
        "get",
        begun,
        body == TEXT,
        if body == TEXT {
            "the same bytes"
        } else {
            "other bytes than were put"
        },
    );

    // Whoever leans on "create only" must know whether the server keeps to it. Not a fault.
    let begun = Instant::now();
    let again = sdk
        .put_object()
        .bucket(&target.bucket)
        .key(canary.key())
        .if_none_match("*")
        .body(ByteStream::from_static(TEXT));
    let found = match target.client.call(again.send()) {
        Err(error) if error.kind == Kind::Precondition => "refused, as it should be".to_owned(),
        Err(error) if error.is_unsupported() || error.status == Some(400) => {
            "the server has no conditional writes".to_owned()
        }
        Err(error) => return Err(failed("put an object under a condition", error)),
        Ok(put) => {
            canary.also(put.version_id);
            "written all the same: the server does not keep to If-None-Match".to_owned()
        }
    };
    tried.add("put if absent", begun, true, found);

    let begun = Instant::now();
    let limit = PresigningConfig::expires_in(std::time::Duration::from_secs(LINK_SECONDS))
        .or_fail(|| "cannot sign".to_owned())?;
    let call = sdk.get_object().bucket(&target.bucket).key(canary.key());
    let signed = target
        .client
        .wait(call.presigned(limit))?
        .or_fail(|| "cannot sign".to_owned())?;
    let stranger = Stranger::new()?;
    let (status, bytes) = stranger.follow(target, signed.uri())?;
    let good = bytes == TEXT;
    let found = match status {
        0 => "no answer to a signed link".to_owned(),
        _ if good => "the same bytes".to_owned(),
        _ => format!("HTTP {status} to a signed link"),
    };
    tried.add("signed link", begun, good, found);

    let begun = Instant::now();
    let met = stranger.meets(target, Some(canary.key()))?;
    let mut plan = Plan::default();
    exposure::judge(&mut plan, target.wanted.access, &met.exposure);
    tried.without_a_key = exposure::said(&met.exposure);
    let found: Vec<String> = plan.findings.into_iter().chain(plan.unknown).collect();
    let said = if found.is_empty() {
        tried.without_a_key.clone()
    } else {
        found.join("; ")
    };
    tried.add("without a key", begun, found.is_empty(), said);
    Ok(())
}

impl Tried {
    fn add(&mut self, what: &'static str, begun: Instant, good: bool, found: impl Into<String>) {
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.steps.push(Step {
            what,
            good,
            ms,
            found: found.into(),
        });
    }
}

impl Report for Probe {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for tried in &self.buckets {
            page.line(format!(
                "{}  `{}` at {}",
                tried.name, tried.bucket, tried.at
            ));
            let rows: Vec<Vec<(Tone, String)>> = tried
                .steps
                .iter()
                .map(|step| {
                    let (tone, sign) = if step.good {
                        (Tone::Good, "✓")
                    } else {
                        (Tone::Bad, "✗")
                    };
                    vec![
                        (tone, format!("  {sign}")),
                        (Tone::Plain, step.what.to_owned()),
                        (Tone::Plain, format!("{} ms", step.ms)),
                        (Tone::Plain, step.found.clone()),
                    ]
                })
                .collect();
            page.table(&["", "STEP", "TIME", "FOUND"], &rows);
        }
        for failure in &self.failed {
            page.line(format!("{}  {failure}", page.tone(Tone::Bad, "✗")));
        }
    }

    fn outcome(&self) -> Outcome {
        if !self.failed.is_empty() {
            Outcome::Incomplete
        } else if self
            .buckets
            .iter()
            .all(|tried| tried.steps.iter().all(|step| step.good))
        {
            Outcome::Well
        } else {
            Outcome::BadNews
        }
    }
}
