//! The few SQL statements of a dump that say something about its content: `COPY`, `setval`, grants.
//!
//! They were written by `pg_dump`, so the grammar is small; but names in them are anybody's.

use memchr::memmem;

/// One word of SQL and where it lies in its statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A keyword or a name without quotes, or a number with its sign.
    Bare(String),
    /// A name in double quotes, decoded.
    Quoted(String),
    /// A string, decoded.
    Text(Vec<u8>),
    /// Any other character.
    Mark(u8),
}

impl Word {
    /// Whether this is the keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// As a name: PostgreSQL folds one without quotes to lower case.
    fn name(self) -> Option<String> {
        match self {
            Word::Bare(word) => Some(word.to_ascii_lowercase()),
            Word::Quoted(name) => Some(name),
            Word::Text(text) => Some(lossy(&text)),
            Word::Mark(_) => None,
        }
    }
}

/// Cuts a statement into words.
pub(super) struct Words<'a> {
    sql: &'a [u8],
    at: usize,
    /// Backslashes in plain strings are characters (`standard_conforming_strings`).
    standard_strings: bool,
}

impl<'a> Words<'a> {
    pub fn new(sql: &'a [u8], standard_strings: bool) -> Self {
        Words {
            sql,
            at: 0,
            standard_strings,
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.sql.get(self.at + ahead).copied()
    }

    /// Everything up to the closing quote; a doubled quote stands for one.
    fn quoted(&mut self, quote: u8, escapes: bool) -> Vec<u8> {
        let mut text = Vec::new();
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            match byte {
                b'\\' if escapes => {
                    text.extend(self.peek(0));
                    self.at += 1;
                }
                _ if byte != quote => text.push(byte),
                _ if self.peek(0) == Some(quote) => {
                    text.push(quote);
                    self.at += 1;
                }
                _ => break,
            }
        }
        text
    }

    /// A dollar-quoted string, or a lone dollar.
    fn dollars(&mut self) -> Word {
        let rest = &self.sql[self.at..];
        let tag = rest[1..].iter().position(|&byte| byte == b'$');
        let Some(tag) = tag.map(|end| &rest[..end + 2]) else {
            self.at += 1;
            return Word::Mark(b'$');
        };
        let body = &rest[tag.len()..];
        let end = memmem::find(body, tag).unwrap_or(body.len());
        self.at += (2 * tag.len() + end).min(rest.len());
        Word::Text(body[..end].to_vec())
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        while self.peek(0)?.is_ascii_whitespace() {
            self.at += 1;
        }
        let byte = self.peek(0)?;
        Some(match byte {
            b'"' => Word::Quoted(lossy(&self.quoted(b'"', false))),
            b'\'' => Word::Text(self.quoted(b'\'', !self.standard_strings)),
            b'E' | b'e' if self.peek(1) == Some(b'\'') => {
                self.at += 1;
                Word::Text(self.quoted(b'\'', true))
            }
            b'$' => self.dollars(),
            _ if is_bare(byte) || byte == b'-' => {
                let rest = &self.sql[self.at..];
                let end = rest[1..].iter().position(|&byte| !is_bare(byte));
                let word = &rest[..end.map_or(rest.len(), |end| end + 1)];
                self.at += word.len();
                Word::Bare(lossy(word))
            }
            _ => {
                self.at += 1;
                Word::Mark(byte)
            }
        })
    }
}

/// A character of a name without quotes. All bytes above ASCII count, as in PostgreSQL.
pub(super) fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Names are shown, compared and stored as UTF-8; what is not becomes U+FFFD.
pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The table and the columns of a `COPY … FROM stdin`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Absent in dumps of before 2018, which set the search path instead.
    pub schema: Option<String>,
    pub name: String,
    /// The text between the parentheses, as it stands.
    pub columns: String,
}

/// Reads `COPY name (columns) FROM stdin`; nothing if it is another statement.
pub(super) fn copy_from_stdin(sql: &[u8], standard_strings: bool) -> Option<Copy> {
    let mut words = Words::new(sql, standard_strings);
    if !words.next()?.is("COPY") {
        return None;
    }
    let (schema, name, mut next) = qualified(&mut words)?;
    let mut columns = String::new();
    if next == Some(Word::Mark(b'(')) {
        let begin = words.at;
        let mut end = begin;
        while words.next()? != Word::Mark(b')') {
            end = words.at;
        }
        // What lies between the last column and the parenthesis belongs to nobody.
        columns = lossy(&sql[begin..end]);
        next = words.next();
    }
    (next?.is("FROM") && words.next()?.is("stdin")).then_some(Copy {
        schema,
        name,
        columns,
    })
}

/// `name` or `schema.name`, and the word after it.
fn qualified(words: &mut Words) -> Option<(Option<String>, String, Option<Word>)> {
    let first = words.next()?.name()?;
    match words.next() {
        Some(Word::Mark(b'.')) => {
            let name = words.next()?.name()?;
            Some((Some(first), name, words.next()))
        }
        next => Some((None, first, next)),
    }
}

/// A call of `setval`: the sequence's schema (see [`Copy::schema`]) and name, value, `is_called`.
pub(super) type SetVal = (Option<String>, String, i64, bool);

