//! Reads a plain dump (`pg_dump -Fp`): SQL for `psql`, with the rows of tables between it.
//!
//! The promise: it ends well only behind `pg_dump`'s own closing comment. A dump cut between two
//! statements is valid SQL and restores without an error; here it is one. Only the blank line
//! behind the closing comment may be missing.

use memchr::memchr;

use super::inventory::{Ledger, OpenTable};
use super::lexer::{Found, Lexer, TEXT_BYTES_MAX};
use super::rows::RowPieces;
use super::sql::{Word, Words, call, client_encoding, copy_from_stdin, lossy, roles, setval};
use crate::failure::{Failure, Result};

/// A script that is being read.
pub(super) struct Script {
    mode: Mode,
    lexer: Lexer,
    ending: Ending,
    /// The key of `\restrict`, until `\unrestrict` says it again.
    restricted: Option<Vec<u8>>,
    /// Lines end with CR LF: written or copied on Windows.
    crlf: bool,
    /// The first schema of the search path, for dumps of before 2018.
    search_path: String,
    large_object: Option<RowPieces>,
}

enum Mode {
    Sql,
    /// Behind `FROM stdin;` to the end of its line.
    RowsFollow(OpenTable),
    Rows(OpenTable),
}

/// How far the script has come, by `pg_dump`'s comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotBegun,
    Begun,
    /// The closing comment's text has come, not yet the line below it.
    Closing,
    Complete,
}

impl Script {
    pub fn new() -> Self {
        Script {
            mode: Mode::Sql,
            lexer: Lexer::new(),
            ending: Ending::NotBegun,
            restricted: None,
            crlf: false,
            search_path: String::new(),
            large_object: None,
        }
    }

    /// Takes in the script's next bytes.
    pub fn push(&mut self, ledger: &mut Ledger, mut input: &[u8]) -> Result<()> {
        while !input.is_empty() {
            match std::mem::replace(&mut self.mode, Mode::Sql) {
                Mode::Sql => match self.lexer.next(&mut input) {
                    Some(Found::Statement) => self.statement(ledger)?,
                    Some(Found::Comment) => self.comment(ledger)?,
                    Some(Found::Command) => self.command(ledger)?,
                    None => {}
                },
                Mode::RowsFollow(table) => match memchr(b'\n', input) {
                    Some(end) => {
                        input = &input[end + 1..];
                        self.mode = Mode::Rows(table);
                    }
                    None => {
                        input = &[];
                        self.mode = Mode::RowsFollow(table);
                    }
                },
                Mode::Rows(mut table) => {
                    let taken = ledger.rows(&mut table, input)?;
                    input = &input[taken..];
                    match table.text.closed {
                        true => ledger.close(&table),
                        false => self.mode = Mode::Rows(table),
                    }
                }
            }
        }
        Ok(())
    }

    /// The script's end: an error unless it is complete.
    pub fn finish(&self, ledger: &Ledger) -> Result<()> {
        let cut = match &self.mode {
            Mode::Rows(table) | Mode::RowsFollow(table) => {
                format!("it ends within the rows of {}", ledger.name(table))
            }
            Mode::Sql if self.ending == Ending::NotBegun => {
                return Err(Failure::new("this is not a dump: it lacks pg_dump's heading")
                    .hint("expected is a custom archive (-Fc) or SQL (-Fp) as pg_dump writes them, decompressed"));
            }
            Mode::Sql if !self.lexer.is_between() => "it ends within a statement".into(),
            Mode::Sql if self.ending != Ending::Complete => {
                "the closing comment `PostgreSQL database dump complete` is missing".into()
            }
            Mode::Sql if self.restricted.is_some() => {
                "the closing `\\unrestrict` is missing".into()
            }
            Mode::Sql => return Ok(()),
        };
        Err(Failure::new(format!("the dump is incomplete: {cut}")).hint(
            "pg_dump was interrupted or the file was cut; only a new dump or another copy helps",
        ))
    }

