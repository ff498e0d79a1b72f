//! Other people's programs as readers and writers.
//!
//! The promise: a clean end of a program's output means that the program ended well. Its exit
//! status *is* the end of its stream: a non-zero exit, a signal or a time-out comes out of
//! `read` as an error, never as end of file. Programs die with us (`PDEATHSIG`), never inherit
//! our standard input, and get secrets only through their environment or a pipe.
//!
//! The one place that starts programs.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::failure::{Failure, OrFail, Result};
use crate::secret::Secret;
use crate::stop;

/// How many of a program's last lines on stderr are kept for the message about its failure.
const STDERR_LINES: usize = 40;
/// A line on stderr is kept up to this many bytes.
const STDERR_LINE_BYTES: usize = 2_000;
/// How much later than a program we may hear of a signal that was for both.
const SIGNAL_LAG: Duration = Duration::from_millis(300);
/// The pipe to and from a program holds up to this many bytes, so that it need not wait for us
/// at every 64 KiB (the kernel's default limit for an ordinary user is 1 MiB).
const PIPE_BYTES: usize = 1 << 20;
/// How often a wait for a silent program looks whether we were told to stop.
const STOP_LOOK: rustix::time::Timespec = rustix::time::Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

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
            running: Some(running),
        })
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

/// A started program: its child process and the thread that keeps the tail of its stderr.
struct Running {
    name: String,
    child: Child,
    stderr: Arc<Mutex<VecDeque<String>>>,
    tail: Option<JoinHandle<()>>,
    /// What the program was given and must not be quoted with: its passwords.
    hidden: Vec<Secret>,
    /// Keeps it in [`STARTED`].
    handle: Option<Arc<Handle>>,
}

/// A handle that means one child and, unlike its number, never another.
struct Handle {
    fd: OwnedFd,
    asked_to_end: AtomicBool,
}

/// The programs that run now.
static STARTED: Mutex<Vec<Weak<Handle>>> = Mutex::new(Vec::new());

/// Asks all programs that were started here to end. The work that waits for one of them goes on
/// with its failure, and cleans up.
pub fn end_all() {
    let started = STARTED.lock().map(|all| all.clone()).unwrap_or_default();
    for handle in started.iter().filter_map(Weak::upgrade) {
        handle.asked_to_end.store(true, Ordering::SeqCst);
        // Fails only when it has ended meanwhile.
        pidfd_send_signal(&handle.fd, Signal::TERM).ok();
    }
}

/// Kernels before 5.3 have no handles; there a program is only ended when it is dropped.
fn handle(child: &Child) -> Option<Arc<Handle>> {
    let handle = Arc::new(Handle {
        fd: pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok()?,
        asked_to_end: AtomicBool::new(false),
    });
    let mut started = STARTED.lock().ok()?;
    started.retain(|one| one.strong_count() > 0);
    started.push(Arc::downgrade(&handle));
    Some(handle)
}

impl Running {
    fn start(program: &Program, mut command: Command) -> Result<Running> {
        command.stderr(Stdio::piped());
        die_with_us(&mut command);
        let name = program.name();
        let mut child = command.spawn().map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let failure = Failure::because(format!("cannot start {name}"), error);
            if missing {
                failure.hint(format!("is {name} installed and on PATH?"))
            } else {
                failure
            }
        })?;
        let handle = handle(&child);
        let pipe = child.stderr.take().expect("stderr was asked for");
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&stderr);
        let tail = std::thread::spawn(move || keep_tail(pipe, &kept));
        Ok(Running {
            name,
            child,
            stderr,
            tail: Some(tail),
            hidden: program.passwords(),
            handle,
        })
    }

    fn wait(mut self) -> Result<()> {
        let status = self
            .child
            .wait()
            .or_fail(|| format!("cannot wait for {}", self.name))?;
        if let Some(tail) = self.tail.take() {
            // A thread that panicked has kept what it read until then.
            drop(tail.join());
        }
        let lines = self
            .stderr
            .lock()
            .map(|lines| lines.clone())
            .unwrap_or_default();
        let hide = |line: String| {
            let hidden = self.hidden.iter();
            hidden.fold(line, |line, secret| line.replace(secret.reveal(), "***"))
        };
        let said: Vec<String> = lines.into_iter().map(hide).collect();
        if status.success() {
            for line in &said {
                tracing::debug!(program = self.name, "{line}");
            }
            return Ok(());
        }
        let handle = self.handle.as_ref();
        if handle.is_some_and(|handle| handle.asked_to_end.load(Ordering::SeqCst)) {
            stop::check()?;
        }
        // Ctrl-C reaches the whole group: the program may be gone before we have heard of it.
        if matches!(status.signal(), Some(2 | 15)) {
            stop::pause(SIGNAL_LAG)?;
        }
        Err(Failure::because(
            format!("{} {}", self.name, ending(status)),
            ProgramError { status, said },
        ))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Given up half-way: the program must not go on alone. Both calls fail only when it has ended.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// How a program failed: its exit status and the last lines it said on stderr. Found in a
/// [`Failure`]'s chain by callers that know a program's messages.
#[derive(Debug)]
pub struct ProgramError {
    /// The status as the system gave it.
    pub status: ExitStatus,
    /// Its last lines on stderr, at most 40.
    pub said: Vec<String>,
}

impl std::fmt::Display for ProgramError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said.join("\n  "))
    }
}

impl std::error::Error for ProgramError {}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended badly".to_owned(),
    }
}

fn keep_tail(mut pipe: impl Read, kept: &Mutex<VecDeque<String>>) {
    let mut buffer = [0u8; 4096];
    let mut line: Vec<u8> = Vec::new();
    let push = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        if text.is_empty() {
            return;
        }
        if let Ok(mut lines) = kept.lock() {
            if lines.len() == STDERR_LINES {
                lines.pop_front();
            }
            lines.push_back(text);
        }
    };
    // An unreadable stderr ends the tail; the exit status still tells how the program ended.
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        for &byte in &buffer[..n] {
            if byte == b'\n' {
                push(&mut line);
            } else if line.len() < STDERR_LINE_BYTES {
                line.push(byte);
            }
        }
    }
    push(&mut line);
}

/// A larger pipe where the system grants one; with the default size it is only slower.
fn widen(pipe: impl std::os::fd::AsFd) {
    rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES).ok();
}

/// Asks the kernel to end the program when the thread that started it ends, by kill -9 too.
#[allow(unsafe_code)]
fn die_with_us(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec only two system calls are made; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // We may have ended between the fork and the call above.
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(3));
            }
            Ok(())
        });
    }
}

/// A program's output as a stream. Dropping it early ends the program.
pub struct ProgramReader {
    stdout: ChildStdout,
    stoppable: bool,
    running: Option<Running>,
}

impl ProgramReader {
    /// Waits until there is something to read, or until we are told to stop.
    fn wait_for_output(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        loop {
            stop::check().map_err(Failure::into_io)?;
            let mut ready = [PollFd::new(&self.stdout, PollFlags::IN)];
            match poll(&mut ready, Some(&STOP_LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
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
    stdin: Option<ChildStdin>,
    running: Option<Running>,
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
    running: Option<Running>,
}

impl Conversation {
    /// Closes both ends and waits for a good end.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        self.stdout = None;
        self.running.take().map_or(Ok(()), Running::wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_missing_program_is_named_with_a_hint() {
        let failure = Program::new("rg-no-such-program").reader().err().unwrap();
        assert_eq!(
            failure.hints(),
            ["is rg-no-such-program installed and on PATH?"]
        );
    }
}
