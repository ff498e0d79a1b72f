//! An app as systemd runs it: its units stopped, started or restarted, its health waited for.
//!
//! The promise: a unit that is not there is a failure and not "down", no wait is without a limit,
//! and an app counts as healthy only when every address has answered as `rg.toml` wants it.

use std::time::{Duration, Instant};

use crate::cli::Context;
use crate::config::{App, HealthConfig};
use crate::program::Program;
use crate::{Failure, OrFail, Result, stop};

/// How long one question to the app may take.
const QUESTION: Duration = Duration::from_secs(5);
/// The wait between two questions.
const BETWEEN: Duration = Duration::from_millis(250);
/// Without a health address a unit must stay active for this long.
const STAY: Duration = Duration::from_secs(3);
/// An answer is read up to this size.
const ANSWER_BYTES: usize = 1 << 20;
/// What systemctl may print.
const PRINTED_BYTES: usize = 1 << 16;

/// The units of an app that are active now: those that are stopped, and started again.
pub fn active(app: &App) -> Result<Vec<String>> {
    let mut active = Vec::new();
    for unit in &app.units {
        if is_active(unit)? {
            active.push(unit.clone());
        }
    }
    Ok(active)
}

/// Whether a unit is active, or on its way to be.
fn is_active(unit: &str) -> Result<bool> {
    // `show` tells the state of a unit that is not active by its output, not by its exit status.
    let program =
        Program::new("systemctl").args(["show", "--property=LoadState,ActiveState", "--", unit]);
    let said = program.output(PRINTED_BYTES).map_err(|failure| {
        failure
            .context(format!("cannot ask systemd about {unit}"))
            .hint("--leave-units goes on without the app; stop or restart it yourself then")
    })?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if said.lines().any(|line| line == "LoadState=not-found") {
        return Err(Failure::new(format!("there is no unit {unit}"))
            .hint("it stands in app.units in rg.toml; --leave-units goes on without the app"));
    }
    Ok(said.lines().any(|line| {
        matches!(
            line,
            "ActiveState=active" | "ActiveState=reloading" | "ActiveState=activating"
        )
    }))
}

/// Stops units, all in one transaction of systemd.
pub fn stop_units(units: &[String]) -> Result<()> {
    systemctl("stop", units)
}

/// Restarts units, all in one transaction of systemd.
pub fn restart_units(units: &[String]) -> Result<()> {
    systemctl("restart", units)
}

/// Starts those of the units that are not active: starting takes a right that asking does not.
pub fn start_units(units: &[String]) -> Result<()> {
    let mut down = Vec::new();
    for unit in units {
        if !is_active(unit)? {
            down.push(unit.clone());
        }
    }
    systemctl("start", &down).map_err(|failure| {
        failure.hint(format!(
            "start them by hand: systemctl start {}",
            down.join(" ")
        ))
    })
}

fn systemctl(verb: &str, units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    tracing::info!("systemctl {verb} {}", units.join(" "));
    Program::new("systemctl")
        .args([verb, "--"])
        .args(units)
        .output(PRINTED_BYTES)
        .map(drop)
}

/// Waits until the app answers well at every address; without addresses until its units have
/// stayed active. An app of which a unit was down before (`units` are those that were not) cannot
/// be expected to answer.
pub fn wait_healthy(context: &Context, app: &App, units: &[String], limit: Duration) -> Result<()> {
    let began = Instant::now();
    if units.len() < app.units.len() {
        tracing::warn!("the app was not running before, so it is not asked for its health");
        return Ok(());
    }
    if app.health.is_empty() {
        return stay_up(units);
    }
    for health in &app.health {
        loop {
            let answer = context.network.block_on(ask(health));
            let Err(why) = answer else { break };
            if began.elapsed() >= limit {
                return Err(Failure::new(format!(
                    "{} is not healthy after {} s: {why}",
                    health.url,
                    limit.as_secs()
                ))
                .hint(
                    "--health-timeout gives it longer; --leave-units goes on without asking it",
                ));
            }
            stop::pause(BETWEEN)?;
        }
    }
    Ok(())
}

fn stay_up(units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    stop::pause(STAY)?;
    let mut down = Vec::new();
    for unit in units {
        if !is_active(unit)? {
            down.push(unit.as_str());
        }
    }
    match down.first() {
        None => Ok(()),
        Some(first) => Err(
            Failure::new(format!("did not stay up: {}", down.join(", ")))
                .hint(format!("journalctl -u {first}")),
        ),
    }
}

async fn ask(health: &HealthConfig) -> Result<()> {
    // The address is said by whoever asked.
    let plain = |error: reqwest::Error| Failure::because("no answer", error.without_url());
    let client = reqwest::Client::builder()
        .timeout(QUESTION)
        .redirect(reqwest::redirect::Policy::none());
    let mut answer = client
        .build()
        .map_err(plain)?
        .get(&health.url)
        .send()
        .await
        .map_err(plain)?;
    if answer.status().as_u16() != health.status {
        return Err(Failure::new(format!(
            "it answers {} instead of {}",
            answer.status(),
            health.status
        )));
    }
    if health.json.is_empty() {
        return Ok(());
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(plain)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES {
            return Err(Failure::new("its answer is too long"));
        }
    }
    let document: serde_json::Value =
        serde_json::from_slice(&body).or_fail(|| "its answer is not JSON".to_owned())?;
    for (path, wanted) in &health.json {
        let found =
            at(&document, path).ok_or_else(|| Failure::new(format!("its answer has no {path}")))?;
        if found != wanted {
            return Err(Failure::new(format!(
                "{path} is {found} instead of {wanted}"
            )));
        }
    }
    Ok(())
}

/// A value by a simple path: `$.status`, `$.checks[0].name`.
fn at<'a>(document: &'a serde_json::Value, path: &str) -> Option<&'a serde_json::Value> {
    let mut value = document;
    for step in path.strip_prefix('$')?.split('.') {
        let (name, indexes) = step
            .split_once('[')
            .map_or((step, ""), |(name, rest)| (name, rest));
        if !name.is_empty() {
            value = value.get(name)?;
        }
        for index in indexes.split('[').filter(|index| !index.is_empty()) {
            value = value.get(index.strip_suffix(']')?.parse::<usize>().ok()?)?;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_simple_paths() {
        let document = serde_json::json!({"status": "ok", "checks": [{"name": "db"}]});
        assert_eq!(at(&document, "$.status").unwrap(), "ok");
        assert_eq!(at(&document, "$.checks[0].name").unwrap(), "db");
        assert!(at(&document, "$.none").is_none());
        assert!(at(&document, "status").is_none());
    }
}
