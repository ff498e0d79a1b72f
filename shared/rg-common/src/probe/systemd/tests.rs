//! Answers of a real systemd 252 (Debian 12), replayed; and systemctls that cannot answer.

use super::*;
use crate::check::State;

/// Units in every state, as that machine answered for them in this order.
const RECORDED: &str = include_str!("recorded.txt");
const RECORDED_NAMES: [&str; 14] = [
    "good",
    "loop",
    "bad",
    "killed",
    "off",
    "forgotten",
    "ended",
    "job",
    "job.timer",
    "changed",
    "wrong",
    "masked",
    "nowhere",
    "postgresql",
];
/// The same machine's answer for `postgresql` after `kill -9` of its cluster.
const RECORDED_KILLED: &str = include_str!("recorded_killed_cluster.txt");

fn fake(script: &str) -> Systemd {
    Systemd::by(Program::new("sh").args(["-c", script, "systemctl"]))
}

fn block(changes: &[(&str, &str)]) -> String {
    let mut all: Vec<(&str, &str)> = vec![
        ("Type", "notify"),
        ("MainPID", "812"),
        ("Result", "success"),
        ("NRestarts", "0"),
        ("ExecMainStartTimestampMonotonic", "9000000"),
        ("ExecMainCode", "0"),
        ("ExecMainStatus", "0"),
        ("Id", "api.service"),
        ("RequiredBy", ""),
        ("WantedBy", "multi-user.target"),
        ("TriggeredBy", ""),
        ("LoadState", "loaded"),
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("UnitFileState", "enabled"),
        ("NeedDaemonReload", "no"),
    ];
    for (name, value) in changes {
        all.iter_mut()
            .find(|(n, _)| n == name)
            .expect("a property")
            .1 = value;
    }
    all.iter().map(|(n, v)| format!("{n}={v}\n")).collect()
}

fn unit(changes: &[(&str, &str)]) -> Unit {
    parse_unit(&block(changes)).expect("a unit")
}

fn calm() -> Recent {
    Recent::default()
}

fn said(changes: &[(&str, &str)]) -> (State, String) {
    let verdict = judge(&unit(changes), &[], &calm());
    (verdict.state, verdict.found)
}

#[test]
fn what_is_not_up_is_said_in_exact_words() {
    use State::{Fail, Pass, Warn};
    for (changes, state, words) in [
        (&[][..], Pass, "api.service is active (running)"),
        (
            &[
                ("LoadState", "not-found"),
                ("ActiveState", "inactive"),
                ("SubState", "dead"),
            ],
            Fail,
            "there is no unit api.service",
        ),
        (
            &[("LoadState", "masked"), ("ActiveState", "inactive")],
            Fail,
            "api.service is masked: it cannot be started",
        ),
        (
            &[("ActiveState", "inactive"), ("SubState", "dead")],
            Fail,
            "api.service is not running",
        ),
        (
            &[
                ("ActiveState", "failed"),
                ("SubState", "failed"),
                ("Result", "exit-code"),
                ("ExecMainStatus", "3"),
            ],
            Fail,
            "api.service has failed: exit status 3",
        ),
        (
            &[
                ("ActiveState", "failed"),
                ("SubState", "failed"),
                ("Result", "oom-kill"),
            ],
            Fail,
            "api.service has failed: oom-kill",
        ),
        (
            &[
                ("ActiveState", "activating"),
                ("SubState", "auto-restart"),
                ("Result", "exit-code"),
                ("ExecMainStatus", "1"),
            ],
            Fail,
            "api.service ended and waits to be restarted: exit status 1",
        ),
        (
            &[("SubState", "exited"), ("Type", "simple")],
            Fail,
            "api.service is active, but its process has ended",
        ),
        (
            &[("SubState", "exited"), ("Type", "oneshot")],
            Pass,
            "api.service is active (exited)",
        ),
        (
            &[("NeedDaemonReload", "yes")],
            Warn,
            "the file of api.service has changed since it was loaded",
        ),
        (
            &[("UnitFileState", "disabled"), ("WantedBy", "")],
            Warn,
            "api.service is not enabled: it will not come up after a boot",
        ),
        (
            &[
                ("Id", "rg-backup.timer"),
                ("SubState", "waiting"),
                ("Type", ""),
            ],
            Pass,
            "rg-backup.timer is active (waiting)",
        ),
        (
            &[
                ("Type", "oneshot"),
                ("ActiveState", "inactive"),
                ("SubState", "dead"),
            ],
            Pass,
            "api.service is inactive (dead)",
        ),
    ] {
        assert_eq!(said(changes), (state, words.to_owned()), "{changes:?}");
    }
}

#[test]
fn a_real_systemds_answers_are_understood() {
    use State::{Fail, Pass, Warn};
    let names = RECORDED_NAMES.map(str::to_owned);
    let units = parse(RECORDED, &names).unwrap();
    let wanted = [
        (Pass, "good.service is active (running)"),
        (
            Fail,
            "loop.service ended and waits to be restarted: exit status 3",
        ),
        (Fail, "bad.service has failed: exit status 3"),
        (Fail, "killed.service has failed: signal 9"),
        (Fail, "off.service is not running"),
        (
            Warn,
            "forgotten.service is not enabled: it will not come up after a boot",
        ),
        (Fail, "ended.service is active, but its process has ended"),
        (Pass, "job.service is inactive (dead)"),
        (Pass, "job.timer is active (waiting)"),
        (
            Warn,
            "the file of changed.service has changed since it was loaded",
        ),
        (Fail, "wrong.service cannot be loaded: bad-setting"),
        (Fail, "masked.service is masked: it cannot be started"),
        (Fail, "there is no unit nowhere.service"),
        (Pass, "postgresql@15-main.service runs"),
    ];
    for (name, (state, words)) in names.iter().zip(wanted) {
        let verdict = judge(&units.asked[name], &units.clusters, &calm());
        assert_eq!((verdict.state, verdict.found.as_str()), (state, words));
    }
    let units = parse(RECORDED_KILLED, &["postgresql".to_owned()]).unwrap();
    let verdict = judge(&units.asked["postgresql"], &units.clusters, &calm());
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (
            Fail,
            "postgresql@15-main.service is failed (failed): signal 9"
        )
    );
}

