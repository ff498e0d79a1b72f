//! Real dumps of one database by every `pg_dump` from 14 to 18, against what the database holds.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use super::{DumpParser, Inventory, LargeObjects, Sequence, Table};
use crate::failure::Result;

/// What `expected.py` found in the database itself.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct Content {
    tables: Vec<Table>,
    sequences: Vec<Sequence>,
    large_objects: LargeObjects,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/dumps")
}

pub(super) fn fixture(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn expected() -> Content {
    serde_json::from_slice(&fixture("expected.json")).unwrap()
}

pub(super) fn content(inventory: Inventory) -> Content {
    assert!(inventory.counted, "{:?}", inventory.uncounted_because);
    Content {
        tables: inventory.tables,
        sequences: inventory.sequences,
        large_objects: inventory.large_objects,
    }
}

pub(super) fn parse(dump: &[u8], piece: usize) -> Result<Inventory> {
    let mut parser = DumpParser::new();
    for bytes in dump.chunks(piece) {
        parser.push(bytes)?;
    }
    parser.finish()
}

fn names(suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("pg") && name.ends_with(suffix))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

#[test]
fn every_version_and_compression_of_a_custom_dump_gives_what_the_database_holds() {
    for name in names(".dump") {
        let inventory =
            parse(&fixture(&name), usize::MAX).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(content(inventory), expected(), "{name}");
    }
}

#[test]
fn every_version_of_a_plain_dump_gives_the_same() {
    for name in names(".sql") {
        let inventory =
            parse(&fixture(&name), usize::MAX).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(content(inventory), expected(), "{name}");
    }
}
