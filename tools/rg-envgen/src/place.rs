//! Where things are: the schema, `rg.toml`, and each environment's files with what they hold.
//!
//! The app's env file is where `rg.toml` says; the other files of an environment lie beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::config::{Config, DatasetKind};
use rg_common::secret::Secret;
use rg_common::{Failure, OrFail, Result};

use crate::edit::EditedFile;
use crate::replace;
use crate::schema::{Environment, FILE_NAME, Schema, Variable};

/// A schema or an env file is refused above this size.
const BYTES_MAX: u64 = 1 << 20;

/// A deployment as it lies on this machine.
pub struct Place {
    /// The schema.
    pub schema: Schema,
    /// Where it was read from.
    pub schema_path: PathBuf,
    /// The configuration; none where there is no `rg.toml` yet.
    pub config: Option<Config>,
    /// The configuration as TOML, for what the schema says it holds.
    table: toml::Table,
}

/// A file of an environment.
pub struct Holder {
    /// Where it is.
    pub path: PathBuf,
    /// Its place in the schema's `files`.
    pub spec: usize,
    /// What is in it.
    pub file: EditedFile,
    /// Whether it is there.
    pub exists: bool,
}

impl Place {
    /// Reads the schema that is named, or the one beside the configuration, and the configuration.
    pub fn open(context: &Context, schema: Option<&Path>) -> Result<Place> {
        let config_path = &context.common.config;
        let schema_path = match schema {
            Some(path) => path.to_owned(),
            None => replace::directory_of(config_path).join(FILE_NAME),
        };
        let text = read(&schema_path).map_err(|failure| {
            failure.hint("name one with --schema FILE, or begin with `rg-envgen init --profile …`")
        })?;
        let schema = Schema::parse(&text)
            .map_err(|failure| failure.context(format!("cannot read {}", schema_path.display())))?;
        Place::with(context, schema, schema_path)
    }

    /// The same with a schema that was read or shipped.
    pub fn with(context: &Context, schema: Schema, schema_path: PathBuf) -> Result<Place> {
        let config_path = &context.common.config;
        let there = config_path.exists();
        let config = there.then(|| context.config()).transpose()?;
        let table = match &config {
            Some(_) => read(config_path)?
                .parse()
                .or_fail(|| format!("cannot read {}", config_path.display()))?,
            None => toml::Table::new(),
        };
        Ok(Place {
            schema,
            schema_path,
            config,
            table,
        })
    }

    /// Where journals and ages are kept.
    pub fn state(&self) -> Result<PathBuf> {
        match &self.config {
            Some(config) => Ok(config.state.clone()),
            None => Err(Failure::new(
                "there is no rg.toml, so it is not known where to keep a journal",
            )
            .hint("rg-envgen init writes one; --config FILE names another")),
        }
    }

    /// The environments that the words mean; all without words.
    pub fn environments(&self, words: &[String]) -> Result<Vec<&Environment>> {
        if words.is_empty() {
            return Ok(self.schema.environments.iter().collect());
        }
        words
            .iter()
            .map(|word| self.schema.environment(word))
            .collect()
    }

    /// The files of an environment with what they hold.
    pub fn holders(&self, environment: &Environment) -> Result<Vec<Holder>> {
        let mut holders = Vec::new();
        for (spec, _) in self.schema.files.iter().enumerate() {
            let path = self.path(environment, spec);
            let exists = path.symlink_metadata().is_ok();
            let file = if exists {
                EditedFile::parse(&read(&path)?)
                    .map_err(|failure| failure.context(format!("cannot read {}", path.display())))?
            } else {
                EditedFile::default()
            };
            holders.push(Holder {
                path,
                spec,
                file,
                exists,
            });
        }
        Ok(holders)
    }

