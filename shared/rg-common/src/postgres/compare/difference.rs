//! What a comparison found, in an operator's words.

use std::fmt;

use serde::Serialize;

use crate::nouns::{count, counted};

/// One thing that is not as in the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
// The variants' sentences say what their fields are.
#[allow(missing_docs)]
pub enum Difference {
    /// A table of the dump is not in the database.
    MissingTable { table: String },
    /// A table of the database was not in the dump.
    AdditionalTable { table: String },
    /// A table has other columns.
    Columns {
        table: String,
        expected: String,
        found: String,
    },
    /// A table has more or fewer rows.
    Rows {
        table: String,
        expected: u64,
        found: u64,
    },
    /// A table has as many rows, but not the same ones.
    Content { table: String, rows: u64 },
    /// A sequence of the dump is not in the database.
    MissingSequence { sequence: String },
    /// A sequence of the database was not in the dump.
    AdditionalSequence { sequence: String },
    /// A sequence stands elsewhere.
    SequenceValue {
        sequence: String,
        expected: String,
        found: String,
    },
    /// There are more or fewer large objects.
    LargeObjects { expected: u64, found: u64 },
    /// There are as many large objects, but not the same ones.
    LargeObjectContent { count: u64 },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::MissingTable { table } => write!(f, "table {table} is missing"),
            Difference::AdditionalTable { table } => {
                write!(f, "table {table} is not in the backup")
            }
            Difference::Columns {
                table,
                expected,
                found,
            } => write!(
                f,
                "table {table} has the columns ({found}) instead of ({expected})"
            ),
            Difference::Rows {
                table,
                expected,
                found,
            } => write!(
                f,
                "table {table} has {} instead of {}",
                counted(*found, "rows"),
                count(*expected)
            ),
            Difference::Content { table, rows } => write!(
                f,
                "table {table} has {} as in the backup, but the content differs",
                counted(*rows, "rows")
            ),
            Difference::MissingSequence { sequence } => {
                write!(f, "sequence {sequence} is missing")
            }
            Difference::AdditionalSequence { sequence } => {
                write!(f, "sequence {sequence} is not in the backup")
            }
            Difference::SequenceValue {
                sequence,
                expected,
                found,
            } => write!(
                f,
                "sequence {sequence} stands at {found} instead of {expected}"
            ),
            Difference::LargeObjects { expected, found } => {
                let found = counted(*found, "large objects");
                write!(f, "the database has {found} instead of {expected}")
            }
            Difference::LargeObjectContent { count } => write!(
                f,
                "the database has {} as in the backup, but the content differs",
                counted(*count, "large objects")
            ),
        }
    }
}
