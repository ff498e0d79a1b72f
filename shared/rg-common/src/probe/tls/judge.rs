//! Is a certificate good for long enough, and is it the one that lies on disk.

use jiff::Timestamp;

use super::{Certificate, Proved, Served, TlsFacts};
use crate::check::{Figure, State, Unit, Verdict};
use crate::probe::tcp::figures;
use crate::report::span;

/// With less than this part of its lifetime left a certificate should have been renewed: ACME
/// clients renew at a third.
const WARN_PART: f64 = 1.0 / 3.0;
/// With less than this part left something is wrong with the renewal.
const FAIL_PART: f64 = 1.0 / 6.0;
/// Less than this is a failure whatever the lifetime, in seconds.
const FAIL_SECONDS: f64 = 86_400.0;
/// A day in seconds.
const DAY: f64 = 86_400.0;

/// Good if the chain proves the name, for more than a third of its lifetime, and is the one on disk.
pub fn judge(facts: &TlsFacts, now: Timestamp) -> Verdict {
    let verdict = match (&facts.trouble, &facts.served) {
        (Some(trouble), _) => Verdict::fail(trouble.to_string(), trouble.fix()),
        (None, Some(served)) => judge_served(facts, served, now),
        (None, None) => Verdict::skip("not tried"),
    };
    figures(verdict, &facts.times)
}

fn judge_served(facts: &TlsFacts, served: &Served, now: Timestamp) -> Verdict {
    let stale = stale(facts, served);
    let verdict = match &served.proved {
        Err(distrust) => Verdict::fail(distrust.to_string(), distrust.fix()),
        Ok(proved) => time_left(proved, now),
    };
    let Some((found, fix)) = stale else {
        return verdict;
    };
    let found = match verdict.state {
        State::Pass => format!("{found}; the served one is {}", verdict.found),
        _ => format!("{}; {found}", verdict.found),
    };
    Verdict {
        state: State::Fail,
        found,
        fix: Some(fix),
        ..verdict
    }
}

/// How the served certificate differs from the one on disk, and what to do.
fn stale(facts: &TlsFacts, served: &Served) -> Option<(String, String)> {
    let (path, disk) = facts.on_disk.as_ref()?;
    let own = served.chain.first()?;
    if own.sha256 == disk.sha256 {
        return None;
    }
    let path = path.display();
    Some(if disk.not_before > own.not_before {
        (
            format!(
                "renewed but not reloaded: {path} is of {}, the served certificate of {}",
                disk.not_before, own.not_before
            ),
            "reload the server: `systemctl reload nginx` (or caddy), and add a deploy hook".into(),
        )
    } else {
        (
            format!(
                "the served certificate is not the one of {path}: it is for `{}` until {}, the file's for `{}` until {}",
                own.subject, own.not_after, disk.subject, disk.not_after
            ),
            "is it the file that the server's configuration names?".into(),
        )
    })
}

/// The time until the first certificate of the proof expires, against the lifetime of the server's
/// own: an authority's certificate lives for decades, a third of which means nothing.
fn time_left(proved: &Proved, now: Timestamp) -> Verdict {
    let (Some(own), Some(first)) = (proved.path.first(), proved.first_to_expire()) else {
        return Verdict::fail("the server sent no certificate", "look at its log");
    };
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64();
    let lifetime = seconds(own.not_before, own.not_after);
    let left = seconds(now, first.not_after);
    let warn = lifetime * WARN_PART;
    let fail = (lifetime * FAIL_PART).max(FAIL_SECONDS);
    let found = format!(
        "{} for another {} of {}, until {}, by `{}`",
        whose(own, first),
        span(left.max(0.0) as u64),
        span(lifetime.max(0.0) as u64),
        first.not_after,
        own.issuer
    );
    let fix = "look at the renewal: `certbot renew --dry-run`, `systemctl list-timers`";
    let verdict = if left < fail {
        Verdict::fail(found, fix)
    } else if left < warn {
        Verdict::warn(found, fix)
    } else {
        Verdict::pass(found)
    };
    let days = |seconds: f64| (seconds / DAY * 100.0).round() / 100.0;
    let figure = Figure::new("days_left", days(left), Unit::Count);
    verdict.figure(figure.bounds(Some(days(warn)), Some(days(fail))))
}

fn whose(own: &Certificate, first: &Certificate) -> String {
    if own.sha256 == first.sha256 {
        "valid".to_owned()
    } else {
        format!("valid only as long as its issuer `{}`:", first.subject)
    }
}
