//! The age of each secret, and which is overdue.

use std::path::Path;

use rg_common::Result;
use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

use super::journal::{self, Journal};
use crate::audit;
use crate::place::Place;
use crate::schema::Source;

const DAY: i64 = 86_400;

/// The age of one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Age {
    /// Its environment.
    pub environment: String,
    /// The variable, by the schema's id.
    pub name: String,
    /// Since when it has its value, or is known to have one; none when nothing is recorded.
    pub since: Option<jiff::Timestamp>,
    /// In whole days.
    pub days: Option<i64>,
    /// The environment's limit in days.
    pub limit: Option<u32>,
    /// Whether it is older than that.
    pub overdue: bool,
}

#[derive(Serialize)]
struct Ages {
    /// A rotation that is under way or was cut off, in words.
    rotation: Option<String>,
    secrets: Vec<Age>,
}

/// Lists them; exit code 1 when one is overdue.
pub fn list(
    context: &Context,
    place: &Place,
    state: &Path,
    only: Option<&str>,
) -> Result<Box<dyn Report>> {
    if let Some(name) = only {
        place.schema.environment(name)?;
    }
    let mut secrets = ages(place, state, context.now)?;
    secrets.retain(|age| only.is_none_or(|name| name == age.environment));
    let rotation = Journal::read(state)?;
    let rotation = rotation.map(|journal| journal.said(journal::hold(state).is_err()));
    Ok(Box::new(Ages { rotation, secrets }))
}

/// The ages of all secrets that have a value of their own and are in a file.
pub fn ages(place: &Place, state: &Path, now: jiff::Timestamp) -> Result<Vec<Age>> {
    let since = audit::since(state)?;
    let mut ages = Vec::new();
    for environment in &place.schema.environments {
        let holders = place.holders(environment)?;
        let found = place.found(environment, &holders)?;
        for variable in &place.schema.variables {
            // A password that stands only inside an address has one too.
            let inside = variable.consumers.is_empty() && variable.config.is_none();
            let own = matches!(
                variable.source,
                Source::Generated(_) | Source::Person(_) | Source::Absent
            );
            let there = found.contains_key(&variable.id) || inside;
            if !variable.is_secret() || !own || !there || variable.forbidden.has(&environment.name)
            {
                continue;
            }
            let key = (environment.name.clone(), variable.id.clone());
            let since = since.get(&key).copied();
            let days = since.map(|since| (now.as_second() - since.as_second()).max(0) / DAY);
            ages.push(Age {
                environment: environment.name.clone(),
                name: variable.id.clone(),
                since,
                days,
                limit: environment.rotate_days,
                overdue: matches!((days, environment.rotate_days), (Some(days), Some(limit)) if days > i64::from(limit)),
            });
        }
    }
    Ok(ages)
}

impl Report for Ages {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        if let Some(said) = &self.rotation {
            page.line(format!("{}  {said}", page.tone(Tone::Warn, "⚠")));
        }
        let rows: Vec<Vec<(Tone, String)>> = self.secrets.iter().map(cells).collect();
        page.table(&["ENVIRONMENT", "SECRET", "AGE", "LIMIT", ""], &rows);
        for age in self.secrets.iter().filter(|age| age.overdue) {
            page.line(format!(
                "{}  rg-envgen rotate {} --env {}",
                page.tone(Tone::Bad, "✗"),
                age.name,
                age.environment
            ));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.secrets.iter().any(|age| age.overdue) {
            Outcome::BadNews
        } else {
            Outcome::Well
        }
    }
}

fn cells(age: &Age) -> Vec<(Tone, String)> {
    let old = age.days.map_or("not known".to_owned(), |days| {
        if days == 0 {
            "today".to_owned()
        } else {
            report::span(days.unsigned_abs() * DAY.unsigned_abs())
        }
    });
    let limit = age
        .limit
        .map_or("-".to_owned(), |limit| format!("{limit} d"));
    let state = if age.overdue {
        (Tone::Bad, "overdue")
    } else {
        (Tone::Good, "")
    };
    vec![
        (Tone::Plain, age.environment.clone()),
        (Tone::Plain, age.name.clone()),
        (Tone::Plain, old),
        (Tone::Plain, limit),
        (state.0, state.1.to_owned()),
    ]
}
