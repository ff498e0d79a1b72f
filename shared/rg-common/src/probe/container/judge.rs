//! What an engine's words mean for whoever waits for a container.

use super::{Census, Container};
use crate::check::{Figure, Unit, Verdict};
use crate::config::nearest;
use crate::probe::recent::Recent;
use crate::probe::tally::Tally;

/// So many restarts within an hour are a loop.
pub const LOOP_RESTARTS: u64 = 3;

/// Judges one container that was asked for. `restarts` is what [`super::remember`] gave for this look.
pub fn judge(name: &str, census: &Census, restarts: Option<&Recent>) -> Verdict {
    let (asked, names) = match census {
        Census::NoEngine(why) => {
            return Verdict::fail(
                format!("no container runs: {why}"),
                "systemctl start docker && docker ps",
            );
        }
        Census::Known { asked, names } => (asked, names),
    };
    let Some(Some(container)) = asked.get(name) else {
        let near = nearest(name, names.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!("; there is `{near}`"));
        return Verdict::fail(
            format!("there is no container {name}{near}"),
            "docker compose up -d; docker ps -a",
        );
    };
    let mut tally = Tally::default();
    let logs = format!("docker logs --tail 50 {name}");
    judge_status(name, container, &mut tally, &logs);
    let lately = restarts.map_or(0, Recent::count);
    let figure = Figure::new("restarts_last_hour", lately as f64, Unit::Count);
    tally.figure(figure.bounds(Some(1.0), Some(LOOP_RESTARTS as f64)));
    if lately >= LOOP_RESTARTS {
        tally.fail(
            format!("{name} was restarted {lately} times within an hour: it restarts in a loop"),
            &logs,
        );
    } else if lately > 0 {
        let times = if lately == 1 { "once" } else { "twice" };
        tally.warn(
            format!("{name} ended and was restarted {times} within an hour"),
            &logs,
        );
    }
    if container.status == "running" && matches!(container.policy.as_str(), "" | "no") {
        tally.warn(
            format!("{name} will not come up after a boot: its restart policy is `no`"),
            format!("docker update --restart unless-stopped {name}"),
        );
    }
    let health = container.health.as_deref();
    tally.settle(match health {
        Some(health) => format!("{name} is running and {health}"),
        None => format!("{name} is running"),
    })
}

fn judge_status(name: &str, container: &Container, tally: &mut Tally, logs: &str) {
    let memory = if container.oom_killed {
        " for lack of memory"
    } else {
        ""
    };
    match container.status.as_str() {
        "running" => {}
        "restarting" => tally.fail(
            format!(
                "{name} ended with exit code {}{memory} and is being restarted",
                container.exit_code
            ),
            logs,
        ),
        "exited" | "dead" => tally.fail(
            format!(
                "{name} has ended with exit code {}{memory}",
                container.exit_code
            ),
            format!("{logs}; docker start {name}"),
        ),
        "paused" => tally.fail(
            format!("{name} is paused"),
            format!("docker unpause {name}"),
        ),
        "created" => tally.fail(
            format!("{name} was never started"),
            format!("docker start {name}"),
        ),
        other => tally.fail(format!("{name} is {other}"), "docker ps -a"),
    }
    if container.status != "running" {
        return;
    }
    if container.oom_killed {
        tally.warn(
            format!("a process of {name} was killed for lack of memory"),
            logs,
        );
    }
    let said = if container.health_said.is_empty() {
        String::new()
    } else {
        format!(": {}", container.health_said)
    };
    match container.health.as_deref() {
        Some("unhealthy") => tally.fail(format!("{name} is running, but unhealthy{said}"), logs),
        Some("starting") => tally.warn(format!("{name} is still starting{said}"), logs),
        _ => {}
    }
}
