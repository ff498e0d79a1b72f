//! An app's log, wherever it is: what was written since the last look, and what was written within a
//! window of time.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::journal::{Journal, JournalCursor, Since};
use super::log_figures::{Counter, LogFigures};
use super::log_file::{self, FileCursor};
use crate::config::LogPlace;
use crate::failure::{Failure, Result};

/// How far the first look goes back, and the look after a long pause.
pub const FIRST_LOOK: SignedDuration = SignedDuration::from_mins(5);
/// A pause longer than this is not made up for: who wants to know asks for a window.
pub const PAUSE_MAX: SignedDuration = SignedDuration::from_hours(2);

/// What is remembered of a log for the next look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    at: Timestamp,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Place {
    File(FileCursor),
    Journal(JournalCursor),
    /// A journal in which nothing was yet.
    Nothing,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// What was written since the last look.
    pub figures: LogFigures,
    /// For the next look.
    pub remembered: Remembered,
    /// What could not be read, in words, where something could not.
    pub missing: Option<String>,
}

/// Counts what was written since the last look. An error is a log that cannot be read.
pub fn since_last(
    place: &LogPlace,
    last: Option<&Remembered>,
    now: Timestamp,
    journal: &Journal,
) -> Result<Look> {
    // After a long pause, and where the clock was put back, it is a first look.
    let last = last.filter(|last| {
        let pause = now.duration_since(last.at);
        pause.is_positive() && pause <= PAUSE_MAX
    });
    let from = match last {
        Some(last) => last.at,
        None => now.checked_sub(FIRST_LOOK).unwrap_or(now),
    };
    match place {
        LogPlace::File(path) => {
            let cursor = last.and_then(|last| match &last.place {
                Place::File(cursor) => Some(cursor),
                _ => None,
            });
            // What is new since a cursor was written since then, whatever its lines say.
            let mut counter = match cursor {
                Some(_) => Counter::new(Timestamp::MIN, Timestamp::MAX),
                None => Counter::new(from, now).dated_only(),
            };
            let reading = log_file::read(path, cursor, &mut |line| counter.add(line))?;
            let shown = path.display();
            let missing = if reading.lost {
                Some(format!(
                    "a part of {shown} was rotated away before it was read"
                ))
            } else if reading.left_out > 0 && cursor.is_some() {
                Some(format!(
                    "{shown} grew too fast: {} bytes were not read",
                    reading.left_out
                ))
            } else {
                None
            };
            Ok(Look {
                figures: counter.over(from, now).figures(),
                remembered: Remembered {
                    at: now,
                    place: Place::File(reading.cursor),
                },
                missing,
            })
        }
        LogPlace::Unit(unit) => {
            let cursor = last.and_then(|last| match &last.place {
                Place::Journal(cursor) => Some(cursor),
                _ => None,
            });
            let since = cursor.map_or(Since::Time(from), Since::Cursor);
            let mut counter = match cursor {
                Some(_) => Counter::new(Timestamp::MIN, Timestamp::MAX),
                None => Counter::new(from, now),
            };
            let mut reading = journal.read(unit, &since, &mut |line| counter.add(line));
            let foreign = |failure: &Failure| failure.to_string().contains("seek to cursor");
            if cursor.is_some() && reading.as_ref().is_err_and(foreign) {
                // The journal was replaced since: by the time, then.
                counter = Counter::new(from, now);
                let since = Since::Time(from);
                reading = journal.read(unit, &since, &mut |line| counter.add(line));
            }
            let reading = reading?;
            let next = reading.cursor.or_else(|| cursor.cloned());
            Ok(Look {
                figures: counter.over(from, now).figures(),
                remembered: Remembered {
                    at: now,
                    place: next.map_or(Place::Nothing, Place::Journal),
                },
                missing: reading
                    .more
                    .then(|| format!("the journal of {unit} grows too fast: the rest comes later")),
            })
        }
    }
}

