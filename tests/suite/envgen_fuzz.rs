//! rg-envgen on files that nobody would write: whatever lies there, it ends with one of its three
//! exit codes, says no secret, and `write` keeps what a person wrote. `RG_TEST_ROUNDS` multiplies.

use std::collections::BTreeMap;
use std::fs;

use rg_common::env_file::EnvFile;
use rg_tests::{Chance, Output, Sandbox, rounds, sandbox};

const KEY: &str = "sk-proj-0a1b2c3d4e5f6g7h8i9j";
/// What damage is made of, beside single bytes.
const STRANGE: [&[u8]; 14] = [
    b"\"",
    b"'",
    b"=",
    b"\r\n",
    b"\\",
    b"${",
    b"#",
    b"\xff\xfe",
    b"\0",
    b"[[",
    b"export ",
    b"\xef\xbb\xbf",
    b"\n\n",
    b"99999999999999999999",
];

fn envgen(place: &Sandbox, args: &[&str]) -> Output {
    let args = ["--config", "d/rg.toml"].iter().chain(args);
    place.run("rg-envgen", args)
}

fn deployment() -> Sandbox {
    let place = sandbox!();
    let args = [
        "init",
        "--profile",
        "toolkitrag",
        "--dir",
        "d",
        "--set-from",
        "-",
    ];
    let given = format!("OPENAI_API_KEY={KEY}\nDOMAIN=a.org\nADMIN_MAIL=ops@acme.org\n");
    place.tool("rg-envgen", args).stdin(given).run().ok();
    place
}

fn one<'a, T: ?Sized>(chance: &mut Chance, of: &[&'a T]) -> &'a T {
    of[chance.below(of.len() as u64) as usize]
}

/// Some bytes changed, cut out, put in or doubled.
fn damaged(chance: &mut Chance, text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..1 + chance.below(4) {
        let at = chance.below(text.len() as u64 + 1) as usize;
        let end = (at + chance.below(60) as usize).min(text.len());
        match chance.below(5) {
            0 if at < text.len() => text[at] = chance.bits() as u8,
            1 => drop(text.drain(at..end)),
            2 => text.truncate(at),
            3 => {
                let again = text[at..end].to_vec();
                text.splice(at..at, again);
            }
            _ => {
                let strange: &[u8] = one(chance, &STRANGE);
                text.splice(at..at, strange.iter().copied());
            }
        }
    }
    text
}

#[test]
fn whatever_lies_in_the_files_no_command_panics_or_tells_a_secret() {
    let place = deployment();
    place.write("pass", "correct horse battery staple\n");
    let args = ["export", "-o", "kit.age", "--passphrase-file", "pass"];
    envgen(&place, &args).ok();
    let names = ["d/.env", "d/rg.toml", "d/env.schema.toml", "kit.age"];
    let sound = names.map(|name| fs::read(place.path(name)).expect(name));
    let secrets: Vec<String> = ["SECRET_KEY", "CSRF_SECRET_KEY"]
        .map(|name| value(&place.read("d/.env"), name))
        .into();
    let mut chance = Chance::new();
    for round in 0..rounds(24) {
        for (name, content) in names.iter().zip(&sound) {
            place.write(name, content);
        }
        // The kit is slow to open by its design: seldom.
        let which = if round % 12 == 11 {
            3
        } else {
            chance.below(3) as usize
        };
        let bad = damaged(&mut chance, &sound[which]);
        place.write(names[which], &bad);
        let commands: &[&[&str]] = match which {
            3 => &[&[
                "import",
                "kit.age",
                "--passphrase-file",
                "pass",
                "--dir",
                "new",
                "--dry-run",
            ]],
            _ => &[
                &["check"],
                &["check", "--format", "sarif"],
                &["check", "--explain", "SECRET_KEY"],
                &["check", "--fix"],
                &["diff", "production"],
                &["render", "systemd"],
                &["show", "DATABASE_URL"],
                &["write"],
            ],
        };
        for command in commands {
            let output = envgen(&place, command);
            let said = output.out() + &output.err();
            let context = || {
                format!(
                    "{} with {}: {bad:?}\n{said}",
                    command.join(" "),
                    names[which]
                )
            };
            assert!(matches!(output.code(), 0..=2), "{}", context());
            assert!(!said.contains("panicked"), "{}", context());
            // Where the damage cut a secret's name off, it may be quoted as what it looks like.
            if which != 0 {
                for secret in secrets.iter().map(String::as_str).chain([KEY]) {
                    assert!(!said.contains(secret), "{}", context());
                }
            }
        }
    }
}

