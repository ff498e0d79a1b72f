//! A bucket's policy: read, compared and changed without touching what is not ours.
//!
//! A policy is a JSON document (version `2012-10-17`). Servers give it back in other words than it
//! was put in: a list for a single string, `{"AWS":["*"]}` for `"*"`, another order. Two policies
//! are the same when their canonical forms are. Statements that let anybody in are the business of
//! `access` in `rg.toml`; every other statement is kept as it was found.

use std::collections::BTreeSet;

use rg_common::{Failure, OrFail, Result};
use serde_json::{Map, Value, json};

/// The id of the one statement that is ours.
pub const OUR_SID: &str = "rg-public-read";
/// What public-read lets anybody do. Never `s3:ListBucket`.
const PUBLIC_READ: &str = "s3:GetObject";
/// The language's version, in every policy since 2012.
const VERSION: &str = "2012-10-17";

/// A policy in canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Canonical statements, in the order of their text.
    statements: Vec<Value>,
}

impl Policy {
    /// Reads a policy document. The error says what is not a policy in it.
    pub fn parse(text: &str) -> Result<Policy> {
        let document: Value = serde_json::from_str(text).or_fail(|| "not JSON".to_owned())?;
        let statements = match document.get("Statement") {
            Some(Value::Array(all)) => all.clone(),
            Some(one @ Value::Object(_)) => vec![one.clone()],
            None => Vec::new(),
            Some(_) => return Err(Failure::new("`Statement` is neither a list nor an object")),
        };
        if let Some(odd) = statements.iter().find(|s| !s.is_object()) {
            return Err(Failure::new(format!("a statement is not an object: {odd}")));
        }
        Ok(Policy::of(statements))
    }

    fn of(statements: Vec<Value>) -> Policy {
        let mut statements: Vec<Value> = statements.iter().map(canonical).collect();
        statements.sort_by_cached_key(Value::to_string);
        statements.dedup();
        Policy { statements }
    }

    /// No statement at all: the same as no policy.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// The document to put, in canonical form.
    pub fn document(&self) -> Value {
        json!({ "Version": VERSION, "Statement": self.statements })
    }

    /// What anybody may do without a key and without a condition: `action on resource`, sorted.
    pub fn open_to_anybody(&self) -> BTreeSet<String> {
        let open = self.statements.iter().filter(|s| lets_anybody_in(s));
        open.flat_map(|statement| {
            let actions = said(statement, ["Action", "NotAction"], "everything but ");
            let resources = said(statement, ["Resource", "NotResource"], "everything but ");
            actions
                .into_iter()
                .flat_map(move |action| {
                    resources
                        .iter()
                        .map(move |resource| format!("{action} on {resource}"))
                        .collect::<Vec<_>>()
                })
                .collect::<Vec<_>>()
        })
        .collect()
    }

    /// Statements that let anybody in under a condition (an address, a referrer): by id or text.
    /// They are kept, and pointed out.
    pub fn open_on_condition(&self) -> Vec<String> {
        let found = self.statements.iter().filter(|s| {
            is_allow(s) && is_anybody(s) && s.get("Condition").is_some_and(|c| !is_nothing(c))
        });
        found
            .map(|s| match s.get("Sid").and_then(Value::as_str) {
                Some(sid) if !sid.is_empty() => sid.to_owned(),
                _ => s.to_string(),
            })
            .collect()
    }

    /// The same policy with its public statements as declared: none (private), or the one that
    /// lets anybody read an object whose key they know (public-read).
    #[must_use]
    pub fn with_access(&self, bucket: &str, public_read: bool) -> Policy {
        let ours = canonical(&public_statement(bucket));
        let same = |statement: &Value| without_sid(statement) == without_sid(&ours);
        let mut kept: Vec<Value> = self
            .statements
            .iter()
            .filter(|statement| !lets_anybody_in(statement) || (public_read && same(statement)))
            .cloned()
            .collect();
        if public_read && !kept.iter().any(same) {
            kept.push(ours);
        }
        Policy::of(kept)
    }
}

/// The rights that an application's key needs on its own bucket, and no more: an IAM policy for
/// AWS, MinIO and what understands the same language.
pub fn least_privilege(bucket: &str) -> Value {
    json!({
        "Version": VERSION,
        "Statement": [
            {
                "Sid": "objects",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
                "Resource": [format!("arn:aws:s3:::{bucket}/*")],
            },
            {
                "Sid": "bucket",
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
                "Resource": [format!("arn:aws:s3:::{bucket}")],
            },
        ],
    })
}

