//! What a rotation will change, worked out before anything is: fresh values, all that is made of
//! them, the files' texts before and after, the roles with their verifiers, the units that run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use rg_common::secret::Secret;
use rg_common::{Failure, OrFail, Result, app};

use super::Work;
use super::journal::{self, FileChange, Journal, Login, Step};
use super::keys::Way;
use super::pair::{PairNames, effect};
use crate::generate::{self, Random};
use crate::replace;
use crate::schema::{Consumer, Environment, Kind, Source, Variable};
use crate::{address, derive, place, safe};

/// A value that is given on standard input is read up to this size.
const VALUE_BYTES_MAX: u64 = 64 << 10;

impl Work<'_> {
    /// The first step: all that will change, with what it was. Nothing is changed yet.
    pub(super) fn create(
        &self,
        environment: &Environment,
        random: &mut dyn Random,
    ) -> Result<(Journal, Vec<String>)> {
        let schema = &self.place.schema;
        let mut holders = self.place.holders(environment)?;
        let found = self.place.found(environment, &holders)?;
        let known = derive::Known {
            schema,
            environment,
            found,
            given: BTreeMap::new(),
        };
        // With nothing to make up this only adds what stands inside addresses.
        let old = derive::values(known, random, &|_| Some(String::new()))?;
        let mut fresh: BTreeMap<String, Secret> = BTreeMap::new();
        let mut effects = Vec::new();
        let mut pairs: Vec<PairNames> = Vec::new();
        for word in &self.args.names {
            let variable = self.root(schema.meant(word, &environment.name)?);
            if let Some(pair) = self.pair_of(&environment.name, &variable.id) {
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
                continue;
            }
            self.refuse_odd(variable)?;
            let before = old.get(&variable.id).ok_or_else(|| {
                Failure::new(format!("{word} has no value in {} yet", environment.name))
                    .hint("rg-envgen write makes one")
            })?;
            let value = self.new_value(variable, random)?;
            if value == *before {
                return Err(Failure::new(format!(
                    "the new value of {word} is the old one"
                )));
            }
            safe::check(&variable.id, value.reveal())?;
            effects.extend(
                variable
                    .on_rotate
                    .as_ref()
                    .map(|what| format!("{}: {what}", variable.id)),
            );
            fresh.insert(variable.id.clone(), value);
        }
        let mut keys = Vec::new();
        for pair in &pairs {
            keys.push(self.key_change(environment, pair, &old, &mut fresh, random)?);
            for id in [&pair.access, &pair.secret] {
                let variable = schema.variable(id);
                let what = variable.and_then(|variable| variable.on_rotate.as_ref());
                effects.extend(what.map(|what| format!("{id}: {what}")));
            }
            effects.extend(effect(keys.last(), &pair.access));
        }
        let mut logins = Vec::new();
        let changed = self.followers(environment, &old, &fresh, &mut logins)?;
        let mut files = Vec::new();
        for holder in &mut holders {
            replace::look(&holder.path, false)?;
            let before = holder.file.text();
            for (id, value) in &changed {
                let variable = schema
                    .variable(id)
                    .ok_or_else(|| Failure::new("the schema changed"))?;
                let name = variable.name_in(&environment.name);
                if holder.file.get(&name).is_some() {
                    safe::check(&name, value.reveal())?;
                    holder.file.set(&name, value);
                }
                for old in variable.former_in(&environment.name) {
                    if holder.file.get(&old).is_some() {
                        return Err(Failure::new(format!(
                            "{old} in {} is an old name of {name}",
                            holder.path.display()
                        ))
                        .hint("rg-envgen write renames it; rotate then"));
                    }
                }
            }
            let after = holder.file.text();
            if after != before {
                files.push(FileChange {
                    path: holder.path.clone(),
                    old: before,
                    new: after,
                });
            }
        }
        if files.is_empty() {
            return Err(Failure::new("no env file holds it"));
        }
        for login in &mut logins {
            self.prepare(login)?;
        }
        for key in &mut keys {
            self.prepare_issue(key)?;
            self.prepare_key(key)?;
        }
        let config = self.place.config.as_ref();
        let app = config
            .and_then(|config| config.environment(&environment.name))
            .map(|one| &one.app);
        let units = match app {
            Some(app) if !self.args.leave_units => app::active(app)?,
            _ => Vec::new(),
        };
        let nothing = keys
            .iter()
            .any(|key| matches!(&key.way, Way::Started { containers } if containers.is_empty()));
        if nothing && units.is_empty() {
            return Err(Failure::new("the storage server reads its access key when it starts, and nothing is there to be restarted")
                .hint("name its container in app.containers of rg.toml, or its unit in app.units"));
        }
        let mut names: Vec<String> = fresh.keys().cloned().collect();
        for pair in pairs {
            names.extend([pair.access, pair.secret]);
        }
        names.sort();
        names.dedup();
        let journal = Journal {
            format: journal::FORMAT,
            time: self.context.now,
            environment: environment.name.clone(),
            names,
            files,
            logins,
            keys,
            units,
            step: Step::Created,
        };
        Ok((journal, effects))
    }

    /// The variable that is really rotated: the password inside an address, the original of a copy.
    pub(super) fn root<'s>(&'s self, variable: &'s Variable) -> &'s Variable {
        let schema = &self.place.schema;
        let other = match &variable.source {
            Source::Url(parts) => parts.password.only_reference(),
            Source::Derived(text) => text.only_reference(),
            Source::Twin(other) => Some(other.as_str()),
            _ => None,
        };
        match other.and_then(|id| schema.variable(id)) {
            Some(other) => self.root(other),
            None => variable,
        }
    }

    /// What is no secret, or belongs to a container that is none of ours to restart.
    fn refuse_odd(&self, variable: &Variable) -> Result<()> {
        if !matches!(variable.kind, Kind::Secret { .. }) {
            return Err(Failure::new(format!("{} is no secret", variable.id))
                .hint("edit the file, or rg-envgen write --set"));
        }
        let database = self.place.schema.variables.iter().any(|one| {
            matches!(&one.source, Source::Url(parts) if parts.password.only_reference() == Some(&variable.id))
        });
        if variable.consumers.contains(&Consumer::Compose) && !database {
            return Err(Failure::new(format!("{} belongs to a container, which reads it only at its start", variable.id))
                .hint("if it is a bucket's access key, name it in rg.toml: access_key and secret_key of [environments.NAME.buckets.NAME]"));
        }
        Ok(())
    }

    /// What `--value-from` names.
    pub(super) fn given(&self, path: &Path) -> Result<String> {
        match path.as_os_str() == "-" {
            true => std::io::read_to_string(std::io::stdin().lock().take(VALUE_BYTES_MAX))
                .or_fail(|| "cannot read standard input".to_owned()),
            false => place::read(path),
        }
    }

    fn new_value(&self, variable: &Variable, random: &mut dyn Random) -> Result<Secret> {
        match (&variable.source, &self.args.value_from) {
            (_, Some(_)) if self.args.names.len() > 1 => {
                Err(Failure::new("--value-from is for one secret at a time"))
            }
            (_, Some(path)) => {
                let text = self.given(path)?;
                let line = text.lines().next().unwrap_or_default();
                if !matches!(variable.source, Source::Person(_)) {
                    let fits = variable.kind.accepts(line);
                    fits.map_err(|why| {
                        Failure::new(format!("the value given for {} {why}", variable.id))
                    })?;
                }
                match line {
                    "" => Err(Failure::new("the value given is empty")),
                    line => Ok(Secret::new(line)),
                }
            }
            (Source::Generated(generator), None) => generate::generate(*generator, random),
            _ => Err(
                Failure::new(format!("{} is not made here", variable.id)).hint(
                    "get a new one where it comes from, and give it by --value-from FILE (or -)",
                ),
            ),
        }
    }

    /// Everything that changes with the fresh values: copies, addresses and their twins.
    fn followers(
        &self,
        environment: &Environment,
        old: &derive::Values,
        fresh: &BTreeMap<String, Secret>,
        logins: &mut Vec<Login>,
    ) -> Result<BTreeMap<String, Secret>> {
        let mut changed = fresh.clone();
        for variable in &self.place.schema.variables {
            let Some(before) = old.get(&variable.id) else {
                continue;
            };
            let parts = match &variable.source {
                Source::Derived(text) => {
                    if let Some(value) = text.only_reference().and_then(|id| fresh.get(id)) {
                        changed.insert(variable.id.clone(), value.clone());
                    }
                    continue;
                }
                Source::Url(parts) => parts,
                Source::Twin(other) => {
                    match self.place.schema.variable(other).map(|one| &one.source) {
                        Some(Source::Url(parts)) => parts,
                        _ => continue,
                    }
                }
                _ => continue,
            };
            let Some(password) = parts.password.only_reference().and_then(|id| fresh.get(id))
            else {
                continue;
            };
            let name = variable.name_in(&environment.name);
            let after = address::with_password(before.reveal(), password.reveal())
                .map_err(|failure| failure.context(format!("cannot change {name}")))?;
            let login = Login::new(before.reveal(), &after)
                .map_err(|failure| failure.context(format!("cannot read {name}")))?;
            if !logins.iter().any(|one: &Login| one.same_role(&login)) {
                logins.push(login);
            }
            changed.insert(variable.id.clone(), Secret::new(after));
        }
        Ok(changed)
    }
}
