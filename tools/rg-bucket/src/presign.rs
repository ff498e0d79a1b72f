//! `presign`: a link that lets its bearer read one object for a time. It is the one place where a
//! signature is printed, and nothing else goes to stdout.

use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Plain, Report};
use rg_common::s3::{Client, Kind};
use rg_common::{Failure, OrFail, Result};
use serde_json::json;

use crate::args;
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

/// Whether an address is this machine's own.
fn is_loopback(endpoint: &str) -> bool {
    let rest = endpoint.split("://").nth(1).unwrap_or(endpoint);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    };
    let by_number = host
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified());
    by_number || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known() {
        for own in [
            "http://127.0.0.1:9000",
            "http://localhost",
            "http://[::1]:9000/x",
            "http://0.0.0.0:1",
            "https://a.localhost",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "https://s3.example.org",
            "http://10.0.0.5:9000",
            "https://localhost.example.org",
            "http://[2001:db8::1]",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
