//! What is to be checked: derived from `rg.toml` with nothing more to write, and `[[check]]` besides.
//!
//! Pure: the same configuration gives the same plan, in the same order, with ids that stay the same
//! over runs. What one look yields several answers of (a database, systemd) is one group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rg_common::config::{
    CheckConfig, CheckKind, Config, DatasetConfig, DatasetKind, Environment, HttpCheck, LogPlace,
    Patience, SqlExpectation, nearest,
};
use rg_common::{Failure, Result};

/// The most checks of one plan.
const CHECKS_MAX: usize = 2000;

/// What the machine is asked, in the order of the answers.
pub const MACHINE: [(&str, &str); 7] = [
    ("memory", "memory and swap are left"),
    ("pressure", "nothing waits for memory, disk or processor"),
    ("load", "the processors keep up"),
    ("oom", "nothing was killed for want of memory"),
    ("boot", "the machine stays up"),
    ("clock", "the clock is in step"),
    ("units", "no unit and no timer has failed"),
];

/// One check as it is planned.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// `production/http/health`
    pub id: String,
    /// The environment; none for the whole machine.
    pub environment: Option<String>,
    /// What it looks at.
    pub about: String,
    /// Ids of what it needs.
    pub needs: Vec<String>,
    /// How often it must fail before somebody is told.
    pub patience: Patience,
}

/// One look and the checks that it answers, in the order of its answers.
#[derive(Debug, Clone)]
pub struct Group {
    /// What is looked at.
    pub job: Job,
    /// The checks. For `Job::Disks` there is one, which stands for every file system of this machine.
    pub checks: Vec<Planned>,
}

/// What is looked at.
#[derive(Debug, Clone)]
pub enum Job {
    /// An address.
    Http(Box<HttpCheck>),
    /// A port, `host:port`.
    Tcp(String),
    /// A name and the addresses that it must have.
    Dns(String, Vec<std::net::IpAddr>),
    /// A certificate: address, name, the file that must be served.
    Tls(String, Option<String>, Option<PathBuf>),
    /// Units, in one question to systemd.
    Units(Vec<String>),
    /// Containers, in one question to docker.
    Containers(Vec<String>),
    /// The file systems of this machine's own devices.
    Disks,
    /// The file system that holds a path.
    Disk(PathBuf),
    /// The machine itself.
    Machine,
    /// An environment's database.
    Database(Box<DatasetConfig>),
    /// A question to an environment's database.
    Sql(Box<DatasetConfig>, String, SqlExpectation),
    /// An application's bucket.
    Bucket(Box<DatasetConfig>),
    /// The backups of a dataset.
    Backup(Box<DatasetConfig>),
    /// A log and the most ERROR lines a minute; none: the usual bound.
    Log(LogPlace, Option<f64>),
}

/// The plan: its groups in the order in which they are shown.
#[derive(Debug, Default)]
pub struct Plan {
    /// The groups.
    pub groups: Vec<Group>,
}

impl Plan {
    /// What each check needs, by id.
    pub fn needs(&self) -> BTreeMap<String, Vec<String>> {
        self.checks()
            .map(|check| (check.id.clone(), check.needs.clone()))
            .collect()
    }

    /// Every check.
    pub fn checks(&self) -> impl Iterator<Item = &Planned> {
        self.groups.iter().flat_map(|group| &group.checks)
    }

    /// Only checks of these environments (none: all, and the machine) whose id has one of the words.
    pub fn select(mut self, environments: &[String], only: &[String]) -> Result<Plan> {
        let of = |check: &Planned| {
            let environment = environments.is_empty()
                || check
                    .environment
                    .as_ref()
                    .is_some_and(|e| environments.contains(e));
            environment
                && (only.is_empty() || only.iter().any(|word| check.id.contains(word.as_str())))
        };
        let known: Vec<String> = self.checks().map(|check| check.id.clone()).collect();
        self.groups.retain(|group| group.checks.iter().any(of));
        if self.groups.is_empty() {
            let word = only.first().map_or("", String::as_str);
            let failure = Failure::new("no check is selected");
            return Err(match nearest(word, known.iter().map(String::as_str)) {
                Some(near) => failure.hint(format!("did you mean `{near}`?")),
                None => failure.hint("rg-healthcheck -v names all of them"),
            });
        }
        Ok(self)
    }

    fn add(&mut self, job: Job, checks: Vec<Planned>) {
        self.groups.push(Group { job, checks });
    }
}

