//! `write`: the env files get what they lack; what is there stays byte for byte.
//!
//! All environments are worked out before the first file is written. A second run changes nothing.

mod report;

use rg_common::Result;
use rg_common::cli::Context;
use rg_common::report::Report;
use rg_common::secret::Secret;
use serde::Serialize;
use std::path::PathBuf;

use crate::args::Write;
use crate::audit::{self, Act, What};
use crate::derive::{self, How, Known, Missing, Values};
use crate::edit::EditedFile;
use crate::generate::Random;
use crate::given::{self, Gift};
use crate::place::{Holder, Place};
use crate::replace::{self, Manner};
use crate::schema::{Environment, Schema, Source, Variable};
use crate::{exists, generate, rotate, safe};

/// What happened to the files.
#[derive(Debug, Default, Serialize)]
pub struct Written {
    /// Each file.
    pub files: Vec<FileWritten>,
    /// What has no value.
    pub missing: Vec<Missing>,
    /// What somebody should look at.
    pub notes: Vec<String>,
    /// Whether nothing was really written.
    pub dry_run: bool,
    /// Whether missing values were expected: the first run lists them, a later one complains.
    #[serde(skip)]
    pub first: bool,
}

/// What happened to one file.
#[derive(Debug, Serialize)]
pub struct FileWritten {
    /// Where it is.
    pub path: PathBuf,
    /// Its environment, if it has one.
    pub environment: Option<String>,
    /// Whether a byte of it changed.
    pub changed: bool,
    /// Names that were added.
    pub added: Vec<String>,
    /// Names whose value follows the schema, or was given, and changed.
    pub set: Vec<String>,
    /// Old names and new ones.
    pub renamed: Vec<(String, String)>,
}

/// One environment, worked out.
pub struct Planned {
    environment: Environment,
    files: Vec<(Holder, FileWritten)>,
    /// Its values.
    pub values: Values,
}

/// Runs `rg-envgen write`.
pub fn write(
    context: &Context,
    schema: Option<&std::path::Path>,
    args: &Write,
) -> Result<Box<dyn Report>> {
    let place = Place::open(context, schema)?;
    if let Ok(state) = place.state() {
        rotate::refuse_pending(&state)?;
    }
    let gifts = given::read(&args.given, &place.schema)?;
    given::refuse_configured(&gifts, &place.schema)?;
    let environments = place.environments(&args.environments)?;
    let mut plans = Vec::new();
    for environment in environments {
        let made_up = args.new_database_password;
        plans.push(plan(
            &place,
            environment,
            &gifts,
            made_up,
            &mut generate::System,
        )?);
    }
    let state = place.config.as_ref().map(|config| config.state.clone());
    let mut written = apply(
        &place,
        plans,
        context,
        state.as_deref(),
        args.fix_modes,
        args.dry_run,
    )?;
    written.dry_run = args.dry_run;
    Ok(Box::new(written))
}

/// Works an environment out; nothing is written.
pub fn plan(
    place: &Place,
    environment: &Environment,
    gifts: &[Gift],
    made_up: bool,
    random: &mut dyn Random,
) -> Result<Planned> {
    let schema = &place.schema;
    let holders = place.holders(environment)?;
    let known = Known {
        schema,
        environment,
        found: place.found(environment, &holders)?,
        given: given::of(gifts, schema, environment)?,
    };
    let asked = |target: &derive::Target| {
        if made_up {
            return None;
        }
        exists::reason(environment, target)
    };
    let values = derive::values(known, random, &asked)
        .map_err(|failure| failure.context(format!("cannot work out {}", environment.name)))?;
    let mut files = Vec::new();
    for mut holder in holders {
        let record = edit(schema, environment, &mut holder, &values)?;
        files.push((holder, record));
    }
    Ok(Planned {
        environment: environment.clone(),
        files,
        values,
    })
}

/// Brings one file up to date.
fn edit(
    schema: &Schema,
    environment: &Environment,
    holder: &mut Holder,
    values: &Values,
) -> Result<FileWritten> {
    let before = holder.file.text();
    let mut record = FileWritten {
        path: holder.path.clone(),
        environment: Some(environment.name.clone()),
        changed: false,
        added: Vec::new(),
        set: Vec::new(),
        renamed: Vec::new(),
    };
    let mut behind = Vec::new();
    let mut group: Option<&str> = None;
    for variable in &schema.variables {
        if !schema.files_of(variable).any(|spec| spec == holder.spec) {
            continue;
        }
        let name = variable.name_in(&environment.name);
        for old in variable.former_in(&environment.name) {
            if holder.file.get(&old).is_some() && holder.file.get(&name).is_none() {
                holder.file.rename(&old, &name);
                record.renamed.push((old, name.clone()));
            }
        }
        let Some((value, how)) = values.values.get(&variable.id) else {
            continue;
        };
        match holder.file.get(&name) {
            Some(there) if there == value => {}
            Some(_) if *how == How::Kept => {}
            Some(_) => {
                safe::check(&name, value.reveal())?;
                holder.file.set(&name, value);
                record.set.push(name.clone());
            }
            None => {
                safe::check(&name, value.reveal())?;
                add(
                    &mut holder.file,
                    variable,
                    &name,
                    value,
                    environment,
                    holder.exists,
                    &mut group,
                    &behind,
                );
                record.added.push(name.clone());
            }
        }
        behind.push(name);
    }
    record.changed = holder.file.text() != before;
    Ok(record)
}

