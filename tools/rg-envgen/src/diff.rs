//! `diff`: the files against the schema, one environment against the other, and the files against
//! what the running units and containers really have.
//!
//! Values are compared by keyed fingerprints and never printed. The environment of a process is
//! what it was started with: what an app reads from its file by itself does not show there, so the
//! time of its start is compared with the file's as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rg_common::cli::Context;
use rg_common::program::Program;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args;
use crate::check::file::Env;
use crate::check::{self, Deployment, Finding};

/// How long systemctl or docker may take for an answer, in seconds.
const SECONDS: &str = "10";
const BYTES_MAX: usize = 4 << 20;
/// How much of a process's environment is read; the kernel allows a little more in theory.
const ENVIRON_BYTES_MAX: u64 = 4 << 20;
/// What a service manager, a shell or an image sets by itself.
const NOT_OURS: [&str; 12] = [
    "PATH",
    "HOME",
    "LANG",
    "LOGNAME",
    "USER",
    "SHELL",
    "PWD",
    "SHLVL",
    "HOSTNAME",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "TERM",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Sign {
    Equal,
    Differs,
    OnlyLeft,
    OnlyRight,
}

#[derive(Serialize)]
struct Row {
    name: String,
    sign: Sign,
    /// In words, without values.
    what: String,
    /// A secret that should differ and does not, or a value that should not differ and does.
    bad: bool,
}

#[derive(Serialize)]
struct Pair {
    left: String,
    right: String,
    rows: Vec<Row>,
    /// Why what runs cannot be what the files say.
    stale: Vec<String>,
    /// What cannot be seen.
    notes: Vec<String>,
}

#[derive(Serialize, Default)]
struct Differences {
    pairs: Vec<Pair>,
    findings: Vec<Finding>,
    unreadable: Vec<String>,
}

/// `rg-envgen diff`
pub fn diff(
    context: &Context,
    schema: Option<&Path>,
    args: &args::Diff,
) -> Result<Box<dyn Report>> {
    let (deployment, unreadable, absent) = check::open(context, schema, &[], None)?;
    let Some(place) = &deployment.place else {
        return Err(
            Failure::new("there is no schema to compare with").hint("name one with --schema FILE")
        );
    };
    let environments = place.environments(&args.environments)?;
    let names: Vec<String> = environments.iter().map(|one| one.name.clone()).collect();
    let mut out = Differences {
        unreadable,
        ..Differences::default()
    };
    if args.running {
        for name in &names {
            running(context, &deployment, name, &mut out);
        }
        if out.pairs.is_empty() && out.unreadable.is_empty() {
            return Err(Failure::new(
                "the configuration names no unit and no container to compare with",
            )
            .hint("add units = […] or containers = […] to [environments.NAME.app]"));
        }
        return Ok(Box::new(out));
    }
    if let ([left, right], false) = (names.as_slice(), args.environments.is_empty()) {
        out.pairs.push(between(&deployment, left, right));
        return Ok(Box::new(out));
    }
    out.findings = absent;
    out.findings.extend(check::against_schema(&deployment));
    out.findings.retain(|finding| {
        let file = deployment
            .files
            .iter()
            .find(|env| env.shown() == finding.path);
        file.and_then(|env| env.environment.as_ref())
            .is_none_or(|name| names.contains(name))
    });
    Ok(Box::new(out))
}

/// All assignments of an environment's files, by the schema's id or the name.
fn values<'a>(
    deployment: &'a Deployment,
    environment: &str,
) -> BTreeMap<String, (&'a Env, &'a str, &'a str)> {
    let mut found = BTreeMap::new();
    let files = deployment
        .files
        .iter()
        .filter(|env| env.environment.as_deref() == Some(environment));
    for env in files {
        for entry in &env.document.entries {
            let variable = deployment.variable(env, &entry.name);
            let key = variable.map_or(entry.name.clone(), |variable| variable.id.clone());
            found.insert(key, (env, entry.name.as_str(), entry.value.as_str()));
        }
    }
    found
}

fn between(deployment: &Deployment, left: &str, right: &str) -> Pair {
    let (one, two) = (values(deployment, left), values(deployment, right));
    let keys: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    let rows = keys.into_iter().map(|key| {
        let (sign, what, bad) = match (one.get(key), two.get(key)) {
            (Some((env, name, a)), Some((_, _, b))) => {
                let secret = deployment.is_secret(env, name, a);
                let kind = if secret { "secret" } else { "value" };
                match a == b {
                    true => (
                        Sign::Equal,
                        format!("the same {kind}"),
                        secret && !a.is_empty(),
                    ),
                    false => (Sign::Differs, format!("different {kind}s"), false),
                }
            }
            (Some(_), None) => (Sign::OnlyLeft, format!("only in {left}"), false),
            _ => (Sign::OnlyRight, format!("only in {right}"), false),
        };
        Row {
            name: key.clone(),
            sign,
            what,
            bad,
        }
    });
    Pair {
        left: left.to_owned(),
        right: right.to_owned(),
        rows: rows.collect(),
        stale: Vec::new(),
        notes: Vec::new(),
    }
}

