//! Makes it so: the steps of a plan, one call each, and the proof afterwards.
//!
//! A bucket that had to be made is looked at again before anything is set, because only then its
//! server says what it can do. What a server refuses as something it has no call for is said, and
//! the rest is done all the same.

use std::time::Duration;

use aws_sdk_s3::types::{
    BucketCannedAcl, BucketLifecycleConfiguration, BucketLocationConstraint,
    BucketVersioningStatus, CorsConfiguration, CorsRule, CreateBucketConfiguration,
    DefaultRetention, LifecycleRule, ObjectLockConfiguration, ObjectLockEnabled,
    ObjectLockRetentionMode, ObjectLockRule, PublicAccessBlockConfiguration,
    VersioningConfiguration,
};
use rg_common::s3::canary::Canary;
use rg_common::s3::{Kind, S3Error};
use rg_common::{Failure, Result, stop};

use crate::found::{Found, Presence, PublicBlock, Seen, Versioning};
use crate::live;
use crate::plan::{self, Action, Plan, Step};
use crate::stranger::Stranger;
use crate::target::Target;
use crate::wanted::{Access, Cors, Lock};

/// A service may need a moment until everybody is told of a new policy.
const PROOF_LIMIT: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const PROOF_PAUSE: Duration = Duration::from_millis(500);

/// What was done to one bucket.
pub struct Applied {
    /// The steps that were done.
    pub done: Vec<Step>,
    /// Steps that the server has no call for, with its words.
    pub refused: Vec<(Step, String)>,
    /// What is found afterwards, and the plan that is left: empty when all is as declared.
    pub left: Plan,
    /// The same, as facts.
    pub found: Found,
}

/// Applies a plan that was made from `found`, and proves the outcome.
pub fn apply(target: &Target, plan: Plan, found: &Found) -> Result<Applied> {
    let mut done = Vec::new();
    let mut refused = Vec::new();
    let mut plan = plan;
    if found.presence == Presence::Absent {
        let create = plan.steps.remove(0);
        perform(target, &create.action).map_err(|error| failure(target, &create, error))?;
        done.push(create);
        plan = plan::plan(&target.wanted, &live::look(target)?);
    }
    for step in plan.steps {
        stop::check()?;
        match perform(target, &step.action) {
            Ok(()) => done.push(step),
            Err(error) if error.is_unsupported() => refused.push((step, error.to_string())),
            Err(error) => return Err(failure(target, &step, error)),
        }
    }
    let (left, found) = prove(target)?;
    Ok(Applied {
        done,
        refused,
        left,
        found,
    })
}

/// Looks again, with an object to ask for. A finding is asked for once more until it is gone or the
/// time is up.
fn prove(target: &Target) -> Result<(Plan, Found)> {
    let mut found = live::look(target)?;
    if found.presence != Presence::Ours {
        return Ok((plan::plan(&target.wanted, &found), found));
    }
    // In a bucket that locks what is written a canary could not be taken back.
    let canary = match found.exposure.get {
        Seen::NotAsked if found.lock.value().is_none() => {
            Some(Canary::put(&target.client, &target.bucket, &target.prefix)?)
        }
        _ => None,
    };
    let asked = ask_until_right(target, &mut found, canary.as_ref());
    if let Some(canary) = canary {
        canary.remove()?;
    }
    asked?;
    Ok((plan::plan(&target.wanted, &found), found))
}

fn ask_until_right(target: &Target, found: &mut Found, canary: Option<&Canary>) -> Result<()> {
    let stranger = Stranger::new()?;
    let rounds = PROOF_LIMIT.as_millis() / PROOF_PAUSE.as_millis();
    for _ in 0..rounds {
        if let Some(canary) = canary {
            found.exposure = stranger.meets(target, Some(canary.key()))?.exposure;
        } else if found.exposure.get != Seen::NotAsked {
            *found = live::look(target)?;
        }
        let plan = plan::plan(&target.wanted, found);
        // What the declared access does not decide will not change by waiting.
        if plan.findings.is_empty() || target.wanted.access.is_none() {
            break;
        }
        stop::pause(PROOF_PAUSE)?;
    }
    Ok(())
}

fn failure(target: &Target, step: &Step, error: S3Error) -> Failure {
    let what = match step.action {
        Action::Create { .. } => format!("cannot make the bucket `{}`", target.bucket),
        _ => format!(
            "cannot set the {} of the bucket `{}`",
            step.part, target.bucket
        ),
    };
    target.client.failure(what, error)
}

