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
    names.extend(["odd-seekable.dump".into(), "odd-create.sql".into()]);
    names.sort();
    assert_eq!(names.len(), 21, "{names:?}");
    names
}

#[test]
fn every_dump_cut_anywhere_is_incomplete() {
    for name in names() {
        let dump = fixture(&name);
        let plain = name.ends_with(".sql");
        let mut parser = DumpParser::new();
        for (at, byte) in dump.iter().enumerate() {
            // A plain dump may lack the blank line at its very end.
            let may_end = plain && at == dump.len() - 1;
            assert_eq!(parser.complete().is_ok(), may_end, "{name} cut at {at}");
            parser
                .push(&[*byte])
                .unwrap_or_else(|error| panic!("{name} at {at}: {error:?}"));
        }
        assert_eq!(content(parser.finish().unwrap()), expected(), "{name}");
    }
}
