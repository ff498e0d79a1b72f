//! The ends of a program that are in our hands: what it writes, what it reads, or both.
//!
//! A clean end of [`ProgramReader`] comes only after a good exit; [`ProgramWriter`] and
//! [`Conversation`] end well only by `finish`.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use super::running::Running;
use crate::failure::{Failure, Result};
use crate::stop;

/// The pipe to and from a program holds up to this many bytes, so that it need not wait for us
/// at every 64 KiB (the kernel's default limit for an ordinary user is 1 MiB).
const PIPE_BYTES: usize = 1 << 20;
/// How often a wait for a silent program looks whether we were told to stop.
const STOP_LOOK: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// How often a program is looked at that has closed its output and must end within a limit.
const END_LOOK: Duration = Duration::from_millis(5);

/// A program's output as a stream. Dropping it early ends the program.
pub struct ProgramReader {
    pub(super) stdout: ChildStdout,
    pub(super) stoppable: bool,
    /// When it must have ended, and how long that was from its start.
    pub(super) until: Option<(Instant, Duration)>,
    pub(super) running: Option<Running>,
}

impl ProgramReader {
    /// Waits until there is something to read, or until we are told to stop.
    fn wait_for_output(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            stop::check().map_err(Failure::into_io)?;
            self.check_limit()?;
            let mut ready = [PollFd::new(&self.stdout, PollFlags::IN)];
            match poll(&mut ready, Some(&STOP_LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl ProgramReader {
    fn check_limit(&self) -> io::Result<()> {
        let name = || self.running.as_ref().map_or("a program", Running::name);
        match self.until {
            Some((until, limit)) if Instant::now() >= until => Err(Failure::new(format!(
                "{} did not end within {} s",
                name(),
                limit.as_secs_f64()
            ))
            .into_io()),
            _ => Ok(()),
        }
    }

    /// A program may close its output and go on.
    fn wait_for_end(&mut self) -> io::Result<()> {
        while self.until.is_some() && self.running.as_mut().is_some_and(Running::is_alive) {
            self.check_limit()?;
            stop::pause(END_LOOK).map_err(Failure::into_io)?;
        }
        Ok(())
    }
}

impl Read for ProgramReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.stoppable {
            self.wait_for_output()?;
        }
        let n = self.stdout.read(buffer)?;
        if n == 0 {
            self.wait_for_end()?;
        }
        if n == 0
            && let Some(running) = self.running.take()
        {
            running.wait().map_err(Failure::into_io)?;
        }
        Ok(n)
    }
}

/// A program fed by us. Writing to one that has ended reports why it ended, not "broken pipe".
pub struct ProgramWriter {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) running: Option<Running>,
}

impl ProgramWriter {
    /// Closes its input and waits for a good end.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        self.running.take().map_or(Ok(()), Running::wait)
    }
}

impl Write for ProgramWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &mut self.stdin else {
            return Err(io::Error::other("its input is closed"));
        };
        match stdin.write(buffer) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdin = None;
                match self.running.take().map(Running::wait) {
                    Some(Err(failure)) => Err(failure.into_io()),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A program with both ends in our hands.
pub struct Conversation {
    /// Its input; drop it to say that there is no more.
    pub stdin: Option<ChildStdin>,
    /// Its output.
    pub stdout: Option<ChildStdout>,
    pub(super) running: Option<Running>,
}

impl Conversation {
    /// Closes both ends and waits for a good end.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        self.stdout = None;
        self.running.take().map_or(Ok(()), Running::wait)
    }
}

/// A larger pipe where the system grants one; with the default size it is only slower.
pub(super) fn widen(pipe: impl std::os::fd::AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES).ok();
}
