//! Finds the statements, comments and psql commands of an SQL script that comes in pieces.
//!
//! The promise: what looks like a statement inside a string, a quoted name, a comment or the body
//! of a function is not taken for one; the rules are those of `psql`. Memory is bounded: of a
//! statement, a comment or a command only its beginning is kept (see [`TEXT_BYTES_MAX`]).

use memchr::{memchr, memchr2};

use super::sql::is_bare;

/// Of one statement so many bytes are kept. `COPY` with 1600 quoted columns takes 0.2 MB, a
/// `lowrite` 33 KB; nothing longer is of interest.
pub(super) const TEXT_BYTES_MAX: usize = 256 << 10;
/// The longest dollar tag: PostgreSQL's names end at 63 bytes.
const TAG_BYTES_MAX: usize = 66;

/// What was found; its text is in [`Lexer::found`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A statement without comments outside strings, up to and with its semicolon.
    Statement,
    /// A `--` comment outside all statements, without the dashes.
    Comment,
    /// A psql command with its backslash.
    Command,
}

/// Where the script stands.
pub(super) struct Lexer {
    inside: Inside,
    statement: Vec<u8>,
    /// A comment or a command.
    line: Vec<u8>,
    found: Vec<u8>,
    /// The byte before, if it was code.
    previous: u8,
    /// The last string's backslashes were escapes: holds for what a doubled quote continues.
    escapes: bool,
    /// `standard_conforming_strings`: backslashes in plain strings are characters.
    pub standard_strings: bool,
    parentheses: u32,
    word: Vec<u8>,
    routine: Routine,
    /// `BEGIN ATOMIC … END` of a function's body in SQL: semicolons in it end no statement.
    body_depth: u32,
}

/// What the script stands inside of.
enum Inside {
    Code,
    Text {
        escapes: bool,
        escaped: bool,
    },
    Name,
    /// `$` and what may become a tag.
    Tag(Vec<u8>),
    Dollars {
        tag: Vec<u8>,
        matched: usize,
    },
    LineComment,
    BlockComment {
        depth: u32,
        previous: u8,
    },
    Command,
}

/// Whether a statement begins with `CREATE [OR REPLACE] FUNCTION` or `PROCEDURE`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routine {
    Open,
    Create,
    CreateOr,
    CreateOrReplace,
    Yes,
    No,
}

impl Lexer {
    pub fn new() -> Self {
        Lexer {
            inside: Inside::Code,
            statement: Vec::new(),
            line: Vec::new(),
            found: Vec::new(),
            previous: b'\n',
            escapes: false,
            standard_strings: true,
            parentheses: 0,
            word: Vec::new(),
            routine: Routine::Open,
            body_depth: 0,
        }
    }

    /// The text of what was found last; cut off at [`TEXT_BYTES_MAX`].
    pub fn found(&self) -> &[u8] {
        &self.found
    }

    /// Whether the script stands between two statements, at the beginning of a line.
    pub fn is_between(&self) -> bool {
        matches!(self.inside, Inside::Code) && self.is_blank()
    }

    fn is_blank(&self) -> bool {
        self.statement.iter().all(u8::is_ascii_whitespace)
    }

