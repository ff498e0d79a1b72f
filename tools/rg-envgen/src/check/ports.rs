//! Ports: across environments, against what listens on this machine, and against known squatters (F8).

use std::collections::BTreeMap;
use std::path::Path;

use rg_common::env_file::document::Entry;

use super::file::Env;
use super::machine::{Facts, Holder};
use super::{Deployment, Finding, codes};
use crate::schema::Kind;

/// Who likes to take which port before an app does.
const SQUATTERS: [(u16, &str); 4] = [
    (8000, "Portainer's edge agent takes it"),
    (9443, "Portainer's web page is there"),
    (9000, "Portainer's old web page is there"),
    (8080, "half of all web software begins there"),
];
/// Programs that are what a variable of such a name means.
const SERVICES: [(&str, &[&str]); 4] = [
    ("postgres", &["DB", "POSTGRES", "PG", "DATABASE"]),
    ("minio", &["MINIO", "S3", "CONSOLE"]),
    ("redis", &["REDIS"]),
    ("rustfs", &["MINIO", "S3", "RUSTFS", "CONSOLE"]),
];
/// Ports of other machines' services.
const ELSEWHERE: [&str; 5] = ["SMTP", "MAIL", "EMAIL", "IMAP", "PROXY"];

/// All files beside each other and beside the machine.
pub fn check(deployment: &Deployment, machine: &Facts, findings: &mut Vec<Finding>) {
    let mut ports: BTreeMap<u16, Vec<(&Env, &Entry)>> = BTreeMap::new();
    for env in &deployment.files {
        for entry in &env.document.entries {
            if let Some(port) = port(deployment, env, entry) {
                ports.entry(port).or_default().push((env, entry));
            }
        }
    }
    for (port, users) in &ports {
        twice(deployment, *port, users, findings);
        for (env, entry) in users {
            match machine.listeners.get(port) {
                Some(holder) => held(deployment, env, entry, *port, holder, findings),
                None => {
                    if let Some((_, who)) = SQUATTERS.iter().find(|(squatted, _)| squatted == port)
                    {
                        let detail = format!("{port}: {who}");
                        findings.push(Finding::new(
                            codes::PORT_POPULAR,
                            env,
                            entry.line,
                            Some(&entry.name),
                            detail,
                        ));
                    }
                }
            }
        }
    }
    if !ports.is_empty() {
        for why in &machine.unknown {
            findings.push(Finding::at(
                codes::CANNOT_TELL,
                Path::new("this machine"),
                0,
                None,
                why.as_str(),
            ));
        }
    }
}

/// Whether there is a port among the files' variables.
pub fn any(deployment: &Deployment) -> bool {
    let files = deployment.files.iter();
    let mut entries =
        files.flat_map(|env| env.document.entries.iter().map(move |entry| (env, entry)));
    entries.any(|(env, entry)| port(deployment, env, entry).is_some())
}

fn port(deployment: &Deployment, env: &Env, entry: &Entry) -> Option<u16> {
    let is_port = match deployment.variable(env, &entry.name) {
        Some(variable) => variable.kind == Kind::Port,
        None => {
            let named = entry.name == "PORT" || entry.name.ends_with("_PORT");
            named && !entry.name.split('_').any(|word| ELSEWHERE.contains(&word))
        }
    };
    entry.value.parse().ok().filter(|port| is_port && *port > 0)
}

fn twice(
    deployment: &Deployment,
    port: u16,
    users: &[(&Env, &Entry)],
    findings: &mut Vec<Finding>,
) {
    for (at, (env, entry)) in users.iter().enumerate() {
        let id =
            |env: &Env, entry: &Entry| deployment.variable(env, &entry.name).map(|v| v.id.clone());
        let other = users.iter().enumerate().find(|(other, (file, twin))| {
            let apart = file.environment != env.environment
                && file.environment.is_some()
                && env.environment.is_some();
            // Two names of one port in one environment are two variables only for a schema.
            let (one, two) = (id(env, entry), id(file, twin));
            let same_environment =
                file.environment == env.environment && one.is_some() && two.is_some() && one != two;
            *other != at && (apart || same_environment)
        });
        if let Some((_, (file, twin))) = other {
            let detail = format!(
                "{port} is {} of {}:{} too",
                twin.name,
                file.shown(),
                twin.line
            );
            findings.push(Finding::new(
                codes::PORT_TWICE,
                env,
                entry.line,
                Some(&entry.name),
                detail,
            ));
        }
    }
}

