//! `kill -9` right before and right after every step of a rotation. No moment is left to chance: a
//! wire holds the conversation at the step's word, and the limit of the size of files
//! (`RLIMIT_FSIZE`) kills at the write of a file.

use rg_tests::{Moment, Output, Running};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::site::{PATIENCE, Rig};
use Moment::{After, Before};

/// Where a run is stopped.
#[derive(Clone, Copy)]
enum At {
    /// At the last of these words on the wire to the server.
    Wire(&'static [&'static str], Moment),
    /// At the question for the app's health.
    Health(Moment),
    /// Around a restart of the units: `before 1`.
    Restart(&'static str),
}

/// How it is killed there.
#[derive(Clone, Copy)]
enum How {
    /// At once.
    Now,
    /// At the next write that makes a file longer than this.
    Write(u64),
}

/// What the next run makes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    Undone,
    Finished,
}

/// One step's side: what is next, where it is stopped and how, whether the app is sick meanwhile.
struct Kill {
    step: &'static str,
    at: At,
    how: How,
    sick: bool,
    ends: Ends,
}

const fn kill(step: &'static str, at: At, how: How, ends: Ends) -> Kill {
    let sick = false;
    Kill {
        step,
        at,
        how,
        sick,
        ends,
    }
}

const fn sick(step: &'static str, at: At, how: How, ends: Ends) -> Kill {
    let sick = true;
    Kill {
        step,
        at,
        how,
        sick,
        ends,
    }
}

use Ends::{Finished, Undone};
use How::{Now, Write};

/// The app's file is shorter than this, the other longer.
const FIRST: u64 = 4 << 10;
/// Both files are shorter than this, the journal with all of them longer.
const BOTH: u64 = 12 << 10;

const MAKE: &str = "Action=CreateAccessKey";
const DELETE: &str = "Action=DeleteAccessKey";
const LIST: &str = "list-type=2";
const PUT: &str = "PUT /";
const GET: &str = "x-id=GetObject";
const TAKE: &str = "x-id=DeleteObject";

const KEYS: &[Kill] = &[
    kill("try the old key", At::Wire(&[PUT], Before), Now, Undone),
    kill("tried it half", At::Wire(&[PUT], After), Now, Undone),
    kill("tried it", At::Wire(&[PUT, TAKE], After), Now, Undone),
    kill("make the key", At::Wire(&[MAKE], Before), Now, Undone),
    kill("note the key", At::Wire(&[MAKE], After), Now, Undone),
    kill(
        "note the key, half written",
        At::Wire(&[MAKE], After),
        Write(100),
        Undone,
    ),
    kill("log in", At::Wire(&[MAKE, LIST], Before), Now, Undone),
    kill("put an object", At::Wire(&[MAKE, PUT], Before), Now, Undone),
    kill("read it", At::Wire(&[MAKE, PUT], After), Now, Undone),
    kill(
        "read it on",
        At::Wire(&[MAKE, PUT, GET], After),
        Now,
        Undone,
    ),
    kill(
        "delete it",
        At::Wire(&[MAKE, PUT, TAKE], Before),
        Now,
        Undone,
    ),
    kill(
        "switch the files",
        At::Wire(&[MAKE, PUT, TAKE], After),
        Now,
        Undone,
    ),
    kill(
        "switch the first file",
        At::Wire(&[MAKE, PUT, TAKE], After),
        Write(0),
        Undone,
    ),
    kill(
        "switch the second file",
        At::Wire(&[MAKE, PUT, TAKE], After),
        Write(FIRST),
        Undone,
    ),
    kill(
        "mark the switch",
        At::Wire(&[MAKE, PUT, TAKE], After),
        Write(BOTH),
        Undone,
    ),
    kill("restart", At::Restart("before 1"), Now, Finished),
    kill("restarted", At::Restart("after 1"), Now, Finished),
    kill("ask for health", At::Health(Before), Now, Finished),
    kill("hear of health", At::Health(After), Now, Finished),
    kill("mark the health", At::Health(After), Write(0), Finished),
    kill(
        "delete the old key",
        At::Wire(&[MAKE, DELETE], Before),
        Now,
        Finished,
    ),
    kill(
        "see it deleted",
        At::Wire(&[MAKE, DELETE], After),
        Now,
        Finished,
    ),
    kill(
        "see it refused",
        At::Wire(&[MAKE, DELETE, LIST], Before),
        Now,
        Finished,
    ),
    kill(
        "record it",
        At::Wire(&[MAKE, DELETE, LIST], After),
        Now,
        Finished,
    ),
    kill(
        "record it, half written",
        At::Wire(&[MAKE, DELETE, LIST], After),
        Write(0),
        Finished,
    ),
    // The app does not come up, and all is taken back; the next run meets it well again.
    sick("mark the undoing", At::Health(After), Write(0), Finished),
    sick(
        "restart with the old files",
        At::Restart("before 2"),
        Now,
        Undone,
    ),
    sick(
        "restarted with the old files",
        At::Restart("after 2"),
        Now,
        Undone,
    ),
    sick(
        "take the new key back",
        At::Wire(&[MAKE, DELETE], Before),
        Now,
        Undone,
    ),
    sick(
        "see it taken back",
        At::Wire(&[MAKE, DELETE], After),
        Now,
        Undone,
    ),
    sick(
        "record the undoing",
        At::Wire(&[MAKE, DELETE], After),
        Write(0),
        Undone,
    ),
];

