//! `plan` and `apply`: what differs, bucket by bucket, and what was done about it.
//!
//! A bucket that cannot be looked at makes the outcome 2, whatever the others say: it could not
//! be told. Drift, and anything that a stranger can do and should not, make it 1.

use rg_common::Result;
use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;
use serde_json::Value;

use crate::endpoint::is_in_the_open;
use crate::exposure;
use crate::found::{Exposure, Presence, Seen};
use crate::plan::{Action, Plan, Step};
use crate::policy::least_privilege;
use crate::server::Server;
use crate::target::{Choice, Target, choose};
use crate::{apply, args, live, plan};

#[derive(Serialize)]
struct Review {
    buckets: Vec<Bucket>,
    /// Buckets that could not be looked at, and why.
    failed: Vec<String>,
    /// Whether steps were done.
    applied: bool,
}

#[derive(Serialize)]
struct Bucket {
    name: String,
    bucket: String,
    at: String,
    server: String,
    /// What was done.
    done: Vec<Line>,
    /// What differs still.
    steps: Vec<Line>,
    findings: Vec<String>,
    notes: Vec<String>,
    unknown: Vec<String>,
    without_a_key: Option<Strangers>,
    #[serde(skip)]
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    least_privilege: Option<Value>,
}

#[derive(Serialize)]
struct Line {
    part: &'static str,
    lines: Vec<String>,
}

/// HTTP statuses.
#[derive(Serialize)]
struct Strangers {
    get: Option<u16>,
    list: Option<u16>,
    put: Option<u16>,
}

/// `rg-bucket plan`: changes nothing.
pub fn plan(context: &Context, args: &args::Plan) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut review = Review::new(false);
    for choice in choose(&config, &args.buckets)? {
        review.take(choice.open(context, &config).and_then(|target| {
            let found = live::look(&target)?;
            let plan = plan::plan(&target.wanted, &found);
            let mut bucket = Bucket::of(
                &target,
                found.server,
                found.presence,
                &found.exposure,
                plan.clone(),
            );
            if args.show_policy {
                let put = plan.steps.iter().find_map(|step| match &step.action {
                    Action::Policy(policy) if !policy.is_empty() => Some(policy.document()),
                    _ => None,
                });
                let now = found
                    .policy
                    .value()
                    .filter(|policy| !policy.is_empty())
                    .map(|policy| policy.document());
                bucket.policy = put.or(now);
                bucket.least_privilege = Some(least_privilege(&target.bucket));
            }
            Ok(bucket)
        }));
    }
    Ok(Box::new(review))
}

/// `rg-bucket apply`: asks once for each bucket, with its steps before its eyes.
pub fn apply(context: &Context, args: &args::Apply) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut review = Review::new(!args.dry_run);
    for choice in choose(&config, &args.buckets)? {
        review.take(apply_one(context, &config, &choice, args));
    }
    Ok(Box::new(review))
}

fn apply_one(
    context: &Context,
    config: &Config,
    choice: &Choice,
    args: &args::Apply,
) -> Result<Bucket> {
    let target = choice.open(context, config)?;
    let found = live::look(&target)?;
    let plan = plan::plan(&target.wanted, &found);
    if args.dry_run || found.presence == Presence::Closed {
        return Ok(Bucket::of(
            &target,
            found.server,
            found.presence,
            &found.exposure,
            plan,
        ));
    }
    if !plan.steps.is_empty() && !args.yes {
        let mut page = Page::new(false);
        for step in &plan.steps {
            say_step(&mut page, Tone::Plain, step.part, &step.lines);
        }
        context.confirm(
            &format!("{}{}", page.text(), apply::question(&target, &plan)),
            false,
        )?;
    }
    let applied = apply::apply(&target, plan, &found)?;
    let mut bucket = Bucket::of(
        &target,
        applied.found.server,
        applied.found.presence,
        &applied.found.exposure,
        applied.left,
    );
    bucket.done = applied.done.iter().map(Line::of).collect();
    for (step, said) in applied.refused {
        bucket.notes.push(format!("{} has no call for the step `{}` ({said}): leave it out of rg.toml, or set it by the server's own means", applied.found.server, step.part));
    }
    Ok(bucket)
}

impl Line {
    fn of(step: &Step) -> Line {
        Line {
            part: step.part,
            lines: step.lines.clone(),
        }
    }
}

