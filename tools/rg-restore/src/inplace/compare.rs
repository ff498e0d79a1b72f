//! What came out, compared with what the backup recorded, inside the transaction.

use rg_common::dump::{Inventory, RowPieces, RowSum, Sequence};
use rg_common::failure::{Failure, Result};
use rg_common::nouns::{count, counted};
use rg_common::postgres::create::{identifier, literal};

use super::InPlaceReport;
use super::talk::{Line, Talk};

/// An error names up to this many differences.
const NAMED: usize = 10;
/// Large objects are read in pieces of this many bytes; in hexadecimal they take twice as many.
const PIECE_BYTES: usize = 1 << 20;

/// As `pg_dump` writes values; the dump has set some of them differently.
const SETTINGS: &str = "SET search_path = ''; SET datestyle = 'ISO, YMD'; SET intervalstyle = postgres; \
    SET extra_float_digits = 3; SET timezone = 'UTC'; SET bytea_output = hex; SET xmloption = content; \
    SET row_security = off; SET statement_timeout = 0; SET synchronize_seqscans = off";

/// A failure that names what differs; nothing is committed here.
pub(super) fn compare(
    talk: &mut Talk,
    inventory: &Inventory,
    transaction: &str,
) -> Result<InPlaceReport> {
    let now = talk.one("COPY (SELECT txid_current()) TO STDOUT")?;
    if now != transaction {
        return Err(Failure::new(format!(
            "transaction {transaction} was over before the dump was"
        )));
    }
    let settings = match &inventory.encoding {
        Some(encoding) => format!("{SETTINGS}; SET client_encoding = {}", literal(encoding)),
        None => SETTINGS.to_owned(),
    };
    talk.ask(&settings, |_| {})?;
    let mut differences = Vec::new();
    for table in &inventory.tables {
        let columns = match table.columns.as_str() {
            "" => String::new(),
            columns => format!(" ({columns})"),
        };
        let name = format!("{}.{}", identifier(&table.schema), identifier(&table.name));
        let sum = talk.sum(&format!("COPY {name}{columns} TO STDOUT"))?;
        let shown = format!("table {}.{}", table.schema, table.name);
        if sum.rows() != table.rows {
            differences.push(format!(
                "{shown} has {} instead of {}",
                counted(sum.rows(), "rows"),
                count(table.rows)
            ));
        } else if sum.checksum() != table.checksum {
            differences.push(format!(
                "{shown} has other values in its {}",
                counted(table.rows, "rows")
            ));
        }
    }
    for sequence in &inventory.sequences {
        differences.extend(compare_sequence(talk, sequence)?);
    }
    let objects = large_objects(talk)?;
    let expected = &inventory.large_objects;
    if (objects.rows(), objects.checksum()) != (expected.count, expected.checksum.clone()) {
        differences.push(format!(
            "the {} are not the backup's {}",
            counted(objects.rows(), "large objects"),
            expected.count
        ));
    }
    if differences.is_empty() {
        return Ok(InPlaceReport {
            tables: inventory.tables.len() as u64,
            rows: inventory.tables.iter().map(|table| table.rows).sum(),
            sequences: inventory.sequences.len() as u64,
            large_objects: objects.rows(),
        });
    }
    let more = differences.len().saturating_sub(NAMED);
    differences.truncate(NAMED);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(Failure::new(format!(
        "what was restored is not what was backed up: {}",
        differences.join("; ")
    )))
}

fn compare_sequence(talk: &mut Talk, sequence: &Sequence) -> Result<Option<String>> {
    let found = talk.one(&format!(
        "COPY (SELECT last_value, is_called FROM {}.{}) TO STDOUT",
        identifier(&sequence.schema),
        identifier(&sequence.name)
    ))?;
    let called = if sequence.is_called { "t" } else { "f" };
    let expected = format!("{}\t{called}", sequence.last_value);
    Ok((found != expected).then(|| {
        format!(
            "sequence {}.{} stands at {}",
            sequence.schema,
            sequence.name,
            found.replace('\t', " ")
        )
    }))
}

/// One "row" for each large object: its oid as four bytes, the lowest first, and its content.
fn large_objects(talk: &mut Talk) -> Result<RowSum> {
    let mut sum = RowSum::new();
    let mut last: u32 = 0;
    loop {
        let next = talk.one(&format!(
            "COPY (SELECT coalesce(min(oid::bigint), 0) FROM pg_largeobject_metadata
             WHERE oid > {last}) TO STDOUT"
        ))?;
        last = match next.parse() {
            Ok(0) => return Ok(sum),
            Ok(oid) => oid,
            Err(_) => {
                return Err(Failure::new(format!(
                    "`{next}` is no large object's number"
                )));
            }
        };
        let mut row = RowPieces::new();
        row.push(&last.to_le_bytes());
        let mut at: u64 = 0;
        loop {
            let mut content = Vec::new();
            talk.ask(
                &format!(
                    "COPY (SELECT encode(lo_get({last}, {at}, {PIECE_BYTES}), 'hex')) TO STDOUT"
                ),
                |line| {
                    let (Line::Whole(digits) | Line::Long(digits, _)) = line;
                    content = bytes(digits);
                },
            )?;
            row.push(&content);
            at += content.len() as u64;
            if content.len() < PIECE_BYTES {
                break;
            }
        }
        sum.add_pieces(&row);
    }
}

fn bytes(digits: &[u8]) -> Vec<u8> {
    let value = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
    digits
        .chunks_exact(2)
        .map(|pair| value(pair[0]) << 4 | value(pair[1]))
        .collect()
}