fn value(text: &str, name: &str) -> String {
    let file = EnvFile::parse(text).expect("an env file");
    file.get(name).expect(name).reveal().to_owned()
}

/// Lines as people write them, in any order, with what is theirs in between.
fn by_hand(chance: &mut Chance) -> String {
    let secret = |chance: &mut Chance| {
        format!(
            "{:016x}{:016x}{:016x}",
            chance.bits(),
            chance.bits(),
            chance.bits()
        )
    };
    let end = one(chance, &["\n", "\n", "\r\n"]);
    let mut names = vec![
        "SECRET_KEY",
        "CSRF_SECRET_KEY",
        "LOG_LEVEL",
        "MY_OWN",
        "RAG_TOP_K",
        "SESSION_MAX_AGE",
        "OPENAI_API_KEY",
        "OTHER_1",
    ];
    let mut text = String::new();
    for _ in 0..chance.below(14) {
        let before = one(chance, &["", "", "", "export ", "  "]);
        let after = one(chance, &["", "", "", " # mine", "   "]);
        match chance.below(5) {
            0 => {
                text += one(
                    chance,
                    &["", "# a comment", "#KEY=old", "  # indented", "\t"],
                )
            }
            1 => {
                text += one(
                    chance,
                    &[
                        "QUOTED_1='a b'",
                        "QUOTED_2=\"a \\\"b\\\" c\"",
                        "EMPTY=",
                        "URL=https://a.org/?b=c#d",
                    ],
                )
            }
            _ if names.is_empty() => {}
            _ => {
                let name = names.remove(chance.below(names.len() as u64) as usize);
                let value = match name {
                    "LOG_LEVEL" => "DEBUG".to_owned(),
                    "RAG_TOP_K" | "SESSION_MAX_AGE" => (60 + chance.below(900)).to_string(),
                    _ => secret(chance),
                };
                let quote = one(chance, &["", "", "'", "\""]);
                text += &format!("{before}{name}={quote}{value}{quote}{after}");
            }
        }
        text += end;
    }
    if chance.below(4) == 0 {
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
    }
    text
}

#[test]
fn what_was_written_by_hand_stays_and_a_second_write_changes_no_byte() {
    let place = deployment();
    let mut chance = Chance::new();
    let mut refused = 0;
    for _ in 0..rounds(40) {
        let before = by_hand(&mut chance);
        place.write("d/.env", &before);
        let first = envgen(&place, &["write"]);
        let after = place.read("d/.env");
        let context = format!("{before:?}\n{after:?}\n{}", first.err());
        if first.code() == 2 {
            assert_eq!(after, before, "{context}");
            refused += 1;
            continue;
        }
        let old = EnvFile::parse(&before).expect("what was read by the tool");
        let new = EnvFile::parse(&after).expect("what the tool wrote");
        for name in old.names().filter(|name| *name != "DATABASE_URL") {
            assert_eq!(new.get(name), old.get(name), "{name}: {context}");
        }
        // Every line of theirs, in their order.
        let mut lines = after.lines();
        for line in before
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
        {
            let found = lines.any(|one| one.trim_end() == line);
            assert!(found, "{line:?} is gone or moved: {context}");
        }
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        new.names()
            .for_each(|name| *counts.entry(name).or_default() += 1);
        assert!(counts.values().all(|count| *count == 1), "{context}");
        let second = envgen(&place, &["write"]);
        assert_eq!(second.code(), first.code(), "{context}");
        assert_eq!(place.read("d/.env"), after, "{context}");
    }
    assert!(refused < rounds(40) / 2, "{refused} were refused");
}
