//! docker compose: its own parser, with `$` expansion, escapes and YAML's `KEY: value`.
//!
//! One line that is not understood refuses the whole file.

use super::{Reading, Seen, line_of};

pub(super) fn read(text: &str) -> Reading {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reading = Reading::default();
    let mut rest = body;
    if let Err((at, what)) = statements(&mut rest, &mut reading) {
        let line = line_of(text, text.len() - at);
        reading.values.clear();
        reading.refuse(line, what);
    }
    // Names that begin with a digit are left out in silence.
    reading
        .values
        .retain(|name, _| !name.starts_with(|c: char| c.is_ascii_digit()));
    reading
}

/// How many bytes were left when it was refused, and why.
type Refusal = (usize, &'static str);

fn statements(rest: &mut &str, reading: &mut Reading) -> Result<(), Refusal> {
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        if rest.starts_with('#') {
            *rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        }
        let here = rest.len();
        let (name, after) = name(rest).map_err(|what| (here, what))?;
        if name.contains(' ') {
            return Err((here, "a blank in the name"));
        }
        match after {
            Some(after) => {
                let (seen, after) = value(after, reading).map_err(|what| (here, what))?;
                reading.values.insert(name.to_owned(), seen);
                *rest = after;
            }
            None => *rest = &rest[rest.find('\n').unwrap_or(rest.len())..],
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}'
    )
}

/// The name and the text after `=` or `:`; none after a name that stands alone.
fn name(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let mut text = text;
    if let Some(after) = text
        .strip_prefix("export")
        .filter(|after| after.starts_with(char::is_whitespace))
    {
        text = after.trim_start_matches(is_blank);
    }
    for (at, c) in text.char_indices() {
        match c {
            '=' | ':' => {
                let after = text[at + 1..].trim_start_matches(is_blank);
                return Ok((text[..at].trim_end(), Some(after)));
            }
            '\n' => return Ok((text[..at].trim_end(), None)),
            '_' | '.' | '-' | '[' | ']' => {}
            c if is_blank(c) || c.is_alphanumeric() => {}
            _ => return Err("a character that no name may have"),
        }
    }
    // The last line without `=` and without a line end is a name with an empty value.
    Ok(("", Some(text)))
}

fn value<'a>(text: &'a str, reading: &Reading) -> Result<(Seen, &'a str), &'static str> {
    let Some(quote @ ('\'' | '"')) = text.chars().next() else {
        let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        return Ok((expand(line, reading)?, rest));
    };
    let mut raw = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            let rest = &text[at + 1..];
            return match quote {
                '"' => Ok((expand(&unescape(&raw), reading)?, rest)),
                _ => Ok((Seen::Value(raw), rest)),
            };
        }
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        if escaped && c != quote {
            raw.push('\\');
        }
        escaped = false;
        raw.push(c);
    }
    Err("a quote that is never closed")
}

/// Go's escapes; `\$` becomes `$$`, which the expansion turns into `$`.
fn unescape(raw: &str) -> String {
    let mut value = String::new();
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        value.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = match rest[1..].chars().next() {
            Some('a') => "\u{7}",
            Some('b') => "\u{8}",
            Some('f') => "\u{c}",
            Some('n') => "\n",
            Some('r') => "\r",
            Some('t') => "\t",
            Some('v') => "\u{b}",
            Some('"') => "\"",
            Some('\\') => "\\",
            Some('$') => "$$",
            Some('0') => {
                let digits = rest[2..]
                    .bytes()
                    .take(3)
                    .take_while(u8::is_ascii_digit)
                    .count();
                let octal = u8::from_str_radix(&rest[2..2 + digits], 8)
                    .ok()
                    .filter(|_| digits == 3);
                match octal {
                    Some(byte) => value.push(char::from(byte)),
                    None => value.push_str(&rest[..2 + digits]),
                }
                rest = &rest[2 + digits..];
                continue;
            }
            _ => {
                value.push('\\');
                rest = &rest[1..];
                continue;
            }
        };
        value.push_str(known);
        rest = &rest[2..];
    }
    value + rest
}

/// `$$`, `$NAME`, `${NAME}`; the operators of `${NAME:-…}` are not modelled but named.
fn expand(text: &str, reading: &Reading) -> Result<Seen, &'static str> {
    let mut value = String::new();
    let mut rest = text;
    let known = |name: &str| match reading.values.get(name) {
        Some(Seen::Value(value)) => value.clone(),
        _ => String::new(),
    };
    while let Some(at) = rest.find('$') {
        value.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            value.push('$');
            rest = after;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = name_end(inner);
            match inner[end..].chars().next() {
                Some('}') if end > 0 => {
                    value.push_str(&known(&inner[..end]));
                    rest = &inner[end + 1..];
                }
                Some(':' | '-' | '+' | '?') if end > 0 && inner.contains('}') => {
                    return Ok(Seen::Depends("expands `${NAME` with an operator"));
                }
                _ => return Err("`${` without a name and `}`"),
            }
        } else {
            let end = name_end(after);
            if end == 0 {
                value.push('$');
            } else {
                value.push_str(&known(&after[..end]));
            }
            rest = &after[end..];
        }
    }
    Ok(Seen::Value(value + rest))
}

/// How long the name at the start is.
fn name_end(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    text.bytes().take_while(|b| word(b)).count()
}
