//! The status page: one HTML file that needs nothing else, no script, no font, no picture from
//! elsewhere. Everything that a server answered passes the template's escaping.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context, value::Serde};
use rg_common::check::State;
use rg_common::report::span;
use rg_common::{OrFail, Result};
use serde::Serialize;

use crate::history::{History, Hour};

/// The spans for which uptime is shown.
const SPANS: [(&str, i64); 3] = [("24 h", 1), ("7 d", 7), ("90 d", 90)];
/// The span of the bars: one for each of the last days.
const DAYS: i64 = 90;
/// The span of the latency curve.
const CURVE_HOURS: i64 = 7 * 24;
/// The most incidents that are listed.
const INCIDENTS: usize = 50;
/// The curve's size in the page's units.
const CURVE: (f64, f64) = (300.0, 40.0);

const TEMPLATE: &str = include_str!("page.html");

#[derive(Serialize)]
struct Group {
    name: String,
    checks: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    about: String,
    state: &'static str,
    found: String,
    uptimes: Vec<(String, String)>,
    days: Vec<Day>,
    curve: String,
    peak_ms: u64,
}

#[derive(Serialize)]
struct Day {
    date: String,
    state: &'static str,
    percent: Option<String>,
}

#[derive(Serialize)]
struct Past {
    check: String,
    began: String,
    lasted: String,
    open: bool,
    found: String,
    because: Option<String>,
}

/// The page of the environments that `wanted` takes.
pub fn render(
    history: &History,
    host: &str,
    now: Timestamp,
    zone: &TimeZone,
    wanted: impl Fn(Option<&str>) -> bool,
) -> Result<String> {
    let last = history.last()?;
    let mut groups: Vec<Group> = Vec::new();
    let mut worst = State::Pass;
    let mut newest = None;
    for (id, environment, about) in history.checks()? {
        if !wanted(environment.as_deref()) {
            continue;
        }
        let Some((_, state, seen, found)) = last.iter().find(|(name, ..)| *name == id) else {
            continue;
        };
        worst = worst.max(*state);
        newest = newest.max(Some(*seen));
        let row = row(history, &id, about, *state, found, now, zone)?;
        let name = environment.unwrap_or_else(|| "This machine".to_owned());
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.checks.push(row),
            None => groups.push(Group {
                name,
                checks: vec![row],
            }),
        }
    }
    let since = now - jiff::SignedDuration::from_hours(DAYS * 24);
    let time = |at: Timestamp| {
        at.to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M")
            .to_string()
    };
    let incidents: Vec<Past> = history
        .incidents(since, INCIDENTS)?
        .into_iter()
        .filter(|incident| wanted(incident.environment.as_deref()))
        .map(|incident| Past {
            began: time(incident.began),
            lasted: lasted(incident.began, incident.ended.unwrap_or(now)),
            open: incident.ended.is_none(),
            check: incident.check,
            found: incident.found,
            because: incident.because,
        })
        .collect();
    let headline = match worst {
        _ if newest.is_none() => "Nothing has been checked yet",
        State::Fail => "Something has failed",
        State::Unknown => "Something could not be looked at",
        State::Warn => "All is up; something needs a look",
        State::Pass | State::Skip => "All is well",
    };
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    let what = || "cannot render the status page".to_owned();
    templates.add_template("page", TEMPLATE).or_fail(what)?;
    let page = templates.get_template("page").or_fail(what)?;
    page.render(context! {
        host, headline, groups => Value::from(Serde(&groups)), incidents => Value::from(Serde(&incidents)),
        state => if newest.is_none() { "unknown" } else { worst.word() },
        at => time(now),
        checked => newest.map(time),
        zone => zone.iana_name().unwrap_or("UTC"),
        width => CURVE.0, height => CURVE.1,
    })
    .or_fail(what)
}

