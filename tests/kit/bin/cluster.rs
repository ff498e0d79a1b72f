//! `kit-cluster [NAME=VALUE…]`: starts a private PostgreSQL, prints how to reach it as shell
//! assignments, and holds it until its standard input ends. Settings are those of
//! `postgresql.conf`; `fsync=on` makes it write through as a real server does, `major=18` takes a server
//! that `tests/majors.sh` fetched.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for the shell scripts of the demo

use std::io::{Read, Write};
use std::process::ExitCode;

use rg_tests::Postgres;

fn main() -> ExitCode {
    let mut setup = Postgres::setup();
    for arg in std::env::args().skip(1) {
        match arg.split_once('=') {
            Some(("fsync", "on")) => setup = setup.fsync(),
            Some(("major", major)) => match major.parse() {
                Ok(major) => setup = setup.major(major),
                Err(_) => return usage(),
            },
            Some((name, value)) => setup = setup.setting(name, value),
            None => return usage(),
        }
    }
    let cluster = setup.start();
    println!(
        "PGHOST=127.0.0.1 PGPORT={} PGUSER=postgres PGPASSWORD={} server_pid={} server_dir='{}' server_bin='{}'",
        cluster.port(),
        cluster.password("postgres"),
        cluster.pid(),
        cluster.socket_dir().display(),
        cluster.bin().display(),
    );
    std::io::stdout().flush().ok();
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: kit-cluster [major=N] [NAME=VALUE…]");
    ExitCode::from(2)
}
