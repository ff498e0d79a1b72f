//! `--fix`: what can be mended without losing anything.
//!
//! The promise: every byte that is not meant stays; every value that a person could have meant in
//! two ways is left alone; before anything is written, the new text is read again, and must give
//! the same values under the same names but for what was mended on purpose. Written atomically,
//! with owner and attributes kept, and no copy of the old file left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;

use rg_common::env_file::dialect::tier::{Tier, render, tier};
use rg_common::env_file::dialect::{Reader, is_name};
use rg_common::env_file::document::{Document, Entry};
use rg_common::{Failure, Result, report};
use serde::Serialize;

use super::codes::{self, Code};
use super::file::{self, Env};
use super::whereabouts::TOO_OPEN;
use super::{Deployment, Finding};
use crate::address;
use crate::replace::{self, Manner};
use crate::schema::Kind;

/// Something that was mended, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Mended {
    /// The file.
    pub path: String,
    /// `line 3: DB_PASSWORD quoted`
    pub what: String,
}

/// What is to be done to one file.
#[derive(Default)]
struct Plan {
    text: Option<String>,
    mode: Option<u32>,
    /// Which findings are gone then.
    marks: Vec<(&'static str, usize)>,
    whats: Vec<String>,
}

/// Says of each finding whether `--fix` would mend it.
pub fn mark(deployment: &Deployment, findings: &mut [Finding]) {
    for env in &deployment.files {
        let path = env.shown();
        let own = findings
            .iter_mut()
            .filter(|finding| finding.path == path && finding.code.mends);
        let mut own: Vec<&mut Finding> = own.collect();
        if own.is_empty() {
            continue;
        }
        let marks: BTreeSet<(&str, usize)> = plan(deployment, env).marks.into_iter().collect();
        for finding in &mut own {
            finding.mends = marks.contains(&(finding.code.id, finding.line));
        }
    }
}

/// Mends the files. What could not be written is said in `failures`.
pub fn mend(
    deployment: &Deployment,
    findings: &[Finding],
    dry_run: bool,
    mended: &mut Vec<Mended>,
    failures: &mut Vec<String>,
) {
    for env in &deployment.files {
        let path = env.shown();
        if !findings
            .iter()
            .any(|finding| finding.path == path && finding.mends)
        {
            continue;
        }
        let plan = plan(deployment, env);
        match if dry_run { Ok(()) } else { write(env, &plan) } {
            Ok(()) => mended.extend(plan.whats.into_iter().map(|what| Mended {
                path: path.clone(),
                what,
            })),
            Err(failure) => failures.push(report::with_hints(&failure)),
        }
    }
}

fn write(env: &Env, plan: &Plan) -> Result<()> {
    let _held = replace::hold(&replace::directory_of(&env.path))?;
    if file::read(&env.path)?.bytes != env.bytes {
        return Err(
            Failure::new(format!("{} has changed since it was read", env.shown()))
                .hint("run it again"),
        );
    }
    let mode = env.meta.permissions().mode() & 0o7777;
    let manner = Manner {
        mode: plan.mode.unwrap_or(mode),
        fix_mode: plan.mode.is_some(),
        ..Manner::default()
    };
    let content = plan
        .text
        .as_ref()
        .map_or(env.bytes.as_slice(), |text| text.as_bytes());
    replace::replace(&env.path, content, &manner)
}

fn plan(deployment: &Deployment, env: &Env) -> Plan {
    let mut plan = Plan::default();
    if env.symlink {
        return plan;
    }
    let mode = env.meta.permissions().mode() & 0o7777;
    if mode & TOO_OPEN != 0 {
        let new = mode & 0o640 | 0o600;
        plan.mode = Some(new);
        plan.marks.push((codes::MODE.id, 0));
        plan.whats.push(format!("its mode, now {new:04o}"));
    }
    let Some(old) = &env.text else { return plan };
    let mut change = Change {
        deployment,
        env,
        marks: Vec::new(),
        whats: Vec::new(),
        renamed: BTreeMap::new(),
        revalued: BTreeMap::new(),
    };
    let new = change.text(old);
    if new != *old && change.keeps_all(old, &new) {
        plan.text = Some(new);
        plan.marks.extend(change.marks);
        plan.whats.extend(change.whats);
    }
    plan
}

struct Change<'a> {
    deployment: &'a Deployment,
    env: &'a Env,
    marks: Vec<(&'static str, usize)>,
    whats: Vec<String>,
    /// Former name to new name.
    renamed: BTreeMap<String, String>,
    /// New values on purpose, by new name.
    revalued: BTreeMap<String, String>,
}

impl Change<'_> {
    fn done(&mut self, code: &'static Code, line: usize, what: impl Into<String>) {
        self.marks.push((code.id, line));
        let what = what.into();
        if !what.is_empty() {
            self.whats.push(what);
        }
    }

