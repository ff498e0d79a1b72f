//! From a job to answers: each probe with its judge. What blocks runs on a thread of its own.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rg_common::check::{State, Verdict};
use rg_common::config::{Config, DatasetConfig, DatasetKind, HttpCheck, LogPlace};
use rg_common::postgres::{Connector, DatabaseUrl};
use rg_common::probe::clock::Limits;
use rg_common::probe::container::{Census, Engine};
use rg_common::probe::http::HttpRequest;
use rg_common::probe::journal::Journal;
use rg_common::probe::network::{Family, Network};
use rg_common::probe::systemd::Systemd;
use rg_common::probe::tls::TlsRequest;
use rg_common::probe::{
    backup, bucket, container, disk, dns, host, http, log, log_figures, postgres, systemd, tcp, tls,
};
use rg_common::program::Program;
use rg_common::s3::Client;
use rg_common::{Failure, Result};

use crate::plan::{Group, Job, MACHINE, Planned};
use crate::round::{Answer, all_unknown};
use crate::seen::Seen;

/// More ERROR lines a minute than this are a failure where rg.toml names no bound.
pub const ERRORS_PER_MINUTE_MAX: f64 = 10.0;

/// What all looks of a round share.
pub struct Tools {
    config: Arc<Config>,
    network: Network,
    runtime: tokio::runtime::Handle,
    connector: Connector,
    systemd: Systemd,
    journal: Journal,
    engine: Engine,
    stores: OnceLock<backup::Stores>,
    before: Seen,
    after: Mutex<Seen>,
    now: Timestamp,
    zone: TimeZone,
}

