//! The schema: each variable of the deployment named once, for all environments and all who read it.
//!
//! It is TOML, lies beside `rg.toml` as `env.schema.toml`, holds no secret and belongs into version
//! control. Parsed once into types that hold what they promise: every reference leads somewhere,
//! nothing is derived from itself, a generated secret has at least 128 bits. What is not understood
//! is an error that names the line and the nearest key.

mod between;
pub mod json;
mod kind;
mod parse;
mod text;

use std::path::PathBuf;

pub use kind::{BITS_MIN, Generator, Kind};
use rg_common::config::nearest;
use rg_common::{Failure, Result};
pub use text::{Parts, PerEnvironment, Text};

/// The name of the schema's file beside `rg.toml`.
pub const FILE_NAME: &str = "env.schema.toml";

/// All variables of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The profile it began as: `rgrid`, `toolkitrag`, or a name of one's own.
    pub profile: String,
    /// Where this deployment's servers have the env files, when `rg.toml` does not say.
    pub home: PathBuf,
    /// The environments, in the file's order.
    pub environments: Vec<Environment>,
    /// The files of each environment; the first is the app's, the one that `rg.toml` names.
    pub files: Vec<FileSpec>,
    /// The variables, in the order in which a new file has them.
    pub variables: Vec<Variable>,
}

/// One environment: staging, production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name, as in `rg.toml`.
    pub name: String,
    /// A secret older than this many days is overdue.
    pub rotate_days: Option<u32>,
    /// The docker volume that holds its database: once it exists, a new password in a file alone
    /// would lock the app out.
    pub database_volume: Option<String>,
    /// The data directory of its database, for the same reason where no docker is.
    pub database_directory: Option<PathBuf>,
}

/// One file of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Its name, with `{env}` for the environment's: `.env.{env}`.
    pub name: String,
    /// Who reads it; it holds the variables that one of them consumes.
    pub readers: Vec<Consumer>,
    /// Its mode when it is made: 0600 or 0640.
    pub mode: u32,
    /// The group that a new file is given to, where the host has it.
    pub group: Option<String>,
}

impl FileSpec {
    /// The file's name in an environment.
    pub fn name_in(&self, environment: &str) -> String {
        text::in_environment(&self.name, environment)
    }
}

/// Who reads a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Consumer {
    /// The app itself.
    App,
    /// docker compose, for `${NAME}` in a compose file.
    Compose,
    /// A systemd unit, by `EnvironmentFile=`.
    Unit,
}

/// One variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable {
    /// How the schema calls it, and what `${…}` refers to.
    pub id: String,
    /// Its name in a file, with `{ENV}` for the environment's in capitals: `{ENV}_DB_PASSWORD`.
    pub name: String,
    /// The line of the schema on which it begins, from 1.
    pub line: usize,
    /// What it is for; the comment above it in a new file.
    pub about: Option<String>,
    /// The heading under which a new file has it.
    pub group: Option<String>,
    /// What a value must look like.
    pub kind: Kind,
    /// Where its value comes from.
    pub source: Source,
    /// The environments that cannot do without it.
    pub required: Environments,
    /// The environments in which it must not be set.
    pub forbidden: Environments,
    /// Names that it had before; their value is taken over.
    pub former: Vec<String>,
    /// Who reads it.
    pub consumers: Vec<Consumer>,
    /// Where `rg.toml` has it, for what is no variable of any file: `environments.{env}.app.domain`.
    pub config: Option<String>,
    /// What a new value does to those who are logged in, for `rotate` to say beforehand.
    pub on_rotate: Option<String>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Always this one; another value in a file is a mistake.
    Fixed(PerEnvironment),
    /// This one unless a file says otherwise.
    Default(PerEnvironment),
    /// Made of other variables; follows them.
    Derived(Text),
    /// The address of a database, put together from its parts.
    Url(Parts),
    /// The address that another variable holds, with this one's driver.
    Twin(String),
    /// Made here, once.
    Generated(Generator),
    /// Only a person can give it; this is what they are asked for.
    Person(String),
    /// Nothing is written unless somebody did.
    Absent,
}

/// A choice of environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environments {
    /// All of them.
    All,
    /// These; none when empty.
    Only(Vec<String>),
}

impl Environments {
    /// Whether the environment is one of them.
    pub fn has(&self, environment: &str) -> bool {
        match self {
            Environments::All => true,
            Environments::Only(names) => names.iter().any(|name| name == environment),
        }
    }
}

impl Schema {
    /// Reads a schema's text; an error names the line.
    pub fn parse(text: &str) -> Result<Schema> {
        parse::parse(text)
    }

    /// The variable that the schema calls so.
    pub fn variable(&self, id: &str) -> Option<&Variable> {
        self.variables.iter().find(|variable| variable.id == id)
    }

    /// The variable that a person means: by its id, its name in a file, or a former one.
    pub fn meant(&self, word: &str, environment: &str) -> Result<&Variable> {
        let found = self.variable(word).or_else(|| {
            self.variables.iter().find(|variable| {
                variable.name_in(environment) == word
                    || variable.former_in(environment).any(|name| name == word)
            })
        });
        found.ok_or_else(|| {
            let failure = Failure::new(format!("no variable `{word}` in the schema"));
            match nearest(word, self.variables.iter().map(|v| v.id.as_str())) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure,
            }
        })
    }

    /// The environment of that name.
    pub fn environment(&self, name: &str) -> Result<&Environment> {
        let found = self.environments.iter().find(|one| one.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.environments.iter().map(|e| e.name.as_str()).collect();
            let failure = Failure::new(format!("no environment `{name}` in the schema"));
            match nearest(name, known.iter().copied()) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint(format!("there are: {}", known.join(", "))),
            }
        })
    }

    /// The files of an environment that hold a variable, as positions in `files`.
    pub fn files_of(&self, variable: &Variable) -> impl Iterator<Item = usize> {
        let consumers = variable.consumers.clone();
        let files = self.files.iter().enumerate();
        files
            .filter(move |(_, file)| file.readers.iter().any(|one| consumers.contains(one)))
            .map(|(at, _)| at)
    }
}

impl Variable {
    /// Its name in the files of an environment.
    pub fn name_in(&self, environment: &str) -> String {
        text::in_environment(&self.name, environment)
    }

    /// The names that it had before in the files of an environment.
    pub fn former_in(&self, environment: &str) -> impl Iterator<Item = String> {
        let environment = environment.to_owned();
        let former = self.former.iter();
        former.map(move |name| text::in_environment(name, &environment))
    }

    /// Whether its value must not be shown: a secret, or an address with a password in it.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Secret { .. } | Kind::PostgresUrl { .. })
    }
}

#[cfg(test)]
mod tests;
