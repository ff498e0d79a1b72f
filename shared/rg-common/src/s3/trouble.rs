//! What an S3 service refused, read into a closed set of kinds, and said with the next step.
//!
//! Codes come from AWS's list and from what SeaweedFS, Garage, MinIO, Ceph and R2 answer. Answers
//! to HEAD carry no code: their status alone tells.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::failure::Failure;

/// What kind of trouble it is, for callers that branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The service does not know the access key.
    WrongKey,
    /// The signature does not match: the secret key is not the access key's.
    WrongSecret,
    /// Temporary keys that are no longer good.
    ExpiredKey,
    /// The bucket, or the service, goes by another region.
    WrongRegion,
    /// Our clock and the service's are too far apart.
    WrongClock,
    /// There is no such bucket.
    NoBucket,
    /// There is no such object, version or upload.
    NoObject,
    /// The keys are good, but do not allow this.
    Denied,
    /// The bucket's name belongs to somebody else.
    NameTaken,
    /// The bucket is there and ours.
    AlreadyOurs,
    /// The bucket holds something.
    NotEmpty,
    /// A setting that was asked for was never made (`NoSuchBucketPolicy` and the like).
    NotSet,
    /// The service has no such call.
    Unsupported,
    /// A condition (`If-Match`, `If-None-Match`) does not hold.
    Precondition,
    /// An object lock forbids it, or demands a checksum.
    Locked,
    /// The bytes that came were not those that were sent.
    Damaged,
    /// The service is overloaded and asks for patience.
    Busy,
    /// The service failed (5xx).
    Down,
    /// Nothing answers there, or the connection was cut.
    Unreachable,
    /// The certificate is not trusted.
    Untrusted,
    /// No answer within the limit.
    TooLate,
    /// An answer that is not one of S3's.
    NotS3,
    /// An answer that contradicts itself, or an earlier one.
    Broken,
    /// The process was told to stop.
    Stopped,
    /// Anything else; the service's own words say what.
    Other,
}

/// What a call ended in.
#[derive(Debug)]
pub struct S3Error {
    /// What kind of trouble.
    pub kind: Kind,
    /// The service's code, such as `NoSuchKey`.
    pub code: Option<String>,
    /// HTTP's status, where there was an answer.
    pub status: Option<u16>,
    /// The service's own words, or the network's.
    said: String,
    /// The region that the service wants.
    pub(super) region: Option<String>,
    /// The service's clock.
    pub(super) date: Option<String>,
    /// The failure behind it, where it is one of ours.
    pub(super) failure: Option<Failure>,
}

impl S3Error {
    /// Reads the SDK's error.
    pub fn of<E>(error: SdkError<E>) -> S3Error
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let mut read = S3Error {
            kind: Kind::Other,
            code: error.code().map(str::to_owned),
            status: error.raw_response().map(|raw| raw.status().as_u16()),
            said: error.message().unwrap_or_default().to_owned(),
            region: None,
            date: None,
            failure: None,
        };
        if let Some(raw) = error.raw_response() {
            read.take_answer(raw);
        }
        read.kind = match &error {
            SdkError::TimeoutError(_) => Kind::TooLate,
            SdkError::DispatchFailure(cause) if cause.is_timeout() => Kind::TooLate,
            SdkError::DispatchFailure(_) => Kind::Unreachable,
            _ => kind(read.status, read.code.as_deref()),
        };
        if read.said.is_empty() && read.code.is_none() {
            read.said = causes(&error);
            let text = read.said.to_ascii_lowercase();
            if read.kind == Kind::Unreachable
                && (text.contains("certificate") || text.contains("tls"))
            {
                read.kind = Kind::Untrusted;
            } else if text.contains("minimum throughput") {
                read.kind = Kind::TooLate;
            } else if read.kind == Kind::Other && read.status.is_none_or(|s| s < 400) {
                read.kind = match &error {
                    SdkError::ResponseError(_) if read.status.is_none_or(|s| s < 400) => {
                        Kind::Unreachable
                    }
                    _ => Kind::NotS3,
                };
            }
        }
        read
    }

    /// A finding of ours about an answer: a wrong ETag, a list that repeats.
    pub fn ours(kind: Kind, said: impl Into<String>) -> S3Error {
        S3Error {
            kind,
            code: None,
            status: None,
            said: said.into(),
            region: None,
            date: None,
            failure: None,
        }
    }

    /// Reads an answer that no call of the SDK asked for.
    pub(super) fn answered(status: u16, text: &str) -> S3Error {
        let code = tag(text, "Code");
        let kind = match (status, code.as_deref()) {
            (200, _) => Kind::NotS3,
            (_, Some("InvalidAction")) => Kind::Unsupported,
            _ => kind(Some(status), code.as_deref()),
        };
        S3Error {
            code,
            status: Some(status),
            ..S3Error::ours(kind, tag(text, "Message").unwrap_or_default())
        }
    }

    /// A failure of ours that came in between, told in its own words.
    pub fn stopped(failure: Failure) -> S3Error {
        S3Error {
            failure: Some(failure),
            ..S3Error::ours(Kind::Stopped, "")
        }
    }

    /// Whether the service lacks the call, so that one can do without.
    pub fn is_unsupported(&self) -> bool {
        self.kind == Kind::Unsupported
    }

    /// Whether trying again later may help.
    pub fn is_passing(&self) -> bool {
        matches!(
            self.kind,
            Kind::Busy | Kind::Down | Kind::Unreachable | Kind::TooLate
        )
    }

    /// What the SDK does not read: the region wanted, the service's clock, the code of answers
    /// that the call's model does not know.
    fn take_answer(&mut self, raw: &HttpResponse) {
        let text = raw.body().bytes().unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..text.len().min(16 << 10)]).into_owned();
        if self.code.is_none() && text.contains("<Error>") {
            self.code = tag(&text, "Code");
        }
        if self.said.is_empty() && text.contains("<Error>") {
            self.said = tag(&text, "Message").unwrap_or_default();
        }
        let header = |name: &str| raw.headers().get(name).map(str::to_owned);
        self.region = header("x-amz-bucket-region").or_else(|| tag(&text, "Region"));
        self.date = tag(&text, "ServerTime").or_else(|| header("date"));
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(failure) = &self.failure {
            return write!(f, "{failure}");
        }
        let words = self.said.trim().trim_end_matches('.');
        match (&self.code, self.status) {
            (Some(code), _) if words.is_empty() => write!(f, "{code}"),
            (Some(code), _) => write!(f, "{code}: {words}"),
            (None, Some(status)) if words.is_empty() => write!(f, "HTTP {status}"),
            (None, _) if words.is_empty() => write!(f, "{:?}", self.kind),
            (None, _) => write!(f, "{words}"),
        }
    }
}

