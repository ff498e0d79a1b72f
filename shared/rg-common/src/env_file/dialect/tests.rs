//! The measured table, cell by cell, and the tiers as properties. The real readers are asked by
//! the suite `envgen_check_readers`.

use proptest::prelude::*;

use super::tier::{Tier, Unwritable, render, tier};
use super::{ALL, Reader, Seen, TroubleKind};

fn seen(reader: Reader, text: &str) -> String {
    match reader.read(text.as_bytes()).seen("K") {
        Seen::Value(value) => value,
        Seen::Depends(_) => "(depends)".to_owned(),
        Seen::Missing(_) => "(missing)".to_owned(),
    }
}

/// Compose, systemd, bash, xargs, docker run, python-dotenv, node dotenv.
#[track_caller]
fn row(text: &str, wanted: [&str; 7]) {
    let readers = [
        Reader::Compose,
        Reader::Systemd,
        Reader::Bash,
        Reader::Xargs,
        Reader::DockerRun,
        Reader::PythonDotenv,
        Reader::NodeDotenv,
    ];
    assert_eq!(readers.map(|reader| seen(reader, text)), wanted, "{text:?}");
}

#[test]
fn each_reader_reads_the_measured_table_as_it_really_does() {
    const GONE: &str = "(missing)";
    const DEP: &str = "(depends)";
    let all = |value| [value; 7];
    row("K=a$b", ["a", "a$b", "a", "a$b", "a$b", "a$b", "a$b"]);
    row(
        "K=a${b}c",
        ["ac", "a${b}c", "ac", "a${b}c", "a${b}c", "ac", "a${b}c"],
    );
    row(
        "K=a$$b",
        ["a$b", "a$$b", DEP, "a$$b", "a$$b", "a$$b", "a$$b"],
    );
    row(
        "K='a$b'",
        ["a$b", "a$b", "a$b", "a$b", "'a$b'", "a$b", "a$b"],
    );
    let braces = "a${b}c";
    row(
        "K='a${b}c'",
        [braces, braces, braces, braces, "'a${b}c'", "ac", braces],
    );
    row(
        r#"K="a\$b""#,
        ["a$b", "a$b", "a$b", r"a\$b", r#""a\$b""#, r"a\$b", r"a\$b"],
    );
    row(
        "K=\"a$b\"",
        ["a", "a$b", "a", "a$b", "\"a$b\"", "a$b", "a$b"],
    );
    row("K=a#b", ["a#b", "a#b", "a#b", "a#b", "a#b", "a#b", "a"]);
    row("K=a #b", ["a", "a #b", "a", "a", "a #b", "a", "a"]);
    row(
        "K=\"a\" # c",
        ["a", "a# c", "a", "a", "\"a\" # c", "a", "a"],
    );
    row("K=a b", ["a b", "a b", GONE, "a", "a b", "a b", "a b"]);
    row("K='a b'", ["a b", "a b", "a b", "a", "'a b'", "a b", "a b"]);
    row(
        "K=a`b`c",
        ["a`b`c", "a`b`c", DEP, "a`b`c", "a`b`c", "a`b`c", "a`b`c"],
    );
    row(r"K=a\b", [r"a\b", "ab", "ab", "ab", r"a\b", r"a\b", r"a\b"]);
    row(
        r"K=a\$b",
        [r"a\", "a$b", "a$b", "a$b", r"a\$b", r"a\$b", r"a\$b"],
    );
    let (kept, back) = (r"a\b", "a\u{8}");
    row(
        r#"K="a\b""#,
        [back, kept, kept, kept, r#""a\b""#, back, kept],
    );
    row(
        r#"K="a\nb""#,
        [
            "a\nb",
            r"a\nb",
            r"a\nb",
            r"a\nb",
            r#""a\nb""#,
            "a\nb",
            "a\nb",
        ],
    );
    row(
        r"K='a\\b'",
        [
            r"a\\b", r"a\\b", r"a\\b", r"a\\b", r"'a\\b'", r"a\b", r"a\\b",
        ],
    );
    row(
        "K='a\nb'",
        ["a\nb", "a\nb", "a\nb", GONE, "'a", "a\nb", "a\nb"],
    );
    row("K=~/x", ["~/x", "~/x", DEP, "~/x", "~/x", "~/x", "~/x"]);
    row("K= a", ["a", "a", GONE, "", " a", "a", "a"]);
    row("export K=v", ["v", GONE, "v", "v", GONE, "v", "v"]);
    row("\u{feff}K=v", ["v", GONE, GONE, GONE, "v", "v", "v"]);
    row("K=v\r\n", ["v", "v", "v\r", "v\r", "v", "v", "v"]);
    row("; c\nK=v", [GONE, "v", GONE, "v", GONE, "v", "v"]);
    row("# c \\\nK=v", ["v", GONE, "v", "v", "v", "v", "v"]);
    row(
        "K=[\"a\",\"b\"]",
        [
            "[\"a\",\"b\"]",
            "[\"a\",\"b\"]",
            "[a,b]",
            "[a,b]",
            "[\"a\",\"b\"]",
            "[\"a\",\"b\"]",
            "[\"a\",\"b\"]",
        ],
    );
    row("K=1\nK=2", all("2"));
    assert_eq!(seen(Reader::Systemd254, "# c \\\nK=v"), "v");
    assert_eq!(seen(Reader::NodeEnvFile, "\u{feff}K=v"), "(missing)");
}

#[test]
fn a_line_that_a_shell_would_run_is_said_to_run() {
    for text in [
        "K=a b", "K=a;b", "K=a&b", "K=a|b", "K=a`b`", "K=$(b)", "K= a",
    ] {
        let reading = Reader::Bash.read(text.as_bytes());
        let runs = reading.troubles.iter().any(|t| t.kind == TroubleKind::Runs);
        assert!(runs, "{text}: {reading:?}");
    }
    assert_eq!(Reader::Bash.read(b"K='a b' # c\n").troubles, []);
}

#[test]
fn one_bad_line_refuses_the_whole_file_where_the_reader_does() {
    for reader in [Reader::Compose, Reader::DockerRun] {
        let reading = reader.read(b"A=1\na b=2\n");
        assert_eq!(reading.value("A"), None);
        assert_eq!(reading.refused.unwrap().line, 2, "{reader:?}");
    }
    assert_eq!(Reader::Bash.read(b"A=1\nB='2\n").value("A"), Some("1"));
}

#[test]
fn binary_content_is_refused_or_not_judged() {
    for reader in ALL {
        for bytes in [&b"K=a\0b"[..], b"K=\xff"] {
            let reading = reader.read(bytes);
            assert_eq!(reading.value("K"), None, "{reader:?}");
            assert!(reading.refused.is_some() || reading.unknown.is_some());
        }
    }
}

#[test]
fn values_get_the_safest_way_to_be_written() {
    let line = |value: &str| render("K", value).unwrap();
    assert_eq!(line(""), "K=");
    assert_eq!(
        line("postgresql+asyncpg://u:p%40@127.0.0.1:5432/d"),
        "K=postgresql+asyncpg://u:p%40@127.0.0.1:5432/d"
    );
    assert_eq!(line("a $b #c"), "K='a $b #c'");
    assert_eq!(line("[\"a\"]"), "K='[\"a\"]'");
    assert_eq!(line("it's"), "K=\"it's\"");
    assert_eq!(tier("a\\b"), Err(Unwritable::Backslash));
    assert_eq!(tier("a\nb"), Err(Unwritable::Control));
    assert_eq!(tier("a${b"), Err(Unwritable::Expansion));
    assert_eq!(tier("'\""), Err(Unwritable::Quotes));
    assert_eq!(tier("a\u{a0}b"), Err(Unwritable::Unmeasured));
    let failure = render("K", "sup\\er").unwrap_err();
    assert_eq!(
        failure.to_string(),
        "K cannot be written so that every reader gets the same, because of a backslash"
    );
    assert_eq!(Tier::Everywhere.readers().count(), ALL.len());
    assert_eq!(Tier::SingleQuotes.readers().count(), ALL.len() - 2);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_by_every_reader_of_its_tier(value in "[ -~üß日]{0,24}") {
        if let Ok(tier) = tier(&value) {
            let text = format!("A=1\n{}\nB=2\n", render("K", &value).unwrap());
            for reader in tier.readers() {
                let reading = reader.read(text.as_bytes());
                prop_assert_eq!(reading.value("K"), Some(value.as_str()), "{:?}", reader);
                prop_assert_eq!(reading.value("A"), Some("1"));
                prop_assert_eq!(reading.value("B"), Some("2"));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for reader in ALL {
            reader.read(&bytes);
        }
    }

    #[test]
    fn no_text_of_special_characters_makes_a_reader_panic(text in "[K=a '\"\\\\$`{}()#;:&|<>~\n\r\t\u{feff}ü-]{0,40}") {
        for reader in ALL {
            reader.read(text.as_bytes());
        }
    }
}
