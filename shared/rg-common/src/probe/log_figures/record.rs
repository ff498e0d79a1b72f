//! What one line says, whoever wrote it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use crate::probe::quote;

/// A message is told apart by its first so many characters.
const MESSAGE_CHARS: usize = 160;
/// A path is told apart by its first so many characters.
const PATH_CHARS: usize = 120;

// Names that loggers give to the same thing, the more usual first. A dot leads into an object.
const LEVEL: [&str; 7] = [
    "level",
    "levelname",
    "severity",
    "log.level",
    "loglevel",
    "lvl",
    "levelno",
];
const MESSAGE: [&str; 6] = ["message", "msg", "event", "error", "exception", "detail"];
const EVENT: [&str; 3] = ["event", "message", "msg"];
const PATH: [&str; 8] = [
    "path",
    "request.path",
    "request_path",
    "http.path",
    "url",
    "uri",
    "request.url",
    "request.uri",
];
const STATUS: [&str; 6] = [
    "status",
    "status_code",
    "http.status_code",
    "response.status",
    "response.status_code",
    "http_status",
];
const TIME: [&str; 6] = [
    "timestamp",
    "time",
    "ts",
    "@timestamp",
    "asctime",
    "datetime",
];
const MILLISECONDS: [&str; 8] = [
    "duration_ms",
    "elapsed_ms",
    "latency_ms",
    "response_time_ms",
    "took_ms",
    "responseTime",
    "request.duration_ms",
    "process_time_ms",
];
/// A bare number under these is in seconds, as Python's, Go's, nginx' and Caddy's loggers write.
const SECONDS: [&str; 7] = [
    "duration",
    "elapsed",
    "latency",
    "response_time",
    "request_time",
    "process_time",
    "duration_s",
];
const VIOLATED: [&str; 9] = [
    "exceed", "violat", "reject", "block", "hit", "denied", "throttl", "refused", "reached",
];

/// What a line says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Record {
    pub is_error: bool,
    pub is_rate_limited: bool,
    pub time: Option<Timestamp>,
    pub status: Option<u16>,
    pub path: Option<String>,
    pub duration_ms: Option<f64>,
    pub message: String,
}

impl Record {
    pub(super) fn of(text: &[u8], priority: Option<u8>) -> Record {
        let first = text.iter().position(|b| !b.is_ascii_whitespace());
        let object = match first {
            Some(at) if text[at] == b'{' => {
                serde_json::from_slice::<Map<String, Value>>(&text[at..]).ok()
            }
            _ => None,
        };
        match object {
            Some(object) => of_object(&object),
            None => of_text(&String::from_utf8_lossy(text), priority),
        }
    }
}

fn of_object(object: &Map<String, Value>) -> Record {
    let text = |names: &[&str]| {
        let mut found = names.iter().filter_map(|name| look(object, name));
        found.find_map(|value| value.as_str().filter(|text| !text.is_empty()))
    };
    let status = STATUS
        .iter()
        .find_map(|name| look(object, name).and_then(status));
    let message = text(&MESSAGE).unwrap_or_default();
    Record {
        is_error: LEVEL
            .iter()
            .find_map(|name| is_error(name, look(object, name)?))
            .unwrap_or(false),
        is_rate_limited: status == Some(429)
            || EVENT.iter().any(|name| {
                look(object, name)
                    .and_then(Value::as_str)
                    .is_some_and(says_rate_limited)
            }),
        time: TIME
            .iter()
            .find_map(|name| look(object, name).and_then(time)),
        status,
        path: text(&PATH).map(str::to_owned),
        duration_ms: duration(object),
        message: message.to_owned(),
    }
}

/// A member by its name, or by its way through objects.
fn look<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    look(object.get(first)?.as_object()?, rest)
}

/// None when the value is no level at all.
fn is_error(name: &str, value: &Value) -> Option<bool> {
    if let Some(number) = value.as_u64() {
        return Some(match name {
            // syslog's: 3 is an error, less is worse.
            "severity" => number <= 3,
            // Python's: 40 is ERROR.
            "levelno" => number >= 40,
            // pino's: 40 is a warning, 50 an error.
            _ => number >= 50,
        });
    }
    Some(is_error_word(value.as_str()?))
}

fn is_error_word(word: &str) -> bool {
    const WORDS: [&str; 10] = [
        "error",
        "err",
        "critical",
        "crit",
        "fatal",
        "alert",
        "emergency",
        "emerg",
        "panic",
        "severe",
    ];
    WORDS
        .iter()
        .any(|known| word.trim().eq_ignore_ascii_case(known))
}

fn status(value: &Value) -> Option<u16> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        other => other.as_u64()?,
    };
    u16::try_from(number)
        .ok()
        .filter(|status| (100..600).contains(status))
}

fn says_rate_limited(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    if text.contains("too many requests") {
        return true;
    }
    let named = ["rate limit", "rate_limit", "rate-limit", "ratelimit"];
    named.iter().any(|name| text.contains(name)) && VIOLATED.iter().any(|word| text.contains(word))
}

