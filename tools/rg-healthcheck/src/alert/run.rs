//! One run's way from findings to messages, and what is known without one.
//!
//! The order is the promise: what is to be said is written with the decisions in one step, then
//! sent, then noted as sent. A run that dies before the first left everything to the next; between
//! the others the next one sends the same message again, with the same key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rg_common::check::{Figure, State, Unit, Verdict};
use rg_common::config::{NotifyConfig, NotifyKind};
use rg_common::notify::{self, Event, Message, Tone, Undelivered};
use rg_common::{Failure, Result};
use serde::Serialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Channel as Person, Memory, Notice, Proof, Round, Rules, outbox, text};
use crate::state::{self, Hold};

/// The most messages to one channel in a run; the rest waits for the next.
const MESSAGES_MAX: usize = 10;
/// No further message is begun after this long.
const SENDING: Duration = Duration::from_secs(20);
/// While the state cannot be written, somebody is told of that so often.
const EMERGENCY_EVERY_S: i64 = 3600;
/// The most lines of such a message.
const EMERGENCY_LINES: usize = 40;
/// A channel that has taken nothing for so long is not proven any more.
const PROVEN_S: i64 = 30 * 86_400;

/// A run that holds the state.
pub struct Run {
    state: PathBuf,
    hold: Hold,
    memory: Memory,
    now: Timestamp,
    damaged: Option<String>,
    unsaved: Option<Unsaved>,
}

/// The state could not be written: nothing can be told once.
struct Unsaved {
    why: String,
    bad: Vec<String>,
}

impl Run {
    /// Takes and reads the state under `state`, the configuration's `state`. Another run under way is a failure.
    pub fn begin(state: &Path, now: Timestamp) -> Result<Run> {
        let hold = state::hold(state)?;
        state::note(state, now);
        let loaded = state::load(state, now)?;
        let mut memory = loaded.memory;
        outbox::begin(&mut memory);
        Ok(Run {
            state: state.to_owned(),
            hold,
            memory,
            now,
            damaged: loaded.damaged,
            unsaved: None,
        })
    }

