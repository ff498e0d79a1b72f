//! Values in a JSON answer by RFC 9535 paths.
//!
//! An assertion that matches nothing fails: a path that leads nowhere must not pass for ever.

use serde_json::Value;
use serde_json_path::JsonPath;

use super::excerpt;
use crate::failure::{Failure, Result};

/// The most values in a document that is parsed: a parsed value can take several hundred bytes.
pub const VALUES_MAX: usize = 40_000;

/// What a path led to, compared with what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// The path.
    pub path: String,
    /// What was expected there.
    pub expected: Value,
    /// How many values it led to.
    pub count: usize,
    /// The first value that is not as expected, as it may be shown.
    pub other: Option<String>,
}

impl Look {
    /// Whether it led to something, and all of it is as expected.
    pub fn is_well(&self) -> bool {
        self.count > 0 && self.other.is_none()
    }
}

/// A path that can be followed. What is wrong with it is said with its place.
pub fn parse(path: &str) -> Result<JsonPath> {
    JsonPath::parse(path).map_err(|error| {
        let at = error.position();
        let why = error.message();
        Failure::new(format!(
            "`{path}` is not a JSON path: {why} at character {at}"
        ))
        .hint("RFC 9535: $.status, $.checks[0].name, $.services[*].up, $..state")
    })
}

/// A document, unless it is not JSON or has too many values.
pub fn document(body: &[u8]) -> Result<Value, String> {
    let values = memchr::memchr3_iter(b',', b'[', b'{', body).count();
    if values > VALUES_MAX {
        return Err(format!("has more than {VALUES_MAX} values"));
    }
    // The words of serde_json show none of the document's.
    serde_json::from_slice(body).map_err(|error| format!("is not JSON: {error}"))
}

/// Follows a path and compares everything it leads to. A path that is no path is an `Err`.
pub fn look(document: &Value, path: &str, expected: &Value) -> Result<Look> {
    let found = parse(path)?.query(document);
    let other = found.iter().find(|one| !is_equal(one, expected));
    let secret = path
        .split(['.', '[', ']', '\'', '"'])
        .any(excerpt::names_a_secret);
    Ok(Look {
        path: path.to_owned(),
        expected: expected.clone(),
        count: found.len(),
        other: other.map(|one| match one {
            Value::String(_) | Value::Number(_) if secret => "\"***\"".to_owned(),
            one => excerpt::json(one),
        }),
    })
}

/// Numbers are compared by value (RFC 9535, 2.3.5.2.2): `1` of `rg.toml` is the `1.0` of an answer.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let same = |(name, a): (&String, &Value)| b.get(name).is_some_and(|b| is_equal(a, b));
            a.len() == b.len() && a.iter().all(same)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_that_leads_nowhere_is_not_well() {
        let answer = json!({"status": "ok", "checks": [{"up": true}, {"up": false}], "n": 1.0});
        for (path, expected, well, other) in [
            ("$.status", json!("ok"), true, None),
            ("$.status", json!("healthy"), false, Some("\"ok\"")),
            ("$.none", json!("ok"), false, None),
            ("$.n", json!(1), true, None),
            ("$.checks[*].up", json!(true), false, Some("false")),
            ("$.checks[?@.up == true].up", json!(true), true, None),
            ("$..up", json!(true), false, Some("false")),
            (
                "$.checks[?match(@.name, 'd.')].up",
                json!(true),
                false,
                None,
            ),
        ] {
            let look = look(&answer, path, &expected).unwrap();
            assert_eq!(
                (look.is_well(), look.other.as_deref()),
                (well, other),
                "{path}"
            );
        }
    }

    #[test]
    fn a_secret_is_not_shown_although_the_path_names_it() {
        let answer = json!({"db": {"password": "hunter2"}});
        let look = look(&answer, "$.db['password']", &json!("x")).unwrap();
        assert_eq!(look.other.as_deref(), Some("\"***\""));
    }

    #[test]
    fn a_wrong_path_and_a_wrong_document_are_told_apart() {
        let failure = look(&json!({}), "status", &json!(1)).unwrap_err();
        assert!(
            failure
                .to_string()
                .starts_with("`status` is not a JSON path: "),
            "{failure}"
        );
        assert_eq!(
            document(b"<html>").unwrap_err(),
            "is not JSON: expected value at line 1 column 1"
        );
        let bomb = format!("[{}0]", "[],".repeat(300_000));
        assert_eq!(
            document(bomb.as_bytes()).unwrap_err(),
            "has more than 40000 values"
        );
        let deep = "[".repeat(10_000);
        assert!(document(deep.as_bytes()).is_err());
    }
}
