//! A value in `rg.toml` that may refer to the env file by `$NAME`.

use crate::failure::{Failure, Result};
use crate::secret::Secret;

/// A text with `$NAME` or `${NAME}` in it, looked up when it is needed. `$$` is a dollar.
/// Its `Debug` shows the text as written in `rg.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    parts: Vec<Part>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

impl Value {
    /// Parses a value; an error says what is wrong with its `$`.
    pub fn parse(text: &str) -> Result<Value> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            push_text(&mut parts, &rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                push_text(&mut parts, "$");
                rest = after;
                continue;
            }
            let (name, after) = match rest.strip_prefix('{') {
                Some(braced) => braced.split_once('}').unwrap_or(("", rest)),
                None => rest.split_at(name_length(rest)),
            };
            if name.is_empty() || name_length(name) != name.len() {
                return Err(Failure::new("a `$` that no variable's name follows")
                    .hint("write `$$` for a dollar"));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        push_text(&mut parts, rest);
        Ok(Value {
            parts,
            text: text.to_owned(),
        })
    }

    /// Whether anything has to be looked up.
    pub fn has_names(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Name(_)))
    }

    /// The variable's name, if the value is one and nothing else.
    pub fn only_name(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Name(name)] => Some(name),
            _ => None,
        }
    }

    /// The text as written in `rg.toml`, for comparing two of them.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    /// The value with its names looked up.
    pub fn resolve(&self, look_up: impl Fn(&str) -> Result<Secret>) -> Result<Secret> {
        let mut whole = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => whole.push_str(text),
                Part::Name(name) => whole.push_str(look_up(name)?.reveal()),
            }
        }
        Ok(Secret::new(whole))
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        _ if text.is_empty() => {}
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

fn name_length(text: &str) -> usize {
    let first = |b: &u8| b.is_ascii_alphabetic() || *b == b'_';
    match text.as_bytes().first() {
        Some(b) if first(b) => text
            .bytes()
            .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
            .count(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_and_dollars_can_be_written() {
        let look = |name: &str| Ok(Secret::new(format!("<{name}>")));
        let value = |text: &str| {
            Value::parse(text)
                .unwrap()
                .resolve(look)
                .unwrap()
                .reveal()
                .to_owned()
        };
        assert_eq!(value("$DATABASE_URL"), "<DATABASE_URL>");
        assert_eq!(value("http://${HOST}:$PORT/$$x"), "http://<HOST>:<PORT>/$x");
        assert!(Value::parse("50$").is_err());
        assert!(Value::parse("${A").is_err());
        assert!(!Value::parse("plain $$").unwrap().has_names());
    }
}