/// What runs in an environment beside its files.
fn running(context: &Context, deployment: &Deployment, environment: &str, out: &mut Differences) {
    let config = deployment
        .place
        .as_ref()
        .and_then(|place| place.config.as_ref());
    let units = config
        .and_then(|config| config.environment(environment))
        .map(|one| one.app.units.clone());
    for unit in units.unwrap_or_default() {
        match unit_environment(&unit) {
            Ok(Some((variables, started))) => out.pairs.push(compare(
                deployment,
                environment,
                &unit,
                "App",
                &variables,
                started,
            )),
            Ok(None) => out
                .unreadable
                .push(format!("{unit} does not run: nothing to compare with")),
            Err(failure) => out.unreadable.push(report::with_hints(&failure)),
        }
    }
    match containers(context, environment) {
        Ok(names) => {
            for name in names {
                match container_environment(&name) {
                    Ok((variables, started)) => {
                        out.pairs.push(compare(
                            deployment,
                            environment,
                            &name,
                            "Container",
                            &variables,
                            started,
                        ));
                    }
                    Err(failure) => out.unreadable.push(report::with_hints(&failure)),
                }
            }
        }
        Err(failure) => out.unreadable.push(report::with_hints(&failure)),
    }
}

type Variables = BTreeMap<String, String>;

fn compare(
    deployment: &Deployment,
    environment: &str,
    what: &str,
    kind: &str,
    live: &Variables,
    started: Option<i64>,
) -> Pair {
    let files: Vec<&Env> = deployment
        .files
        .iter()
        .filter(|env| env.environment.as_deref() == Some(environment))
        .collect();
    let mut rows = Vec::new();
    for env in &files {
        for entry in &env.document.entries {
            let last = env
                .document
                .get(&entry.name)
                .is_some_and(|last| last.line == entry.line);
            let same = live.get(&entry.name).map(|value| {
                deployment.fingerprints.of(value) == deployment.fingerprints.of(&entry.value)
            });
            let (sign, said, bad) = match same {
                _ if !last => continue,
                Some(true) => (Sign::Equal, "as in the file".to_owned(), false),
                Some(false) => {
                    let live = live
                        .get(&entry.name)
                        .map_or(0, |value| value.chars().count());
                    let here = entry.value.chars().count();
                    let lengths = if live == here {
                        "of the same length".to_owned()
                    } else {
                        format!("{live} characters, the file has {here}")
                    };
                    (
                        Sign::Differs,
                        format!("runs with another value ({lengths})"),
                        true,
                    )
                }
                // An app that reads the file by itself has none of it in its environment.
                None => (Sign::OnlyLeft, "not in its environment".to_owned(), false),
            };
            rows.push(Row {
                name: entry.name.clone(),
                sign,
                what: said,
                bad,
            });
        }
    }
    let known = |name: &String| files.iter().any(|env| env.document.get(name).is_some());
    let schema = deployment.place.as_ref().map(|place| &place.schema);
    for name in live
        .keys()
        .filter(|name| !known(name) && !NOT_OURS.contains(&name.as_str()))
    {
        let ours = schema.is_some_and(|schema| {
            schema
                .variables
                .iter()
                .any(|v| v.name_in(environment) == *name)
        });
        // Images bring variables of their own; one of the schema's is a leftover.
        if ours {
            rows.push(Row {
                name: name.clone(),
                sign: Sign::OnlyRight,
                what: "runs with it, and no file has it".to_owned(),
                bad: true,
            });
        }
    }
    let (mut stale, mut notes) = (Vec::new(), Vec::new());
    for env in &files {
        if started.is_some_and(|started| started < env.meta.mtime()) {
            stale.push(format!(
                "{what} was started before {} was last changed: restart it",
                env.shown()
            ));
        }
    }
    if rows.iter().all(|row| row.sign == Sign::OnlyLeft) && kind == "App" && !rows.is_empty() {
        notes.push(format!("{what} has none of the variables in its environment: the app reads the file by itself, which cannot be seen from outside"));
    }
    Pair {
        left: format!("the files of {environment}"),
        right: what.to_owned(),
        rows,
        stale,
        notes,
    }
}

