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

use std::collections::{BTreeMap, HashMap};
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
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

/// One level deep: the code's words stand beside the place.
impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut object = serializer.serialize_struct("Finding", 9)?;
        object.serialize_field("code", self.code.id)?;
        object.serialize_field("severity", &self.code.severity)?;
        object.serialize_field("path", &self.path)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("name", &self.name)?;
        object.serialize_field("about", self.code.about)?;
        object.serialize_field("detail", &self.detail)?;
        object.serialize_field("fix", &self.fix())?;
        object.serialize_field("mends", &self.mends)?;
        object.end()
    }
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

    /// What to do, with the file's and the variable's names in it.
    pub fn fix(&self) -> String {
        let mut text = self.code.fix.replace("FILE", &self.path);
        if let Some(name) = &self.name {
            text = text.replace("rotate NAME", &format!("rotate {name}"));
            text = text.replace("explain NAME", &format!("explain {name}"));
        }
        text
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
            name: name.map(shown_name),
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
    /// By environment and name: the place in the schema's variables.
    index: HashMap<String, HashMap<String, usize>>,
}

impl Deployment {
    /// Files alone, without a schema.
    #[cfg(test)]
    pub fn of_files(files: Vec<Env>) -> Result<Deployment> {
        Ok(Deployment {
            place: None,
            files,
            fingerprints: Fingerprints::new()?,
            ages: BTreeMap::new(),
            now: Timestamp::UNIX_EPOCH,
            index: HashMap::new(),
        })
    }

    /// The variable that an assignment is of.
    pub fn variable(&self, env: &Env, name: &str) -> Option<&crate::schema::Variable> {
        let environment = env.environment.as_deref()?;
        env.spec?;
        let at = *self.index.get(environment)?.get(name)?;
        self.place.as_ref()?.schema.variables.get(at)
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
        return Ok(render::table());
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
    // Without a port nobody needs to be asked.
    let machine = match ports::any(&deployment) {
        true => machine::facts(),
        false => machine::Facts::default(),
    };
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
    let index = place.as_ref().map(index).unwrap_or_default();
    let deployment = Deployment {
        place,
        files,
        fingerprints: Fingerprints::new()?,
        ages: ages.unwrap_or_default(),
        now: context.now,
        index,
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

fn index(place: &Place) -> HashMap<String, HashMap<String, usize>> {
    let variables = &place.schema.variables;
    let environments = place.schema.environments.iter().map(|environment| {
        let name = environment.name.clone();
        let names = variables.iter().enumerate();
        let names = names
            .map(|(at, variable)| (variable.name_in(&name), at))
            .collect();
        (name, names)
    });
    environments.collect()
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

/// A name as it may be shown: the second line of a key that was pasted in looks like one.
fn shown_name(name: &str) -> String {
    const LONGEST_PLAIN: usize = 20;
    let has = |test: fn(&char) -> bool| name.chars().any(|c| test(&c));
    let mixed =
        has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) && has(char::is_ascii_digit);
    let odd = name.contains(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)));
    if (mixed || odd) && name.len() > LONGEST_PLAIN {
        return "***".to_owned();
    }
    name.to_owned()
}

/// The exit status that a program's failure tells of.
fn exit_status(failure: &Failure) -> Option<i32> {
    // A `Failure` gives its cause as words only; `program` always says it in these.
    let said = failure.to_string();
    let (_, after) = said.split_once("ended with exit status ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

/// What the schema says of the names and values of the files.
pub fn against_schema(deployment: &Deployment) -> Vec<Finding> {
    let mut findings = Vec::new();
    for env in deployment.files.iter().filter(|env| env.spec.is_some()) {
        names::check(deployment, env, &mut findings);
        addresses::check(deployment, env, &mut findings);
    }
    let wanted = [codes::DUPLICATE.id, codes::REPEATED.id];
    findings.retain(|finding| !wanted.contains(&finding.code.id));
    findings.sort_by(|a, b| (&a.path, a.line, a.code.id).cmp(&(&b.path, b.line, b.code.id)));
    findings
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
            let text =
                std::str::from_utf8(&env.bytes).map_or_else(|error| error.valid_up_to(), str::len);
            let nul = env.bytes.iter().position(|&b| b == 0).unwrap_or(text);
            let before = &env.bytes[..text.min(nul)];
            let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
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
