//! Values that refer to the environment (`{env}`, `{ENV}`) and to other variables (`${NAME}`).

use std::collections::BTreeMap;

use rg_common::{Failure, Result};

/// A text with references in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Variable(String),
}

/// A value for all environments, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerEnvironment {
    /// The same text everywhere.
    Same(Text),
    /// By environment; one that is not named has none.
    Each(BTreeMap<String, Text>),
}

/// What the address of a database is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The role.
    pub user: Text,
    /// Its password; usually `${DB_PASSWORD}`.
    pub password: Text,
    /// The server's host.
    pub host: Text,
    /// Its port.
    pub port: Text,
    /// The database.
    pub database: Text,
    /// What follows the `?`, percent-encoded already.
    pub query: Option<Text>,
}

impl Text {
    /// Parses a text; `${NAME}` is a reference, `{env}` and `{ENV}` stay for [`Text::fill`].
    pub fn parse(text: &str) -> Result<Text> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            let (name, after) = after.split_once('}').ok_or_else(|| {
                Failure::new(format!("`{text}` has a `${{` that is never closed"))
            })?;
            if !is_name(name) {
                return Err(Failure::new(format!("`${{{name}}}` is no variable's name")));
            }
            pieces.push(Piece::Variable(name.to_owned()));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Text(pieces))
    }

    /// The ids that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable(id) => Some(id.as_str()),
            Piece::Literal(_) => None,
        })
    }

    /// The id, if the text is one reference and nothing else.
    pub fn only_reference(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Variable(id)] => Some(id),
            _ => None,
        }
    }

    /// The text in an environment, or none when something that it refers to has no value.
    pub fn fill(
        &self,
        environment: &str,
        mut look_up: impl FnMut(&str) -> Option<String>,
    ) -> Option<String> {
        let mut whole = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => whole.push_str(&in_environment(text, environment)),
                Piece::Variable(id) => whole.push_str(&look_up(id)?),
            }
        }
        Some(whole)
    }
}

impl PerEnvironment {
    /// The text for an environment.
    pub fn of(&self, environment: &str) -> Option<&Text> {
        match self {
            PerEnvironment::Same(text) => Some(text),
            PerEnvironment::Each(texts) => texts.get(environment),
        }
    }

    /// All texts.
    pub fn texts(&self) -> Vec<&Text> {
        match self {
            PerEnvironment::Same(text) => vec![text],
            PerEnvironment::Each(texts) => texts.values().collect(),
        }
    }
}

impl Parts {
    /// All texts.
    pub fn texts(&self) -> Vec<&Text> {
        let parts = [
            &self.user,
            &self.password,
            &self.host,
            &self.port,
            &self.database,
        ];
        parts.into_iter().chain(&self.query).collect()
    }
}

/// Whether it can be the name of a variable in every reader: capitals, digits, `_`, no digit first.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes
        .iter()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
        && bytes.first().is_some_and(|b| !b.is_ascii_digit())
}

/// `{env}` as the environment's name, `{ENV}` as the same in capitals with `_` for what no name has.
pub fn in_environment(text: &str, environment: &str) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    let capitals: String = environment
        .chars()
        .map(|c| match c.to_ascii_uppercase() {
            c if c.is_ascii_alphanumeric() => c,
            _ => '_',
        })
        .collect();
    text.replace("{env}", environment)
        .replace("{ENV}", &capitals)
}
