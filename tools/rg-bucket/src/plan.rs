//! Wanted against found: the steps that make it so, and what must be said about the rest.
//!
//! Pure. No step replaces or empties a bucket: there is no such step. Settings that are not
//! declared are left as they are, and so are statements and rules that are not ours. What a server
//! lacks becomes a note with the way round it; what the key may not see makes the plan incomplete.
//! A plan that was applied is followed by an empty one.

use aws_sdk_s3::types::LifecycleRule;

use crate::exposure;
use crate::found::{Answer, Found, Presence, PublicBlock, Versioning};
use crate::lifecycle;
use crate::policy::Policy;
use crate::server::Feature;
use crate::wanted::{Access, Cors, Lock, Rule, Wanted};

/// What to do, in order, and what to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What `apply` would do.
    pub steps: Vec<Step>,
    /// What somebody without a key could do and should not, or the other way round.
    pub findings: Vec<String>,
    /// What an operator should know: public buckets, what a server lacks, what costs money.
    pub notes: Vec<String>,
    /// What could not be told.
    pub unknown: Vec<String>,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Which setting: `policy`, `lifecycle`.
    pub part: &'static str,
    /// The difference, a line each: `+` comes, `-` goes.
    pub lines: Vec<String>,
    /// What is called.
    pub action: Action,
}

/// What is called.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Makes the bucket.
    Create {
        /// With object lock, which cannot be had later.
        lock: bool,
    },
    /// Puts this policy, or deletes it when it is empty.
    Policy(Policy),
    /// Takes the grants to everybody away.
    CloseGrants,
    /// Sets AWS's four switches.
    PublicBlock(PublicBlock),
    /// Switches versioning on, or suspends it.
    Versioning(Versioning),
    /// Puts this list of rules, or deletes it when it is empty.
    Lifecycle(Vec<LifecycleRule>),
    /// Puts these rules, or deletes them when there are none.
    Cors(Vec<Cors>),
    /// Sets the lock that new objects get.
    Retention(Lock),
}

/// Compares.
pub fn plan(wanted: &Wanted, found: &Found) -> Plan {
    let mut plan = Plan::default();
    match found.presence {
        Presence::Closed => {
            plan.unknown.push(format!(
                "the bucket `{}` is there, but the key may not look into it: it belongs to somebody else, or the key lacks the right",
                wanted.bucket
            ));
            return plan;
        }
        Presence::Absent => plan.step(
            "bucket",
            vec![format!(
                "+ {}{}",
                wanted.bucket,
                if wanted.lockable {
                    ", with object lock"
                } else {
                    ""
                }
            )],
            Action::Create {
                lock: wanted.lockable,
            },
        ),
        Presence::Ours => {}
    }
    access(&mut plan, wanted, found);
    locking(&mut plan, wanted, found);
    versioning(&mut plan, wanted, found);
    rules(&mut plan, wanted, found);
    cors(&mut plan, wanted, found);
    exposure::judge(&mut plan, wanted.access, &found.exposure);
    plan
}

