//! The journal: the end of a unit's, for evidence; what came since the last look, for log figures;
//! and whom the kernel killed for lack of memory.
//!
//! A user who may not read the journal is shown an empty one. So nothing is taken for "no lines"
//! before it is seen that lines of the system can be read at all.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::log_figures::{LINE_BYTES_MAX, Line};
use super::quote;
use crate::failure::{Failure, OrFail, Result};
use crate::program::Program;
use crate::secret::Secret;

/// A unit's journal must have been read within this time.
pub const READ_LIMIT: Duration = Duration::from_secs(20);
/// A few lines must have been shown within this time.
pub const TAIL_LIMIT: Duration = Duration::from_secs(5);
/// So many bytes of journalctl's output are read in one run at most.
pub const READ_BYTES: u64 = 256 << 20;
const TAIL_BYTES: usize = 1 << 20;
/// What the kernel said is read up to so many bytes.
const KERNEL_BYTES: usize = 16 << 20;

/// Where reading a journal ended: systemd's own opaque word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalCursor(String);

/// From where a journal is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since<'a> {
    /// From this time on.
    Time(Timestamp),
    /// After this entry.
    Cursor(&'a JournalCursor),
}

/// How reading a journal went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalReading {
    /// Where to go on; none when there was nothing.
    pub cursor: Option<JournalCursor>,
    /// Entries read.
    pub entries: u64,
    /// Whether there was more than [`READ_BYTES`]; the rest comes with the next look.
    pub more: bool,
}

/// Somebody whom the kernel killed for lack of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Victim {
    /// The process's name.
    pub process: String,
    /// The unit or container it belonged to, where the kernel said so.
    pub unit: Option<String>,
}

/// The program that is asked: journalctl.
#[derive(Clone)]
pub struct Journal(Program);

impl Default for Journal {
    fn default() -> Self {
        Journal::by(Program::new("journalctl"))
    }
}

impl Journal {
    /// Another program in journalctl's place.
    pub fn by(program: Program) -> Journal {
        let program = program.env("LC_ALL", Secret::new("C"));
        Journal(program.arg("--no-pager"))
    }

    /// A unit's last lines, fit to be quoted.
    pub fn tail(&self, unit: &str, lines: usize) -> Result<Vec<String>> {
        let program = self.0.clone().args(["-o", "short-iso", "--no-hostname"]);
        let program = program.args(["-n".to_owned(), lines.to_string()]);
        let text = program
            .args(["-u", unit])
            .output_within(TAIL_BYTES, TAIL_LIMIT);
        let text = text.map_err(unreadable)?;
        let text = String::from_utf8_lossy(&text);
        Ok(text
            .lines()
            .filter(|line| !line.starts_with("-- "))
            .map(quote::line)
            .collect())
    }

    /// Reads a unit's entries in order. An entry that lies longer back than the journal reaches is
    /// where it begins.
    pub fn read(
        &self,
        unit: &str,
        since: &Since<'_>,
        take: &mut dyn FnMut(Line<'_>),
    ) -> Result<JournalReading> {
        let from = match since {
            Since::Time(time) => format!("--since=@{}", time.as_second()),
            Since::Cursor(cursor) => format!("--after-cursor={}", cursor.0),
        };
        let program = self.0.clone().args(["-o", "json", "-u", unit, &from]);
        let program = program.arg("--output-fields=MESSAGE,PRIORITY");
        let reading = read_json(&program, take)?;
        if reading.entries == 0 {
            self.must_be_readable()?;
        }
        Ok(reading)
    }

    /// Whom the kernel killed for lack of memory since then, as far as its journal tells.
    pub fn oom_victims(&self, since: Timestamp) -> Result<Vec<Victim>> {
        let program = self.0.clone().args(["-k", "-o", "cat"]);
        let program = program.arg(format!("--since=@{}", since.as_second()));
        let text = program.output_within(KERNEL_BYTES, TAIL_LIMIT);
        let text = text.map_err(unreadable)?;
        Ok(victims(&String::from_utf8_lossy(&text)))
    }

    /// The first process of a machine always has entries.
    fn must_be_readable(&self) -> Result<()> {
        let program = self.0.clone().args(["-n", "1", "-o", "cat", "_PID=1"]);
        let text = program.output_within(TAIL_BYTES, TAIL_LIMIT);
        let text = text.map_err(unreadable)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::new("this user is shown an empty journal")
                .hint("let it read the system's: usermod -aG systemd-journal USER"));
        }
        Ok(())
    }
}

