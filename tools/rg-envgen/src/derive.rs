//! What the variables of an environment are to be: from the files, the schema, a person, or fresh.
//!
//! Pure but for the random source. The promise: a secret that is in a file is never replaced; a
//! value that is not known and may not be made up is listed with what to do; nothing is a placeholder.

use std::collections::{BTreeMap, BTreeSet};

use rg_common::postgres::DatabaseUrl;
use rg_common::secret::Secret;
use rg_common::{Failure, Result};

use crate::address::{self, Address};
use crate::check::secrets::placeholder;
use crate::generate::{self, Random};
use crate::schema::{Environment, Generator, Kind, Parts, Schema, Source, Text, Variable};

/// What is known before: the values by the schema's ids.
pub struct Known<'a> {
    /// The schema.
    pub schema: &'a Schema,
    /// The environment.
    pub environment: &'a Environment,
    /// What the files and `rg.toml` hold.
    pub found: BTreeMap<String, Secret>,
    /// What a person gave now.
    pub given: BTreeMap<String, Secret>,
}

/// How a value came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It was there.
    Kept,
    /// A person gave it.
    Given,
    /// The schema says it.
    Schema,
    /// It is made of others.
    Derived,
    /// It is fresh.
    Generated,
}

/// A variable that has no value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// The environment.
    pub environment: String,
    /// The variable's name there.
    pub name: String,
    /// Where it goes: a key of `rg.toml`, else an env file.
    pub config: Option<String>,
    /// What is asked for, or why it could not be made.
    pub what: String,
    /// Whether the environment can do without it.
    pub required: bool,
    /// Whether it must not stand in a command line.
    pub secret: bool,
}

/// All values of an environment.
#[derive(Debug, Default)]
pub struct Values {
    /// By the schema's ids.
    pub values: BTreeMap<String, (Secret, How)>,
    /// What has none, in the schema's order.
    pub missing: Vec<Missing>,
    /// What somebody should look at, without values.
    pub notes: Vec<String>,
}

impl Values {
    /// A value by id.
    pub fn get(&self, id: &str) -> Option<&Secret> {
        self.values.get(id).map(|(value, _)| value)
    }
}

/// A database that a new password would be for.
pub struct Target {
    /// The role.
    pub user: String,
    /// The server's host.
    pub host: String,
    /// Its port.
    pub port: String,
    /// The database.
    pub database: String,
}

/// Works everything out. `exists` is asked before a database password is made up; what it returns
/// is the reason why it must not be.
pub fn values(
    mut known: Known<'_>,
    random: &mut dyn Random,
    exists: &dyn Fn(&Target) -> Option<String>,
) -> Result<Values> {
    let mut values = Values::default();
    placeholders(&mut known, &mut values.notes);
    parts_of_addresses(&mut known, &mut values.notes);
    let mut work = Work {
        known: &known,
        random,
        exists,
        reasons: BTreeMap::new(),
        busy: BTreeSet::new(),
        values,
    };
    for variable in &known.schema.variables {
        work.value(variable)?;
    }
    let Work {
        mut values,
        reasons,
        ..
    } = work;
    for variable in &known.schema.variables {
        if values.values.contains_key(&variable.id) {
            continue;
        }
        // A part that stands in no file is named by what it is a part of.
        let hidden = variable.consumers.is_empty() && variable.config.is_none();
        let asked = match (&variable.source, reasons.get(&variable.id)) {
            (_, Some(reason)) => reason.clone(),
            (Source::Person(question), _) => question.clone(),
            (Source::Absent, _) if !variable.required.has(&known.environment.name) => continue,
            (Source::Absent, _) => variable.about.clone().unwrap_or_default(),
            (Source::Fixed(_) | Source::Default(_) | Source::Generated(_), _) => continue,
            (Source::Derived(_) | Source::Url(_) | Source::Twin(_), _) => {
                "it is made of others that are missing".to_owned()
            }
        };
        let required = variable.required.has(&known.environment.name);
        if variable.forbidden.has(&known.environment.name)
            || hidden && !reasons.contains_key(&variable.id)
        {
            continue;
        }
        values.missing.push(Missing {
            environment: known.environment.name.clone(),
            name: variable.name_in(&known.environment.name),
            config: variable
                .config
                .as_ref()
                .map(|path| path.replace("{env}", &known.environment.name)),
            what: asked,
            required,
            secret: variable.is_secret(),
        });
    }
    Ok(values)
}

