//! The Nagios plugin protocol: one line first, figures behind `|`, exit codes 0 to 3.
//! Nagios reads 4 kB of a plugin's output; what matters stands before that.
//!
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::fmt::Write as _;

use rg_common::check::{Figure, Finding, State, Unit};

use super::Round;
use super::human::one_line;

/// What Nagios reads of a plugin.
const BYTES_MAX: usize = 4000;
/// What is kept of one finding's text.
const FOUND_CHARS: usize = 160;

/// The protocol's code of a state.
pub fn code(state: State) -> u8 {
    match state {
        State::Pass | State::Skip => 0,
        State::Warn => 1,
        State::Fail => 2,
        State::Unknown => 3,
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Pass | State::Skip => "OK",
        State::Warn => "WARNING",
        State::Fail => "CRITICAL",
        State::Unknown => "UNKNOWN",
    }
}

/// What is said when the checks could not be run at all.
pub fn failed(why: &str) -> String {
    format!("RG UNKNOWN - {}\n", safe(why))
}

/// The whole output: status line with the figures of the bad ones, a line for each finding, the other figures.
pub fn write(round: &Round) -> String {
    let tally = round.tally();
    let mut bad: Vec<&Finding> = round
        .findings
        .iter()
        .filter(|f| f.state.is_bad() && f.because.is_none())
        .collect();
    bad.sort_by_key(|finding| std::cmp::Reverse(code_rank(finding.state)));
    let mut first = format!(
        "RG {} - {} of {} checks well",
        word(round.state()),
        tally.pass,
        round.findings.len() - tally.skip
    );
    for finding in &bad {
        let part = format!("; {}: {}", finding.id, safe(&finding.found));
        if first.len() + part.len() > BYTES_MAX / 4 {
            first.push_str("; more below");
            break;
        }
        first.push_str(&part);
    }
    // The figures of what is bad come first: the end may be cut.
    let figures: Vec<String> = bad
        .iter()
        .copied()
        .chain(
            round
                .findings
                .iter()
                .filter(|f| !bad.iter().any(|b| b.id == f.id)),
        )
        .flat_map(|finding| finding.figures.iter().map(|f| perfdata(&finding.id, f)))
        .collect();
    let mut text = first;
    let mut figures = figures.into_iter().peekable();
    if figures.peek().is_some() {
        text.push_str(" |");
    }
    let mut rest = Vec::new();
    for figure in figures {
        if rest.is_empty() && text.len() + figure.len() < BYTES_MAX / 2 {
            text.push(' ');
            text.push_str(&figure);
        } else {
            rest.push(figure);
        }
    }
    text.push('\n');
    for finding in round.findings.iter().filter(|f| f.state.is_bad()) {
        let line = format!(
            "{} {}: {}\n",
            word(finding.state),
            finding.id,
            safe(&finding.found)
        );
        if text.len() + line.len() > BYTES_MAX {
            break;
        }
        text.push_str(&line);
    }
    if !rest.is_empty() && text.len() < BYTES_MAX {
        text.push('|');
        for figure in rest {
            if text.len() + figure.len() + 1 > BYTES_MAX {
                break;
            }
            // Writing to a String cannot fail.
            writeln!(text, " {figure}").ok();
        }
    }
    text
}

fn code_rank(state: State) -> u8 {
    match state {
        State::Fail => 3,
        State::Unknown => 2,
        State::Warn => 1,
        _ => 0,
    }
}

/// `'label'=value[UOM];[warn];[crit]`; a quote in a label is doubled, `=` is not allowed there.
fn perfdata(id: &str, figure: &Figure) -> String {
    let label = format!("{id} {}", figure.name)
        .replace('\'', "''")
        .replace('=', "_");
    let (uom, digits) = match figure.unit {
        Unit::Seconds => ("s", 6),
        Unit::Bytes => ("B", 0),
        Unit::Percent => ("%", 2),
        Unit::Count => ("", 3),
    };
    let number = |value: f64| {
        let text = format!("{value:.digits$}");
        match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        }
    };
    let bound = |bound: Option<f64>| bound.map(number).unwrap_or_default();
    // A bound below the value's good side reads `10:` (alert if less than 10).
    let less_is_worse = matches!((figure.warn, figure.fail), (Some(w), Some(f)) if f < w);
    let side = if less_is_worse { ":" } else { "" };
    let range = |text: String| {
        if text.is_empty() {
            text
        } else {
            format!("{text}{side}")
        }
    };
    let (warn, fail) = (range(bound(figure.warn)), range(bound(figure.fail)));
    let text = format!("'{label}'={}{uom};{warn};{fail}", number(figure.value));
    text.trim_end_matches(';').to_owned()
}

/// `|` and line ends have a meaning here.
fn safe(text: &str) -> String {
    let mut text: String = one_line(text).replace('|', "/");
    if let Some((at, _)) = text.char_indices().nth(FOUND_CHARS) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{finding, mixed, round};
    use super::*;

    #[test]
    fn one_line_first_then_the_figures() {
        assert_eq!(
            write(&mixed()),
            "RG CRITICAL - 1 of 5 checks well; production/unit/api: failed: exit-code 1; \
             production/tls/api.rgrid.dev: no route; host/disk/: 82 % used | \
             'host/disk/ used'=82%;80;90 'host/disk/ free'=1000000000B \
             'production/http/health total'=0.012s;;0.05\n\
             WARNING host/disk/: 82 % used\n\
             CRITICAL production/unit/api: failed: exit-code 1\n\
             CRITICAL production/http/health: 500 in 12 ms\n\
             UNKNOWN production/tls/api.rgrid.dev: no route\n"
        );
        assert_eq!(code(mixed().state()), 2);
    }

    #[test]
    fn an_answer_cannot_forge_figures_or_lines() {
        let text = write(&round(vec![finding("a'b=c", State::Fail, "x | 'y'=1\nOK")]));
        assert_eq!(text.matches('|').count(), 0);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_thousand_failures_stay_within_what_nagios_reads() {
        let findings = (0..1000)
            .map(|n| {
                let mut f = finding(&format!("check/{n}"), State::Fail, &"long ".repeat(99));
                f.figures = vec![Figure::new("v", 1.0, Unit::Count)];
                f
            })
            .collect();
        let text = write(&round(findings));
        assert!(text.len() <= BYTES_MAX, "{}", text.len());
        assert!(text.lines().next().unwrap().contains("more below"));
    }

    #[test]
    fn where_less_is_worse_the_range_says_so() {
        let left = Figure::new("left", 5.5, Unit::Count).bounds(Some(10.0), Some(3.0));
        assert_eq!(perfdata("tls", &left), "'tls left'=5.5;10:;3:");
    }
}
