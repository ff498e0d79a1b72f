//! Addresses of databases: the driver (F6), `sslmode`, their parts, their twins.

use rg_common::env_file::document::Entry;
use rg_common::postgres::DatabaseUrl;

use super::file::Env;
use super::secrets::placeholder;
use super::{Deployment, Finding, codes};
use crate::address;
use crate::schema::{Kind, Source};

/// The variables that images and apps use for the parts of an address, where no schema says.
const PARTS: [(&str, &[&str]); 5] = [
    (
        "user",
        &["POSTGRES_USER", "DB_USER", "PGUSER", "DATABASE_USER"],
    ),
    (
        "password",
        &[
            "POSTGRES_PASSWORD",
            "DB_PASSWORD",
            "PGPASSWORD",
            "DATABASE_PASSWORD",
        ],
    ),
    (
        "host",
        &["POSTGRES_HOST", "DB_HOST", "PGHOST", "DATABASE_HOST"],
    ),
    (
        "port",
        &["POSTGRES_PORT", "DB_PORT", "PGPORT", "DATABASE_PORT"],
    ),
    (
        "database",
        &["POSTGRES_DB", "DB_NAME", "PGDATABASE", "DATABASE_NAME"],
    ),
];

fn is_address(value: &str) -> bool {
    let scheme = value.split("://").next().unwrap_or_default();
    value.contains("://") && (scheme.starts_with("postgres"))
}

/// One file.
pub fn check(deployment: &Deployment, env: &Env, findings: &mut Vec<Finding>) {
    for entry in &env.document.entries {
        let variable = deployment.variable(env, &entry.name);
        let by_schema = variable.and_then(|v| match &v.kind {
            Kind::PostgresUrl { driver } => Some(driver.as_deref()),
            _ => None,
        });
        if entry.value.is_empty() || (by_schema.is_none() && !is_address(&entry.value)) {
            continue;
        }
        if placeholder(&entry.name, &entry.value).is_none() {
            one(env, entry, by_schema, findings);
        }
    }
}

fn one(env: &Env, entry: &Entry, wanted: Option<Option<&str>>, findings: &mut Vec<Finding>) {
    let value = entry.value.as_str();
    let name = Some(entry.name.as_str());
    let found = address::driver(value);
    match wanted {
        Some(wanted) if wanted != found && is_address(value) => {
            let scheme = |driver: Option<&str>| match driver {
                Some(driver) => format!("postgresql+{driver}://"),
                None => "postgresql://".to_owned(),
            };
            let begins = value.split("://").next().unwrap_or_default();
            let detail = format!("{begins}:// where {} is needed", scheme(wanted));
            findings.push(Finding::new(
                codes::WRONG_DRIVER,
                env,
                entry.line,
                name,
                detail,
            ));
        }
        None if found.is_none() && entry.name == "DATABASE_URL" => {
            findings.push(Finding::new(codes::NO_DRIVER, env, entry.line, name, ""));
        }
        _ => {}
    }
    let asyncpg = wanted.flatten().or(found) == Some("asyncpg");
    let options = value.split_once('?').map_or("", |(_, options)| options);
    if asyncpg
        && options
            .split('&')
            .any(|option| option.starts_with("sslmode="))
    {
        findings.push(Finding::new(codes::SSLMODE, env, entry.line, name, ""));
    }
    if let Err(failure) = DatabaseUrl::parse(value) {
        // The parser never quotes the password.
        findings.push(Finding::new(
            codes::NO_ADDRESS,
            env,
            entry.line,
            name,
            failure.to_string(),
        ));
    }
}

/// Addresses beside the variables that they are made of, in all files of an environment.
pub fn compare(deployment: &Deployment, findings: &mut Vec<Finding>) {
    for env in &deployment.files {
        for entry in &env.document.entries {
            if !is_address(&entry.value) || placeholder(&entry.name, &entry.value).is_some() {
                continue;
            }
            let Ok(url) = DatabaseUrl::parse(&entry.value) else {
                continue;
            };
            let differing = differing(deployment, env, entry, &url);
            if !differing.is_empty() {
                let detail = differing.join("; ");
                findings.push(Finding::new(
                    codes::PARTS_DISAGREE,
                    env,
                    entry.line,
                    Some(&entry.name),
                    detail,
                ));
            }
            twin(deployment, env, entry, &url, findings);
        }
    }
}

