//! Access keys of a service that makes them: four calls of AWS's IAM query API, which AWS itself,
//! SeaweedFS and Ceph answer.
//!
//! Signed by the crate that signs for the SDK; a whole SDK for four flat calls would be larger than
//! all of this tool. The promise: a key is asked for once and never again by itself, because a lost
//! answer may have made one; everything else may be asked again.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::runtime::Handle;

use super::trouble::{Kind, S3Error, tag};
use super::{CONNECT_LIMIT, Credentials, S3Config};
use crate::failure::{Failure, OrFail, Result};
use crate::secret::Secret;

/// The version of the API; there has been one.
const VERSION: &str = "2010-05-08";
/// One request, from the connection to the last byte; below the grace that a signal gives.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// How often a question is asked in all when the service cannot be reached or is busy.
const ATTEMPTS: u32 = 3;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// An answer is read up to this size; a page of a hundred keys takes 30 kB.
const ANSWER_BYTES: usize = 1 << 20;
/// Lists are followed for so many pages.
const PAGES_MAX: usize = 100;

/// The IAM interface of a service, with somebody's keys.
pub struct Iam {
    http: reqwest::Client,
    network: Handle,
    address: String,
    region: String,
    credentials: Credentials,
    time: Timestamp,
}

/// An access key as a service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IamKey {
    /// Its id.
    pub id: String,
    /// When it was made; not every service says so.
    pub created: Option<Timestamp>,
}

/// All access keys of a user.
#[derive(Debug, Clone, Default)]
pub struct IamKeys {
    /// In the service's order.
    pub keys: Vec<IamKey>,
    /// The service's clock at its answer.
    pub at: Option<Timestamp>,
}