/// Derives the plan. Needs that no check has, and rings of needs, are errors.
pub fn plan(config: &Config) -> Result<Plan> {
    let mut plan = Plan::default();
    machine(config, &mut plan);
    for environment in &config.environments {
        of_environment(config, environment, &mut plan);
    }
    for dataset in &config.datasets {
        backups(config, dataset, &mut plan);
    }
    for check in &config.checks {
        written(config, check, &mut plan)?;
    }
    checked(&plan)?;
    Ok(plan)
}

fn planned(id: String, environment: Option<&str>, about: &str, patience: Patience) -> Planned {
    Planned {
        id,
        environment: environment.map(str::to_owned),
        about: about.to_owned(),
        needs: Vec::new(),
        patience,
    }
}

/// What does not blip is told at once.
const AT_ONCE: Patience = Patience::InARow(1);

fn machine(config: &Config, plan: &mut Plan) {
    let disks = planned("host/disk".to_owned(), None, "room on the disks", AT_ONCE);
    plan.add(Job::Disks, vec![disks]);
    let checks = MACHINE.map(|(word, about)| {
        // Load, pressure and swapping come and go.
        let patience = match word {
            "oom" | "boot" | "clock" | "units" => AT_ONCE,
            _ => config.alerts.after,
        };
        planned(format!("host/{word}"), None, about, patience)
    });
    plan.add(Job::Machine, checks.to_vec());
}

fn of_environment(config: &Config, environment: &Environment, plan: &mut Plan) {
    let name = &environment.name;
    let app = &environment.app;
    let after = config.alerts.after;
    let of = |rest: &str, about: &str| planned(format!("{name}/{rest}"), Some(name), about, after);
    let database = config
        .datasets
        .iter()
        .find_map(|dataset| match &dataset.kind {
            DatasetKind::Database(database) if dataset.environment == *name => {
                Some((dataset, database))
            }
            _ => None,
        });
    // The database's own container, where it lives in one.
    let home = database.and_then(|(_, database)| Some(database.via.split_once(':')?.1));
    if !app.containers.is_empty() {
        let checks = app.containers.iter().map(|container| {
            of(
                &format!("container/{container}"),
                &format!("container {container}"),
            )
        });
        plan.add(Job::Containers(app.containers.clone()), checks.collect());
    }
    for (word, port) in &app.ports {
        let mut check = of(&format!("port/{word}"), &format!("port {port} ({word})"));
        if word == "database" {
            check.needs = home
                .map(|home| format!("{name}/container/{home}"))
                .into_iter()
                .collect();
        }
        plan.add(Job::Tcp(format!("127.0.0.1:{port}")), vec![check]);
    }
    if let Some((dataset, _)) = database {
        let mut check = of("database", "the database answers, and has what it needs");
        check.needs = home
            .map(|home| format!("{name}/container/{home}"))
            .into_iter()
            .collect();
        if app.ports.iter().any(|(word, _)| word == "database") {
            check.needs.push(format!("{name}/port/database"));
        }
        plan.add(Job::Database(Box::new(dataset.clone())), vec![check]);
    }
    for dataset in config.datasets.iter().filter(|d| d.environment == *name) {
        if let DatasetKind::Bucket(_) = &dataset.kind {
            let word = dataset.name.as_str().rsplit('/').next().unwrap_or_default();
            let mut check = of(
                &format!("bucket/{word}"),
                &format!("bucket {word} takes and gives"),
            );
            check.needs = app
                .containers
                .iter()
                .filter(|container| Some(container.as_str()) != home)
                .map(|container| format!("{name}/container/{container}"))
                .collect();
            if app.ports.iter().any(|(word, _)| word == "bucket") {
                check.needs.push(format!("{name}/port/bucket"));
            }
            plan.add(Job::Bucket(Box::new(dataset.clone())), vec![check]);
        }
    }
    let mut beneath: Vec<String> = Vec::new();
    if database.is_some() {
        beneath.push(format!("{name}/database"));
    }
    if !app.units.is_empty() {
        let mut checks: Vec<Planned> = app
            .units
            .iter()
            .map(|unit| of(&format!("unit/{unit}"), &format!("unit {unit}")))
            .collect();
        for check in &mut checks {
            check.needs.clone_from(&beneath);
        }
        beneath.extend(checks.iter().map(|check| check.id.clone()));
        plan.add(Job::Units(app.units.clone()), checks);
    }
    let mut used = BTreeSet::new();
    for health in &app.health {
        let word = word_of(&health.url, &mut used);
        let mut check = of(&format!("http/{word}"), &health.url);
        check.needs.clone_from(&beneath);
        // A URL of rg.toml was parsed with its dollars doubled: it cannot fail.
        if let Ok(http) = health.as_check() {
            plan.add(Job::Http(Box::new(http)), vec![check]);
        }
    }
    if let Some(domain) = &app.domain {
        let dns = of(
            &format!("dns/{domain}"),
            &format!("{domain} has an address"),
        );
        let mut tls = of(
            &format!("tls/{domain}"),
            &format!("the certificate of {domain}"),
        );
        tls.needs = vec![dns.id.clone()];
        plan.add(Job::Dns(domain.clone(), Vec::new()), vec![dns]);
        plan.add(Job::Tls(format!("{domain}:443"), None, None), vec![tls]);
    }
    if let Some(log) = &app.log {
        plan.add(
            Job::Log(log.clone(), None),
            vec![of("log", "errors in the log are few")],
        );
    }
}