/// What a template left in place of a secret is no value. A database that exists is asked about like
/// for any other new password.
fn placeholders(known: &mut Known<'_>, notes: &mut Vec<String>) {
    for variable in known.schema.variables.iter().filter(|one| one.is_secret()) {
        let name = variable.name_in(&known.environment.name);
        let what = known
            .found
            .get(&variable.id)
            .and_then(|value| placeholder(&name, value.reveal()));
        if let Some(what) = what {
            known.found.remove(&variable.id);
            notes.push(format!("{name} held a placeholder: {what}"));
        }
    }
}

/// A password that stands only inside an address is known by it; where both are there they agree.
fn parts_of_addresses(known: &mut Known<'_>, notes: &mut Vec<String>) {
    let environment = &known.environment.name;
    for variable in &known.schema.variables {
        let copy = match &variable.source {
            Source::Derived(text) => text.only_reference(),
            _ => None,
        };
        if let Some(id) = copy
            && let Some(value) = known
                .given
                .get(&variable.id)
                .or(known.found.get(&variable.id))
        {
            match known.given.get(id).or(known.found.get(id)) {
                None => drop(known.found.insert(id.to_owned(), value.clone())),
                Some(other) if other == value => {}
                Some(_) => {
                    let other = known.schema.variable(id).map(|v| v.name_in(environment));
                    let name = variable.name_in(environment);
                    notes.push(format!("{name} and {} differ", other.unwrap_or_default()));
                }
            }
        }
        let source = match &variable.source {
            Source::Twin(other) => known.schema.variable(other).map(|twin| &twin.source),
            source => Some(source),
        };
        let Some(Source::Url(parts)) = source else {
            continue;
        };
        let text = known
            .given
            .get(&variable.id)
            .or(known.found.get(&variable.id));
        let Some(text) = text else { continue };
        let name = variable.name_in(environment);
        let url = match DatabaseUrl::parse(text.reveal()) {
            Ok(url) => url,
            Err(failure) => {
                notes.push(format!("{name} cannot be read: {failure}"));
                continue;
            }
        };
        for (part, text) in named(parts) {
            let Some(id) = text.only_reference() else {
                continue;
            };
            let Some(found) = address::part(&url, part) else {
                continue;
            };
            match known.given.get(id).or(known.found.get(id)) {
                None => drop(known.found.insert(id.to_owned(), Secret::new(found))),
                Some(value) if value.reveal() == found => {}
                Some(_) => {
                    let other = known.schema.variable(id).map(|v| v.name_in(environment));
                    notes.push(format!(
                        "{name} and {} disagree about the {part}",
                        other.unwrap_or_default()
                    ));
                }
            }
        }
    }
}

fn named(parts: &Parts) -> [(&'static str, &Text); 5] {
    [
        ("user", &parts.user),
        ("password", &parts.password),
        ("host", &parts.host),
        ("port", &parts.port),
        ("database", &parts.database),
    ]
}

struct Work<'a> {
    known: &'a Known<'a>,
    random: &'a mut dyn Random,
    exists: &'a dyn Fn(&Target) -> Option<String>,
    /// Why something could not be made up.
    reasons: BTreeMap<String, String>,
    busy: BTreeSet<String>,
    values: Values,
}

