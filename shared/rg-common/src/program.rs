//! Other people's programs as readers and writers.
//!
//! The promise: a clean end of a program's output means that the program ended well. Its exit
//! status *is* the end of its stream: a non-zero exit, a signal or a time-out comes out of
//! `read` as an error, never as end of file. Programs die with us (`PDEATHSIG`), never inherit
//! our standard input, and get secrets only through their environment or a pipe.
//!
//! The one place that starts programs.

mod running;
mod streams;

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};
use crate::secret::Secret;

use running::Running;
pub use running::{ProgramError, end_all};
use streams::widen;
pub use streams::{Conversation, ProgramReader, ProgramWriter};

/// A program to be started: arguments that anybody may see, and an environment that may hold secrets.
#[derive(Clone)]
pub struct Program {
    name: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, Secret)>,
    without: Vec<OsString>,
}

impl Program {
    /// A program by name (looked up on `PATH`) or by path.
    pub fn new(name: impl Into<OsString>) -> Self {
        Program {
            name: name.into(),
            args: Vec::new(),
            env: Vec::new(),
            without: Vec::new(),
        }
    }

    /// One more argument. Never a secret: anybody on the machine can read it.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments. Never a secret.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment; the place for secrets.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: Secret) -> Self {
        self.env.push((name.into(), value));
        self
    }

    /// A variable of ours that it must not inherit.
    #[must_use]
    pub fn without_env(mut self, name: impl Into<OsString>) -> Self {
        self.without.push(name.into());
        self
    }

    /// The program's name as an operator would say it, for messages.
    pub fn name(&self) -> String {
        OsStr::new(&self.name).to_string_lossy().into_owned()
    }

    fn passwords(&self) -> Vec<Secret> {
        let given = self.env.iter();
        given
            .filter(|(name, value)| {
                name.to_string_lossy().contains("PASSWORD") && !value.reveal().is_empty()
            })
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Runs to the end with no input; its output, or a failure that quotes what it said on stderr.
    /// The output is refused above `limit` bytes.
    pub fn output(&self, limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut reader = self.reader()?;
        // A short question may be part of cleaning up after a signal.
        reader.stoppable = false;
        let what = || format!("cannot run {}", self.name());
        let read = (&mut reader).take(limit as u64 + 1).read_to_end(&mut out);
        read.map_err(|error| Failure::from_io(what(), error))?;
        if out.len() > limit {
            return Err(Failure::new(format!(
                "{} printed more than {limit} bytes",
                self.name()
            )));
        }
        Ok(out)
    }

    /// Starts it and reads its output; the end of the stream comes only after a good exit. When we
    /// are told to stop, reading fails, however long the program has been silent.
    pub fn reader(&self) -> Result<ProgramReader> {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(self, command)?;
        let stdout = running.child.stdout.take().expect("stdout was asked for");
        widen(&stdout);
        Ok(ProgramReader {
            stdout,
            stoppable: true,
            until: None,
            running: Some(running),
        })
    }

    /// As [`Program::reader`], for a program that must have ended within `limit`: then reading fails
    /// and the program is ended.
    pub fn reader_within(&self, limit: Duration) -> Result<ProgramReader> {
        let mut reader = self.reader()?;
        reader.until = Some((Instant::now() + limit, limit));
        Ok(reader)
    }

    /// As [`Program::output`], within `limit`.
    pub fn output_within(&self, bytes: usize, limit: Duration) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let reader = self.reader_within(limit)?;
        let read = reader.take(bytes as u64 + 1).read_to_end(&mut out);
        read.map_err(|error| Failure::from_io(format!("cannot run {}", self.name()), error))?;
        if out.len() > bytes {
            return Err(Failure::new(format!(
                "{} printed more than {bytes} bytes",
                self.name()
            )));
        }
        Ok(out)
    }

    /// Starts it with our bytes as its input; its output is drained into a bounded tail that a
    /// failure quotes. Ends well only by [`ProgramWriter::finish`].
    pub fn writer(&self) -> Result<ProgramWriter> {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut running = Running::start(self, command)?;
        let stdin = running.child.stdin.take().expect("stdin was asked for");
        widen(&stdin);
        Ok(ProgramWriter {
            stdin: Some(stdin),
            running: Some(running),
        })
    }

    /// Starts it with both ends in our hands, for a conversation. The caller reads and writes on
    /// threads of its own and then calls [`Conversation::finish`].
    pub fn conversation(&self) -> Result<Conversation> {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(self, command)?;
        let stdin = running.child.stdin.take().expect("stdin was asked for");
        let stdout = running.child.stdout.take().expect("stdout was asked for");
        Ok(Conversation {
            stdin: Some(stdin),
            stdout: Some(stdout),
            running: Some(running),
        })
    }

    fn command(&self) -> Command {
        // The one place that starts programs.
        #[allow(clippy::disallowed_methods)]
        let mut command = Command::new(&self.name);
        command.args(&self.args);
        for name in &self.without {
            command.env_remove(name);
        }
        for (name, value) in &self.env {
            command.env(name, value.reveal());
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn shell(script: &str) -> Program {
        Program::new("sh").arg("-c").arg(script)
    }

    #[test]
    fn a_program_that_fails_after_its_output_is_an_error_and_not_an_end() {
        let mut text = Vec::new();
        let error = shell("printf abc; echo 'disk on fire' >&2; exit 3")
            .reader()
            .unwrap()
            .read_to_end(&mut text);
        let failure = Failure::from_io("reading", error.unwrap_err());
        assert_eq!(text, b"abc");
        assert_eq!(
            failure.to_string(),
            "sh ended with exit status 3: disk on fire"
        );
    }

    #[test]
    fn a_program_that_is_killed_is_an_error() {
        let error = shell("printf abc; kill -9 $$").output(10).unwrap_err();
        assert_eq!(error.to_string(), "sh was killed by signal 9");
    }

    #[test]
    fn a_good_program_ends_its_stream() {
        assert_eq!(shell("printf abc").output(10).unwrap(), b"abc");
    }

    #[test]
    fn a_writer_tells_why_the_program_stopped_reading() {
        let mut writer = shell("exec <&-; echo 'no thanks' >&2; exit 1")
            .writer()
            .unwrap();
        let mut outcome = Ok(());
        for _ in 0..100 {
            outcome = writer.write_all(&[0u8; 65536]);
            if outcome.is_err() {
                break;
            }
        }
        let failure = Failure::from_io("writing", outcome.unwrap_err());
        assert_eq!(
            failure.to_string(),
            "sh ended with exit status 1: no thanks"
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_its_limit() {
        let limit = Duration::from_millis(300);
        for hanging in ["printf abc; exec sleep 60", "exec >&-; exec sleep 60"] {
            let error = shell(hanging).output_within(10, limit).unwrap_err();
            assert_eq!(error.to_string(), "sh did not end within 0.3 s");
        }
        let good = shell("printf abc").output_within(10, Duration::from_secs(60));
        assert_eq!(good.unwrap(), b"abc");
    }

    #[test]
    fn a_missing_program_is_named_with_a_hint() {
        let failure = Program::new("rg-no-such-program").reader().err().unwrap();
        assert_eq!(
            failure.hints(),
            ["is rg-no-such-program installed and on PATH?"]
        );
    }
}
