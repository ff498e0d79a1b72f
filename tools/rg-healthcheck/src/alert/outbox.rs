//! What is to be sent, a letter for each channel, kept in the same file as the decisions.
//!
//! Letters are sealed into parcels, one message each, before anything is sent. A parcel keeps its
//! key and its content until the channel took it or certainly did not: a run that dies between
//! sending and noting it sends the same message with the same key again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::notice::{Kind, Notice};
use super::{Channel, Memory};

/// The most letters that are kept; beyond, reminders go first, then the oldest, counted.
pub const LETTERS_MAX: usize = 2_000;
/// The most notices in one message.
const PARCEL_LETTERS: usize = 25;
/// After a failure that leaves open whether it arrived, a parcel rests for 1, 2, 4 … runs, at most so many:
/// a server that takes a message and dies over the answer must not get it each minute.
const REST_MAX: u32 = 60;

/// The letters, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// Oldest first; a channel's letters are sent in this order.
    pub letters: Vec<Letter>,
    /// How many letters were dropped for want of room, by channel, until the channel was told.
    #[serde(default)]
    pub dropped: BTreeMap<String, u64>,
    /// Channels that rest after failures that left open whether something arrived.
    #[serde(default)]
    pub resting: BTreeMap<String, Rest>,
}

/// A notice for one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// To whom.
    pub channel: String,
    /// What.
    pub notice: Notice,
    /// When it was written.
    pub since: Timestamp,
    /// The message that it is a part of.
    #[serde(default)]
    pub parcel: Option<String>,
    /// Its parcel may have been sent by a run that did not live to note how that ended.
    #[serde(default)]
    pub doubt: bool,
    /// The fallbacks have it too.
    #[serde(default)]
    pub copied: bool,
}

/// The pause of a channel, counted in runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rest {
    /// Failures in a row.
    pub failures: u32,
    /// Runs that it still rests.
    pub runs: u32,
}

/// One message: the letters under one key.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel {
    /// To whom.
    pub channel: String,
    /// Its key.
    pub key: String,
    /// What it says, oldest first.
    pub notices: Vec<Notice>,
    /// How many earlier letters to this channel were dropped.
    pub dropped: u64,
}

impl Outbox {
    /// A letter to each of the notice's channels. A reminder waits for nothing: where a letter about
    /// the same incident has not been sent yet, it is left out.
    pub fn put(&mut self, notice: &Notice, now: Timestamp) {
        for channel in &notice.to {
            let waiting = |letter: &Letter| {
                letter.channel == *channel && letter.notice.incident == notice.incident
            };
            if notice.kind == Kind::Reminder && self.letters.iter().any(waiting) {
                continue;
            }
            self.letters.push(Letter {
                channel: channel.clone(),
                notice: notice.clone(),
                since: now,
                parcel: None,
                doubt: false,
                copied: false,
            });
        }
        self.bound();
    }

    /// Drops what there is no room for, and counts it.
    fn bound(&mut self) {
        while self.letters.len() > LETTERS_MAX {
            let reminder = |letter: &Letter| letter.notice.kind == Kind::Reminder;
            match self.letters.iter().position(reminder) {
                Some(at) => drop(self.letters.remove(at)),
                None => {
                    let letter = self.letters.remove(0);
                    *self.dropped.entry(letter.channel).or_default() += 1;
                }
            }
        }
    }

    /// The sealed parcels of a channel, in the order in which they are to be sent; none while it rests.
    pub fn parcels(&self, channel: &str) -> Vec<Parcel> {
        if self.resting.get(channel).is_some_and(|rest| rest.runs > 0) {
            return Vec::new();
        }
        let mut parcels: Vec<Parcel> = Vec::new();
        for letter in self.letters.iter().filter(|l| l.channel == channel) {
            let Some(key) = &letter.parcel else { continue };
            match parcels.last_mut().filter(|parcel| parcel.key == *key) {
                Some(parcel) => parcel.notices.push(letter.notice.clone()),
                None => parcels.push(Parcel {
                    channel: channel.to_owned(),
                    key: key.clone(),
                    notices: vec![letter.notice.clone()],
                    dropped: self.dropped.get(channel).copied().unwrap_or(0),
                }),
            }
        }
        parcels
    }

    /// The channel took it.
    pub fn delivered(&mut self, channel: &str, key: &str) {
        self.letters
            .retain(|letter| letter.channel != channel || letter.parcel.as_deref() != Some(key));
        self.dropped.remove(channel);
        self.resting.remove(channel);
    }

