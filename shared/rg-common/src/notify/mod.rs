//! Telling somebody. A notice that cannot be sent never changes how the work itself ended.
//!
//! People are told of failures by mail, webhook, Slack, Discord or ntfy; a dead man's switch
//! (`ping`) of the start, the success and the failure of every run, so that its silence tells when
//! runs stop altogether. [`deliver`] is one attempt, and says whether a failed one certainly
//! arrived nowhere: who keeps an outbox may then send something else in its place.

mod http;
mod mail;

use std::time::Duration;

use serde::Serialize;

use crate::config::{Config, NotifyConfig, NotifyKind};
use crate::env_file::EnvFile;
use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// How long one attempt may take, from the name look-up to the answer.
pub const ATTEMPT: Duration = Duration::from_secs(10);
/// How often [`tell`] attempts a notice.
const ATTEMPTS: u32 = 3;
/// The wait before another attempt.
const BETWEEN: Duration = Duration::from_secs(2);
/// The most of an account that is sent: services cut or refuse longer ones.
const ACCOUNT_BYTES: usize = 10_000;
/// The longest subject: what a telephone shows of it, and no header becomes too long.
const SUBJECT_BYTES: usize = 180;

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

/// What is told of a run.
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

/// How a message is meant; services show it as a colour, a priority or a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something is bad now.
    Bad,
    /// Something will be bad, or nobody can tell.
    Warn,
    /// It is well again.
    Good,
    /// Nothing has happened: a test.
    Test,
}

/// One message, ready for every kind of channel.
#[derive(Debug, Clone)]
pub struct Message {
    /// One line: a mail's subject, a push message's title.
    pub subject: String,
    /// Lines of plain text for people. Each service gets as much as it takes.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// The same for programs: what a webhook gets.
    pub document: serde_json::Value,
    /// The same message has the same key each time it is sent: the mail's Message-ID and the
    /// webhook's `Idempotency-Key`. Letters, digits, `.` and `-`.
    pub key: String,
    /// The machine that tells it.
    pub host: String,
}

/// A message that did not arrive, or of which nobody knows whether it did.
#[derive(Debug)]
pub struct Undelivered {
    /// Why; without the channel's address, which is a secret.
    pub failure: Failure,
    /// The channel refused it or was not reached. Otherwise it may have arrived.
    pub certain: bool,
}

impl Undelivered {
    fn certain(failure: Failure) -> Undelivered {
        Undelivered {
            failure,
            certain: true,
        }
    }

    fn perhaps(failure: Failure) -> Undelivered {
        Undelivered {
            failure,
            certain: false,
        }
    }
}

/// One attempt to hand a message to a channel (not to a `ping`), within [`ATTEMPT`].
pub async fn deliver(
    channel: &NotifyConfig,
    message: &Message,
) -> std::result::Result<(), Undelivered> {
    let attempt = async {
        match channel.kind {
            NotifyKind::Mail => mail::send(channel, message).await,
            NotifyKind::Ping => Err(Undelivered::certain(Failure::new(
                "a ping takes no messages",
            ))),
            kind => {
                let url = address(channel).map_err(Undelivered::certain)?;
                http::send(kind, &url, message).await
            }
        }
    };
    let outcome = tokio::time::timeout(ATTEMPT, attempt).await;
    outcome
        .unwrap_or_else(|_| {
            Err(Undelivered::perhaps(Failure::new(format!(
                "no answer within {} s",
                ATTEMPT.as_secs()
            ))))
        })
        .map_err(|undelivered| Undelivered {
            failure: undelivered.failure.context(cannot_notify(channel)),
            ..undelivered
        })
}

/// One attempt to tell a dead man's switch, within [`ATTEMPT`]. `run` is an id that joins a run's
/// start and its end (healthchecks.io: `rid`, a UUID).
pub async fn ping(
    channel: &NotifyConfig,
    event: Event,
    run: Option<&str>,
    account: &str,
) -> Result<()> {
    let at = |failure: Failure| failure.context(cannot_notify(channel));
    let url = address(channel).map_err(at)?;
    let sent = tokio::time::timeout(ATTEMPT, http::ping(&url, event, run, account)).await;
    sent.unwrap_or_else(|_| {
        let limit = ATTEMPT.as_secs();
        Err(Failure::new(format!("no answer within {limit} s")))
    })
    .map_err(at)
}

/// An id for a run, in the form of a random UUID (version 4).
pub fn run_id() -> String {
    let mut bytes = [0u8; 16];
    // Without randomness it only joins less well what belongs together.
    getrandom::fill(&mut bytes).ok();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| &hex[from..to];
    [
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32),
    ]
    .join("-")
}

/// Tells everybody whom it concerns. What could not be told comes back, a line for each channel.
/// A fallback is told what another channel could not deliver.
pub fn tell(config: &Config, network: &tokio::runtime::Handle, notice: &Notice) -> Vec<String> {
    let mut untold = Vec::new();
    let message = Message {
        subject: format!("{}: {}", notice.tool, notice.summary),
        text: account(notice),
        tone: Tone::Bad,
        document: serde_json::json!(notice),
        key: run_id(),
        host: notice.host.clone(),
    };
    let people = |channel: &&NotifyConfig| channel.kind != NotifyKind::Ping;
    let told = || config.notify.iter().filter(|c| c.hears(&notice.tool));
    let first = || told().filter(people).filter(|c| !c.fallback);
    let (mut missed, nobody_else) = (false, first().next().is_none());
    let order = told().filter(|channel| !channel.fallback);
    for channel in order.chain(told().filter(|channel| channel.fallback)) {
        let told = match channel.kind {
            NotifyKind::Ping => network.block_on(again(async || {
                ping(channel, notice.event, None, &message.text).await
            })),
            _ if notice.event != Event::Failure => continue,
            _ if channel.fallback && !missed && !nobody_else => continue,
            _ => network.block_on(again(async || {
                deliver(channel, &message).await.map_err(|no| no.failure)
            })),
        };
        if let Err(failure) = told {
            missed |= channel.kind != NotifyKind::Ping;
            tracing::warn!("{failure}");
            untold.push(failure.to_string());
        }
    }
    untold
}

async fn again(attempt: impl AsyncFn() -> Result<()>) -> Result<()> {
    let mut last = attempt().await;
    for _ in 1..ATTEMPTS {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
        last = attempt().await;
    }
    last
}

fn cannot_notify(channel: &NotifyConfig) -> String {
    format!("cannot notify `{}`", channel.name)
}

fn account(notice: &Notice) -> String {
    let text = format!("{}\n{}\n", notice.summary, notice.details.join("\n"));
    within(&text, ACCOUNT_BYTES)
}

/// As much of a text as fits, whole characters, with a mark where it was cut.
pub fn within(text: &str, bytes: usize) -> String {
    const CUT: &str = " …";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let mut end = bytes.saturating_sub(CUT.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT}", &text[..end])
}

/// One line without control characters, as a header takes it.
fn one_line(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    within(plain.trim(), SUBJECT_BYTES)
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
    fn a_text_is_cut_between_characters_and_says_so() {
        assert_eq!(within("äää", 6), "äää");
        assert_eq!(within("ääääää", 8), "ää …");
        assert_eq!(one_line("a\r\nBcc: b@c"), "a  Bcc: b@c");
    }

    #[test]
    fn a_run_id_is_a_random_uuid() {
        let id = run_id();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(&id[14..15], "4", "{id}");
        assert_ne!(id, run_id());
    }
}
