//! `check`: what is wrong with env files, by code, line and remedy.
//!
//! The story: the files are chosen and read (`file`), facts about the machine are collected once
//! (`machine`, `repository`), the rules judge without touching anything (`dialects`, `names`,
//! `values`, `addresses`, `ports`, `whereabouts`), `mend` changes what can be changed without
//! losing anything, and `render` says it to people, scripts and code hosts. No value of a secret
//! leaves this module.

mod addresses;
pub mod codes;
pub mod dialects;
pub mod file;
mod machine;
mod mend;
mod names;
mod ports;
mod render;
mod repository;
pub mod secrets;
mod values;
mod whereabouts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rg_common::cli::Context;
use rg_common::report::{self, Report};
use rg_common::{Failure, Result};
use serde::Serialize;

use crate::args;
use crate::audit;
use crate::place::Place;
use codes::Code;
use file::Env;
use secrets::Fingerprints;

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind.
    #[serde(flatten, serialize_with = "flat_code")]
    pub code: &'static Code,
    /// The file.
    pub path: String,
    /// Its line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// The variable.
    pub name: Option<String>,
    /// What this one is about, without any secret.
    pub detail: String,
    /// Whether `--fix` mends this one.
    pub mends: bool,
}

#[derive(Serialize)]
struct FlatCode {
    code: &'static str,
    severity: codes::Severity,
    about: &'static str,
    fix: &'static str,
}

fn flat_code<S: serde::Serializer>(code: &&'static Code, serializer: S) -> Result<S::Ok, S::Error> {
    let Code {
        id,
        severity,
        about,
        fix,
        ..
    } = **code;
    FlatCode {
        code: id,
        severity,
        about,
        fix,
    }
    .serialize(serializer)
}

impl Finding {
    /// In a file that was read.
    pub fn new(
        code: &'static Code,
        env: &Env,
        line: usize,
        name: Option<&str>,
        detail: impl Into<String>,
    ) -> Finding {
        Finding::at(code, &env.path, line, name, detail)
    }

    /// At a path.
    pub fn at(
        code: &'static Code,
        path: &Path,
        line: usize,
        name: Option<&str>,
        detail: impl Into<String>,
    ) -> Finding {
        Finding {
            code,
            path: path.display().to_string(),
            line,
            name: name.map(str::to_owned),
            detail: detail.into(),
            mends: false,
        }
    }
}

/// What the rules look at.
pub struct Deployment {
    /// The schema and the configuration, where there are any.
    pub place: Option<Place>,
    /// The files, read.
    pub files: Vec<Env>,
    /// For comparing secrets.
    pub fingerprints: Fingerprints,
    /// Since when each secret has its value, by environment and name.
    pub ages: BTreeMap<(String, String), Timestamp>,
    /// The time of the run.
    pub now: Timestamp,
}

impl Deployment {
    /// The variable that an assignment is of.
    pub fn variable(&self, env: &Env, name: &str) -> Option<&crate::schema::Variable> {
        let environment = env.environment.as_deref()?;
        env.spec?;
        let variables = &self.place.as_ref()?.schema.variables;
        variables
            .iter()
            .find(|variable| variable.name_in(environment) == name)
    }

    /// Whether a value must not be shown.
    pub fn is_secret(&self, env: &Env, name: &str, value: &str) -> bool {
        self.variable(env, name)
            .is_some_and(|variable| variable.is_secret())
            || secrets::is_secret_name(name)
            || secrets::password_in(value).is_some()
    }
}

/// What `check` found.
pub struct Checked {
    /// How many files were read.
    pub files: usize,
    /// What is wrong, by file and line.
    pub findings: Vec<Finding>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
    /// What `--fix` mended, or would mend.
    pub mended: Vec<mend::Mended>,
    /// Only shown, not done.
    pub dry_run: bool,
    /// Warnings count too.
    pub strict: bool,
}

/// `rg-envgen check`
pub fn check(
    context: &Context,
    schema: Option<&Path>,
    args: &args::Check,
) -> Result<Box<dyn Report>> {
    if args.list_codes {
        return Ok(render::codes());
    }
    let (deployment, unreadable, absent) = open(context, schema, &args.paths, args.env.as_deref())?;
    if let Some(name) = &args.explain {
        return crate::explain::explain(&deployment, name, unreadable);
    }
    let mut checked = Checked {
        files: deployment.files.len(),
        findings: Vec::new(),
        unreadable,
        mended: Vec::new(),
        dry_run: args.dry_run,
        strict: args.strict,
    };
    let machine = machine::facts();
    checked.findings = judge(&deployment, &machine, absent);
    if args.fix {
        mend::mend(
            &deployment,
            &checked.findings,
            args.dry_run,
            &mut checked.mended,
            &mut checked.unreadable,
        );
        if !args.dry_run && !checked.mended.is_empty() {
            let (again, unreadable, absent) =
                open(context, schema, &args.paths, args.env.as_deref())?;
            checked.findings = judge(&again, &machine, absent);
            for failure in unreadable {
                if !checked.unreadable.contains(&failure) {
                    checked.unreadable.push(failure);
                }
            }
        }
    }
    Ok(match args.format {
        Some(args::CheckFormat::Sarif) => render::sarif(&checked),
        Some(args::CheckFormat::Json) => render::json(&checked),
        _ => Box::new(checked),
    })
}