    /// What was wrong with the state file, for the run's output; the channels are told too.
    pub fn damaged(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    /// Decides what is told of a round, and writes that down. A failure means that it could not be
    /// written; the findings are as good as ever, and [`Run::deliver`] tells of the failure alone.
    pub fn decide(&mut self, round: &Round<'_>, rules: &Rules) -> Result<Vec<Notice>> {
        let (mut memory, mut notices) = super::decide(&self.memory, round, rules);
        for (name, letters) in outbox::forget_strangers(&mut memory, &rules.channels) {
            tracing::warn!(
                "{letters} notices for `{name}` are dropped: it is not in rg.toml any more"
            );
        }
        if let Some(why) = &self.damaged {
            notices.insert(
                0,
                super::forgotten(&mut memory, why, self.now, &rules.channels),
            );
        }
        outbox::seal(&mut memory, &rules.channels);
        match state::save(&self.state, &memory, &self.hold) {
            Ok(()) => {
                self.memory = memory;
                Ok(notices)
            }
            Err(failure) => {
                let bad = round.findings.iter().filter(|f| f.state.is_bad());
                self.unsaved = Some(Unsaved {
                    why: failure.to_string(),
                    bad: bad
                        .map(|f| format!("{} {}: {}", f.state.word(), f.id, f.found))
                        .collect(),
                });
                Err(failure)
            }
        }
    }

    /// Sends what waits, to all channels side by side, the fallbacks last. What was not delivered
    /// comes back, a line each; it stays in the outbox.
    pub fn deliver(
        &mut self,
        network: &Handle,
        channels: &[NotifyConfig],
        host: &str,
        zone: &TimeZone,
    ) -> Vec<String> {
        if self.unsaved.is_some() {
            return self.emergency(network, channels, host);
        }
        let people = Person::all(channels);
        let is_fallback = |c: &NotifyConfig| people.iter().any(|p| p.name == c.name && p.fallback);
        let (last, first): (Vec<&NotifyConfig>, Vec<&NotifyConfig>) =
            channels.iter().partition(|channel| is_fallback(channel));
        let mut untold = self.send(network, &first, host, zone);
        if outbox::copy_to_fallbacks(&mut self.memory, &people, self.now) {
            // The others' letters stay loose, to go together with what comes later.
            let fallbacks: Vec<Person> = people.into_iter().filter(|p| p.fallback).collect();
            outbox::seal(&mut self.memory, &fallbacks);
            untold.extend(self.save());
        }
        untold.extend(self.send(network, &last, host, zone));
        untold
    }

    /// Sends a test to each of these channels and remembers how that went.
    pub fn test(
        &mut self,
        network: &Handle,
        channels: &[&NotifyConfig],
        host: &str,
    ) -> Result<Vec<Tested>> {
        let mut all = Vec::new();
        for channel in channels {
            let begun = std::time::Instant::now();
            let key = notify::run_id();
            let message = text::test(&channel.name, host, &key);
            let sent = network.block_on(async {
                match channel.kind {
                    NotifyKind::Ping => {
                        notify::ping(channel, Event::Success, None, &message.text).await
                    }
                    _ => notify::deliver(channel, &message)
                        .await
                        .map_err(|undelivered| undelivered.failure),
                }
            });
            let error = sent.err();
            let took_ms = millis(begun.elapsed());
            self.prove(&channel.name, error.as_ref(), took_ms);
            all.push(Tested {
                channel: channel.name.clone(),
                took_ms,
                hints: hints(error.as_ref()),
                error: error.map(|error| error.to_string()),
            });
        }
        state::save(&self.state, &self.memory, &self.hold)?;
        Ok(all)
    }

    /// What is remembered now.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is open and what waits.
    pub fn status(&self) -> Status {
        Status::of(&self.memory)
    }

    fn save(&self) -> Option<String> {
        let saved = state::save(&self.state, &self.memory, &self.hold);
        saved.err().map(|failure| failure.to_string())
    }

    fn prove(&mut self, channel: &str, error: Option<&Failure>, took_ms: u64) {
        let proven = match error {
            None => Some(self.now),
            Some(_) => self.memory.channels.get(channel).and_then(|p| p.proven),
        };
        let proof = Proof {
            proven,
            tried: self.now,
            took_ms,
            error: error.map(ToString::to_string),
        };
        self.memory.channels.insert(channel.to_owned(), proof);
    }

    fn send(
        &mut self,
        network: &Handle,
        channels: &[&NotifyConfig],
        host: &str,
        zone: &TimeZone,
    ) -> Vec<String> {
        let (tell, mut told) = mpsc::unbounded_channel();
        for channel in channels {
            let parcels = self.memory.outbox.parcels(&channel.name);
            let messages: Vec<Message> = parcels
                .iter()
                .take(MESSAGES_MAX)
                .map(|parcel| text::compose(parcel, host, zone))
                .collect();
            if !messages.is_empty() {
                network.spawn(send_all((*channel).clone(), messages, tell.clone()));
            }
        }
        drop(tell);
        let mut untold = Vec::new();
        while let Some(sent) = network.block_on(told.recv()) {
            match &sent.outcome {
                Ok(()) => self.memory.outbox.delivered(&sent.channel, &sent.key),
                Err(undelivered) => {
                    let outbox = &mut self.memory.outbox;
                    outbox.refused(&sent.channel, &sent.key, undelivered.certain);
                    let waiting = outbox.waiting(&sent.channel);
                    untold.push(format!(
                        "{}; {waiting} notices wait for the next run",
                        undelivered.failure
                    ));
                }
            }
            let error = sent.outcome.as_ref().err().map(|no| &no.failure);
            self.prove(&sent.channel, error, sent.took_ms);
            untold.extend(self.save());
        }
        untold
    }

    /// Nothing can be remembered, so nothing can be told once. That, and what is bad, is told each
    /// hour; the lock file's time, which needs no room, says when.
    fn emergency(
        &mut self,
        network: &Handle,
        channels: &[NotifyConfig],
        host: &str,
    ) -> Vec<String> {
        let Some(unsaved) = self.unsaved.take() else {
            return Vec::new();
        };
        let waits = self.hold.marked().is_some_and(|marked| {
            let since = self.now.duration_since(marked).as_secs();
            // The clock may have been set back.
            (0..EMERGENCY_EVERY_S).contains(&since)
        });
        if waits || self.hold.mark(self.now).is_err() {
            return Vec::new();
        }
        let mut lines = vec![unsaved.why.clone(), String::new()];
        let more = unsaved.bad.len().saturating_sub(EMERGENCY_LINES);
        lines.extend(unsaved.bad.into_iter().take(EMERGENCY_LINES));
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        lines.push(
            "\nThis is said once an hour until it can be written; alerts and recoveries wait for that."
                .to_owned(),
        );
        let key = notify::run_id();
        let message = Message {
            subject: format!(
                "[{host}] FAIL rg-healthcheck cannot remember: {}",
                unsaved.why
            ),
            document: json!({
                "version": 1,
                "tool": "rg-healthcheck",
                "host": host,
                "key": key,
                "unsaved": unsaved.why,
                "bad": lines,
                "notices": [],
            }),
            text: lines.join("\n"),
            tone: Tone::Bad,
            key,
            host: host.to_owned(),
        };
        let people = channels.iter().filter(|c| c.kind != NotifyKind::Ping);
        let mut untold = Vec::new();
        for channel in people {
            let sent = network.block_on(notify::deliver(channel, &message));
            untold.extend(
                sent.err()
                    .map(|undelivered| undelivered.failure.to_string()),
            );
        }
        untold
    }
}

/// How a test of a channel went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tested {
    /// Its name.
    pub channel: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why it failed; none when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// How sending one message ended.
struct Sent {
    channel: String,
    key: String,
    took_ms: u64,
    outcome: std::result::Result<(), Undelivered>,
}

/// One after the other, until one fails: what came later must not arrive before it.
async fn send_all(
    channel: NotifyConfig,
    messages: Vec<Message>,
    tell: mpsc::UnboundedSender<Sent>,
) {
    let begun = std::time::Instant::now();
    for message in messages {
        if begun.elapsed() > SENDING {
            return;
        }
        let started = std::time::Instant::now();
        let outcome = notify::deliver(&channel, &message).await;
        let failed = outcome.is_err();
        let sent = Sent {
            channel: channel.name.clone(),
            key: message.key,
            took_ms: millis(started.elapsed()),
            outcome,
        };
        // Nobody listens any more only when the run itself has ended.
        if tell.send(sent).is_err() || failed {
            return;
        }
    }
}

fn hints(error: Option<&Failure>) -> Vec<String> {
    let hints = error.map(Failure::hints).unwrap_or_default();
    hints.into_iter().map(str::to_owned).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What is known without checking.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// When the last run decided.
    pub last_run: Option<Timestamp>,
    /// What is going on, by the check's id.
    pub open: Vec<OpenIncident>,
    /// Each channel that was ever tried or has something waiting.
    pub channels: Vec<Channel>,
}

/// An incident that is not over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpenIncident {
    /// The check.
    pub check: String,
    /// How it came out last.
    pub state: State,
    /// The first bad run.
    pub opened: Timestamp,
    /// When somebody was last told; none where nobody was (a consequence, maintenance, a silence).
    pub told: Option<Timestamp>,
    /// It comes and goes.
    pub flapping: bool,
}

