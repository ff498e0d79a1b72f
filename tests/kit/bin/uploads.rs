//! `kit-uploads COUNT DIR`: writes a tree of COUNT upload files below DIR.

#![allow(clippy::print_stderr)] // a program for the shell scripts of the demo

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, dir] = args.as_slice() else {
        eprintln!("usage: kit-uploads COUNT DIR");
        return ExitCode::from(2);
    };
    let Ok(count) = count.parse() else {
        eprintln!("kit-uploads: {count} is not a number of files");
        return ExitCode::from(2);
    };
    match rg_tests::write_uploads(Path::new(dir), count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kit-uploads: cannot write below {dir}: {error}");
            ExitCode::from(2)
        }
    }
}
