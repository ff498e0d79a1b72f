//! Running a tool and looking at all that it did: status, both streams, time, memory.
//!
//! The promise: a run ends. After its time limit the whole process group is killed and the test
//! fails with everything that was printed so far.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A run that takes longer than this is killed, unless the test says otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// How often a running program's memory is read and its end looked for.
const SAMPLE_EVERY: Duration = Duration::from_millis(4);
/// How long the streams may stay open after the program's end, held by a process it left behind.
const STREAMS_LINGER: Duration = Duration::from_secs(10);

/// A program about to be run, in its own process group.
pub struct Tool {
    command: Command,
    shown: String,
    stdin: Option<Vec<u8>>,
    limit: Duration,
}

impl Tool {
    /// `command` with the environment that it already has; `shown` names it in messages.
    pub fn new(command: Command, shown: impl Into<String>) -> Self {
        Tool {
            command,
            shown: shown.into(),
            stdin: None,
            limit: TIME_LIMIT,
        }
    }

    /// One more variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Its working directory.
    #[must_use]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads on standard input; without this, standard input is empty.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// How long it may take (default two minutes).
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it and goes on.
    pub fn spawn(mut self) -> Running {
        self.command
            .stdin(if self.stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = self
            .command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", self.shown));
        if let (Some(bytes), Some(mut stdin)) = (self.stdin.take(), child.stdin.take()) {
            // A program may end without reading all of its input; that is its business.
            thread::spawn(move || stdin.write_all(&bytes).ok());
        }
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Mutex::new(State::default()));
        let watcher = {
            let shared = Arc::clone(&shared);
            let limit = self.limit;
            thread::spawn(move || watch(child, pid, limit, &shared))
        };
        Running {
            pid,
            shown: self.shown,
            limit: self.limit,
            stdout,
            stderr,
            state: shared,
            watcher: Some(watcher),
        }
    }
}

#[derive(Default)]
struct State {
    end: Option<(ExitStatus, Duration)>,
    over_time: bool,
    rss_kib_max: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(mut child: Child, pid: Pid, limit: Duration, shared: &Mutex<State>) {
    let start = Instant::now();
    loop {
        let rss = peak_rss_kib(pid);
        {
            // The end is seen and noted under the lock: nobody signals a number that is free again.
            let mut state = lock(shared);
            state.rss_kib_max = state.rss_kib_max.max(rss);
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                state.end = Some((status, start.elapsed()));
                return;
            }
            if start.elapsed() > limit && !state.over_time {
                state.over_time = true;
                kill_process_group(pid, Signal::KILL).ok();
            }
        }
        thread::sleep(SAMPLE_EVERY);
    }
}

/// `VmHWM` of a living process: its own peak, so that a sample between two peaks loses nothing.
fn peak_rss_kib(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// A stream as far as it has come, read by a thread of its own.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    fn from(stream: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let reader = stream.map(|mut stream| {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    lock(&bytes).extend_from_slice(&buffer[..count]);
                }
            })
        });
        Collected { bytes, reader }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&lock(&self.bytes)).into_owned()
    }

    fn all(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            let until = Instant::now() + STREAMS_LINGER;
            while !reader.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
        lock(&self.bytes).clone()
    }
}

/// A program that is running. Dropped, its whole process group is killed.
pub struct Running {
    pid: Pid,
    shown: String,
    limit: Duration,
    stdout: Collected,
    stderr: Collected,
    state: Arc<Mutex<State>>,
    watcher: Option<JoinHandle<()>>,
}

impl Running {
    /// Its process id, which is also that of its process group.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal to the program alone; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) {
        if lock(&self.state).end.is_none() {
            kill_process(self.pid, signal).ok();
        }
    }

    /// `kill -9`, to the program alone: what it started must notice by itself.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// True as long as it has not ended.
    pub fn is_running(&self) -> bool {
        lock(&self.state).end.is_none()
    }

    /// What it has written to standard error until now.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.so_far()
    }

    /// What it has written to standard output until now.
    pub fn stdout_so_far(&self) -> String {
        self.stdout.so_far()
    }

    /// Waits for its end. Over its time limit it is killed and the test fails.
    pub fn wait(mut self) -> Output {
        if let Some(watcher) = self.watcher.take() {
            watcher.join().expect("the watching thread does not panic");
        }
        let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
        let state = lock(&self.state);
        let (status, wall) = state.end.expect("the watcher ends with the program");
        let output = Output {
            shown: self.shown.clone(),
            status,
            stdout,
            stderr,
            wall,
            rss_kib_max: state.rss_kib_max,
        };
        assert!(
            !state.over_time,
            "killed after {:?}: {output:?}",
            self.limit
        );
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if lock(&self.state).end.is_none() {
            kill_process_group(self.pid, Signal::KILL).ok();
        }
        if let Some(watcher) = self.watcher.take() {
            watcher.join().ok();
        }
    }
}

/// What a run did. Its `Debug` form is everything, for the message of a failing test.
pub struct Output {
    /// The command line, for messages.
    pub shown: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
    /// From start to end.
    pub wall: Duration,
    /// The program's own peak of resident memory in KiB, without its children; 0 when it ended
    /// before the first look.
    pub rss_kib_max: u64,
}

impl Output {
    /// The exit code; 128 + N after signal N, as shells count.
    pub fn code(&self) -> i32 {
        match self.status.code() {
            Some(code) => code,
            None => 128 + self.status.signal().unwrap_or(0),
        }
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Demands exit code 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.fails(0)
    }

    /// Demands this exit code.
    #[track_caller]
    pub fn fails(self, code: i32) -> Self {
        assert!(self.code() == code, "wanted exit code {code}: {self:?}");
        self
    }

    /// Demands that standard error contains `text`.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.err().contains(text),
            "wanted {text:?} on standard error: {self:?}"
        );
        self
    }

    /// Standard output as one JSON document and nothing else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("standard output is not one JSON document ({error}): {self:?}"),
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "`{}` ended with {} after {:?}, {} KiB",
            self.shown, self.status, self.wall, self.rss_kib_max
        )?;
        writeln!(f, "--- stdout\n{}", self.out())?;
        write!(f, "--- stderr\n{}", self.err())
    }
}

/// Waits until `holds` does, looking every few milliseconds; false when `limit` passes first.
pub fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(SAMPLE_EVERY);
    }
}

/// The command line as a person would read it.
pub(crate) fn shown(program: &str, args: &[OsString]) -> String {
    let mut text = program.to_owned();
    for arg in args {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}
