//! Dumps that are cut, altered, hostile, or of a shape whose rows cannot be counted.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::built::{Built, archive, chunk, int};
use super::{content, expected, fixture, parse};
use crate::dump::{DumpParser, InventoryReader, RowSink};

const COPY: &str = "COPY s.t (a) FROM stdin;\n";

/// The words of the failure, without where it happened.
fn refused(dump: &[u8]) -> String {
    match parse(dump, 1 << 16) {
        Ok(inventory) => panic!("taken for complete: {inventory:?}"),
        Err(failure) => failure.to_string(),
    }
}

fn plain(body: &str) -> String {
    format!(
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\
         -- Dumped by pg_dump version 15.18\n\nSET client_encoding = 'UTF8';\n{body}\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    )
}

#[test]
fn what_is_no_dump_is_said_to_be_what_it_is() {
    assert_eq!(refused(b""), "the dump is empty");
    assert!(refused(b"PGDMP").contains("ends after a few bytes"));
    assert!(
        refused(b"\x1f\x8b\x08 and so on")
            .contains("this is gzip-compressed, not a plain or custom dump")
    );
    assert!(refused(b"toc.dat\0\0\0").contains("tar format"));
    assert_eq!(
        refused(b"SELECT 1;\n"),
        "this is not a dump: it lacks pg_dump's heading"
    );
    assert!(
        refused(b"--\n-- PostgreSQL database cluster dump\n--\n")
            .contains("a dump of a whole cluster by pg_dumpall")
    );
    assert!(refused(&archive(17, 0, &[])).contains("archive version 1.17 is not known here"));
    let mut tar = archive(14, 0, &[]);
    tar[10] = 3;
    assert!(refused(&tar).contains("an archive of format 3"));
}

#[test]
fn a_block_that_is_missing_foreign_or_double_is_an_error() {
    let whole = Built::table(7, "t", COPY, b"1\n\\.\n\n\n");
    assert!(parse(&archive(14, 0, std::slice::from_ref(&whole)), 9).is_ok());

    let empty = Built::table(8, "u", "COPY s.u (a) FROM stdin;", b"\\.\n");
    let mut lacking = archive(14, 0, &[whole.clone(), empty.clone()]);
    lacking.truncate(lacking.len() - empty.block.unwrap().len());
    assert_eq!(
        refused(&lacking),
        "the dump is incomplete: the data of 1 entries are missing, the first is `s.u`"
    );

    let mut double = archive(14, 0, std::slice::from_ref(&whole));
    double.extend(whole.block.iter().flatten());
    assert!(refused(&double).contains("belongs to no entry or comes twice (dump id 7)"));

    let mut as_large_objects = whole.clone();
    as_large_objects.block.as_mut().unwrap()[0] = 3;
    assert!(
        refused(&archive(14, 0, &[as_large_objects])).contains("`s.t` are in a block of kind 3")
    );

    let mut garbage = archive(14, 0, std::slice::from_ref(&whole));
    garbage.push(0);
    assert!(refused(&garbage).contains("it ends within a block of data"));
}

#[test]
fn rows_without_a_closing_line_or_with_something_behind_it_are_an_error() {
    for (text, words) in [
        (&b"1\n2\n"[..], "the rows of `s.t` have no closing line"),
        (b"1\n\\.", "the rows of `s.t` have no closing line"),
        (b"1\n\\.\n3\n", "rows go on behind their closing line"),
    ] {
        let dump = archive(14, 0, &[Built::table(7, "t", COPY, text)]);
        assert!(refused(&dump).contains(words), "{}", refused(&dump));
    }
}

#[test]
fn every_layout_from_1_12_to_1_16_is_read() {
    for minor in 12..=16 {
        let mut sequence = Built::table(9, "q", "", b"");
        sequence.kind = "SEQUENCE SET";
        sequence.definition = "SELECT pg_catalog.setval('s.q', 12, true);\n";
        sequence.block = None;
        let dump = archive(
            minor,
            0,
            &[Built::table(7, "t", COPY, b"1\n2\n\\.\n\n\n"), sequence],
        );
        for piece in 1..40 {
            let inventory = parse(&dump, piece).unwrap();
            assert_eq!(inventory.archive_version, Some(format!("1.{minor}")));
            assert_eq!(inventory.database.as_deref(), Some("shop"));
            assert_eq!(inventory.tables[0].rows, 2);
            assert_eq!(inventory.sequences[0].last_value, 12);
            assert_eq!(inventory.objects["TABLE DATA"], 1);
        }
    }
}