/// What is known of a channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// What waits for it.
    pub waiting: usize,
    /// What was dropped for want of room since it last took something.
    pub dropped: u64,
    /// Its last attempt and its last success.
    pub proof: Option<Proof>,
}

impl Status {
    fn of(memory: &Memory) -> Status {
        let open = memory.checks.iter().filter_map(|(id, watched)| {
            let incident = watched.incident.as_ref()?;
            Some(OpenIncident {
                check: id.clone(),
                state: watched.state,
                opened: incident.opened,
                told: incident.told.as_ref().map(|told| told.at),
                flapping: incident.flapping,
            })
        });
        let letters = memory.outbox.letters.iter().map(|letter| &letter.channel);
        let dropped = memory.outbox.dropped.keys();
        let names: std::collections::BTreeSet<&String> = memory
            .channels
            .keys()
            .chain(letters)
            .chain(dropped)
            .collect();
        Status {
            last_run: memory.last_run,
            open: open.collect(),
            channels: names
                .into_iter()
                .map(|name| Channel {
                    name: name.clone(),
                    waiting: memory.outbox.waiting(name),
                    dropped: memory.outbox.dropped.get(name).copied().unwrap_or(0),
                    proof: memory.channels.get(name).cloned(),
                })
                .collect(),
        }
    }
}

/// What is known without a run; does not wait for one that is under way.
pub fn status(state: &Path) -> Result<Status> {
    Ok(Status::of(&state::look(state)?))
}

/// Whether whoever is to be told can be told: each channel took something within 30 days, and its
/// last attempt did not fail.
pub fn proven(memory: &Memory, channels: &[NotifyConfig], now: Timestamp) -> Verdict {
    let people = channels.iter().filter(|c| c.kind != NotifyKind::Ping);
    let (mut wrong, mut oldest, mut count) = (Vec::new(), 0, 0);
    for channel in people {
        count += 1;
        let name = &channel.name;
        let proof = memory.channels.get(name);
        let proven = proof.and_then(|proof| proof.proven);
        let error = proof.and_then(|proof| proof.error.as_ref());
        // A clock that was set back makes no proof older than now.
        let age = proven.map(|at| now.duration_since(at).as_secs().max(0));
        oldest = oldest.max(age.unwrap_or(0));
        match (error, age) {
            (Some(error), _) => wrong.push(format!("`{name}` failed last time: {error}")),
            (None, None) => wrong.push(format!("`{name}` has never been tried")),
            (None, Some(age)) if age > PROVEN_S => {
                wrong.push(format!("`{name}` was last proven {} d ago", age / 86_400));
            }
            _ => {}
        }
    }
    let fix = "rg-healthcheck alert-test";
    let verdict = match (count, wrong.is_empty()) {
        (0, _) => Verdict::warn(
            "nobody is told of failures: rg.toml has no [notify.NAME] but dead man's switches",
            "add one; README.md shows them",
        ),
        (_, true) => Verdict::pass(format!("{count} channels took what they were sent")),
        (_, false) => Verdict::warn(wrong.join("; "), fix),
    };
    #[allow(clippy::cast_precision_loss)] // seconds since a proof
    let figure = Figure::new("proven_age", oldest as f64, Unit::Seconds);
    verdict.figure(figure.bounds(Some(PROVEN_S as f64), None))
}
