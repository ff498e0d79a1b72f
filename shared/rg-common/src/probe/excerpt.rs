//! What a stranger sent, as it may be shown: one line, short, without control characters, and
//! without what looks like a key.
//!
//! Answers of a service end in mails, terminals and web hooks. A health page that prints its
//! configuration must not carry a password further.

use serde_json::Value;

/// The most characters that are shown of one text.
pub const EXCERPT_CHARS: usize = 200;
/// So many letters and digits in a row, mixed, look like a key. A time is shorter
/// (`20260823T031500Z`), and so is what stands between the dashes of a UUID.
const KEY_CHARS: usize = 18;
/// Objects and lists are shown down to this depth.
const DEPTH: usize = 4;
/// Parts of names whose values are never shown.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "credential",
    "authorization",
    "cookie",
    "private",
    "dsn",
];

/// A text on one line, cut after [`EXCERPT_CHARS`], with `***` for what looks like a key.
pub fn text(text: &str) -> String {
    let mut line = String::new();
    let mut blank = false;
    // Twice what is shown: a key that is cut in half must still be seen as one.
    for character in text.chars().take(2 * EXCERPT_CHARS) {
        if character.is_whitespace() || is_control(character) {
            blank = !line.is_empty();
            continue;
        }
        if std::mem::take(&mut blank) {
            line.push(' ');
        }
        line.push(character);
    }
    cut(&without_keys(&line))
}

/// Bytes of an answer as a text; what is not UTF-8 is shown as `\u{fffd}`.
pub fn bytes(bytes: &[u8]) -> String {
    let most = bytes.len().min(8 * EXCERPT_CHARS);
    text(&String::from_utf8_lossy(&bytes[..most]))
}

/// A JSON value on one line; values under names like `password` are `***`.
pub fn json(value: &Value) -> String {
    let mut shown = String::new();
    write_json(value, DEPTH, &mut shown);
    cut(&shown)
}

fn write_json(value: &Value, depth: usize, shown: &mut String) {
    if shown.len() > 4 * EXCERPT_CHARS {
        return;
    }
    match value {
        Value::String(content) => {
            let content = Value::String(text(content)).to_string();
            shown.push_str(&content);
        }
        Value::Array(_) | Value::Object(_) if depth == 0 => shown.push('…'),
        Value::Array(items) => {
            shown.push('[');
            for (at, item) in items.iter().enumerate().take(EXCERPT_CHARS) {
                shown.push_str(if at > 0 { "," } else { "" });
                write_json(item, depth - 1, shown);
            }
            shown.push(']');
        }
        Value::Object(members) => {
            shown.push('{');
            for (at, (name, member)) in members.iter().enumerate().take(EXCERPT_CHARS) {
                shown.push_str(if at > 0 { "," } else { "" });
                shown.push_str(&Value::String(text(name)).to_string());
                shown.push(':');
                if names_a_secret(name) && !matches!(member, Value::Null | Value::Bool(_)) {
                    shown.push_str("\"***\"");
                } else {
                    write_json(member, depth - 1, shown);
                }
            }
            shown.push('}');
        }
        plain => shown.push_str(&plain.to_string()),
    }
}

/// Whether a value under this name is not to be shown.
pub fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// With `***` for each run that looks like a key, and for the password of an address
/// (`postgresql://app:***@db`).
fn without_keys(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_key_char(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        shown.push_str(if looks_like_a_key(run) { "***" } else { run });
        let next = after.chars().next().map_or(0, char::len_utf8);
        shown.push_str(&after[..next]);
        rest = &after[next..];
        if shown.ends_with("://") {
            shown.pop();
            shown.pop();
            shown.pop();
            rest = push_authority(rest, &mut shown);
        }
    }
    shown
}

/// Writes `://` and, where a name and a password follow, `name:***@`.
fn push_authority<'a>(rest: &'a str, shown: &mut String) -> &'a str {
    shown.push_str("://");
    let end = rest
        .find(|c: char| c == '/' || c.is_whitespace() || c == '"')
        .unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else {
        return rest;
    };
    let name = rest[..at].split(':').next().unwrap_or_default();
    shown.push_str(&format!("{name}:***@"));
    &rest[at + 1..]
}

fn is_key_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '+' | '=')
}

/// Whether a part of it between `-` and `_` is long and mixed: host names and dates are not.
fn looks_like_a_key(run: &str) -> bool {
    run.split(['-', '_']).any(|part| {
        let letters = part.bytes().filter(u8::is_ascii_alphabetic).count();
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        part.len() >= KEY_CHARS && letters > 0 && digits > 1
    })
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Characters that move a terminal's cursor or turn the direction of writing.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        for (sent, shown) in [
            ("key=sk_live_51HxQ2eKZ0abcdEFGH9 bad", "*** bad"),
            (
                "cannot reach postgresql+asyncpg://app:hunter2@db:5432/x",
                "cannot reach postgresql+asyncpg://app:***@db:5432/x",
            ),
            (
                "run 3f2504e0-4f89-11d3-9a0c-0305e82c3301 at 2026-11-22T05:23:01Z",
                "run 3f2504e0-4f89-11d3-9a0c-0305e82c3301 at 2026-11-22T05:23:01Z",
            ),
            (
                "/var/backups/rgrid-api-production-2026-11-22-01.tar on rgrid-api-production-01",
                "/var/backups/rgrid-api-production-2026-11-22-01.tar on rgrid-api-production-01",
            ),
        ] {
            assert_eq!(text(sent), shown);
        }
        let value = serde_json::json!({"db_password": "x", "status": "ok", "set": {"Api-Key": 7}});
        assert_eq!(
            json(&value),
            r#"{"db_password":"***","set":{"Api-Key":"***"},"status":"ok"}"#
        );
    }

    #[test]
    fn a_stranger_cannot_move_the_cursor_or_fill_the_page() {
        assert_eq!(text("a\x1b[2J\r\n\n  b\u{202e}c"), "a [2J b c");
        assert_eq!(
            text(&"x ".repeat(10_000)).chars().count(),
            EXCERPT_CHARS + 1
        );
        let deep = (0..50).fold(Value::Null, |inner, _| serde_json::json!([inner]));
        assert_eq!(json(&deep), "[[[[…]]]]");
        let wide = Value::Array(vec![Value::from("word"); 100_000]);
        assert!(json(&wide).chars().count() <= EXCERPT_CHARS + 1);
        assert_eq!(bytes(b"\xff\xfeok"), "\u{fffd}\u{fffd}ok");
    }
}