#[test]
fn chunks_of_no_sensible_length_reserve_no_memory() {
    let mut table = Built::table(7, "t", COPY, b"");
    let mut block = vec![1];
    int(&mut block, 7);
    int(&mut block, i64::from(u32::MAX));
    block.extend(b"1\n");
    table.block = Some(block);
    assert!(refused(&archive(14, 0, &[table.clone()])).contains("ends within a block of data"));

    let mut block = vec![1];
    int(&mut block, 7);
    int(&mut block, -1);
    table.block = Some(block);
    assert!(refused(&archive(14, 0, &[table])).contains("a chunk of data has the length -1"));

    let mut toc = archive(14, 0, &[]);
    let end = toc.len() - 5;
    toc.truncate(end);
    int(&mut toc, i64::from(u32::MAX));
    int(&mut toc, 1);
    int(&mut toc, 0);
    for length in [0, 0, 2_000_000_000] {
        int(&mut toc, length);
    }
    assert!(refused(&toc).contains("a text of 2000000000 bytes"));
}

#[test]
fn damaged_or_overlong_compressed_data_are_an_error() {
    let zlib = |text: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    };
    let text = b"1\n2\n\\.\n\n\n";
    for (compression, packed) in [
        (1, zlib(text)),
        (3, zstd::encode_all(&text[..], 1).unwrap()),
    ] {
        let dump = |packed: &[u8]| archive(15, compression, &[Built::table(7, "t", COPY, packed)]);
        assert_eq!(parse(&dump(&packed), 5).unwrap().tables[0].rows, 2);
        assert!(
            refused(&dump(&packed[..packed.len() - 1]))
                .contains("compressed data end before their time")
        );
        let mut longer = packed.clone();
        longer.extend(b"123456789");
        assert!(parse(&dump(&longer), 5).is_err());
        assert!(parse(&dump(b"123456789"), 5).is_err());
    }
}

#[test]
fn a_table_in_several_parts_is_counted_as_one() {
    let root = "COPY s.root (a) FROM stdin;";
    let dump = archive(
        14,
        0,
        &[
            Built::table(7, "one", root, b"1\n\\.\n\n\n"),
            Built::table(8, "two", root, b"2\n3\n\\.\n\n\n"),
        ],
    );
    let whole = archive(
        14,
        0,
        &[Built::table(7, "root", root, b"3\n2\n1\n\\.\n\n\n")],
    );
    let tables = parse(&dump, 100).unwrap().tables;
    assert_eq!(tables, parse(&whole, 100).unwrap().tables);
    assert_eq!((tables[0].name.as_str(), tables[0].rows), ("root", 3));
}

#[test]
fn rows_that_cannot_be_counted_are_said_to_be_so() {
    for (name, why) in [
        (
            "odd-inserts.sql",
            "its rows are INSERT statements; dump without --inserts",
        ),
        (
            "odd-inserts.dump",
            "are INSERT statements; dump without --inserts",
        ),
        ("odd-lz4.dump", "compressed with lz4"),
    ] {
        let inventory = parse(&fixture(name), 1000).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let because = inventory.uncounted_because.unwrap_or_default();
        assert!(because.contains(why), "{name}: {because}");
        assert!(!inventory.counted && inventory.tables.is_empty());
        assert_eq!(inventory.sequences, expected().sequences);
        if name != "odd-lz4.dump" {
            assert_eq!(inventory.large_objects, expected().large_objects);
        }
    }
}

#[test]
fn a_plain_dump_cut_between_two_statements_is_an_error() {
    let whole = plain("COPY s.t (a) FROM stdin;\n1\n\\.\n");
    let cut = &whole[..whole
        .find("--\n-- PostgreSQL database dump complete")
        .unwrap()];
    assert_eq!(
        refused(cut.as_bytes()),
        "the dump is incomplete: the closing comment `PostgreSQL database dump complete` is missing"
    );
    let within = &whole[..whole.find("\\.\n").unwrap()];
    assert_eq!(
        refused(within.as_bytes()),
        "the dump is incomplete: it ends within the rows of `s.t`"
    );
    let twice = format!("{whole}{whole}");
    assert!(refused(twice.as_bytes()).contains("the dump goes on behind its closing comment"));
    let more = format!("{whole}DROP TABLE s.t;\n");
    assert!(refused(more.as_bytes()).contains("the dump goes on behind its closing comment"));
    let two = plain("\\connect one\n\\connect two\n");
    assert!(refused(two.as_bytes()).contains("goes on in another database, `two`"));
    let restricted = plain("\\restrict abc\n");
    assert!(refused(restricted.as_bytes()).contains("`\\unrestrict` is missing"));
    let shell = plain("\\! true\n");
    assert!(
        refused(shell.as_bytes())
            .contains("a psql command that pg_dump does not write: \"\\\\! true\"")
    );
}

