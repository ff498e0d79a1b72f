//! The five fields of crontab(5) as sets of bits.
//!
//! A number is in a field's set if bit *number* is set. What cannot be meant (a range that runs
//! backwards, a step of 90 minutes, 31 February) is refused with the field, the word and the
//! allowed range, because a schedule that is read wrongly is noticed when the backup is missing.

use jiff::civil::Date;

use crate::failure::{Failure, Result};

/// When an expression is due, in local wall-clock time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub minutes: u64,
    pub hours: u64,
    /// Days of the month, 1–31.
    pub days: u64,
    pub months: u64,
    /// Days of the week, Sunday 0 to Saturday 6.
    pub weekdays: u64,
    /// crontab(5): a date needs only one of the two day fields if neither begins with `*`.
    pub either_day: bool,
}

struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    /// The names of the numbers from `low` on.
    names: &'static [&'static str],
    weekday: bool,
}

const MINUTE: Field = Field::numeric("minute", 0, 59);
const HOUR: Field = Field::numeric("hour", 0, 23);
const DAY: Field = Field::numeric("day of month", 1, 31);
const MONTH: Field = Field {
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
    ..Field::numeric("month", 1, 12)
};
const WEEKDAY: Field = Field {
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    weekday: true,
    ..Field::numeric("day of week", 0, 6)
};

/// How long each month can be, January first.
const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

impl Fields {
    pub fn parse(text: &str) -> Result<Self> {
        let text = match text.strip_prefix('@') {
            Some(word) => named(word)?,
            None => text,
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = words.as_slice() else {
            return Err(wrong_count(words.len()));
        };
        let fields = Fields {
            minutes: MINUTE.parse(minute)?,
            hours: HOUR.parse(hour)?,
            days: DAY.parse(day)?,
            months: MONTH.parse(month)?,
            weekdays: WEEKDAY.parse(weekday)?,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        if !fields.either_day && !fields.a_day_exists() {
            return Err(Failure::new(format!(
                "never happens: no month of `{month}` has a day of `{day}`"
            )));
        }
        Ok(fields)
    }

    pub fn matches_date(&self, date: Date) -> bool {
        if !has(self.months, date.month()) {
            return false;
        }
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        if self.either_day {
            day || weekday
        } else {
            day && weekday
        }
    }

    /// Whether it follows the clock as it ticks instead of naming hours.
    pub fn every_hour(&self) -> bool {
        self.hours == HOUR.all()
    }

    /// Whether some month of the set has some day of the month of the set.
    pub fn a_day_exists(&self) -> bool {
        (1..=12).any(|month: u8| {
            let length = MONTH_DAYS[usize::from(month - 1)];
            self.months >> month & 1 == 1 && self.days & ((2 << length) - 2) != 0
        })
    }
}

/// Whether a number is in a set.
pub(super) fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|n| set.checked_shr(n).is_some_and(|rest| rest & 1 == 1))
}

impl Field {
    const fn numeric(name: &'static str, low: u8, high: u8) -> Self {
        Field {
            name,
            low,
            high,
            names: &[],
            weekday: false,
        }
    }

    fn all(&self) -> u64 {
        (self.low..=self.high).fold(0, |set, n| set | 1 << n)
    }

    fn parse(&self, text: &str) -> Result<u64> {
        let mut set = 0;
        for item in text.split(',') {
            if item.is_empty() {
                return Err(self.wrong(text, "has an empty item in its list"));
            }
            set |= self.item(item)?;
        }
        Ok(set)
    }

