//! A program that runs: ended with us, asked to end by a signal, its exit status told with what it said.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Program;
use crate::failure::{Failure, OrFail, Result};
use crate::secret::Secret;
use crate::stop;

/// How many of a program's last lines on stderr are kept for the message about its failure.
const STDERR_LINES: usize = 40;
/// A line on stderr is kept up to this many bytes.
const STDERR_LINE_BYTES: usize = 2_000;
/// How much later than a program we may hear of a signal that was for both.
const SIGNAL_LAG: Duration = Duration::from_millis(300);

/// A started program: its child process and the thread that keeps the tail of its stderr.
pub(super) struct Running {
    name: String,
    pub(super) child: Child,
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
    pub(super) fn start(program: &Program, mut command: Command) -> Result<Running> {
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

    /// The program's name, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has not ended yet.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn wait(mut self) -> Result<()> {
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
