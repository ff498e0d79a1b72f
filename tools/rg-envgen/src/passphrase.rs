//! A passphrase from a file's first line or from the terminal, never from an argument.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use age::secrecy::SecretString;
use rg_common::{Failure, OrFail, Result};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::place;

/// A passphrase has at least so many characters.
const LENGTH_MIN: usize = 8;

/// The first line of a file.
pub fn from_file(path: &Path) -> Result<SecretString> {
    let text = place::read(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::new(format!(
            "the first line of {} is empty",
            path.display()
        )));
    }
    Ok(SecretString::from(line.to_owned()))
}

/// Asks on the terminal, without showing what is typed; twice for a new one.
pub fn asked(new: bool) -> Result<SecretString> {
    let first = ask("Passphrase: ")?;
    if new {
        if first.chars().count() < LENGTH_MIN {
            return Err(Failure::new(format!(
                "the passphrase has fewer than {LENGTH_MIN} characters"
            ))
            .hint("six random words are easy to write down and hard to guess"));
        }
        if ask("The same again: ")? != first {
            return Err(Failure::new("the two passphrases differ"));
        }
    }
    Ok(SecretString::from(first))
}

fn ask(question: &str) -> Result<String> {
    let what = || "cannot ask for a passphrase on the terminal".to_owned();
    let mut terminal = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(|error| {
            Failure::because(what(), error).hint("--passphrase-file FILE takes it from a file")
        })?;
    terminal.write_all(question.as_bytes()).or_fail(what)?;
    let before = tcgetattr(&terminal).or_fail(what)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent).or_fail(what)?;
    let mut line = String::new();
    let read = BufReader::new(&terminal).read_line(&mut line);
    tcsetattr(&terminal, OptionalActions::Flush, &before).or_fail(what)?;
    terminal.write_all(b"\n").or_fail(what)?;
    read.or_fail(what)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
