//! An app's env file, read for the values that `rg.toml` refers to.
//!
//! Read like the readers the two deployments use agree on: `KEY=value` lines, `#` comments,
//! an optional `export`, single quotes literally, double quotes with `\\ \" \n \$`, an unquoted
//! value to the end of the line without a trailing ` # comment`. Nothing is expanded: a `$` in a
//! password is a `$`. The last of several equal keys wins, as in every reader.

pub mod dialect;
pub mod document;

use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::{Failure, OrFail, Result};
use crate::secret::Secret;

/// An env file is refused above this size: it is not one.
const BYTES_MAX: u64 = 1 << 20;

/// The values of an env file; every one is treated as a secret.
#[derive(Debug, Default)]
pub struct EnvFile {
    values: BTreeMap<String, Secret>,
}

impl EnvFile {
    /// Reads a file; an error names the file and the line, never a value.
    pub fn read(path: &Path) -> Result<EnvFile> {
        let what = || format!("cannot read the env file {}", path.display());
        let size = std::fs::metadata(path).or_fail(what)?.len();
        if size > BYTES_MAX {
            return Err(Failure::new(format!(
                "{} is {size} bytes long, too large for an env file",
                path.display()
            )));
        }
        let text = std::fs::read(path).or_fail(what)?;
        let text = String::from_utf8(text)
            .map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))?;
        EnvFile::parse(&text)
            .map_err(|failure| failure.context(format!("cannot read {}", path.display())))
    }

    /// Parses a file's text.
    pub fn parse(text: &str) -> Result<EnvFile> {
        let mut values = BTreeMap::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let line = line.trim();
            let line = line.strip_prefix("export ").map_or(line, str::trim_start);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| Failure::new(format!("line {}: {what}", index + 1));
            let (key, value) = line.split_once('=').ok_or_else(|| at("no `=` in it"))?;
            let key = key.trim();
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(at("the part before `=` is not a variable's name"));
            }
            let mut raw = value.trim_start().to_owned();
            let value = match raw.chars().next() {
                Some(quote @ ('\'' | '"')) => loop {
                    match unquote(&raw, quote) {
                        Some(value) => break value,
                        // A quoted value may run over lines.
                        None => match lines.next() {
                            Some((_, more)) => {
                                raw.push('\n');
                                raw.push_str(more);
                            }
                            None => return Err(at(&format!("the quote of {key} is never closed"))),
                        },
                    }
                },
                _ => unquoted(&raw).to_owned(),
            };
            values.insert(key.to_owned(), Secret::new(value));
        }
        Ok(EnvFile { values })
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.values.get(name)
    }

    /// The names in it, for "did you mean".
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

/// The value between the quotes, or none when the closing quote is not there yet.
fn unquote(raw: &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = raw.chars().skip(1);
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Some(value),
            '\\' if quote == '"' => match chars.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                other => {
                    value.push('\\');
                    value.push(other);
                }
            },
            c => value.push(c),
        }
    }
    None
}

fn unquoted(raw: &str) -> &str {
    let end = raw
        .find(" #")
        .or_else(|| raw.find("\t#"))
        .unwrap_or(raw.len());
    raw[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> String {
        EnvFile::parse(text)
            .unwrap()
            .get("K")
            .unwrap()
            .reveal()
            .to_owned()
    }

    #[test]
    fn values_that_broke_the_scripts_are_read_whole() {
        assert_eq!(value("K=postgresql://u:a b@h/d"), "postgresql://u:a b@h/d");
        assert_eq!(value("K='a#b $c \"d\"'"), "a#b $c \"d\"");
        assert_eq!(value("K=\"a\\\"b\\$c\\\\\""), "a\"b$c\\");
        assert_eq!(value("export K=a$b#c # comment"), "a$b#c");
        assert_eq!(value("\u{feff}K=1\r\n"), "1");
        assert_eq!(value("K=1\nK=2"), "2");
        assert_eq!(value("K='two\nlines'"), "two\nlines");
    }

    #[test]
    fn an_error_names_the_line_and_not_the_value() {
        let failure = EnvFile::parse("A=1\nhunter2\n").unwrap_err();
        assert_eq!(failure.to_string(), "line 2: no `=` in it");
        let failure = EnvFile::parse("A='hunter2\n").unwrap_err();
        assert_eq!(
            failure.to_string(),
            "line 1: the quote of A is never closed"
        );
    }
}
