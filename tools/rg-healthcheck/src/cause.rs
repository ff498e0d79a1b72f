//! Which failure is another's consequence.
//!
//! A check may need others: the page needs the unit, the unit the database, the database room on
//! its disk. Where what it needs has failed, its own trouble is a consequence: it is still looked at
//! and shown, and told under its cause. Only a failure explains; a warning, or not having been able
//! to look, explains nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use rg_common::check::{Finding, State};

/// Sets `because` of every finding whose cause is another one, to the root: the failed check that
/// has no failed check beneath it.
pub fn explain(findings: &mut [Finding], needs: &BTreeMap<String, Vec<String>>) {
    let failed: HashSet<String> = findings
        .iter()
        .filter(|finding| finding.state == State::Fail)
        .map(|finding| finding.id.clone())
        .collect();
    let mut roots: HashMap<String, Option<String>> = HashMap::new();
    for finding in findings.iter_mut().filter(|f| f.state.is_bad()) {
        let mut path = vec![finding.id.clone()];
        finding.because = root(&finding.id, &failed, needs, &mut roots, &mut path);
    }
    // A cause that has a cause itself stands in a ring: then everybody speaks.
    let explained: HashSet<String> = findings
        .iter()
        .filter(|finding| finding.because.is_some())
        .map(|finding| finding.id.clone())
        .collect();
    for finding in findings {
        finding.because = finding
            .because
            .take()
            .filter(|cause| !explained.contains(cause));
    }
}

/// The root beneath `id`, other than itself.
fn root(
    id: &str,
    failed: &HashSet<String>,
    needs: &BTreeMap<String, Vec<String>>,
    known: &mut HashMap<String, Option<String>>,
    path: &mut Vec<String>,
) -> Option<String> {
    if let Some(found) = known.get(id) {
        return found.clone();
    }
    for need in needs.get(id).into_iter().flatten() {
        if !failed.contains(need) || path.contains(need) {
            continue;
        }
        path.push(need.clone());
        let deeper = root(need, failed, needs, known, path);
        path.pop();
        let found = deeper.unwrap_or_else(|| need.clone());
        if found == id {
            continue;
        }
        // What a ring cut short is right for this path only.
        if path.len() == 1 {
            known.insert(id.to_owned(), Some(found.clone()));
        }
        return Some(found);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(id: &str, state: State) -> Finding {
        Finding {
            id: id.to_owned(),
            environment: None,
            about: String::new(),
            state,
            found: String::new(),
            fix: None,
            figures: Vec::new(),
            evidence: Vec::new(),
            took_ms: 0,
            because: None,
        }
    }

    fn causes(states: &[(&str, State)], needs: &[(&str, &[&str])]) -> Vec<Option<String>> {
        let mut findings: Vec<Finding> = states
            .iter()
            .map(|(id, state)| finding(id, *state))
            .collect();
        let needs = needs
            .iter()
            .map(|(id, on)| {
                (
                    (*id).to_owned(),
                    on.iter().map(|n| (*n).to_owned()).collect(),
                )
            })
            .collect();
        explain(&mut findings, &needs);
        findings.into_iter().map(|f| f.because).collect()
    }

    #[test]
    fn the_root_is_the_cause_of_all_above_it() {
        use State::*;
        assert_eq!(
            causes(
                &[
                    ("page", Fail),
                    ("unit", Fail),
                    ("disk", Fail),
                    ("other", Fail)
                ],
                &[("page", &["unit"]), ("unit", &["disk"])]
            ),
            [Some("disk".to_owned()), Some("disk".to_owned()), None, None]
        );
    }

    #[test]
    fn only_a_failure_explains_and_only_what_is_bad_is_explained() {
        use State::*;
        for beneath in [Pass, Skip, Warn, Unknown] {
            assert_eq!(
                causes(&[("page", Fail), ("unit", beneath)], &[("page", &["unit"])]),
                [None, None]
            );
        }
        assert_eq!(
            causes(&[("page", Pass), ("unit", Fail)], &[("page", &["unit"])]),
            [None, None]
        );
        assert_eq!(
            causes(&[("page", Unknown), ("unit", Fail)], &[("page", &["unit"])])[0].as_deref(),
            Some("unit")
        );
    }

    #[test]
    fn in_a_ring_somebody_still_speaks() {
        use State::*;
        let found = causes(
            &[("a", Fail), ("b", Fail), ("c", Fail)],
            &[("a", &["b"]), ("b", &["c"]), ("c", &["a"])],
        );
        // Told is what has no cause; a ring must not silence itself whole.
        let spoken = found.iter().filter(|cause| cause.is_none()).count();
        let told: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
        assert!(spoken > 0, "{told:?}");
    }
}
