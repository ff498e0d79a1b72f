//! `check --explain NAME`: where a variable comes from, who reads it, and what each reader sees.

use rg_common::config::nearest;
use rg_common::env_file::dialect::{ALL, Reader, Seen};
use rg_common::report::{Outcome, Page, Report, Tone};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::check::dialects::readings;
use crate::check::file::Env;
use crate::check::{Deployment, secrets};
use crate::schema::{Consumer, Schema, Source, Text, Variable};

#[derive(Serialize)]
struct Explained {
    name: String,
    about: Option<String>,
    source: Option<String>,
    derived_from: Vec<String>,
    derives: Vec<String>,
    consumers: Vec<&'static str>,
    files: Vec<InFile>,
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct InFile {
    path: String,
    line: usize,
    environment: Option<String>,
    secret: bool,
    readers: Vec<ByReader>,
}

#[derive(Serialize)]
struct ByReader {
    reader: &'static str,
    #[serde(skip)]
    label: &'static str,
    /// Whether it sees what the app (python-dotenv) sees.
    same: bool,
    sees: String,
}

/// Looks at one variable in all files.
pub fn explain(
    deployment: &Deployment,
    name: &str,
    unreadable: Vec<String>,
) -> Result<Box<dyn Report>> {
    let schema = deployment.place.as_ref().map(|place| &place.schema);
    let variable = deployment.files.iter().find_map(|env| {
        let meant = schema?.meant(name, env.environment.as_deref()?);
        meant.ok()
    });
    let files: Vec<InFile> = deployment
        .files
        .iter()
        .filter_map(|env| {
            let wanted = variable
                .zip(env.environment.as_deref())
                .map(|(v, e)| v.name_in(e));
            let names = [name.to_owned(), wanted.unwrap_or_default()];
            let found = names.iter().find(|name| env.document.get(name).is_some())?;
            Some(in_file(deployment, env, found))
        })
        .collect();
    if files.is_empty() && variable.is_none() {
        let known = deployment
            .files
            .iter()
            .flat_map(|env| env.document.entries.iter());
        let failure = Failure::new(format!("no file has {name}, and no schema names it"));
        return Err(
            match nearest(name, known.map(|entry| entry.name.as_str())) {
                Some(near) => failure.hint(format!("did you mean {near}?")),
                None => failure,
            },
        );
    }
    let (source, derived_from) = variable.map(source).unzip();
    let derives = schema
        .zip(variable)
        .map(|(schema, variable)| derives(schema, variable));
    Ok(Box::new(Explained {
        name: name.to_owned(),
        about: variable.and_then(|variable| variable.about.clone()),
        source,
        derived_from: derived_from.unwrap_or_default(),
        derives: derives.unwrap_or_default(),
        consumers: variable
            .map(|v| v.consumers.iter().map(|c| consumer(*c)).collect())
            .unwrap_or_default(),
        files,
        unreadable,
    }))
}

fn in_file(deployment: &Deployment, env: &Env, name: &str) -> InFile {
    let entry = env.document.get(name);
    let value = entry.map(|entry| entry.value.as_str()).unwrap_or_default();
    let secret = deployment.is_secret(env, name, value);
    let readings = readings(&env.bytes);
    let app = readings[&Reader::PythonDotenv].seen(name);
    let readers = ALL.into_iter().map(|reader| {
        let seen = readings[&reader].seen(name);
        let sees = match &seen {
            Seen::Value(value) if secret || secrets::password_in(value).is_some() => {
                masked(deployment, value, &app)
            }
            Seen::Value(value) => format!("{value:?}"),
            Seen::Depends(why) => format!("cannot be told beforehand: {why}"),
            Seen::Missing(why) => format!("nothing: {why}"),
        };
        ByReader {
            reader: reader.id(),
            label: reader.label(),
            same: seen == app,
            sees,
        }
    });
    InFile {
        path: env.shown(),
        line: entry.map_or(0, |entry| entry.line),
        environment: env.environment.clone(),
        secret,
        readers: readers.collect(),
    }
}

/// A secret's length, its fingerprint, and where it begins to differ.
fn masked(deployment: &Deployment, value: &str, app: &Seen) -> String {
    let length = value.chars().count();
    let mut text = format!(
        "*** of {length} characters, fingerprint {}",
        deployment.fingerprints.of(value)
    );
    if let Seen::Value(app) = app
        && app != value
    {
        let same = value
            .chars()
            .zip(app.chars())
            .take_while(|(a, b)| a == b)
            .count();
        text += &format!(", differs from character {} on", same + 1);
    }
    text
}

fn consumer(consumer: Consumer) -> &'static str {
    match consumer {
        Consumer::App => "app",
        Consumer::Compose => "compose",
        Consumer::Unit => "unit",
    }
}