/// Reads `SELECT pg_catalog.setval('name', value, is_called)`.
pub(super) fn setval(sql: &[u8], standard_strings: bool) -> Option<SetVal> {
    let mut words = Words::new(sql, standard_strings);
    let Some([Word::Text(name), Word::Bare(value), called]) = call(&mut words, "setval") else {
        return None;
    };
    let (schema, name, None) = qualified(&mut Words::new(&name, true))? else {
        return None;
    };
    let is_called = called.is("true");
    let known = is_called || called.is("false");
    known.then_some((schema, name, value.parse().ok()?, is_called))
}

/// The arguments of `SELECT pg_catalog.FUNCTION(a, b, c)`; missing ones are a comma.
pub(super) fn call(words: &mut Words, function: &str) -> Option<[Word; 3]> {
    let begins = words.next()?.is("SELECT")
        && words.next()?.is("pg_catalog")
        && words.next()? == Word::Mark(b'.')
        && words.next()?.is(function)
        && words.next()? == Word::Mark(b'(');
    let mut arguments = [Word::Mark(b','), Word::Mark(b','), Word::Mark(b',')];
    if !begins {
        return None;
    }
    for argument in &mut arguments {
        *argument = words.next()?;
        match words.next()? {
            Word::Mark(b',') => {}
            Word::Mark(b')') => return Some(arguments),
            _ => return None,
        }
    }
    None
}

/// The encoding in `SET client_encoding = 'UTF8'`.
pub(super) fn client_encoding(sql: &[u8]) -> Option<String> {
    let mut words = Words::new(sql, true);
    let begins = words.next()?.is("SET") && words.next()?.is("client_encoding");
    if !begins || words.next()? != Word::Mark(b'=') {
        return None;
    }
    words.next()?.name()
}

/// The roles that grants, default privileges, policies and user mappings name.
pub(super) fn roles(sql: &[u8], standard_strings: bool) -> Vec<String> {
    let mut roles = Vec::new();
    let mut words = Words::new(sql, standard_strings).peekable();
    let mut depth = 0u32;
    let mut before = Word::Mark(b';');
    while let Some(word) = words.next() {
        match word {
            Word::Mark(b'(') => depth += 1,
            Word::Mark(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        // TO, FROM and FOR are reserved: as somebody's name they would stand in quotes.
        let names_follow = depth == 0
            && (word.is("TO")
                || word.is("FROM")
                || word.is("AUTHORIZATION")
                || (word.is("ROLE") && before.is("FOR"))
                || (word.is("FOR") && before.is("MAPPING"))
                || (word.is("BY") && before.is("GRANTED")));
        if names_follow {
            loop {
                match words.next() {
                    Some(Word::Bare(name)) if is_no_role(&name) => {}
                    Some(word) => roles.extend(word.name()),
                    None => {}
                }
                if words.next_if_eq(&Word::Mark(b',')).is_none() {
                    break;
                }
            }
        }
        before = word;
    }
    roles
}

/// Words that stand where a role could, in any case.
fn is_no_role(word: &str) -> bool {
    let words = [
        "public",
        "default",
        "current_user",
        "current_role",
        "session_user",
    ];
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(sql: &str) -> Option<(Option<String>, String, String)> {
        copy_from_stdin(sql.as_bytes(), true).map(|copy| (copy.schema, copy.name, copy.columns))
    }

    #[test]
    fn a_copy_out_or_a_copy_of_a_query_is_not_data() {
        assert_eq!(copy("COPY a.b (c) TO stdout"), None);
        assert_eq!(copy("COPY (SELECT 1) TO stdout"), None);
        assert_eq!(copy("COPY a.b (c"), None);
        assert_eq!(copy("COPYING a FROM stdin"), None);
    }

    #[test]
    fn names_with_dots_quotes_and_newlines_are_read_as_they_are() {
        let own = |a: &str, b: &str, c: &str| Some((Some(a.into()), b.into(), c.into()));
        assert_eq!(
            copy("COPY public.t (a, \"b)\"\"(\") FROM stdin;"),
            own("public", "t", "a, \"b)\"\"(\"")
        );
        assert_eq!(
            copy("COPY \"a.b\".\"c\n\"\"d\"  FROM stdin;"),
            own("a.b", "c\n\"d", "")
        );
        assert_eq!(
            copy("COPY größe (x) FROM stdin WITH (FREEZE);").unwrap().1,
            "größe"
        );
    }

    #[test]
    fn a_sequence_is_set_with_its_quoted_name() {
        assert_eq!(
            setval(
                b"SELECT pg_catalog.setval('\"it''s\".\"a\"\"b\"', -5, false);",
                true
            ),
            Some((Some("it's".into()), "a\"b".into(), -5, false))
        );
        assert_eq!(setval(b"SELECT pg_catalog.setval('x', 1);", true), None);
        assert_eq!(setval(b"SELECT setval('x', 1, true);", true), None);
    }

    #[test]
    fn grantees_are_roles_and_public_is_none() {
        let of = |sql: &str| roles(sql.as_bytes(), true);
        assert_eq!(
            of(
                "GRANT SELECT ON TABLE public.\"to\" TO PUBLIC;\nGRANT ALL(a) ON t TO \"My Role\" WITH GRANT OPTION;"
            ),
            ["My Role"]
        );
        assert_eq!(
            of(
                "ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA s GRANT SELECT ON TABLES TO reader;"
            ),
            ["owner", "reader"]
        );
        assert_eq!(
            of("CREATE POLICY p ON s.t TO a, \"B\" USING ((x = ('TO c'::text)));"),
            ["a", "B"]
        );
        assert_eq!(
            of("CREATE USER MAPPING FOR joe SERVER s OPTIONS (\n"),
            ["joe"]
        );
    }
}
