//! The app around a rotation: its units restarted, its health waited for.

use std::time::{Duration, Instant};

use rg_common::cli::Context;
use rg_common::config::HealthConfig;
use rg_common::program::Program;
use rg_common::{Failure, Result, stop};

/// How long one question to the app may take.
const QUESTION: Duration = Duration::from_secs(5);
/// The wait between two questions.
const BETWEEN: Duration = Duration::from_millis(250);
/// Without a health address a unit must stay active for this long.
const STAY: Duration = Duration::from_secs(3);
/// An answer is read up to this size.
const ANSWER_BYTES: usize = 1 << 20;

/// The units that are active now.
pub fn active(units: &[String]) -> Result<Vec<String>> {
    let mut active = Vec::new();
    for unit in units {
        let asked = Program::new("systemctl").args(["show", "--property=ActiveState", "--", unit]);
        let said = asked.output(1 << 16).map_err(|failure| {
            failure
                .context(format!("cannot ask systemd about {unit}"))
                .hint("--leave-units rotates without the app; restart it yourself then")
        })?;
        let said = String::from_utf8_lossy(&said).into_owned();
        if said.lines().any(|line| {
            matches!(
                line,
                "ActiveState=active" | "ActiveState=reloading" | "ActiveState=activating"
            )
        }) {
            active.push(unit.clone());
        }
    }
    Ok(active)
}

/// Restarts units, all in one transaction of systemd.
pub fn restart(units: &[String]) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    tracing::info!("systemctl restart {}", units.join(" "));
    let program = Program::new("systemctl")
        .args(["restart", "--"])
        .args(units);
    program.output(1 << 16).map(drop)
}

/// Waits until the app answers well at every address; without addresses until its units have
/// stayed active.
pub fn wait_healthy(
    context: &Context,
    health: &[HealthConfig],
    units: &[String],
    limit: Duration,
) -> Result<()> {
    if units.is_empty() {
        return Ok(());
    }
    if health.is_empty() {
        stop::pause(STAY)?;
        let up = active(units)?;
        let down: Vec<&str> = units
            .iter()
            .filter(|unit| !up.contains(unit))
            .map(String::as_str)
            .collect();
        return match down.first() {
            None => Ok(()),
            Some(first) => Err(
                Failure::new(format!("did not stay up: {}", down.join(", ")))
                    .hint(format!("journalctl -u {first}")),
            ),
        };
    }
    let began = Instant::now();
    for one in health {
        while let Err(why) = context.network.block_on(ask(one)) {
            if began.elapsed() >= limit {
                let limit = limit.as_secs();
                return Err(Failure::new(format!(
                    "{} is not healthy after {limit} s: {why}",
                    one.url
                ))
                .hint("--health-timeout gives it longer"));
            }
            stop::pause(BETWEEN)?;
        }
    }
    Ok(())
}

async fn ask(health: &HealthConfig) -> Result<(), String> {
    let plain = |error: reqwest::Error| error.without_url().to_string();
    let client = reqwest::Client::builder()
        .timeout(QUESTION)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(plain)?;
    let mut answer = client.get(&health.url).send().await.map_err(plain)?;
    if answer.status().as_u16() != health.status {
        return Err(format!(
            "it answers {} instead of {}",
            answer.status(),
            health.status
        ));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(plain)? {
        body.extend_from_slice(&piece);
        if body.len() > ANSWER_BYTES {
            return Err("its answer is too long".to_owned());
        }
    }
    if health.json.is_empty() {
        return Ok(());
    }
    let document: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|error| format!("its answer is not JSON: {error}"))?;
    for (path, wanted) in &health.json {
        let pointer = path.trim_start_matches('$').replace('.', "/");
        let found = document
            .pointer(&pointer)
            .ok_or_else(|| format!("its answer has no {path}"))?;
        if found != wanted {
            return Err(format!("{path} is {found} instead of {wanted}"));
        }
    }
    Ok(())
}
