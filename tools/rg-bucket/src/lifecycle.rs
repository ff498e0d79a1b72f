//! Lifecycle rules: what they do, whatever form they are written in, and which of them are ours.
//!
//! A service keeps one list of rules per bucket, and putting it replaces all of it. Rules whose id
//! does not begin with `rg-` are put back as they were found.

use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, ExpirationStatus, LifecycleExpiration, LifecycleRule,
    LifecycleRuleFilter, NoncurrentVersionExpiration,
};

use crate::wanted::{OUR_RULES, Rule};

/// What a whole list should become.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The list to put; empty means that it is to be deleted.
    pub rules: Vec<LifecycleRule>,
    /// Rules of ours that come.
    pub added: Vec<Rule>,
    /// Ids of rules of ours that go or change.
    pub removed: Vec<String>,
}

/// The change from what is found to what is wanted; none when nothing is to be done. A rule of
/// somebody else's that does what is wanted counts.
pub fn change(found: &[LifecycleRule], wanted: &[Rule]) -> Option<Change> {
    let (ours, theirs): (Vec<&LifecycleRule>, Vec<&LifecycleRule>) =
        found.iter().partition(|rule| is_ours(rule));
    let needed: Vec<Rule> = wanted
        .iter()
        .copied()
        .filter(|rule| !theirs.iter().any(|theirs| does(theirs).contains(rule)))
        .collect();
    let kept = |rule: &&LifecycleRule| match does(rule)[..] {
        [one] => needed.contains(&one) && rule.id() == Some(one.id()),
        _ => false,
    };
    let (kept, removed): (Vec<&LifecycleRule>, Vec<&LifecycleRule>) =
        ours.into_iter().partition(kept);
    let there: Vec<Rule> = kept.iter().flat_map(|rule| does(rule)).collect();
    let added: Vec<Rule> = needed
        .into_iter()
        .filter(|rule| !there.contains(rule))
        .collect();
    if added.is_empty() && removed.is_empty() {
        return None;
    }
    let removed = removed
        .iter()
        .map(|rule| rule.id().unwrap_or_default().to_owned())
        .collect();
    let rules = theirs
        .into_iter()
        .chain(kept)
        .cloned()
        .chain(added.iter().filter_map(|rule| ours_as(*rule)))
        .collect();
    Some(Change {
        rules,
        added,
        removed,
    })
}

/// Whether a rule is ours, by its id.
pub fn is_ours(rule: &LifecycleRule) -> bool {
    rule.id().is_some_and(|id| id.starts_with(OUR_RULES))
}

/// What an enabled rule does to the whole bucket. Empty for rules that are off, hold for a part
/// of the bucket, go by a date, or do something else.
pub fn does(rule: &LifecycleRule) -> Vec<Rule> {
    if rule.status() != &ExpirationStatus::Enabled || !is_for_all(rule) {
        return Vec::new();
    }
    let days = |days: Option<i32>| {
        days.and_then(|days| u32::try_from(days).ok())
            .filter(|days| *days > 0)
    };
    let expire = rule
        .expiration()
        .and_then(|e| days(e.days()))
        .map(Rule::Expire);
    let noncurrent = rule
        .noncurrent_version_expiration()
        .filter(|n| n.newer_noncurrent_versions().is_none_or(|kept| kept == 0))
        .and_then(|n| days(n.noncurrent_days()))
        .map(Rule::Noncurrent);
    let abandoned = rule
        .abort_incomplete_multipart_upload()
        .and_then(|a| days(a.days_after_initiation()))
        .map(Rule::Abandoned);
    [expire, noncurrent, abandoned]
        .into_iter()
        .flatten()
        .collect()
}

