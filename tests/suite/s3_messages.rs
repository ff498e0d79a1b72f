//! What an operator reads when a bucket cannot be used: wrong key, wrong secret, wrong region, wrong
//! clock, missing bucket, no permission, name taken. Each is a message of its own with the next
//! step. Real servers say it where they can; where they cannot (a key of somebody else, another
//! region) a proxy answers with AWS's own code.

use rg_common::store::{self, Store};
use rg_common::{Failure, Result};
use rg_tests::{
    Fault, Need, Op, S3FaultProxy, S3Key, S3Server, Sandbox, on_every_server, s3_client,
    s3_network, s3_store, sandbox,
};

on_every_server! {
    a_wrong_access_key_and_a_wrong_secret_key_are_told_apart,
    a_bucket_that_is_not_there_is_named,
    a_key_that_may_not_write_is_not_a_wrong_key,
    another_region_another_clock_and_expired_keys_are_told,
    a_name_that_somebody_else_has_is_told,
    nobody_there_a_page_of_html_and_a_wrong_address_are_told,
}

/// The message and its hint, with what differs from run to run made the same.
fn told(failure: &Failure, endpoint: &str, place: &Sandbox) -> (String, String) {
    let plain = |text: &str| {
        let text = text.replace(endpoint, "ENDPOINT");
        text.replace(&place.root().display().to_string(), "ROOT")
    };
    (
        plain(&failure.to_string()),
        plain(&failure.hints().join(" | ")),
    )
}

/// A list of what a store holds, asked with some key.
fn listed(endpoint: &str, key: &S3Key, bucket: &str, place: &Sandbox) -> Result<usize> {
    let _inside = s3_network().enter();
    let config = s3_store(endpoint, key, ("offsite", bucket, "rg"), place.root());
    let store: Box<dyn Store> = store::open(&config)?;
    store.list("").map(|objects| objects.len())
}

fn with(server: &S3Server, change: impl Fn(&mut S3Key)) -> S3Key {
    let mut key = server.admin.clone();
    change(&mut key);
    key
}

fn a_wrong_access_key_and_a_wrong_secret_key_are_told_apart(server: &'static S3Server) {
    let place = sandbox!();
    let bucket = server.bucket();
    let ask = |key: &S3Key| {
        let failure = listed(&server.endpoint(), key, &bucket, &place).expect_err("a wrong key");
        told(&failure, &server.endpoint(), &place)
    };
    let (said, hint) = ask(&with(server, |key| {
        key.access = "NOSUCHKEYATALL000000".into()
    }));
    assert_eq!(
        said.replace(&bucket, "BUCKET"),
        "store `offsite`: cannot list s3://BUCKET/rg: ENDPOINT does not know the access key \
         (InvalidAccessKeyId)"
    );
    assert_eq!(
        hint,
        "compare AWS_ACCESS_KEY_ID in ROOT/offsite.env with the service's list of keys; it may \
         have been deleted, or belong to another service"
    );
    let (said, hint) = ask(&with(server, |key| key.secret.push('x')));
    assert!(
        said.ends_with("the secret key does not belong to the access key, says ENDPOINT (SignatureDoesNotMatch)"),
        "{said}"
    );
    assert!(
        hint.starts_with("enter AWS_SECRET_ACCESS_KEY in ROOT/offsite.env again"),
        "{hint}"
    );
    let (said, hint) = (format!("{said}{hint}"), server.admin.secret.as_str());
    assert!(!said.contains(hint), "no secret is shown");
}

fn a_bucket_that_is_not_there_is_named(server: &'static S3Server) {
    let place = sandbox!();
    let failure = listed(&server.endpoint(), &server.admin, "never-made", &place);
    let (said, hint) = told(&failure.expect_err("no bucket"), &server.endpoint(), &place);
    assert_eq!(
        said,
        "store `offsite`: cannot list s3://never-made/rg: there is no such bucket at ENDPOINT (NoSuchBucket)"
    );
    assert_eq!(
        hint,
        "see its name in rg.toml; make it in the service's console, or with `rg-bucket apply`"
    );
}