fn row(
    history: &History,
    id: &str,
    about: String,
    state: State,
    found: &str,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Row> {
    let ago = |hours: i64| now - jiff::SignedDuration::from_hours(hours);
    let mut uptimes = Vec::new();
    for (name, days) in SPANS {
        let percent = history.uptime(id, ago(days * 24))?.percent();
        uptimes.push((name.to_owned(), percent.map_or("–".to_owned(), shown)));
    }
    let hours = history.hours(id, ago(DAYS * 24))?;
    let recent: Vec<&Hour> = hours.iter().filter(|h| h.at >= ago(CURVE_HOURS)).collect();
    Ok(Row {
        id: id.to_owned(),
        about,
        state: state.word(),
        found: found.to_owned(),
        uptimes,
        days: days(&hours, now, zone),
        curve: curve(&recent, ago(CURVE_HOURS)),
        peak_ms: recent.iter().map(|hour| hour.max_ms).max().unwrap_or(0),
    })
}

/// A share in words that never round a failure away: 99.999 is not 100.
fn shown(percent: f64) -> String {
    match percent {
        p if p >= 100.0 => "100 %".to_owned(),
        p => format!("{:.2} %", (p * 100.0).floor() / 100.0),
    }
}

fn days(hours: &[Hour], now: Timestamp, zone: &TimeZone) -> Vec<Day> {
    let today = now.to_zoned(zone.clone()).date();
    (0..DAYS)
        .rev()
        .map(|back| {
            let date = today.saturating_sub(jiff::Span::new().days(back));
            let of_day = || {
                hours
                    .iter()
                    .filter(|hour| hour.at.to_zoned(zone.clone()).date() == date)
            };
            let worst = of_day().map(|hour| hour.worst).max();
            let bad = of_day().filter(|hour| hour.worst == State::Fail).count();
            Day {
                date: date.to_string(),
                state: worst.map_or("none", State::word),
                percent: (bad > 0).then(|| format!("{bad} h with failures")),
            }
        })
        .collect()
}

/// The points of an SVG polyline: hourly means, the highest at the top.
fn curve(hours: &[&Hour], from: Timestamp) -> String {
    let top = hours.iter().map(|h| h.mean_ms).fold(1.0, f64::max);
    let points: Vec<String> = hours
        .iter()
        .map(|hour| {
            let x = (hour.at.as_second() - from.as_second()) as f64 / 3600.0;
            let x = (x / CURVE_HOURS as f64).clamp(0.0, 1.0) * CURVE.0;
            let y = CURVE.1 - hour.mean_ms / top * (CURVE.1 - 2.0) - 1.0;
            format!("{x:.1},{y:.1}")
        })
        .collect();
    if points.len() < 2 {
        return String::new();
    }
    points.join(" ")
}

fn lasted(from: Timestamp, to: Timestamp) -> String {
    span((to.as_second() - from.as_second()).max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::finding;
    use std::time::Duration;

    fn page(found: &str) -> String {
        let folder =
            std::env::temp_dir().join(format!("rg-page-{}-{}", std::process::id(), found.len()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut history = History::open(&folder).unwrap();
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        for hour in (0..48).rev() {
            let state = if hour == 5 { State::Fail } else { State::Pass };
            let mut one = finding("production/http/health", state, found);
            one.took_ms = 10 + hour;
            let at = now - jiff::SignedDuration::from_hours(hour as i64);
            history
                .record(at, &[one], Duration::from_secs(90 * 86_400))
                .unwrap();
        }
        let page = render(&history, "vps-1", now, &TimeZone::UTC, |_| true).unwrap();
        std::fs::remove_dir_all(&folder).ok();
        page
    }

    #[test]
    fn what_a_server_answers_cannot_become_markup() {
        let page = page("</td><script>alert(1)</script>\"'><img src=x onerror=alert(1)>");
        assert!(!page.contains("<script"));
        assert!(!page.contains("<img"));
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page("well");
        for elsewhere in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("<polyline"));
        assert!(page.contains("97.91 %"), "47 of 48 rounds were well");
    }

    #[test]
    fn a_failure_is_never_rounded_away() {
        assert_eq!(shown(100.0), "100 %");
        assert_eq!(shown(99.9999), "99.99 %");
    }
}
