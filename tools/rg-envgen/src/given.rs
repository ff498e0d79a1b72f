//! What a person gives: `[ENV.]NAME=VALUE` as an argument, from a file, or on standard input.
//!
//! A secret is refused as an argument: everybody on the machine can read those.

use std::collections::BTreeMap;
use std::io::Read;

use rg_common::secret::Secret;
use rg_common::{Failure, OrFail, Result};

use crate::args::Given;
use crate::place;
use crate::safe;
use crate::schema::{Environment, Kind, Schema, Source, Variable};

/// Standard input is read up to this size.
const BYTES_MAX: u64 = 1 << 20;

/// A value with the environment that it is for; all without one.
pub struct Gift {
    environment: Option<String>,
    name: String,
    value: Secret,
}

/// Reads what was given and sees that it fits.
pub fn read(given: &Given, schema: &Schema) -> Result<Vec<Gift>> {
    let mut gifts = Vec::new();
    for text in &given.set {
        gifts.push((gift(text)?, true));
    }
    let text = match &given.set_from {
        None => String::new(),
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            let stdin = std::io::stdin().lock();
            stdin
                .take(BYTES_MAX)
                .read_to_string(&mut text)
                .or_fail(|| "cannot read standard input".to_owned())?;
            text
        }
        Some(path) => place::read(path)?,
    };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at =
            |failure: Failure| failure.context(format!("line {} of what was given", index + 1));
        gifts.push((gift(line).map_err(at)?, false));
    }
    for (gift, in_arguments) in &gifts {
        let environments: Vec<&Environment> = match &gift.environment {
            Some(name) => vec![schema.environment(name)?],
            None => schema.environments.iter().collect(),
        };
        for environment in environments {
            let variable = schema.meant(&gift.name, &environment.name)?;
            if variable.is_secret() && *in_arguments {
                return Err(Failure::new(format!(
                    "{} is a secret, and arguments can be read by everybody on this machine",
                    gift.name
                ))
                .hint(format!(
                    "give it by --set-from FILE, or by --set-from - on standard input: {}=…",
                    gift.name
                )));
            }
            safe::check(&gift.name, gift.value.reveal())?;
            fits(variable, gift.value.reveal())
                .map_err(|why| Failure::new(format!("the value given for {} {why}", gift.name)))?;
        }
    }
    Ok(gifts.into_iter().map(|(gift, _)| gift).collect())
}

/// The gifts for an environment, by the schema's ids; one for it alone goes before one for all.
pub fn of(
    gifts: &[Gift],
    schema: &Schema,
    environment: &Environment,
) -> Result<BTreeMap<String, Secret>> {
    let mut values = BTreeMap::new();
    for alone in [false, true] {
        for gift in gifts {
            let fits = match &gift.environment {
                Some(name) => alone && *name == environment.name,
                None => !alone,
            };
            if fits {
                let variable = schema.meant(&gift.name, &environment.name)?;
                values.insert(variable.id.clone(), gift.value.clone());
            }
        }
    }
    Ok(values)
}

/// What `rg.toml` keeps is changed there, by hand: it is a person's file.
pub fn refuse_configured(gifts: &[Gift], schema: &Schema) -> Result<()> {
    for gift in gifts {
        let environment = gift
            .environment
            .clone()
            .unwrap_or_else(|| schema.environments[0].name.clone());
        let variable = schema.meant(&gift.name, &environment)?;
        if let Some(path) = &variable.config {
            let key = path.replace("{env}", &environment);
            return Err(Failure::new(format!("{} is kept in rg.toml", gift.name))
                .hint(format!("set `{key}` there")));
        }
    }
    Ok(())
}

/// Whether a value can be what the schema means. How strong somebody else's key is, is theirs to say;
/// that it is no template's is ours.
fn fits(variable: &Variable, value: &str) -> Result<(), String> {
    let foreign = matches!(variable.source, Source::Person(_));
    if !(foreign && matches!(variable.kind, Kind::Secret { .. })) {
        return variable.kind.accepts(value);
    }
    let low = value.to_ascii_lowercase();
    let template = ["your", "replace", "changeme", "change_me", "xxxx"];
    match template.iter().find(|word| low.contains(**word)) {
        _ if value.is_empty() => Err("is empty".to_owned()),
        Some(word) => Err(format!("is a template's: it has `{word}` in it")),
        None => Ok(()),
    }
}

fn gift(text: &str) -> Result<Gift> {
    let (left, value) = text.split_once('=').ok_or_else(|| {
        Failure::new("a value is given as NAME=VALUE or ENV.NAME=VALUE, and there is no `=`")
    })?;
    let (environment, name) = match left.rsplit_once('.') {
        Some((environment, name)) => (Some(environment.to_owned()), name),
        None => (None, left),
    };
    Ok(Gift {
        environment,
        name: name.trim().to_owned(),
        value: Secret::new(value.trim()),
    })
}
