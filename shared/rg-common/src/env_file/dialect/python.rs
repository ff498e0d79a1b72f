//! python-dotenv, and pydantic-settings, which reads by it.
//!
//! `${NAME}` is expanded in every kind of quotes, single ones too. A line that is not understood
//! is left out with a warning, so that the default is used: a silently wrong configuration.

use super::{Reading, Seen, line_of};

pub(super) fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    // Python reads files with universal newlines.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return reading;
        }
        let at = line_of(text, text.len() - rest.len());
        match binding(rest) {
            Some((bound, after)) => {
                if let Some((name, value)) = bound {
                    match value {
                        Some(value) => {
                            let value = expand(&value, &reading);
                            reading.set(name, value);
                        }
                        None => {
                            reading.values.remove(&name);
                            reading.drops(at, "a name without `=` gets no value");
                        }
                    }
                }
                rest = after;
            }
            None => {
                reading.drops(at, "not understood: left out with a warning");
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
            }
        }
    }
}

fn is_space(c: char) -> bool {
    // Python's `\s` also takes the four separators of ASCII.
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn blanks(text: &str) -> &str {
    text.trim_start_matches(|c| c != '\n' && is_space(c))
}

type Bound = Option<(String, Option<String>)>;

/// One binding, or a comment, to the end of its line; none when it is not understood.
fn binding(text: &str) -> Option<(Bound, &str)> {
    let mut rest = text;
    if let Some(after) = rest.strip_prefix("export")
        && blanks(after).len() < after.len()
    {
        rest = blanks(after);
    }
    let name;
    if rest.starts_with('#') {
        name = None;
    } else if let Some(quoted) = rest.strip_prefix('\'') {
        let end = quoted.find('\'').filter(|&end| end > 0)?;
        name = Some(quoted[..end].to_owned());
        rest = &quoted[end + 1..];
    } else {
        let end = rest.find(|c| c == '=' || c == '#' || is_space(c));
        let end = end.unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        name = Some(rest[..end].to_owned());
        rest = &rest[end..];
    }
    rest = blanks(rest);
    let mut value = None;
    if let Some(after) = rest.strip_prefix('=') {
        rest = blanks(after);
        let comment_only = rest.len() < after.len() && rest.starts_with('#');
        match rest.chars().next() {
            _ if comment_only => value = Some(String::new()),
            Some(quote @ ('\'' | '"')) => {
                let (raw, after) = quoted(&rest[1..], quote)?;
                value = Some(unescape(raw, quote));
                rest = after;
            }
            None | Some('\n') => value = Some(String::new()),
            Some(_) => {
                let end = rest.find('\n').unwrap_or(rest.len());
                value = Some(uncommented(&rest[..end]).to_owned());
                rest = &rest[end..];
            }
        }
    }
    rest = blanks(rest);
    if rest.starts_with('#') {
        rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
    }
    let rest = match rest.strip_prefix('\n') {
        Some(after) => after,
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some((name.map(|name| (name, value)), rest))
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next()?;
            }
            c if c == quote => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(raw: &str, quote: char) -> String {
    let mut value = String::new();
    let mut chars = raw.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match (chars.next(), quote) {
            (Some(c @ ('\\' | '\'')), _) | (Some(c @ '"'), '"') => value.push(c),
            (Some('a'), '"') => value.push('\u{7}'),
            (Some('b'), '"') => value.push('\u{8}'),
            (Some('f'), '"') => value.push('\u{c}'),
            (Some('n'), '"') => value.push('\n'),
            (Some('r'), '"') => value.push('\r'),
            (Some('t'), '"') => value.push('\t'),
            (Some('v'), '"') => value.push('\u{b}'),
            (Some(other), _) => value.extend(['\\', other]),
            (None, _) => value.push('\\'),
        }
    }
    value
}

/// Without a comment that follows a blank, and without trailing blanks.
fn uncommented(text: &str) -> &str {
    let mut blank = false;
    for (at, c) in text.char_indices() {
        if c == '#' && blank {
            return text[..at].trim_end_matches(is_space);
        }
        blank = is_space(c);
    }
    text.trim_end_matches(is_space)
}

/// `${NAME}` and `${NAME:-default}` from the values so far.
fn expand(text: &str, reading: &Reading) -> String {
    let mut value = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let inner = &rest[at + 2..];
        let name_end = inner.find([':', '}']);
        let found = name_end.and_then(|end| {
            let after = &inner[end..];
            match after.strip_prefix(":-") {
                Some(default) => {
                    let close = default.find('}')?;
                    Some((&inner[..end], &default[..close], &default[close + 1..]))
                }
                None => Some((&inner[..end], "", after.strip_prefix('}')?)),
            }
        });
        let Some((name, default, after)) = found else {
            value.push_str(&rest[..at + 2]);
            rest = inner;
            continue;
        };
        value.push_str(&rest[..at]);
        match reading.values.get(name) {
            Some(Seen::Value(known)) => value.push_str(known),
            _ => value.push_str(default),
        }
        rest = after;
    }
    value + rest
}
