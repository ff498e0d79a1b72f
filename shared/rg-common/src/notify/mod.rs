//! Telling somebody. A notice that cannot be sent never changes how the work itself ended.
//!
//! A webhook is told about failures; a dead man's switch (`ping`) about the start, the success and
//! the failure of every run, so that its silence tells when backups stop altogether.

use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, NotifyConfig, NotifyKind};
use crate::env_file::EnvFile;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often a notice is attempted.
const ATTEMPTS: u32 = 3;
/// The wait before another attempt.
const BETWEEN: Duration = Duration::from_secs(2);
/// The most of an account that is sent: services cut or refuse longer ones.
const ACCOUNT_BYTES: usize = 10_000;

/// What a run has to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// It begins.
    Start,
    /// Everything was done.
    Success,
    /// Something was not.
    Failure,
}

/// What is told.
#[derive(Debug, Clone, Serialize)]
pub struct Notice {
    /// `rg-backup`
    pub tool: String,
    /// The machine.
    pub host: String,
    /// What happened.
    pub event: Event,
    /// One line.
    pub summary: String,
    /// What failed and what to do next, a line each.
    pub details: Vec<String>,
}

/// Tells everybody whom it concerns. What could not be told comes back, a line for each channel.
pub fn tell(config: &Config, network: &tokio::runtime::Handle, notice: &Notice) -> Vec<String> {
    let mut untold = Vec::new();
    for channel in &config.notify {
        if channel.kind != NotifyKind::Ping && notice.event != Event::Failure {
            continue;
        }
        if let Err(failure) = send(channel, network, notice) {
            tracing::warn!("{failure}");
            untold.push(failure.to_string());
        }
    }
    untold
}

fn send(channel: &NotifyConfig, network: &tokio::runtime::Handle, notice: &Notice) -> Result<()> {
    let what = || format!("cannot notify `{}`", channel.name);
    if !matches!(channel.kind, NotifyKind::Webhook | NotifyKind::Ping) {
        return Err(Failure::new(format!(
            "{}: this version sends to kinds webhook and ping only",
            what()
        )));
    }
    let url = address(channel).map_err(|failure| failure.context(what()))?;
    network.block_on(async {
        let mut last = post(channel.kind, &url, notice, &what).await;
        for _ in 1..ATTEMPTS {
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(BETWEEN).await;
            last = post(channel.kind, &url, notice, &what).await;
        }
        last
    })
}

async fn post(
    kind: NotifyKind,
    url: &Secret,
    notice: &Notice,
    what: impl Fn() -> String,
) -> Result<()> {
    // The address is a secret: an error must not carry it.
    let plain = |error: reqwest::Error| Failure::because(what(), error.without_url());
    let client = reqwest::Client::builder()
        .timeout(ATTEMPT)
        .build()
        .map_err(plain)?;
    let request = match kind {
        NotifyKind::Ping => {
            let (suffix, account) = match notice.event {
                Event::Start => ("/start", String::new()),
                Event::Success => ("", account(notice)),
                Event::Failure => ("/fail", account(notice)),
            };
            client.post(with_suffix(url.reveal(), suffix)).body(account)
        }
        _ => client.post(url.reveal()).json(notice),
    };
    let answer = request.send().await.map_err(plain)?;
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "{}: it answered {}",
            what(),
            answer.status()
        )))
    }
}

fn with_suffix(url: &str, suffix: &str) -> String {
    let (path, query) = url
        .split_once('?')
        .map_or((url, None), |(path, query)| (path, Some(query)));
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    format!("{}{suffix}{query}", path.trim_end_matches('/'))
}

fn account(notice: &Notice) -> String {
    let mut text = format!("{}\n{}\n", notice.summary, notice.details.join("\n"));
    let mut end = ACCOUNT_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn address(channel: &NotifyConfig) -> Result<Secret> {
    let Some(value) = &channel.url else {
        return Err(Failure::new("it has no url"));
    };
    let file = channel.env_file.as_deref().map(EnvFile::read).transpose()?;
    value.resolve(|name| {
        let of_ours = || crate::config::process_variable(name);
        file.as_ref()
            .and_then(|file| file.get(name).cloned())
            .or_else(of_ours)
            .ok_or_else(|| {
                Failure::new(format!("no variable {name}")).hint(format!(
                    "set it in the unit, or name a file with env_file under [notify.{}]",
                    channel.name
                ))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_keeps_its_query_behind_the_suffix() {
        assert_eq!(
            with_suffix("https://hc/abc", "/fail"),
            "https://hc/abc/fail"
        );
        assert_eq!(
            with_suffix("https://hc/abc/?rid=1", "/start"),
            "https://hc/abc/start?rid=1"
        );
        assert_eq!(with_suffix("https://hc/abc", ""), "https://hc/abc");
    }
}
