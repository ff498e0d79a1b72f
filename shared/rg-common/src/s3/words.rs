//! What an operator reads of an S3 service's refusals: the cause in words, and the next step.

use super::About;
use super::trouble::{Kind, S3Error};
use crate::failure::Failure;

/// The message and its hint. `about` names the service and where the keys came from.
pub(super) fn failure(about: &About, what: String, error: S3Error) -> Failure {
    let About {
        shown,
        region,
        keys,
        ..
    } = about;
    if let Some(failure) = error.failure {
        return failure.context(what);
    }
    let code = match (&error.code, error.status) {
        (Some(code), _) => format!(" ({code})"),
        (None, Some(status)) => format!(" (HTTP {status})"),
        (None, None) => String::new(),
    };
    let (cause, hint) = match error.kind {
        Kind::WrongKey => (
            format!("{shown} does not know the access key{code}"),
            format!("compare AWS_ACCESS_KEY_ID in {keys} with the service's list of keys; it may have been deleted, or belong to another service"),
        ),
        Kind::WrongSecret => (
            format!("the secret key does not belong to the access key, says {shown}{code}"),
            format!("enter AWS_SECRET_ACCESS_KEY in {keys} again, whole and without blanks; if it is right, see that the endpoint is the service itself and not a proxy that changes requests"),
        ),
        Kind::ExpiredKey => (
            format!("the keys have expired, says {shown}{code}"),
            format!("a timer needs keys that last: make an access key without a session token and put it into {keys}"),
        ),
        Kind::WrongRegion => (
            match &error.region {
                Some(wanted) if wanted != region => {
                    format!("it lies in the region `{wanted}`, not `{region}`{code}")
                }
                _ => format!("`{region}` is not its region, says {shown}{code}"),
            },
            match &error.region {
                Some(wanted) if wanted != region => {
                    format!("set region = \"{wanted}\" in rg.toml, and the endpoint that belongs to it")
                }
                _ => "set region in rg.toml to what the service's console shows for the bucket".to_owned(),
            },
        ),
        Kind::WrongClock => (
            match &error.date {
                Some(date) => format!("this machine's clock is wrong: {shown} has {date}{code}"),
                None => format!("this machine's clock is wrong, says {shown}{code}"),
            },
            "set the clock: `timedatectl set-ntp true`, then compare `date -u`".to_owned(),
        ),
        Kind::NoBucket => (
            format!("there is no such bucket at {shown}{code}"),
            "see its name in rg.toml; make it in the service's console, or with `rg-bucket apply`".to_owned(),
        ),
        Kind::NoObject => (format!("it is not there{code}"), String::new()),
        Kind::Denied => (
            format!("the keys are known to {shown} but do not allow it{code}"),
            format!("let the key in {keys} list, read, write and delete in this bucket, and abort uploads"),
        ),
        Kind::NameTaken => (
            format!("the bucket's name is taken by somebody else at {shown}{code}"),
            "bucket names are shared by all customers of a service: choose another, with your own name in it".to_owned(),
        ),
        Kind::AlreadyOurs => (format!("it is there already{code}"), String::new()),
        Kind::NotEmpty => (format!("the bucket is not empty{code}"), String::new()),
        Kind::NotSet => (format!("it is not set{code}"), String::new()),
        Kind::Broken => (
            format!("an answer of {shown} cannot be believed: {error}"),
            "run it again; if it happens again, the service or something before it is at fault".to_owned(),
        ),
        Kind::Unsupported if code.is_empty() => (
            format!("{error}"),
            "leave the setting out of rg.toml, or use a service that has it".to_owned(),
        ),
        Kind::Unsupported => (
            format!("{shown} has no such call{code}"),
            "leave the setting out of rg.toml, or use a service that has it".to_owned(),
        ),
        Kind::Precondition => (
            format!("it was changed by somebody else meanwhile{code}"),
            "run it again; if it happens again, two machines write to the same place".to_owned(),
        ),
        Kind::Locked => (
            format!("an object lock forbids it, says {shown}: {error}"),
            "it can be removed when its retention has ended".to_owned(),
        ),
        Kind::Damaged => (
            format!("bytes were changed on their way to {shown}: {error}"),
            "run it again; if it happens again, something between here and there changes data".to_owned(),
        ),
        Kind::Busy => (
            format!("{shown} was too busy, each time it was tried{code}"),
            "run it again later; fewer runs at the same minute help".to_owned(),
        ),
        Kind::Down => (
            format!("{shown} failed, each time it was tried: {error}"),
            "see the service's status page, and run it again later".to_owned(),
        ),
        Kind::Unreachable => (
            format!("{shown} cannot be reached: {error}"),
            "see the endpoint in rg.toml, and the network: `curl -I` with that address".to_owned(),
        ),
        Kind::Untrusted => (
            format!("the certificate of {shown} is not trusted: {error}"),
            "for a private authority, name its certificate in SSL_CERT_FILE".to_owned(),
        ),
        Kind::TooLate => (
            format!("{shown} did not answer in time, each time it was tried"),
            "see whether the service is up, and how fast the line is; run it again later".to_owned(),
        ),
        Kind::NotS3 => (
            format!("what answers at {shown} does not speak S3: {error}"),
            "see the endpoint in rg.toml: it is the address of the S3 interface, not of the console".to_owned(),
        ),
        Kind::Stopped | Kind::Other => (format!("{shown} refused: {error}"), String::new()),
    };
    let failure = Failure::because(what, cause);
    if hint.is_empty() {
        failure
    } else {
        failure.hint(hint)
    }
}