/// In words, and the ids that it is made of.
fn source(variable: &Variable) -> (String, Vec<String>) {
    let ids = |texts: Vec<&Text>| {
        texts
            .iter()
            .flat_map(|text| text.references())
            .map(str::to_owned)
            .collect()
    };
    match &variable.source {
        Source::Fixed(values) => ("fixed by the schema".to_owned(), ids(values.texts())),
        Source::Default(values) => (
            "the schema's default, unless a file says otherwise".to_owned(),
            ids(values.texts()),
        ),
        Source::Derived(text) => ("made of other variables".to_owned(), ids(vec![text])),
        Source::Url(parts) => (
            "an address made of its parts".to_owned(),
            ids(parts.texts()),
        ),
        Source::Twin(other) => (
            "the same address for another driver".to_owned(),
            vec![other.clone()],
        ),
        Source::Generated(_) => ("generated once by `rg-envgen write`".to_owned(), Vec::new()),
        Source::Person(ask) => (format!("given by a person: {ask}"), Vec::new()),
        Source::Absent => ("only set by hand".to_owned(), Vec::new()),
    }
}

fn derives(schema: &Schema, variable: &Variable) -> Vec<String> {
    let made = schema
        .variables
        .iter()
        .filter(|other| source(other).1.contains(&variable.id));
    made.map(|other| other.id.clone()).collect()
}

impl Report for Explained {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        page.line(format!(
            "{}{}",
            self.name,
            self.about
                .as_ref()
                .map(|a| format!(": {a}"))
                .unwrap_or_default()
        ));
        let list = |page: &mut Page, what: &str, names: Vec<&str>| {
            if !names.is_empty() {
                page.line(format!("  {what}: {}", names.join(", ")));
            }
        };
        list(
            page,
            "source",
            self.source.iter().map(String::as_str).collect(),
        );
        list(
            page,
            "made of",
            self.derived_from.iter().map(String::as_str).collect(),
        );
        list(
            page,
            "goes into",
            self.derives.iter().map(String::as_str).collect(),
        );
        list(page, "read by", self.consumers.clone());
        for file in &self.files {
            page.line(format!("{}:{}", file.path, file.line));
            let rows: Vec<_> = file
                .readers
                .iter()
                .map(|one| {
                    let (tone, sign) = if one.same {
                        (Tone::Good, "=")
                    } else {
                        (Tone::Bad, "≠")
                    };
                    vec![
                        (tone, sign.to_owned()),
                        (Tone::Plain, one.label.to_owned()),
                        (Tone::Plain, one.sees.clone()),
                    ]
                })
                .collect();
            page.table(&["", "READER", "SEES"], &rows);
        }
        if self.files.is_empty() {
            page.line("no file has it");
        }
        for failure in &self.unreadable {
            page.line(format!(
                "{}: {failure}",
                page.tone(Tone::Bad, "could not look")
            ));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.unreadable.is_empty() {
            Outcome::Well
        } else {
            Outcome::Incomplete
        }
    }
}
