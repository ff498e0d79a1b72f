//! Asks a bucket as somebody without a key would: plain HTTP, no signature, no redirect followed.
//!
//! Nothing is ever left behind: the write carries a digest that does not fit, and should a server
//! take it all the same, the object is deleted with our key.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode, redirect};
use rg_common::{OrFail, Result};

use crate::exposure::{seen, seen_write};
use crate::found::{Exposure, Seen};
use crate::target::Target;

/// One answer must come within this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How much of a refusal is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;
/// The MD5 of nothing, in base64: it fits no body but an empty one.
const DIGEST_OF_NOTHING: &str = "1B2M2Y8AsgTpgAmY7PhCfg==";

/// Somebody without a key.
pub struct Stranger(Client);

/// What a stranger met.
pub struct Met {
    /// What was allowed.
    pub exposure: Exposure,
    /// What the server calls itself.
    pub header: Option<String>,
}

struct Said {
    status: u16,
    body: String,
    header: Option<String>,
    version: Option<String>,
}

impl Stranger {
    /// Nothing is sent yet.
    pub fn new() -> Result<Stranger> {
        let client = Client::builder()
            .timeout(ANSWER_LIMIT)
            .redirect(redirect::Policy::none())
            .build();
        Ok(Stranger(client.or_fail(|| {
            "cannot set up requests without a key".to_owned()
        })?))
    }

    /// Asks all three questions; `key` is an object that is there.
    pub fn meets(&self, target: &Target, key: Option<&str>) -> Result<Met> {
        let get = match key {
            Some(key) => Some(self.ask(target, Method::GET, &target.address(key)?)?),
            None => None,
        };
        let list = self.ask(target, Method::GET, &target.list_address()?)?;
        let name = format!(
            "{}{}",
            target.prefix,
            rg_common::s3::canary::nonce("rg-probe-anonymous-")?
        );
        let put = self.ask(target, Method::PUT, &target.address(&name)?)?;
        if StatusCode::from_u16(put.status).is_ok_and(|status| status.is_success()) {
            let delete = target
                .client
                .sdk()
                .delete_object()
                .bucket(&target.bucket)
                .key(&name)
                .set_version_id(put.version)
                .send();
            target.client.call(delete).map_err(|error| {
                target.client.failure(format!("anybody can write, and what was written to prove it cannot be deleted: {name}"), error)
            })?;
        }
        Ok(Met {
            exposure: Exposure {
                get: get.map_or(Seen::NotAsked, |said| seen(said.status)),
                list: seen(list.status),
                put: seen_write(put.status, &put.body),
            },
            header: list.header.or(put.header),
        })
    }

    /// Follows a signed link: the status (0 for no answer) and the first bytes.
    pub fn follow(&self, target: &Target, link: &str) -> Result<(u16, Vec<u8>)> {
        let request = self.0.get(link);
        let got = target.client.wait(async {
            let mut answer = request.send().await?;
            let mut body = Vec::new();
            while body.len() < REFUSAL_BYTES_MAX {
                match answer.chunk().await? {
                    Some(chunk) => body.extend_from_slice(&chunk),
                    None => break,
                }
            }
            Ok::<_, reqwest::Error>((answer.status().as_u16(), body))
        })?;
        Ok(got.unwrap_or((0, Vec::new())))
    }

    /// No answer at all is status 0: it proves nothing, and is no reason to stop.
    fn ask(&self, target: &Target, method: Method, address: &str) -> Result<Said> {
        let write = method == Method::PUT;
        let mut request = self.0.request(method, address);
        if write {
            request = request.header("content-md5", DIGEST_OF_NOTHING).body("rg");
        }
        let asked = target.client.wait(async {
            let mut answer = request.send().await?;
            let head = |name: &str| {
                let value = answer.headers().get(name)?.to_str().ok()?;
                Some(value.to_owned())
            };
            let (header, version) = (head("server"), head("x-amz-version-id"));
            let mut body = Vec::new();
            // A whole object is never read: a refusal's first words will do.
            while write && body.len() < REFUSAL_BYTES_MAX {
                match answer.chunk().await? {
                    Some(chunk) => body.extend_from_slice(&chunk),
                    None => break,
                }
            }
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok::<Said, reqwest::Error>(Said {
                status: answer.status().as_u16(),
                body,
                header,
                version,
            })
        })?;
        Ok(asked.unwrap_or(Said {
            status: 0,
            body: String::new(),
            header: None,
            version: None,
        }))
    }
}
