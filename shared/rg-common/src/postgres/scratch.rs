//! The names of databases that these tools make: what for and when, within PostgreSQL's 63 bytes.
//!
//! The promise: a name is read back to exactly what it was made of, and only for the database that
//! it was made for, so that the leftovers of a killed run are found and nobody else's are.

use super::connect::Session;
use crate::failure::Result;

/// PostgreSQL's limit for a name, in bytes (`NAMEDATALEN - 1`).
const NAME_BYTES: usize = 63;
/// What stands between the parts of a name made here.
const MARK: &str = "_rg_";
/// `YYYYmmdd_HHMMSS`.
const STAMP_BYTES: usize = 15;

/// What a database that these tools made is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A restore is filling it.
    Restoring,
    /// A drill is filling it.
    Drill,
    /// It was the live one before a restore; `undo` brings it back.
    Before,
}

impl Purpose {
    const ALL: [Purpose; 3] = [Purpose::Restoring, Purpose::Drill, Purpose::Before];

    /// The word in the name.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Restoring => "restoring",
            Purpose::Drill => "drill",
            Purpose::Before => "before",
        }
    }
}

/// A database that these tools made, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// The database's name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// When it was made, `YYYYmmdd_HHMMSS` in UTC.
    pub stamp: String,
}

/// `BASE_rg_before_20260123_020000`, within PostgreSQL's 63 bytes: a base that is too long is cut
/// and given a digest of the whole, so that two long names do not become one.
pub fn scratch_name(base: &str, purpose: Purpose, stamp: &str) -> String {
    let tail = format!("{MARK}{}_{stamp}", purpose.word());
    format!(
        "{}{tail}",
        fitted(base, NAME_BYTES.saturating_sub(tail.len()))
    )
}

fn fitted(base: &str, bytes: usize) -> String {
    if base.len() <= bytes {
        return base.to_owned();
    }
    let digest = twox_hash::XxHash3_128::oneshot(base.as_bytes()) as u32;
    let mut end = bytes.saturating_sub(9);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{digest:08x}", &base[..end])
}

/// The databases that these tools made for `base`, the oldest first: leftovers of killed runs among them.
pub fn list_scratch(session: &Session, base: &str) -> Result<Vec<Scratch>> {
    let rows = session.rows("SELECT datname::text FROM pg_database", &[])?;
    let mut found: Vec<Scratch> = rows
        .iter()
        .filter_map(|row| read_scratch(base, row.get(0)))
        .collect();
    found.sort_by(|a, b| (&a.stamp, &a.name).cmp(&(&b.stamp, &b.name)));
    Ok(found)
}

fn read_scratch(base: &str, name: &str) -> Option<Scratch> {
    let stamp = name.get(name.len().checked_sub(STAMP_BYTES)?..)?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (day, time) = stamp.split_once('_')?;
    if day.len() != 8 || !digits(day) || !digits(time) {
        return None;
    }
    let of = |purpose: &Purpose| scratch_name(base, *purpose, stamp) == name;
    Some(Scratch {
        name: name.to_owned(),
        purpose: Purpose::ALL.into_iter().find(of)?,
        stamp: stamp.to_owned(),
    })
}

#[cfg(test)]
mod tests;
