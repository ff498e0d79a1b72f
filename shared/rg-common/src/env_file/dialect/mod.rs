//! What each program reads from one and the same env file.
//!
//! No env-file syntax means the same everywhere: a `$`, a quote or a `#` gives one value to
//! docker compose, another to systemd and a third to a shell. Each reader is modelled here as a
//! pure function from the file's bytes to what that reader gives for each name. The models are
//! held against the real programs by the suite `envgen_check_readers`, compose against recorded answers
//! of its own parser. The environment is taken to be empty: a variable that the file does not set
//! itself expands to nothing, as it does in a unit or a container.

mod compose;
mod docker_run;
mod node;
mod python;
mod shell;
mod systemd;
pub mod tier;
mod xargs;

use std::collections::BTreeMap;

/// A program, or a habit, that reads env files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reader {
    /// `docker compose --env-file` and `env_file:` (compose-go 2.13).
    Compose,
    /// A unit's `EnvironmentFile=` before v254: a comment that ends in `\` swallows the next line.
    Systemd,
    /// `EnvironmentFile=` from v254 on.
    Systemd254,
    /// `. file` in bash.
    Bash,
    /// `. file` in dash, Debian's `/bin/sh`.
    Dash,
    /// `export $(grep -v '^#' file | xargs)`.
    Xargs,
    /// `docker run --env-file`.
    DockerRun,
    /// python-dotenv's `load_dotenv` (1.2).
    PythonDotenv,
    /// pydantic-settings' `env_file` (2.16), which reads by python-dotenv.
    PydanticSettings,
    /// npm's `dotenv` (17).
    NodeDotenv,
    /// `node --env-file` (22).
    NodeEnvFile,
}

/// All readers, in the order in which they are shown.
pub const ALL: [Reader; 11] = [
    Reader::Compose,
    Reader::Systemd,
    Reader::Systemd254,
    Reader::Bash,
    Reader::Dash,
    Reader::Xargs,
    Reader::DockerRun,
    Reader::PythonDotenv,
    Reader::PydanticSettings,
    Reader::NodeDotenv,
    Reader::NodeEnvFile,
];

impl Reader {
    /// As an operator would write it.
    pub fn label(self) -> &'static str {
        match self {
            Reader::Compose => "docker compose",
            Reader::Systemd => "systemd EnvironmentFile",
            Reader::Systemd254 => "systemd 254+",
            Reader::Bash => "bash `. file`",
            Reader::Dash => "dash `. file`",
            Reader::Xargs => "export $(… | xargs)",
            Reader::DockerRun => "docker run --env-file",
            Reader::PythonDotenv => "python-dotenv",
            Reader::PydanticSettings => "pydantic-settings",
            Reader::NodeDotenv => "node dotenv",
            Reader::NodeEnvFile => "node --env-file",
        }
    }

    /// The reader's name in JSON and on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Reader::Compose => "compose",
            Reader::Systemd => "systemd",
            Reader::Systemd254 => "systemd254",
            Reader::Bash => "bash",
            Reader::Dash => "dash",
            Reader::Xargs => "xargs",
            Reader::DockerRun => "docker_run",
            Reader::PythonDotenv => "python_dotenv",
            Reader::PydanticSettings => "pydantic_settings",
            Reader::NodeDotenv => "node_dotenv",
            Reader::NodeEnvFile => "node_env_file",
        }
    }

    /// What this reader makes of a file.
    pub fn read(self, bytes: &[u8]) -> Reading {
        if bytes.contains(&0) {
            return match self {
                Reader::Systemd | Reader::Systemd254 => {
                    Reading::refused(1, "the file holds a NUL byte")
                }
                _ => Reading::cannot_tell("the file holds a NUL byte"),
            };
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return match self {
                Reader::Compose
                | Reader::Bash
                | Reader::Dash
                | Reader::Xargs
                | Reader::NodeDotenv
                | Reader::NodeEnvFile => Reading::cannot_tell("the file is not UTF-8"),
                _ => Reading::refused(1, "the file is not UTF-8"),
            };
        };
        match self {
            Reader::Compose => compose::read(text),
            Reader::Systemd => systemd::read(text, false),
            Reader::Systemd254 => systemd::read(text, true),
            Reader::Bash => shell::read(text, shell::Kind::Bash),
            Reader::Dash => shell::read(text, shell::Kind::Dash),
            Reader::Xargs => xargs::read(text),
            Reader::DockerRun => docker_run::read(text),
            Reader::PythonDotenv | Reader::PydanticSettings => python::read(text),
            Reader::NodeDotenv => node::read_dotenv(text),
            Reader::NodeEnvFile => node::read_env_file(text),
        }
    }
}

/// What a reader makes of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// What it gives for each name that it gives anything for.
    pub values: BTreeMap<String, Seen>,
    /// What it complains of, runs or leaves out, by line.
    pub troubles: Vec<Trouble>,
    /// Why the rest of the file, from this line on, is not read at all (for most readers: why the
    /// program does not start).
    pub refused: Option<Trouble>,
    /// Why the model cannot say (binary content).
    pub unknown: Option<&'static str>,
}

/// What a reader gives for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// This value.
    Value(String),
    /// A value that depends on the moment or on the machine, and why (`$$`, `~`, a command).
    Depends(&'static str),
    /// Nothing, and why.
    Missing(String),
}

/// Something a reader does besides giving a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The line, from 1.
    pub line: usize,
    /// What it does.
    pub kind: TroubleKind,
    /// In words, without any value of the file.
    pub what: &'static str,
}

/// The kinds of [`Trouble`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// It starts a program that the line names.
    Runs,
    /// It stops reading, or does not start.
    Refuses,
    /// It leaves the line out.
    Drops,
}

impl Reading {
    fn refused(line: usize, what: &'static str) -> Reading {
        let mut reading = Reading::default();
        reading.refuse(line, what);
        reading
    }

    fn cannot_tell(why: &'static str) -> Reading {
        Reading {
            unknown: Some(why),
            ..Reading::default()
        }
    }

    fn refuse(&mut self, line: usize, what: &'static str) {
        let kind = TroubleKind::Refuses;
        self.refused = Some(Trouble { line, kind, what });
    }

    fn drops(&mut self, line: usize, what: &'static str) {
        let kind = TroubleKind::Drops;
        self.troubles.push(Trouble { line, kind, what });
    }

    fn runs(&mut self, line: usize, what: &'static str) {
        let kind = TroubleKind::Runs;
        self.troubles.push(Trouble { line, kind, what });
    }

    fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), Seen::Value(value.into()));
    }

    /// What this reader gives for a name; a file refused as a whole gives nothing.
    pub fn seen(&self, name: &str) -> Seen {
        if let Some(why) = self.unknown {
            return Seen::Depends(why);
        }
        match (self.values.get(name), &self.refused) {
            (Some(seen), _) => seen.clone(),
            (None, Some(trouble)) => {
                Seen::Missing(format!("line {}: {}", trouble.line, trouble.what))
            }
            (None, None) => Seen::Missing("not read".to_owned()),
        }
    }

    /// The value, when the reader gives a certain one.
    pub fn value(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Seen::Value(value)) if self.unknown.is_none() => Some(value),
            _ => None,
        }
    }
}

/// A name that every reader takes: a letter or `_`, then letters, digits and `_`.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The 1-based line of a byte position.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|&&b| b == b'\n')
        .count()
}

#[cfg(test)]
mod tests;