    /// Where a file of an environment is.
    pub fn path(&self, environment: &Environment, spec: usize) -> PathBuf {
        let app = self
            .config
            .as_ref()
            .and_then(|config| config.environment(&environment.name))
            .and_then(|one| one.env_file.clone());
        match (app, spec) {
            (Some(app), 0) => app,
            (Some(app), _) => {
                replace::directory_of(&app).join(self.schema.files[spec].name_in(&environment.name))
            }
            (None, _) => self
                .schema
                .home
                .join(self.schema.files[spec].name_in(&environment.name)),
        }
    }

    /// What `rg.toml` holds of a variable that the schema keeps there.
    pub fn configured(&self, variable: &Variable, environment: &Environment) -> Option<Secret> {
        let path = variable
            .config
            .as_ref()?
            .replace("{env}", &environment.name);
        let mut steps = path.split('.');
        let mut value = self.table.get(steps.next()?)?;
        for step in steps {
            value = value.get(step)?;
        }
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            _ => return None,
        };
        Some(Secret::new(text))
    }

    /// The extensions that `rg.toml` names for an environment's database.
    pub fn extensions(&self, environment: &Environment) -> Vec<String> {
        let database = self
            .table
            .get("environments")
            .and_then(|all| all.get(&environment.name)?.get("database"));
        let list = database.and_then(|one| one.get("extensions")?.as_array());
        let words = list.into_iter().flatten().filter_map(toml::Value::as_str);
        words.map(str::to_owned).collect()
    }

    /// Further files with keys that `rg.toml` names: a store's credentials, a notice's env file, the
    /// keys of a bucket's administrator.
    pub fn keys(&self) -> Vec<PathBuf> {
        let base = self
            .config
            .as_ref()
            .map(|config| replace::directory_of(&config.path));
        let base = base.unwrap_or_default();
        let mut keys = Vec::new();
        for (table, key) in [("stores", "credentials"), ("notify", "env_file")] {
            let tables = self.table.get(table).and_then(toml::Value::as_table);
            for one in tables.into_iter().flat_map(toml::Table::values) {
                if let Some(path) = one.get(key).and_then(toml::Value::as_str) {
                    keys.push(base.join(path));
                }
            }
        }
        let datasets = self.config.iter().flat_map(|config| &config.datasets);
        for dataset in datasets {
            if let DatasetKind::Bucket(bucket) = &dataset.kind {
                keys.extend(bucket.admin_credentials.clone());
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// The values that the files and `rg.toml` hold, by the schema's ids; a former name counts. Two
    /// files that hold different values of one variable are a failure.
    pub fn found(
        &self,
        environment: &Environment,
        holders: &[Holder],
    ) -> Result<BTreeMap<String, Secret>> {
        let mut found: BTreeMap<String, Secret> = BTreeMap::new();
        for variable in &self.schema.variables {
            if let Some(value) = self.configured(variable, environment) {
                found.insert(variable.id.clone(), value);
            }
            let name = variable.name_in(&environment.name);
            let mut first: Option<(&Path, &Secret)> = None;
            for holder in holders {
                let Some(value) = holder.file.get(&name) else {
                    continue;
                };
                match first {
                    Some((other, one)) if one != value => {
                        return Err(Failure::new(format!(
                            "{name} has one value in {} and another in {}",
                            other.display(),
                            holder.path.display()
                        ))
                        .hint("take the wrong one out; which one logs in, the server knows"));
                    }
                    _ => first = Some((&holder.path, value)),
                }
            }
            let former = || {
                variable
                    .former_in(&environment.name)
                    .find_map(|name| holders.iter().find_map(|holder| holder.file.get(&name)))
            };
            if let Some(value) = first.map(|(_, value)| value).or_else(former) {
                found.insert(variable.id.clone(), value.clone());
            }
        }
        Ok(found)
    }
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    let what = || format!("cannot read {}", path.display());
    let meta = std::fs::metadata(path).or_fail(what)?;
    if meta.len() > BYTES_MAX {
        return Err(Failure::new(format!(
            "{} is larger than 1 MiB",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).or_fail(what)?;
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is not UTF-8", path.display())))
}