impl Plan {
    fn step(&mut self, part: &'static str, lines: Vec<String>, action: Action) {
        self.steps.push(Step {
            part,
            lines,
            action,
        });
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// A setting that is declared and cannot be had here.
    fn lacking(&mut self, found: &Found, feature: Feature, said: &str) {
        let said = if said.is_empty() {
            String::new()
        } else {
            format!(" ({said})")
        };
        let server = found.server;
        self.note(format!(
            "{server} has no {}{said}: {}",
            feature.name(),
            server.way_round(feature)
        ));
    }

    fn denied(&mut self, what: &str, said: &str) {
        self.unknown
            .push(format!("the key may not read the bucket's {what} ({said})"));
    }
}

/// Access: the policy, the older grants, and AWS's switch above both. What opens comes first when
/// it opens, and last when it closes.
fn access(plan: &mut Plan, wanted: &Wanted, found: &Found) {
    let Some(access) = wanted.access else { return };
    let public = access == Access::PublicRead;
    if public {
        plan.note(
            "public: anybody who knows an object's key can read it (access = \"public-read\")"
                .to_owned(),
        );
    }
    let switches = public_block(access, &found.public_block);
    if let (true, Some(step)) = (public, &switches) {
        plan.steps.push(step.clone());
    }
    let empty = Policy::default();
    match &found.policy {
        Answer::Is(_) | Answer::Unset => {
            let now = found.policy.value().unwrap_or(&empty);
            let then = now.with_access(&wanted.bucket, public);
            if then != *now {
                let (before, after) = (now.open_to_anybody(), then.open_to_anybody());
                let gone = before
                    .difference(&after)
                    .map(|what| format!("- anybody may {what}"));
                let come = after
                    .difference(&before)
                    .map(|what| format!("+ anybody may {what}"));
                let mut lines: Vec<String> = gone.chain(come).collect();
                if lines.is_empty() {
                    lines.push("- statements that say the same twice".to_owned());
                }
                plan.step("policy", lines, Action::Policy(then));
            }
            for statement in now.open_on_condition() {
                plan.note(format!("the policy's statement {statement} lets anybody in under a condition; it is left as it is"));
            }
        }
        Answer::Lacking(said) if public => plan.lacking(found, Feature::Policy, said),
        Answer::Lacking(_) => {}
        Answer::Denied(said) => plan.denied("policy", said),
    }
    if let Some(grants) = found.public_grants.value()
        && !grants.is_empty()
    {
        let lines = grants
            .iter()
            .map(|what| format!("- everybody is granted {what}"))
            .collect();
        plan.step("grants", lines, Action::CloseGrants);
    }
    if let (false, Some(step)) = (public, switches) {
        plan.steps.push(step);
    }
}

fn public_block(access: Access, found: &Answer<PublicBlock>) -> Option<Step> {
    let (then, line) = match (access, found) {
        (Access::Private, Answer::Unset) => (PublicBlock::ALL, "+ nothing public is let through"),
        (Access::Private, Answer::Is(now)) if *now != PublicBlock::ALL => {
            (PublicBlock::ALL, "+ nothing public is let through")
        }
        (Access::PublicRead, Answer::Is(now)) if now.block_policy || now.restrict => (
            PublicBlock {
                block_policy: false,
                restrict: false,
                ..*now
            },
            "- a policy may not let anybody in",
        ),
        _ => return None,
    };
    Some(Step {
        part: "public access block",
        lines: vec![line.to_owned()],
        action: Action::PublicBlock(then),
    })
}

/// Object lock: switched on at creation alone; the default for new objects can change.
fn locking(plan: &mut Plan, wanted: &Wanted, found: &Found) {
    if !wanted.lockable {
        return;
    }
    let now = match &found.lock {
        Answer::Is(locking) => locking.default,
        Answer::Unset if found.presence == Presence::Absent => None,
        Answer::Unset => {
            return plan.note(format!(
                "object lock cannot be switched on for a bucket that is there: name a new bucket in rg.toml, `rg-bucket apply`, then `rg-bucket mirror` into it (`{}` was created without it)",
                wanted.bucket
            ));
        }
        Answer::Lacking(said) => return plan.lacking(found, Feature::Lock, said),
        Answer::Denied(said) => return plan.denied("object lock", said),
    };
    let Some(lock) = wanted.lock.filter(|lock| now != Some(*lock)) else {
        return;
    };
    let before = now.map(|before| format!("- new objects are locked for {before}"));
    let after = format!("+ new objects are locked for {lock}");
    let lines = before.into_iter().chain([after]).collect();
    plan.step("lock", lines, Action::Retention(lock));
}

fn versioning(plan: &mut Plan, wanted: &Wanted, found: &Found) {
    let Some(on) = wanted.versioning else { return };
    let now = found.versioning.value().copied();
    match (&found.versioning, on) {
        (Answer::Lacking(said), true) => return plan.lacking(found, Feature::Versioning, said),
        (Answer::Lacking(_), false) => return,
        (Answer::Denied(said), _) => return plan.denied("versioning", said),
        (_, true) if now != Some(Versioning::Enabled) => {
            plan.step(
                "versioning",
                vec!["+ old versions are kept".to_owned()],
                Action::Versioning(Versioning::Enabled),
            );
        }
        (_, false) if now == Some(Versioning::Enabled) => {
            if found.lock.value().is_some() {
                plan.note(
                    "versioning stays on: a bucket with object lock cannot do without".to_owned(),
                );
            } else {
                let lines = vec!["- old versions are kept (those that exist stay)".to_owned()];
                plan.step(
                    "versioning",
                    lines,
                    Action::Versioning(Versioning::Suspended),
                );
            }
        }
        _ => {}
    }
    let wants = wanted
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::Noncurrent(_)));
    let has = |rule: &LifecycleRule| {
        rule.noncurrent_version_expiration().is_some() && !lifecycle::is_ours(rule)
    };
    let theirs = found
        .lifecycle
        .value()
        .is_some_and(|rules| rules.iter().any(has));
    if on && !wants && !theirs {
        plan.note("every old version is kept for ever: set noncurrent_days".to_owned());
    }
}

