//! Names: missing, unknown, renamed, set twice, forbidden; and what the schema says of values (F5).

use std::collections::BTreeMap;

use rg_common::config::nearest;
use rg_common::env_file::document::Entry;

use super::file::Env;
use super::{Deployment, Finding, codes};
use crate::schema::{Kind, Schema, Source, Variable};

/// What must not be set in production, whatever the schema says.
const NOT_IN_PRODUCTION: [&str; 1] = ["ADMIN_PASSWORD"];
/// Names that say which environment a file is for.
const ENVIRONMENT_NAMES: [&str; 6] = [
    "ENV",
    "API_ENV",
    "APP_ENV",
    "ENVIRONMENT",
    "NODE_ENV",
    "DEPLOY_ENV",
];

/// One file.
pub fn check(deployment: &Deployment, env: &Env, findings: &mut Vec<Finding>) {
    twice(env, findings);
    match (&deployment.place, env.environment.as_deref(), env.spec) {
        (Some(place), Some(environment), Some(spec)) => {
            by_schema(&place.schema, env, environment, spec, findings);
        }
        _ => without_schema(env, findings),
    }
}

fn twice(env: &Env, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in &env.document.entries {
        seen.entry(&entry.name).or_default().push(entry);
    }
    for (name, entries) in seen.into_iter().filter(|(_, entries)| entries.len() > 1) {
        let last = entries[entries.len() - 1];
        let same = entries.iter().all(|entry| entry.value == last.value);
        let code = if same {
            codes::REPEATED
        } else {
            codes::DUPLICATE
        };
        for entry in &entries[..entries.len() - 1] {
            let detail = format!("and again in line {}", last.line);
            findings.push(Finding::new(code, env, entry.line, Some(name), detail));
        }
    }
}

fn by_schema(
    schema: &Schema,
    env: &Env,
    environment: &str,
    spec: usize,
    findings: &mut Vec<Finding>,
) {
    let mut known: BTreeMap<String, &Variable> = BTreeMap::new();
    let mut former: BTreeMap<String, &Variable> = BTreeMap::new();
    for variable in &schema.variables {
        known.insert(variable.name_in(environment), variable);
        former.extend(variable.former_in(environment).map(|name| (name, variable)));
    }
    for entry in &env.document.entries {
        let name = entry.name.as_str();
        if let Some(variable) = known.get(name) {
            if !schema.files_of(variable).any(|one| one == spec) {
                let files: Vec<String> = schema
                    .files_of(variable)
                    .map(|at| schema.files[at].name_in(environment))
                    .collect();
                let detail = match files.is_empty() {
                    true => "no file of the schema holds it".to_owned(),
                    false => format!("it belongs into {}", files.join(" and ")),
                };
                findings.push(Finding::new(
                    codes::UNKNOWN,
                    env,
                    entry.line,
                    Some(name),
                    detail,
                ));
            }
            value(env, entry, variable, environment, findings);
        } else if let Some(variable) = former.get(name) {
            let detail = format!("it is {} now", variable.name_in(environment));
            findings.push(Finding::new(
                codes::RENAMED,
                env,
                entry.line,
                Some(name),
                detail,
            ));
        } else {
            let near = nearest(name, known.keys().map(String::as_str));
            let detail = near
                .map(|near| format!("did you mean {near}?"))
                .unwrap_or_default();
            findings.push(Finding::new(
                codes::UNKNOWN,
                env,
                entry.line,
                Some(name),
                detail,
            ));
        }
    }
    for (name, variable) in &known {
        let here = schema.files_of(variable).any(|one| one == spec);
        let renamed = variable
            .former_in(environment)
            .any(|former| env.document.get(&former).is_some());
        if !here
            || renamed
            || !variable.required.has(environment)
            || variable.forbidden.has(environment)
        {
            continue;
        }
        let (line, detail) = match env.document.get(name) {
            None => (0, ""),
            Some(entry) if entry.value.is_empty() && variable.kind != Kind::Text => {
                (entry.line, "it is empty")
            }
            Some(_) => continue,
        };
        findings.push(Finding::new(codes::MISSING, env, line, Some(name), detail));
    }
}

/// What the schema says of one value.
fn value(
    env: &Env,
    entry: &Entry,
    variable: &Variable,
    environment: &str,
    findings: &mut Vec<Finding>,
) {
    let mut say = |code, detail: String| {
        findings.push(Finding::new(
            code,
            env,
            entry.line,
            Some(&entry.name),
            detail,
        ));
    };
    if variable.forbidden.has(environment) {
        say(codes::FORBIDDEN, format!("in {environment}"));
        return;
    }
    if entry.value.is_empty() {
        return;
    }
    if let Source::Fixed(fixed) = &variable.source
        && let Some(wanted) = fixed
            .of(environment)
            .and_then(|text| text.fill(environment, |_| None))
        && wanted != entry.value
        && !variable.is_secret()
    {
        let code = match ENVIRONMENT_NAMES.contains(&entry.name.as_str()) {
            true => codes::WRONG_ENVIRONMENT,
            false => codes::WRONG_KIND,
        };
        say(code, format!("the schema says `{wanted}`"));
        return;
    }
    // Secrets and addresses have findings of their own, which say more.
    if !variable.is_secret()
        && let Err(why) = variable.kind.accepts(&entry.value)
    {
        say(codes::WRONG_KIND, format!("it {why}"));
    }
}

fn without_schema(env: &Env, findings: &mut Vec<Finding>) {
    let Some(environment) = env.environment.as_deref() else {
        return;
    };
    for entry in &env.document.entries {
        let name = entry.name.as_str();
        if env.is_production() && NOT_IN_PRODUCTION.contains(&name) && !entry.value.is_empty() {
            let detail = "the first administrator is made by hand, or the password is everybody's who reads the file";
            findings.push(Finding::new(
                codes::FORBIDDEN,
                env,
                entry.line,
                Some(name),
                detail,
            ));
        }
        if ENVIRONMENT_NAMES.contains(&name) {
            let says = super::file::environment_of(std::path::Path::new(&entry.value));
            if let Some(says) = says.filter(|says| says != environment) {
                // node's only word for everything that is deployed.
                if name == "NODE_ENV" && says == "production" {
                    continue;
                }
                let detail = format!("the file's name says {environment}, the value {says}");
                findings.push(Finding::new(
                    codes::WRONG_ENVIRONMENT,
                    env,
                    entry.line,
                    Some(name),
                    detail,
                ));
            }
        }
    }
}
