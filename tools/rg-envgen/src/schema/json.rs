//! The JSON Schema of `env.schema.toml`, for editors that complete and check TOML by one.

use serde_json::{Value, json};

use super::kind::WORDS;

/// The document.
pub fn schema() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let texts = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    let scalar = json!({ "type": ["string", "boolean", "integer", "number"] });
    let value = |about: &str| {
        let each = json!({ "type": "object", "additionalProperties": scalar });
        json!({ "anyOf": [scalar, each], "description": about })
    };
    let environments = |about: &str| json!({ "anyOf": [{ "type": "boolean" }, { "type": "array", "items": { "type": "string" } }], "description": about });
    let consumers = json!({ "type": "array", "items": { "enum": ["app", "compose", "unit"] }, "description": "who reads it" });
    let reference = "; `{env}` and `{ENV}` are the environment, `${NAME}` another variable";
    let variable = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["type"],
        "properties": {
            "type": { "enum": WORDS, "description": "what a value must look like" },
            "name": text("its name in a file, with `{ENV}` for the environment's in capitals"),
            "about": text("the comment above it in a new file"),
            "group": text("the heading under which a new file has it"),
            "bits": { "type": "integer", "minimum": 1, "description": "a secret's least bits" },
            "driver": text("a postgres_url's SQLAlchemy driver, such as asyncpg"),
            "min": { "type": "integer" },
            "max": { "type": "integer" },
            "options": texts("an enum's words"),
            "value": value(&format!("always this one, by environment or for all{reference}")),
            "default": value(&format!("this one unless the file says otherwise{reference}")),
            "derive": text(&format!("made of other variables{reference}")),
            "parts": {
                "type": "object",
                "additionalProperties": false,
                "required": ["user", "password", "host", "port", "database"],
                "properties": {
                    "user": text("the role"),
                    "password": text("its password, usually a reference"),
                    "host": text("the server's host"),
                    "port": text("its port"),
                    "database": text("the database"),
                    "query": text("what follows the `?`"),
                },
                "description": "a postgres_url is put together from these, percent-encoded",
            },
            "twin_of": text("the same address as this variable's, with another driver"),
            "generate": { "type": "string", "pattern": "^(hex|urlsafe|password):[0-9]+$|^uuid$", "description": "made once from the system's random source, at least 128 bits" },
            "ask": text("what a person is asked for"),
            "required": environments("the environments that cannot do without it"),
            "forbidden": environments("the environments in which it must not be set"),
            "former": texts("names that it had before; their value is taken over"),
            "consumers": consumers,
            "config": text("the key of rg.toml that holds it, for what is in no env file"),
            "on_rotate": text("what a new value does to those who are logged in"),
        },
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "env.schema.toml of rg-envgen",
        "type": "object",
        "additionalProperties": false,
        "required": ["profile", "home", "environments", "files", "variables"],
        "properties": {
            "profile": text("rgrid or toolkitrag for their templates, or a name of one's own"),
            "home": text("where the env files are when rg.toml does not say"),
            "environments": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "rotate_days": { "type": "integer", "minimum": 1, "description": "an older secret is overdue" },
                        "database_volume": text("the docker volume of its database"),
                        "database_directory": text("the data directory of its database"),
                    },
                },
            },
            "files": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "additionalProperties": false,
                    "required": ["name", "readers"],
                    "properties": {
                        "name": text("its name, with `{env}` for the environment's"),
                        "readers": consumers,
                        "mode": { "enum": ["0400", "0440", "0600", "0640"] },
                        "group": text("the group that a new file is given to"),
                    },
                },
            },
            "variables": { "type": "object", "additionalProperties": variable },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    /// The keys that the parser knows in a table, from its own complaint about a strange one.
    fn known(before: &str, after: &str) -> Vec<String> {
        let failure = Schema::parse(&format!("{before}zzzzzzzzzzzz = 1\n{after}")).unwrap_err();
        let hint = failure.hints().join("");
        let list = hint.strip_prefix("known here: ").expect(&hint);
        let mut keys: Vec<String> = list.split(", ").map(str::to_owned).collect();
        keys.sort();
        keys
    }

    fn listed(pointer: &str) -> Vec<String> {
        let schema = schema();
        let object = schema
            .pointer(pointer)
            .and_then(Value::as_object)
            .expect(pointer);
        let mut keys: Vec<String> = object.keys().cloned().collect();
        keys.sort();
        keys
    }

    #[test]
    fn editors_know_the_same_keys_as_the_parser() {
        let head = "profile = \"x\"\nhome = \"/\"\n";
        assert_eq!(listed("/properties"), known("", ""));
        let environment = format!("{head}[environments.a]\n");
        assert_eq!(
            listed("/properties/environments/additionalProperties/properties"),
            known(&environment, "")
        );
        let file = format!("{environment}[[files]]\nname = \"f\"\nreaders = []\n");
        assert_eq!(
            listed("/properties/files/items/properties"),
            known(&file, "")
        );
        let variable = format!("{file}[variables.A]\n");
        let at = "/properties/variables/additionalProperties/properties";
        assert_eq!(listed(at), known(&variable, ""));
        let parts = format!("{variable}[variables.A.parts]\n");
        assert_eq!(listed(&format!("{at}/parts/properties")), known(&parts, ""));
    }
}
