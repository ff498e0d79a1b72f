//! The schema as it is written, and its way into validated types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rg_common::config::nearest;
use rg_common::names::is_word;
use rg_common::{Failure, Result};
use serde::Deserialize;
use toml::Spanned;

use super::kind::WORDS;
use super::text::is_name;
use super::*;

/// A table whose entries keep the file's order and know where they begin.
type Ordered<T> = rg_common::config::Ordered<T, Spanned<String>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSchema {
    profile: String,
    home: PathBuf,
    environments: Ordered<RawEnvironment>,
    files: Vec<RawFile>,
    variables: Ordered<RawVariable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnvironment {
    rotate_days: Option<u32>,
    database_volume: Option<String>,
    database_directory: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: String,
    readers: Vec<Consumer>,
    mode: Option<String>,
    group: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVariable {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    about: Option<String>,
    group: Option<String>,
    bits: Option<u32>,
    driver: Option<String>,
    min: Option<i64>,
    max: Option<i64>,
    options: Option<Vec<String>>,
    value: Option<RawValue>,
    default: Option<RawValue>,
    derive: Option<String>,
    parts: Option<RawParts>,
    twin_of: Option<String>,
    generate: Option<String>,
    ask: Option<String>,
    required: Option<RawEnvironments>,
    forbidden: Option<RawEnvironments>,
    former: Option<Vec<String>>,
    consumers: Option<Vec<Consumer>>,
    config: Option<String>,
    on_rotate: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawParts {
    user: String,
    password: String,
    host: String,
    port: String,
    database: String,
    query: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawValue {
    One(Scalar),
    Each(BTreeMap<String, Scalar>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Boolean(bool),
    Integer(i64),
    Number(f64),
}

impl Scalar {
    fn text(&self) -> Result<Text> {
        match self {
            Scalar::Text(text) => Text::parse(text),
            Scalar::Boolean(value) => Text::parse(&value.to_string()),
            Scalar::Integer(value) => Text::parse(&value.to_string()),
            Scalar::Number(value) => Text::parse(&value.to_string()),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawEnvironments {
    All(bool),
    Only(Vec<String>),
}

/// Parses and validates.
pub(super) fn parse(text: &str) -> Result<Schema> {
    let raw: RawSchema = toml::from_str(text).map_err(|error| explain(text, &error))?;
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let mut schema = Schema {
        profile: raw.profile,
        home: raw.home,
        environments: Vec::new(),
        files: Vec::new(),
        variables: Vec::new(),
    };
    for (name, raw) in raw.environments.0 {
        if !is_word(name.get_ref()) {
            let line = line_of(name.span().start);
            return Err(Failure::new(format!(
                "line {line}: `{}` cannot be the name of an environment",
                name.get_ref()
            )));
        }
        schema.environments.push(Environment {
            name: name.into_inner(),
            rotate_days: raw.rotate_days,
            database_volume: raw.database_volume,
            database_directory: raw.database_directory,
        });
    }
    for raw in raw.files {
        schema.files.push(file(raw)?);
    }
    if schema.environments.is_empty() || schema.files.is_empty() {
        return Err(Failure::new(
            "the schema names no environment or no file of one",
        ));
    }
    for (id, raw) in raw.variables.0 {
        let line = line_of(id.span().start);
        let id = id.into_inner();
        let at = |failure: Failure| failure.context(format!("line {line}: {id}"));
        let variable = variable(&schema, &id, line, raw).map_err(at)?;
        schema.variables.push(variable);
    }
    between::references(&schema)?;
    between::names(&schema)?;
    Ok(schema)
}

fn file(raw: RawFile) -> Result<FileSpec> {
    let text = raw.mode.as_deref().unwrap_or("0600");
    let mode = u32::from_str_radix(text, 8).ok();
    let mode = mode.filter(|mode| [0o600, 0o640, 0o400, 0o440].contains(mode));
    let mode = mode.ok_or_else(|| {
        Failure::new(format!("the file `{}` has mode {text}", raw.name))
            .hint("0600 for one user, 0640 for a group that reads")
    })?;
    if raw.name.contains('/') || raw.name.is_empty() {
        return Err(Failure::new(format!("`{}` is no file's name", raw.name))
            .hint("files lie beside the app's env file; `home` or rg.toml says where that is"));
    }
    Ok(FileSpec {
        name: raw.name,
        readers: raw.readers,
        mode,
        group: raw.group,
    })
}

fn variable(schema: &Schema, id: &str, line: usize, raw: RawVariable) -> Result<Variable> {
    if !is_name(id) {
        return Err(Failure::new(format!("`{id}` is no variable's name"))
            .hint("names are capitals, digits and `_`, and begin with no digit"));
    }
    let name = raw.name.clone().unwrap_or_else(|| id.to_owned());
    for name in raw.former.iter().flatten().chain([&name]) {
        if !is_name(&text::in_environment(name, "x")) {
            return Err(Failure::new(format!("`{name}` is no variable's name")));
        }
    }
    let kind = kind(&raw)?;
    let source = source(schema, &kind, &raw)?;
    let environments = |raw: Option<RawEnvironments>, otherwise| match raw {
        None => Ok(otherwise),
        Some(RawEnvironments::All(true)) => Ok(Environments::All),
        Some(RawEnvironments::All(false)) => Ok(Environments::Only(Vec::new())),
        Some(RawEnvironments::Only(names)) => {
            for name in &names {
                schema.environment(name)?;
            }
            Ok(Environments::Only(names))
        }
    };
    let none = || Environments::Only(Vec::new());
    let forbidden = environments(raw.forbidden, none())?;
    let usual = match (&source, &forbidden) {
        (Source::Absent, _) | (_, Environments::All) => none(),
        _ => Environments::All,
    };
    Ok(Variable {
        id: id.to_owned(),
        name,
        line,
        about: raw.about,
        group: raw.group,
        kind,
        source,
        required: environments(raw.required, usual)?,
        forbidden,
        former: raw.former.unwrap_or_default(),
        consumers: match raw.consumers {
            Some(consumers) => consumers,
            None if raw.config.is_some() => Vec::new(),
            None => vec![Consumer::App],
        },
        config: raw.config,
        on_rotate: raw.on_rotate,
    })
}

fn kind(raw: &RawVariable) -> Result<Kind> {
    let only = |given: bool, key: &str, of: &str| {
        if given && raw.kind != of {
            return Err(Failure::new(format!("`{key}` belongs to type `{of}`")));
        }
        Ok(())
    };
    only(raw.bits.is_some(), "bits", "secret")?;
    only(raw.driver.is_some(), "driver", "postgres_url")?;
    only(raw.min.is_some(), "min", "integer")?;
    only(raw.max.is_some(), "max", "integer")?;
    only(raw.options.is_some(), "options", "enum")?;
    Ok(match raw.kind.as_str() {
        "secret" => Kind::Secret {
            bits: raw.bits.unwrap_or(BITS_MIN),
        },
        "postgres_url" => Kind::PostgresUrl {
            driver: raw.driver.clone().filter(|driver| !driver.is_empty()),
        },
        "port" => Kind::Port,
        "bucket_name" => Kind::BucketName,
        "origin" => Kind::Origin,
        "endpoint" => Kind::Endpoint,
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer {
            min: raw.min,
            max: raw.max,
        },
        "number" => Kind::Number,
        "json_list" => Kind::JsonList,
        "enum" => match raw.options.clone() {
            Some(options) if !options.is_empty() => Kind::Enum(options),
            _ => return Err(Failure::new("type `enum` wants `options = [\"…\"]`")),
        },
        "path" => Kind::Path,
        "mail" => Kind::Mail,
        "domain" => Kind::Domain,
        "uuid" => Kind::Uuid,
        "text" => Kind::Text,
        other => {
            let failure = Failure::new(format!("unknown type `{other}`"));
            return Err(match nearest(other, WORDS.iter().copied()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint(format!("one of {}", WORDS.join(", "))),
            });
        }
    })
}

fn source(schema: &Schema, kind: &Kind, raw: &RawVariable) -> Result<Source> {
    let mut sources = Vec::new();
    if let Some(value) = &raw.value {
        sources.push(Source::Fixed(per_environment(schema, value)?));
    }
    if let Some(value) = &raw.default {
        sources.push(Source::Default(per_environment(schema, value)?));
    }
    if let Some(text) = &raw.derive {
        sources.push(Source::Derived(Text::parse(text)?));
    }
    if let Some(parts) = &raw.parts {
        sources.push(Source::Url(self::parts(parts)?));
    }
    if let Some(other) = &raw.twin_of {
        sources.push(Source::Twin(other.clone()));
    }
    if let Some(text) = &raw.generate {
        sources.push(Source::Generated(generator(kind, text)?));
    }
    if let Some(question) = &raw.ask {
        sources.push(Source::Person(question.clone()));
    }
    let is_url = matches!(kind, Kind::PostgresUrl { .. });
    match (sources.len(), sources.pop()) {
        (0, _) => Ok(Source::Absent),
        (1, Some(Source::Url(_) | Source::Twin(_))) if !is_url => Err(Failure::new(
            "`parts` and `twin_of` belong to type `postgres_url`",
        )),
        (1, Some(source)) => Ok(source),
        _ => Err(Failure::new("has more than one source")
            .hint("choose one of value, default, derive, parts, twin_of, generate, ask")),
    }
}

fn generator(kind: &Kind, text: &str) -> Result<Generator> {
    let generator = Generator::parse(text)?;
    let least = match kind {
        Kind::Secret { bits } => (*bits).max(BITS_MIN),
        Kind::Uuid if generator == Generator::Uuid => 0,
        Kind::Uuid => return Err(Failure::new("type `uuid` is made by generate = \"uuid\"")),
        _ => BITS_MIN,
    };
    if generator.bits() < least {
        return Err(Failure::new(format!(
            "`{text}` makes {} bits, fewer than {least}",
            generator.bits()
        ))
        .hint("hex:16, urlsafe:16 and password:22 make 128 bits or more; a UUID has only 122"));
    }
    Ok(generator)
}

fn per_environment(schema: &Schema, raw: &RawValue) -> Result<PerEnvironment> {
    Ok(match raw {
        RawValue::One(scalar) => PerEnvironment::Same(scalar.text()?),
        RawValue::Each(each) => {
            let mut texts = BTreeMap::new();
            for (environment, scalar) in each {
                schema.environment(environment)?;
                texts.insert(environment.clone(), scalar.text()?);
            }
            PerEnvironment::Each(texts)
        }
    })
}

fn parts(raw: &RawParts) -> Result<Parts> {
    Ok(Parts {
        user: Text::parse(&raw.user)?,
        password: Text::parse(&raw.password)?,
        host: Text::parse(&raw.host)?,
        port: Text::parse(&raw.port)?,
        database: Text::parse(&raw.database)?,
        query: raw.query.as_deref().map(Text::parse).transpose()?,
    })
}

/// A TOML error in an operator's words: the line, what is wrong, and the nearest known key.
fn explain(text: &str, error: &toml::de::Error) -> Failure {
    let line = error
        .span()
        .map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or(String::new(), |line| format!("line {line}: "));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let what = match message {
        message if message.starts_with("unknown field") => "key",
        message if message.starts_with("unknown variant") => "value",
        _ => return Failure::new(format!("{place}{message}")),
    };
    let word = quoted.next().unwrap_or_default().to_owned();
    let known: Vec<&str> = quoted.collect();
    let failure = Failure::new(format!("{place}unknown {what} `{word}`"));
    match nearest(&word, known.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure.hint(format!("known here: {}", known.join(", "))),
    }
}