fn time(value: &Value) -> Option<Timestamp> {
    if let Some(number) = value.as_f64() {
        // Seconds until the year 2286, milliseconds from 2001 on, then micro- and nanoseconds.
        let micros = match number.abs() {
            n if n < 1e10 => number * 1e6,
            n if n < 1e13 => number * 1e3,
            n if n < 1e16 => number,
            _ => number / 1e3,
        };
        return Timestamp::from_microsecond(micros as i64).ok();
    }
    let text = value.as_str()?.trim();
    if let Ok(time) = text.parse() {
        return Some(time);
    }
    // Python's asctime: `2026-01-23 02:00:00,123`, in the host's zone.
    let civil: DateTime = text.replace(',', ".").parse().ok()?;
    Some(civil.to_zoned(TimeZone::system()).ok()?.timestamp())
}

fn duration(object: &Map<String, Value>) -> Option<f64> {
    let ms = MILLISECONDS
        .iter()
        .find_map(|name| number(look(object, name)?, 1.0));
    let ms = ms.or_else(|| {
        SECONDS
            .iter()
            .find_map(|name| number(look(object, name)?, 1000.0))
    });
    ms.filter(|ms| ms.is_finite() && *ms >= 0.0)
}

/// A number times `unit`, or a text such as `12.5ms`, `1.2s`, `300µs`, in milliseconds.
fn number(value: &Value, unit: f64) -> Option<f64> {
    if let Some(number) = value.as_f64() {
        return Some(number * unit);
    }
    let text = value.as_str()?.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim() {
        "" => unit,
        "ms" => 1.0,
        "s" => 1000.0,
        "us" | "µs" | "μs" => 0.001,
        "ns" => 0.000_001,
        _ => return None,
    };
    Some(number * unit)
}

fn of_text(text: &str, priority: Option<u8>) -> Record {
    let access = access_line(text);
    // An access line says what was asked for, which anybody may fill with words.
    let says_error = access.is_none() && says_error(text);
    Record {
        is_error: says_error || priority.is_some_and(|priority| priority <= 3),
        is_rate_limited: match &access {
            Some((_, status)) => *status == 429,
            None => says_rate_limited(text),
        },
        status: access.as_ref().map(|(_, status)| *status),
        path: access.map(|(path, _)| path.to_owned()),
        time: leading_time(text),
        message: text.to_owned(),
        ..Record::default()
    }
}

/// `2026-01-23T02:00:00Z …`, `2026-01-23 02:00:00,123 …`, in brackets or not.
fn leading_time(text: &str) -> Option<Timestamp> {
    let text = text.trim_start().trim_start_matches('[');
    if !text.as_bytes().first()?.is_ascii_digit() {
        return None;
    }
    let mut words = text.splitn(3, [' ', ']']);
    let (first, second) = (words.next()?, words.next().unwrap_or_default());
    let of = |text: &str| time(&Value::String(text.to_owned()));
    // A bare number at the beginning is anything but a time.
    let dated = first.contains('-');
    dated.then(|| {
        of(first)
            .filter(|_| first.contains('T'))
            .or_else(|| of(&format!("{first} {second}")))
    })?
}

/// Whether a line of plain text holds ERROR, CRITICAL or FATAL as a word of its own.
fn says_error(text: &str) -> bool {
    ["ERROR", "CRITICAL", "FATAL"].iter().any(|word| {
        text.match_indices(word).any(|(at, _)| {
            let part_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '/' || c == '=';
            let before = text[..at].chars().next_back();
            let after = text[at + word.len()..].chars().next();
            !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
        })
    })
}

/// The path and the status of `… "GET /path HTTP/1.1" 200 …`, as nginx and uvicorn write it.
fn access_line(text: &str) -> Option<(&str, u16)> {
    let (before, after) = text.split_once(" HTTP/")?;
    let request = &before[before.rfind('"')? + 1..];
    let (method, path) = request.split_once(' ')?;
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let (_, rest) = after.split_once('"')?;
    let status = rest.split_whitespace().next()?.parse().ok()?;
    (100..600).contains(&status).then_some((path, status))
}

/// A path as it is counted: without its query, which may hold secrets, its numbers as `:id`.
pub(super) fn path_shown(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // An address whole, as `url` sometimes is: only its path.
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => path,
    };
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| if is_id(part) { ":id" } else { part })
        .collect();
    quote::line(&quote::short(&parts.join("/"), PATH_CHARS))
}

fn is_id(part: &str) -> bool {
    let digits = part.bytes().all(|b| b.is_ascii_digit());
    let hex = part.len() >= 16 && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    // Long words of letters and digits are keys and tokens.
    let token = part.len() >= 32 && part.bytes().any(|b| b.is_ascii_digit());
    !part.is_empty() && (digits || hex || token)
}

/// A message as it is counted: one line, secrets hidden, numbers and long hexadecimal words as `#`.
pub(super) fn message_shown(message: &str) -> String {
    let first = message
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let hidden = quote::line(first);
    let mut out = String::with_capacity(hidden.len());
    let mut word = String::new();
    for c in hidden.chars().chain(std::iter::once('\n')) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hex = word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
        if word.bytes().any(|b| b.is_ascii_digit())
            && (hex || word.bytes().all(|b| b.is_ascii_digit()))
        {
            // One sign for `12.34.56`, `a1b2c3d4-…` and the like.
            if !out.ends_with("#-") && !out.ends_with("#.") && !out.ends_with("#:") {
                out.push('#');
            } else {
                out.pop();
            }
        } else {
            out.push_str(&word);
        }
        word.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    quote::short(out.trim(), MESSAGE_CHARS)
}
