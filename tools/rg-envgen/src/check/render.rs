//! What `check` says: to people, to scripts, to code hosts.

use std::collections::BTreeSet;

use rg_common::report::{Outcome, Page, Plain, Report, Tone};
use serde_json::{Value, json};

use super::codes::{ALL, Severity};
use super::{Checked, Finding, codes};

impl Checked {
    fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.code.severity == severity)
            .count()
    }

    fn document(&self) -> Value {
        json!({
            "files": self.files,
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note),
            "findings": self.findings,
            "mended": self.mended,
            "dry_run": self.dry_run,
            "unreadable": self.unreadable,
        })
    }
}

impl Finding {
    /// What is wrong, in one line.
    pub fn said(&self) -> String {
        let name = self
            .name
            .as_ref()
            .map(|name| format!("{name}: "))
            .unwrap_or_default();
        let detail = match self.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        format!("{name}{}{detail}", self.code.about)
    }

    /// `path:line`, or the path.
    fn place(&self) -> String {
        match self.line {
            0 => self.path.clone(),
            line => format!("{}:{line}", self.path),
        }
    }
}

impl Report for Checked {
    fn json(&self) -> serde_json::Result<Value> {
        Ok(self.document())
    }

    fn human(&self, page: &mut Page) {
        for mended in &self.mended {
            let done = if self.dry_run { "would mend" } else { "mended" };
            page.line(format!("{}: {done} {}", mended.path, mended.what));
        }
        let mut mendable = 0;
        for finding in &self.findings {
            let tone = match finding.code.severity {
                Severity::Error => Tone::Bad,
                Severity::Warning => Tone::Warn,
                Severity::Note => Tone::Faint,
            };
            let word = page.tone(
                tone,
                &format!("{} {}", finding.code.id, finding.code.severity.word()),
            );
            page.line(format!("{}: {word}: {}", finding.place(), finding.said()));
            let by_tool = if finding.mends {
                " (--fix does it)"
            } else {
                ""
            };
            page.line(format!("    fix: {}{by_tool}", finding.fix()));
            mendable += usize::from(finding.mends);
        }
        for failure in &self.unreadable {
            page.line(format!(
                "{}: {failure}",
                page.tone(Tone::Bad, "could not look")
            ));
        }
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let counts = [Severity::Error, Severity::Warning, Severity::Note]
            .map(|s| plural(self.count(s), s.word()));
        let mut end = format!(
            "{} checked: {}",
            plural(self.files, "file"),
            counts.join(", ")
        );
        if mendable > 0 {
            end += &format!("; `rg-envgen check --fix` mends {mendable}");
        }
        page.line(end);
    }

    fn outcome(&self) -> Outcome {
        let cannot_tell = self
            .findings
            .iter()
            .any(|finding| finding.code == codes::CANNOT_TELL);
        if cannot_tell || !self.unreadable.is_empty() {
            return Outcome::Incomplete;
        }
        let bad =
            self.count(Severity::Error) > 0 || (self.strict && self.count(Severity::Warning) > 0);
        if bad { Outcome::BadNews } else { Outcome::Well }
    }
}

fn as_text(document: Value, outcome: Outcome) -> Box<dyn Report> {
    Box::new(Plain {
        text: format!("{document:#}"),
        document,
        outcome,
    })
}

/// `--format json`, the same as `--json`.
pub fn json(checked: &Checked) -> Box<dyn Report> {
    as_text(checked.document(), checked.outcome())
}

/// The table of codes.
pub fn table() -> Box<dyn Report> {
    let mut text = String::new();
    for code in ALL {
        let mends = if code.mends {
            ", mended by --fix where nothing is lost"
        } else {
            ""
        };
        text += &format!(
            "{} {}: {}\n    fix: {}{mends}\n",
            code.id,
            code.severity.word(),
            code.about,
            code.fix
        );
    }
    Box::new(Plain {
        document: json!({ "codes": ALL }),
        text,
        outcome: Outcome::Well,
    })
}

/// SARIF 2.1.0, as code hosts read it: the rules that were broken, and where.
pub fn sarif(checked: &Checked) -> Box<dyn Report> {
    let used: BTreeSet<&str> = checked
        .findings
        .iter()
        .map(|finding| finding.code.id)
        .collect();
    let rules: Vec<_> = ALL.iter().filter(|code| used.contains(code.id)).collect();
    let level = |severity: Severity| severity.word();
    let described = rules.iter().map(|code| {
        json!({
            "id": code.id,
            "shortDescription": { "text": code.about },
            "help": { "text": code.fix },
            "defaultConfiguration": { "level": level(code.severity) },
        })
    });
    let results = checked.findings.iter().map(|finding| {
        let rule = rules.iter().position(|code| code.id == finding.code.id);
        let mut place = json!({ "artifactLocation": { "uri": uri(&finding.path) } });
        if finding.line > 0 {
            place["region"] = json!({ "startLine": finding.line });
        }
        json!({
            "ruleId": finding.code.id,
            "ruleIndex": rule,
            "level": level(finding.code.severity),
            "message": { "text": format!("{}. Fix: {}", finding.said(), finding.fix()) },
            "locations": [{ "physicalLocation": place }],
        })
    });
    let troubles = checked
        .unreadable
        .iter()
        .map(|text| json!({ "level": "error", "message": { "text": text } }));
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "rg-envgen",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": described.collect::<Vec<_>>(),
            }},
            "invocations": [{
                "executionSuccessful": checked.unreadable.is_empty(),
                "toolExecutionNotifications": troubles.collect::<Vec<_>>(),
            }],
            "results": results.collect::<Vec<_>>(),
        }],
    });
    as_text(document, checked.outcome())
}

/// A path as a URI: relative paths stay so, for code hosts to find them.
fn uri(path: &str) -> String {
    let mut text = if path.starts_with('/') {
        "file://".to_owned()
    } else {
        String::new()
    };
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
