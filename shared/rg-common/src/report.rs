//! What a tool says on stdout: one JSON document, or lines for people.
//!
//! A command returns a plain value; it is rendered here and nowhere else.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

pub use crate::nouns::{count, counted};

/// How a command ended, apart from not being able to do it (a `Failure`, exit code 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Well,
    /// Done, and it is bad news: exit code 1.
    BadNews,
    /// Some of it could not be done; what could is in the report. Exit code 2.
    Incomplete,
    /// The exit code of the Nagios plugin protocol, 0 to 3: the one exception to the codes above.
    Plugin(u8),
}

/// What a command has to say: serialised for scripts, rendered for people.
pub trait Report {
    /// The document for `--json`.
    fn json(&self) -> serde_json::Result<serde_json::Value>;
    /// The text for people; nothing for nothing to say.
    fn human(&self, page: &mut Page);
    /// The exit code.
    fn outcome(&self) -> Outcome;
}

/// A page for people: lines and aligned tables, in colour only on a terminal.
pub struct Page {
    text: String,
    colour: bool,
}

/// How a word is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// Done, proven.
    Good,
    /// Look at it.
    Warn,
    /// Damaged, failed.
    Bad,
    /// Of lesser weight.
    Faint,
}

impl Page {
    /// A page; `colour` where the reader can show it.
    pub fn new(colour: bool) -> Page {
        Page {
            text: String::new(),
            colour,
        }
    }

    /// One line.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// A word in its tone.
    pub fn tone(&self, tone: Tone, word: &str) -> String {
        let code = match tone {
            Tone::Plain => return word.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
        };
        if self.colour {
            format!("\x1b[{code}m{word}\x1b[0m")
        } else {
            word.to_owned()
        }
    }

    /// Columns aligned to their widest cell; the header only above rows.
    pub fn table(&mut self, header: &[&str], rows: &[Vec<(Tone, String)>]) {
        if rows.is_empty() {
            return;
        }
        let width = |column: usize| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|(_, cell)| cell.chars().count());
            cells
                .chain(header.get(column).map(|h| h.chars().count()))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let head: Vec<(Tone, String)> = header
            .iter()
            .map(|h| (Tone::Faint, (*h).to_owned()))
            .collect();
        for row in std::iter::once(&head).chain(rows) {
            let mut line = String::new();
            for (column, (tone, cell)) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let pad = if last {
                    0
                } else {
                    widths[column] - cell.chars().count() + 2
                };
                // Writing to a String cannot fail.
                write!(line, "{}{}", self.tone(*tone, cell), " ".repeat(pad)).ok();
            }
            self.line(line.trim_end());
        }
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Prints a report; a closed pipe (`| head`) is the reader's choice, not a failure.
pub(crate) fn print(report: &dyn Report, json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let outcome = if json {
        let document = report.json().map_err(io::Error::other)?;
        writeln!(stdout, "{document:#}")
    } else {
        let mut page = Page::new(colour_wanted(stdout.is_terminal()));
        report.human(&mut page);
        stdout.write_all(page.text().as_bytes())
    };
    match outcome.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

pub(crate) fn colour_wanted(terminal: bool) -> bool {
    // `report` and `cli` speak to people and ask the environment how.
    #[allow(clippy::disallowed_methods)]
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    terminal && !no_color
}

/// A report of any serialisable value for commands whose text is one block.
pub struct Plain<T> {
    /// The document.
    pub document: T,
    /// The text for people.
    pub text: String,
    /// The exit code.
    pub outcome: Outcome,
}

impl<T: Serialize> Report for Plain<T> {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(&self.document)
    }

    fn human(&self, page: &mut Page) {
        if !self.text.is_empty() {
            page.line(self.text.trim_end_matches('\n'));
        }
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// A failure with its hints behind it in brackets, for a report of several that failed.
pub fn with_hints(failure: &crate::failure::Failure) -> String {
    let hints = failure.hints().join("; ");
    if hints.is_empty() {
        failure.to_string()
    } else {
        format!("{failure} ({hints})")
    }
}

/// A number of bytes for people: `1.2 GiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut value = n as f64;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A span of time for people: `31 s`, `4 min 10 s`, `3 h 5 min`, `2 d 4 h`.
pub fn span(seconds: u64) -> String {
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    let two = |a: u64, au: &str, b: u64, bu: &str| {
        if b == 0 {
            format!("{a} {au}")
        } else {
            format!("{a} {au} {b} {bu}")
        }
    };
    match (d, h, m) {
        (1.., ..) => two(d, "d", h, "h"),
        (0, 1.., _) => two(h, "h", m, "min"),
        (0, 0, 1..) => two(m, "min", s, "s"),
        _ => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(250), "4 min 10 s");
        assert_eq!(span(86_400 * 2 + 4 * 3600), "2 d 4 h");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn a_table_is_aligned() {
        let mut page = Page::new(false);
        page.table(
            &["ID", "SIZE"],
            &[vec![
                (Tone::Good, "a@1".into()),
                (Tone::Plain, "9 B".into()),
            ]],
        );
        assert_eq!(page.text(), "ID   SIZE\na@1  9 B\n");
    }
}