/// The value of a variable in the environment of a file, with where it stands.
fn look_up<'a>(deployment: &'a Deployment, env: &Env, name: &str) -> Option<(&'a Env, &'a Entry)> {
    let same = |other: &&Env| {
        other.environment == env.environment
            && (env.environment.is_some() || other.path == env.path)
    };
    deployment
        .files
        .iter()
        .filter(same)
        .find_map(|other| other.document.get(name).map(|entry| (other, entry)))
}

fn differing(deployment: &Deployment, env: &Env, entry: &Entry, url: &DatabaseUrl) -> Vec<String> {
    let mut differing = Vec::new();
    let mut compare = |part: &str, other: &Env, with: &Entry| {
        let found = address::part(url, part);
        if with.value.is_empty() || found.as_deref() == Some(with.value.as_str()) {
            return;
        }
        // Inside a compose network the app says the service's name; both mean one server.
        let local = |text: &str| matches!(text, "localhost" | "127.0.0.1" | "::1");
        if part == "host" && found.as_deref().is_some_and(local) && local(&with.value) {
            return;
        }
        let at = if other.path == env.path {
            format!("line {}", with.line)
        } else {
            format!("{}:{}", other.shown(), with.line)
        };
        differing.push(format!("its {part} is not that of {} ({at})", with.name));
    };
    if let Some(variable) = deployment.variable(env, &entry.name) {
        let (Source::Url(parts), Some(environment), Some(place)) = (
            &variable.source,
            env.environment.as_deref(),
            &deployment.place,
        ) else {
            return differing;
        };
        let texts = [
            ("user", &parts.user),
            ("password", &parts.password),
            ("host", &parts.host),
            ("port", &parts.port),
            ("database", &parts.database),
        ];
        for (part, text) in texts {
            let id = text.only_reference();
            let name = id
                .and_then(|id| place.schema.variable(id))
                .map(|variable| variable.name_in(environment));
            if let Some((other, with)) = name.and_then(|name| look_up(deployment, env, &name)) {
                compare(part, other, with);
            }
        }
        return differing;
    }
    if entry.name != "DATABASE_URL" {
        return differing;
    }
    let prefix = env
        .environment
        .as_deref()
        .map(|name| format!("{}_", name.to_ascii_uppercase()));
    for (part, names) in PARTS {
        for name in names {
            let prefixed = prefix.as_ref().map(|prefix| format!("{prefix}{name}"));
            let found = look_up(deployment, env, name)
                .or_else(|| prefixed.and_then(|name| look_up(deployment, env, &name)));
            if let Some((other, with)) = found {
                compare(part, other, with);
            }
        }
    }
    differing
}

/// `DATABASE_URL_SYNC` and its like must be the same place and login.
fn twin(
    deployment: &Deployment,
    env: &Env,
    entry: &Entry,
    url: &DatabaseUrl,
    findings: &mut Vec<Finding>,
) {
    let of_schema =
        deployment
            .variable(env, &entry.name)
            .and_then(|variable| match &variable.source {
                Source::Twin(id) => deployment.place.as_ref()?.schema.variable(id),
                _ => None,
            });
    let other = match (of_schema, env.environment.as_deref()) {
        (Some(variable), Some(environment)) => variable.name_in(environment),
        _ => {
            let stem = ["_SYNC", "_ASYNC"]
                .iter()
                .find_map(|end| entry.name.strip_suffix(end));
            match stem {
                Some(stem) => stem.to_owned(),
                None => return,
            }
        }
    };
    let Some((at, with)) = look_up(deployment, env, &other) else {
        return;
    };
    let Ok(same) = DatabaseUrl::parse(&with.value) else {
        return;
    };
    let parts = ["user", "password", "host", "port", "database"];
    let differ: Vec<&str> = parts
        .into_iter()
        .filter(|part| address::part(url, part) != address::part(&same, part))
        .collect();
    if !differ.is_empty() {
        let detail = format!(
            "{} ({}:{}) has another {}",
            with.name,
            at.shown(),
            with.line,
            differ.join(", ")
        );
        findings.push(Finding::new(
            codes::TWIN_DISAGREES,
            env,
            entry.line,
            Some(&entry.name),
            detail,
        ));
    }
}
