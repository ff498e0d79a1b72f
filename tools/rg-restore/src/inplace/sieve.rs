//! The dump's SQL, less the few statements that must not be run here.
//!
//! Extensions stay installed when a database is emptied, and with them the schemas they are in. So
//! a dump's `CREATE SCHEMA` of one that is there, and comments on what another role owns, would only
//! fail. They stand at the beginning of every dump, before anything with a body or data. Later only
//! one thing is left out: `pg_dump` puts `BEGIN` and `COMMIT` around large objects, and their
//! `COMMIT` would be ours. What is left out leaves an empty line, so that the line number in an error
//! is that of the dump.

use std::collections::HashSet;

use rg_common::failure::Result;
use rg_common::postgres::Session;

/// A line longer than this is none of those that are left out, and is not collected.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The kinds of entries before which, or among which, those of concern stand, by `pg_dump`'s order.
const KINDS: &[&str] = &[
    "DATABASE",
    "DATABASE PROPERTIES",
    "SCHEMA",
    "PROCEDURAL LANGUAGE",
    "COLLATION",
    "TRANSFORM",
    "EXTENSION",
    "COMMENT",
];

/// What is left out, and where the text stands.
pub(super) struct Sieve {
    /// Schemas that are still there when the dump begins.
    staying: HashSet<String>,
    /// `SCHEMA name` and `EXTENSION name` that the role may not comment on.
    foreign: HashSet<String>,
    /// `SET transaction_timeout` came with 17; a newer `pg_dump` writes it for older servers too.
    old_server: bool,
    /// Whether the dump has any.
    large_objects: bool,
    /// A line that has not come whole.
    line: Vec<u8>,
    /// The rest of a line that is too long to be collected.
    long: bool,
    /// The end of a statement that is left out has not come yet.
    inside: bool,
    at: At,
}

/// Where the text stands.
#[derive(PartialEq)]
enum At {
    /// Before anything with a body.
    Preamble,
    /// Behind that, in a dump with large objects.
    Body,
    /// Behind the header of their content, before its `BEGIN`.
    Header,
    /// Between its `BEGIN` and its `COMMIT`.
    LargeObjects,
    /// Nothing of concern will come.
    Over,
}

impl Sieve {
    /// Asks what stays and what the role may not touch.
    pub fn new(session: &Session, large_objects: bool) -> Result<Sieve> {
        let names = |sql: &str| -> Result<HashSet<String>> {
            let rows = session.rows(sql, &[])?;
            Ok(rows.iter().map(|row| row.get(0)).collect())
        };
        Ok(Sieve {
            staying: names(
                "SELECT n.nspname::text FROM pg_namespace n
                 WHERE NOT pg_has_role(n.nspowner, 'USAGE') OR n.nspname = 'public'
                    OR EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)
                    OR EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
                               AND d.classid = 'pg_namespace'::regclass AND d.objid = n.oid)
                    OR EXISTS (SELECT FROM pg_depend i JOIN pg_depend e
                               ON e.classid = i.classid AND e.objid = i.objid AND e.deptype = 'e'
                               WHERE i.refclassid = 'pg_namespace'::regclass AND i.refobjid = n.oid)",
            )?,
            foreign: names(
                "SELECT 'SCHEMA ' || nspname FROM pg_namespace
                 WHERE NOT pg_has_role(nspowner, 'USAGE')
                 UNION ALL SELECT 'EXTENSION ' || extname FROM pg_extension
                 WHERE NOT pg_has_role(extowner, 'USAGE')",
            )?,
            old_server: session.version().major() < 17,
            large_objects,
            line: Vec::new(),
            long: false,
            inside: false,
            at: At::Preamble,
        })
    }

    /// Takes in the dump's next bytes; `out` gets what is to be run.
    pub fn push(&mut self, mut text: &[u8], out: &mut Vec<u8>) {
        while self.at != At::Over && !text.is_empty() {
            let end = memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1);
            let (line, rest) = text.split_at(end);
            text = rest;
            let whole = line.ends_with(b"\n");
            if self.long {
                out.extend_from_slice(line);
                self.long = !whole;
            } else if whole && self.line.is_empty() {
                self.line(line, out);
            } else {
                self.line.extend_from_slice(line);
                if whole {
                    let line = std::mem::take(&mut self.line);
                    self.line(&line, out);
                } else if self.line.len() > LINE_BYTES_MAX {
                    out.append(&mut self.line);
                    self.long = true;
                }
            }
        }
        out.extend_from_slice(text);
    }

    /// The last line, should the dump end without a newline.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.line);
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let left_out = match self.at {
            At::Preamble => self.preamble(&String::from_utf8_lossy(line)),
            At::Body => {
                if is_header_of_large_objects(line) {
                    self.at = At::Header;
                }
                false
            }
            At::Header => match line.trim_ascii_end() {
                b"BEGIN;" => {
                    self.at = At::LargeObjects;
                    true
                }
                b"" | b"--" => false,
                _ => {
                    self.at = At::Body;
                    false
                }
            },
            At::LargeObjects => {
                let text = line.trim_ascii_end();
                if !text.is_empty() && !text.starts_with(b"SELECT pg_catalog.lo") {
                    self.at = At::Body;
                }
                text == b"COMMIT;"
            }
            At::Over => false,
        };
        out.extend_from_slice(if left_out { b"\n" } else { line });
    }

    /// Whether a line before anything with a body is left out.
    fn preamble(&mut self, line: &str) -> bool {
        let text = line.trim_end();
        if self.inside {
            self.inside = !text.ends_with(';');
            return true;
        }
        let header = text
            .strip_prefix("-- Name: ")
            .or_else(|| text.strip_prefix("-- Data for Name: "));
        if let Some(header) = header {
            let kind = header.rsplit_once("; Type: ").map_or("", |(_, rest)| rest);
            let kind = kind.split(';').next().unwrap_or_default();
            if !KINDS.contains(&kind) {
                self.at = match self.large_objects {
                    true if is_header_of_large_objects(line.as_bytes()) => At::Header,
                    true => At::Body,
                    false => At::Over,
                };
            }
            return false;
        }
        let left_out = self.is_left_out(text);
        self.inside = left_out && !text.ends_with(';');
        left_out
    }

    fn is_left_out(&self, text: &str) -> bool {
        if let Some(name) = text.strip_prefix("CREATE SCHEMA ") {
            let name = name.strip_suffix(';').unwrap_or(name);
            return self.staying.contains(&unquoted(name));
        }
        if let Some(rest) = text.strip_prefix("COMMENT ON ")
            && let Some((object, _)) = rest.split_once(" IS ")
            && let Some((kind, name)) = object.split_once(' ')
        {
            return self.foreign.contains(&format!("{kind} {}", unquoted(name)));
        }
        self.old_server && text == "SET transaction_timeout = 0;"
    }
}