impl Work<'_> {
    fn value(&mut self, variable: &Variable) -> Result<Option<Secret>> {
        if let Some(value) = self.values.get(&variable.id) {
            return Ok(Some(value.clone()));
        }
        // The parser has refused circles; a password asks for the parts of its own address.
        if !self.busy.insert(variable.id.clone()) {
            return Ok(None);
        }
        let made = self.make(variable);
        self.busy.remove(&variable.id);
        let Some((value, how)) = made? else {
            return Ok(None);
        };
        self.values
            .values
            .insert(variable.id.clone(), (value.clone(), how));
        Ok(Some(value))
    }

    fn make(&mut self, variable: &Variable) -> Result<Option<(Secret, How)>> {
        let environment = self.known.environment.name.clone();
        let name = variable.name_in(&environment);
        let found = self.known.found.get(&variable.id).cloned();
        // `K=` where something is needed is no value.
        let empty_counts = variable.kind == Kind::Text || !variable.required.has(&environment);
        let found = found.filter(|value| empty_counts || !value.reveal().is_empty());
        if variable.forbidden.has(&environment) {
            if found.is_some() {
                self.values.notes.push(format!(
                    "{name} must not be set in {environment}: remove it"
                ));
            }
            return Ok(None);
        }
        if let Some(given) = self.known.given.get(&variable.id) {
            return match found {
                Some(found) if found == *given => Ok(Some((found, How::Kept))),
                Some(_) if variable.is_secret() => Err(Failure::new(format!(
                    "{name} of {environment} has another value already, and `write` never changes a secret"
                ))
                .hint(format!("rg-envgen rotate {name} --env {environment} gives it a new one everywhere"))),
                _ => Ok(Some((given.clone(), How::Given))),
            };
        }
        match (&variable.source, found) {
            // What the schema fixes follows the schema; a secret made of others does not.
            (Source::Fixed(value), _) => {
                let text = value.of(&environment).cloned();
                Ok(self.fill(text)?.map(|value| (value, How::Schema)))
            }
            (_, Some(found)) => Ok(Some((found, How::Kept))),
            (Source::Default(value), None) => {
                let text = value.of(&environment).cloned();
                Ok(self.fill(text)?.map(|value| (value, How::Schema)))
            }
            (Source::Derived(text), None) => {
                let text = text.clone();
                Ok(self.fill(Some(text))?.map(|value| (value, How::Derived)))
            }
            (Source::Url(parts), None) => {
                let Kind::PostgresUrl { driver } = &variable.kind else {
                    return Ok(None);
                };
                let made = self.address(parts, driver.as_deref())?;
                Ok(made.map(|value| (value, How::Derived)))
            }
            (Source::Twin(other), None) => {
                let Kind::PostgresUrl { driver } = &variable.kind else {
                    return Ok(None);
                };
                let Some(twin) = self.by_id(other)? else {
                    return Ok(None);
                };
                let text = address::with_driver(twin.reveal(), driver.as_deref());
                Ok(text.map(|text| (Secret::new(text), How::Derived)))
            }
            (Source::Generated(generator), None) => self.fresh(variable, *generator),
            (Source::Person(_) | Source::Absent, None) => Ok(None),
        }
    }

    fn by_id(&mut self, id: &str) -> Result<Option<Secret>> {
        match self.known.schema.variable(id) {
            Some(variable) => self.value(variable),
            None => Ok(None),
        }
    }

    fn fill(&mut self, text: Option<Text>) -> Result<Option<Secret>> {
        let Some(text) = text else { return Ok(None) };
        let mut values = BTreeMap::new();
        for id in text.references() {
            match self.by_id(id)? {
                Some(value) => values.insert(id.to_owned(), value.reveal().to_owned()),
                None => return Ok(None),
            };
        }
        let whole = text.fill(&self.known.environment.name, |id| values.get(id).cloned());
        Ok(whole.map(Secret::new))
    }

    fn address(&mut self, parts: &Parts, driver: Option<&str>) -> Result<Option<Secret>> {
        let mut filled = Vec::new();
        for (_, text) in named(parts) {
            match self.fill(Some(text.clone()))? {
                Some(value) => filled.push(value),
                None => return Ok(None),
            }
        }
        let query = self.fill(parts.query.clone())?;
        let [user, password, host, port, database] = filled.as_slice() else {
            return Ok(None);
        };
        let text = address::written(&Address {
            driver,
            user: user.reveal(),
            password: password.reveal(),
            host: host.reveal(),
            port: port.reveal(),
            database: database.reveal(),
            query: query.as_ref().map(Secret::reveal),
        });
        Ok(Some(Secret::new(text)))
    }

    /// A fresh secret, unless it is the password of a database that is there already.
    fn fresh(
        &mut self,
        variable: &Variable,
        generator: Generator,
    ) -> Result<Option<(Secret, How)>> {
        let schema = self.known.schema;
        for other in &schema.variables {
            let Source::Url(parts) = &other.source else {
                continue;
            };
            if parts.password.only_reference() != Some(&variable.id) {
                continue;
            }
            let mut part = |text: &Text| -> Result<String> {
                let filled = self.fill(Some(text.clone()))?;
                Ok(filled
                    .map(|value| value.reveal().to_owned())
                    .unwrap_or_default())
            };
            let target = Target {
                user: part(&parts.user)?,
                host: part(&parts.host)?,
                port: part(&parts.port)?,
                database: part(&parts.database)?,
            };
            if let Some(reason) = (self.exists)(&target) {
                self.reasons.insert(variable.id.clone(), reason);
                return Ok(None);
            }
        }
        let value = generate::generate(generator, self.random)?;
        Ok(Some((value, How::Generated)))
    }
}

#[cfg(test)]
mod tests;
