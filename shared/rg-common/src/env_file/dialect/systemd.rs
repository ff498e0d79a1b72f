//! `EnvironmentFile=`: systemd's own small language, a state machine over characters.
//!
//! Measured against `load_env_file` of libsystemd-shared. Names that are no identifiers and
//! values with control characters are dropped later, when the unit starts; that is modelled too.

use super::{Reading, Seen, is_name};

#[derive(Clone, Copy, PartialEq)]
enum State {
    BeforeName,
    Name,
    BeforeValue,
    Value,
    ValueEscape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

/// `mended`: from v254 on, a line after a comment that ends in `\` is a line of its own.
pub(super) fn read(text: &str, mended: bool) -> Reading {
    let mut reading = Reading::default();
    let mut state = State::BeforeName;
    let (mut name, mut value) = (String::new(), String::new());
    // Where trailing blanks of an unquoted value begin.
    let mut blank_from: Option<usize> = None;
    let (mut line, mut swallowed) = (1, None);
    for c in text.chars() {
        let newline = c == '\n' || c == '\r';
        let blank = newline || c == ' ' || c == '\t';
        match state {
            State::BeforeName if c == '#' || c == ';' => {
                state = State::Comment;
            }
            State::BeforeName if !blank => {
                state = State::Name;
                name.push(c);
            }
            State::BeforeName => {}
            State::Name if newline => {
                reading.drops(line, "a line without `=` is left out");
                name.clear();
                state = State::BeforeName;
            }
            State::Name if c == '=' => {
                state = State::BeforeValue;
                blank_from = None;
            }
            State::Name => name.push(c),
            State::BeforeValue | State::Value if newline => {
                let end = blank_from.filter(|_| state == State::Value);
                value.truncate(end.unwrap_or(value.len()));
                push(&mut reading, line, &mut name, &mut value);
                state = State::BeforeName;
            }
            State::BeforeValue if c == '\'' => state = State::Single,
            State::BeforeValue if c == '"' => state = State::Double,
            State::BeforeValue if c == '\\' => state = State::ValueEscape,
            State::BeforeValue if blank => {}
            State::BeforeValue => {
                value.push(c);
                state = State::Value;
            }
            State::Value if c == '\\' => {
                state = State::ValueEscape;
                blank_from = None;
            }
            State::Value => {
                match (blank, blank_from) {
                    (false, _) => blank_from = None,
                    (true, None) => blank_from = Some(value.len()),
                    _ => {}
                }
                value.push(c);
            }
            State::ValueEscape => {
                state = State::Value;
                if !newline {
                    value.push(c);
                }
            }
            State::Single if c == '\'' => state = State::BeforeValue,
            State::Single => value.push(c),
            State::Double if c == '"' => state = State::BeforeValue,
            State::Double if c == '\\' => state = State::DoubleEscape,
            State::Double => value.push(c),
            State::DoubleEscape => {
                state = State::Double;
                match c {
                    '"' | '\\' | '`' | '$' => value.push(c),
                    '\n' => {}
                    other => value.extend(['\\', other]),
                }
            }
            State::Comment if c == '\\' => state = State::CommentEscape,
            State::Comment if newline => state = State::BeforeName,
            State::Comment => {}
            State::CommentEscape if newline && mended => state = State::BeforeName,
            State::CommentEscape => {
                if newline {
                    swallowed = Some(line + 1);
                }
                state = State::Comment;
            }
        }
        if c == '\n' {
            if swallowed == Some(line) {
                reading.drops(
                    line,
                    "swallowed by the comment above, which ends in a backslash",
                );
            }
            line += 1;
        }
    }
    if swallowed == Some(line) {
        reading.drops(
            line,
            "swallowed by the comment above, which ends in a backslash",
        );
    }
    match state {
        State::BeforeName | State::Name | State::Comment | State::CommentEscape => {}
        _ => {
            let end = blank_from.filter(|_| state == State::Value);
            value.truncate(end.unwrap_or(value.len()));
            push(&mut reading, line, &mut name, &mut value);
        }
    }
    reading
}

fn push(reading: &mut Reading, line: usize, name: &mut String, value: &mut String) {
    let value = std::mem::take(value);
    let name = std::mem::take(name);
    let name = name.trim_end_matches([' ', '\t']);
    if !is_name(name) {
        reading.drops(line, "not a variable's name: the line is left out");
        return;
    }
    let printable = |c: char| !c.is_ascii_control() || c == '\t' || c == '\n';
    if value.chars().all(printable) {
        reading.set(name, value);
    } else {
        let why = "its control characters are refused".to_owned();
        reading.values.insert(name.to_owned(), Seen::Missing(why));
        reading.drops(
            line,
            "a control character in the value: the line is left out",
        );
    }
}
