//! Asks a service what a bucket is like. Each setting is answered with a value, unset, lacking or
//! not allowed; anything else (no answer, a wrong key) is a failure, never a guess.

use aws_sdk_s3::types::{
    BucketVersioningStatus, CorsRule, ObjectLockEnabled, ObjectLockRetentionMode, Permission,
};
use rg_common::s3::{Kind, S3Error};
use rg_common::{OrFail, Result};

use crate::found::{Answer, Found, Locking, Presence, PublicBlock, Versioning};
use crate::policy::Policy;
use crate::server::Server;
use crate::stranger::Stranger;
use crate::target::Target;
use crate::wanted::{Cors, Lock};

/// The groups that mean everybody in a grant: with any AWS account, and without.
const EVERYBODY: [&str; 2] = [
    "/groups/global/AllUsers",
    "/groups/global/AuthenticatedUsers",
];

/// Everything that `plan` compares, and what a stranger meets.
pub fn look(target: &Target) -> Result<Found> {
    let stranger = Stranger::new()?;
    let presence = presence(target)?;
    if presence != Presence::Ours {
        let server = Server::told_by(target.service.endpoint.as_deref(), None);
        return Ok(Found {
            presence,
            ..Found::absent(server)
        });
    }
    let key = any_key(target)?;
    let met = stranger.meets(target, key.as_deref())?;
    Ok(Found {
        presence,
        server: Server::told_by(target.service.endpoint.as_deref(), met.header.as_deref()),
        policy: policy(target)?,
        public_grants: public_grants(target)?,
        public_block: public_block(target)?,
        versioning: versioning(target)?,
        lifecycle: lifecycle(target)?,
        cors: cors(target)?,
        lock: lock(target)?,
        exposure: met.exposure,
    })
}

/// Whether the bucket is there and ours to look into.
pub fn presence(target: &Target) -> Result<Presence> {
    let sdk = target.client.sdk();
    match target
        .client
        .call(sdk.head_bucket().bucket(&target.bucket).send())
    {
        Ok(_) => Ok(Presence::Ours),
        Err(error) if matches!(error.kind, Kind::NoBucket | Kind::NoObject) => Ok(Presence::Absent),
        // An answer to HEAD has no code: the same question as a GET tells a wrong key from a
        // bucket that is closed to a good one.
        Err(head) => {
            let list = sdk
                .list_objects_v2()
                .bucket(&target.bucket)
                .max_keys(1)
                .send();
            match target.client.call(list).map_err(|error| error.kind) {
                Err(Kind::Denied) => Ok(Presence::Closed),
                Err(Kind::NoBucket) => Ok(Presence::Absent),
                Ok(_) => Ok(Presence::Ours),
                Err(_) => {
                    let list = sdk
                        .list_objects_v2()
                        .bucket(&target.bucket)
                        .max_keys(1)
                        .send();
                    let error = target.client.call(list).err().unwrap_or(head);
                    Err(target.client.failure(
                        format!("cannot look at the bucket `{}`", target.bucket),
                        error,
                    ))
                }
            }
        }
    }
}

/// The first key there is, to ask for it as a stranger; none when the bucket is empty.
fn any_key(target: &Target) -> Result<Option<String>> {
    let list = target
        .client
        .sdk()
        .list_objects_v2()
        .bucket(&target.bucket)
        .max_keys(1)
        .send();
    let list = target.client.call(list).map_err(|error| {
        target
            .client
            .failure(format!("cannot list the bucket `{}`", target.bucket), error)
    })?;
    Ok(list
        .contents()
        .first()
        .and_then(|object| object.key())
        .map(str::to_owned))
}

/// Sorts an error into what it says about the setting.
fn answer<T>(target: &Target, what: &str, error: S3Error) -> Result<Answer<T>> {
    let said = || {
        error
            .code
            .clone()
            .unwrap_or_else(|| format!("HTTP {}", error.status.unwrap_or_default()))
    };
    match error.kind {
        Kind::NotSet => Ok(Answer::Unset),
        Kind::Denied => Ok(Answer::Denied(said())),
        Kind::Unsupported => Ok(Answer::Lacking(said())),
        // Some answer "cannot" with 400, and some with a 200 that no client can read.
        Kind::Other if error.status == Some(400) => Ok(Answer::Lacking(said())),
        Kind::NotS3 | Kind::Other | Kind::Unreachable if error.status.is_some_and(|s| s < 300) => {
            Ok(Answer::Lacking("its answer cannot be read".to_owned()))
        }
        _ => Err(target.client.failure(
            format!("cannot read the {what} of the bucket `{}`", target.bucket),
            error,
        )),
    }
}

/// One question: the call, and how its answer is read.
macro_rules! ask {
    ($target:expr, $what:literal, $call:ident, $read:expr) => {{
        let call = $target.client.sdk().$call().bucket(&$target.bucket).send();
        match $target.client.call(call) {
            Ok(output) => $read(output),
            Err(error) => answer($target, $what, error),
        }
    }};
}

