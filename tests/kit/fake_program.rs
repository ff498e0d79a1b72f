//! Other people's programs that do what the test wants: note their arguments, then really run,
//! fail, die half-way or hang.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::postgres::Postgres;
use crate::run::Tool;
use crate::sandbox::Sandbox;

/// A program of a given name, first on the sandbox's `PATH`.
pub struct FakeProgram {
    name: String,
    log: PathBuf,
    script: PathBuf,
}

impl FakeProgram {
    /// Puts it there. Until told otherwise it succeeds silently.
    pub fn new(sandbox: &Sandbox, name: &str) -> Self {
        let fake = FakeProgram {
            name: name.into(),
            log: sandbox.path("calls").join(name),
            script: sandbox.path("bin").join(name),
        };
        fake.does("exit 0");
        fake
    }

    /// Notes its arguments, then does this (the body of a bash script; `"$@"` are the arguments).
    pub fn does(&self, body: &str) -> &Self {
        // One printf, one write: calls side by side do not mix. The count tells where one ends.
        let text = format!(
            "#!/bin/bash\nprintf '%s\\0' \"$#\" \"$@\" >>'{}'\n{body}\n",
            self.log.display()
        );
        // `install` writes the program, in a process of its own: were it open for writing here,
        // a child that another test forks at this moment would hold it open too, and starting it
        // would fail with `ETXTBSY`. The rename keeps a running script as it is.
        let (body, fresh) = (
            self.log.with_extension("body"),
            self.log.with_extension("new"),
        );
        fs::write(&body, text).expect("the fake program");
        let mut install = Command::new("install");
        install.args(["-m", "755"]).arg(body).arg(&fresh);
        Tool::new(install, "install").run().ok();
        fs::rename(&fresh, &self.script).expect("its name");
        self
    }

    /// Says `message` on standard error and ends with `code`.
    pub fn fails(&self, code: i32, message: &str) -> &Self {
        self.does(&format!(
            "printf '%s\\n' {} >&2\nexit {code}",
            quoted(message)
        ))
    }

    /// Really runs `program` with the same arguments, streams and status.
    pub fn runs(&self, program: impl AsRef<Path>) -> &Self {
        self.does(&format!("exec {} \"$@\"", path(program)))
    }

    /// Runs `program`, lets `bytes` of its output through, then ends with `code`.
    pub fn dies_after(&self, program: impl AsRef<Path>, bytes: u64, code: i32) -> &Self {
        let program = path(program);
        self.does(&format!("{program} \"$@\" | head -c {bytes}\nexit {code}"))
    }

    /// Runs `program`, lets `bytes` of its output through, then kills itself with SIGKILL.
    pub fn is_killed_after(&self, program: impl AsRef<Path>, bytes: u64) -> &Self {
        let program = path(program);
        self.does(&format!("{program} \"$@\" | head -c {bytes}\nkill -9 $$"))
    }

    /// Runs `program`, lets `bytes` of its output through, then says nothing more for an hour.
    pub fn hangs_after(&self, program: impl AsRef<Path>, bytes: u64) -> &Self {
        let program = path(program);
        self.does(&format!(
            "{program} \"$@\" | head -c {bytes}\nexec sleep 3600"
        ))
    }

    /// The arguments of each call until now, without the program's name.
    pub fn calls(&self) -> Vec<Vec<String>> {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_terminator('\0');
        let mut calls = Vec::new();
        while let Some(count) = words.next() {
            let count = count.parse().expect("a call begins with its count");
            calls.push(words.by_ref().take(count).map(str::to_owned).collect());
        }
        calls
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A `docker` (or `podman`) whose only running container is `container`, in which `cluster` is
/// the local server.
///
/// `exec [-i] [-e NAME[=VALUE]] [-u USER] [-w DIR] CONTAINER COMMAND…` really runs the command:
/// its status and streams; standard input only with `-i`; of the environment only what `-e` names,
/// `PATH`, `HOME` and the server's own address. Everything else fails in docker's words. One
/// difference: a killed `docker exec` here takes the command with it.
pub fn fake_docker(
    sandbox: &Sandbox,
    name: &str,
    container: &str,
    cluster: &Postgres,
) -> FakeProgram {
    let docker = FakeProgram::new(sandbox, name);
    docker.does(
        &DOCKER
            .replace("@CONTAINER@", &quoted(container))
            .replace("@BIN@", &path(cluster.bin()))
            .replace("@HOST@", &path(cluster.socket_dir()))
            .replace("@PORT@", &cluster.port().to_string()),
    );
    docker
}

const DOCKER: &str = r#"
say() { printf '%s\n' "$*" >&2; }
if [ "$1" != exec ]; then
    say "docker: unknown command: docker $1"; say; say "Run 'docker --help' for more information"
    exit 1
fi
shift
stdin=closed; named=(PATH HOME)
while [ $# -gt 0 ]; do
    case $1 in
        -i|--interactive) stdin=open ;;
        -e|--env) shift
            case $1 in
                *=*) export "$1" ; named+=("${1%%=*}") ;;
                *) named+=("$1") ;;
            esac ;;
        --env=*=*) export "${1#--env=}"; one=${1#--env=}; named+=("${one%%=*}") ;;
        --env=*) named+=("${1#--env=}") ;;
        -u|--user|-w|--workdir) shift ;;
        -t|-it|-ti|--tty) say "the input device is not a TTY"; exit 1 ;;
        -*) say "unknown flag: $1"; exit 125 ;;
        *) break ;;
    esac
    shift
done
if [ $# -lt 2 ]; then say '"docker exec" requires at least 2 arguments.'; exit 1; fi
container=$1; shift
if [ "$container" != @CONTAINER@ ]; then
    say "Error response from daemon: No such container: $container"; exit 1
fi
for variable in $(compgen -e); do
    case " ${named[*]} " in *" $variable "*) ;; *) unset "$variable" ;; esac
done
export PATH=@BIN@:/usr/bin:/bin
[ -n "$PGHOST" ] || export PGHOST=@HOST@
[ -n "$PGPORT" ] || export PGPORT=@PORT@
if ! type -P -- "$1" >/dev/null; then
    printf '%s' 'OCI runtime exec failed: exec failed: unable to start container process: exec: ' >&2
    say "\"$1\": executable file not found in \$PATH: unknown"; exit 127
fi
if [ $stdin = open ]; then exec "$@"; else exec "$@" </dev/null; fi
"#;

fn path(path: impl AsRef<Path>) -> String {
    quoted(&path.as_ref().to_string_lossy())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
