//! Containers, as their engine knows them: docker's socket, or podman's, which speaks the same.
//!
//! Asked are the version, the list, and each container that is named; the engine's own API version
//! is used, since newer engines refuse old ones. An engine that is not there, while containers are
//! wanted, is bad news; one that we may not ask leaves it unknown.

mod engine;
mod judge;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;

use super::quote;
use super::recent::Recent;
use crate::failure::{Failure, OrFail, Result};
use engine::{Answer, Asking};
pub use judge::{LOOP_RESTARTS, judge};

/// All questions together must have been answered within this time.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// So many of a container's last lines are shown with its failure.
pub const EVIDENCE_LINES: usize = 12;

/// Where engines listen: docker's first.
const SOCKETS: [&str; 3] = [
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/podman/podman.sock",
];
/// podman runs containers without listening anywhere.
const PODMAN: &str = "/usr/bin/podman";

/// An engine by its socket.
#[derive(Debug, Clone)]
pub struct Engine {
    socket: PathBuf,
}

/// What an engine says of the containers that were asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Census {
    /// Nothing listens: the words why.
    NoEngine(String),
    /// The containers by the names that were asked for; none for one that is not there.
    Known {
        /// By name.
        asked: BTreeMap<String, Option<Container>>,
        /// All names that there are.
        names: Vec<String>,
    },
}

/// What an engine says of a container. Words are the engine's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
    pub status: String,
    /// Its last exit code.
    pub exit_code: i64,
    /// Whether it last ended for lack of memory.
    pub oom_killed: bool,
    /// `healthy`, `unhealthy`, `starting`; none where it has no health check.
    pub health: Option<String>,
    /// What its health check last said, fit to be quoted.
    pub health_said: String,
    /// How often the engine has restarted it by itself.
    pub restarts: u64,
    /// `no`, `always`, `unless-stopped`, `on-failure`.
    pub policy: String,
}

impl Default for Engine {
    /// The first engine that there is; docker's where there is none.
    fn default() -> Self {
        let found = SOCKETS.iter().map(PathBuf::from).find(|path| path.exists());
        Engine::at(found.unwrap_or_else(|| SOCKETS[0].into()))
    }
}

impl Engine {
    /// The engine that listens there.
    pub fn at(socket: impl Into<PathBuf>) -> Engine {
        Engine {
            socket: socket.into(),
        }
    }

    /// Asks for containers by their names. An error is our inability to ask.
    pub fn census(&self, names: &[String]) -> Result<Census> {
        let asking = Asking::new(&self.socket, Instant::now() + ANSWER_LIMIT);
        let version: Version = match asking.get("/version") {
            Ok(Answer::Nobody(why)) if self.podman_may_run() => {
                return Err(Failure::new(format!("podman cannot be asked: {why}"))
                    .hint("let it listen: systemctl enable --now podman.socket"));
            }
            Ok(Answer::Nobody(why)) => return Ok(Census::NoEngine(why)),
            Ok(Answer::Body(body)) => parse("/version", &body)?,
            Err(failure) => return Err(self.cannot(failure)),
        };
        let ask = |path: &str| match asking.get(&format!("/v{}{path}", version.api)) {
            Ok(Answer::Body(body)) => Ok(body),
            Ok(Answer::Nobody(why)) => Err(self.cannot(Failure::new(why))),
            Err(failure) => Err(self.cannot(failure)),
        };
        let path = "/containers/json?all=1";
        let listed: Vec<Listed> = parse(path, &ask(path)?)?;
        let mut asked = BTreeMap::new();
        for name in names {
            let id = listed
                .iter()
                .find(|one| one.is_called(name))
                .map(|one| &one.id);
            let container = match id {
                None => None,
                Some(id) => {
                    let path = format!("/containers/{id}/json");
                    let inspected: Inspected = parse(&path, &ask(&path)?)?;
                    Some(inspected.into())
                }
            };
            asked.insert(name.clone(), container);
        }
        let all = listed.iter().flat_map(Listed::names);
        Ok(Census::Known {
            asked,
            names: all.map(str::to_owned).collect(),
        })
    }

    /// A container's last lines, fit to be quoted, or one line that says why they cannot be shown.
    pub fn evidence(&self, name: &str) -> Vec<String> {
        if !crate::names::is_word(name) {
            return vec![format!("(no log: `{name}` is no container's name)")];
        }
        let asking = Asking::new(&self.socket, Instant::now() + ANSWER_LIMIT);
        let path = format!("/containers/{name}/logs?stdout=1&stderr=1&tail={EVIDENCE_LINES}");
        match asking.get(&path) {
            Ok(Answer::Body(body)) => {
                let text = engine::without_frames(&body);
                let text = String::from_utf8_lossy(&text);
                let lines: Vec<&str> = text.lines().collect();
                let from = lines.len().saturating_sub(EVIDENCE_LINES);
                lines[from..].iter().map(|line| quote::line(line)).collect()
            }
            Ok(Answer::Nobody(why)) => vec![format!("(no log: {why})")],
            Err(failure) => vec![format!("(no log: {failure})")],
        }
    }

    fn podman_may_run(&self) -> bool {
        SOCKETS
            .iter()
            .any(|path| self.socket == PathBuf::from(path))
            && !self.socket.exists()
            && std::path::Path::new(PODMAN).exists()
    }

    fn cannot(&self, failure: Failure) -> Failure {
        failure.context(format!(
            "cannot ask the container engine at {}",
            self.socket.display()
        ))
    }
}

fn parse<T: for<'a> Deserialize<'a>>(path: &str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .or_fail(|| format!("the engine's answer to {path} is not understood"))
}

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "ApiVersion")]
    api: String,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Names", default)]
    names: Vec<String>,
}

impl Listed {
    /// Docker writes them with a slash before.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.trim_start_matches('/'))
    }

    fn is_called(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    state: InspectedState,
    #[serde(default)]
    restart_count: u64,
    #[serde(default)]
    host_config: HostConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(rename = "OOMKilled", default)]
    oom_killed: bool,
    health: Option<Health>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
    log: Option<Vec<HealthLine>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthLine {
    #[serde(default)]
    output: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    restart_policy: Policy,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Policy {
    #[serde(default)]
    name: String,
}

impl From<Inspected> for Container {
    fn from(inspected: Inspected) -> Container {
        let InspectedState {
            status,
            exit_code,
            oom_killed,
            health,
        } = inspected.state;
        let last = health
            .as_ref()
            .and_then(|health| health.log.as_ref()?.last());
        let health_said = last.map_or_else(String::new, |line| quote::line(&line.output));
        Container {
            status,
            exit_code,
            oom_killed,
            // podman says "" and docker `none` where there is no health check.
            health: health
                .map(|health| health.status)
                .filter(|status| !status.is_empty() && status != "none"),
            health_said,
            restarts: inspected.restart_count,
            policy: inspected.host_config.restart_policy.name,
        }
    }
}

/// What is remembered of a container for its next look; nothing changes while it is not there.
pub fn remember(before: Option<&Recent>, container: &Container, now: Timestamp) -> Recent {
    Recent::after(before, container.restarts, now)
}

#[cfg(test)]
mod tests;
