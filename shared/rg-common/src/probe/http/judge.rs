//! All assertions of a check on one answer: one verdict, which names every one that does not hold.

use std::time::Duration;

use super::{Answer, BODY_BYTES_MAX, HttpFacts};
use crate::check::{State, Verdict};
use crate::config::HttpCheck;
use crate::failure::{Failure, Result};
use crate::probe::clock::{Times, span};
use crate::probe::excerpt;
use crate::probe::network::Family;
use crate::probe::tcp::figures;
use crate::probe::trouble::{Phase, TroubleKind};

/// The most assertions that one verdict names.
const NAMED_MAX: usize = 8;

/// Good if every assertion of the check holds.
pub fn judge(check: &HttpCheck, facts: &HttpFacts) -> Verdict {
    let max = check.max_ms.map(Duration::from_millis);
    let verdict = match &facts.answer {
        Err(trouble) => Verdict::fail(format!("{}{}", after(facts), trouble.what), trouble.fix()),
        Ok(answer) => {
            let mut faults = faults(check, answer);
            let slow = max.is_some_and(|max| facts.times.total > max);
            if slow {
                faults.push(too_slow(&facts.times, max.unwrap_or_default()));
            }
            if faults.is_empty() {
                Verdict::pass(well(facts, answer))
            } else {
                bad(check, answer, &faults, after(facts))
            }
        }
    };
    let mut verdict = figures(verdict, &facts.times);
    for figure in verdict.figures.iter_mut().filter(|one| one.name == "total") {
        figure.fail = max.map(|max| max.as_secs_f64());
    }
    verdict
}

fn well(facts: &HttpFacts, answer: &Answer) -> String {
    let cut = if answer.body_cut {
        format!(
            "; the first {} were read of a longer answer",
            crate::report::bytes(BODY_BYTES_MAX)
        )
    } else {
        String::new()
    };
    format!(
        "{}{} in {}{cut}",
        after(facts),
        answer.status,
        span(facts.times.total)
    )
}

fn bad(check: &HttpCheck, answer: &Answer, faults: &[String], after: String) -> Verdict {
    let mut named = faults[..faults.len().min(NAMED_MAX)].join("; ");
    if faults.len() > NAMED_MAX {
        named.push_str(&format!("; and {} more", faults.len() - NAMED_MAX));
    }
    let fix = match answer.status {
        502..=504 if check.status != answer.status => {
            "the proxy does not get an answer from the app: is the app's unit up?"
        }
        500.. if check.status != answer.status => "look at the app's log",
        300..400 if check.status != answer.status => "name the address that it redirects to",
        404 if check.status != answer.status => "is the path right, and the release deployed?",
        _ => "look at the answer: `curl -si` shows it",
    };
    let verdict = Verdict::fail(format!("{after}{named}"), fix);
    if answer.excerpt.is_empty() {
        return verdict;
    }
    verdict.evidence([format!("answer: {}", answer.excerpt)])
}

fn after(facts: &HttpFacts) -> String {
    match facts.hops.as_slice() {
        [] => String::new(),
        [one] => format!("redirected to {}: ", one.to),
        [.., last] => format!("redirected {} times, to {}: ", facts.hops.len(), last.to),
    }
}

/// Every assertion that does not hold, in words.
fn faults(check: &HttpCheck, answer: &Answer) -> Vec<String> {
    let mut faults = Vec::new();
    if answer.status != check.status {
        let location = header(answer, "location").filter(|_| (300..400).contains(&answer.status));
        let to = location.map_or(String::new(), |to| {
            let to = to.split(['?', '#']).next().unwrap_or_default();
            format!(" (to {})", excerpt::text(to))
        });
        faults.push(format!(
            "it answers {}{to}, not {}",
            answer.status, check.status
        ));
    }
    for (name, part) in &check.headers {
        faults.extend(header_fault(answer, name, part));
    }
    match &answer.json {
        Err(why) => faults.push(format!("the answer {why}")),
        Ok(looks) => {
            for look in looks.iter().filter(|look| !look.is_well()) {
                let (path, expected) = (&look.path, &look.expected);
                let among = match look.count {
                    0 | 1 => String::new(),
                    count => format!(" (one of {count})"),
                };
                faults.push(match &look.other {
                    Some(other) => format!("`{path}` is {other}{among}, not {expected}"),
                    None => format!("`{path}` leads nowhere in the answer {}", answer.excerpt),
                });
            }
        }
    }
    if let (Some(text), Some(false)) = (&check.contains, answer.contains) {
        let among = if answer.body_cut {
            format!("the first {} of ", crate::report::bytes(BODY_BYTES_MAX))
        } else {
            String::new()
        };
        faults.push(format!(
            "`{}` is not in {among}the answer",
            excerpt::text(text)
        ));
    }
    faults
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let mut all = answer.headers.iter();
    let found = all.find(|(one, _)| one.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn header_fault(answer: &Answer, name: &str, part: &str) -> Option<String> {
    let values: Vec<&str> = answer
        .headers
        .iter()
        .filter(|(one, _)| one.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
        .collect();
    if values.iter().any(|value| value.contains(part)) {
        return None;
    }
    Some(if values.is_empty() {
        format!("header `{name}` is not there")
    } else if excerpt::names_a_secret(name) {
        format!("header `{name}` does not have `{part}`")
    } else {
        let shown = excerpt::text(&values.join(", "));
        format!("header `{name}` is `{shown}`, without `{part}`")
    })
}

/// `it took 2.3 s, 50 ms are allowed: TLS 2.1 s of it`
fn too_slow(times: &Times, max: Duration) -> String {
    let total = span(times.total);
    let most = times.slowest().map_or(String::new(), |(phase, time)| {
        format!(": {} {} of {total}", Phase::word(phase), span(time))
    });
    format!("it took {total}, allowed are {}{most}", span(max))
}

/// One verdict over IPv4 and IPv6. A family without an address does not count, as long as the
/// other has one; a family that cannot be used from here makes the whole unknown, unless the
/// other is bad.
pub fn judge_families(
    check: &HttpCheck,
    both: [(Family, Result<HttpFacts>); 2],
) -> Result<Verdict> {
    let mut parts: Vec<(Family, Verdict)> = Vec::new();
    let mut without = None;
    let mut unknown: Option<Failure> = None;
    for (family, facts) in both {
        match facts {
            Err(failure) => unknown = unknown.or(Some(failure.context(family.word()))),
            Ok(facts) if has_no_address(&facts) => without = Some(judge(check, &facts)),
            Ok(facts) => parts.push((family, judge(check, &facts))),
        }
    }
    let failed = parts.iter().any(|(_, one)| one.state == State::Fail);
    if let (Some(failure), false) = (unknown, failed) {
        return Err(failure);
    }
    let found: Vec<String> = parts
        .iter()
        .map(|(family, one)| format!("{}: {}", family.word(), one.found))
        .collect();
    let worst = parts.into_iter().max_by_key(|(_, one)| one.state);
    Ok(match (worst, without) {
        (Some((_, verdict)), _) => Verdict {
            found: found.join("; "),
            ..verdict
        },
        (None, Some(verdict)) => verdict,
        (None, None) => Verdict::skip("not tried"),
    })
}

fn has_no_address(facts: &HttpFacts) -> bool {
    matches!(&facts.answer, Err(trouble) if trouble.kind == TroubleKind::NoAddress)
}