fn a_key_that_may_not_write_is_not_a_wrong_key(server: &'static S3Server) {
    let place = sandbox!();
    if !server.can(Need::ReadOnlyKey) {
        return;
    }
    let (bucket, reader) = (server.bucket(), server.reader.clone().expect("a reader"));
    assert_eq!(
        listed(&server.endpoint(), &reader, &bucket, &place).expect("it may list"),
        0
    );
    let _inside = s3_network().enter();
    let at = ("offsite", &*bucket, "rg");
    let config = s3_store(&server.endpoint(), &reader, at, place.root());
    let failure = store::open(&config).expect("a store").lock("app").err();
    let (said, hint) = told(&failure.expect("it may not"), &server.endpoint(), &place);
    assert_eq!(
        said,
        "cannot lock app in store `offsite`: the keys are known to ENDPOINT but do not allow it (AccessDenied)"
    );
    assert_eq!(
        hint,
        "let the key in ROOT/offsite.env list, read, write and delete in this bucket, and abort uploads"
    );
}

fn another_region_another_clock_and_expired_keys_are_told(server: &'static S3Server) {
    let place = sandbox!();
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let ask = |status, code| {
        proxy.heal();
        proxy.on(Op::List, 1..=99, Fault::Answer(status, code));
        let failure = listed(&proxy.endpoint(), &server.admin, &bucket, &place);
        let (said, hint) = told(&failure.expect_err(code), &proxy.endpoint(), &place);
        (
            said.split_once("/rg: ").expect("the cause").1.to_owned(),
            hint,
        )
    };
    let (said, hint) = ask(301, "PermanentRedirect");
    assert_eq!(
        said,
        "`us-east-1` is not its region, says ENDPOINT (PermanentRedirect)"
    );
    assert_eq!(
        hint,
        "set region in rg.toml to what the service's console shows for the bucket"
    );
    let (said, _) = ask(400, "AuthorizationHeaderMalformed");
    assert_eq!(
        said,
        "`us-east-1` is not its region, says ENDPOINT (AuthorizationHeaderMalformed)"
    );
    let (said, hint) = ask(403, "RequestTimeTooSkewed");
    assert!(
        said.starts_with("this machine's clock is wrong: ENDPOINT has "),
        "{said}"
    );
    assert_eq!(
        hint,
        "set the clock: `timedatectl set-ntp true`, then compare `date -u`"
    );
    let (said, hint) = ask(400, "ExpiredToken");
    assert_eq!(said, "the keys have expired, says ENDPOINT (ExpiredToken)");
    assert!(hint.starts_with("a timer needs keys that last"), "{hint}");
}

fn a_name_that_somebody_else_has_is_told(server: &'static S3Server) {
    let proxy = S3FaultProxy::before(server);
    proxy.on(Op::Other, 1..=99, Fault::Answer(409, "BucketAlreadyExists"));
    let client = s3_client(&proxy.endpoint(), &server.admin);
    let error = client.call(client.sdk().create_bucket().bucket("backups").send());
    let failure = client.failure(
        "cannot make the bucket `backups`",
        error.expect_err("taken"),
    );
    assert_eq!(
        failure.to_string().replace(&proxy.endpoint(), "ENDPOINT"),
        "cannot make the bucket `backups`: the bucket's name is taken by somebody else at ENDPOINT \
         (BucketAlreadyExists)"
    );
    assert_eq!(
        failure.hints(),
        [
            "bucket names are shared by all customers of a service: choose another, with your own name in it"
        ]
    );
}

fn nobody_there_a_page_of_html_and_a_wrong_address_are_told(server: &'static S3Server) {
    let place = sandbox!();
    let ask = |endpoint: &str| {
        let failure = listed(endpoint, &server.admin, "some-bucket", &place).expect_err(endpoint);
        told(&failure, endpoint, &place).0
    };
    let said = ask("http://127.0.0.1:9");
    assert!(said.contains("ENDPOINT cannot be reached: "), "{said}");
    assert!(said.contains("Connection refused"), "{said}");
    let said = ask("http://no-such-host.invalid");
    assert!(said.contains("ENDPOINT cannot be reached: "), "{said}");
    let said = ask("s3.example.org");
    assert!(
        said.contains("the endpoint `ENDPOINT` is not an http:// or https:// address"),
        "{said}"
    );
    let page = rg_tests::HttpSink::start();
    let said = ask(page.url("").trim_end_matches('/'));
    assert!(
        said.contains("what answers at ENDPOINT does not speak S3"),
        "{said}"
    );
}
