//! Which backups an operator wants to keep: the `keep = { … }` of a dataset.
//!
//! Only the wish and its check; what is deleted for it, and what never is, is decided by
//! `rg-backup`'s retention.

use serde::Deserialize;

use crate::failure::{Failure, Result};

/// The rules of one dataset. A backup is kept if any of them wants it; a rule left out wants
/// nothing. Days, weeks, months and years are those of the host's time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// All that are at most so many whole days old (like `find -mtime`: 7 days and 23 hours is 7).
    pub days: Option<u32>,
    /// The newest so many.
    pub last: Option<u32>,
    /// The newest of each of the newest so many days that have one.
    pub daily: Option<u32>,
    /// The same by ISO week, Monday to Sunday.
    pub weekly: Option<u32>,
    /// The same by month.
    pub monthly: Option<u32>,
    /// The same by year.
    pub yearly: Option<u32>,
}

impl Keep {
    /// Refuses a `keep` without any rule and a rule of zero: whoever writes these expects
    /// something that retention does not do.
    pub fn validate(&self) -> Result<()> {
        let rules = self.rules();
        if let Some((name, _)) = rules.iter().find(|(_, count)| *count == Some(0)) {
            return Err(Failure::new(format!("keep.{name} is 0"))
                .hint("leave a rule out if it should want nothing"));
        }
        if rules.iter().all(|(_, count)| count.is_none()) {
            return Err(Failure::new("keep has no rule").hint(
                "name at least one of days, last, daily, weekly, monthly, yearly, as in `keep = { days = 7 }`",
            ));
        }
        Ok(())
    }

    fn rules(&self) -> [(&'static str, Option<u32>); 6] {
        [
            ("days", self.days),
            ("last", self.last),
            ("daily", self.daily),
            ("weekly", self.weekly),
            ("monthly", self.monthly),
            ("yearly", self.yearly),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Keep, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn no_rule_and_a_rule_of_zero_are_refused() {
        for (text, message) in [
            ("", "keep has no rule"),
            ("days = 0", "keep.days is 0"),
            ("days = 7\nyearly = 0", "keep.yearly is 0"),
        ] {
            let error = read(text).expect("readable").validate().expect_err(text);
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hints().len(), 1);
        }
    }

    #[test]
    fn a_misspelt_or_negative_rule_is_refused() {
        assert!(read("day = 7").is_err());
        assert!(read("days = -7").is_err());
    }

    #[test]
    fn one_rule_is_enough() {
        let keep = read("weekly = 4").expect("readable");
        assert_eq!(keep.weekly, Some(4));
        assert!(keep.validate().is_ok());
    }
}
