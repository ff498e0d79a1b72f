//! What readers would read differently, and what a shell would run (F14).

use std::collections::BTreeMap;

use rg_common::env_file::dialect::tier::is_safe;
use rg_common::env_file::dialect::{ALL, Reader, Reading, Seen, TroubleKind, is_name};

use super::Finding;
use super::codes;
use super::file::Env;

/// What a deployment cannot do without; node, `docker run` and xargs are judged milder.
const CORE: [Reader; 5] = [
    Reader::Compose,
    Reader::Systemd,
    Reader::Bash,
    Reader::PythonDotenv,
    Reader::PydanticSettings,
];

/// All readers' readings of a file.
pub fn readings(bytes: &[u8]) -> BTreeMap<Reader, Reading> {
    ALL.into_iter()
        .map(|reader| (reader, reader.read(bytes)))
        .collect()
}

/// Everything about the file's syntax.
pub fn check(env: &Env, findings: &mut Vec<Finding>) {
    let document = &env.document;
    if document.byte_order_mark {
        findings.push(Finding::new(codes::BYTE_ORDER_MARK, env, 1, None, ""));
    }
    if let Some(line) = document.first_crlf {
        findings.push(Finding::new(codes::CRLF, env, line, None, ""));
    }
    for comment in document.comments.iter().filter(|comment| comment.continues) {
        findings.push(Finding::new(
            codes::COMMENT_CONTINUES,
            env,
            comment.line,
            None,
            "",
        ));
    }
    let refused = match document.broken.is_empty() {
        true => None,
        false => Reader::Compose.read(&env.bytes).refused,
    };
    for broken in &document.broken {
        let all = refused
            .as_ref()
            .is_some_and(|refused| refused.line == broken.line);
        let what = match all {
            true => format!("{}; docker compose refuses the whole file", broken.what),
            false => broken.what.to_owned(),
        };
        findings.push(Finding::new(
            codes::NOT_UNDERSTOOD,
            env,
            broken.line,
            None,
            what,
        ));
    }
    if env.text.is_some() && !document.ends_in_newline {
        let line = env.text.as_deref().map_or(1, |text| text.lines().count());
        findings.push(Finding::new(codes::NO_NEWLINE, env, line, None, ""));
    }
    for entry in &document.entries {
        let name = Some(entry.name.as_str());
        if entry.exported {
            findings.push(Finding::new(codes::EXPORT, env, entry.line, name, ""));
        }
        if !is_name(&entry.name) {
            findings.push(Finding::new(codes::ODD_NAME, env, entry.line, name, ""));
            continue;
        }
        values(env, entry, findings);
    }
}

/// One assignment alone, as every reader reads it, so that a line is blamed for what it does itself.
fn values(env: &Env, entry: &rg_common::env_file::document::Entry, findings: &mut Vec<Finding>) {
    let Some(text) = &env.text else { return };
    // The file's other ills have findings of their own: CR, `export`.
    let value = text[entry.value_span.clone()].replace('\r', "");
    let after = text[entry.value_span.end..entry.span.end].trim_end_matches(['\n', '\r']);
    let before = &text[entry.name_span.end..entry.value_span.start];
    let line = format!("{}{before}{value}{after}\n", entry.name);
    // Most lines: safe characters and nothing else. All readers agree on those.
    if before == "=" && after.is_empty() && value.chars().all(is_safe) {
        return;
    }
    let readings = readings(line.as_bytes());
    let name = Some(entry.name.as_str());
    let runs = CORE.iter().filter_map(|reader| {
        let troubles = &readings[reader].troubles;
        troubles
            .iter()
            .find(|trouble| trouble.kind == TroubleKind::Runs)
    });
    if let Some(trouble) = runs.into_iter().next() {
        findings.push(Finding::new(
            codes::RUNS,
            env,
            entry.line,
            name,
            trouble.what,
        ));
    }
    let groups = grouped(&readings, &entry.name);
    if groups.len() < 2 {
        return;
    }
    let core: Vec<&Group> = groups
        .iter()
        .filter(|group| group.0.iter().any(|r| CORE.contains(r)))
        .collect();
    if core.len() > 1 {
        let said = core.iter().map(|group| {
            let readers: Vec<&str> = group
                .0
                .iter()
                .filter(|r| CORE.contains(r))
                .map(|r| r.label())
                .collect();
            format!("{} {}", readers.join(" and "), group.1)
        });
        let said = said.collect::<Vec<_>>().join("; ");
        findings.push(Finding::new(
            codes::READ_DIFFERENTLY,
            env,
            entry.line,
            name,
            said,
        ));
    } else {
        let said = groups
            .iter()
            .filter(|group| !group.0.iter().any(|r| CORE.contains(r)))
            .map(|group| {
                let readers: Vec<&str> = group.0.iter().map(|r| r.label()).collect();
                format!("{} {}", readers.join(" and "), group.1)
            });
        let said = said.collect::<Vec<_>>().join("; ");
        findings.push(Finding::new(
            codes::READ_OTHERWISE,
            env,
            entry.line,
            name,
            said,
        ));
    }
}

/// Readers that read the same, and what they do, without the value.
type Group = (Vec<Reader>, String);

/// Readers by what they read of a name; the largest group first.
pub fn grouped(readings: &BTreeMap<Reader, Reading>, name: &str) -> Vec<Group> {
    let mut seen: Vec<(Seen, Vec<Reader>)> = Vec::new();
    for (reader, reading) in readings {
        let this = match reading.seen(name) {
            // Why it is missing does not make a difference.
            Seen::Missing(_) => Seen::Missing(String::new()),
            other => other,
        };
        match seen.iter_mut().find(|(known, _)| *known == this) {
            Some((_, readers)) => readers.push(*reader),
            None => seen.push((this, vec![*reader])),
        }
    }
    seen.sort_by_key(|(_, readers)| std::cmp::Reverse(readers.len()));
    let best = match seen.first() {
        Some((Seen::Value(value), _)) => value.clone(),
        _ => String::new(),
    };
    seen.into_iter()
        .map(|(seen, readers)| {
            let what = match seen {
                Seen::Value(value) => {
                    let length = value.chars().count();
                    let same = value
                        .chars()
                        .zip(best.chars())
                        .take_while(|(a, b)| a == b)
                        .count();
                    if value == best {
                        format!("read {length} characters")
                    } else {
                        format!(
                            "read {length} characters, other ones from the {} on",
                            nth(same + 1)
                        )
                    }
                }
                Seen::Depends(why) => format!("cannot be told beforehand ({why})"),
                Seen::Missing(_) => "get nothing".to_owned(),
            };
            (readers, what)
        })
        .collect()
}

/// `1st`, `2nd`, `23rd`.
fn nth(n: usize) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}
