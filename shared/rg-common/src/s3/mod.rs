//! The aws-sdk-s3 client as every tool configures it.
//!
//! The promise: one place decides how S3-compatible services are spoken to (checksums, path style,
//! limits, retries, trust), every wait has a limit, and what goes wrong is said in an operator's
//! words with the next step ([`S3Error`]). The facade is synchronous like that of `postgres`: the
//! calls run on the one runtime made in `cli`, and [`Client::call`] must not be used from within it.

pub mod canary;
mod clock;
mod credentials;
mod digest;
mod iam;
mod pages;
mod trouble;
mod upload;
mod words;

use std::future::Future;
use std::time::Duration;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::tls;
use tokio::runtime::Handle;

use crate::failure::{Failure, Result};
use crate::stop;
use clock::ServiceClock;
pub use credentials::Credentials;
pub use digest::{Md5, Md5Sum, base64, etag_md5, md5, multipart_etag};
pub use iam::{Iam, IamKey, IamKeys};
pub use pages::{Listed, ObjectPages, PAGE};
pub use trouble::{Kind, S3Error};
pub use upload::{DAMAGED_TRIES, Upload, abort_upload};

/// A connection must be made within this time.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// One attempt at a call that moves no data.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// All attempts at a call that moves no data.
pub const CALL_LIMIT: Duration = Duration::from_secs(90);
/// The slowest line that data is sent over: what an attempt may take grows with what it sends.
pub const SEND_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// One attempt to complete a multipart upload.
pub const COMPLETE_LIMIT: Duration = Duration::from_secs(600);
/// A transfer that does not move a byte for this long is cut off, and tried again.
pub const STALL_LIMIT: Duration = Duration::from_secs(20);
/// How often a call is tried in all.
pub const ATTEMPTS: u32 = 4;
/// How often a call that sends data is tried in all: an hour's upload should outlive a restarted
/// router.
pub const SEND_ATTEMPTS: u32 = 8;
/// The first pause before another attempt; doubled each time, and shortened at random.
const BACKOFF_FIRST: Duration = Duration::from_millis(300);
/// The longest pause before another attempt.
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// What is cleaned up after a failure or a signal must be done in this time, below the grace that
/// a signal gives.
pub const CLEAN_UP_LIMIT: Duration = Duration::from_secs(12);
/// How often a wait looks whether it was told to stop.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// An S3-compatible service and the keys to it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// `https://s3.example.org`; none means AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; `us-east-1` where the configuration names none,
    /// which is what most services but AWS, Backblaze and R2 (`auto`) go by.
    pub region: String,
    /// Whether the bucket stands in the path (`host/bucket/key`) and not in the host's name; by
    /// default on AWS alone it stands in the host's name.
    pub path_style: Option<bool>,
    /// The keys; none for requests that are not signed.
    pub credentials: Option<Credentials>,
}

impl S3Config {
    /// Whether it is AWS itself, whose newer defaults other services do not keep up with.
    pub fn is_aws(&self) -> bool {
        self.endpoint.as_deref().is_none_or(|endpoint| {
            let host = endpoint.split("://").last().unwrap_or_default();
            let host = host.split(['/', ':']).next().unwrap_or_default();
            host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
        })
    }

    /// The service's address for messages.
    pub fn shown(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => format!("AWS ({})", self.region),
        }
    }
}

/// A client of one service. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    sdk: aws_sdk_s3::Client,
    network: Handle,
    about: std::sync::Arc<About>,
    clock: ServiceClock,
}

/// What messages say about a service.
#[derive(Debug)]
struct About {
    shown: String,
    region: String,
    keys: String,
    aws: bool,
}

