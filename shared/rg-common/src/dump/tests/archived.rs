//! Archives taken apart for a loader, against what the parser of inventories finds in them.

use std::io::Read;

use super::super::{ArchiveReader, ArchivedTable, MAGIC};
use super::*;
use crate::program::Program;

/// Gives its bytes in pieces of a few.
struct Slowly<'a>(&'a [u8], usize);

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.1.min(self.0.len()).min(buffer.len());
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}

type Taken = Vec<(ArchivedTable, Vec<u8>)>;

/// The contents, what is unusual, and the tables with their rows up to the end or an error.
fn take(dump: &[u8], piece: usize) -> (Vec<u8>, Option<String>, Taken, Result<()>) {
    let mut contents = Vec::new();
    let mut archive = match ArchiveReader::open(Slowly(dump, piece), &mut contents) {
        Ok(archive) => archive,
        Err(failure) => return (contents, None, Vec::new(), Err(failure)),
    };
    let unusual = archive.unusual().map(str::to_owned);
    let mut taken = Vec::new();
    let ended = (|| {
        while let Some(table) = archive.next_table()? {
            let mut text = Vec::new();
            while let Some(rows) = archive.rows()? {
                text.extend_from_slice(&rows);
            }
            taken.push((table, text));
        }
        Ok(())
    })();
    (contents, unusual, taken, ended)
}

#[test]
fn rows_come_out_as_they_were_counted_whatever_wrote_them() {
    for name in names().iter().filter(|name| name.ends_with(".dump")) {
        let dump = fixture(name);
        let expected = expected();
        for piece in [1, 7, 300, 1 << 20] {
            let (contents, unusual, taken, ended) = take(&dump, piece);
            assert!(dump.starts_with(&contents), "{name}");
            assert!(contents.starts_with(MAGIC) && contents.len() < dump.len());
            // Large objects are there too, after the rows: not for this reader, which says so first.
            assert!(unusual.is_some_and(|what| what.contains("BLOB")), "{name}");
            let failure = ended.expect_err("large objects").to_string();
            assert!(failure.contains("kind 3"), "{name}: {failure}");
            assert_eq!(taken.len(), expected.tables.len(), "{name}");
            for (table, text) in &taken {
                let found = expected.tables.iter();
                let mut found =
                    found.filter(|one| one.schema == table.schema && one.name == table.name);
                let one = found.next().expect("a table of the dump");
                assert_eq!(one.columns, table.columns);
                assert_eq!(one.bytes, text.len() as u64, "{name} {}", table.name);
                let mut sum = RowSum::new();
                for row in text.split_inclusive(|byte| *byte == b'\n') {
                    sum.add_row(row.strip_suffix(b"\n").expect("a whole row"));
                }
                assert_eq!((one.rows, &one.checksum), (sum.rows(), &sum.checksum()));
            }
        }
    }
}

#[test]
fn an_archive_that_was_cut_anywhere_or_is_none_ends_in_an_error() {
    let dump = fixture("pg15-z0.dump");
    let step = dump.len() / 150;
    for length in (0..dump.len()).step_by(step.max(1)) {
        let (_, _, _, ended) = take(&dump[..length], 4096);
        ended.expect_err("a part is not the whole");
    }
    let (_, _, _, ended) = take(b"SELECT 1;", 4);
    let failure = ended.expect_err("a script").to_string();
    assert_eq!(failure, "the dump is no custom archive");
}

#[test]
fn the_contents_alone_are_an_archive_to_pg_restore() {
    let (contents, ..) = take(&fixture("pg13-z0.dump"), 4096);
    let path = std::env::temp_dir().join(format!("rg-contents-{}", std::process::id()));
    fs::write(&path, contents).expect("a file");
    let list = Program::new("pg_restore").arg("--list").arg(&path);
    let output = list.output(1 << 20);
    fs::remove_file(&path).expect("the file");
    let text = String::from_utf8(output.expect("a list")).expect("text");
    assert!(text.contains("TABLE DATA"), "{text}");
}

#[test]
fn indexes_are_known_by_the_one_table_that_they_need() {
    for name in names().iter().filter(|name| name.ends_with(".dump")) {
        let dump = fixture(name);
        let archive = ArchiveReader::open(&dump[..], &mut std::io::sink()).unwrap();
        let entries: BTreeSet<i64> = archive.entries().iter().copied().collect();
        assert_eq!(entries.len(), archive.entries().len(), "{name}");
        let indexes: Vec<i64> = archive.indexes().into_values().flatten().collect();
        let distinct: BTreeSet<i64> = indexes.iter().copied().collect();
        assert!(
            !indexes.is_empty() && distinct.len() == indexes.len(),
            "{name}"
        );
        assert!(distinct.is_subset(&entries), "{name}");
    }
}