/// Adds a variable: into a new file under its heading, into one that is there behind its neighbours.
#[allow(clippy::too_many_arguments)]
fn add<'a>(
    file: &mut EditedFile,
    variable: &'a Variable,
    name: &str,
    value: &Secret,
    environment: &Environment,
    exists: bool,
    group: &mut Option<&'a str>,
    behind: &[String],
) {
    let mut comments = Vec::new();
    if file.is_empty() {
        comments.push(format!(
            "# {}: written by rg-envgen, which keeps what is changed here by hand.",
            environment.name
        ));
    }
    if !exists && *group != variable.group.as_deref() {
        *group = variable.group.as_deref();
        if let Some(group) = group {
            comments.push(String::new());
            comments.push(format!("# {group}"));
        }
    }
    if let Some(about) = &variable.about {
        comments.push(format!("# {}", about.trim_end_matches('\\')));
    }
    file.add(name, value, &comments, if exists { behind } else { &[] });
}

/// Writes what was planned, and records it.
pub fn apply(
    place: &Place,
    plans: Vec<Planned>,
    context: &Context,
    state: Option<&std::path::Path>,
    fix_modes: bool,
    dry_run: bool,
) -> Result<Written> {
    let mut written = Written::default();
    // What would be refused is refused before the first file is touched.
    for planned in &plans {
        for (holder, _) in &planned.files {
            replace::look(&holder.path, fix_modes)?;
        }
    }
    let mut acts = Vec::new();
    for planned in plans {
        let environment = &planned.environment.name;
        for (holder, record) in planned.files {
            let spec = &place.schema.files[holder.spec];
            let manner = Manner {
                mode: spec.mode,
                group: spec.group.clone(),
                fix_mode: fix_modes,
                ..Manner::default()
            };
            let open =
                replace::look(&holder.path, true)?.is_some_and(|meta| replace::is_open(&meta));
            if !dry_run {
                let _held = replace::hold(&replace::directory_of(&holder.path))?;
                replace::sweep(&holder.path)?;
                if record.changed || open {
                    let text = holder.file.text();
                    replace::replace(&holder.path, text.as_bytes(), &manner)?;
                }
            }
            written.files.push(record);
        }
        let of = |wanted: fn(How) -> bool| -> Vec<String> {
            let secrets = place.schema.variables.iter().filter(|variable| {
                variable.is_secret()
                    && !matches!(
                        variable.source,
                        Source::Url(_) | Source::Twin(_) | Source::Derived(_)
                    )
            });
            let fitting = secrets.filter(|variable| {
                planned
                    .values
                    .values
                    .get(&variable.id)
                    .is_some_and(|(_, how)| wanted(*how))
            });
            fitting.map(|variable| variable.id.clone()).collect()
        };
        let act = |what, names| Act {
            time: context.now,
            what,
            environment: environment.clone(),
            names,
            user: audit::user(),
        };
        acts.push(act(What::Written, of(|how| how != How::Kept)));
        acts.push(act(What::Seen, of(|how| how == How::Kept)));
        for mut missing in planned.values.missing {
            if missing
                .config
                .as_ref()
                .is_some_and(|key| !key.contains(environment))
            {
                missing.environment = "all".to_owned();
            }
            // One key of `rg.toml` for all environments is asked for once.
            let asked = |one: &Missing| one.config.is_some() && one.config == missing.config;
            if !written.missing.iter().any(asked) {
                written.missing.push(missing);
            }
        }
        let notes = planned.values.notes.into_iter();
        written
            .notes
            .extend(notes.map(|note| format!("{environment}: {note}")));
    }
    if let (Some(state), false) = (state, dry_run) {
        let known = audit::since(state)?;
        for act in acts.iter_mut().filter(|act| act.what == What::Seen) {
            act.names
                .retain(|name| !known.contains_key(&(act.environment.clone(), name.clone())));
        }
        // The files are right; only the ages would be unknown.
        if let Err(failure) = audit::record(state, &acts) {
            written.notes.push(format!(
                "{failure}: the age of the new secrets is not known"
            ));
        }
    }
    Ok(written)
}
