//! Prometheus' text format, for the node exporter's textfile collector. No timestamps: the
//! collector refuses them; `rg_healthcheck_last_run_timestamp_seconds` shows staleness.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rg_common::check::{State, Unit};

use super::Round;

/// The states in the order of their value in nothing: each is a series of its own, 0 or 1.
const STATES: [State; 5] = [
    State::Pass,
    State::Skip,
    State::Warn,
    State::Unknown,
    State::Fail,
];

/// All series; families together, each with its help and type once.
pub fn write(round: &Round) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if samples.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
        for (labels, value) in samples {
            writeln!(text, "{name}{labels} {value}").ok();
        }
    };
    let labels = |id: &str, environment: Option<&str>, more: Option<(&str, &str)>| {
        let mut text = format!("{{check=\"{}\"", escaped(id));
        if let Some(environment) = environment {
            write!(text, ",environment=\"{}\"", escaped(environment)).ok();
        }
        if let Some((name, value)) = more {
            write!(text, ",{name}=\"{}\"", escaped(value)).ok();
        }
        text.push('}');
        text
    };
    let states = round.findings.iter().flat_map(|finding| {
        STATES.map(|state| {
            let labels = labels(
                &finding.id,
                finding.environment.as_deref(),
                Some(("state", state.word())),
            );
            (labels, f64::from(u8::from(finding.state == state)))
        })
    });
    family(
        "rg_check_state",
        "Whether the check is in this state.",
        states.collect(),
    );
    let took = round.findings.iter().map(|finding| {
        let labels = labels(&finding.id, finding.environment.as_deref(), None);
        (labels, finding.took_ms as f64 / 1000.0)
    });
    family(
        "rg_check_duration_seconds",
        "How long the check took.",
        took.collect(),
    );
    let mut figures: BTreeMap<&str, Vec<(String, f64)>> = BTreeMap::new();
    for finding in &round.findings {
        for figure in &finding.figures {
            let (name, value) = match figure.unit {
                Unit::Seconds => ("rg_check_figure_seconds", figure.value),
                Unit::Bytes => ("rg_check_figure_bytes", figure.value),
                Unit::Percent => ("rg_check_figure_ratio", figure.value / 100.0),
                Unit::Count => ("rg_check_figure_items", figure.value),
            };
            let labels = labels(
                &finding.id,
                finding.environment.as_deref(),
                Some(("figure", &figure.name)),
            );
            figures.entry(name).or_default().push((labels, value));
        }
    }
    for (name, samples) in figures {
        family(name, "What the check measured.", samples);
    }
    family(
        "rg_healthcheck_last_run_timestamp_seconds",
        "When the checks were run.",
        vec![(String::new(), round.at.as_second() as f64)],
    );
    family(
        "rg_healthcheck_duration_seconds",
        "How long all checks took.",
        vec![(String::new(), round.took_ms as f64 / 1000.0)],
    );
    text
}

/// A label's value: backslash, quote and line end are escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{finding, mixed, round};
    use super::*;

    #[test]
    fn every_state_is_a_series_and_every_family_is_named_once() {
        let text = write(&mixed());
        assert!(text.contains(
            "rg_check_state{check=\"production/unit/api\",environment=\"production\",state=\"fail\"} 1\n"
        ));
        assert!(
            text.contains("rg_check_figure_ratio{check=\"host/disk/\",figure=\"used\"} 0.82\n")
        );
        for name in [
            "rg_check_state",
            "rg_check_figure_ratio",
            "rg_check_figure_bytes",
        ] {
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1);
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let text = write(&round(vec![finding("a\"} 1\nb\\", State::Pass, "")]));
        assert!(text.contains("{check=\"a\\\"} 1\\nb\\\\\",state=\"pass\"} 1\n"));
    }
}
