//! `render`: compose files, units, proxy sites and a server's user data, from the schema, `rg.toml` and the env files.
//!
//! The promise: a template sees no secret, so none can end in what it makes (the SQL of `database`
//! holds a password's verifier); a value that is missing
//! is a failure that says where to set it, never a placeholder; the same source gives the same bytes.

mod database;
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::{Environment as Templates, UndefinedBehavior, Value};
use rg_common::cli::Context;
use rg_common::report::{Outcome, Page, Report, Tone};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args::{Kind, Render};
use crate::derive::{self, Known, Values};
use crate::generate;
use crate::place::Place;
use crate::profile::{self, Profile, Template};
use crate::replace::{self, Manner};
use crate::schema::Environment;

/// One file that was made.
#[derive(Debug, Serialize)]
pub struct Rendered {
    /// Its name.
    pub name: String,
    /// Where it was written, if it was.
    pub path: Option<PathBuf>,
    /// Whether a byte of it changed.
    pub changed: bool,
    /// Its text.
    pub text: String,
}

#[derive(Serialize)]
struct Files {
    files: Vec<Rendered>,
    #[serde(skip)]
    printed: bool,
    dry_run: bool,
}

/// Runs `rg-envgen render`.
pub fn render(context: &Context, schema: Option<&Path>, args: &Render) -> Result<Box<dyn Report>> {
    let place = Place::open(context, schema)?;
    if args.kind != Kind::CloudInit && args.server.is_given() {
        return Err(
            Failure::new("keys, a proxy and a package are for the server's user data")
                .hint("rg-envgen render cloud-init"),
        );
    }
    if args.kind == Kind::CloudInit && args.env.is_some() {
        return Err(Failure::new(
            "user data is for a server, with all environments that are on it",
        )
        .hint("leave out --env"));
    }
    let templates = match args.kind {
        Kind::Database | Kind::CloudInit => Vec::new(),
        kind => templates(&place, kind)?,
    };
    let environments: Vec<&Environment> = match &args.env {
        Some(name) => vec![place.schema.environment(name)?],
        None => place.schema.environments.iter().collect(),
    };
    let mut files = Vec::new();
    if args.kind == Kind::CloudInit {
        files.push(server::user_data(&place, shipped(&place)?, &args.server)?);
    }
    for environment in environments {
        if args.kind == Kind::Database {
            files.push(database::sql(
                &place,
                environment,
                &known(&place, environment)?,
            )?);
        }
        for template in &templates {
            files.push(one(&place, environment, template)?);
        }
    }
    if let Some(directory) = &args.output {
        for file in &mut files {
            let path = directory.join(&file.name);
            let there = std::fs::read(&path).ok();
            file.changed = there.as_deref() != Some(file.text.as_bytes());
            if file.changed && !args.dry_run {
                write(&path, &file.text)?;
            }
            file.path = Some(path);
        }
    }
    Ok(Box::new(Files {
        files,
        printed: args.output.is_none(),
        dry_run: args.dry_run,
    }))
}

fn shipped(place: &Place) -> Result<&'static Profile> {
    let name = &place.schema.profile;
    profile::named(name).ok_or_else(|| {
        Failure::new(format!("there are no templates for the profile `{name}`"))
            .hint("`profile` in the schema names one of: rgrid, toolkitrag")
    })
}

fn templates(place: &Place, kind: Kind) -> Result<Vec<&'static Template>> {
    let profile = shipped(place)?;
    let name = profile.name;
    let found: Vec<&Template> = profile
        .templates
        .iter()
        .filter(|one| one.kind == kind)
        .collect();
    match found.is_empty() {
        true => Err(
            Failure::new(format!("the profile {name} has nothing of that kind"))
                .hint("it runs without docker, so it has no compose file"),
        ),
        false => Ok(found),
    }
}

