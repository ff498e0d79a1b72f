//! For people: what is bad first in its place, with its cause and what to do; what is well in a line.

use rg_common::check::{Finding, State};
use rg_common::report::{Page, Tone, span};

use super::Round;

/// The page. What is well is counted, and listed with `verbose`.
pub fn write(round: &Round, verbose: bool, page: &mut Page) {
    let mut group: Option<Option<&str>> = None;
    for finding in &round.findings {
        let quiet = matches!(finding.state, State::Pass | State::Skip);
        if quiet && !verbose {
            continue;
        }
        let of = finding.environment.as_deref();
        if group != Some(of) {
            page.line(page.tone(Tone::Faint, of.unwrap_or("this machine")));
            group = Some(of);
        }
        one(finding, page);
    }
    for trouble in &round.troubles {
        page.line(format!("{} {trouble}", page.tone(Tone::Warn, "note:")));
    }
    for told in &round.told {
        page.line(page.tone(Tone::Faint, told));
    }
    page.line(summary(round, page));
}

fn one(finding: &Finding, page: &mut Page) {
    let (tone, word) = match finding.state {
        State::Pass => (Tone::Good, "pass"),
        State::Skip => (Tone::Faint, "skip"),
        State::Warn => (Tone::Warn, "WARN"),
        State::Unknown => (Tone::Warn, "????"),
        State::Fail => (Tone::Bad, "FAIL"),
    };
    let name = finding
        .environment
        .as_deref()
        .and_then(|environment| finding.id.strip_prefix(environment)?.strip_prefix('/'))
        .unwrap_or(&finding.id);
    page.line(format!(
        "  {}  {name}: {}",
        page.tone(tone, word),
        one_line(&finding.found)
    ));
    if let Some(cause) = &finding.because {
        page.line(format!("        because of {cause}"));
        return;
    }
    for line in &finding.evidence {
        page.line(page.tone(Tone::Faint, &format!("        {}", one_line(line))));
    }
    if let (true, Some(fix)) = (finding.state.is_bad(), &finding.fix) {
        page.line(format!("        to do: {}", one_line(fix)));
    }
}

/// Answers of servers are shown: a control character in one must not steer the terminal.
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn summary(round: &Round, page: &Page) -> String {
    let tally = round.tally();
    let mut parts = Vec::new();
    for (n, word, tone) in [
        (tally.fail, "failed", Tone::Bad),
        (tally.unknown, "could not be told", Tone::Warn),
        (tally.warn, "to look at", Tone::Warn),
        (tally.pass, "well", Tone::Good),
        (tally.skip, "skipped", Tone::Faint),
    ] {
        if n > 0 {
            parts.push(page.tone(tone, &format!("{n} {word}")));
        }
    }
    if parts.is_empty() {
        parts.push("nothing was checked".to_owned());
    }
    let took = match round.took_ms {
        ms if ms < 10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        ms => span(ms / 1000),
    };
    format!("{}: {} in {took}", round.host, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{finding, mixed, round};
    use super::*;

    fn text(round: &Round, verbose: bool) -> String {
        let mut page = Page::new(false);
        write(round, verbose, &mut page);
        page.text().to_owned()
    }

    #[test]
    fn what_is_bad_stands_with_its_cause_and_what_to_do() {
        assert_eq!(
            text(&mixed(), false),
            "this machine\n\
             \x20 WARN  host/disk/: 82 % used\n\
             \x20       to do: systemctl restart it\n\
             production\n\
             \x20 FAIL  unit/api: failed: exit-code 1\n\
             \x20       api[7]: cannot bind\n\
             \x20       to do: systemctl restart it\n\
             \x20 FAIL  http/health: 500 in 12 ms\n\
             \x20       because of production/unit/api\n\
             \x20 ????  tls/api.rgrid.dev: no route\n\
             \x20       to do: systemctl restart it\n\
             vps-1: 2 failed, 1 could not be told, 1 to look at, 1 well in 0.0 s\n"
        );
    }

    #[test]
    fn all_well_is_one_line() {
        let round = round(vec![finding("host/clock", State::Pass, "in step")]);
        assert_eq!(text(&round, false), "vps-1: 1 well in 0.0 s\n");
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        let round = round(vec![finding("x", State::Fail, "\x1b[2Jall\nwell")]);
        assert!(!text(&round, false).contains('\x1b'));
    }
}