const ALTER: &str = "ALTER ROLE";
/// A new login of the role.
const LOGIN: &str = "user\0rotate_steps";

const ROLE: &[Kill] = &[
    kill("set the password", At::Wire(&[ALTER], Before), Now, Undone),
    kill("see it set", At::Wire(&[ALTER], After), Now, Undone),
    kill("log in", At::Wire(&[ALTER, LOGIN], Before), Now, Undone),
    kill("logged in", At::Wire(&[ALTER, LOGIN], After), Now, Undone),
    kill(
        "switch the first file",
        At::Wire(&[ALTER, LOGIN], After),
        Write(0),
        Undone,
    ),
    kill(
        "switch the second file",
        At::Wire(&[ALTER, LOGIN], After),
        Write(FIRST),
        Undone,
    ),
    kill(
        "mark the switch",
        At::Wire(&[ALTER, LOGIN], After),
        Write(BOTH),
        Undone,
    ),
    kill("restart", At::Restart("before 1"), Now, Finished),
    kill("restarted", At::Restart("after 1"), Now, Finished),
    kill("ask for health", At::Health(Before), Now, Finished),
    kill("hear of health", At::Health(After), Now, Finished),
    kill("record it", At::Health(After), Write(0), Finished),
    sick("mark the undoing", At::Health(After), Write(100), Finished),
    sick(
        "set the old password",
        At::Wire(&[ALTER, ALTER], Before),
        Now,
        Undone,
    ),
    sick("see it set", At::Wire(&[ALTER, ALTER], After), Now, Undone),
    sick(
        "restart with the old files",
        At::Restart("before 2"),
        Now,
        Undone,
    ),
    sick(
        "restarted with the old files",
        At::Restart("after 2"),
        Now,
        Undone,
    ),
];

impl Kill {
    /// Runs a rotation that is killed here.
    fn strike(&self, rig: &Rig) -> Output {
        let (status, patience) = if self.sick {
            (503, "1")
        } else {
            (200, PATIENCE)
        };
        rig.health.answer("/health", status, "{}");
        rig.place.write("units/restarts", "");
        let wire = match self.at {
            At::Wire(words, moment) => {
                rig.wire.hold(words, moment);
                Some(&rig.wire)
            }
            At::Health(moment) => {
                rig.app.hold(&["GET /health"], moment);
                Some(&rig.app)
            }
            At::Restart(hook) => {
                rig.place.write("units/hook", hook);
                None
            }
        };
        let run = rig.place.spawn(
            "rg-envgen",
            [
                "rotate",
                rig.name(),
                "--env=production",
                "--yes",
                "--health-timeout",
                patience,
            ],
        );
        let Some(wire) = wire else {
            return run.wait();
        };
        wire.wait_held();
        match self.how {
            Now => {
                run.kill();
                let output = run.wait();
                wire.forget();
                output
            }
            Write(bytes) => {
                limit_files(&run, bytes);
                wire.pass();
                run.wait()
            }
        }
    }
}

/// From now on a write that makes a file longer than this kills the program (`SIGXFSZ`).
fn limit_files(run: &Running, bytes: u64) {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    let pid = Pid::from_raw(i32::try_from(run.pid()).expect("a pid")).expect("a pid");
    prlimit(Some(pid), Resource::Fsize, limit).expect("a limit of files");
}

#[track_caller]
fn every_step(rig: &Rig, kills: &[Kill]) {
    for one in kills {
        let step = one.step;
        let before = rig.files();
        let output = one.strike(rig);
        let code = if matches!(one.how, Now) { 137 } else { 153 };
        assert_eq!(output.code(), code, "{step}: {output:?}");
        assert!(rig.journal(), "{step}: no journal");
        let said = rig.list();
        assert!(said.out().contains("was cut off: "), "{step}: {said:?}");
        // An access key in the file works at every moment; for a password the journal has to do.
        if rig.name() == "S3_SECRET_KEY" {
            assert!(rig.logs_in(), "{step}: what is in the file does not log in");
        }
        rig.health.answer("/health", 200, "{}");
        let output = rig.rotate(&[]).ok();
        let wanted = match one.ends {
            Undone => "that was cut off is undone",
            Finished => "that was cut off is finished",
        };
        assert!(output.out().contains(wanted), "{step}: {output:?}");
        assert_eq!(rig.files() == before, one.ends == Undone, "{step}");
        rig.is_consistent();
    }
}

#[test]
fn a_key_rotation_killed_at_any_step_is_finished_or_undone() {
    let rig = Rig::keys("kills", "");
    every_step(&rig, KEYS);
    // Between the record and the journal's end nothing happens that could be held: as a kill there
    // leaves it, the journal lies there again.
    rig.wire.hold(&[MAKE, DELETE, LIST], After);
    let run = rig.place.spawn(
        "rg-envgen",
        ["rotate", rig.name(), "--env", "production", "--yes"],
    );
    rig.wire.wait_held();
    let journal = rig.place.read("state/envgen/rotation.json");
    rig.wire.pass();
    run.wait().ok();
    rig.is_consistent();
    let path = rig.place.write("state/envgen/rotation.json", journal);
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("mode");
    rig.rotate(&[]).ok();
    rig.is_consistent();
}

#[test]
fn a_password_rotation_killed_at_any_step_is_finished_or_undone() {
    every_step(&Rig::role("rotate_steps"), ROLE);
}