fn public_statement(bucket: &str) -> Value {
    json!({
        "Sid": OUR_SID,
        "Effect": "Allow",
        "Principal": { "AWS": ["*"] },
        "Action": [PUBLIC_READ],
        "Resource": [format!("arn:aws:s3:::{bucket}/*")],
    })
}

fn is_allow(statement: &Value) -> bool {
    statement.get("Effect").and_then(Value::as_str) == Some("Allow")
}

/// `Principal: *` in one of its spellings, or everybody but somebody.
fn is_anybody(statement: &Value) -> bool {
    if statement.get("NotPrincipal").is_some() {
        return true;
    }
    match statement.get("Principal") {
        Some(Value::Object(kinds)) => kinds
            .values()
            .any(|who| words(who).iter().any(|word| word == "*")),
        _ => false,
    }
}

fn lets_anybody_in(statement: &Value) -> bool {
    is_allow(statement)
        && is_anybody(statement)
        && statement.get("Condition").is_none_or(is_nothing)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

fn said(statement: &Value, [plain, negated]: [&str; 2], but: &str) -> Vec<String> {
    match (statement.get(plain), statement.get(negated)) {
        (Some(value), _) => words(value),
        (None, Some(value)) => vec![format!("{but}{}", words(value).join(" and "))],
        (None, None) => vec!["everything".to_owned()],
    }
}

/// One string or a list of strings, as a sorted list.
fn words(value: &Value) -> Vec<String> {
    let mut all: Vec<String> = match value {
        Value::Array(list) => list
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect(),
        Value::String(one) => vec![one.clone()],
        other => vec![other.to_string()],
    };
    all.sort();
    all.dedup();
    all
}

/// One spelling for what has several: lists for single strings, sorted; `{"AWS":["*"]}` for `"*"`;
/// no empty condition and no empty id.
fn canonical(statement: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in statement.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "Principal" | "NotPrincipal" => principals(value),
            "Action" | "NotAction" => json!(words(value)),
            "Resource" | "NotResource" => json!(words(value)),
            "Condition" if is_nothing(value) => continue,
            "Condition" => conditions(value),
            "Sid" if value.as_str().is_none_or(str::is_empty) => continue,
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

fn principals(value: &Value) -> Value {
    match value {
        Value::Object(kinds) => kinds
            .iter()
            .map(|(kind, who)| (kind.clone(), json!(words(who))))
            .collect::<Map<_, _>>()
            .into(),
        plain => json!({ "AWS": words(plain) }),
    }
}

fn conditions(value: &Value) -> Value {
    let Some(operators) = value.as_object() else {
        return value.clone();
    };
    let lists = |keys: &Value| match keys.as_object() {
        Some(keys) => keys
            .iter()
            .map(|(key, values)| (key.clone(), json!(words(values))))
            .collect::<Map<_, _>>()
            .into(),
        None => keys.clone(),
    };
    operators
        .iter()
        .map(|(operator, keys)| (operator.clone(), lists(keys)))
        .collect::<Map<_, _>>()
        .into()
}

fn without_sid(statement: &Value) -> Value {
    let mut copy = statement.clone();
    if let Some(object) = copy.as_object_mut() {
        object.remove("Sid");
    }
    copy
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(value: Value) -> Policy {
        Policy::parse(&value.to_string()).unwrap()
    }

    #[test]
    fn what_mc_calls_download_lets_anybody_list_and_that_is_taken_away() {
        // As MinIO's client writes it for `mc anonymous set download`.
        let found = parse(json!({
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetBucketLocation", "s3:ListBucket"], "Resource": ["arn:aws:s3:::files"]},
                {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::files/*"]},
            ],
        }));
        let wanted = found.with_access("files", true);
        assert_eq!(
            found
                .open_to_anybody()
                .difference(&wanted.open_to_anybody())
                .cloned()
                .collect::<Vec<_>>(),
            [
                "s3:GetBucketLocation on arn:aws:s3:::files",
                "s3:ListBucket on arn:aws:s3:::files",
            ]
        );
        assert_eq!(
            wanted.open_to_anybody().into_iter().collect::<Vec<_>>(),
            ["s3:GetObject on arn:aws:s3:::files/*"]
        );
        assert!(found.with_access("files", false).is_empty());
    }

    #[test]
    fn the_same_policy_in_other_words_is_no_difference() {
        let ours = Policy::default().with_access("files", true);
        for principal in [json!("*"), json!({"AWS": "*"}), json!({"AWS": ["*"]})] {
            let spelt = parse(json!({
                "Id": "made by somebody",
                "Statement": {
                    "Sid": "",
                    "Effect": "Allow",
                    "Principal": principal,
                    "Action": "s3:GetObject",
                    "Resource": "arn:aws:s3:::files/*",
                    "Condition": {},
                },
            }));
            assert_eq!(spelt.with_access("files", true), spelt);
            assert_eq!(spelt.open_to_anybody(), ours.open_to_anybody());
        }
    }

    #[test]
    fn statements_about_somebody_are_kept_as_they_are() {
        let theirs = json!({"Sid": "app", "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::1:user/app"]}, "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::files/*"]});
        let deny = json!({"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::files/*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}});
        let office = json!({"Sid": "office", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "*", "Condition": {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}});
        let found = parse(json!({"Statement": [theirs, deny, office]}));
        assert_eq!(found.with_access("files", false), found);
        assert_eq!(found.open_on_condition(), ["office"]);
        assert!(found.open_to_anybody().is_empty());
        assert_eq!(
            found.with_access("files", true).with_access("files", false),
            found
        );
    }

    #[test]
    fn everybody_but_somebody_is_anybody() {
        let found = parse(
            json!({"Statement": [{"Effect": "Allow", "NotPrincipal": {"AWS": "arn:aws:iam::1:user/a"}, "NotAction": ["s3:PutObject"], "Resource": "*"}]}),
        );
        assert_eq!(
            found.open_to_anybody().into_iter().collect::<Vec<_>>(),
            ["everything but s3:PutObject on *"]
        );
        assert!(found.with_access("files", false).is_empty());
    }

    #[test]
    fn what_is_no_policy_is_said() {
        assert_eq!(
            Policy::parse(r#"{"Statement": "all"}"#)
                .unwrap_err()
                .to_string(),
            "`Statement` is neither a list nor an object"
        );
        assert!(
            Policy::parse("<xml/>")
                .unwrap_err()
                .to_string()
                .starts_with("not JSON: ")
        );
    }

    fn statement() -> impl Strategy<Value = Value> {
        let principal = prop_oneof![
            Just(json!("*")),
            Just(json!({"AWS": "*"})),
            Just(json!({"AWS": ["*"]})),
            Just(json!({"AWS": "arn:aws:iam::1:user/app"})),
        ];
        let effect = prop_oneof![Just("Allow"), Just("Deny")];
        let action = prop_oneof![
            Just(json!("s3:GetObject")),
            Just(json!(["s3:ListBucket", "s3:GetObject"])),
            Just(json!("s3:*")),
        ];
        let resource = prop_oneof![
            Just(json!("arn:aws:s3:::files/*")),
            Just(json!(["arn:aws:s3:::files", "arn:aws:s3:::files/*"])),
        ];
        let condition = prop_oneof![
            Just(json!({})),
            Just(json!({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24"]}})),
        ];
        (effect, principal, action, resource, condition).prop_map(|(e, p, a, r, c)| {
            json!({"Effect": e, "Principal": p, "Action": a, "Resource": r, "Condition": c})
        })
    }

    proptest! {
        #[test]
        fn a_declared_access_is_reached_in_one_step_and_stays(
            statements in proptest::collection::vec(statement(), 0..6),
            public in any::<bool>(),
        ) {
            let found = parse(json!({ "Statement": statements }));
            let once = found.with_access("files", public);
            // What the server gives back is read as what was put.
            let back = Policy::parse(&once.document().to_string()).unwrap();
            prop_assert_eq!(&back, &once);
            prop_assert_eq!(back.with_access("files", public), once.clone());
            let open: Vec<String> = once.open_to_anybody().into_iter().collect();
            let wanted: &[&str] = if public { &["s3:GetObject on arn:aws:s3:::files/*"] } else { &[] };
            prop_assert_eq!(open, wanted);
        }
    }
}
