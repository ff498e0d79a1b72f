//! The lines of an env file with their places in the text, for whoever judges or mends it.
//!
//! Tolerant where [`EnvFile`](super::EnvFile) refuses: a line that is not understood is one of
//! [`Document::broken`], and the next line is read as if nothing had been. Values are read as
//! `EnvFile` reads them.

use std::collections::HashMap;
use std::ops::Range;

use super::{unquote, unquoted};

/// A file taken apart. All ranges are bytes of its text.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The assignments, in order.
    pub entries: Vec<Entry>,
    /// Comments that begin their line.
    pub comments: Vec<Comment>,
    /// Lines that are neither assignment nor comment.
    pub broken: Vec<Broken>,
    /// It begins with a byte order mark.
    pub byte_order_mark: bool,
    /// The first line that ends in CR LF.
    pub first_crlf: Option<usize>,
    /// Its last line has a line end.
    pub ends_in_newline: bool,
    /// Where in `entries` the last assignment of each name is.
    last: HashMap<String, usize>,
}

/// An assignment.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its line, from 1.
    pub line: usize,
    /// The variable.
    pub name: String,
    /// Its value, without quotes and escapes.
    pub value: String,
    /// It begins with `export`.
    pub exported: bool,
    /// The quote around the value.
    pub quote: Option<char>,
    /// From the first character of its first line to the end of its last, line end included.
    pub span: Range<usize>,
    /// The name.
    pub name_span: Range<usize>,
    /// The value as written, with its quotes; what follows it is a comment or blanks.
    pub value_span: Range<usize>,
}

/// A comment that begins its line.
#[derive(Debug, Clone)]
pub struct Comment {
    /// Its line, from 1.
    pub line: usize,
    /// Without the line end.
    pub span: Range<usize>,
    /// It ends in a backslash, which systemd before v254 takes as "goes on".
    pub continues: bool,
}

/// A line that is not understood.
#[derive(Debug, Clone)]
pub struct Broken {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong, without anything of the line.
    pub what: &'static str,
}

impl Document {
    /// Takes a text apart. Never fails.
    pub fn parse(text: &str) -> Document {
        let mut document = Document {
            byte_order_mark: text.starts_with('\u{feff}'),
            ends_in_newline: text.is_empty() || text.ends_with('\n'),
            ..Document::default()
        };
        let mut at = if document.byte_order_mark {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let mut line = 1;
        while at < text.len() {
            let end = line_end(text, at);
            if text[at..end].ends_with("\r\n") {
                document.first_crlf.get_or_insert(line);
            }
            let bare = text[at..end].trim();
            let mut next = end;
            if bare.starts_with('#') {
                let span = at..at + text[at..end].trim_end_matches(['\n', '\r']).len();
                let continues = text[span.clone()].ends_with('\\');
                document.comments.push(Comment {
                    line,
                    span,
                    continues,
                });
            } else if !bare.is_empty() {
                match entry(text, at, line) {
                    Ok(found) => {
                        next = found.span.end;
                        let name = found.name.clone();
                        document.last.insert(name, document.entries.len());
                        document.entries.push(found);
                    }
                    Err(what) => document.broken.push(Broken { line, what }),
                }
            }
            line += text[at..next].matches('\n').count();
            at = next;
        }
        document
    }

    /// The last assignment of a name, the one that counts.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.last.get(name).and_then(|&at| self.entries.get(at))
    }
}

fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

fn entry(text: &str, start: usize, line: usize) -> Result<Entry, &'static str> {
    let end = line_end(text, start);
    let whole = &text[start..end];
    let mut at = start + (whole.len() - whole.trim_start().len());
    let exported = text[at..end]
        .strip_prefix("export")
        .is_some_and(|rest| rest.starts_with([' ', '\t']));
    if exported {
        let rest = &text[at + 6..end];
        at = end - rest.trim_start().len();
    }
    let equals = at + text[at..end].find('=').ok_or("no `=` in it")?;
    let name = text[at..equals].trim_end();
    if name.is_empty() {
        return Err("no name before `=`");
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || "'\"`$&|;<>()\\#".contains(c);
    if name.contains(odd) {
        return Err("the part before `=` is not a variable's name");
    }
    let name_span = at..at + name.len();
    let rest = text[equals + 1..end].trim_end_matches(['\n', '\r']);
    let value_at = equals + 1 + (rest.len() - rest.trim_start().len());
    let quote = text[value_at..]
        .chars()
        .next()
        .filter(|c| matches!(c, '\'' | '"'));
    let (value, value_end) = match quote {
        Some(quote) => {
            let close = closing(&text[value_at..], quote).ok_or("a quote that is never closed")?;
            let raw = &text[value_at..value_at + close];
            (unquote(raw, quote).unwrap_or_default(), value_at + close)
        }
        None => {
            let value = unquoted(rest.trim_start());
            (value.to_owned(), value_at + value.len())
        }
    };
    Ok(Entry {
        line,
        name: name.to_owned(),
        value,
        exported,
        quote,
        span: start..line_end(text, value_end.max(start)),
        name_span,
        value_span: value_at..value_end,
    })
}

/// Where a quoted value ends, behind its closing quote; none where that is missing.
pub fn closing(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some(at + 1),
            '\\' if quote == '"' => drop(chars.next()?),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_line_is_placed_and_a_broken_one_spoils_no_other() {
        let text = "\u{feff}# a \\\r\nexport A = 'x\ny' # c\njunk\nB=b # c\nC='open\nD=\n";
        let document = Document::parse(text);
        let seen: Vec<_> = document
            .entries
            .iter()
            .map(|e| {
                (
                    e.line,
                    e.name.as_str(),
                    e.value.as_str(),
                    &text[e.value_span.clone()],
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (2, "A", "x\ny", "'x\ny'"),
                (5, "B", "b", "b"),
                (7, "D", "", "")
            ]
        );
        let broken: Vec<_> = document.broken.iter().map(|b| (b.line, b.what)).collect();
        assert_eq!(
            broken,
            [(4, "no `=` in it"), (6, "a quote that is never closed")]
        );
        assert!(document.byte_order_mark && document.comments[0].continues);
        assert_eq!(document.first_crlf, Some(1));
        assert!(document.entries[0].exported);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_places_are_in_order(text in "[A=a '\"\\\\$#\n\r\u{feff}ü]{0,60}") {
            let document = Document::parse(&text);
            let mut end = 0;
            for entry in &document.entries {
                prop_assert!(entry.span.start >= end && entry.span.end <= text.len());
                prop_assert_eq!(&text[entry.name_span.clone()], &entry.name);
                prop_assert!(entry.value_span.end <= entry.span.end);
                end = entry.span.end;
            }
        }
    }
}
