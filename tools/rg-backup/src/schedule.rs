//! The configuration's cron expressions as next runs and as systemd timers.

use std::path::Path;

use jiff::Timestamp;
use rg_common::cli::Context;
use rg_common::config::DatasetConfig;
use rg_common::program::Program;
use rg_common::report::{Outcome, Page, Report, Tone};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args::Schedule;

/// How many years of daylight-saving nights are written out; each installation renews them.
const YEARS: u8 = 10;
/// What a timer's file begins with; only such files are ever replaced or removed.
const MARK: &str = "# Written by rg-backup schedule --install; changes are lost.\n";

#[derive(Serialize)]
struct Scheduled {
    timers: Vec<Timer>,
    /// Datasets that no timer runs.
    unscheduled: Vec<String>,
    written: Vec<String>,
    removed: Vec<String>,
}

#[derive(Serialize)]
struct Timer {
    dataset: String,
    cron: String,
    next: Option<Timestamp>,
    on_calendar: Vec<String>,
    unit: String,
}

/// Shows the next runs; with `--install` writes a timer for each schedule.
pub fn schedule(context: &Context, args: &Schedule) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let mut scheduled = Scheduled {
        timers: Vec::new(),
        unscheduled: Vec::new(),
        written: Vec::new(),
        removed: Vec::new(),
    };
    for dataset in &config.datasets {
        match timer(context, dataset) {
            Some(timer) => scheduled.timers.push(timer),
            None => scheduled.unscheduled.push(dataset.name.to_string()),
        }
    }
    if args.install {
        let config_path = std::path::absolute(&context.common.config)
            .or_fail(|| "cannot name the configuration".to_owned())?;
        install(&mut scheduled, &args.dir, &config_path, args.dry_run)?;
        if !args.dry_run
            && Path::new("/run/systemd/system").is_dir()
            && args.dir == Path::new("/etc/systemd/system")
        {
            enable(&scheduled)?;
        }
    }
    Ok(Box::new(scheduled))
}

fn timer(context: &Context, dataset: &DatasetConfig) -> Option<Timer> {
    let schedule = dataset.schedule.as_ref()?;
    Some(Timer {
        dataset: dataset.name.to_string(),
        cron: schedule.to_string(),
        next: schedule.next_after(context.now, &context.zone),
        on_calendar: schedule.calendar_lines(&context.zone, context.now, YEARS),
        unit: format!("rg-backup-{}.timer", unit_name(dataset.name.as_str())),
    })
}

/// A dataset's name as systemd escapes it: `-` for `/`, `\x2d` for `-`.
fn unit_name(dataset: &str) -> String {
    let escape = |b: u8| match b {
        b'/' => "-".to_owned(),
        b if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':') => {
            char::from(b).to_string()
        }
        b => format!("\\x{b:02x}"),
    };
    dataset.bytes().map(escape).collect()
}

fn install(scheduled: &mut Scheduled, dir: &Path, config: &Path, dry_run: bool) -> Result<()> {
    let wanted: Vec<(String, String)> = scheduled
        .timers
        .iter()
        .map(|timer| (timer.unit.clone(), unit(timer, config)))
        .collect();
    // All of it or nothing: a file of somebody else's is noticed before anything is written.
    for (name, _) in &wanted {
        let path = dir.join(name);
        if std::fs::read_to_string(&path).is_ok_and(|there| !there.starts_with(MARK)) {
            return Err(
                Failure::new(format!("{} was not written by rg-backup", path.display()))
                    .hint("move it away first"),
            );
        }
    }
    for entry in std::fs::read_dir(dir).or_fail(|| format!("cannot read {}", dir.display()))? {
        let entry = entry.or_fail(|| format!("cannot read {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.starts_with("rg-backup-")
            && name.ends_with(".timer")
            && wanted.iter().all(|(unit, _)| *unit != name);
        if ours && std::fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with(MARK)) {
            if !dry_run {
                std::fs::remove_file(entry.path())
                    .or_fail(|| format!("cannot remove {}", entry.path().display()))?;
            }
            scheduled.removed.push(name);
        }
    }
    for (name, text) in wanted {
        let path = dir.join(&name);
        if !dry_run {
            write_atomically(&path, &text)?;
        }
        scheduled.written.push(path.display().to_string());
    }
    Ok(())
}

fn unit(timer: &Timer, config: &Path) -> String {
    let lines: String = timer
        .on_calendar
        .iter()
        .map(|line| format!("OnCalendar={line}\n"))
        .collect();
    let instance = unit_name(&timer.dataset);
    format!(
        "{MARK}# {cron} in {config}\n[Unit]\nDescription=Backup of {dataset}\nDocumentation=man:rg-backup(8)\n\n\
         [Timer]\nUnit=rg-backup@{instance}.service\n{lines}Persistent=true\nRandomizedDelaySec=120\nFixedRandomDelay=true\n\n\
         [Install]\nWantedBy=timers.target\n",
        cron = timer.cron,
        config = config.display(),
        dataset = timer.dataset,
    )
}

fn write_atomically(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let temporary = path.with_extension("timer.tmp");
    let what = || format!("cannot write {}", path.display());
    std::fs::write(&temporary, text).or_fail(what)?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o644)).or_fail(what)?;
    std::fs::rename(&temporary, path).or_fail(what)
}

fn enable(scheduled: &Scheduled) -> Result<()> {
    for unit in &scheduled.removed {
        Program::new("systemctl")
            .args(["disable", "--now", "--", unit])
            .output(1 << 16)
            .ok();
    }
    Program::new("systemctl")
        .arg("daemon-reload")
        .output(1 << 16)?;
    let units = scheduled.timers.iter().map(|timer| timer.unit.as_str());
    let program = Program::new("systemctl")
        .args(["enable", "--now", "--"])
        .args(units);
    if scheduled.timers.is_empty() {
        Ok(())
    } else {
        program.output(1 << 16).map(drop)
    }
}

impl Report for Scheduled {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let row = |timer: &Timer| {
            let next = timer.next.map_or("never".to_owned(), |t| {
                t.to_zoned(jiff::tz::TimeZone::system())
                    .strftime("%a %Y-%m-%d %H:%M %Z")
                    .to_string()
            });
            [
                &timer.dataset,
                &timer.cron,
                &next,
                &timer.on_calendar.first().cloned().unwrap_or_default(),
            ]
            .map(|c| (Tone::Plain, c.clone()))
            .to_vec()
        };
        let rows: Vec<_> = self.timers.iter().map(row).collect();
        page.table(&["DATASET", "CRON", "NEXT", "ONCALENDAR"], &rows);
        for dataset in &self.unscheduled {
            page.line(format!(
                "{}  {dataset} has no schedule: no timer backs it up",
                page.tone(Tone::Warn, "⚠")
            ));
        }
        for path in &self.written {
            page.line(format!("wrote {path}"));
        }
        for name in &self.removed {
            page.line(format!("removed {name}"));
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Well
    }
}
