//! The configuration's cron expressions as next runs and as timers that systemd accepts.

use std::fs;

use rg_tests::{Sandbox, sandbox};

fn configured(place: &Sandbox, uploads: &str) {
    place.config(&format!(
        "[stores.local]\nurl = \"file://{{root}}/store\"\n\
         [environments.production.database]\nurl = \"$DATABASE_URL\"\nschedule = \"30 2 * * *\"\n{uploads}\
         [environments.production.files.no-timer]\npath = \"other\"\n"
    ));
    fs::create_dir_all(place.path("units")).expect("a folder for units");
}

const UPLOADS: &str =
    "[environments.production.files.up-loads]\npath = \"uploads\"\nschedule = \"0 3 * * 0\"\n";
const UPLOADS_TIMER: &str = r"rg-backup-production-files-up\x2dloads.timer";

fn install(place: &Sandbox, more: &[&str]) -> rg_tests::Output {
    let mut args = vec!["schedule", "--install", "--dir", "units"];
    args.extend(more);
    place
        .tool("rg-backup", args)
        .env("TZ", "America/New_York")
        .run()
}

#[test]
fn the_next_runs_are_shown_in_the_hosts_time() {
    let place = sandbox!();
    configured(&place, UPLOADS);
    let tool = place.tool("rg-backup", ["schedule", "--json"]);
    let document = tool.env("TZ", "Europe/Berlin").run().ok().json();
    let timers = document["timers"].as_array().expect("timers");
    let datasets: Vec<_> = timers
        .iter()
        .map(|timer| timer["dataset"].as_str())
        .collect();
    let wanted = [
        "globals",
        "production/database",
        "production/files/up-loads",
    ];
    assert_eq!(datasets, wanted.map(Some));
    let next: jiff::Timestamp = timers[1]["next"]
        .as_str()
        .expect("a time")
        .parse()
        .expect("a time");
    let berlin = jiff::tz::TimeZone::get("Europe/Berlin").expect("a zone");
    let next = berlin.to_datetime(next);
    // Not on the one night that has no 02:30.
    assert_eq!(next.minute(), 30, "{next}");
    assert!((2..=3).contains(&next.hour()), "{next}");
    assert_eq!(document["unscheduled"][0], "production/files/no-timer");
    let output = place.run("rg-backup", ["schedule"]).ok();
    let said = output.out();
    assert!(said.contains("30 2 * * *"), "{said}");
    assert!(
        said.contains("production/files/no-timer has no schedule: no timer backs it up"),
        "{said}"
    );
}

#[test]
fn timers_are_written_as_systemd_accepts_them() {
    let place = sandbox!();
    configured(&place, UPLOADS);
    install(&place, &["--dry-run"]).ok();
    assert_eq!(place.files("units"), [""; 0]);
    install(&place, &[]).ok();
    let timers = place.files("units");
    assert_eq!(
        timers,
        [
            "rg-backup-globals.timer",
            "rg-backup-production-database.timer",
            UPLOADS_TIMER
        ]
    );
    let service = "[Unit]\nDescription=A backup\n[Service]\nType=oneshot\nExecStart=/bin/true\n";
    place.write("units/rg-backup@.service", service);
    let mut calendars = 0;
    for timer in &timers {
        let path = place.path("units").join(timer);
        let output = place
            .program("systemd-analyze", ["verify"])
            .arg(&path)
            .run();
        let about_ours: Vec<String> = output
            .err()
            .lines()
            .filter(|line| line.contains("rg-backup"))
            // The manual page is installed elsewhere.
            .filter(|line| !line.contains("man "))
            .map(str::to_owned)
            .collect();
        assert_eq!(about_ours, [""; 0], "{output:?}");
        let text = fs::read_to_string(&path).expect("a timer");
        assert!(text.contains("Persistent=true"), "{text}");
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("OnCalendar="))
        {
            place
                .program("systemd-analyze", ["calendar", line])
                .run()
                .ok();
            calendars += 1;
        }
    }
    assert!(calendars >= 3);
    let text = place.read(format!("units/{UPLOADS_TIMER}"));
    assert!(
        text.contains(r"Unit=rg-backup@production-files-up\x2dloads.service"),
        "{text}"
    );
    assert!(
        !place
            .files("units")
            .iter()
            .any(|name| name.ends_with(".tmp"))
    );
    // Once more: the same.
    let before = place.read(format!("units/{UPLOADS_TIMER}"));
    install(&place, &[]).ok();
    assert_eq!(place.read(format!("units/{UPLOADS_TIMER}")), before);
}

#[test]
fn the_timer_of_a_dataset_that_is_gone_is_removed_and_no_other_file() {
    let place = sandbox!();
    configured(&place, UPLOADS);
    install(&place, &[]).ok();
    let strangers = [
        "rg-backup-of-my-own.timer",
        "nginx.service",
        "rg-backup-notes.txt",
    ];
    for stranger in strangers {
        place.write(format!("units/{stranger}"), "[Timer]\nOnCalendar=daily\n");
    }
    configured(&place, "");
    let output = install(&place, &["--dry-run"]).ok();
    assert!(
        output.out().contains(&format!("removed {UPLOADS_TIMER}")),
        "{output:?}"
    );
    assert!(place.path("units").join(UPLOADS_TIMER).exists());
    install(&place, &[]).ok();
    let mut wanted = vec![
        "rg-backup-globals.timer",
        "rg-backup-production-database.timer",
    ];
    wanted.extend(strangers);
    wanted.sort_unstable();
    assert_eq!(place.files("units"), wanted);
    for stranger in strangers {
        assert_eq!(
            place.read(format!("units/{stranger}")),
            "[Timer]\nOnCalendar=daily\n"
        );
    }
}

#[test]
fn a_timer_that_somebody_else_wrote_is_left_and_said_before_any_change() {
    let place = sandbox!();
    configured(&place, UPLOADS);
    install(&place, &[]).ok();
    let database = "units/rg-backup-production-database.timer";
    place.write(database, "[Timer]\nOnCalendar=hourly\n");
    configured(&place, "");
    let output = install(&place, &[]).fails(2);
    assert!(
        output
            .err()
            .contains("rg-backup-production-database.timer was not written by rg-backup"),
        "{output:?}"
    );
    assert!(
        output.err().contains("hint: move it away first"),
        "{output:?}"
    );
    assert_eq!(place.read(database), "[Timer]\nOnCalendar=hourly\n");
    assert!(
        place.path("units").join(UPLOADS_TIMER).exists(),
        "nothing was changed"
    );
}

#[test]
fn a_cron_expression_that_is_none_names_its_dataset() {
    let place = sandbox!();
    configured(
        &place,
        "[environments.production.files.x]\npath = \"x\"\nschedule = \"0 25 * * *\"\n",
    );
    let output = place.run("rg-backup", ["schedule"]).fails(2);
    assert!(
        output.err().contains("[environments.production.files.x]"),
        "{output:?}"
    );
}
