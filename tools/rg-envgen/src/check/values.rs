//! Values: placeholders, vendors' defaults, weak, shared and old secrets (F9), and what opens too much.

use std::collections::BTreeMap;

use rg_common::env_file::document::Entry;

use super::file::Env;
use super::secrets::{VENDOR_DEFAULTS, bits, is_secret_name, password_in, placeholder};
use super::{Deployment, Finding, codes};
use crate::schema::{BITS_MIN, Kind, Source, Variable};

/// A secret of which no schema says how strong it must be.
const BITS_WANTED: u32 = 80;
const SECONDS_A_DAY: i64 = 86_400;
/// Shorter values are equal by chance, and have been called weak already.
const COMPARED_FROM: usize = 8;
/// A value is held against so many others that are the same: a file full of one value is found all
/// the same, and does not cost the square of its length.
const TWINS_MAX: usize = 100;

/// One file.
pub fn check(deployment: &Deployment, env: &Env, findings: &mut Vec<Finding>) {
    for entry in &env.document.entries {
        // An earlier assignment of the same name is what `twice` is about.
        if env
            .document
            .get(&entry.name)
            .is_some_and(|last| last.line == entry.line)
            && !entry.value.is_empty()
        {
            one(deployment, env, entry, findings);
        }
    }
}

fn one(deployment: &Deployment, env: &Env, entry: &Entry, findings: &mut Vec<Finding>) {
    let (name, value) = (entry.name.as_str(), entry.value.as_str());
    let variable = deployment.variable(env, name);
    let mut say = |code, detail: String| {
        findings.push(Finding::new(code, env, entry.line, Some(name), detail));
    };
    if let Some(what) = placeholder(name, value) {
        say(codes::PLACEHOLDER, what.to_owned());
        return;
    }
    let secret_kind = variable.map_or(is_secret_name(name), |v| {
        matches!(v.kind, Kind::Secret { .. })
    });
    let inner = password_in(value);
    let secret = if secret_kind { Some(value) } else { inner };
    if let Some(secret) = secret {
        let lower = secret.to_ascii_lowercase();
        let wanted = match variable.map(|v| &v.kind) {
            Some(Kind::Secret { bits }) => (*bits).min(BITS_MIN),
            _ => BITS_WANTED,
        };
        // How strong somebody else's key is, is theirs to say.
        let foreign = variable.is_some_and(|v| matches!(v.source, Source::Person(_)));
        if VENDOR_DEFAULTS.contains(&lower.as_str()) {
            let whose = if secret_kind {
                ""
            } else {
                "the password in the address"
            };
            say(codes::VENDOR_DEFAULT, whose.to_owned());
        } else if bits(secret) < wanted && !foreign {
            let whose = if secret_kind {
                ""
            } else {
                "the password in the address is "
            };
            let worth = bits(secret);
            say(
                codes::WEAK,
                format!("{whose}worth {worth} bits at most, {wanted} are wanted"),
            );
        }
    }
    if let Some(variable) = variable {
        overdue(deployment, env, entry, variable, findings);
    }
    exposure(env, entry, findings);
}

fn overdue(
    deployment: &Deployment,
    env: &Env,
    entry: &Entry,
    variable: &Variable,
    findings: &mut Vec<Finding>,
) {
    let Some(environment) = env.environment.as_deref() else {
        return;
    };
    let days_max = deployment
        .place
        .as_ref()
        .and_then(|place| place.schema.environment(environment).ok())
        .and_then(|one| one.rotate_days);
    let keys = [entry.name.as_str(), variable.id.as_str()];
    let since = keys.iter().find_map(|name| {
        deployment
            .ages
            .get(&(environment.to_owned(), (*name).to_owned()))
    });
    if let (Some(days_max), Some(since), Kind::Secret { .. }) = (days_max, since, &variable.kind) {
        let days = (deployment.now.as_second() - since.as_second()) / SECONDS_A_DAY;
        if days > i64::from(days_max) {
            let detail = format!("{days} days, {days_max} are allowed");
            findings.push(Finding::new(
                codes::OVERDUE,
                env,
                entry.line,
                Some(&entry.name),
                detail,
            ));
        }
    }
}

fn exposure(env: &Env, entry: &Entry, findings: &mut Vec<Finding>) {
    let (name, value) = (entry.name.as_str(), entry.value.trim());
    let listens = ["HOST", "BIND", "LISTEN", "ADDRESS", "ADDR", "PORTS"];
    let named = name.split('_').any(|word| listens.contains(&word));
    let open = value == "0.0.0.0"
        || value.starts_with("0.0.0.0:")
        || value == "::"
        || value.starts_with("[::]");
    if named && open {
        findings.push(Finding::new(
            codes::ALL_INTERFACES,
            env,
            entry.line,
            Some(name),
            "",
        ));
    }
    let debug = name == "DEBUG" || name.ends_with("_DEBUG") || name == "IS_DEVELOPMENT";
    let on = matches!(
        value.to_ascii_lowercase().as_str(),
        "true" | "1" | "yes" | "on"
    );
    if debug && on && env.is_production() {
        findings.push(Finding::new(codes::DEBUG, env, entry.line, Some(name), ""));
    }
}