#[test]
fn nothing_within_strings_bodies_and_comments_is_taken_for_rows() {
    let trap = "\nCOPY s.no (a) FROM stdin;\n1\n\\.\nINSERT INTO s.no VALUES (1);\n";
    for body in [
        format!("SELECT '{trap}';"),
        format!("SELECT 'it''s {trap} ''';"),
        format!("SELECT E'it\\'s {trap} ''\\'';"),
        format!("SET standard_conforming_strings = off;\nSELECT 'it\\'s {trap}';"),
        format!("SELECT 'a\\', {};", "1"),
        format!("SELECT $$ $x$ ' {trap} $x $$;"),
        format!("SELECT $a1$ $a$ $$ {trap} $$a1$;"),
        format!("SELECT \"odd \"\" ' {trap}\";"),
        format!("/* one /* two */ ' {trap} */ SELECT 1;"),
        "-- COPY s.no (a) FROM stdin; it's\nSELECT 1 -- ' ;\n;".to_owned(),
        "CREATE OR REPLACE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC\n INSERT INTO s.no \
         VALUES (CASE WHEN true THEN 1 END);\n SELECT pg_catalog.setval('s.q', 1, true);\nEND;"
            .to_owned(),
        "CREATE RULE r AS ON DELETE TO t DO INSTEAD (INSERT INTO s.no VALUES (1); SELECT 1);"
            .to_owned(),
        "CREATE TABLE s.function (begin integer, $1 text);".to_owned(),
    ] {
        let dump = plain(&format!("{body}\nCOPY s.yes (a) FROM stdin;\n5\n\\.\n"));
        for piece in [1, 2, 3, 7, 10_000] {
            let inventory =
                parse(dump.as_bytes(), piece).unwrap_or_else(|e| panic!("{body}: {e:?}"));
            assert!(inventory.counted, "{body}");
            assert_eq!(inventory.tables.len(), 1, "{body}");
            assert_eq!(
                (inventory.tables[0].name.as_str(), inventory.tables[0].rows),
                ("yes", 1)
            );
            assert!(inventory.sequences.is_empty());
        }
    }
}

#[test]
fn a_dump_that_went_through_windows_holds_the_same() {
    let wide = "w".repeat(70_000);
    let unix = plain(&format!(
        "COPY s.t (a) FROM stdin;\n1\n\n{wide}\nx\\r\n\\.\n"
    ));
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    for piece in [1, 3, 70_001, 1 << 20] {
        let there = parse(windows.as_bytes(), piece).unwrap();
        assert_eq!(there, parse(unix.as_bytes(), piece).unwrap());
        assert_eq!(there.tables[0].rows, 4);
    }
}

#[test]
fn an_old_dump_without_schemas_uses_its_search_path() {
    let dump = plain(
        "SET search_path = app, pg_catalog;\nCOPY t (a) FROM stdin;\n\\.\n\
         SELECT pg_catalog.setval('q', 3, false);\n",
    );
    let inventory = parse(dump.as_bytes(), 11).unwrap();
    assert_eq!(inventory.tables[0].schema, "app");
    assert_eq!(inventory.sequences[0].schema, "app");
}

/// A sink whose content can be looked at afterwards.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(String, Vec<u8>)>>);

impl RowSink for Kept {
    fn begin(&mut self, columns: &str) -> io::Result<()> {
        self.0.lock().unwrap().0 = columns.to_owned();
        Ok(())
    }

    fn rows(&mut self, text: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().1.extend_from_slice(text);
        Ok(())
    }
}

#[test]
fn the_rows_of_one_table_come_out_as_copy_wrote_them() {
    for (name, piece) in [
        ("pg15-z0.dump", 1),
        ("pg18-z0.dump", 4096),
        ("pg17-zstd.dump", 100),
        ("pg15.sql", 1),
        ("pg18.sql", 1 << 16),
    ] {
        for table in ["people", "one_column", "wide", "empty"] {
            let kept = Kept::default();
            let mut parser = DumpParser::new().extract("app", table, Box::new(kept.clone()));
            for bytes in fixture(name).chunks(piece) {
                parser.push(bytes).unwrap();
            }
            let inventory = parser.finish().unwrap();
            let known = inventory
                .tables
                .iter()
                .find(|known| known.name == table)
                .unwrap();
            let (columns, text) = &*kept.0.lock().unwrap();
            let again = archive(
                14,
                0,
                &[Built::table(7, "t", COPY, &[text, &b"\\.\n"[..]].concat())],
            );
            let again = &parse(&again, 1 << 20).unwrap().tables[0];
            assert_eq!(columns, &known.columns);
            assert_eq!(text.len() as u64, known.bytes);
            assert_eq!(
                (again.rows, &again.checksum),
                (known.rows, &known.checksum),
                "{name} {table}"
            );
        }
    }
}

