//! Runs a plan: every look side by side, each with a deadline, and the whole with one.
//!
//! A look that is late is not waited for: its checks are unknown, never silent.

use std::future::Future;
use std::time::{Duration, Instant};

use rg_common::check::{Finding, Verdict, settle};
use rg_common::{Failure, Result};
use tokio::task::JoinSet;

use crate::plan::{Group, Plan, Planned};

/// The most that one look may take; what it asks of others has shorter limits of its own.
const LOOK: Duration = Duration::from_secs(20);
/// The most that a round takes: less than the timer's five minutes, and than a unit's start limit.
const ROUND: Duration = Duration::from_secs(60);
/// The most looks at once: each may hold a connection or a thread.
const AT_ONCE: usize = 512;

/// One check's answer.
#[derive(Debug)]
pub struct Answer {
    /// The check; for file systems one that the look named itself.
    pub planned: Planned,
    /// What was found.
    pub outcome: Result<Verdict>,
}

/// The answers of a group whose look could not be made at all.
pub fn all_unknown(group: &Group, why: impl Fn() -> Failure) -> Vec<Answer> {
    let unknown = |planned: &Planned| Answer {
        planned: planned.clone(),
        outcome: Err(why()),
    };
    group.checks.iter().map(unknown).collect()
}

/// The limits of a round.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    look: Duration,
    round: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            look: LOOK,
            round: ROUND,
        }
    }
}

/// Looks at everything; the findings come in the plan's order.
pub async fn run<L, F>(plan: &Plan, limits: Limits, look: L) -> Vec<Finding>
where
    L: Fn(Group) -> F,
    F: Future<Output = Vec<Answer>> + Send + 'static,
{
    let end = tokio::time::Instant::now() + limits.round;
    let mut looks = JoinSet::new();
    let mut waiting = plan.groups.iter().enumerate();
    let mut found: Vec<Option<Vec<Finding>>> = plan.groups.iter().map(|_| None).collect();
    loop {
        while looks.len() < AT_ONCE {
            let Some((at, group)) = waiting.next() else {
                break;
            };
            let work = look(group.clone());
            let group = group.clone();
            looks.spawn(async move { (at, one(group, limits.look, end, work).await) });
        }
        match looks.join_next().await {
            Some(Ok((at, findings))) => found[at] = Some(findings),
            // A look that panicked: its place stays empty and is filled below.
            Some(Err(_)) => {}
            None => break,
        }
    }
    let fill = |(group, found): (&Group, Option<Vec<Finding>>)| {
        found.unwrap_or_else(|| {
            let broken = || Failure::new("the check broke; this is a defect of rg-healthcheck");
            findings(all_unknown(group, broken), Duration::ZERO)
        })
    };
    plan.groups.iter().zip(found).flat_map(fill).collect()
}

async fn one(
    group: Group,
    limit: Duration,
    end: tokio::time::Instant,
    work: impl Future<Output = Vec<Answer>>,
) -> Vec<Finding> {
    let began = Instant::now();
    let at = (tokio::time::Instant::now() + limit).min(end);
    let answers = match tokio::time::timeout_at(at, work).await {
        Ok(answers) => answers,
        Err(_) => all_unknown(&group, || {
            Failure::new(format!("not done after {} s", began.elapsed().as_secs()))
        }),
    };
    findings(answers, began.elapsed())
}

fn findings(answers: Vec<Answer>, took: Duration) -> Vec<Finding> {
    let finding = |answer: Answer| {
        let verdict = settle(answer.outcome);
        Finding {
            id: answer.planned.id,
            environment: answer.planned.environment,
            about: answer.planned.about,
            state: verdict.state,
            found: verdict.found,
            fix: verdict.fix,
            figures: verdict.figures,
            evidence: verdict.evidence,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            because: None,
        }
    };
    answers.into_iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Job;
    use rg_common::check::State;
    use rg_common::config::Patience;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn plan(n: usize) -> Plan {
        let group = |n: usize| Group {
            job: Job::Tcp(format!("127.0.0.1:{n}")),
            checks: vec![Planned {
                id: format!("host/check/{n}"),
                environment: None,
                about: String::new(),
                needs: Vec::new(),
                patience: Patience::InARow(1),
            }],
        };
        Plan {
            groups: (0..n).map(group).collect(),
        }
    }

    fn answer(group: &Group, outcome: Result<Verdict>) -> Vec<Answer> {
        vec![Answer {
            planned: group.checks[0].clone(),
            outcome,
        }]
    }

    fn rounds<F>(plan: &Plan, limits: Limits, look: impl Fn(Group) -> F) -> Vec<Finding>
    where
        F: Future<Output = Vec<Answer>> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(run(plan, limits, look))
    }

    #[test]
    fn a_look_that_never_ends_is_unknown_and_the_others_are_not() {
        let limits = Limits {
            look: Duration::from_millis(50),
            round: Duration::from_secs(5),
        };
        let found = rounds(&plan(3), limits, |group| async move {
            if group.checks[0].id.ends_with('1') {
                std::future::pending::<()>().await;
            }
            answer(&group, Ok(Verdict::pass("well")))
        });
        let states: Vec<State> = found.iter().map(|f| f.state).collect();
        assert_eq!(states, [State::Pass, State::Unknown, State::Pass]);
        assert_eq!(found[1].found, "not done after 0 s");
    }

    #[test]
    fn a_look_that_panics_is_unknown() {
        let found = rounds(&plan(2), Limits::default(), |group| async move {
            assert!(group.checks[0].id.ends_with('1'), "on purpose");
            answer(&group, Ok(Verdict::pass("well")))
        });
        assert_eq!(
            (found[0].state, found[1].state),
            (State::Unknown, State::Pass)
        );
    }

    #[test]
    fn not_more_than_the_bound_are_looked_at_at_once() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let found = rounds(&plan(AT_ONCE + 200), Limits::default(), |group| {
            let (now, most) = (now.clone(), most.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                answer(&group, Err(Failure::new("no")))
            }
        });
        assert_eq!(found.len(), AT_ONCE + 200);
        assert!(most.load(Ordering::SeqCst) <= AT_ONCE);
    }
}