/// Secrets of all files beside each other.
pub fn compare(deployment: &Deployment, findings: &mut Vec<Finding>) {
    // By fingerprint: no value is kept, sorted or compared in the open.
    let mut seen: BTreeMap<String, Vec<(&Env, &Entry)>> = BTreeMap::new();
    for env in &deployment.files {
        for entry in &env.document.entries {
            let value = entry.value.as_str();
            let secret = deployment
                .variable(env, &entry.name)
                .map_or(is_secret_name(&entry.name), |v| {
                    matches!(v.kind, Kind::Secret { .. })
                });
            let password = password_in(value).map(decoded);
            let shared = match (secret, &password) {
                (true, _) => value,
                (false, Some(password)) => password,
                _ => continue,
            };
            if shared.len() >= COMPARED_FROM && placeholder(&entry.name, value).is_none() {
                seen.entry(deployment.fingerprints.of(shared))
                    .or_default()
                    .push((env, entry));
            }
        }
    }
    for same in seen.values() {
        for (at, (env, entry)) in same.iter().enumerate() {
            let others = || {
                same.iter()
                    .enumerate()
                    .take(TWINS_MAX)
                    .filter(move |(other, _)| *other != at)
                    .map(|(_, one)| one)
            };
            let elsewhere = others().find(|(other, _)| {
                env.environment.is_some()
                    && other.environment.is_some()
                    && other.environment != env.environment
            });
            // Somebody else's key may be the same everywhere: it is theirs.
            let foreign = deployment
                .variable(env, &entry.name)
                .is_some_and(|v| matches!(v.source, Source::Person(_) | Source::Absent));
            if let Some((other, twin)) = elsewhere.filter(|_| !foreign) {
                let detail = format!("{} has it too, as {}", other.shown(), twin.name);
                findings.push(Finding::new(
                    codes::SHARED,
                    env,
                    entry.line,
                    Some(&entry.name),
                    detail,
                ));
            }
            // The address and the password that it is made of are one thing.
            let whole = |entry: &Entry| password_in(&entry.value).is_none();
            let renamed = |one: &Entry, other: &Entry| related(&one.name, &other.name);
            let reused = others().find(|(other, twin)| {
                other.environment == env.environment
                    && twin.name != entry.name
                    && whole(entry)
                    && whole(twin)
                    && !renamed(entry, twin)
                    && (other.path != env.path || twin.line < entry.line)
                    && !same_by_schema(deployment, env, entry, other, twin)
            });
            if let Some((_, twin)) = reused {
                let detail = format!("{} has the same value", twin.name);
                findings.push(Finding::new(
                    codes::REUSED,
                    env,
                    entry.line,
                    Some(&entry.name),
                    detail,
                ));
            }
        }
    }
}

/// Two names of one thing: `POSTGRES_PASSWORD` and `STAGING_DB_PASSWORD`, `MINIO_SECRET_KEY` and
/// `MINIO_ROOT_PASSWORD`.
fn related(one: &str, other: &str) -> bool {
    const SAME: [&[&str]; 4] = [
        &["POSTGRES", "DB", "PG", "DATABASE"],
        &["MINIO", "S3", "AWS", "BUCKET", "RUSTFS"],
        &["REDIS"],
        &["SMTP", "MAIL", "EMAIL"],
    ];
    let of = |name: &str, words: &[&str]| name.split('_').any(|word| words.contains(&word));
    SAME.iter().any(|words| of(one, words) && of(other, words))
}

/// Whether the schema itself makes one of the two from the other.
fn same_by_schema(
    deployment: &Deployment,
    env: &Env,
    entry: &Entry,
    other: &Env,
    twin: &Entry,
) -> bool {
    let derived = |a: Option<&Variable>, b: Option<&Variable>| match (a, b) {
        (Some(a), Some(b)) => match &a.source {
            Source::Derived(text) => text.references().any(|id| id == b.id),
            Source::Default(values) => values
                .texts()
                .iter()
                .any(|text| text.references().any(|id| id == b.id)),
            _ => false,
        },
        _ => false,
    };
    let (a, b) = (
        deployment.variable(env, &entry.name),
        deployment.variable(other, &twin.name),
    );
    derived(a, b) || derived(b, a)
}

/// A percent-encoded password as the server knows it.
pub fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