    /// Takes from `input` up to the end of the next thing found.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Found> {
        while let Some((&byte, rest)) = input.split_first() {
            match &mut self.inside {
                Inside::Code => {
                    *input = rest;
                    if self.code(byte) {
                        self.take_statement();
                        return Some(Found::Statement);
                    }
                }
                Inside::Text { escapes, escaped } => {
                    if std::mem::take(escaped) {
                        self.keep_first(input, 1);
                        continue;
                    }
                    let end = match *escapes {
                        true => memchr2(b'\'', b'\\', input),
                        false => memchr(b'\'', input),
                    };
                    match end.map(|end| (end, input[end])) {
                        Some((end, b'\'')) => {
                            self.escapes = *escapes;
                            self.close(input, end + 1);
                        }
                        Some((end, _)) => {
                            *escaped = true;
                            self.keep_first(input, end + 1);
                        }
                        None => self.keep_first(input, input.len()),
                    }
                }
                Inside::Name => match memchr(b'"', input) {
                    Some(end) => self.close(input, end + 1),
                    None => self.keep_first(input, input.len()),
                },
                Inside::Tag(tag) => {
                    // A digit after the dollar makes it a parameter, no tag.
                    let is_tag = is_bare(byte) && !(tag.len() == 1 && byte.is_ascii_digit());
                    if !is_tag || tag.len() >= TAG_BYTES_MAX {
                        self.previous = b'$';
                        self.inside = Inside::Code;
                        continue;
                    }
                    tag.push(byte);
                    if byte == b'$' {
                        let tag = std::mem::take(tag);
                        self.inside = Inside::Dollars { tag, matched: 0 };
                    }
                    self.keep_first(input, 1);
                }
                Inside::Dollars { tag, matched: 0 } => match memchr(b'$', input) {
                    Some(at) => {
                        let tag = std::mem::take(tag);
                        self.inside = Inside::Dollars { tag, matched: 1 };
                        self.keep_first(input, at + 1);
                    }
                    None => self.keep_first(input, input.len()),
                },
                Inside::Dollars { tag, matched } => {
                    *matched = match byte {
                        _ if tag.get(*matched) == Some(&byte) => *matched + 1,
                        b'$' => 1,
                        _ => 0,
                    };
                    match *matched == tag.len() {
                        true => self.close(input, 1),
                        false => self.keep_first(input, 1),
                    }
                }
                Inside::LineComment | Inside::Command => {
                    let end = memchr(b'\n', input);
                    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
                    let room = TEXT_BYTES_MAX - self.line.len();
                    self.line.extend_from_slice(&line[..line.len().min(room)]);
                    *input = rest;
                    if end.is_some() {
                        // The newline stays: it belongs to the code.
                        let is_comment = matches!(self.inside, Inside::LineComment);
                        self.inside = Inside::Code;
                        self.found.clear();
                        self.found.append(&mut self.line);
                        match is_comment {
                            true if self.is_blank() => return Some(Found::Comment),
                            true => {}
                            false => return Some(Found::Command),
                        }
                    }
                }
                Inside::BlockComment { depth, previous } => {
                    *input = rest;
                    let pair = [std::mem::replace(previous, byte), byte];
                    match &pair {
                        b"*/" => {
                            *depth -= 1;
                            *previous = b' ';
                        }
                        b"/*" => {
                            *depth = depth.saturating_add(1);
                            *previous = b' ';
                        }
                        _ => {}
                    }
                    if *depth == 0 {
                        self.inside = Inside::Code;
                        self.previous = b' ';
                    }
                }
            }
        }
        None
    }

    /// One byte outside everything else; says whether it ends the statement.
    fn code(&mut self, byte: u8) -> bool {
        let previous = std::mem::replace(&mut self.previous, byte);
        if is_bare(byte) && !(byte == b'$' && self.word.is_empty()) {
            if self.word.len() < TAG_BYTES_MAX {
                self.word.push(byte);
            }
            self.keep(&[byte]);
            return false;
        }
        let is_escape_string = byte == b'\'' && self.word.eq_ignore_ascii_case(b"e");
        if !self.word.is_empty() {
            self.end_of_word();
        }
        match (previous, byte) {
            (b'-', b'-') | (b'/', b'*') => {
                self.statement.pop();
                self.previous = b' ';
                self.inside = match byte {
                    b'-' => Inside::LineComment,
                    _ => Inside::BlockComment {
                        depth: 1,
                        previous: b' ',
                    },
                };
                return false;
            }
            (_, b'\\') => {
                self.inside = Inside::Command;
                self.line.push(byte);
                return false;
            }
            (_, b'\'') => {
                let continued = previous == b'\'';
                let escapes =
                    is_escape_string || !self.standard_strings || (continued && self.escapes);
                self.inside = Inside::Text {
                    escapes,
                    escaped: false,
                };
            }
            (_, b'"') => self.inside = Inside::Name,
            (_, b'$') => self.inside = Inside::Tag(vec![b'$']),
            (_, b'(') => self.parentheses = self.parentheses.saturating_add(1),
            (_, b')') => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        self.keep(&[byte]);
        byte == b';' && self.parentheses == 0 && self.body_depth == 0
    }

    /// A whole word outside strings: is it the beginning of a routine, or of its body?
    fn end_of_word(&mut self) {
        let is = |keyword: &str| self.word.eq_ignore_ascii_case(keyword.as_bytes());
        if self.routine != Routine::Yes {
            self.routine = match self.routine {
                Routine::Open if is("CREATE") => Routine::Create,
                Routine::Create if is("OR") => Routine::CreateOr,
                Routine::CreateOr if is("REPLACE") => Routine::CreateOrReplace,
                Routine::Create | Routine::CreateOrReplace if is("FUNCTION") => Routine::Yes,
                Routine::Create | Routine::CreateOrReplace if is("PROCEDURE") => Routine::Yes,
                _ => Routine::No,
            };
        } else if self.parentheses == 0 {
            let opens = is("BEGIN") || (is("CASE") && self.body_depth > 0);
            let closes = is("END");
            self.body_depth = match (opens, closes) {
                (true, _) => self.body_depth.saturating_add(1),
                (_, true) => self.body_depth.saturating_sub(1),
                _ => self.body_depth,
            };
        }
        self.word.clear();
    }

    fn take_statement(&mut self) {
        self.found.clear();
        let begin = self
            .statement
            .iter()
            .position(|byte| !byte.is_ascii_whitespace());
        self.found
            .extend_from_slice(&self.statement[begin.unwrap_or(0)..]);
        self.statement.clear();
        self.parentheses = 0;
        self.body_depth = 0;
        self.routine = Routine::Open;
    }

    /// The closing of a string or a name, after so many bytes.
    fn close(&mut self, input: &mut &[u8], length: usize) {
        self.previous = input[length - 1];
        self.inside = Inside::Code;
        self.keep_first(input, length);
    }

    fn keep_first(&mut self, input: &mut &[u8], length: usize) {
        let (first, rest) = input.split_at(length);
        *input = rest;
        self.keep(first);
    }

    fn keep(&mut self, bytes: &[u8]) {
        // Blank space between statements is nobody's.
        if self.statement.is_empty() && bytes.len() == 1 && bytes[0].is_ascii_whitespace() {
            return;
        }
        let room = TEXT_BYTES_MAX - self.statement.len();
        self.statement
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}