/// The environment that a unit's main process was started with, and when; none when it does not run.
fn unit_environment(unit: &str) -> Result<Option<(Variables, Option<i64>)>> {
    let ask = Program::new("timeout")
        .args([SECONDS, "systemctl", "show", "-p", "MainPID", "--value"])
        .arg(unit);
    let said = ask
        .output(BYTES_MAX)
        .map_err(|failure| failure.context(format!("cannot ask for the process of {unit}")))?;
    let said = String::from_utf8_lossy(&said);
    let pid: u32 = said
        .trim()
        .parse()
        .or_fail(|| format!("systemctl names no process of {unit}"))?;
    if pid == 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/environ");
    let what = || format!("cannot read the environment of {unit} (process {pid})");
    let file = fs::File::open(&path)
        .or_fail(what)
        .map_err(|failure| failure.hint("another user's process needs root"))?;
    let mut bytes = Vec::new();
    file.take(ENVIRON_BYTES_MAX)
        .read_to_end(&mut bytes)
        .or_fail(what)?;
    let variables = bytes.split(|&b| b == 0).filter_map(|entry| {
        let text = String::from_utf8_lossy(entry);
        text.split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    Ok(Some((variables.collect(), started(pid))))
}

/// When a process was started, in seconds since 1970: its clock ticks (a hundred a second, on every
/// Linux) after the machine's own start.
fn started(pid: u32) -> Option<i64> {
    const TICKS_A_SECOND: i64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the 22nd field is counted from behind it.
    let ticks: i64 = stat
        .rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + ticks / TICKS_A_SECOND)
}

/// The containers that `rg.toml` names for an environment.
pub(crate) fn containers(context: &Context, environment: &str) -> Result<Vec<String>> {
    let path = &context.common.config;
    if !path.exists() {
        return Ok(Vec::new());
    }
    let table: toml::Table = crate::place::read(path)?
        .parse()
        .or_fail(|| format!("cannot read {}", path.display()))?;
    let app = table
        .get("environments")
        .and_then(|all| all.get(environment))
        .and_then(|one| one.get("app"));
    let names = app
        .and_then(|app| app.get("containers"))
        .and_then(toml::Value::as_array);
    Ok(names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect())
}

fn container_environment(name: &str) -> Result<(Variables, Option<i64>)> {
    let what = || format!("cannot ask docker for the environment of {name}");
    let ask = Program::new("timeout")
        .args([
            SECONDS,
            "docker",
            "inspect",
            "--type",
            "container",
            "--format",
        ])
        .args(["{{json .State.StartedAt}} {{json .Config.Env}}", "--"])
        .arg(name);
    let said = ask
        .output(BYTES_MAX)
        .map_err(|failure| failure.context(what()))?;
    let said = String::from_utf8_lossy(&said);
    let (time, list) = said.split_once(' ').ok_or_else(|| Failure::new(what()))?;
    let time = serde_json::from_str::<jiff::Timestamp>(time)
        .ok()
        .map(|time| time.as_second());
    let list: Option<Vec<String>> = serde_json::from_str(list.trim()).or_fail(what)?;
    let variables = list.into_iter().flatten().filter_map(|entry| {
        entry
            .split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    });
    Ok((variables.collect(), time))
}

impl Report for Differences {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for pair in &self.pairs {
            page.line(format!("{} against {}", pair.left, pair.right));
            let rows: Vec<_> = pair
                .rows
                .iter()
                .map(|row| {
                    let sign = match row.sign {
                        Sign::Equal => "=",
                        Sign::Differs => "≠",
                        Sign::OnlyLeft => "<",
                        Sign::OnlyRight => ">",
                    };
                    let tone = if row.bad { Tone::Bad } else { Tone::Plain };
                    vec![
                        (tone, sign.to_owned()),
                        (Tone::Plain, row.name.clone()),
                        (tone, row.what.clone()),
                    ]
                })
                .collect();
            page.table(&["", "VARIABLE", ""], &rows);
            for note in pair.stale.iter().chain(&pair.notes) {
                page.line(format!("{}  {note}", page.tone(Tone::Warn, "⚠")));
            }
        }
        for finding in &self.findings {
            page.line(format!("{}: {}", finding.path, finding.said()));
        }
        for failure in &self.unreadable {
            page.line(format!(
                "{}: {failure}",
                page.tone(Tone::Bad, "could not look")
            ));
        }
        if self.pairs.is_empty() && self.findings.is_empty() && self.unreadable.is_empty() {
            page.line("the files are what the schema asks for");
        }
    }

    fn outcome(&self) -> Outcome {
        let bad = self
            .pairs
            .iter()
            .any(|pair| pair.rows.iter().any(|row| row.bad) || !pair.stale.is_empty());
        match (self.unreadable.is_empty(), bad || !self.findings.is_empty()) {
            (false, _) => Outcome::Incomplete,
            (true, true) => Outcome::BadNews,
            (true, false) => Outcome::Well,
        }
    }
}