fn rules(plan: &mut Plan, wanted: &Wanted, found: &Found) {
    let mut rules = wanted.rules.clone();
    let mut drop_lacking = |feature: Feature, is: fn(&Rule) -> bool| {
        if found.server.lacks(feature)
            && rules.iter().any(is)
            && !matches!(found.lifecycle, Answer::Lacking(_))
        {
            rules.retain(|rule| !is(rule));
            plan.lacking(found, feature, "");
        }
    };
    drop_lacking(Feature::AbandonedRule, |rule| {
        matches!(rule, Rule::Abandoned(_))
    });
    drop_lacking(Feature::NoncurrentRule, |rule| {
        matches!(rule, Rule::Noncurrent(_))
    });
    let none = Vec::new();
    let now = match &found.lifecycle {
        Answer::Is(now) => now,
        Answer::Unset => &none,
        Answer::Lacking(said) if !rules.is_empty() => {
            return plan.lacking(found, Feature::Lifecycle, said);
        }
        Answer::Denied(said) if !rules.is_empty() => return plan.denied("lifecycle", said),
        _ => return,
    };
    for rule in now.iter().filter(|rule| !lifecycle::is_ours(rule)) {
        for does in lifecycle::does(rule) {
            if matches!(does, Rule::Expire(_)) && !rules.contains(&does) {
                plan.note(format!(
                    "the rule `{}`, which is not ours, stays: {does}",
                    rule.id().unwrap_or_default()
                ));
            }
        }
    }
    if let Some(change) = lifecycle::change(now, &rules) {
        let gone = change.removed.iter().map(|id| {
            let before = now
                .iter()
                .find(|rule| rule.id() == Some(id))
                .map(lifecycle::does)
                .unwrap_or_default();
            let words: Vec<String> = before.iter().map(Rule::to_string).collect();
            if words.is_empty() {
                format!("- the rule `{id}`")
            } else {
                format!("- {}", words.join(", "))
            }
        });
        let come = change.added.iter().map(|rule| format!("+ {rule}"));
        let lines = gone.chain(come).collect();
        plan.step("lifecycle", lines, Action::Lifecycle(change.rules));
    }
}

fn cors(plan: &mut Plan, wanted: &Wanted, found: &Found) {
    let Some(rules) = &wanted.cors else { return };
    let then: Vec<Cors> = rules.iter().cloned().map(Cors::sorted).collect();
    if !then.is_empty() && found.server.lacks(Feature::Cors) && !matches!(found.cors, Answer::Is(_))
    {
        return plan.lacking(found, Feature::Cors, "");
    }
    let now: Vec<Cors> = match &found.cors {
        Answer::Is(now) => now.iter().cloned().map(Cors::sorted).collect(),
        Answer::Unset => Vec::new(),
        Answer::Lacking(said) if !then.is_empty() => {
            return plan.lacking(found, Feature::Cors, said);
        }
        Answer::Denied(said) => return plan.denied("CORS rules", said),
        Answer::Lacking(_) => return,
    };
    if now != then {
        let gone = now
            .iter()
            .filter(|rule| !then.contains(rule))
            .map(|rule| format!("- {rule}"));
        let come = then
            .iter()
            .filter(|rule| !now.contains(rule))
            .map(|rule| format!("+ {rule}"));
        let mut lines: Vec<String> = gone.chain(come).collect();
        if lines.is_empty() {
            lines.push("+ the same rules in the declared order".to_owned());
        }
        plan.step("cors", lines, Action::Cors(then));
    }
}

#[cfg(test)]
mod tests;