#[test]
fn a_stopped_cluster_is_asked_for_by_its_settings() {
    let etc = std::env::temp_dir().join(format!("rg-clusters-{}", std::process::id()));
    for (cluster, start) in [
        ("15/main", "# how\nauto\n"),
        ("15/old", "manual\n"),
        ("16/main", "auto\n"),
    ] {
        std::fs::create_dir_all(etc.join(cluster)).unwrap();
        std::fs::write(etc.join(cluster).join("start.conf"), start).unwrap();
    }
    let found = clusters_to_run(&etc);
    std::fs::remove_dir_all(&etc).unwrap();
    assert_eq!(
        found,
        ["postgresql@15-main.service", "postgresql@16-main.service"]
    );
    assert!(clusters_to_run(&etc).is_empty());
}

#[test]
fn a_restart_loop_is_found_while_the_unit_is_active() {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let later = Timestamp::from_second(1_800_000_060).expect("a time");
    let first = remember(None, &unit(&[("NRestarts", "58")]), now);
    assert_eq!(judge(&unit(&[]), &[], &first).state, State::Pass);
    let again = unit(&[("NRestarts", "61"), ("ExecMainStatus", "1")]);
    let second = remember(Some(&first), &again, later);
    let verdict = judge(&again, &[], &second);
    assert_eq!(verdict.state, State::Fail);
    assert_eq!(
        verdict.found,
        "api.service was restarted 3 times within an hour: it restarts in a loop: exit status 1"
    );
    assert_eq!(
        verdict.fix.as_deref(),
        Some("journalctl -u api.service -n 50")
    );
    assert_eq!(verdict.figures[0].value, 3.0);
}

#[test]
fn debians_postgresql_service_is_judged_by_its_clusters() {
    let shell = unit(&[
        ("Id", "postgresql.service"),
        ("Type", "oneshot"),
        ("SubState", "exited"),
    ]);
    let up = unit(&[("Id", "postgresql@15-main.service"), ("Type", "forking")]);
    let down = Unit {
        active: "failed".into(),
        sub: "failed".into(),
        result: "protocol".into(),
        ..up.clone()
    };
    let verdict = judge(&shell, &[up], &calm());
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Pass, "postgresql@15-main.service runs")
    );
    let verdict = judge(&shell, &[down], &calm());
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (
            State::Fail,
            "postgresql@15-main.service is failed (failed): protocol"
        )
    );
    assert_eq!(judge(&shell, &[], &calm()).state, State::Fail);
    // A PostgreSQL whose own unit bears that name is a unit like any other.
    let own = unit(&[("Id", "postgresql.service")]);
    assert_eq!(
        judge(&own, &[], &calm()).found,
        "postgresql.service is active (running)"
    );
}

#[test]
fn one_question_is_asked_for_all_units() {
    let answer = [
        block(&[
            ("Id", "postgresql.service"),
            ("Type", "oneshot"),
            ("SubState", "exited"),
        ]),
        block(&[]),
        block(&[("Id", "postgresql@15-main.service"), ("Type", "forking")]),
    ]
    .join("\n");
    let asked = format!(
        "case $* in show*' -- postgresql api postgresql@'*) ;; *) exit 9;; esac\ncat <<'END'\n{answer}END\n"
    );
    let names = ["postgresql".to_owned(), "api".to_owned()];
    let units = fake(&asked).units(&names).unwrap();
    assert_eq!(units.asked["api"].id, "api.service");
    assert_eq!(units.asked["postgresql"].kind, "oneshot");
    assert_eq!(units.clusters.len(), 1);
}

#[test]
fn what_cannot_be_asked_is_not_a_units_state() {
    let names = ["api".to_owned()];
    let offline = fake(
        "echo \"System has not been booted with systemd as init system (PID 1). Can't operate.\" >&2; exit 1",
    );
    let failure = offline.units(&names).unwrap_err();
    assert!(
        failure.to_string().starts_with("cannot ask systemd: "),
        "{failure}"
    );
    assert_eq!(
        failure.hints(),
        ["this machine runs no systemd: take the units out of rg.toml"]
    );
    assert!(fake("echo hello").units(&names).is_err());
    assert!(fake("exit 0").units(&names).is_err());
    let failure = fake("exit 0").units(&["api-*".to_owned()]).unwrap_err();
    assert_eq!(failure.to_string(), "`api-*` is a pattern, not a unit");
}

#[test]
fn our_own_failed_unit_does_not_feed_the_next_run() {
    let list = "rg-healthcheck.service loaded failed failed Checks\ncertbot.service loaded failed failed Certbot\n";
    let failed = fake(&format!("printf '%s' '{list}'")).failed().unwrap();
    let verdict = judge_failed(&failed);
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Warn, "certbot.service has failed")
    );
    assert_eq!(
        judge_failed(&["rg-healthcheck.service".into()]).state,
        State::Pass
    );
    assert_eq!(
        judge_failed(&["rg-backup.service".into()]).state,
        State::Fail
    );
}