    /// `*`, `a`, `a-b`, each with or without `/step`.
    fn item(&self, item: &str) -> Result<u64> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(self.step(item, step)?)),
            None => (item, None),
        };
        let (first, last) = if range == "*" {
            (self.low, self.high)
        } else if let Some((a, b)) = range.split_once('-') {
            self.range(item, self.number(item, a)?, self.number(item, b)?)?
        } else {
            let a = self.number(item, range)?;
            match step {
                // Crontab counts Sunday twice; a week counted from a day ends on Saturday.
                Some(_) => (if self.weekday { a % 7 } else { a }, self.high),
                None => (a, a),
            }
        };
        let numbers = (first..=last).step_by(step.unwrap_or(1).into());
        Ok(numbers.fold(0, |set, n| set | 1 << if self.weekday { n % 7 } else { n }))
    }

    /// The ends of a range; one of weekdays may run over Sunday and then ends above 6.
    fn range(&self, item: &str, a: u8, b: u8) -> Result<(u8, u8)> {
        if a <= b {
            return Ok((a, b));
        }
        if self.weekday {
            let a = a % 7;
            return Ok((a, if a <= b { b } else { b + 7 }));
        }
        let error = self.wrong(item, "runs backwards");
        Err(error.hint(format!(
            "write two ranges: `{a}-{high},{low}-{b}`",
            high = self.high,
            low = self.low
        )))
    }

    fn step(&self, item: &str, step: &str) -> Result<u8> {
        let count = self.high - self.low + 1;
        match digits(step) {
            Some(0) => Err(self.wrong(item, "has a step of 0")),
            Some(n) if n <= u32::from(count) => Ok(n as u8),
            Some(n) => Err(self
                .wrong(item, &format!("has a step of {n}, beyond the field's end"))
                .hint("a step counts within its field and starts anew with every round of it")),
            None => Err(self.wrong(item, &format!("has the step `{step}`, which is no number"))),
        }
    }

    fn number(&self, item: &str, word: &str) -> Result<u8> {
        if let Some(number) = digits(word) {
            let high = if self.weekday { 7 } else { self.high };
            return match u8::try_from(number) {
                Ok(n) if n >= self.low && n <= high => Ok(n),
                _ => Err(self.wrong(item, &format!("has {number}, which is out of range"))),
            };
        }
        let name = word.to_ascii_lowercase();
        if let Some(index) = self.names.iter().position(|known| *known == name) {
            return Ok(self.low + index as u8);
        }
        let error = self.wrong(item, &format!("has `{word}`, which is no number or name"));
        Err(match self.names.iter().find(|k| name.starts_with(**k)) {
            Some(known) => error.hint(format!("names have three letters: `{known}`")),
            None if word == "?" => error.hint("crontab has no `?`; write `*`"),
            None => error,
        })
    }

    fn wrong(&self, word: &str, what: &str) -> Failure {
        let allowed = match (self.names, self.weekday) {
            ([first, .., last], true) => format!("0-7 (0 and 7 are Sunday) or {first}-{last}"),
            ([first, .., last], false) => format!("{}-{} or {first}-{last}", self.low, self.high),
            _ => format!("{}-{}", self.low, self.high),
        };
        Failure::new(format!(
            "{}: `{word}` {what}; allowed: {allowed}",
            self.name
        ))
    }
}

/// A number of up to four digits; anything else, a sign too, is none.
fn digits(word: &str) -> Option<u32> {
    let plain = (1..=4).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| word.parse().ok()).flatten()
}

/// crontab's names for common schedules, without their `@`.
fn named(word: &str) -> Result<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "hourly" => Ok("0 * * * *"),
        "daily" | "midnight" => Ok("0 0 * * *"),
        "weekly" => Ok("0 0 * * 0"),
        "monthly" => Ok("0 0 1 * *"),
        "yearly" | "annually" => Ok("0 0 1 1 *"),
        "reboot" => Err(Failure::new("`@reboot` is no time of the clock")
            .hint("name a time: a run that was missed is made up after the next start anyway")),
        _ => Err(Failure::new(format!("`@{word}` is not known"))
            .hint("known: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually")),
    }
}

fn wrong_count(count: usize) -> Failure {
    let error = Failure::new(format!("has {count} fields instead of five"));
    match count {
        6 | 7 => error.hint("crontab has five fields, no seconds and no command"),
        _ => error.hint("minute, hour, day of month, month, day of week, as in `0 2 * * *`"),
    }
}

#[cfg(test)]
mod tests;
