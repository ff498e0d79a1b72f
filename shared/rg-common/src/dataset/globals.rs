//! A server's globals: roles, memberships, tablespaces. `pg_dump` leaves them out, and no dump
//! can be restored on a bare server without them.

use std::io::{self, Read};

use super::{Dump, Dumped, Request, database};
use crate::catalog::Content;
use crate::catalog::manifest::GlobalsContent;
use crate::config::DatabaseConfig;
use crate::failure::{Failure, Result};
use crate::postgres::facts;
use crate::program::ProgramReader;

/// Globals are refused above this size: no server has so many roles.
pub const BYTES_MAX: usize = 32 << 20;
/// What `pg_dumpall` ends with.
const TRAILER: &str = "PostgreSQL database cluster dump complete";

/// Begins to dump a server's globals; without passwords where the role may not read them.
pub fn dump<'a>(request: &Request<'a>, config: &'a DatabaseConfig) -> Result<Box<dyn Dump + 'a>> {
    let url = database::url(request.config, &request.dataset.environment, config)?;
    let (session, place) = database::connect(request.connector, &url, config)?;
    let passwords = facts::rights(&session)?.superuser;
    let mut program = place
        .program("pg_dumpall", &url, session.version())?
        .args(["--globals-only", "--no-password"]);
    // pg_dumpall looks for `postgres` or `template1`, which a managed server may not show.
    program = program.arg(format!("--database={}", url.database));
    if !passwords {
        program = program.arg("--no-role-passwords");
    }
    let server_version = session.version().to_string();
    session.close();
    Ok(Box::new(GlobalsDump {
        reader: program.reader()?,
        text: Vec::new(),
        passwords,
        server_version,
    }))
}

struct GlobalsDump {
    reader: ProgramReader,
    text: Vec<u8>,
    passwords: bool,
    server_version: String,
}

impl Read for GlobalsDump {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if self.text.len() + n > BYTES_MAX {
            return Err(
                Failure::new(format!("the globals are larger than {BYTES_MAX} bytes")).into_io(),
            );
        }
        self.text.extend_from_slice(&buffer[..n]);
        if n == 0 {
            check_complete(&self.text).map_err(Failure::into_io)?;
        }
        Ok(n)
    }
}

impl Dump for GlobalsDump {
    fn finish(self: Box<Self>) -> Result<Dumped> {
        check_complete(&self.text)?;
        let roles = roles(&self.text);
        if roles.is_empty() {
            return Err(Failure::new("no role in pg_dumpall's output"));
        }
        let mut notes = Vec::new();
        if !self.passwords {
            notes.push("without passwords: only a superuser can read them; the env files hold the apps' own".to_owned());
        }
        let content = GlobalsContent {
            server_version: self.server_version,
            roles,
            passwords: self.passwords,
        };
        Ok(Dumped {
            content: Content::Globals(content),
            list: None,
            notes,
            recorded: None,
        })
    }
}

fn check_complete(text: &[u8]) -> Result<()> {
    let tail = &text[text.len().saturating_sub(400)..];
    if String::from_utf8_lossy(tail).contains(TRAILER) {
        return Ok(());
    }
    Err(Failure::new(
        "pg_dumpall's output is not complete: its last line is missing",
    ))
}

/// The roles that a globals dump makes, as written between `CREATE ROLE` and the semicolon,
/// without quotes.
pub fn roles(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let name = |line: &str| {
        let name = line.strip_prefix("CREATE ROLE ")?.strip_suffix(';')?;
        let inner = name.strip_prefix('"').and_then(|n| n.strip_suffix('"'));
        Some(inner.map_or_else(|| name.to_owned(), |inner| inner.replace("\"\"", "\"")))
    };
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_with_their_quotes_undone() {
        let text =
            b"SET x;\nCREATE ROLE app;\nCREATE ROLE \"a \"\"b\";\nALTER ROLE app WITH LOGIN;\n";
        assert_eq!(roles(text), ["app", "a \"b"]);
        assert_eq!(
            check_complete(text).unwrap_err().to_string(),
            "pg_dumpall's output is not complete: its last line is missing"
        );
    }
}