    fn text(&mut self, old: &str) -> String {
        let mut text = old.to_owned();
        if let Some(rest) = text.strip_prefix('\u{feff}') {
            text = rest.to_owned();
            self.done(codes::BYTE_ORDER_MARK, 1, "the byte order mark, gone");
        }
        let document = Document::parse(&text);
        let within = document
            .entries
            .iter()
            .any(|entry| text[entry.value_span.clone()].contains('\r'));
        if let Some(line) = document.first_crlf.filter(|_| !within) {
            text = text.replace("\r\n", "\n");
            self.done(codes::CRLF, line, "its line ends, now LF");
        }
        if !text.is_empty() && !text.ends_with('\n') {
            let line = text.lines().count();
            text.push('\n');
            self.done(codes::NO_NEWLINE, line, "the end of the last line");
        }
        self.lines(&text)
    }

    fn lines(&mut self, text: &str) -> String {
        let document = Document::parse(text);
        // By their places: what stands there afterwards.
        let mut changes: Vec<(std::ops::Range<usize>, String)> = Vec::new();
        for comment in document.comments.iter().filter(|comment| comment.continues) {
            let line = text[comment.span.clone()].trim_end_matches(['\\', ' ', '\t']);
            changes.push((comment.span.clone(), line.to_owned()));
            let what = format!(
                "line {}: the backslash at the comment's end, gone",
                comment.line
            );
            self.done(codes::COMMENT_CONTINUES, comment.line, what);
        }
        // Names that stand there with several values: which one counts, only a person knows.
        let other = |entry: &&Entry| {
            let last = document.get(&entry.name);
            last.is_some_and(|last| last.value != entry.value)
        };
        let differing = document.entries.iter().filter(other);
        let differing: BTreeSet<&str> = differing.map(|entry| entry.name.as_str()).collect();
        for entry in &document.entries {
            if let Some(new) = self.entry(text, &document, &differing, entry) {
                changes.push((entry.span.clone(), new));
            }
        }
        changes.sort_by_key(|(span, _)| span.start);
        let mut new = String::with_capacity(text.len());
        let mut at = 0;
        for (span, with) in changes {
            new.push_str(&text[at..span.start]);
            new.push_str(&with);
            at = span.end;
        }
        new.push_str(&text[at..]);
        new
    }

    /// What a line is to be; none when it stays.
    fn entry(
        &mut self,
        text: &str,
        document: &Document,
        differing: &BTreeSet<&str>,
        entry: &Entry,
    ) -> Option<String> {
        let line = entry.line;
        let last = document.get(&entry.name)?;
        if last.line != line && !differing.contains(entry.name.as_str()) {
            self.done(
                codes::REPEATED,
                line,
                format!(
                    "line {line}: {}, which is repeated in line {}",
                    entry.name, last.line
                ),
            );
            return Some(String::new());
        }
        let mut name = entry.name.clone();
        if let Some(new) = self.new_name(&entry.name) {
            match document.get(&new) {
                Some(other) if other.value == entry.value => {
                    self.done(
                        codes::RENAMED,
                        line,
                        format!("line {line}: {name}, which {new} has replaced"),
                    );
                    self.renamed.insert(name, new);
                    return Some(String::new());
                }
                Some(_) => {}
                None => {
                    self.done(
                        codes::RENAMED,
                        line,
                        format!("line {line}: {name}, now {new}"),
                    );
                    self.renamed.insert(name, new.clone());
                    name = new;
                }
            }
        }
        let value = self.value(entry, &name);
        let comment = text[entry.value_span.end..entry.span.end].trim();
        let quoted = self.requoted(text, document, entry, &name, &value, comment);
        if let Some(quoted) = quoted {
            return Some(quoted);
        }
        if name == entry.name && value == entry.value {
            return None;
        }
        // Only the name or the value changes; the rest of the line stays.
        let raw = match value == entry.value {
            true => text[entry.value_span.clone()].to_owned(),
            false => render("K", &value).ok()?[2..].to_owned(),
        };
        Some(format!(
            "{}{name}{}{raw}{}",
            &text[entry.span.start..entry.name_span.start],
            &text[entry.name_span.end..entry.value_span.start],
            &text[entry.value_span.end..entry.span.end]
        ))
    }