/// The last word of a URL's path; its port besides where two would be the same.
fn word_of(url: &str, used: &mut BTreeSet<String>) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let clean = |text: &str| -> String {
        text.chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || ".-_".contains(c) {
                    c
                } else {
                    '-'
                }
            })
            .collect()
    };
    let last = clean(
        path.trim_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default(),
    );
    let last = if last.is_empty() {
        "home".to_owned()
    } else {
        last
    };
    let mut word = last.clone();
    if used.contains(&word) {
        word = format!("{}-{last}", clean(place));
    }
    let mut n = 2;
    while !used.insert(word.clone()) {
        word = format!("{}-{last}-{n}", clean(place));
        n += 1;
    }
    word
}

fn backups(config: &Config, dataset: &DatasetConfig, plan: &mut Plan) {
    // What nobody scheduled cannot be late.
    if dataset.schedule.is_none() {
        return;
    }
    let environment = config
        .environment(&dataset.environment)
        .map(|e| e.name.as_str());
    // Globals of the only server belong to the machine.
    let own = dataset.name.as_str().split('/').next() == environment;
    let environment = if own { environment } else { None };
    let rest = match environment {
        Some(name) => dataset.name.as_str()[name.len() + 1..].to_owned(),
        None => dataset.name.as_str().to_owned(),
    };
    let before = environment.map_or("host".to_owned(), str::to_owned);
    let check = planned(
        format!("{before}/backup/{rest}"),
        environment,
        &format!("the backups of {}", dataset.name),
        AT_ONCE,
    );
    plan.add(Job::Backup(Box::new(dataset.clone())), vec![check]);
}

fn written(config: &Config, check: &CheckConfig, plan: &mut Plan) -> Result<()> {
    let before = check.environment.as_deref().unwrap_or("host");
    let job = match &check.kind {
        CheckKind::Http(http) => Job::Http(http.clone()),
        CheckKind::Tcp { address } => Job::Tcp(address.clone()),
        CheckKind::Dns { host, expect } => Job::Dns(host.clone(), expect.clone()),
        CheckKind::Tls {
            address,
            server_name,
            certificate,
        } => Job::Tls(address.clone(), server_name.clone(), certificate.clone()),
        CheckKind::Sql { query, expect } => {
            let database = config.datasets.iter().find(|dataset| {
                matches!(dataset.kind, DatasetKind::Database(_))
                    && Some(&dataset.environment) == check.environment.as_ref()
            });
            let database = database.ok_or_else(|| {
                Failure::new(format!(
                    "check `{}`: environment `{before}` has no database",
                    check.name
                ))
            })?;
            Job::Sql(Box::new(database.clone()), query.clone(), expect.clone())
        }
        CheckKind::Unit { unit } => Job::Units(vec![unit.clone()]),
        CheckKind::Container { container } => Job::Containers(vec![container.clone()]),
        CheckKind::Disk { path } => Job::Disk(path.clone()),
        CheckKind::Log {
            log,
            errors_per_minute_max,
        } => Job::Log(log.clone(), Some(*errors_per_minute_max)),
    };
    let mut needs = check.needs.clone();
    if matches!(job, Job::Sql(..)) {
        needs.push(format!("{before}/database"));
    }
    let planned = Planned {
        id: format!("{before}/check/{}", check.name),
        environment: check.environment.clone(),
        about: check.about.clone(),
        needs,
        patience: check.patience.unwrap_or(match check.kind {
            CheckKind::Disk { .. } | CheckKind::Tls { .. } => AT_ONCE,
            _ => config.alerts.after,
        }),
    };
    plan.add(job, vec![planned]);
    Ok(())
}