impl Tools {
    /// The machine's own, for a round that begins now.
    pub fn new(
        config: Arc<Config>,
        runtime: &tokio::runtime::Handle,
        before: Seen,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<Tools> {
        Ok(Tools {
            config,
            network: Network::new()?,
            connector: Connector::new(runtime.clone(), "rg-healthcheck"),
            runtime: runtime.clone(),
            systemd: Systemd::default(),
            journal: Journal::default(),
            engine: Engine::default(),
            stores: OnceLock::new(),
            after: Mutex::new(before.clone()),
            before,
            now,
            zone: zone.clone(),
        })
    }

    /// What is to be remembered for the next round.
    pub fn seen(&self) -> Seen {
        self.after().clone()
    }

    fn after(&self) -> MutexGuard<'_, Seen> {
        self.after.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks, and answers each check of the group.
pub async fn look(tools: Arc<Tools>, group: Group) -> Vec<Answer> {
    let Some(first) = group.checks.first() else {
        return Vec::new();
    };
    let of = first.environment.clone();
    let limits = Limits::default();
    let outcome = match &group.job {
        Job::Http(check) => over_http(&tools, of.as_deref(), check).await,
        Job::Tcp(address) => tcp::probe(&tools.network, address, Family::Any, limits)
            .await
            .map(|facts| tcp::judge(&facts)),
        Job::Dns(name, expect) => dns::probe(&tools.network, name, limits)
            .await
            .map(|facts| dns::judge(&facts, expect)),
        Job::Tls(address, server_name, certificate) => {
            let mut request = TlsRequest::new(address.clone());
            request.server_name.clone_from(server_name);
            request.on_disk.clone_from(certificate);
            tls::probe(&tools.network, &request, tools.now)
                .await
                .map(|facts| tls::judge(&facts, tools.now))
        }
        _ => return blocking(tools, group).await,
    };
    vec![Answer {
        planned: first.clone(),
        outcome,
    }]
}

async fn over_http(tools: &Tools, of: Option<&str>, check: &HttpCheck) -> Result<Verdict> {
    let url = match of {
        Some(environment) => tools.config.resolve(environment, &check.url)?,
        None => check.url.resolve(|name| {
            rg_common::config::process_variable(name)
                .ok_or_else(|| Failure::new(format!("no variable {name}")))
        })?,
    };
    let request = HttpRequest::of(check, url)?;
    let facts = http::probe(&tools.network, &request, tools.now).await?;
    Ok(http::judge(check, &facts))
}

async fn blocking(tools: Arc<Tools>, group: Group) -> Vec<Answer> {
    let copy = group.clone();
    let work = tokio::task::spawn_blocking(move || {
        let tools = &*tools;
        let _inside = tools.runtime.enter();
        match &copy.job {
            Job::Units(names) => units(tools, &copy, names),
            Job::Containers(names) => containers(tools, &copy, names),
            Job::Disks => disks(tools, &copy),
            Job::Machine => machine(tools, &copy),
            Job::Disk(path) => single(&copy, |planned| one_disk(tools, planned, path)),
            Job::Database(dataset) => single(&copy, |_| database(tools, dataset)),
            Job::Sql(dataset, query, expect) => single(&copy, |_| {
                let url = address(tools, dataset)?;
                let answer = postgres::ask(&tools.connector, &url, query)?;
                postgres::judge_question(&answer, query, expect)
            }),
            Job::Bucket(dataset) => single(&copy, |_| of_bucket(tools, dataset)),
            Job::Backup(dataset) => single(&copy, |_| {
                let stores = tools
                    .stores
                    .get_or_init(|| backup::Stores::open(&tools.config));
                backup::judge(&stores.collect(dataset), tools.now, &tools.zone)
            }),
            Job::Log(place, max) => single(&copy, |planned| of_log(tools, planned, place, *max)),
            // Over the network, above.
            Job::Http(_) | Job::Tcp(_) | Job::Dns(..) | Job::Tls(..) => Vec::new(),
        }
    });
    work.await.unwrap_or_else(|_| {
        all_unknown(&group, || {
            Failure::new("the check broke; this is a defect of rg-healthcheck")
        })
    })
}

fn single(group: &Group, look: impl Fn(&Planned) -> Result<Verdict>) -> Vec<Answer> {
    let answer = |planned: &Planned| Answer {
        planned: planned.clone(),
        outcome: look(planned),
    };
    group.checks.iter().map(answer).collect()
}

/// The same failure for each check of a group.
fn all_failed(group: &Group, failure: &Failure) -> Vec<Answer> {
    all_unknown(group, || failure.again())
}

fn units(tools: &Tools, group: &Group, names: &[String]) -> Vec<Answer> {
    let units = match tools.systemd.units(names) {
        Ok(units) => units,
        Err(failure) => return all_failed(group, &failure),
    };
    let answer = |(planned, name): (&Planned, &String)| {
        let outcome = match units.asked.get(name) {
            None => Err(Failure::new(format!("systemd said nothing of {name}"))),
            Some(unit) => {
                let before = tools.before.counts.get(&planned.id);
                let restarts = systemd::remember(before, unit, tools.now);
                let mut verdict = systemd::judge(unit, &units.clusters, &restarts);
                tools.after().counts.insert(planned.id.clone(), restarts);
                if verdict.state.is_bad() {
                    verdict = verdict.evidence(systemd::evidence(&tools.journal, name));
                }
                Ok(verdict)
            }
        };
        Answer {
            planned: planned.clone(),
            outcome,
        }
    };
    group.checks.iter().zip(names).map(answer).collect()
}

fn containers(tools: &Tools, group: &Group, names: &[String]) -> Vec<Answer> {
    let census = match tools.engine.census(names) {
        Ok(census) => census,
        Err(failure) => return all_failed(group, &failure),
    };
    let answer = |(planned, name): (&Planned, &String)| {
        let found = match &census {
            Census::Known { asked, .. } => asked.get(name).and_then(Option::as_ref),
            Census::NoEngine(_) => None,
        };
        let before = tools.before.counts.get(&planned.id);
        let restarts = found.map(|found| container::remember(before, found, tools.now));
        let mut verdict = container::judge(name, &census, restarts.as_ref());
        if let Some(restarts) = restarts {
            tools.after().counts.insert(planned.id.clone(), restarts);
        }
        if verdict.state.is_bad() && found.is_some() {
            verdict = verdict.evidence(tools.engine.evidence(name));
        }
        Answer {
            planned: planned.clone(),
            outcome: Ok(verdict),
        }
    };
    group.checks.iter().zip(names).map(answer).collect()
}

/// An answer for each file system, `host/disk/`, `host/disk/var`.
fn disks(tools: &Tools, group: &Group) -> Vec<Answer> {
    let all = match disk::all() {
        Ok(all) if all.is_empty() => {
            return all_failed(
                group,
                &Failure::new("no file system of a device is mounted"),
            );
        }
        Ok(all) => all,
        Err(failure) => return all_failed(group, &failure),
    };
    let answer = |(mount, found): (std::path::PathBuf, Result<disk::FileSystem>)| {
        let mut planned = group.checks[0].clone();
        planned.id.push_str(&mount.to_string_lossy());
        planned.about = format!("room on {}", mount.display());
        let outcome = found.map(|found| judged(tools, &planned.id, &found));
        Answer { planned, outcome }
    };
    all.into_iter().map(answer).collect()
}

fn one_disk(tools: &Tools, planned: &Planned, path: &Path) -> Result<Verdict> {
    Ok(judged(tools, &planned.id, &disk::of(path)?))
}

fn judged(tools: &Tools, id: &str, found: &disk::FileSystem) -> Verdict {
    let before = tools.before.disks.get(id).cloned().unwrap_or_default();
    let samples = before.after(tools.now, found.used);
    let verdict = disk::judge(found, &samples);
    tools.after().disks.insert(id.to_owned(), samples);
    verdict
}

fn machine(tools: &Tools, group: &Group) -> Vec<Answer> {
    let facts = host::read(Path::new("/proc"));
    let answer = |(planned, (word, _)): (&Planned, &(&str, &str))| {
        let outcome = match (*word, &facts) {
            ("clock", _) => {
                host::clock(&Program::new("timedatectl")).map(|clock| host::judge_clock(&clock))
            }
            ("units", _) => tools
                .systemd
                .failed()
                .map(|failed| systemd::judge_failed(&failed)),
            (_, Err(failure)) => Err(failure.again()),
            ("memory", Ok(facts)) => Ok(host::judge_memory(&facts.memory)),
            ("pressure", Ok(facts)) => Ok(host::judge_pressure(facts.pressure.as_ref())),
            ("load", Ok(facts)) => Ok(host::judge_load(facts.load, facts.processors)),
            ("oom", Ok(facts)) => Ok(killed(tools, &planned.id, facts)),
            (_, Ok(facts)) => {
                tools.after().boot = Some(facts.boot);
                Ok(host::judge_boot(
                    facts.boot,
                    tools.before.boot,
                    facts.uptime_seconds,
                ))
            }
        };
        Answer {
            planned: planned.clone(),
            outcome,
        }
    };
    group.checks.iter().zip(&MACHINE).map(answer).collect()
}

fn killed(tools: &Tools, id: &str, facts: &host::Host) -> Verdict {
    let Some(kills) = facts.oom_kills else {
        return Verdict::skip("this kernel does not count what it kills for want of memory");
    };
    let recent = host::remember_kills(tools.before.counts.get(id), kills, tools.now);
    let since = tools.now - SignedDuration::from_hours(1);
    let victims = match recent.count() {
        0 => Vec::new(),
        // Without the kernel's journal it is still said that there were some.
        _ => tools.journal.oom_victims(since).unwrap_or_default(),
    };
    let verdict = host::judge_kills(&recent, &victims);
    tools.after().counts.insert(id.to_owned(), recent);
    verdict
}

fn address(tools: &Tools, dataset: &DatasetConfig) -> Result<DatabaseUrl> {
    match &dataset.kind {
        DatasetKind::Database(database) => DatabaseUrl::parse(
            tools
                .config
                .resolve(&dataset.environment, &database.url)?
                .reveal(),
        ),
        _ => Err(Failure::new(format!("{} is no database", dataset.name))),
    }
}

fn database(tools: &Tools, dataset: &DatasetConfig) -> Result<Verdict> {
    let url = address(tools, dataset)?;
    let (tables, extensions) = match &dataset.kind {
        DatasetKind::Database(database) => (&*database.required_tables, &*database.extensions),
        _ => (&[][..], &[][..]),
    };
    postgres::collect(&tools.connector, &url, tables, extensions)
        .map(|found| postgres::judge(&found))
}

fn of_bucket(tools: &Tools, dataset: &DatasetConfig) -> Result<Verdict> {
    let DatasetKind::Bucket(bucket) = &dataset.kind else {
        return Err(Failure::new(format!("{} is no bucket", dataset.name)));
    };
    let (service, name) = tools.config.bucket_service(&dataset.environment, bucket)?;
    let client = Client::new(&tools.runtime, &service)?;
    bucket::collect(&client, &name).map(|tried| bucket::judge(&name, &tried))
}

fn of_log(tools: &Tools, planned: &Planned, place: &LogPlace, max: Option<f64>) -> Result<Verdict> {
    let last = tools.before.logs.get(&planned.id);
    let look = log::since_last(place, last, tools.now, &tools.journal)?;
    let show = match place {
        LogPlace::Unit(unit) => format!("journalctl -u {unit} -p err --since -1h"),
        LogPlace::File(path) => format!("tail -n 200 {}", path.display()),
    };
    let max = max.unwrap_or(ERRORS_PER_MINUTE_MAX);
    let verdict = log_figures::judge(&look.figures, max, look.missing.as_deref(), &show);
    if verdict.state != State::Unknown {
        tools
            .after()
            .logs
            .insert(planned.id.clone(), look.remembered);
    }
    Ok(verdict)
}
