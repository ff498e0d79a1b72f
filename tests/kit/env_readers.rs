//! The real readers of env files, asked by one Python program for all cases at once.
//!
//! bash, dash, the xargs idiom, systemd's own parser, the docker client before a pretended daemon,
//! python-dotenv, pydantic-settings, npm's dotenv and node. docker compose is not installed for
//! this: its parser's answers to the same cases are recorded in `tests/fixtures/env/compose.json`
//! (compose-go 2.13.0).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::run::Tool;

/// What a reader gave for the names of a file; none when it refused the file.
pub type Answer = Option<BTreeMap<String, String>>;

/// A file whose values are asked for.
#[derive(Debug, Clone)]
pub struct EnvCase {
    /// The file's text.
    pub text: String,
    /// The names that are compared.
    pub names: Vec<String>,
    /// One line `K=…`: many of them can be asked as one file where a reader goes line by line.
    pub single: bool,
}

impl EnvCase {
    /// A file of one line for `K`.
    pub fn line(text: impl Into<String>) -> EnvCase {
        EnvCase {
            text: text.into(),
            names: vec!["K".to_owned()],
            single: true,
        }
    }
}

/// The hand-made cases, then each printable ASCII character at the start, in the middle and at
/// the end of a value, unquoted and in both quotes.
pub fn env_cases() -> Vec<EnvCase> {
    let by_hand: Vec<String> =
        serde_json::from_slice(&fixture("cases.json")).expect("a list of texts");
    let names = ["K", "A", "B"].map(str::to_owned);
    let by_hand = by_hand.into_iter().map(|text| EnvCase {
        text,
        names: names.to_vec(),
        single: false,
    });
    let mut cases: Vec<EnvCase> = by_hand.collect();
    for c in ' '..='~' {
        for value in [format!("{c}x"), format!("x{c}y"), format!("x{c}")] {
            for quote in ["", "'", "\""] {
                cases.push(EnvCase::line(format!("K={quote}{value}{quote}\n")));
            }
        }
    }
    cases
}

/// What docker compose's parser gave for the text of each of [`env_cases`].
pub fn recorded_compose() -> BTreeMap<String, Answer> {
    let recorded: Vec<(String, Answer)> =
        serde_json::from_slice(&fixture("compose.json")).expect("recorded answers");
    recorded.into_iter().collect()
}

/// Asks all readers; by the reader's id, its version and its answers in the cases' order.
pub fn ask_env_readers(cases: &[EnvCase]) -> BTreeMap<String, (String, Vec<Answer>)> {
    let tools = readers_dir();
    assert!(
        tools.join("node_modules/dotenv").exists(),
        "the readers of env files are not in {}: run tests/install.sh",
        tools.display()
    );
    let cases: Vec<Value> = cases
        .iter()
        .map(|case| json!({ "text": case.text, "names": case.names, "single": case.single }))
        .collect();
    let mut command = Command::new("python3");
    command.arg(fixtures().join("readers.py"));
    let asked = json!({ "cases": cases, "tools": tools });
    let output = Tool::new(command, "readers.py")
        .stdin(asked.to_string())
        .run()
        .ok();
    let answered = output.json();
    let answered = answered.as_object().expect("an object by reader");
    let by_reader = answered.iter().map(|(reader, said)| {
        let version = said["version"].as_str().unwrap_or_default().to_owned();
        let answers = serde_json::from_value(said["answers"].clone()).expect("answers");
        (reader.clone(), (version, answers))
    });
    by_reader.collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/env")
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The programs that judge what is rendered, below the folder of the readers: `server/usr/sbin/sshd`,
/// `python/bin/python`, `node_modules/…`.
#[track_caller]
pub fn judge(inside: &str) -> String {
    let path = readers_dir().join(inside);
    assert!(
        path.exists(),
        "{} is not there: run tests/install.sh",
        path.display()
    );
    path.to_string_lossy().into_owned()
}

/// Where `tests/install.sh` put them.
fn readers_dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), |dir| root.join(dir));
    let dir = target.join("env-readers");
    dir.canonicalize().unwrap_or(dir)
}