fn checked(plan: &Plan) -> Result<()> {
    let mut known = BTreeSet::new();
    for check in plan.checks() {
        if !known.insert(check.id.as_str()) {
            return Err(Failure::new(format!(
                "two checks have the id `{}`",
                check.id
            )));
        }
    }
    if known.len() > CHECKS_MAX {
        return Err(Failure::new(format!(
            "{} checks are more than {CHECKS_MAX}",
            known.len()
        )));
    }
    for check in plan.checks() {
        for need in &check.needs {
            if !known.contains(need.as_str()) && !need.starts_with("host/disk/") {
                let failure =
                    Failure::new(format!("`{}` needs `{need}`, which is no check", check.id));
                return Err(match nearest(need, known.iter().copied()) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure.hint("rg-healthcheck -v names all of them"),
                });
            }
        }
    }
    let needs = plan.needs();
    let mut done = BTreeSet::new();
    for check in plan.checks() {
        if let Some(id) = ring(&check.id, &needs, &mut Vec::new(), &mut done) {
            return Err(Failure::new(format!(
                "`{id}` needs itself, by way of others"
            )));
        }
    }
    Ok(())
}

fn ring<'a>(
    id: &'a str,
    needs: &'a BTreeMap<String, Vec<String>>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<&'a str> {
    if path.contains(&id) {
        return Some(id);
    }
    if !done.insert(id) {
        return None;
    }
    path.push(id);
    let found = needs
        .get(id)
        .into_iter()
        .flatten()
        .find_map(|need| ring(need, needs, path, done));
    path.pop();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let folder =
            std::env::temp_dir().join(format!("rg-plan-{}-{}", std::process::id(), text.len()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("rg.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path, "vps-1").unwrap();
        std::fs::remove_dir_all(&folder).ok();
        config
    }

    const RGRID: &str = r#"
[stores.local]
url = "file:///var/backups/rg"
[environments.production]
env_file = "/x/.env"
[environments.production.database]
url = "$DATABASE_URL"
via = "docker:postgres-production"
schedule = "0 2 * * *"
[environments.production.buckets.artifacts]
name = "$MINIO_BUCKET_NAME"
[environments.production.app]
units = ["api"]
containers = ["postgres-production", "minio-production"]
domain = "api.rgrid.dev"
ports = { database = 5432 }
health = [
  { url = "http://127.0.0.1:8000/health" },
  { url = "http://127.0.0.1:8001/health?deep=1" },
  { url = "http://127.0.0.1:8000/" },
]
"#;

    #[test]
    fn everything_in_the_configuration_is_checked_with_nothing_more_to_write() {
        let plan = plan(&config(RGRID)).unwrap();
        let ids: Vec<&str> = plan.checks().map(|check| check.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "host/disk",
                "host/memory",
                "host/pressure",
                "host/load",
                "host/oom",
                "host/boot",
                "host/clock",
                "host/units",
                "production/container/postgres-production",
                "production/container/minio-production",
                "production/port/database",
                "production/database",
                "production/bucket/artifacts",
                "production/unit/api",
                "production/http/health",
                "production/http/127.0.0.1-8001-health",
                "production/http/home",
                "production/dns/api.rgrid.dev",
                "production/tls/api.rgrid.dev",
                "host/backup/globals",
                "production/backup/database",
            ]
        );
        let needs = plan.needs();
        assert_eq!(
            needs["production/database"],
            [
                "production/container/postgres-production",
                "production/port/database"
            ]
        );
        assert_eq!(
            needs["production/http/health"],
            ["production/database", "production/unit/api"]
        );
        assert_eq!(
            needs["production/bucket/artifacts"],
            ["production/container/minio-production"]
        );
    }

    #[test]
    fn a_need_that_is_no_check_and_a_ring_are_refused() {
        let with = |checks: &str| {
            plan(&config(&format!("{RGRID}{checks}")))
                .unwrap_err()
                .to_string()
        };
        let tcp = "[[check]]\nkind = \"tcp\"\naddress = \"h:1\"\n";
        assert_eq!(
            with(&format!(
                "{tcp}name = \"a\"\nneeds = [\"production/unit/apo\"]\n"
            )),
            "`host/check/a` needs `production/unit/apo`, which is no check"
        );
        assert_eq!(
            with(&format!(
                "{tcp}name = \"a\"\nneeds = [\"host/check/b\"]\n{tcp}name = \"b\"\nneeds = [\"host/check/a\"]\n"
            )),
            "`host/check/a` needs itself, by way of others"
        );
    }

    #[test]
    fn a_selection_of_nothing_is_an_error_and_not_a_pass() {
        let plan = plan(&config(RGRID)).unwrap();
        let refused = plan
            .select(&[], &["production/unit/apy".to_owned()])
            .unwrap_err();
        assert_eq!(refused.to_string(), "no check is selected");
        assert_eq!(refused.hints(), ["did you mean `production/unit/api`?"]);
    }
}