#[test]
fn a_wanted_table_that_is_not_there_or_cannot_be_taken_is_an_error() {
    let wanting = |name: &str, table: &str, sink: Box<dyn RowSink>| {
        let mut parser = DumpParser::new().extract("app", table, sink);
        parser.push(&fixture(name))?;
        parser.finish()
    };
    let taking = || Box::new(|_: &[u8]| Ok(()));
    let failure = wanting("pg15.sql", "People", taking()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the dump has no rows of a table `app.People`"
    );
    let failure = wanting("odd-inserts.sql", "people", taking()).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("cannot take the rows of `app.people` out of this dump")
    );
    let full = Box::new(|_: &[u8]| Err(io::Error::from_raw_os_error(28)));
    let failure = wanting("pg15.sql", "people", full).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("cannot pass on the rows of the wanted table: No space left")
    );
}

#[test]
fn a_reader_never_takes_a_part_for_the_whole() {
    let dump = fixture("pg16-z0.dump");
    let mut reader = InventoryReader::new(&dump[..]);
    let mut through = Vec::new();
    reader.read_to_end(&mut through).unwrap();
    assert!(through == dump);
    let (_, inventory) = reader.finish().unwrap();
    assert_eq!(content(inventory), expected());

    let mut reader = InventoryReader::new(&dump[..dump.len() / 2]);
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    let words = "the dump is incomplete: it ends within a block of data";
    assert_eq!(error.to_string(), words);
    assert!(reader.read(&mut [0; 10]).is_err());
    assert!(reader.finish().is_err());
    assert!(InventoryReader::new(&dump[..]).finish().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn altered_dumps_are_read_or_refused_but_nothing_else(
        which in 0usize..5,
        alterations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
        piece in 1usize..5000,
    ) {
        let name = ["pg14-gzip.dump", "pg15-z0.dump", "pg17-zstd.dump", "pg16.sql", "pg18-gzip.dump"][which];
        let mut dump = fixture(name);
        for (at, byte, way) in alterations {
            let at = at.index(dump.len());
            match way {
                0 => dump[at] = byte,
                1 => dump[at] ^= 1 << (byte % 8),
                2 => drop(dump.drain(at..(at + usize::from(byte)).min(dump.len()))),
                // The table of contents is where the lengths are.
                _ => dump[at % 4000] = byte,
            }
        }
        // Refused or not, it does not depend on how the bytes came.
        prop_assert_eq!(parse(&dump, piece).ok(), parse(&dump, usize::MAX).ok());
    }

    #[test]
    fn random_bytes_are_refused(minor in 11u8..18, tail in prop::collection::vec(any::<u8>(), 0..3000)) {
        let mut dump = vec![b'P', b'G', b'D', b'M', b'P', 1, minor, 0, 4, 8, 1];
        dump.extend(&tail);
        prop_assert_eq!(parse(&dump, 64).ok(), parse(&dump, usize::MAX).ok());
        prop_assert!(parse(&tail, 64).is_err());
        let script = plain(&String::from_utf8_lossy(&tail));
        let script = script.as_bytes();
        prop_assert_eq!(parse(script, 64).ok(), parse(script, usize::MAX).ok());
    }

    #[test]
    fn the_same_rows_in_any_order_and_any_pieces_have_the_same_sum(
        mut rows in prop::collection::vec("[a-z\\\\]{0,5}[a-z]{1,300}", 0..30),
        piece in 1usize..400,
        wide in 0usize..140_000,
    ) {
        rows.push("x".repeat(wide));
        let text = |rows: &[String]| rows.iter().map(|row| format!("{row}\n")).collect::<String>() + "\\.\n";
        let dump = |text: &str| {
            let mut table = Built::table(7, "t", COPY, b"");
            let mut block = vec![1];
            int(&mut block, 7);
            for bytes in text.as_bytes().chunks(piece * 17) {
                chunk(&mut block, bytes);
            }
            int(&mut block, 0);
            table.block = Some(block);
            archive(14, 0, &[table])
        };
        let once = parse(&dump(&text(&rows)), usize::MAX).unwrap().tables;
        rows.reverse();
        let again = parse(&dump(&text(&rows)), piece).unwrap().tables;
        prop_assert_eq!(&once, &again);
        let mut sum = crate::dump::RowSum::new();
        rows.iter().for_each(|row| sum.add_row(row.as_bytes()));
        prop_assert_eq!(sum.checksum(), once[0].checksum.clone());
        prop_assert_eq!(sum.rows(), once[0].rows);
    }
}
