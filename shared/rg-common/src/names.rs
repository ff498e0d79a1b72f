//! The names an operator types: datasets, stamps, backup ids.
//!
//! A dataset is what can be backed up (`production/database`), a stamp is when (`20260123_020000`,
//! UTC), a backup id both (`production/database@20260123_020000`). Whatever parses here is safe as
//! a relative path below a store's root.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, OrFail, Result};

/// What can be backed up, as words joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetName(String);

impl DatasetName {
    /// The name as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The words between the slashes.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The name that its files in a store begin with: the environment for a database, the last
    /// word else.
    pub fn file_stem(&self) -> &str {
        let mut words = self.words();
        match (words.next(), words.next(), words.next()) {
            (Some(environment), Some("database"), None) => environment,
            _ => self.words().last().unwrap_or(&self.0),
        }
    }

    /// Whether `selection` means this dataset: itself, or a leading part that ends at a slash
    /// (`app` never means `app-staging/database`).
    pub fn is_selected_by(&self, selection: &str) -> bool {
        let selection = selection.trim_end_matches('/');
        self.0 == selection
            || self
                .0
                .strip_prefix(selection)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for DatasetName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let fine = |word: &str| is_word(word);
        if text.len() <= 200 && text.split('/').all(fine) && text.split('/').count() <= 4 {
            return Ok(DatasetName(text.to_owned()));
        }
        Err(Failure::new(format!("`{text}` is not a dataset's name"))
            .hint("datasets look like production/database, production/files/uploads or globals"))
    }
}

/// Whether a name may stand in a dataset: letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`.
pub fn is_word(word: &str) -> bool {
    let mut bytes = word.bytes();
    matches!(bytes.next(), Some(b) if b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

impl TryFrom<String> for DatasetName {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DatasetName> for String {
    fn from(name: DatasetName) -> String {
        name.0
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a backup was begun: `YYYYmmdd_HHMMSS` in UTC, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(Timestamp);

impl Stamp {
    /// The stamp of an instant; fractions of a second are dropped.
    pub fn at(time: Timestamp) -> Stamp {
        Stamp(Timestamp::from_second(time.as_second()).unwrap_or(time))
    }

    /// The instant it stands for.
    pub fn time(self) -> Timestamp {
        self.0
    }

    /// The same digits read as a wall clock in `zone`: how the old scripts named their files.
    pub fn parse_in(text: &str, zone: &TimeZone) -> Result<Stamp> {
        let civil = DateTime::strptime("%Y%m%d_%H%M%S", text)
            .ok()
            .filter(|_| text.len() == 15);
        let bad = || {
            Failure::new(format!("`{text}` is not a stamp"))
                .hint("stamps look like 20260123_020000 (UTC)")
        };
        let civil = civil.ok_or_else(bad)?;
        let zoned = civil
            .to_zoned(zone.clone())
            .or_fail(|| format!("cannot place {text} in time"))?;
        Ok(Stamp::at(zoned.timestamp()))
    }
}

impl FromStr for Stamp {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        Stamp::parse_in(text, &TimeZone::UTC)
    }
}

impl TryFrom<String> for Stamp {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> String {
        stamp.to_string()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y%m%d_%H%M%S"))
    }
}

/// One backup of one dataset: `DATASET@STAMP`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId {
    /// What was backed up.
    pub dataset: DatasetName,
    /// When.
    pub stamp: Stamp,
}

impl BackupId {
    /// The leading part of its files' names: `production_20260123_020000`.
    pub fn stem(&self) -> String {
        format!("{}_{}", self.dataset.file_stem(), self.stamp)
    }
}

impl FromStr for BackupId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        let Some((dataset, stamp)) = text.rsplit_once('@') else {
            return Err(Failure::new(format!("`{text}` is not a backup id")).hint(
                "ids look like production/database@20260123_020000; `rg-backup list` shows them",
            ));
        };
        Ok(BackupId {
            dataset: dataset.parse()?,
            stamp: stamp.parse()?,
        })
    }
}

impl TryFrom<String> for BackupId {
    type Error = Failure;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.to_string()
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_the_store_is_refused() {
        for bad in [
            "",
            "/",
            "../x",
            "a/../b",
            "a//b",
            ".hidden/x",
            "a/.b",
            "a b",
            "a\nb",
            "a/b/c/d/e",
            "-x",
        ] {
            assert!(bad.parse::<DatasetName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_selection_ends_at_a_slash() {
        let name: DatasetName = "app-staging/database".parse().unwrap();
        assert!(!name.is_selected_by("app"));
        assert!(name.is_selected_by("app-staging"));
        assert!(name.is_selected_by("app-staging/"));
        assert!(name.is_selected_by("app-staging/database"));
        assert!(!name.is_selected_by("app-staging/data"));
    }

    #[test]
    fn an_id_is_written_as_it_is_read() {
        let id: BackupId = "production/files/uploads@20260123_030000".parse().unwrap();
        assert_eq!(id.to_string(), "production/files/uploads@20260123_030000");
        assert_eq!(id.stem(), "uploads_20260123_030000");
        let id: BackupId = "production/database@20260123_020000".parse().unwrap();
        assert_eq!(id.stem(), "production_20260123_020000");
        assert_eq!(id.stamp.time().to_string(), "2026-01-23T02:00:00Z");
        assert!(
            "production/database@2026-01-23"
                .parse::<BackupId>()
                .is_err()
        );
        assert!(
            "production/database@20260123_0200001"
                .parse::<BackupId>()
                .is_err()
        );
    }
}
