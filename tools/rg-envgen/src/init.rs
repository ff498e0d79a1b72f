//! `init`: a first `rg.toml`, the schema, and env files with fresh secrets, in one step.
//!
//! With `--dir` everything lies in that directory, its paths relative to it; without, where the
//! profile's servers have it. A file that is there is never overwritten: env files are completed as
//! by `write`, `rg.toml` and the schema stay as they are.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use minijinja::{Environment as Templates, UndefinedBehavior, Value, context};
use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::report::Report;
use rg_common::{Failure, OrFail, Result};

use crate::args::Init;
use crate::place::{self, Place};
use crate::profile::{self, Profile};
use crate::replace::{self, Manner};
use crate::schema::{FILE_NAME, Schema};
use crate::write::{self, FileWritten, Planned};
use crate::{generate, given};

/// Runs `rg-envgen init`.
pub fn init(context: &Context, args: &Init) -> Result<Box<dyn Report>> {
    let profile = profile::of(args.profile);
    let shipped = Schema::parse(profile.schema)
        .map_err(|failure| failure.context(format!("the profile {} is broken", profile.name)))?;
    let (config_path, home) = match &args.dir {
        Some(dir) => (
            dir.join("rg.toml"),
            std::path::absolute(dir).or_fail(|| "cannot tell where we are".to_owned())?,
        ),
        None => (context.common.config.clone(), shipped.home.clone()),
    };
    let schema_path = replace::directory_of(&config_path).join(FILE_NAME);
    // What an earlier run wrote before it was killed, or a person since, is what counts.
    let schema = match schema_path.exists() {
        true => Schema::parse(&place::read(&schema_path)?)
            .map_err(|failure| failure.context(format!("cannot read {}", schema_path.display())))?,
        false => shipped,
    };
    let mut here = copy(context);
    here.common.config = config_path.clone();
    let mut place = Place::with(&here, schema, schema_path)?;
    if place.schema.profile != profile.name {
        return Err(Failure::new(format!(
            "{} is of the profile {}, not {}",
            place.schema_path.display(),
            place.schema.profile,
            profile.name
        )));
    }
    place.schema.home = home.clone();
    let gifts = given::read(&args.given, &place.schema)?;
    let mut plans = Vec::new();
    for environment in &place.schema.environments {
        plans.push(write::plan(
            &place,
            environment,
            &gifts,
            args.new_database_password,
            &mut generate::System,
        )?);
    }
    let paths = Paths {
        inside: args.dir.is_some(),
        config: config_path.clone(),
    };
    let config = rendered(profile, &place, &plans, &paths)?;
    let state = match &place.config {
        Some(config) => config.state.clone(),
        None if paths.inside => home.join("state"),
        None => PathBuf::from("/var/lib/rg"),
    };
    if !args.dry_run {
        directories(&[&home, &replace::directory_of(&config_path)])?;
    }
    let mut first = Vec::new();
    for (path, text, mode) in [
        (&place.schema_path, profile.schema, 0o640),
        (&config_path, config.as_str(), 0o640),
    ] {
        let there = path.exists();
        if !there && !args.dry_run {
            replace::replace(
                path,
                text.as_bytes(),
                &Manner {
                    mode,
                    ..Manner::default()
                },
            )?;
        }
        first.push(FileWritten {
            path: path.clone(),
            environment: None,
            changed: !there,
            added: Vec::new(),
            set: Vec::new(),
            renamed: Vec::new(),
        });
    }
    if !args.dry_run {
        // It must be readable by all six tools before anything leans on it.
        Config::read(&config_path, &context.hostname)?;
    }
    let mut written = write::apply(
        &place,
        plans,
        context,
        Some(&state),
        args.fix_modes,
        args.dry_run,
    )?;
    written.files.splice(0..0, first);
    written.dry_run = args.dry_run;
    written.first = true;
    Ok(Box::new(written))
}

struct Paths {
    inside: bool,
    config: PathBuf,
}

/// `rg.toml` from the profile's template.
fn rendered(profile: &Profile, place: &Place, plans: &[Planned], paths: &Paths) -> Result<String> {
    let mut environments = Vec::new();
    let mut mail = None;
    for (index, planned) in plans.iter().enumerate() {
        let environment = &place.schema.environments[index];
        let mut values: BTreeMap<String, Value> = BTreeMap::new();
        for variable in &place.schema.variables {
            // No secret may reach a template.
            if variable.is_secret() {
                continue;
            }
            let value = planned
                .values
                .get(&variable.id)
                .map(|value| value.reveal().to_owned());
            if variable.id == "ADMIN_MAIL" {
                mail = value.clone();
            }
            values.insert(variable.id.clone(), Value::from(value));
        }
        let app = place.path(environment, 0);
        let written = match (paths.inside, app.file_name()) {
            (true, Some(name)) => PathBuf::from(name),
            _ => app,
        };
        values.insert("name".to_owned(), Value::from(environment.name.as_str()));
        values.insert(
            "env_file".to_owned(),
            Value::from(written.to_string_lossy()),
        );
        values.insert("minute".to_owned(), Value::from(index * 15));
        environments.push(Value::from(values));
    }
    let (state, store) = match paths.inside {
        true => ("state", "backups"),
        false => ("/var/lib/rg", "/var/backups/rg"),
    };
    let mut templates = Templates::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates
        .render_str(
            profile.config,
            context! { state, store, ADMIN_MAIL => mail, environments },
        )
        .or_fail(|| format!("cannot make {}", paths.config.display()))
}

fn directories(paths: &[&Path]) -> Result<()> {
    for path in paths {
        let what = || format!("cannot make the directory {}", path.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .or_fail(what)?;
    }
    Ok(())
}

/// The context once more, for another configuration.
fn copy(context: &Context) -> Context {
    Context {
        common: context.common.clone(),
        tool: context.tool.clone(),
        now: context.now,
        zone: context.zone.clone(),
        hostname: context.hostname.clone(),
        network: context.network.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_are_whole() {
        for profile in [&profile::RGRID, &profile::TOOLKITRAG] {
            let schema = Schema::parse(profile.schema).unwrap();
            assert_eq!(schema.profile, profile.name);
        }
    }
}
