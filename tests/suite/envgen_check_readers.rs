//! The models of `rg_common::env_file::dialect` beside the real readers.

use std::collections::{BTreeMap, BTreeSet};

use rg_common::env_file::dialect::{ALL, Reader, Reading, Seen, tier};
use rg_tests::{Answer, EnvCase, ask_env_readers, env_cases, recorded_compose};

/// What differs between the model and an answer, for each name.
fn differences(reading: &Reading, case: &EnvCase, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    for name in &case.names {
        let really = answer.as_ref().and_then(|values| values.get(name));
        let modelled = match reading.seen(name) {
            Seen::Depends(_) => continue,
            Seen::Value(value) => Some(value),
            Seen::Missing(_) => None,
        };
        if modelled.as_ref() != really {
            found.push(format!(
                "{:?}: {name} modelled {modelled:?}, really {really:?}",
                case.text
            ));
        }
    }
    found
}

/// Values for the tiers: drawn evenly from what is hard, the same in each run.
fn values() -> Vec<String> {
    let alphabet: Vec<char> = "aZ9_-.,:/@%+=^{} !#$&()*;<>?[]`|~\"'ü".chars().collect();
    let mut state = 42u64;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut word = || {
        (0..1 + draw(12))
            .map(|_| alphabet[draw(alphabet.len())])
            .collect()
    };
    (0..400).map(|_| word()).collect()
}

#[test]
fn every_model_reads_what_the_real_reader_reads() {
    let cases = env_cases();
    let tiered: Vec<(String, tier::Tier)> = values()
        .into_iter()
        .filter_map(|value| tier::tier(&value).ok().map(|tier| (value, tier)))
        .collect();
    assert!(tiered.len() > 100, "{}", tiered.len());
    let written = tiered
        .iter()
        .map(|(value, _)| EnvCase::line(tier::render("K", value).expect("it has a tier") + "\n"));
    let all: Vec<EnvCase> = cases.iter().cloned().chain(written).collect();
    let mut asked = ask_env_readers(&all);
    let recorded = recorded_compose();
    let compose = cases
        .iter()
        .map(|case| recorded[&case.text].clone())
        .collect();
    asked.insert(
        "compose".to_owned(),
        ("2.13.0, recorded".to_owned(), compose),
    );

    let mut differ: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    let mut versions = Vec::new();
    for reader in ALL {
        let Some((version, answers)) = asked.get(reader.id()) else {
            unread.insert(reader);
            continue;
        };
        assert_eq!(
            answers.len(),
            if reader == Reader::Compose {
                cases.len()
            } else {
                all.len()
            }
        );
        versions.push(format!("{}: {version}", reader.label()));
        for (case, answer) in all.iter().zip(answers) {
            let reading = reader.read(case.text.as_bytes());
            differ
                .entry(reader.id())
                .or_default()
                .extend(differences(&reading, case, answer));
        }
        // What is written in a tier is really read back by all of its readers.
        for ((value, tier), answer) in tiered.iter().zip(answers.iter().skip(cases.len())) {
            if tier.readers().any(|one| one == reader) {
                let really = answer.as_ref().and_then(|values| values.get("K"));
                assert_eq!(really, Some(value), "{}", reader.label());
            }
        }
    }
    differ.retain(|_, found| !found.is_empty());
    assert!(differ.is_empty(), "{versions:#?}\n{differ:#?}");
    // One of systemd's two languages is here; the other one needs another distribution.
    assert_eq!(unread.len(), 1, "{unread:?}");
    assert!(
        unread
            .iter()
            .all(|reader| matches!(reader, Reader::Systemd | Reader::Systemd254))
    );
}
