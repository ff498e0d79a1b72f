//! Texts of a real VPS, replayed; this machine's own.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::check::State;
use crate::program::Program;

const GIB: u64 = 1 << 30;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

struct Proc(PathBuf);

impl Proc {
    fn new(name: &str) -> Proc {
        let path = std::env::temp_dir().join(format!("rg-proc-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("pressure")).expect("a directory");
        for (file, text) in [
            (
                "stat",
                "cpu  1 2 3\ncpu0 1\ncpu1 1\nintr 5\nbtime 1799990000\n",
            ),
            ("loadavg", "0.10 0.52 0.33 1/200 4242\n"),
            ("uptime", "10000.52 19000.10\n"),
            (
                "meminfo",
                "MemTotal:        2014520 kB\nMemFree:           52000 kB\nMemAvailable:    1007260 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n",
            ),
            ("vmstat", "nr_free_pages 1\noom_kill 3\n"),
            (
                "pressure/cpu",
                "some avg10=1.00 avg60=2.50 avg300=0.00 total=1\n",
            ),
            (
                "pressure/memory",
                "some avg10=0.00 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.25 avg300=0.00 total=1\n",
            ),
            (
                "pressure/io",
                "some avg10=0.00 avg60=9.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=7.50 avg300=0.00 total=1\n",
            ),
        ] {
            fs::write(path.join(file), text).expect("written");
        }
        Proc(path)
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[test]
fn a_machines_texts_are_read_as_facts() {
    let proc = Proc::new("good");
    let host = read(&proc.0).unwrap();
    assert_eq!(host.memory.available, 1_007_260 << 10);
    assert_eq!(
        (host.load, host.processors, host.oom_kills),
        (0.52, 2, Some(3))
    );
    assert_eq!(
        host.pressure,
        Some(Pressure {
            cpu_some: 2.5,
            memory_full: 0.25,
            io_full: 7.5
        })
    );
    assert_eq!(host.uptime_seconds, 10_000);
    fs::remove_dir_all(proc.0.join("pressure")).unwrap();
    assert_eq!(
        judge_pressure(read(&proc.0).unwrap().pressure.as_ref()).state,
        State::Skip
    );
    fs::write(proc.0.join("meminfo"), "garbage").unwrap();
    let failure = read(&proc.0).unwrap_err();
    assert!(
        failure.to_string().ends_with("/meminfo is not understood"),
        "{failure}"
    );
    fs::remove_file(proc.0.join("stat")).unwrap();
    assert!(
        read(&proc.0)
            .unwrap_err()
            .to_string()
            .starts_with("cannot read ")
    );
    // And this machine's own.
    let host = read(Path::new("/proc")).unwrap();
    assert!(host.memory.total > 0 && host.processors > 0);
}

#[test]
fn short_memory_is_said_in_exact_words() {
    let memory = |available| Memory {
        total: 4 * GIB,
        available,
        swap_total: 0,
        swap_free: 0,
    };
    let verdict = judge_memory(&memory(2 * GIB));
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Pass, "2.0 GiB of 4.0 GiB memory available (50 %)")
    );
    assert_eq!(judge_memory(&memory(GIB / 4)).state, State::Warn);
    let verdict = judge_memory(&memory(GIB / 8));
    assert_eq!(verdict.state, State::Fail);
    let swapping = Memory {
        swap_total: GIB,
        swap_free: GIB / 10,
        ..memory(GIB / 2)
    };
    let verdict = judge_memory(&swapping);
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Warn, "90 % of the swap space is used")
    );
}

#[test]
fn pressure_and_load_are_judged_by_processors_and_by_minutes() {
    let calm = Pressure {
        cpu_some: 90.0,
        memory_full: 0.0,
        io_full: 3.0,
    };
    assert_eq!(
        judge_pressure(Some(&calm)).found,
        "stood still: memory 0 %, disks 3 %"
    );
    let short = Pressure {
        memory_full: 41.0,
        ..calm
    };
    let verdict = judge_pressure(Some(&short));
    assert_eq!(verdict.state, State::Fail);
    assert_eq!(
        verdict.found,
        "for 41 % of the last minute everything stood still for lack of memory"
    );
    let slow = Pressure {
        io_full: 60.0,
        ..calm
    };
    assert_eq!(judge_pressure(Some(&slow)).state, State::Warn);
    assert_eq!(judge_load(3.9, 2).state, State::Pass);
    assert_eq!(judge_load(4.0, 2).state, State::Warn);
    let verdict = judge_load(16.0, 2);
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Fail, "load 16.0 on 2 processors")
    );
}

#[test]
fn who_was_killed_for_lack_of_memory_is_named() {
    let first = remember_kills(None, 3, now());
    assert_eq!(judge_kills(&first, &[]).state, State::Pass);
    let second = remember_kills(Some(&first), 4, now());
    let victim = Victim {
        process: "python3".into(),
        unit: Some("api.service".into()),
    };
    let verdict = judge_kills(&second, &[victim.clone(), victim]);
    assert_eq!(verdict.state, State::Fail);
    assert_eq!(
        verdict.found,
        "the kernel killed 1 process within an hour for lack of memory: python3 of api.service"
    );
    assert_eq!(
        judge_kills(&second, &[]).found,
        "the kernel killed 1 process within an hour for lack of memory"
    );
}

#[test]
fn a_clock_that_nobody_keeps_right_is_said() {
    let say = |text: &str| Program::new("sh").args(["-c", text, "timedatectl"]);
    let good = clock(&say("echo NTP=yes; echo NTPSynchronized=yes")).unwrap();
    assert_eq!(judge_clock(&good).state, State::Pass);
    let off = clock(&say("echo NTP=no; echo NTPSynchronized=no")).unwrap();
    assert_eq!(judge_clock(&off).found, "nothing keeps the clock right");
    let lost = clock(&say("echo NTP=yes; echo NTPSynchronized=no")).unwrap();
    assert_eq!(judge_clock(&lost).state, State::Warn);
    let failure = clock(&say("echo 'no bus' >&2; exit 1")).unwrap_err();
    assert_eq!(failure.hints(), ["try `timedatectl`"]);
    assert!(clock(&say("true")).is_err());
}

#[test]
fn a_boot_is_said_for_an_hour() {
    let boot = |uptime: u64| Timestamp::from_second(1_800_000_000 - uptime as i64).expect("a time");
    let verdict = judge_boot(boot(300), Some(boot(90_000)), 300);
    assert_eq!(verdict.state, State::Warn);
    assert!(
        verdict.found.starts_with("the machine was booted 5"),
        "{}",
        verdict.found
    );
    assert_eq!(judge_boot(boot(300), None, 300).state, State::Pass);
    assert_eq!(
        judge_boot(boot(90_000), Some(boot(90_001)), 90_000).state,
        State::Pass
    );
}