/// One call.
fn perform(target: &Target, action: &Action) -> Result<(), S3Error> {
    let sdk = target.client.sdk();
    let name = &target.bucket;
    let call = &target.client;
    match action {
        Action::Create { lock } => create(target, *lock),
        Action::Policy(policy) if policy.is_empty() => call
            .call(sdk.delete_bucket_policy().bucket(name).send())
            .map(drop),
        Action::Policy(policy) => {
            let document = policy.document().to_string();
            call.call(sdk.put_bucket_policy().bucket(name).policy(document).send())
                .map(drop)
        }
        Action::CloseGrants => call
            .call(
                sdk.put_bucket_acl()
                    .bucket(name)
                    .acl(BucketCannedAcl::Private)
                    .send(),
            )
            .map(drop),
        Action::PublicBlock(block) => {
            let block = switches(*block);
            call.call(
                sdk.put_public_access_block()
                    .bucket(name)
                    .public_access_block_configuration(block)
                    .send(),
            )
            .map(drop)
        }
        Action::Versioning(versioning) => {
            let status = match versioning {
                Versioning::Enabled => BucketVersioningStatus::Enabled,
                Versioning::Suspended => BucketVersioningStatus::Suspended,
            };
            let to = VersioningConfiguration::builder().status(status).build();
            call.call(
                sdk.put_bucket_versioning()
                    .bucket(name)
                    .versioning_configuration(to)
                    .send(),
            )
            .map(drop)
        }
        Action::Lifecycle(rules) if rules.is_empty() => call
            .call(sdk.delete_bucket_lifecycle().bucket(name).send())
            .map(drop),
        Action::Lifecycle(rules) => put_lifecycle(target, rules),
        Action::Cors(rules) if rules.is_empty() => call
            .call(sdk.delete_bucket_cors().bucket(name).send())
            .map(drop),
        Action::Cors(rules) => put_cors(target, rules),
        Action::Retention(lock) => put_retention(target, *lock),
    }
}

/// One's own bucket is fine. A name that is taken is told from it by a look into the bucket,
/// because some services say "exists" for both.
fn create(target: &Target, lock: bool) -> Result<(), S3Error> {
    let sdk = target.client.sdk();
    let mut call = sdk.create_bucket().bucket(&target.bucket);
    if lock {
        call = call.object_lock_enabled_for_bucket(true);
    }
    // AWS alone wants to be told, and not for its first region.
    if target.client.is_aws() && target.service.region != "us-east-1" {
        let place = BucketLocationConstraint::from(target.service.region.as_str());
        call = call.create_bucket_configuration(
            CreateBucketConfiguration::builder()
                .location_constraint(place)
                .build(),
        );
    }
    match target.client.call(call.send()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind == Kind::AlreadyOurs => Ok(()),
        Err(error) if error.kind == Kind::NameTaken => match live::presence(target) {
            Ok(Presence::Ours) => Ok(()),
            _ => Err(error),
        },
        Err(error) => Err(error),
    }
}

fn switches(block: PublicBlock) -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(block.block_acls)
        .ignore_public_acls(block.ignore_acls)
        .block_public_policy(block.block_policy)
        .restrict_public_buckets(block.restrict)
        .build()
}

fn built<T, E: std::fmt::Display>(built: std::result::Result<T, E>) -> Result<T, S3Error> {
    built.map_err(|error| S3Error::ours(Kind::Other, error.to_string()))
}

fn put_lifecycle(target: &Target, rules: &[LifecycleRule]) -> Result<(), S3Error> {
    let rules = built(
        BucketLifecycleConfiguration::builder()
            .set_rules(Some(rules.to_vec()))
            .build(),
    )?;
    let call = target
        .client
        .sdk()
        .put_bucket_lifecycle_configuration()
        .bucket(&target.bucket);
    target
        .client
        .call(call.lifecycle_configuration(rules).send())
        .map(drop)
}

fn put_cors(target: &Target, rules: &[Cors]) -> Result<(), S3Error> {
    let list = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let rule = |rule: &Cors| {
        CorsRule::builder()
            .set_allowed_origins(Some(rule.origins.clone()))
            .set_allowed_methods(Some(rule.methods.clone()))
            .set_allowed_headers(list(&rule.headers))
            .set_expose_headers(list(&rule.expose))
            .set_max_age_seconds(rule.max_age_seconds.and_then(|n| i32::try_from(n).ok()))
            .build()
    };
    let rules = rules
        .iter()
        .map(rule)
        .collect::<std::result::Result<Vec<_>, _>>();
    let rules = built(
        CorsConfiguration::builder()
            .set_cors_rules(Some(built(rules)?))
            .build(),
    )?;
    let call = target
        .client
        .sdk()
        .put_bucket_cors()
        .bucket(&target.bucket)
        .cors_configuration(rules);
    target.client.call(call.send()).map(drop)
}

fn put_retention(target: &Target, lock: Lock) -> Result<(), S3Error> {
    let mode = if lock.compliance {
        ObjectLockRetentionMode::Compliance
    } else {
        ObjectLockRetentionMode::Governance
    };
    let days = i32::try_from(lock.days).unwrap_or(i32::MAX);
    let retention = DefaultRetention::builder().mode(mode).days(days).build();
    let to = ObjectLockConfiguration::builder()
        .object_lock_enabled(ObjectLockEnabled::Enabled)
        .rule(
            ObjectLockRule::builder()
                .default_retention(retention)
                .build(),
        )
        .build();
    let call = target
        .client
        .sdk()
        .put_object_lock_configuration()
        .bucket(&target.bucket);
    target
        .client
        .call(call.object_lock_configuration(to).send())
        .map(drop)
}

/// The question before it is done: what opens a bucket is said in so many words.
pub fn question(target: &Target, plan: &Plan) -> String {
    let public = target.wanted.access == Some(Access::PublicRead)
        && plan
            .steps
            .iter()
            .any(|step| matches!(step.action, Action::Policy(_) | Action::PublicBlock(_)));
    let opens = if public {
        ", which lets anybody read it,"
    } else {
        ""
    };
    let steps = if plan.steps.len() == 1 {
        "this step".to_owned()
    } else {
        format!("these {} steps", plan.steps.len())
    };
    format!("apply {steps}{opens} to {}?", target.shown())
}