    fn statement(&mut self, ledger: &mut Ledger) -> Result<()> {
        if self.ending == Ending::Complete {
            return Err(goes_on());
        }
        let strings = self.lexer.standard_strings;
        let sql = self.lexer.found();
        let begins = |with: &str| sql.starts_with(with.as_bytes());
        if begins("COPY ") {
            let Some(copy) = copy_from_stdin(sql, strings) else {
                return Err(damaged("a COPY that pg_dump does not write", sql));
            };
            let schema = copy.schema.unwrap_or_else(|| self.search_path.clone());
            self.mode =
                Mode::RowsFollow(ledger.open(schema, copy.name, copy.columns, self.crlf)?);
        } else if begins("INSERT INTO ") {
            ledger.uncounted(|| {
                "its rows are INSERT statements; dump without --inserts, --column-inserts, --rows-per-insert".into()
            });
        } else if begins("SELECT pg_catalog.setval(") {
            let Some((schema, name, value, is_called)) = setval(sql, strings) else {
                return Err(damaged("a setval that pg_dump does not write", sql));
            };
            let schema = schema.unwrap_or_else(|| self.search_path.clone());
            ledger.sequence(schema, name, (value, is_called))?;
        } else if begins("SELECT pg_catalog.lo") {
            let sql = sql.to_vec();
            self.large_object(ledger, &sql)?;
        } else if begins("SET client_encoding = ") {
            ledger.encoding = client_encoding(sql);
        } else if begins("SET standard_conforming_strings = ") {
            self.lexer.standard_strings = !sql.ends_with(b"= off;");
        } else if begins("SET search_path = ") {
            let first = Words::new(sql, strings).nth(3);
            self.search_path = match first {
                Some(Word::Bare(name) | Word::Quoted(name)) => name,
                _ => String::new(),
            };
        } else if begins("GRANT ")
            || begins("REVOKE ")
            || begins("ALTER DEFAULT PRIVILEGES ")
            || begins("CREATE POLICY ")
            || begins("CREATE USER MAPPING ")
            || begins("SET SESSION AUTHORIZATION ")
        {
            for role in roles(sql, strings) {
                ledger.role(&role)?;
            }
        }
        Ok(())
    }

    /// `lo_open` begins a large object, `lowrite` adds to it, `lo_close` ends it.
    fn large_object(&mut self, ledger: &mut Ledger, sql: &[u8]) -> Result<()> {
        if sql.len() >= TEXT_BYTES_MAX {
            return Err(damaged("too long a piece of a large object", sql));
        }
        let arguments =
            |function| call(&mut Words::new(sql, self.lexer.standard_strings), function);
        if let Some([oid, ..]) = arguments("lo_open") {
            let oid = match &oid {
                Word::Bare(oid) => oid.parse::<u32>().ok(),
                Word::Text(oid) => lossy(oid).parse::<u32>().ok(),
                _ => None,
            };
            let oid = oid.ok_or_else(|| damaged("a large object without a number", sql))?;
            let mut object = RowPieces::new();
            object.push(&oid.to_le_bytes());
            self.large_object = Some(object);
        } else if let Some([_, content, _]) = arguments("lowrite") {
            let content = match &content {
                Word::Text(content) => content.strip_prefix(b"\\x").and_then(unhex),
                _ => None,
            };
            match (content, &mut self.large_object) {
                (Some(content), Some(object)) => object.push(&content),
                _ => {
                    return Err(damaged(
                        "a piece of a large object that cannot be read",
                        sql,
                    ));
                }
            }
        } else if arguments("lo_close").is_some() {
            let Some(object) = self.large_object.take() else {
                return Err(damaged("the end of a large object that never began", sql));
            };
            ledger.large_object(&object);
        }
        Ok(())
    }