impl Error for S3Error {}

fn kind(status: Option<u16>, code: Option<&str>) -> Kind {
    match code.unwrap_or_default() {
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "NoSuchAccessKey" => Kind::WrongKey,
        "SignatureDoesNotMatch" => Kind::WrongSecret,
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            Kind::ExpiredKey
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException"
        | "InvalidLocationConstraint"
        | "InvalidRegion" => Kind::WrongRegion,
        "RequestTimeTooSkewed" | "RequestExpired" => Kind::WrongClock,
        "NoSuchBucket" => Kind::NoBucket,
        "NoSuchKey" | "NoSuchVersion" | "NoSuchUpload" => Kind::NoObject,
        "AccessDenied" | "AllAccessDisabled" | "UnauthorizedAccess" | "Forbidden" => Kind::Denied,
        "BucketAlreadyExists" => Kind::NameTaken,
        "BucketAlreadyOwnedByYou" => Kind::AlreadyOurs,
        "BucketNotEmpty" => Kind::NotEmpty,
        "NotImplemented" | "XNotImplemented" | "MethodNotAllowed" | "UnsupportedOperation" => {
            Kind::Unsupported
        }
        "PreconditionFailed" | "ConditionalRequestConflict" => Kind::Precondition,
        "ObjectLocked" | "InvalidRetentionPeriod" => Kind::Locked,
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch" => Kind::Damaged,
        "SlowDown" | "SlowDownRead" | "SlowDownWrite" | "TooManyRequests" | "RequestTimeout"
        | "ServiceUnavailable" | "Throttling" => Kind::Busy,
        "InternalError" | "XMinioServerNotInitialized" => Kind::Down,
        code if code.starts_with("NoSuch") && code.contains("Configuration") => Kind::NotSet,
        "NoSuchBucketPolicy"
        | "NoSuchTagSet"
        | "ServerSideEncryptionConfigurationNotFoundError"
        | "ObjectLockConfigurationNotFoundError" => Kind::NotSet,
        _ => match status {
            Some(301 | 307) => Kind::WrongRegion,
            Some(403) => Kind::Denied,
            Some(404) => Kind::NoObject,
            Some(405 | 501) => Kind::Unsupported,
            Some(412) => Kind::Precondition,
            Some(429 | 503) => Kind::Busy,
            Some(500..) => Kind::Down,
            _ => Kind::Other,
        },
    }
}

/// The chain of causes without the SDK's own wrappers, which say nothing.
fn causes<E: Error + 'static>(error: &E) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        let empty = [
            "dispatch failure",
            "service error",
            "response error",
            "io error",
            "other",
            "client error (Connect)",
            "client error (SendRequest)",
            "unhandled error",
        ];
        if !empty.contains(&text.as_str()) && !said.iter().any(|before| before.contains(&text)) {
            said.push(text);
        }
        next = cause.source();
    }
    if said.is_empty() {
        return DisplayErrorContext(error).to_string();
    }
    said.join(": ")
}

/// The text of an XML element without attributes; enough for S3's flat errors.
pub(super) fn tag(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once("</")?;
    (!inside.is_empty()).then(|| inside.to_owned())
}
