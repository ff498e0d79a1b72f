//! Real dumps of one database by every `pg_dump` from 14 to 18, against what the database holds.

mod archived;
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

#[test]
fn every_version_format_and_compression_gives_what_the_database_holds() {
    for name in names() {
        for piece in [2, 3, 7, 64, 1000, 65_536, usize::MAX] {
            assert_eq!(content(parsed(&name, piece)), expected(), "{name}");
        }
    }
}

#[test]
fn a_custom_and_a_plain_dump_describe_the_same_database() {
    for version in 13..=18 {
        let custom = parsed(&format!("pg{version}-z0.dump"), 4096);
        let plain = parsed(&format!("pg{version}.sql"), 4096);
        assert_eq!(
            (custom.format, plain.format),
            (DumpFormat::Custom, DumpFormat::Plain)
        );
        assert_eq!(custom.server_version, plain.server_version);
        assert!(custom.server_version.starts_with(&version.to_string()));
        assert_eq!(custom.pg_dump_version, plain.pg_dump_version);
        assert_eq!(custom.encoding.as_deref(), Some("UTF8"));
        assert_eq!(plain.encoding, custom.encoding);
        assert_eq!(custom.extensions, plain.extensions);
        assert_eq!(custom.roles, plain.roles);
        let roles = ["Odd \"Role\"", "postgres", "rg_owner", "rg_reader"].map(String::from);
        assert_eq!(custom.roles, BTreeSet::from(roles));
        let mut objects = custom.objects;
        assert_eq!(objects.remove("DATABASE"), Some(1));
        assert_eq!(objects, plain.objects);
        assert_eq!(
            (
                objects["VIEW"],
                objects["MATERIALIZED VIEW"],
                objects["FK CONSTRAINT"]
            ),
            (1, 1, 1)
        );
        assert_eq!(objects["TABLE DATA"], 13);
    }
}

#[test]
fn the_heading_tells_versions_and_database() {
    let read = |name| {
        let inventory = parsed(name, 100);
        (
            inventory.archive_version,
            inventory.database,
            inventory.extensions,
        )
    };
    let some = |text: &str| Some(text.to_owned());
    let trigrams = vec!["pg_trgm".to_owned()];
    assert_eq!(
        read("pg14-z0.dump"),
        (some("1.14"), some("fixture"), trigrams.clone())
    );
    assert_eq!(
        read("pg16-z0.dump"),
        (some("1.15"), some("fixture"), vec![])
    );
    assert_eq!(
        read("pg17-z0.dump"),
        (some("1.16"), some("fixture"), trigrams.clone())
    );
    assert_eq!(read("pg17.sql"), (None, None, trigrams.clone()));
    assert_eq!(read("odd-create.sql"), (None, some("fixture"), trigrams));
}

#[test]
fn a_dump_of_the_schema_alone_has_no_tables_but_is_counted() {
    let inventory = parsed("odd-schema-only.sql", 100);
    assert!(inventory.counted && inventory.tables.is_empty());
    assert_eq!(inventory.objects["TABLE"], 14);
}

#[test]
fn the_sum_is_xxh3_128_and_zero_for_no_rows() {
    let mut sum = RowSum::new();
    assert_eq!(sum.checksum(), "00000000000000000000000000000000");
    // The published digest of no bytes.
    sum.add_row(b"");
    assert_eq!(sum.checksum(), "99aa06d3014798d86001c324468d497f");
    sum.add_row(b"");
    assert_eq!(sum.checksum(), "33540da6028f31b0c00386488d1a92fe");
    assert_eq!(sum.rows(), 2);
}

#[test]
fn an_inventory_survives_its_manifest() {
    let inventory = parsed("pg15-z0.dump", 4096);
    let json = serde_json::to_string(&inventory).unwrap();
    assert!(
        json.starts_with(r#"{"format":"custom","archive_version":"1.14","server_version":"15."#)
    );
    assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
}
