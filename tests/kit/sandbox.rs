//! A place of its own for each test: configuration, state, programs on its own `PATH`.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::run::{Output, Running, Tool, shown};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory under `RG_TEST_TMP` (else `/tmp`), mode 0755 so that a server under another user
/// can reach into it; removed at the end, kept and named when the test panics.
pub struct Sandbox {
    root: PathBuf,
    driver: PathBuf,
}

/// A new [`Sandbox`] that runs the tools Cargo built for this suite.
#[macro_export]
macro_rules! sandbox {
    () => {
        $crate::Sandbox::new(env!("CARGO_BIN_EXE_rg-driver"))
    };
}

impl Sandbox {
    /// A new, empty place; `driver` is the program behind which all tools stand. Tests say
    /// `sandbox!()`.
    pub fn new(driver: impl Into<PathBuf>) -> Self {
        let name: String = std::thread::current()
            .name()
            .unwrap_or("main")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .take(60)
            .collect();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = tmp_dir().join(format!("rg-test-{}-{number}-{name}", std::process::id()));
        fs::create_dir(&root)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", root.display()));
        fs::set_permissions(&root, Permissions::from_mode(0o755)).expect("mode of the sandbox");
        for dir in ["bin", "home", "state", "store", "calls"] {
            fs::create_dir(root.join(dir)).expect("a directory in the sandbox");
        }
        Sandbox {
            root,
            driver: driver.into(),
        }
    }

    /// The place itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The program behind which all tools stand.
    pub fn driver(&self) -> &Path {
        &self.driver
    }

    /// A path inside.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Writes a file inside, with the directories that it needs.
    pub fn write(&self, relative: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("directories in the sandbox");
        }
        fs::write(&path, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// The text of a file inside.
    #[track_caller]
    pub fn read(&self, relative: impl AsRef<Path>) -> String {
        let path = self.path(relative);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// All files below a directory inside, relative to it, sorted; empty when it does not exist.
    pub fn files(&self, relative: impl AsRef<Path>) -> Vec<String> {
        let top = self.path(relative);
        let mut found = Vec::new();
        let mut open = vec![top.clone()];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten() {
                let entry = entry.expect("an entry of a directory in the sandbox");
                if entry.file_type().expect("its type").is_dir() {
                    open.push(entry.path());
                } else {
                    let path = entry.path();
                    let inside = path.strip_prefix(&top).expect("below the top");
                    found.push(inside.to_string_lossy().into_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// A store's disk is lost, and the operator says that an empty one takes its place.
    pub fn lose_store(&self, name: &str, folder: &str) {
        let memory = self.path(format!("state/stores/{name}.json"));
        fs::remove_file(&memory).expect("the mark of a store that was written");
        fs::remove_dir_all(self.path(folder)).expect("the store");
    }

    /// The command lines of all processes that work in this place (their working directory is
    /// inside): what a tool that has ended has left behind.
    pub fn leftovers(&self) -> Vec<String> {
        let found = processes_in(&self.root).into_iter();
        found.map(|(_, command_line)| command_line).collect()
    }

    /// Writes `rg.toml`. `{root}` in it becomes this place; `host` and `state` are put in front
    /// when the text does not set them.
    pub fn config(&self, toml: &str) -> PathBuf {
        let mut text = String::new();
        let sets = |key: &str| {
            let mut lines = toml.lines().take_while(|line| !line.starts_with('['));
            lines.any(|line| line.split('=').next().map(str::trim) == Some(key))
        };
        if !sets("host") {
            text.push_str("host = \"test-host\"\n");
        }
        if !sets("state") {
            text.push_str("state = \"{root}/state\"\n");
        }
        text.push_str(toml);
        self.write(
            "rg.toml",
            text.replace("{root}", &self.root.to_string_lossy()),
        )
    }

    /// From now on the programs in this folder come before the machine's own, though after fakes.
    pub fn put_on_path(&self, folder: &Path) {
        std::os::unix::fs::symlink(folder, self.path("programs")).expect("a link in the sandbox");
    }

    /// One of the six tools, ready to run: in a clean environment (`PATH` with the fake programs
    /// first, `HOME` inside, `RG_CONFIG` when `rg.toml` is written; nothing else is inherited).
    pub fn tool<I, S>(&self, tool: &str, args: I) -> Tool
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let mut command = self.command(&self.driver);
        command.arg(tool).args(&args);
        Tool::new(command, shown(tool, &args))
    }

    /// Any program, in the same clean environment.
    pub fn program<I, S>(&self, program: &str, args: I) -> Tool
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let mut command = self.command(Path::new(program));
        command.args(&args);
        Tool::new(command, shown(program, &args))
    }

    /// A program in a mount namespace of its own, in which the shell has run `script` first: it gets
    /// `words` and shifts away all but the program and its arguments. An ordinary user may mount in a
    /// user namespace as its root; a second one inside gives the program the user's own id back.
    pub fn behind<I, S>(&self, script: &str, words: I) -> Tool
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let (mut first, last) = match uid.is_root() {
            true => (vec![], "exec \"$@\"".to_owned()),
            false => (
                vec!["--user", "--map-root-user"],
                format!("exec unshare --user --map-user={uid} --map-group={gid} -- \"$@\""),
            ),
        };
        let script = format!("{script}\n{last}");
        first.extend(["--mount", "sh", "-c", &script, "behind"]);
        words
            .into_iter()
            .fold(self.program("unshare", first), |tool, word| {
                tool.arg(word.into())
            })
    }

    fn command(&self, program: &Path) -> Command {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(self.path("programs"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("LANG", "C.UTF-8")
            .current_dir(&self.root);
        let config = self.path("rg.toml");
        if config.exists() {
            command.env("RG_CONFIG", config);
        }
        command
    }

    /// Runs a tool to its end.
    pub fn run<I, S>(&self, tool: &str, args: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.tool(tool, args).run()
    }

    /// Starts a tool in the background.
    pub fn spawn<I, S>(&self, tool: &str, args: I) -> Running
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        self.tool(tool, args).spawn()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for (pid, command_line) in processes_in(&self.root) {
            eprintln!("left behind, killed: {command_line}");
            kill_process(pid, Signal::KILL).ok();
        }
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.root.display());
        } else if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("cannot remove {}: {error}", self.root.display());
        }
    }
}

/// Processes whose working directory is `root` or below, zombies aside.
fn processes_in(root: &Path) -> Vec<(Pid, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let cwd = fs::read_link(entry.path().join("cwd"));
        if let (Some(pid), true) = (
            Pid::from_raw(pid),
            cwd.is_ok_and(|cwd| cwd.starts_with(root)),
        ) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// Where the suite puts its things.
pub(crate) fn tmp_dir() -> PathBuf {
    std::env::var_os("RG_TEST_TMP").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}