/// Counts what was written within a window that ends now, as far as the log reaches back.
pub fn window(
    place: &LogPlace,
    from: Timestamp,
    now: Timestamp,
    journal: &Journal,
) -> Result<LogFigures> {
    let mut counter = Counter::new(from, now);
    match place {
        LogPlace::File(path) => {
            counter = counter.dated_only();
            log_file::read_back(path, &mut |line| counter.add(line))?;
        }
        LogPlace::Unit(unit) => {
            journal.read(unit, &Since::Time(from), &mut |line| counter.add(line))?;
        }
    }
    Ok(counter.figures())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Program;
    use std::io::Write;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_769_133_600 + second).expect("a time")
    }

    #[test]
    fn a_look_counts_what_was_written_since_the_last_one() {
        let path = std::env::temp_dir().join(format!("rg-look-{}.log", std::process::id()));
        let place = LogPlace::File(path.clone());
        let journal = Journal::by(Program::new("false"));
        let append = |text: &str| {
            let mut file = std::fs::File::options()
                .append(true)
                .create(true)
                .open(&path)
                .expect("the log");
            file.write_all(text.as_bytes()).expect("written");
        };
        append(
            "ERROR nobody knows when\n{\"level\":\"ERROR\",\"time\":\"2026-01-23T01:00:00Z\"}\n",
        );
        append("{\"level\":\"ERROR\",\"time\":\"2026-01-23T01:59:00Z\"}\n");
        let first = since_last(&place, None, at(0), &journal).expect("a look");
        assert_eq!((first.figures.errors, first.figures.undated), (1, 1));
        append("ERROR since then\n");
        let second = since_last(&place, Some(&first.remembered), at(300), &journal);
        let second = second.expect("a look");
        assert_eq!((second.figures.lines, second.figures.errors), (1, 1));
        assert!((second.figures.errors_per_minute - 0.2).abs() < 1e-9);
        assert_eq!(second.missing, None);
        // A day later, and with the clock put back, it is a first look again.
        for other in [at(86_400), at(-10)] {
            let look = since_last(&place, Some(&second.remembered), other, &journal);
            assert_eq!(look.expect("a look").figures.undated, 2);
        }
        let figures = window(&place, at(-7200), at(0), &journal).expect("figures");
        assert_eq!((figures.errors, figures.undated), (2, 2));
        std::fs::remove_file(&path).expect("removed");
        assert!(since_last(&place, None, at(0), &journal).is_err());
    }

    #[test]
    fn a_look_into_the_journal_goes_on_after_its_cursor() {
        let script = r#"case "$*" in
            *--since=@1769133300*) echo '{"__CURSOR":"a","__REALTIME_TIMESTAMP":"1769133500000000","MESSAGE":"ERROR x"}';;
            *--after-cursor=a*) ;;
            *_PID=1*) echo Started.;;
            *) exit 9;;
        esac"#;
        let journal = Journal::by(Program::new("sh").args(["-c", script, "journalctl"]));
        let place = LogPlace::Unit("api".into());
        let first = since_last(&place, None, at(0), &journal).expect("a look");
        assert_eq!(first.figures.errors, 1);
        let second = since_last(&place, Some(&first.remembered), at(60), &journal);
        let second = second.expect("a look");
        assert_eq!(second.figures.lines, 0);
        assert_eq!(second.remembered.place, first.remembered.place);
        // The words of a real journalctl for a cursor of another journal.
        let other = r#"case "$*" in
            *--after-cursor=*) echo 'Failed to seek to cursor: Invalid argument' >&2; exit 1;;
            *--since=@1769133600*) echo '{"__CURSOR":"b","__REALTIME_TIMESTAMP":"1769133650000000","MESSAGE":"ERROR y"}';;
            *) exit 9;;
        esac"#;
        let journal = Journal::by(Program::new("sh").args(["-c", other, "journalctl"]));
        let look = since_last(&place, Some(&first.remembered), at(60), &journal);
        assert_eq!(look.expect("a look").figures.errors, 1);
    }
}