fn unreadable(failure: Failure) -> Failure {
    let failure = failure.context("cannot read the journal");
    if failure.to_string().contains("ermission") {
        failure.hint("let this user read it: usermod -aG systemd-journal USER")
    } else {
        failure
    }
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    time_us: String,
    #[serde(rename = "MESSAGE", default)]
    message: serde_json::Value,
    #[serde(rename = "PRIORITY", default)]
    priority: serde_json::Value,
}

fn read_json(program: &Program, take: &mut dyn FnMut(Line<'_>)) -> Result<JournalReading> {
    let mut reading = JournalReading {
        cursor: None,
        entries: 0,
        more: false,
    };
    let what = || "cannot read the journal".to_owned();
    let mut left = READ_BYTES;
    let mut reader = BufReader::with_capacity(64 << 10, program.reader_within(READ_LIMIT)?);
    let mut text = Vec::new();
    loop {
        text.clear();
        // An entry longer than this is no line of a log: journald itself cuts at 48 KiB by default.
        let max = (2 * LINE_BYTES_MAX) as u64;
        let read = (&mut reader).take(max).read_until(b'\n', &mut text);
        let read = read.map_err(|error| unreadable(Failure::from_io(what(), error)))?;
        if read == 0 {
            return Ok(reading);
        }
        left = left.saturating_sub(read as u64);
        if text.last() != Some(&b'\n') && read as u64 == max {
            reader
                .skip_until(b'\n')
                .map_err(|error| unreadable(Failure::from_io(what(), error)))?;
            continue;
        }
        let entry: Entry = serde_json::from_slice(&text)
            .or_fail(|| "journalctl's answer is not understood".to_owned())?;
        let bytes;
        let message = match &entry.message {
            serde_json::Value::String(text) => text.as_bytes(),
            // What is not UTF-8 comes as numbers.
            serde_json::Value::Array(numbers) => {
                bytes = numbers
                    .iter()
                    .filter_map(|n| u8::try_from(n.as_u64()?).ok())
                    .collect::<Vec<u8>>();
                &bytes
            }
            _ => &[],
        };
        let time_us: Option<i64> = entry.time_us.parse().ok();
        take(Line {
            text: message,
            time: time_us.and_then(|us| Timestamp::from_microsecond(us).ok()),
            priority: entry.priority.as_str().and_then(|p| p.parse().ok()),
        });
        reading.entries += 1;
        reading.cursor = Some(JournalCursor(entry.cursor));
        if left == 0 {
            reading.more = true;
            return Ok(reading);
        }
    }
}

/// The kernel says it in two lines: `oom-kill:…,task_memcg=/system.slice/a.service,task=python,pid=7`
/// and `Out of memory: Killed process 7 (python) …`; the first is newer than 4.19.
fn victims(text: &str) -> Vec<Victim> {
    let mut found: Vec<(String, Victim)> = Vec::new();
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("oom-kill:") {
            let field = |name: &str| {
                rest.split(',')
                    .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            };
            let unit = field("task_memcg").and_then(|path| {
                path.rsplit('/')
                    .find(|part| part.ends_with(".service") || part.ends_with(".scope"))
            });
            let victim = Victim {
                process: quote::line(field("task").unwrap_or("a process")),
                unit: unit.map(quote::line),
            };
            found.push((field("pid").unwrap_or_default().to_owned(), victim));
        } else if let Some((_, rest)) = line.split_once("Killed process ") {
            let (pid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            if found.iter().any(|(known, _)| known == pid) {
                continue;
            }
            let name = rest.trim_start_matches('(').split([')', ',']).next();
            let victim = Victim {
                process: quote::line(name.unwrap_or("a process")),
                unit: None,
            };
            found.push((pid.to_owned(), victim));
        }
    }
    found.into_iter().map(|(_, victim)| victim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(script: &str) -> Journal {
        Journal::by(Program::new("sh").args(["-c", script, "journalctl"]))
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a time")
    }

    #[test]
    fn a_journal_that_may_not_be_read_is_not_an_empty_one() {
        let failure = fake("exit 0")
            .read("api", &Since::Time(now()), &mut |_| {})
            .unwrap_err();
        assert_eq!(failure.to_string(), "this user is shown an empty journal");
        let denied =
            "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1";
        let failure = fake(denied)
            .read("api", &Since::Time(now()), &mut |_| {})
            .unwrap_err();
        assert_eq!(
            failure.hints(),
            ["let this user read it: usermod -aG systemd-journal USER"]
        );
        let quiet = "case $* in *_PID=1*) echo Started.;; esac";
        let reading = fake(quiet).read("api", &Since::Time(now()), &mut |_| {});
        assert_eq!(reading.unwrap().entries, 0);
    }

    #[test]
    fn entries_are_read_in_order_and_the_cursor_is_where_it_ended() {
        let script = r#"case "$*" in *'-u api --since=@1800000000'*) ;; *) exit 9;; esac
cat <<'END'
{"__CURSOR":"c1","__REALTIME_TIMESTAMP":"1800000001000000","PRIORITY":"6","MESSAGE":"one"}
{"__CURSOR":"c2","__REALTIME_TIMESTAMP":"1800000002000000","PRIORITY":"3","MESSAGE":[255,111]}
{"__CURSOR":"c3","__REALTIME_TIMESTAMP":"1800000003000000","MESSAGE":null}
END"#;
        let mut seen = Vec::new();
        let reading = fake(script)
            .read("api", &Since::Time(now()), &mut |line| {
                seen.push((line.text.to_vec(), line.priority));
            })
            .unwrap();
        assert_eq!(
            seen,
            [
                (b"one".to_vec(), Some(6)),
                (vec![255, 111], Some(3)),
                (Vec::new(), None)
            ]
        );
        assert_eq!(reading.cursor, Some(JournalCursor("c3".into())));
        let after = r#"case "$*" in *--after-cursor=c3*) echo '{"__CURSOR":"c4","__REALTIME_TIMESTAMP":"1","MESSAGE":"x"}';; *) exit 9;; esac"#;
        let cursor = reading.cursor.unwrap();
        let reading = fake(after).read("api", &Since::Cursor(&cursor), &mut |_| {});
        assert_eq!(reading.unwrap().cursor, Some(JournalCursor("c4".into())));
    }

    #[test]
    fn the_kernels_words_name_the_victim_and_its_unit() {
        let text = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/system.slice/rgrid-api.service,task=python3,pid=4242,uid=1000\n\
             Out of memory: Killed process 4242 (python3) total-vm:1kB, anon-rss:1kB\n\
             Memory cgroup out of memory: Killed process 7 (node) total-vm:1kB\n";
        let victim = |process: &str, unit: Option<&str>| Victim {
            process: process.into(),
            unit: unit.map(str::to_owned),
        };
        assert_eq!(
            victims(text),
            [
                victim("python3", Some("rgrid-api.service")),
                victim("node", None)
            ]
        );
    }

    #[test]
    fn a_tail_is_fit_to_be_quoted() {
        let tail = fake("printf -- '-- No entries --\\nERROR password=x\\n'").tail("api", 3);
        assert_eq!(tail.unwrap(), ["ERROR password=***"]);
    }
}
