//! `show`: one variable: what it is, where it comes from, who reads it, how old it is; its value
//! only with `--reveal`. And `schema`, which prints the schema or its JSON Schema.

use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::report::{Outcome, Page, Plain, Report, Tone};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args::{Schema as SchemaArgs, Show};
use crate::place::{self, Place};
use crate::rotate;
use crate::schema::{self, FILE_NAME, Schema, Source, Text, Variable};
use crate::{profile, replace};

#[derive(Serialize)]
struct Shown {
    id: String,
    about: Option<String>,
    line: usize,
    comes_from: String,
    consumers: Vec<schema::Consumer>,
    former: Vec<String>,
    environments: Vec<InEnvironment>,
}

#[derive(Serialize)]
struct InEnvironment {
    environment: String,
    name: String,
    required: bool,
    forbidden: bool,
    /// The files that hold it now.
    files: Vec<PathBuf>,
    set: bool,
    days: Option<i64>,
    /// Only when it was asked for.
    value: Option<String>,
}

/// Runs `rg-envgen show`.
pub fn show(context: &Context, schema: Option<&Path>, args: &Show) -> Result<Box<dyn Report>> {
    let place = Place::open(context, schema)?;
    let words: Vec<String> = args.env.iter().cloned().collect();
    let environments = place.environments(&words)?;
    let variable = place.schema.meant(&args.name, &environments[0].name)?;
    let ages = match place.state() {
        Ok(state) => rotate::ages::ages(&place, &state, context.now)?,
        Err(_) => Vec::new(),
    };
    let mut shown = Vec::new();
    for environment in environments {
        let holders = place.holders(environment)?;
        let found = place.found(environment, &holders)?;
        let name = variable.name_in(&environment.name);
        let holds = holders
            .iter()
            .filter(|holder| holder.file.get(&name).is_some());
        let value = found.get(&variable.id);
        let age = ages
            .iter()
            .find(|age| age.environment == environment.name && age.name == variable.id);
        shown.push(InEnvironment {
            environment: environment.name.clone(),
            required: variable.required.has(&environment.name),
            forbidden: variable.forbidden.has(&environment.name),
            files: holds.map(|holder| holder.path.clone()).collect(),
            set: value.is_some(),
            days: age.and_then(|age| age.days),
            value: value
                .filter(|_| args.reveal)
                .map(|value| value.reveal().to_owned()),
            name,
        });
    }
    Ok(Box::new(Shown {
        id: variable.id.clone(),
        about: variable.about.clone(),
        line: variable.line,
        comes_from: comes_from(variable),
        consumers: variable.consumers.clone(),
        former: variable.former.clone(),
        environments: shown,
    }))
}

fn comes_from(variable: &Variable) -> String {
    let of = |texts: Vec<&Text>| {
        let ids: Vec<&str> = texts.iter().flat_map(|text| text.references()).collect();
        ids.join(", ")
    };
    match &variable.source {
        Source::Fixed(_) => "what the schema says, always".to_owned(),
        Source::Default(_) => "what the schema says, unless the file says otherwise".to_owned(),
        Source::Derived(text) => format!("made of {}", of(vec![text])),
        Source::Url(parts) => match of(parts.texts()) {
            ids if ids.is_empty() => "put together from its parts".to_owned(),
            ids => format!("put together from its parts and {ids}"),
        },
        Source::Twin(other) => format!("that of {other}, with another driver"),
        Source::Generated(generator) => format!("made here, once, {} bits", generator.bits()),
        Source::Person(question) => format!("given by a person: {question}"),
        Source::Absent => "given by a person, where it is wanted".to_owned(),
    }
}

/// Runs `rg-envgen schema`.
pub fn schema(
    context: &Context,
    path: Option<&Path>,
    args: &SchemaArgs,
) -> Result<Box<dyn Report>> {
    let document = schema::json::schema();
    let text = match (args.profile, context.common.json) {
        (Some(profile), _) => profile::of(profile).schema.to_owned(),
        // The JSON Schema is the same whatever the schema in use says.
        (None, true) => String::new(),
        (None, false) => {
            let beside = replace::directory_of(&context.common.config).join(FILE_NAME);
            let path = path.unwrap_or(&beside);
            let text = place::read(path)
                .map_err(|failure| failure.hint("--profile prints a shipped one"))?;
            Schema::parse(&text).map_err(|failure: Failure| {
                failure.context(format!("cannot read {}", path.display()))
            })?;
            text
        }
    };
    Ok(Box::new(Plain {
        document,
        text,
        outcome: Outcome::Well,
    }))
}

impl Report for Shown {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        page.line(match &self.about {
            Some(about) => format!("{}: {about}", self.id),
            None => self.id.clone(),
        });
        page.line(format!("  its value: {}", self.comes_from));
        if !self.former.is_empty() {
            page.line(format!("  was called {}", self.former.join(", ")));
        }
        for one in &self.environments {
            let state = match (one.set, one.forbidden, one.required) {
                (true, true, _) => page.tone(Tone::Bad, "set, and must not be"),
                (true, ..) => page.tone(Tone::Good, "set"),
                (false, false, true) => page.tone(Tone::Bad, "missing"),
                (false, ..) => "not set".to_owned(),
            };
            let age = one
                .days
                .map_or(String::new(), |days| format!(", {days} days old"));
            page.line(format!(
                "  {}: {} is {state}{age}",
                one.environment, one.name
            ));
            for file in &one.files {
                page.line(format!("    in {}", file.display()));
            }
            if let Some(value) = &one.value {
                page.line(format!("    {value}"));
            }
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}