/// Reads what is to be checked: the files, what could not be read, files of the schema that are
/// not there.
pub fn open(
    context: &Context,
    schema: Option<&Path>,
    paths: &[PathBuf],
    only: Option<&str>,
) -> Result<(Deployment, Vec<String>, Vec<Finding>)> {
    let place = place(context, schema)?;
    let mut unreadable = Vec::new();
    let mut absent = Vec::new();
    let mut chosen: Vec<(PathBuf, Option<(String, usize)>)> = Vec::new();
    let known: Vec<(PathBuf, (String, usize))> = place.as_ref().map(of_schema).unwrap_or_default();
    if paths.is_empty() {
        if known.is_empty() {
            return Err(
                Failure::new("there is neither a schema nor a file to check")
                    .hint("name files or directories: rg-envgen check /home/deploy/app")
                    .hint("or begin with `rg-envgen init --profile …`"),
            );
        }
        for (path, of) in &known {
            if path.symlink_metadata().is_ok() {
                chosen.push((path.clone(), Some(of.clone())));
            } else if only.is_none_or(|only| only == of.0) {
                absent.push(Finding::at(
                    codes::NO_FILE,
                    path,
                    0,
                    None,
                    format!("of {}", of.0),
                ));
            }
        }
    }
    for path in paths {
        let found = if path.is_dir() {
            file::find(path)
        } else {
            Ok(vec![path.clone()])
        };
        match found {
            Ok(found) => chosen.extend(found.into_iter().map(|path| {
                let of = known
                    .iter()
                    .find(|(one, _)| same_file(one, &path) || one.file_name() == path.file_name());
                let of = of.map(|(_, of)| of.clone());
                (path, of)
            })),
            Err(failure) => unreadable.push(report::with_hints(&failure)),
        }
    }
    let mut files = Vec::new();
    for (path, of) in chosen {
        match file::read(&path) {
            Ok(mut env) => {
                if let Some((environment, spec)) = of {
                    env.environment = Some(environment);
                    env.spec = Some(spec);
                }
                if only.is_none_or(|only| env.environment.as_deref() == Some(only)) {
                    files.push(env);
                }
            }
            Err(failure) => unreadable.push(report::with_hints(&failure)),
        }
    }
    if files.is_empty() && unreadable.is_empty() && absent.is_empty() {
        return Err(Failure::new("no env file was found")
            .hint("files called .env, .env.NAME and NAME.env are; name another one itself"));
    }
    let state = place
        .as_ref()
        .and_then(|place| place.config.as_ref())
        .map(|config| config.state.clone());
    let ages = state.map(|state| audit::since(&state)).transpose();
    let ages = ages.unwrap_or_else(|failure| {
        unreadable.push(report::with_hints(&failure));
        None
    });
    let deployment = Deployment {
        place,
        files,
        fingerprints: Fingerprints::new()?,
        ages: ages.unwrap_or_default(),
        now: context.now,
    };
    Ok((deployment, unreadable, absent))
}

/// The schema that is named or lies beside the configuration; none is no mistake here.
fn place(context: &Context, schema: Option<&Path>) -> Result<Option<Place>> {
    let beside =
        crate::replace::directory_of(&context.common.config).join(crate::schema::FILE_NAME);
    if schema.is_none() && beside.symlink_metadata().is_err() {
        return Ok(None);
    }
    Place::open(context, schema).map(Some)
}

fn of_schema(place: &Place) -> Vec<(PathBuf, (String, usize))> {
    let mut known = Vec::new();
    for environment in &place.schema.environments {
        for spec in 0..place.schema.files.len() {
            known.push((
                place.path(environment, spec),
                (environment.name.clone(), spec),
            ));
        }
    }
    known
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// All rules over all files. Pure but for what `whereabouts` and `repository` look up beside the files.
pub fn judge(
    deployment: &Deployment,
    machine: &machine::Facts,
    absent: Vec<Finding>,
) -> Vec<Finding> {
    let mut findings = absent;
    for env in &deployment.files {
        if env.text.is_none() {
            let line = 1 + env
                .bytes
                .iter()
                .take_while(|&&b| b != 0)
                .filter(|&&b| b == b'\n')
                .count();
            findings.push(Finding::new(codes::NOT_TEXT, env, line, None, ""));
        }
        dialects::check(env, &mut findings);
        names::check(deployment, env, &mut findings);
        values::check(deployment, env, &mut findings);
        addresses::check(deployment, env, &mut findings);
        whereabouts::check(env, &mut findings);
        repository::check(env, &mut findings);
    }
    values::compare(deployment, &mut findings);
    ports::check(deployment, machine, &mut findings);
    addresses::compare(deployment, &mut findings);
    mend::mark(deployment, &mut findings);
    findings.sort_by(|a, b| {
        (&a.path, a.line, a.code.id, &a.name).cmp(&(&b.path, b.line, b.code.id, &b.name))
    });
    findings.dedup();
    findings
}