#[derive(PartialEq, Debug)]
enum Whose {
    Ours,
    Foreign,
    Unknown,
}

fn held(
    deployment: &Deployment,
    env: &Env,
    entry: &Entry,
    port: u16,
    holder: &Holder,
    findings: &mut Vec<Finding>,
) {
    let environment = env.environment.as_deref();
    let place = deployment.place.as_ref();
    let others = place.map(|place| {
        place
            .schema
            .environments
            .iter()
            .map(|e| e.name.as_str())
            .collect()
    });
    let others: Vec<&str> = others.unwrap_or_else(|| vec!["staging", "production"]);
    let units = place
        .and_then(|place| place.config.as_ref())
        .and_then(|config| config.environment(environment?))
        .map(|one| one.app.units.clone())
        .unwrap_or_default();
    let code = match whose(&entry.name, environment, &others, &units, holder) {
        Whose::Ours => return,
        Whose::Foreign => codes::PORT_TAKEN,
        Whose::Unknown => codes::PORT_HELD,
    };
    let detail = format!("{port} is held by {}", holder.shown());
    findings.push(Finding::new(
        code,
        env,
        entry.line,
        Some(&entry.name),
        detail,
    ));
}

fn whose(
    name: &str,
    environment: Option<&str>,
    environments: &[&str],
    units: &[String],
    holder: &Holder,
) -> Whose {
    let said = match holder {
        Holder::Container(name) => name.clone(),
        Holder::Process(_, name, unit) => {
            let unit = unit.as_deref().unwrap_or_default();
            if units
                .iter()
                .any(|own| unit.trim_end_matches(".service") == own.trim_end_matches(".service"))
            {
                return Whose::Ours;
            }
            format!("{name} {unit}")
        }
        Holder::Hidden => return Whose::Unknown,
    };
    let said = said.to_ascii_lowercase();
    if said.contains("portainer") {
        return Whose::Foreign;
    }
    if environment.is_some_and(|own| said.contains(own)) {
        return Whose::Ours;
    }
    if environments
        .iter()
        .any(|other| Some(*other) != environment && said.contains(other))
    {
        return Whose::Foreign;
    }
    let serves = SERVICES.iter().any(|(program, words)| {
        said.contains(program) && name.split('_').any(|word| words.contains(&word))
    });
    if serves { Whose::Ours } else { Whose::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_port_is_ours_foreign_or_not_to_be_told() {
        let environments = ["staging", "production"];
        let of = |name: &str, holder: Holder| {
            whose(
                name,
                Some("production"),
                &environments,
                &["web".to_owned()],
                &holder,
            )
        };
        let container = |name: &str| Holder::Container(name.to_owned());
        let process =
            |name: &str, unit: &str| Holder::Process(7, name.to_owned(), Some(unit.to_owned()));
        assert_eq!(of("API_PORT", container("portainer")), Whose::Foreign);
        assert_eq!(of("DB_PORT", container("postgres-staging")), Whose::Foreign);
        assert_eq!(of("DB_PORT", container("postgres-production")), Whose::Ours);
        assert_eq!(
            of("DB_PORT", process("postgres", "postgresql@15-main.service")),
            Whose::Ours
        );
        assert_eq!(
            of(
                "API_PORT",
                process("postgres", "postgresql@15-main.service")
            ),
            Whose::Unknown
        );
        assert_eq!(
            of("API_PORT", process("python3", "web.service")),
            Whose::Ours
        );
        assert_eq!(of("API_PORT", Holder::Hidden), Whose::Unknown);
    }
}