/// No prefix, no tag, no size: neither in the rule itself (the older form) nor in its filter.
#[allow(deprecated)]
fn is_for_all(rule: &LifecycleRule) -> bool {
    let empty = |text: Option<&str>| text.is_none_or(str::is_empty);
    let filter = rule.filter().is_none_or(|filter| {
        empty(filter.prefix())
            && filter.tag().is_none()
            && filter.object_size_greater_than().is_none_or(|n| n == 0)
            && filter.object_size_less_than().is_none_or(|n| n == 0)
            && filter.and().is_none_or(|and| {
                empty(and.prefix())
                    && and.tags().is_empty()
                    && and.object_size_greater_than().is_none()
                    && and.object_size_less_than().is_none()
            })
    });
    filter && empty(rule.prefix())
}

/// Our rule as it is put: the filter form, which every service of today understands.
fn ours_as(rule: Rule) -> Option<LifecycleRule> {
    let days = i32::try_from(rule.days()).unwrap_or(i32::MAX);
    let builder = LifecycleRule::builder()
        .id(rule.id())
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("").build());
    let builder = match rule {
        Rule::Expire(_) => builder.expiration(LifecycleExpiration::builder().days(days).build()),
        Rule::Noncurrent(_) => builder.noncurrent_version_expiration(
            NoncurrentVersionExpiration::builder()
                .noncurrent_days(days)
                .build(),
        ),
        Rule::Abandoned(_) => builder.abort_incomplete_multipart_upload(
            AbortIncompleteMultipartUpload::builder()
                .days_after_initiation(days)
                .build(),
        ),
    };
    // Only a missing status can fail, and it is there.
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(deprecated)]
    fn in_the_older_form(rule: &LifecycleRule) -> LifecycleRule {
        let mut copy = rule.clone();
        copy.filter = None;
        copy.prefix = Some(String::new());
        copy
    }

    fn theirs(id: &str, days: i32, prefix: &str) -> LifecycleRule {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .expiration(LifecycleExpiration::builder().days(days).build())
            .build()
            .unwrap()
    }

    #[test]
    fn rules_of_others_are_put_back_as_they_were_found() {
        let logs = theirs("logs", 7, "logs/");
        let change = change(std::slice::from_ref(&logs), &[Rule::Expire(90)]).unwrap();
        assert_eq!(change.rules[0], logs);
        assert_eq!(change.added, [Rule::Expire(90)]);
        assert_eq!(change.rules.len(), 2);
        // What is no longer declared goes, and theirs stays.
        let back = super::change(&change.rules, &[]).unwrap();
        assert_eq!(back.removed, ["rg-expire"]);
        assert_eq!(back.rules, [logs]);
    }

    #[test]
    fn the_older_form_and_another_order_are_no_difference() {
        let wanted = [Rule::Expire(90), Rule::Noncurrent(30), Rule::Abandoned(2)];
        let mut rules = change(&[], &wanted).unwrap().rules;
        rules.reverse();
        let rules: Vec<LifecycleRule> = rules.iter().map(in_the_older_form).collect();
        assert_eq!(change(&rules, &wanted), None);
    }

    #[test]
    fn somebody_elses_rule_that_does_it_counts_and_one_for_a_part_does_not() {
        assert_eq!(change(&[theirs("x", 90, "")], &[Rule::Expire(90)]), None);
        assert!(change(&[theirs("x", 90, "tmp/")], &[Rule::Expire(90)]).is_some());
        assert!(change(&[theirs("x", 30, "")], &[Rule::Expire(90)]).is_some());
    }

    #[test]
    fn a_changed_number_of_days_replaces_our_rule_alone() {
        let rules = change(
            &[theirs("x", 9, "a/")],
            &[Rule::Expire(90), Rule::Abandoned(7)],
        )
        .unwrap()
        .rules;
        let next = change(&rules, &[Rule::Expire(30), Rule::Abandoned(7)]).unwrap();
        assert_eq!(
            (&next.added[..], &next.removed[..]),
            (&[Rule::Expire(30)][..], &["rg-expire".to_owned()][..])
        );
        assert_eq!(next.rules.len(), 3);
    }
}