fn policy(target: &Target) -> Result<Answer<Policy>> {
    let found: Result<Answer<String>> = ask!(
        target,
        "policy",
        get_bucket_policy,
        |output: aws_sdk_s3::operation::get_bucket_policy::GetBucketPolicyOutput| {
            Ok(output
                .policy
                .filter(|text| !text.trim().is_empty())
                .map_or(Answer::Unset, Answer::Is))
        }
    );
    Ok(match found? {
        Answer::Is(text) => Answer::Is(Policy::parse(&text).or_fail(|| {
            format!(
                "cannot understand the policy of the bucket `{}`",
                target.bucket
            )
        })?),
        Answer::Unset => Answer::Unset,
        Answer::Lacking(said) => Answer::Lacking(said),
        Answer::Denied(said) => Answer::Denied(said),
    })
}

fn public_grants(target: &Target) -> Result<Answer<Vec<String>>> {
    ask!(
        target,
        "grants",
        get_bucket_acl,
        |output: aws_sdk_s3::operation::get_bucket_acl::GetBucketAclOutput| {
            let grants = output.grants().iter().filter(|grant| {
                let uri = grant
                    .grantee()
                    .and_then(|who| who.uri())
                    .unwrap_or_default();
                EVERYBODY.iter().any(|group| uri.ends_with(group))
            });
            Ok(Answer::Is(
                grants
                    .map(|grant| {
                        grant
                            .permission()
                            .map_or("something", Permission::as_str)
                            .to_owned()
                    })
                    .collect(),
            ))
        }
    )
}

fn public_block(target: &Target) -> Result<Answer<PublicBlock>> {
    ask!(
        target,
        "public access block",
        get_public_access_block,
        |output: aws_sdk_s3::operation::get_public_access_block::GetPublicAccessBlockOutput| {
            Ok(output
                .public_access_block_configuration()
                .map_or(Answer::Unset, |found| {
                    Answer::Is(PublicBlock {
                        block_acls: found.block_public_acls().unwrap_or(false),
                        ignore_acls: found.ignore_public_acls().unwrap_or(false),
                        block_policy: found.block_public_policy().unwrap_or(false),
                        restrict: found.restrict_public_buckets().unwrap_or(false),
                    })
                }))
        }
    )
}

fn versioning(target: &Target) -> Result<Answer<Versioning>> {
    ask!(
        target,
        "versioning",
        get_bucket_versioning,
        |output: aws_sdk_s3::operation::get_bucket_versioning::GetBucketVersioningOutput| {
            Ok(match output.status() {
                Some(BucketVersioningStatus::Enabled) => Answer::Is(Versioning::Enabled),
                Some(BucketVersioningStatus::Suspended) => Answer::Is(Versioning::Suspended),
                _ => Answer::Unset,
            })
        }
    )
}

fn lifecycle(target: &Target) -> Result<Answer<Vec<aws_sdk_s3::types::LifecycleRule>>> {
    ask!(target, "lifecycle", get_bucket_lifecycle_configuration, |output: aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput| {
        Ok(match output.rules.unwrap_or_default() {
            none if none.is_empty() => Answer::Unset,
            rules => Answer::Is(rules),
        })
    })
}

fn cors(target: &Target) -> Result<Answer<Vec<Cors>>> {
    ask!(
        target,
        "CORS rules",
        get_bucket_cors,
        |output: aws_sdk_s3::operation::get_bucket_cors::GetBucketCorsOutput| {
            let read = |rule: &CorsRule| {
                Cors {
                    origins: rule.allowed_origins().to_vec(),
                    methods: rule.allowed_methods().to_vec(),
                    headers: rule.allowed_headers().to_vec(),
                    expose: rule.expose_headers().to_vec(),
                    max_age_seconds: rule.max_age_seconds().and_then(|n| u32::try_from(n).ok()),
                }
                .sorted()
            };
            Ok(match output.cors_rules() {
                [] => Answer::Unset,
                rules => Answer::Is(rules.iter().map(read).collect()),
            })
        }
    )
}

fn lock(target: &Target) -> Result<Answer<Locking>> {
    ask!(target, "object lock", get_object_lock_configuration, |output: aws_sdk_s3::operation::get_object_lock_configuration::GetObjectLockConfigurationOutput| {
        let found = output.object_lock_configuration();
        if found.and_then(|c| c.object_lock_enabled()) != Some(&ObjectLockEnabled::Enabled) {
            return Ok(Answer::Unset);
        }
        let retention = found.and_then(|c| c.rule()).and_then(|rule| rule.default_retention());
        let default = retention.and_then(|retention| {
            let years = retention.years().filter(|n| *n > 0).map(|years| years.saturating_mul(365));
            let days = u32::try_from(retention.days().filter(|n| *n > 0).or(years)?).ok()?;
            let compliance = retention.mode() == Some(&ObjectLockRetentionMode::Compliance);
            Some(Lock { days, compliance })
        });
        Ok(Answer::Is(Locking { default }))
    })
}

/// Whether every new object is locked, so that nothing that is written can be taken back.
pub fn locks_what_is_written(target: &Target) -> Result<bool> {
    Ok(lock(target)?
        .value()
        .is_some_and(|locking| locking.default.is_some()))
}

/// Whether objects can be locked at all: such a bucket demands a checksum with each write.
pub fn can_lock(target: &Target) -> Result<bool> {
    Ok(lock(target)?.value().is_some())
}
