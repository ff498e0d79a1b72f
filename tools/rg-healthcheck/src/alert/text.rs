//! An alert in words: what, since when, what was measured, what it was when it was well, what fails
//! because of it, and what to do. The same letters make the same message each time.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rg_common::check::State;
use rg_common::notify::{Message, Tone, within};
use rg_common::report::span;
use serde_json::json;

use super::notice::{Kind, Level, Notice};
use super::outbox::Parcel;

/// The most text of one message; services take less and cut it themselves.
const TEXT_BYTES: usize = 48 << 10;
/// The most checks that a subject names.
const NAMED: usize = 3;
/// The most of what was measured that a subject repeats.
const SUBJECT_FOUND_BYTES: usize = 90;

/// The message for a parcel.
pub fn compose(parcel: &Parcel, host: &str, zone: &TimeZone) -> Message {
    let mut text = String::new();
    for notice in &parcel.notices {
        if !text.is_empty() {
            text.push('\n');
        }
        tell(&mut text, notice, zone);
    }
    if parcel.dropped > 0 {
        // Writing to a String cannot fail.
        writeln!(
            text,
            "\n{} earlier notices were dropped: there was no room for more while this channel took none",
            parcel.dropped
        )
        .ok();
    }
    let notices: Vec<Notice> = parcel.notices.iter().map(for_programs).collect();
    Message {
        subject: subject(&parcel.notices, host),
        text: within(&text, TEXT_BYTES),
        tone: tone(&parcel.notices),
        document: json!({
            "version": 1,
            "tool": "rg-healthcheck",
            "host": host,
            "key": parcel.key,
            "dropped": parcel.dropped,
            "notices": notices,
        }),
        key: parcel.key.clone(),
        host: host.to_owned(),
    }
}

/// Who else gets it is no business of the receiver's, and may change until it is sent.
fn for_programs(notice: &Notice) -> Notice {
    Notice {
        to: Vec::new(),
        ..notice.clone()
    }
}

/// A test of a channel.
pub fn test(channel: &str, host: &str, key: &str) -> Message {
    let subject = format!("[{host}] test of `{channel}`: nothing has happened");
    Message {
        text: format!(
            "rg-healthcheck on {host} can reach you here.\nThis was sent by: rg-healthcheck alert-test {channel}\n"
        ),
        tone: Tone::Test,
        document: json!({
            "version": 1,
            "tool": "rg-healthcheck",
            "host": host,
            "key": key,
            "test": true,
            "notices": [],
        }),
        subject,
        key: key.to_owned(),
        host: host.to_owned(),
    }
}

fn tone(notices: &[Notice]) -> Tone {
    let bad = notices.iter().filter(|notice| notice.is_bad());
    match bad.map(|notice| notice.level).max() {
        None => Tone::Good,
        Some(Level::Warn) => Tone::Warn,
        Some(Level::Fail) => Tone::Bad,
    }
}

fn subject(notices: &[Notice], host: &str) -> String {
    if let [notice] = notices {
        let found = within(&notice.found, SUBJECT_FOUND_BYTES);
        let what = match notice.kind {
            Kind::Recovered => format!("{}{}", notice.check, lasted(notice, " after ")),
            Kind::Forgotten => "what was bad before is not known".to_owned(),
            _ => format!("{}: {found}", notice.check),
        };
        return format!("[{host}] {} {what}", word(notice));
    }
    let of = |kind: Tone| {
        notices.iter().filter(move |notice| match kind {
            Tone::Bad => notice.is_bad() && notice.level == Level::Fail,
            Tone::Warn => notice.is_bad() && notice.level == Level::Warn,
            _ => !notice.is_bad(),
        })
    };
    let mut counts = Vec::new();
    for (tone, word) in [
        (Tone::Bad, "FAIL"),
        (Tone::Warn, "warn"),
        (Tone::Good, "recovered"),
    ] {
        let count = of(tone).count();
        if count > 0 {
            counts.push(format!("{count} {word}"));
        }
    }
    // What is worst is named first.
    let order = of(Tone::Bad).chain(of(Tone::Warn)).chain(of(Tone::Good));
    let names: Vec<&str> = order.map(|notice| notice.check.as_str()).collect();
    let more = if names.len() > NAMED { ", …" } else { "" };
    let names = names[..names.len().min(NAMED)].join(", ");
    format!("[{host}] {}: {names}{more}", counts.join(", "))
}

fn word(notice: &Notice) -> &'static str {
    match (notice.kind, notice.state) {
        (Kind::Recovered, _) => "RECOVERED",
        (Kind::Gone, _) => "CLOSED",
        (Kind::Flapping, _) => "FLAPPING",
        (Kind::Forgotten, _) => "MEMORY LOST",
        (Kind::Reminder, State::Fail) => "STILL FAIL",
        (Kind::Reminder, _) => "STILL WARN",
        (_, State::Fail) => "FAIL",
        (_, State::Unknown) => "CANNOT TELL",
        _ => "WARN",
    }
}

fn lasted(notice: &Notice, before: &str) -> String {
    match notice.lasted_s {
        Some(seconds) => format!("{before}{}", span(seconds)),
        None => String::new(),
    }
}

/// Writing to a String cannot fail.
fn tell(text: &mut String, notice: &Notice, zone: &TimeZone) {
    let about = match notice.about.as_str() {
        "" => String::new(),
        about => format!(" ({about})"),
    };
    writeln!(text, "{} {}{about}", word(notice), notice.check).ok();
    if let Some(environment) = &notice.environment {
        writeln!(text, "  where  {environment}").ok();
    }
    if !notice.found.is_empty() {
        writeln!(text, "  found  {}", notice.found).ok();
    }
    if notice.kind == Kind::Escalated {
        writeln!(text, "  worse  it was a warning until now").ok();
    }
    if notice.kind == Kind::Flapping {
        writeln!(
            text,
            "  often  it comes and goes; nothing more is said until it has been well for {} runs",
            super::STEADY
        )
        .ok();
    }
    if let Some(opened) = notice.opened {
        let lasted = lasted(notice, ", for ");
        writeln!(text, "  since  {}{lasted}", time(opened, zone)).ok();
    }
    if notice.kind == Kind::Recovered {
        writeln!(text, "  until  {}", time(notice.at, zone)).ok();
    }
    if let Some(good) = &notice.last_good {
        writeln!(text, "  before {}: {}", time(good.at, zone), good.found).ok();
    }
    for line in &notice.evidence {
        writeln!(text, "  | {line}").ok();
    }
    if !notice.consequences.is_empty() {
        writeln!(text, "  because of it:").ok();
        for line in &notice.consequences {
            writeln!(text, "    {line}").ok();
        }
    }
    if let Some(fix) = notice.fix.as_ref().filter(|_| notice.is_bad()) {
        writeln!(text, "  do     {fix}").ok();
    }
}

fn time(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    at.strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}