    fn comment(&mut self, ledger: &mut Ledger) -> Result<()> {
        let mut comment = self.lexer.found();
        if let Some(line) = comment.strip_suffix(b"\r") {
            comment = line;
            self.crlf = true;
        }
        match self.ending {
            Ending::Complete => return Err(goes_on()),
            Ending::Closing => {
                self.ending = match comment {
                    b"" => Ending::Complete,
                    _ => return Err(goes_on()),
                };
                return Ok(());
            }
            Ending::NotBegun | Ending::Begun => {}
        }
        let after = |prefix: &str| comment.strip_prefix(prefix.as_bytes()).map(lossy);
        if comment == b" PostgreSQL database cluster dump" {
            return Err(Failure::new("this is a dump of a whole cluster by pg_dumpall")
                .hint("dump each database by itself with pg_dump, and the roles with pg_dumpall --globals-only"));
        } else if comment == b" PostgreSQL database dump" {
            if self.ending == Ending::Begun {
                return Err(Failure::new(
                    "the dump holds more than one database, or lacks its end",
                )
                .hint("dump each database by itself"));
            }
            self.ending = Ending::Begun;
        } else if comment == b" PostgreSQL database dump complete" && self.ending == Ending::Begun {
            if self.large_object.is_some() {
                return Err(damaged("a large object without an end", comment));
            }
            self.ending = Ending::Closing;
        } else if let Some(version) = after(" Dumped from database version ") {
            ledger.server_version = version;
        } else if let Some(version) = after(" Dumped by pg_dump version ") {
            ledger.pg_dump_version = version;
        } else if let Some(entry) = after(" Name: ").or_else(|| after(" Data for Name: ")) {
            heading(ledger, &entry)?;
        }
        Ok(())
    }

    /// `pg_dump` writes `\connect` (with `--create`), `\restrict` and `\unrestrict`.
    fn command(&mut self, ledger: &mut Ledger) -> Result<()> {
        let command = self.lexer.found().trim_ascii_end();
        let (name, argument) = match command.iter().position(u8::is_ascii_whitespace) {
            Some(end) => (&command[..end], command[end..].trim_ascii_start()),
            None => (command, &b""[..]),
        };
        match name {
            b"\\restrict" if self.restricted.is_none() => {
                self.restricted = Some(argument.to_vec());
                Ok(())
            }
            // Around `\connect` the key is given up and taken again.
            b"\\unrestrict" if self.restricted.as_deref() == Some(argument) => {
                self.restricted = None;
                Ok(())
            }
            b"\\connect" if self.ending != Ending::Complete => {
                let database = database_name(argument);
                if ledger.database.get_or_insert_with(|| database.clone()) != &database {
                    return Err(Failure::new(format!(
                        "the dump goes on in another database, `{database}`"
                    ))
                    .hint("dump each database by itself"));
                }
                Ok(())
            }
            _ => Err(damaged(
                "a psql command that pg_dump does not write",
                command,
            )),
        }
    }
}

/// `pg_dump`'s comment above each object: `n; Type: T; Schema: s; Owner: o[; Tablespace: t]`.
fn heading(ledger: &mut Ledger, entry: &str) -> Result<()> {
    let Some((name, rest)) = entry.rsplit_once("; Type: ") else {
        return Ok(());
    };
    let (kind, rest) = rest.split_once("; Schema: ").unwrap_or((rest, ""));
    let owner = rest.rsplit_once("; Owner: ").map_or("", |(_, owner)| owner);
    let owner = owner
        .split_once("; Tablespace: ")
        .map_or(owner, |(owner, _)| owner);
    ledger.object(kind)?;
    ledger.role(owner)?;
    match kind {
        "EXTENSION" => ledger.extension(name),
        _ => Ok(()),
    }
}

/// The database in `name`, `"name"` or `-reuse-previous=on "dbname='name'"`.
fn database_name(argument: &[u8]) -> String {
    let first = Words::new(argument, true).find_map(|word| match word {
        Word::Quoted(name) => Some(name),
        _ => None,
    });
    let Some(name) = first else {
        return lossy(argument);
    };
    match name
        .strip_prefix("dbname='")
        .and_then(|name| name.strip_suffix('\''))
    {
        Some(inner) => inner.replace("\\'", "'").replace("\\\\", "\\"),
        None => name,
    }
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pair = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    pairs.iter().map(pair).collect()
}

fn goes_on() -> Failure {
    Failure::new("the dump goes on behind its closing comment")
        .hint("are these several dumps in one file? each database needs its own")
}

/// The message shows the statement's beginning.
fn damaged(what: &str, sql: &[u8]) -> Failure {
    let shown: String = lossy(&sql[..sql.len().min(240)]).chars().take(60).collect();
    Failure::new(format!("the dump holds {what}: {shown:?}"))
        .hint("was it edited, or made by another program than pg_dump?")
}