    fn new_name(&self, name: &str) -> Option<String> {
        let environment = self.env.environment.as_deref()?;
        self.env.spec?;
        if self.deployment.variable(self.env, name).is_some() {
            return None;
        }
        let variables = &self.deployment.place.as_ref()?.schema.variables;
        let of = variables
            .iter()
            .find(|variable| variable.former_in(environment).any(|former| former == name))?;
        // Two former names of one variable: which one counts, only a person knows.
        let formers = of
            .former_in(environment)
            .filter(|former| self.env.document.get(former).is_some());
        (formers.count() == 1).then(|| of.name_in(environment))
    }

    /// The value with the driver that is asked for.
    fn value(&mut self, entry: &Entry, name: &str) -> String {
        let value = entry.value.as_str();
        let found = address::driver(value);
        let kind = self
            .deployment
            .variable(self.env, name)
            .map(|variable| &variable.kind);
        let wanted = match kind {
            Some(Kind::PostgresUrl { driver }) => driver.as_deref(),
            _ => found,
        };
        let scheme = value.split("://").next().unwrap_or_default();
        if !value.contains("://") || !scheme.starts_with("postgres") {
            return value.to_owned();
        }
        let sslmode = wanted == Some("asyncpg") && value.contains("sslmode=");
        if wanted == found && !sslmode {
            return value.to_owned();
        }
        let Some(new) = address::with_driver(value, wanted).filter(|new| tier(new).is_ok()) else {
            return value.to_owned();
        };
        let line = entry.line;
        if wanted != found {
            self.done(
                codes::WRONG_DRIVER,
                line,
                format!("line {line}: the driver of {name}"),
            );
        }
        if sslmode {
            self.done(
                codes::SSLMODE,
                line,
                format!("line {line}: sslmode in {name}, now ssl"),
            );
        }
        self.revalued.insert(name.to_owned(), new.clone());
        new
    }

    /// The line in a way that more readers agree on, when there is no doubt what is meant.
    fn requoted(
        &mut self,
        text: &str,
        document: &Document,
        entry: &Entry,
        name: &str,
        value: &str,
        comment: &str,
    ) -> Option<String> {
        if !is_name(name) {
            return None;
        }
        let written = render(name, value).ok()?;
        let tier = tier(value).ok()?;
        let raw = &text[entry.value_span.clone()];
        let old = format!(
            "{}{raw}",
            &text[entry.name_span.start..entry.value_span.start]
        );
        let differs = |line: &str, core: bool| {
            let readers = Tier::SingleQuotes
                .readers()
                .chain([Reader::DockerRun, Reader::Xargs]);
            let mild = [
                Reader::DockerRun,
                Reader::Xargs,
                Reader::NodeDotenv,
                Reader::NodeEnvFile,
            ];
            let mut readers = readers.filter(|reader| !core || !mild.contains(reader));
            readers
                .any(|reader| reader.read(line.as_bytes()).value(&entry.name) != Some(&entry.value))
        };
        let whole = format!(
            "{}\n",
            text[entry.span.clone()]
                .trim()
                .trim_start_matches("export")
                .trim_start()
        );
        let (core, any) = (differs(&whole, true), differs(&whole, false));
        let helps = core || entry.exported || (any && tier == Tier::Everywhere);
        let moved = !comment.is_empty();
        let doubtful = match entry.quote {
            // What is in single quotes is meant as it stands.
            Some('\'') => false,
            _ => doubtful(raw, document) || (entry.quote.is_none() && moved),
        };
        let comment_is_one =
            comment.is_empty() || (comment.starts_with('#') && !comment.ends_with('\\'));
        if !helps || doubtful || !comment_is_one || (written == old && !entry.exported && !moved) {
            return None;
        }
        let line = entry.line;
        for code in [codes::READ_DIFFERENTLY, codes::RUNS] {
            self.done(code, line, "");
        }
        if tier == Tier::Everywhere {
            self.done(codes::READ_OTHERWISE, line, "");
        }
        if entry.exported {
            self.done(codes::EXPORT, line, "");
        }
        self.whats.push(format!(
            "line {line}: {name}, written so that more readers agree"
        ));
        let comment = if moved {
            format!("{comment}\n")
        } else {
            String::new()
        };
        Some(format!("{comment}{written}\n"))
    }

