//! Real dumps of one database by every `pg_dump` from 14 to 18, against what the database holds.

mod built;
mod damage;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use super::{DumpFormat, DumpParser, Inventory, LargeObjects, RowSum, Sequence, Table};
use crate::failure::Result;

/// What `expected.py` found in the database itself.
#[derive(Debug, PartialEq, Deserialize)]
struct Content {
    tables: Vec<Table>,
    sequences: Vec<Sequence>,
    large_objects: LargeObjects,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/dumps")
}

fn fixture(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn expected() -> Content {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

fn content(inventory: Inventory) -> Content {
    assert!(inventory.counted, "{:?}", inventory.uncounted_because);
    Content {
        tables: inventory.tables,
        sequences: inventory.sequences,
        large_objects: inventory.large_objects,
    }
}

fn parse(dump: &[u8], piece: usize) -> Result<Inventory> {
    let mut parser = DumpParser::new();
    for bytes in dump.chunks(piece) {
        parser.push(bytes)?;
    }
    parser.finish()
}

fn parsed(name: &str, piece: usize) -> Inventory {
    parse(&fixture(name), piece).unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

/// All whole dumps of the fixture database whose rows can be counted.
fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("pg"))
        .collect();
    let odd = ["odd-seekable.dump", "odd-redirected.dump", "odd-create.sql"];
    names.extend(odd.map(String::from));
    names.sort();
    assert_eq!(names.len(), 22, "{names:?}");
    names
}

#[test]
fn every_dump_cut_anywhere_is_incomplete() {
    for name in names() {
        let dump = fixture(&name);
        let mut parser = DumpParser::new();
        let mut may_end = Vec::new();
        for (at, byte) in dump.iter().enumerate() {
            if parser.complete().is_ok() {
                may_end.push(at);
            }
            parser
                .push(&[*byte])
                .unwrap_or_else(|error| panic!("{name} at {at}: {error:?}"));
        }
        match name.as_str() {
            // Behind the data the table of contents comes again; without it nothing is missing.
            "odd-redirected.dump" => assert_eq!(may_end, [fixture("pg17-gzip.dump").len()]),
            // A plain dump may lack the blank line at its very end.
            _ if name.ends_with(".sql") => assert_eq!(may_end, [dump.len() - 1], "{name}"),
            _ => assert!(may_end.is_empty(), "{name} cut at {may_end:?}"),
        }
        assert_eq!(content(parser.finish().unwrap()), expected(), "{name}");
    }
}