    /// The channel did not take it. Where that is certain, and no earlier attempt is in doubt, its
    /// letters may be sent together with later ones.
    pub fn refused(&mut self, channel: &str, key: &str, certain: bool) {
        if certain {
            self.resting.remove(channel);
            let of_it = |letter: &&mut Letter| {
                letter.channel == channel && letter.parcel.as_deref() == Some(key)
            };
            for letter in self.letters.iter_mut().filter(of_it).filter(|l| !l.doubt) {
                letter.parcel = None;
            }
            return;
        }
        let rest = self.resting.entry(channel.to_owned()).or_default();
        rest.failures = rest.failures.saturating_add(1);
        rest.runs = 1u32
            .checked_shl(rest.failures - 1)
            .map_or(REST_MAX, |runs| runs.min(REST_MAX));
    }

    /// How many letters wait for a channel.
    pub fn waiting(&self, channel: &str) -> usize {
        self.letters.iter().filter(|l| l.channel == channel).count()
    }
}

/// Forgets letters to channels that are configured no more; their names and numbers come back.
pub fn forget_strangers(memory: &mut Memory, channels: &[Channel]) -> BTreeMap<String, u64> {
    let known: BTreeSet<&str> = channels.iter().map(|c| c.name.as_str()).collect();
    let mut forgotten = BTreeMap::new();
    memory.outbox.letters.retain(|letter| {
        let keep = known.contains(letter.channel.as_str());
        if !keep {
            *forgotten.entry(letter.channel.clone()).or_insert(0) += 1;
        }
        keep
    });
    memory
        .outbox
        .dropped
        .retain(|name, _| known.contains(name.as_str()));
    memory
        .outbox
        .resting
        .retain(|name, _| known.contains(name.as_str()));
    forgotten
}

/// Once a run, before anything else: a parcel that lies here may have been sent, and a channel that
/// rests comes nearer to its next attempt.
pub fn begin(memory: &mut Memory) {
    for letter in &mut memory.outbox.letters {
        letter.doubt = letter.parcel.is_some();
    }
    for rest in memory.outbox.resting.values_mut() {
        rest.runs = rest.runs.saturating_sub(1);
    }
}

/// Puts every letter that lies loose into a parcel.
pub fn seal(memory: &mut Memory, channels: &[Channel]) {
    for channel in channels {
        let of_it = |letter: &&mut Letter| letter.channel == channel.name;
        let (mut in_parcel, mut key) = (0, String::new());
        for letter in memory.outbox.letters.iter_mut().filter(of_it) {
            if letter.parcel.is_some() {
                in_parcel = 0;
                continue;
            }
            if in_parcel == 0 {
                memory.next += 1;
                key = format!("{}-{}", memory.series, memory.next);
            }
            in_parcel = (in_parcel + 1) % PARCEL_LETTERS;
            letter.parcel = Some(key.clone());
        }
    }
}

/// Gives the fallbacks what this run could not deliver elsewhere. True when there is something.
pub fn copy_to_fallbacks(memory: &mut Memory, channels: &[Channel], now: Timestamp) -> bool {
    let is_fallback = |name: &str| channels.iter().any(|c| c.name == name && c.fallback);
    let fallbacks: Vec<&Channel> = channels.iter().filter(|c| c.fallback).collect();
    if fallbacks.is_empty() {
        return false;
    }
    // Who is told an incident's end directly must not hear after it that it is still bad.
    let ends: BTreeMap<u64, Vec<String>> = memory
        .outbox
        .letters
        .iter()
        .filter(|letter| !letter.notice.is_bad())
        .map(|letter| (letter.notice.incident, letter.notice.to.clone()))
        .collect();
    let mut copies: Vec<Letter> = Vec::new();
    for letter in &mut memory.outbox.letters {
        if letter.copied || is_fallback(&letter.channel) {
            continue;
        }
        letter.copied = true;
        for fallback in &fallbacks {
            let ended = ends.get(&letter.notice.incident);
            let has_it = ended.is_some_and(|to| to.contains(&fallback.name))
                || letter.notice.to.contains(&fallback.name)
                || copies.iter().any(|copy| {
                    copy.channel == fallback.name && copy.notice.key == letter.notice.key
                });
            if has_it || fallback.level > letter.notice.level {
                continue;
            }
            copies.push(Letter {
                channel: fallback.name.clone(),
                parcel: None,
                doubt: false,
                copied: true,
                since: now,
                ..letter.clone()
            });
        }
    }
    // Another channel may hold the same notice: the fallback is told once, and told its end.
    for copy in &copies {
        for letter in &mut memory.outbox.letters {
            if letter.notice.key == copy.notice.key {
                letter.notice.to.push(copy.channel.clone());
            }
        }
        let incident = memory
            .checks
            .get_mut(&copy.notice.check)
            .and_then(|watched| watched.incident.as_mut());
        if let Some(incident) = incident.filter(|i| i.number == copy.notice.incident) {
            incident.addressed.insert(copy.channel.clone());
        }
    }
    let any = !copies.is_empty();
    memory.outbox.letters.extend(copies);
    memory.outbox.bound();
    any
}
