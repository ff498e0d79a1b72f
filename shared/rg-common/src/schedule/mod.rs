//! When a backup is due: crontab's five fields, in the host's time zone.
//!
//! The promise: an expression means here what crontab(5) says it means (Sunday is 0 and 7; two
//! restricted day fields are joined by OR), and no night is lost to daylight saving:
//!
//! - A schedule with **fixed hours** runs once for each wall-clock time. A time that the clock
//!   jumps over runs at the first instant after the gap (several such times become one run); a
//!   time that comes twice runs at the first of the two.
//! - A schedule of **every hour** of the day (`*`, `*/1`, `0-23`) follows the clock as it ticks:
//!   `0 * * * *` runs at both 02:00s of the autumn night, and nothing is made up in spring, since
//!   the next run is less than an hour away.
//!
//! `*/2` in the hour field counts as fixed hours: the night when 02:00 is missing runs at 03:00.
//! `search` finds instants, `systemd` writes the calendar lines of timers.

mod fields;
mod search;
mod systemd;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::failure::{Failure, Result};
use fields::Fields;

/// A parsed crontab expression that has at least one due time; prints as the text it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    fields: Fields,
}

impl Schedule {
    /// Reads `minute hour day-of-month month day-of-week` or one of crontab's `@daily @midnight
    /// @weekly @monthly @yearly @annually @hourly`. An error names the field, the word and what is
    /// allowed there; an expression that can never come due (31 February) is an error too.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let fields =
            Fields::parse(text).map_err(|error| error.context(format!("schedule `{text}`")))?;
        Ok(Schedule {
            text: text.to_owned(),
            fields,
        })
    }

    /// The first due time strictly after `after`, by the module's rule for daylight saving.
    /// The search goes 41 years far, enough for 29 February on a given weekday, and is `None` only
    /// near the end of the calendar (the year 9999).
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        search::next_after(&self.fields, after, zone)
    }

    /// The newest due time that is not after `before_or_at`: a backup older than this is late.
    pub fn previous(&self, before_or_at: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        search::previous(&self.fields, before_or_at, zone)
    }

    /// Values for `OnCalendar=` of a systemd timer on a host that lives in `zone`; together they
    /// elapse when this schedule is due. systemd skips times in a daylight-saving gap
    /// (`Persistent=true` does not bring them back) and the second pass through an hour that comes
    /// twice, so these nights get lines of their own, for `years` years from `from`: after that
    /// the lines should be written anew.
    pub fn calendar_lines(&self, zone: &TimeZone, from: Timestamp, years: u8) -> Vec<String> {
        systemd::calendar_lines(&self.fields, zone, from, years)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self> {
        Schedule::parse(text)
    }
}

#[cfg(test)]
mod tests;
