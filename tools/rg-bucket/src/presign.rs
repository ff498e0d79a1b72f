//! `presign`: a link that lets its bearer read one object for a time. It is the one place where a
//! signature is printed, and nothing else goes to stdout.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Plain, Report};
use rg_common::s3::{Client, Kind};
use rg_common::{Failure, OrFail, Result};
use serde_json::json;

use crate::args;
use crate::endpoint::is_loopback;
use crate::span;
use crate::target::choose_one;

/// The longest that S3's signatures hold.
const EXPIRES_MAX: Duration = Duration::from_secs(7 * 86_400);

/// `rg-bucket presign`
pub fn presign(context: &Context, args: &args::Presign) -> Result<Box<dyn Report>> {
    let expires = span::parse(&args.expires)?;
    if expires.is_zero() || expires > EXPIRES_MAX {
        return Err(
            Failure::new(format!("a link cannot hold for {}", args.expires))
                .hint("from 1s to 7d, which is the longest that S3's signatures hold"),
        );
    }
    let config = context.config()?;
    let target = choose_one(&config, args.bucket.as_deref())?.open(context, &config)?;
    let mut service = target.service.clone();
    if let Some(endpoint) = &args.endpoint {
        service.endpoint = Some(endpoint.trim_end_matches('/').to_owned());
    }
    if let Some(endpoint) = service
        .endpoint
        .as_deref()
        .filter(|e| is_loopback(e) && !args.loopback)
    {
        return Err(Failure::new(format!(
            "the link would begin with {endpoint}, which works on this machine only"
        ))
        .hint("name the service's public address with --endpoint https://…, or say --loopback"));
    }
    // A link to nothing is found out by whoever gets it, later.
    let key = format!("{}{}", target.prefix, args.key);
    let head = target
        .client
        .sdk()
        .head_object()
        .bucket(&target.bucket)
        .key(&key)
        .send();
    target.client.call(head).map_err(|error| {
        let missing = error.kind == Kind::NoObject;
        let failure = target.client.failure(
            format!(
                "cannot sign a link to {key} in the bucket `{}`",
                target.bucket
            ),
            error,
        );
        if missing {
            failure.hint("`rg-bucket list --prefix …` shows the keys")
        } else {
            failure
        }
    })?;
    let signer = Client::new(&context.network, &service)?;
    let what = || format!("cannot sign a link to {key}");
    let limit = PresigningConfig::expires_in(expires).or_fail(what)?;
    let call = signer.sdk().get_object().bucket(&target.bucket).key(&key);
    let signed = signer.wait(call.presigned(limit))?.or_fail(what)?;
    tracing::info!("the link holds for {}", report::span(expires.as_secs()));
    let url = signed.uri().to_owned();
    Ok(Box::new(Plain {
        document: json!({ "url": url, "key": key, "expires_seconds": expires.as_secs() }),
        text: url,
        outcome: Outcome::Well,
    }))
}