impl Iam {
    /// Configures it; nothing is sent yet. On AWS the interface has an address of its own, elsewhere
    /// it is the service's. `time` is what requests are dated by: they are good for five minutes.
    pub fn new(network: &Handle, service: &S3Config, time: Timestamp) -> Result<Iam> {
        let credentials = service.credentials.clone();
        let credentials = credentials.ok_or_else(|| Failure::new("no keys to sign with"))?;
        let (address, region) = address(service);
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .timeout(REQUEST_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .or_fail(|| "cannot make a client".to_owned())?;
        Ok(Iam {
            http,
            network: network.clone(),
            address,
            region,
            credentials,
            time,
        })
    }

    /// Its address, for messages.
    pub fn shown(&self) -> &str {
        &self.address
    }

    /// The access keys of a user; without one, of whoever asks.
    pub fn keys(&self, user: Option<&str>) -> Result<IamKeys, S3Error> {
        let mut all = IamKeys::default();
        self.pages("ListAccessKeys", user, |text, at| {
            all.at = at;
            all.keys
                .extend(members(text, "AccessKeyId").map(|(id, member)| IamKey {
                    id,
                    created: tag(member, "CreateDate").and_then(|time| time.parse().ok()),
                }));
        })?;
        Ok(all)
    }

    /// The user whom an access key belongs to; none when nobody's list has it. Asks who used it last,
    /// and where the service lacks that call, everybody's list.
    pub fn owner(&self, access_key: &str) -> Result<Option<String>, S3Error> {
        let asked = self.ask("GetAccessKeyLastUsed", &[("AccessKeyId", access_key)]);
        if let Ok(answer) = &asked
            && let Some(user) = tag(&answer.text, "UserName")
        {
            return Ok(Some(user));
        }
        let mut users = Vec::new();
        self.pages("ListUsers", None, |text, _| {
            users.extend(members(text, "UserName").map(|(name, _)| name));
        })?;
        for user in users {
            if self
                .keys(Some(&user))?
                .keys
                .iter()
                .any(|key| key.id == access_key)
            {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// Has a new key made for a user, or for whoever asks: its id and its secret, which nobody ever
    /// shows again. Asked once: an error may mean that there is one all the same.
    pub fn create(&self, user: Option<&str>) -> Result<(String, Secret), S3Error> {
        let answer = self.ask_once("CreateAccessKey", &with_user(user, &[]))?;
        let id = tag(&answer.text, "AccessKeyId");
        let secret = tag(&answer.text, "SecretAccessKey").map(Secret::new);
        id.zip(secret)
            .ok_or_else(|| S3Error::ours(Kind::Broken, "an answer without a key in it"))
    }

    /// Deletes a key; one that is not there is fine.
    pub fn delete(&self, user: Option<&str>, access_key: &str) -> Result<(), S3Error> {
        let words = with_user(user, &[("AccessKeyId", access_key)]);
        match self.ask("DeleteAccessKey", &words) {
            Err(error) if error.code.as_deref() == Some("NoSuchEntity") => Ok(()),
            other => other.map(drop),
        }
    }

    fn pages(
        &self,
        action: &str,
        user: Option<&str>,
        mut each: impl FnMut(&str, Option<Timestamp>),
    ) -> Result<(), S3Error> {
        let mut marker: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut words = with_user(user, &[]);
            words.extend(marker.as_deref().map(|marker| ("Marker", marker)));
            let answer = self.ask(action, &words)?;
            each(&answer.text, answer.at);
            let more = tag(&answer.text, "IsTruncated").as_deref() == Some("true");
            marker = tag(&answer.text, "Marker").filter(|_| more);
            if marker.is_none() {
                return Ok(());
            }
        }
        Err(S3Error::ours(Kind::Broken, "a list without an end"))
    }

    /// A question that may be asked again.
    fn ask(&self, action: &str, words: &[(&str, &str)]) -> Result<Answer, S3Error> {
        let mut attempt = 1;
        loop {
            match self.ask_once(action, words) {
                Err(error) if error.is_passing() && attempt < ATTEMPTS => {
                    crate::stop::pause(PAUSE).map_err(S3Error::stopped)?;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    fn ask_once(&self, action: &str, words: &[(&str, &str)]) -> Result<Answer, S3Error> {
        let ours = |failure: Failure| S3Error::ours(Kind::Other, failure.to_string());
        let request = self.request(action, words).map_err(ours)?;
        self.network.block_on(async {
            let lost = |error: reqwest::Error| {
                let kind = match error.is_timeout() {
                    true => Kind::TooLate,
                    false => Kind::Unreachable,
                };
                let cause = Failure::because("no answer", error.without_url());
                S3Error::ours(kind, cause.to_string())
            };
            let mut answer = self.http.execute(request).await.map_err(lost)?;
            let status = answer.status().as_u16();
            let date = answer.headers().get("date").and_then(|date| {
                let date = rfc2822::parse(date.to_str().ok()?).ok()?;
                Some(date.timestamp())
            });
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(lost)? {
                body.extend_from_slice(&piece);
                if body.len() > ANSWER_BYTES {
                    return Err(S3Error::ours(Kind::NotS3, "its answer is too long"));
                }
            }
            let text = String::from_utf8_lossy(&body).into_owned();
            // An answer names its question; a service without this interface answers something else.
            if status != 200 || !text.contains(&format!("<{action}Response")) {
                return Err(S3Error::answered(status, &text));
            }
            Ok(Answer { text, at: date })
        })
    }

    fn request(&self, action: &str, words: &[(&str, &str)]) -> Result<reqwest::Request> {
        let what = || format!("cannot sign {action}");
        let all = [("Action", action), ("Version", VERSION)];
        let form = reqwest::Url::parse_with_params("http://form/", all.iter().chain(words));
        let form = form.or_fail(what)?.query().unwrap_or_default().to_owned();
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let identity = self.credentials.signing().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("iam")
            .time(SystemTime::from(self.time))
            .settings(SigningSettings::default())
            .build()
            .or_fail(what)?
            .into();
        let signable = SignableRequest::new(
            "POST",
            &self.address,
            [("content-type", kind)].into_iter(),
            SignableBody::Bytes(form.as_bytes()),
        );
        let signed = sign(signable.or_fail(what)?, &parameters).or_fail(what)?;
        let (instructions, _) = signed.into_parts();
        let mut request = self.http.post(&self.address).header("content-type", kind);
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        request.body(form).build().or_fail(what)
    }
}

struct Answer {
    text: String,
    at: Option<Timestamp>,
}

/// Where the interface is, and the region that its requests are signed for.
fn address(service: &S3Config) -> (String, String) {
    if let Some(endpoint) = service.endpoint.as_ref().filter(|_| !service.is_aws()) {
        let bare = endpoint.trim_end_matches('/');
        return (format!("{bare}/"), service.region.clone());
    }
    // One address for a whole partition of AWS.
    let (host, region) = match service.region.split('-').next() {
        Some("cn") => ("iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        Some("us") if service.region.starts_with("us-gov") => {
            ("iam.us-gov.amazonaws.com", "us-gov-west-1")
        }
        _ => ("iam.amazonaws.com", "us-east-1"),
    };
    (format!("https://{host}/"), region.to_owned())
}

fn with_user<'a>(user: Option<&'a str>, words: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let user = user.map(|user| ("UserName", user));
    user.into_iter().chain(words.iter().copied()).collect()
}

/// The members of a list that have this element, with their text.
fn members<'a>(text: &'a str, element: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    let parts = text.split("<member>").skip(1);
    parts.filter_map(move |part| {
        let member = part.split("</member>").next()?;
        Some((tag(member, element)?, member))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(endpoint: Option<&str>, region: &str) -> S3Config {
        S3Config {
            endpoint: endpoint.map(str::to_owned),
            region: region.to_owned(),
            path_style: None,
            credentials: None,
        }
    }

    #[test]
    fn aws_has_one_address_a_partition_and_others_their_own() {
        let of = |endpoint, region| address(&service(endpoint, region)).0;
        assert_eq!(of(None, "eu-central-1"), "https://iam.amazonaws.com/");
        let regional = Some("https://s3.eu-central-1.amazonaws.com");
        assert_eq!(of(regional, "eu-central-1"), "https://iam.amazonaws.com/");
        assert_eq!(
            of(None, "us-gov-east-1"),
            "https://iam.us-gov.amazonaws.com/"
        );
        assert_eq!(
            of(None, "cn-northwest-1"),
            "https://iam.cn-north-1.amazonaws.com.cn/"
        );
        let own = address(&service(Some("http://127.0.0.1:8333/"), "us-east-1"));
        assert_eq!(
            own,
            ("http://127.0.0.1:8333/".to_owned(), "us-east-1".to_owned())
        );
    }

    #[test]
    fn keys_are_read_with_and_without_their_age() {
        let text = "<R><AccessKeyMetadata><member><UserName>app</UserName><AccessKeyId>A1</AccessKeyId>\
            <CreateDate>2026-01-02T03:04:05Z</CreateDate></member><member><AccessKeyId>A2</AccessKeyId>\
            </member></AccessKeyMetadata><IsTruncated>false</IsTruncated></R>";
        let found: Vec<_> = members(text, "AccessKeyId")
            .map(|(id, member)| (id, tag(member, "CreateDate")))
            .collect();
        let time = Some("2026-01-02T03:04:05Z".to_owned());
        assert_eq!(found, [("A1".to_owned(), time), ("A2".to_owned(), None)]);
    }

    #[test]
    fn a_refusal_is_told_from_a_service_without_access_keys() {
        let of = |status, text| S3Error::answered(status, text).kind;
        let denied = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
        assert_eq!(of(403, denied), Kind::Denied);
        assert_eq!(
            of(400, "<Error><Code>InvalidAction</Code></Error>"),
            Kind::Unsupported
        );
        assert_eq!(of(405, ""), Kind::Unsupported);
        assert_eq!(of(200, "<html>hello</html>"), Kind::NotS3);
    }
}
