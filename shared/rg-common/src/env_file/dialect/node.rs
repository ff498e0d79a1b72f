//! npm's `dotenv`, one regular expression, and `node --env-file`, a hand-written loop.

use super::{Reading, line_of};

/// `dotenv`: `#` begins a comment anywhere in an unquoted value; double quotes turn `\n` and `\r`
/// into line ends and keep every other backslash.
pub(super) fn read_dotenv(text: &str) -> Reading {
    let mut reading = Reading::default();
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut at = 0;
    while at <= text.len() {
        let rest = &text[at..];
        let next = match statement(rest) {
            Some((name, value, length)) => {
                reading.set(name, value);
                at + length
            }
            None => {
                let line = rest.split('\n').next().unwrap_or_default().trim_start();
                if !line.is_empty() && !line.starts_with('#') {
                    reading.drops(line_of(&text, at), "not understood: left out in silence");
                }
                at
            }
        };
        // The next statement begins at a line's start.
        match text[next..].find('\n') {
            Some(end) => at = next + end + 1,
            None => break,
        }
    }
    reading
}

fn is_js_space(c: char) -> bool {
    c.is_whitespace() && c != '\u{85}' || c == '\u{feff}'
}

fn skip(text: &str) -> &str {
    text.trim_start_matches(is_js_space)
}

/// A statement at a line's start: name, value, and its length.
fn statement(text: &str) -> Option<(String, String, usize)> {
    let start = skip(text);
    let exported = start
        .strip_prefix("export")
        .filter(|after| skip(after).len() < after.len());
    let from = |start: &str| -> Option<(String, String, usize)> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let end = start.find(|c| !word(c)).unwrap_or(start.len());
        let (name, after) = start.split_at(end);
        if name.is_empty() {
            return None;
        }
        let after = match skip(after).strip_prefix('=') {
            Some(after) => after,
            None => {
                let after = after.strip_prefix(':')?;
                let blank = after.chars().next().filter(|&c| is_js_space(c))?;
                &after[blank.len_utf8()..]
            }
        };
        let (value, after) = value(after);
        Some((
            name.to_owned(),
            unquoted(value.trim_matches(is_js_space)),
            text.len() - after.len(),
        ))
    };
    exported
        .and_then(|after| from(skip(after)))
        .or_else(|| from(start))
}

/// The raw value after `=`, and what follows it.
fn value(text: &str) -> (&str, &str) {
    let inner = skip(text);
    if let Some(quote @ ('\'' | '"' | '`')) = inner.chars().next() {
        // The first closing quote that no backslash stands before, else the last escaped ones.
        let mut closing = Vec::new();
        let mut plain = None;
        let mut escaped = false;
        for (at, c) in inner.char_indices().skip(1) {
            if c == quote && !escaped {
                plain = Some(at);
                break;
            }
            if c == quote {
                closing.push(at);
            }
            escaped = c == '\\';
        }
        for end in plain.into_iter().chain(closing.into_iter().rev()) {
            let after = &inner[end + 1..];
            if ends_statement(after) {
                let whole = &text[..text.len() - after.len()];
                return (whole, after);
            }
        }
    }
    let end = text.find(['#', '\n']).unwrap_or(text.len());
    text.split_at(end)
}

/// Blanks and then a comment or the end of a line.
fn ends_statement(after: &str) -> bool {
    let next = skip(after);
    next.is_empty() || next.starts_with('#') || after[..after.len() - next.len()].contains('\n')
}

fn unquoted(value: &str) -> String {
    let quote = value.chars().next();
    let inner = quote
        .filter(|q| "'\"`".contains(*q) && value.len() > 1)
        .and_then(|q| value.strip_suffix(q));
    let inner = inner.map_or(value, |inner| &inner[1..]);
    if quote == Some('"') {
        return inner.replace("\\n", "\n").replace("\\r", "\r");
    }
    inner.to_owned()
}

/// `node --env-file`: like `dotenv`, without its escapes but `\n` in double quotes.
pub(super) fn read_env_file(text: &str) -> Reading {
    let mut reading = Reading::default();
    let text = text.replace('\r', "");
    let blanks = [' ', '\t', '\n'];
    let mut rest = text.trim_matches(blanks);
    let total = rest.len();
    let lead = text.len() - text.trim_start_matches(blanks).len();
    let line = |rest: &str| line_of(&text, lead + total - rest.len().min(total));
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let next = rest.get(end + 1..).unwrap_or_default();
        if rest.starts_with(['\n', '#']) {
            rest = next;
            continue;
        }
        let Some(equal) = rest.find('=').filter(|&equal| equal < end) else {
            reading.drops(line(rest), "a line without `=` is left out");
            rest = next.trim_matches(blanks);
            continue;
        };
        let name = rest[..equal].trim_matches(blanks);
        if name.is_empty() {
            reading.drops(line(rest), "no name before `=`: left out");
            rest = next.trim_matches(blanks);
            continue;
        }
        let name = name
            .strip_prefix("export ")
            .map_or(name, |name| name.trim_start_matches(blanks));
        rest = &rest[equal + 1..];
        if rest.is_empty() || rest.starts_with('\n') {
            reading.set(name, "");
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        rest = rest.trim_matches(blanks);
        let end = rest.find('\n').unwrap_or(rest.len());
        let quote = rest.chars().next().filter(|q| "'\"`".contains(*q));
        let close = quote.and_then(|quote| Some((quote, 1 + rest[1..].find(quote)?)));
        match (quote, close) {
            (_, Some((quote, close))) => {
                let value = &rest[1..close];
                if quote == '"' {
                    reading.set(name, value.replace("\\n", "\n"));
                } else {
                    reading.set(name, value);
                }
                let after = &rest[close + 1..];
                rest = after.find('\n').map_or("", |end| &after[end + 1..]);
            }
            (Some(_), None) => {
                reading.set(name, &rest[..end]);
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            (None, None) => {
                let value = &rest[..end];
                let value = value.find('#').map_or(value, |hash| &value[..hash]);
                reading.set(name, value.trim_matches(blanks));
                rest = rest.get(end + 1..).unwrap_or_default();
            }
        }
    }
    reading
}