impl Client {
    /// Configures a client; nothing is sent yet. Certificates are checked against the host's, or
    /// those in `$SSL_CERT_FILE`.
    pub fn new(network: &Handle, config: &S3Config) -> Result<Client> {
        if let Some(endpoint) = &config.endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            return Err(Failure::new(format!(
                "the endpoint `{endpoint}` is not an http:// or https:// address"
            ))
            .hint("write it as the service's console shows it: https://s3.example.org"));
        }
        let checksums = config.is_aws();
        let clock = ServiceClock::default();
        let mut sdk = aws_sdk_s3::config::Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .force_path_style(config.path_style.unwrap_or(!config.is_aws()))
            // Elsewhere than on AWS the new trailing checksums are refused, or stored as data.
            .request_checksum_calculation(if checksums {
                RequestChecksumCalculation::WhenSupported
            } else {
                RequestChecksumCalculation::WhenRequired
            })
            .response_checksum_validation(if checksums {
                ResponseChecksumValidation::WhenSupported
            } else {
                ResponseChecksumValidation::WhenRequired
            })
            .retry_config(retries(ATTEMPTS))
            .timeout_config(limits(ATTEMPT_LIMIT, CALL_LIMIT))
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled()
                    .grace_period(STALL_LIMIT)
                    .build(),
            )
            .interceptor(clock.clone())
            .http_client(http(config.endpoint.as_deref()));
        sdk.set_endpoint_url(config.endpoint.clone());
        if let Some(keys) = &config.credentials {
            sdk = sdk.credentials_provider(keys.provider());
        } else {
            sdk = sdk.allow_no_auth();
        }
        Ok(Client {
            sdk: aws_sdk_s3::Client::from_conf(sdk.build()),
            network: network.clone(),
            clock,
            about: std::sync::Arc::new(About {
                shown: config.shown(),
                region: config.region.clone(),
                keys: config
                    .credentials
                    .as_ref()
                    .map_or_else(|| "no keys".to_owned(), |keys| keys.origin().to_owned()),
                aws: config.is_aws(),
            }),
        })
    }

    /// The same client, whose calls are tried twice and end sooner: for a look that should rather say
    /// "it does not answer" than wait.
    #[must_use]
    pub fn hurried(&self, attempt: Duration) -> Client {
        let config = self.sdk.config().to_builder();
        let config = config
            .retry_config(retries(2))
            .timeout_config(limits(attempt, attempt * 2 + BACKOFF_FIRST));
        Client {
            sdk: aws_sdk_s3::Client::from_conf(config.build()),
            ..self.clone()
        }
    }

    /// The SDK's client, for building calls and for work that runs side by side on the runtime.
    pub fn sdk(&self) -> &aws_sdk_s3::Client {
        &self.sdk
    }

    /// The runtime that calls run on.
    pub fn network(&self) -> &Handle {
        &self.network
    }

    /// The service's address for messages.
    pub fn shown(&self) -> &str {
        &self.about.shown
    }

    /// Whether the service is AWS itself.
    pub fn is_aws(&self) -> bool {
        self.about.aws
    }

    /// The service's clock at its last answer, in seconds since 1970; none before the first. Ages
    /// of what lies there are told by it, because ours may be wrong.
    pub fn service_time(&self) -> Option<i64> {
        self.clock.seconds()
    }

    /// Whether bytes on their way are protected by TLS.
    pub fn is_encrypted(&self) -> bool {
        !self.about.shown.starts_with("http://")
    }

    /// Waits for one call's answer; ends early when the process is told to stop.
    pub fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, S3Error>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.wait(async { call.await.map_err(S3Error::of) })
            .unwrap_or_else(|stopped| Err(S3Error::stopped(stopped)))
    }

    /// Waits for work on the runtime; ends early, dropping it, when the process is told to stop.
    /// What begins after that is clean-up: it goes on, within [`CLEAN_UP_LIMIT`].
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        if let Err(stopped) = stop::check() {
            return self.clean_up(work).ok_or(stopped);
        }
        self.network.block_on(async {
            tokio::pin!(work);
            loop {
                stop::check()?;
                if let Ok(done) = tokio::time::timeout(STOP_LOOK, &mut work).await {
                    return Ok(done);
                }
            }
        })
    }

    /// Waits for what must still be done after a failure or a signal, up to [`CLEAN_UP_LIMIT`];
    /// none when that was not enough.
    pub fn clean_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.network
            .block_on(async { tokio::time::timeout(CLEAN_UP_LIMIT, work).await.ok() })
    }

    /// What a call could not do, with the cause in words and the next step. `what` names the
    /// object or the bucket: `cannot read …`.
    pub fn failure(&self, what: impl Into<String>, error: S3Error) -> Failure {
        words::failure(&self.about, what.into(), error)
    }
}

/// The settings of calls that send so many bytes, for `customize().config_override(…)`.
pub fn sending(bytes: u64) -> aws_sdk_s3::config::Builder {
    let attempt = ATTEMPT_LIMIT + Duration::from_secs(bytes / SEND_BYTES_PER_SECOND_MIN);
    aws_sdk_s3::config::Builder::new()
        .retry_config(retries(SEND_ATTEMPTS))
        .timeout_config(limits(attempt, attempt * 3))
}

/// The settings of a multipart upload's completion: a service may put the parts together for
/// minutes, keeping the connection alive.
pub fn completing() -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new()
        .retry_config(retries(SEND_ATTEMPTS))
        .timeout_config(limits(COMPLETE_LIMIT, COMPLETE_LIMIT * 2))
}

fn retries(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(BACKOFF_FIRST)
        .with_max_backoff(BACKOFF_MAX)
}

fn limits(attempt: Duration, call: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_LIMIT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(call)
        .build()
}

fn http(endpoint: Option<&str>) -> SharedHttpClient {
    let builder = aws_smithy_http_client::Builder::new();
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        return builder.build_http();
    }
    builder
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https()
}