/// `-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -`; the name may be a range of numbers.
fn is_header_of_large_objects(line: &[u8]) -> bool {
    line.starts_with(b"-- Data for Name: ")
        && memchr::memmem::find(line, b"; Type: BLOBS; Schema: -; Owner: ").is_some()
}

fn unquoted(name: &str) -> String {
    match name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sieve(large_objects: bool) -> Sieve {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Sieve {
            staying: set(&["public", "my Ext"]),
            foreign: set(&["EXTENSION vector", "SCHEMA public"]),
            old_server: true,
            large_objects,
            line: Vec::new(),
            long: false,
            inside: false,
            at: At::Preamble,
        }
    }

    /// What comes through, cut into pieces of several sizes.
    fn sieved(text: &str, large_objects: bool) -> String {
        let cut = |size| {
            let mut sieve = sieve(large_objects);
            let mut out = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                sieve.push(piece, &mut out);
            }
            sieve.finish(&mut out);
            String::from_utf8(out).unwrap()
        };
        let whole = cut(usize::MAX);
        for size in [1, 2, 7, 64, 70_000] {
            assert_eq!(cut(size), whole);
        }
        whole
    }

    const DUMP: &str = "SET transaction_timeout = 0;\nSET lock_timeout = 0;\n\
        -- Name: my Ext; Type: SCHEMA; Schema: -; Owner: a\n\nCREATE SCHEMA \"my Ext\";\nCREATE SCHEMA own;\n\
        -- Name: EXTENSION vector; Type: COMMENT; Schema: -; Owner: \n\
        COMMENT ON EXTENSION vector IS 'two\nlines';\nCOMMENT ON EXTENSION mine IS 'x';\n\
        -- Name: f(); Type: FUNCTION; Schema: public; Owner: a\n\
        CREATE FUNCTION f() AS '\nCOMMENT ON EXTENSION vector IS 1;\n';\n";

    #[test]
    fn only_what_stays_or_belongs_to_others_is_left_out_and_bodies_never() {
        let expected = "\nSET lock_timeout = 0;\n\
            -- Name: my Ext; Type: SCHEMA; Schema: -; Owner: a\n\n\nCREATE SCHEMA own;\n\
            -- Name: EXTENSION vector; Type: COMMENT; Schema: -; Owner: \n\
            \n\nCOMMENT ON EXTENSION mine IS 'x';\n\
            -- Name: f(); Type: FUNCTION; Schema: public; Owner: a\n\
            CREATE FUNCTION f() AS '\nCOMMENT ON EXTENSION vector IS 1;\n';\n";
        assert_eq!(sieved(DUMP, false), expected);
        assert_eq!(sieved(DUMP, true), expected);
    }

    #[test]
    fn the_transaction_of_large_objects_is_left_out_and_no_other_line_of_that_text() {
        let long = "x".repeat(200_000);
        let dump = format!(
            "-- Name: t; Type: TABLE; Schema: s; Owner: a\nBEGIN;\nCOMMIT;\n{long}\n\
             --\n-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -\n--\n\nBEGIN;\n\n\
             SELECT pg_catalog.lo_open('1', 131072);\n\nCOMMIT;\n\nBEGIN;\nCOMMIT;\n{long}"
        );
        let expected = format!(
            "-- Name: t; Type: TABLE; Schema: s; Owner: a\nBEGIN;\nCOMMIT;\n{long}\n\
             --\n-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -\n--\n\n\n\n\
             SELECT pg_catalog.lo_open('1', 131072);\n\n\n\nBEGIN;\nCOMMIT;\n{long}"
        );
        assert!(sieved(&dump, true) == expected);
        assert!(sieved(&dump, false) == dump);
    }
}