impl Review {
    fn new(applied: bool) -> Review {
        Review {
            buckets: Vec::new(),
            failed: Vec::new(),
            applied,
        }
    }

    fn take(&mut self, bucket: Result<Bucket>) {
        match bucket {
            Ok(bucket) => self.buckets.push(bucket),
            Err(failure) => self.failed.push(report::with_hints(&failure)),
        }
    }
}

impl Bucket {
    fn of(
        target: &Target,
        server: Server,
        presence: Presence,
        exposure: &Exposure,
        plan: Plan,
    ) -> Bucket {
        let status = |seen: Seen| match seen {
            Seen::Open(status) | Seen::Refused(status) | Seen::Unclear(status) => Some(status),
            Seen::NotAsked => None,
        };
        let asked = presence == Presence::Ours;
        let mut notes = plan.notes;
        if target
            .service
            .endpoint
            .as_deref()
            .is_some_and(is_in_the_open)
        {
            notes.push("http:// over a network that is not ours: what is read and written can be seen on the way; use https://".to_owned());
        }
        Bucket {
            name: target.name.clone(),
            bucket: target.bucket.clone(),
            at: target.client.shown().to_owned(),
            server: server.to_string(),
            done: Vec::new(),
            steps: plan.steps.iter().map(Line::of).collect(),
            findings: plan.findings,
            notes,
            unknown: plan.unknown,
            without_a_key: asked.then(|| Strangers {
                get: status(exposure.get),
                list: status(exposure.list),
                put: status(exposure.put),
            }),
            said: exposure::said(exposure),
            policy: None,
            least_privilege: None,
        }
    }

    fn is_done(&self) -> bool {
        self.steps.is_empty() && self.findings.is_empty()
    }
}

impl Report for Review {
    fn json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for bucket in &self.buckets {
            bucket.say(page, self.applied);
        }
        for failure in &self.failed {
            page.line(format!("{}  {failure}", page.tone(Tone::Bad, "✗")));
        }
    }

    fn outcome(&self) -> Outcome {
        if !self.failed.is_empty() || self.buckets.iter().any(|bucket| !bucket.unknown.is_empty()) {
            Outcome::Incomplete
        } else if self.buckets.iter().all(Bucket::is_done) {
            Outcome::Well
        } else {
            Outcome::BadNews
        }
    }
}

impl Bucket {
    fn say(&self, page: &mut Page, applied: bool) {
        page.line(format!("{}  `{}` at {}", self.name, self.bucket, self.at));
        for line in &self.done {
            say_step(
                page,
                Tone::Good,
                &format!("{}, done", line.part),
                &line.lines,
            );
        }
        for line in &self.steps {
            let part = if applied {
                format!("{}, not as declared", line.part)
            } else {
                line.part.to_owned()
            };
            say_step(page, Tone::Warn, &part, &line.lines);
        }
        for finding in &self.findings {
            page.line(format!("  {}  {finding}", page.tone(Tone::Bad, "✗")));
        }
        for unknown in &self.unknown {
            page.line(format!("  {}  {unknown}", page.tone(Tone::Bad, "?")));
        }
        for note in &self.notes {
            page.line(format!("  {}  {note}", page.tone(Tone::Warn, "⚠")));
        }
        if self.without_a_key.is_some() && !self.said.is_empty() {
            let unasked = self
                .without_a_key
                .as_ref()
                .is_some_and(|seen| seen.get.is_none());
            let nothing = if unasked {
                " (no object to ask for)"
            } else {
                ""
            };
            page.line(format!("  without a key: {}{nothing}", self.said));
        }
        if self.is_done() && self.unknown.is_empty() {
            page.line(format!("  {}", page.tone(Tone::Good, "nothing to do")));
        }
        for (what, document) in [
            ("policy", &self.policy),
            (
                "what the application's key needs, and no more",
                &self.least_privilege,
            ),
        ] {
            if let Some(document) = document {
                page.line(format!("  {what}:\n{document:#}"));
            }
        }
    }
}

fn say_step(page: &mut Page, tone: Tone, part: &str, lines: &[String]) {
    page.line(format!("  {}", page.tone(tone, part)));
    for line in lines {
        page.line(format!("    {line}"));
    }
}
