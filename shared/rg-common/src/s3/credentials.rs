//! The two keys to an S3 service, and where they come from: a file, a systemd credential or the
//! process's environment. Never `rg.toml`, never a program's arguments.

use std::path::Path;

use aws_credential_types::provider::SharedCredentialsProvider;

use crate::config::process_variable;
use crate::env_file::EnvFile;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// The names that every S3 program knows.
const ACCESS_KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

/// An access key, its secret, and a session's token where the keys are temporary.
#[derive(Debug, Clone)]
pub struct Credentials {
    access_key: Secret,
    secret_key: Secret,
    session_token: Option<Secret>,
    origin: String,
}

impl Credentials {
    /// Keys that were looked up elsewhere; `origin` says where, for hints.
    pub fn new(access_key: Secret, secret_key: Secret, origin: impl Into<String>) -> Self {
        Credentials {
            access_key,
            secret_key,
            session_token: None,
            origin: origin.into(),
        }
    }

    /// From a file of `AWS_ACCESS_KEY_ID=…` and `AWS_SECRET_ACCESS_KEY=…` lines. A path that begins
    /// with `$CREDENTIALS_DIRECTORY/` is a systemd credential (`LoadCredential=`).
    pub fn from_file(path: &Path) -> Result<Credentials> {
        let file = EnvFile::read(path).map_err(|failure| {
            failure.hint(format!(
                "it holds {ACCESS_KEY}=… and {SECRET_KEY}=…, one a line, and is readable by us alone"
            ))
        })?;
        Credentials::from_names(&path.display().to_string(), |name| file.get(name).cloned())
    }

    /// From the text of such a file; `origin` says where it was read.
    pub fn from_text(text: &str, origin: &str) -> Result<Credentials> {
        let file = EnvFile::parse(text)
            .map_err(|failure| failure.context(format!("cannot read {origin}")))?;
        Credentials::from_names(origin, |name| file.get(name).cloned())
    }

    /// From systemd credentials of the variables' names, or from the process's environment.
    pub fn from_environment() -> Result<Credentials> {
        Credentials::from_names("the environment", process_variable)
    }

    fn from_names(origin: &str, look_up: impl Fn(&str) -> Option<Secret>) -> Result<Credentials> {
        let get = |name: &str| match look_up(name) {
            Some(value) if !value.reveal().trim().is_empty() => {
                // A line end or a blank copied along makes a wrong signature, which is a riddle.
                Ok(Secret::new(value.reveal().trim()))
            }
            Some(_) => Err(Failure::new(format!("{name} in {origin} is empty"))),
            None => Err(Failure::new(format!("no {name} in {origin}"))
                .hint("name a file that has it: credentials = \"/etc/rg/NAME.env\"")),
        };
        Ok(Credentials {
            access_key: get(ACCESS_KEY)?,
            secret_key: get(SECRET_KEY)?,
            session_token: look_up(SESSION_TOKEN).filter(|token| !token.reveal().is_empty()),
            origin: origin.to_owned(),
        })
    }

    /// Where they came from, for hints.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The access key itself, which is no secret to whoever serves it, and yet not for logs.
    pub fn access_key(&self) -> &Secret {
        &self.access_key
    }

    /// Its secret.
    pub fn secret_key(&self) -> &Secret {
        &self.secret_key
    }

    /// For the SDK alone.
    pub(super) fn provider(&self) -> SharedCredentialsProvider {
        SharedCredentialsProvider::new(self.signing())
    }

    /// For signing a request.
    pub(super) fn signing(&self) -> aws_credential_types::Credentials {
        aws_credential_types::Credentials::new(
            self.access_key.reveal(),
            self.secret_key.reveal(),
            self.session_token
                .as_ref()
                .map(|token| token.reveal().to_owned()),
            None,
            "rg",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_key_is_named_with_its_file_and_no_value_is_shown() {
        let read = |text: &str| {
            let file = EnvFile::parse(text).unwrap();
            Credentials::from_names("/etc/rg/offsite.env", |name| file.get(name).cloned())
        };
        let said = read("AWS_ACCESS_KEY_ID=AK\n").unwrap_err().to_string();
        assert_eq!(said, "no AWS_SECRET_ACCESS_KEY in /etc/rg/offsite.env");
        let said = read("AWS_ACCESS_KEY_ID=\n").unwrap_err().to_string();
        assert_eq!(said, "AWS_ACCESS_KEY_ID in /etc/rg/offsite.env is empty");
        let keys = read("AWS_ACCESS_KEY_ID=AK\nAWS_SECRET_ACCESS_KEY='hunter2 '\n").unwrap();
        assert_eq!(keys.secret_key.reveal(), "hunter2");
        assert!(!format!("{keys:?}").contains("hunter2"));
    }
}
