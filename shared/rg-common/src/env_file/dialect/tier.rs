//! How a value is written so that as many readers as possible read it back unchanged.
//!
//! The subset is measured (see the suite `envgen_check_readers`), not derived: each printable character at
//! the start, in the middle and at the end of a value, unquoted and in both quotes, through every
//! reader.

use super::{ALL, Reader, is_name};
use crate::failure::{Failure, Result};

/// The ways to write a value, the safest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Unquoted: the same for every reader.
    Everywhere,
    /// In single quotes: not for `docker run --env-file` and `export $(… | xargs)`.
    SingleQuotes,
    /// In double quotes, for a value with a `'`: not for those two either.
    DoubleQuotes,
}

impl Tier {
    /// Who reads it back unchanged.
    pub fn readers(self) -> impl Iterator<Item = Reader> {
        let bare = self == Tier::Everywhere;
        let keeps_quotes = |reader: &Reader| matches!(reader, Reader::DockerRun | Reader::Xargs);
        ALL.into_iter()
            .filter(move |reader| bare || !keeps_quotes(reader))
    }
}

/// Why a value has no way to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritable {
    /// A line end or another control character.
    Control,
    /// A backslash, which half of the readers take away.
    Backslash,
    /// `${`, which python-dotenv expands even inside single quotes.
    Expansion,
    /// A `'` together with `"`, `$` or a backtick.
    Quotes,
    /// A character outside ASCII that is no letter or digit.
    Unmeasured,
}

impl Unwritable {
    /// In words that follow "because of".
    pub fn what(self) -> &'static str {
        match self {
            Unwritable::Control => "a line end or a control character",
            Unwritable::Backslash => "a backslash",
            Unwritable::Expansion => "`${`",
            Unwritable::Quotes => "a `'` together with `\"`, `$` or a backtick",
            Unwritable::Unmeasured => "a character that is neither ASCII nor a letter",
        }
    }
}

/// What to do with a value that cannot be written.
pub const ALTERNATIVES: &str = "store it as base64 and decode it in the app, or put it into a \
file and give the file's path (NAME_FILE, a systemd credential); a generated secret: generate it \
anew from letters and digits";

/// The punctuation that means itself to every reader, anywhere in an unquoted value.
pub const SAFE_PUNCTUATION: &str = "_-.,:/@%+=^{}";

/// Whether a character means itself to every reader, anywhere in an unquoted value.
pub fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || SAFE_PUNCTUATION.contains(c)
}

/// The safest way to write a value.
pub fn tier(value: &str) -> std::result::Result<Tier, Unwritable> {
    if value.chars().all(is_safe) {
        return Ok(Tier::Everywhere);
    }
    for c in value.chars() {
        match c {
            '\\' => return Err(Unwritable::Backslash),
            c if c.is_control() => return Err(Unwritable::Control),
            c if c.is_ascii() || c.is_alphanumeric() => {}
            _ => return Err(Unwritable::Unmeasured),
        }
    }
    if value.contains("${") {
        return Err(Unwritable::Expansion);
    }
    if !value.contains('\'') {
        return Ok(Tier::SingleQuotes);
    }
    if value.contains(['"', '$', '`']) {
        return Err(Unwritable::Quotes);
    }
    Ok(Tier::DoubleQuotes)
}

/// `NAME=value` in the safest tier, without a line end. A failure names the variable, never the
/// value.
pub fn render(name: &str, value: &str) -> Result<String> {
    if !is_name(name) {
        return Err(Failure::new(format!("`{name}` is not a variable's name"))
            .hint("a letter or `_`, then letters, digits and `_`"));
    }
    match tier(value) {
        Ok(Tier::Everywhere) => Ok(format!("{name}={value}")),
        Ok(Tier::SingleQuotes) => Ok(format!("{name}='{value}'")),
        Ok(Tier::DoubleQuotes) => Ok(format!("{name}=\"{value}\"")),
        Err(why) => Err(Failure::new(format!(
            "{name} cannot be written so that every reader gets the same, because of {}",
            why.what()
        ))
        .hint(ALTERNATIVES)),
    }
}