    /// Whether the new text gives the same values, to us and to python-dotenv, but for what was
    /// changed on purpose.
    fn keeps_all(&self, old: &str, new: &str) -> bool {
        let values = |text: &str| -> BTreeMap<String, String> {
            let entries = Document::parse(text).entries;
            entries
                .into_iter()
                .map(|entry| (entry.name, entry.value))
                .collect()
        };
        let mut wanted: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in values(old) {
            let name = self.renamed.get(&name).cloned().unwrap_or(name);
            let value = self.revalued.get(&name).cloned().unwrap_or(value);
            wanted.insert(name, value);
        }
        Document::parse(old).broken.len() == Document::parse(new).broken.len()
            && values(new) == wanted
    }
}

/// Whether `$` or a backtick could be meant as an expansion.
fn doubtful(raw: &str, document: &Document) -> bool {
    if raw.contains('`') {
        return true;
    }
    raw.match_indices('$').any(|(at, _)| {
        let after = &raw[at + 1..];
        let escaped = raw[..at].ends_with('\\');
        let name: String = after
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        !escaped && (after.starts_with(['{', '(']) || document.get(&name).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rg_common::env_file::dialect::ALL;

    fn deployment(text: &str) -> Deployment {
        let directory = std::env::temp_dir().join(format!("rg-mend-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(".env");
        std::fs::write(&path, text).unwrap();
        let read = file::read(&path).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        Deployment::of_files(vec![read]).unwrap()
    }

    fn mended(text: &str) -> String {
        let deployment = deployment(text);
        plan(&deployment, &deployment.files[0])
            .text
            .unwrap_or_else(|| text.to_owned())
    }

    fn values(text: &str) -> BTreeMap<String, String> {
        let entries = Document::parse(text).entries.into_iter();
        entries.map(|entry| (entry.name, entry.value)).collect()
    }

    #[test]
    fn mending_keeps_values_and_never_makes_readers_disagree_that_agreed() {
        let line = "(export )?[AB] ?= ?[a-z0-9$ '\"#`\\\\{}&;]{0,8}|# [a-z\\\\]{0,3}|[a-z ]{0,3}";
        let text = prop::collection::vec((line, "\r?\n"), 0..6);
        let text = text.prop_map(|lines| {
            lines
                .into_iter()
                .map(|(line, end)| line + &end)
                .collect::<String>()
        });
        // One file on disk at a time: the cases run one after the other.
        proptest!(ProptestConfig::with_cases(600), |(text in text)| {
            let new = mended(&text);
            prop_assert_eq!(values(&text), values(&new));
            prop_assert_eq!(&mended(&new), &new);
            for name in ["A", "B"] {
                let seen = |text: &str, reader: Reader| reader.read(text.as_bytes()).value(name).map(str::to_owned);
                let tier = Tier::SingleQuotes.readers();
                let mut before = tier.map(|reader| seen(&text, reader));
                let first = before.next().flatten();
                if first.is_some() && before.all(|value| value == first) {
                    for reader in Tier::SingleQuotes.readers() {
                        prop_assert_eq!(&seen(&new, reader), &first, "{:?}", reader);
                    }
                    let everywhere = ALL.into_iter().all(|reader| seen(&text, reader) == first);
                    if everywhere {
                        prop_assert!(ALL.into_iter().all(|reader| seen(&new, reader) == first));
                    }
                }
            }
        });
    }
}