fn one(place: &Place, environment: &Environment, template: &Template) -> Result<Rendered> {
    let name = template.name.replace("{env}", &environment.name);
    let values = known(place, environment)?;
    let file = |spec| place.path(environment, spec).to_string_lossy().into_owned();
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for variable in &place.schema.variables {
        let own = variable.name_in(&environment.name);
        let value = values.get(&variable.id);
        if template.needs().any(|need| need == variable.id) && value.is_none() {
            let failure = Failure::new(format!(
                "{name} needs {own}, which has no value in {}",
                environment.name
            ));
            return Err(match &variable.config {
                Some(key) => failure.hint(format!(
                    "set `{}` in rg.toml",
                    key.replace("{env}", &environment.name)
                )),
                None => failure.hint("rg-envgen write says what is missing"),
            });
        }
        // It goes into other programs' languages: what is no domain would be read as one of theirs.
        if let Some(value) = value.filter(|_| !variable.is_secret()) {
            variable
                .kind
                .accepts(value.reveal())
                .map_err(|why| Failure::new(format!("{name}: the value of {own} {why}")))?;
        }
        // Secrets stay where they are: what is rendered refers to them by name.
        let shown = value
            .filter(|_| !variable.is_secret())
            .map(|value| value.reveal().to_owned());
        seen.insert(variable.id.clone(), Value::from(shown));
        // For compose, which makes an error of a missing one and not an empty text.
        wanted.insert(
            variable.id.clone(),
            Value::from(format!("${{{own}:?missing}}")),
        );
    }
    let files: Vec<String> = (0..place.schema.files.len()).map(file).collect();
    for path in &files {
        if path.contains(|c: char| c.is_whitespace() || "\"'%$\\".contains(c)) {
            return Err(
                Failure::new(format!("the path {path} cannot stand in a unit as it is"))
                    .hint("use a directory whose name has letters, digits, `.`, `_` and `-`"),
            );
        }
    }
    let files: Vec<String> = files
        .iter()
        .map(|path| absolute(path))
        .collect::<Result<_>>()?;
    seen.insert("name".to_owned(), Value::from(environment.name.as_str()));
    seen.insert("wanted".to_owned(), Value::from(wanted));
    seen.insert("files".to_owned(), Value::from(files));
    let mut engine = Templates::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut text = engine
        .render_str(template.text, Value::from(seen))
        .or_fail(|| format!("cannot make {name}"))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(Rendered {
        name,
        path: None,
        changed: true,
        text,
    })
}

fn absolute(path: &str) -> Result<String> {
    let path = std::path::absolute(path).or_fail(|| format!("cannot tell where {path} is"))?;
    Ok(path.to_string_lossy().into_owned())
}

/// What the files hold and the schema says; nothing is made up.
fn known(place: &Place, environment: &Environment) -> Result<Values> {
    let holders = place.holders(environment)?;
    let known = Known {
        schema: &place.schema,
        environment,
        found: place.found(environment, &holders)?,
        given: BTreeMap::new(),
    };
    // A secret that is missing is made, used for nothing and forgotten: templates see none.
    derive::values(known, &mut generate::System, &|_| None)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let directory = replace::directory_of(path);
    std::fs::create_dir_all(&directory)
        .or_fail(|| format!("cannot make {}", directory.display()))?;
    let _held = replace::hold(&directory)?;
    // Programs of other users read it, and there is no secret in it.
    let manner = Manner {
        mode: 0o644,
        public: true,
        ..Manner::default()
    };
    replace::replace(path, text.as_bytes(), &manner)
}

impl Report for Files {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for file in &self.files {
            if self.printed {
                if self.files.len() > 1 {
                    // A comment in whatever it is.
                    let sign = if file.name.ends_with(".sql") {
                        "--"
                    } else {
                        "#"
                    };
                    page.line(format!("{sign} ==== {} ====", file.name));
                }
                page.line(file.text.trim_end_matches('\n'));
                continue;
            }
            let path = file
                .path
                .as_deref()
                .unwrap_or(Path::new(&file.name))
                .display();
            match (file.changed, self.dry_run) {
                (false, _) => page.line(format!("unchanged  {path}")),
                (true, true) => page.line(format!("would write  {path}")),
                (true, false) => page.line(format!("{} wrote  {path}", page.tone(Tone::Good, "✓"))),
            }
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}
