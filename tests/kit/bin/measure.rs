//! `kit-measure COMMAND…`: runs a command in this environment and prints `MILLISECONDS KIB` (time
//! from start to end, peak resident memory of the command itself) as the last line of standard
//! error. Its standard output is dropped; its exit code becomes ours.

#![allow(clippy::print_stderr, clippy::disallowed_methods)] // starts what it measures

use std::process::{Command, ExitCode};
use std::time::Duration;

use rg_tests::Tool;

/// A measured command may take this long.
const TIME_LIMIT: Duration = Duration::from_secs(4 * 3600);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(program) = args.next() else {
        eprintln!("usage: kit-measure COMMAND…");
        return ExitCode::from(2);
    };
    let shown = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(args);
    let output = Tool::new(command, shown).time_limit(TIME_LIMIT).run();
    eprint!("{}", output.err());
    eprintln!("{} {}", output.wall.as_millis(), output.rss_kib_max);
    ExitCode::from(u8::try_from(output.code()).unwrap_or(2))
}
