//! Recorded tables of real machines; the machine's own file systems.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::check::State;

const GIB: u64 = 1 << 30;

/// A VPS with snaps, docker and a container's bind mounts.
const MOUNTINFO: &str = "\
22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard,errors=remount-ro
28 27 8:15 / /boot/efi rw shared:9 - vfat /dev/sda15 rw
40 27 7:0 / /snap/core20/1 ro,nodev shared:20 - squashfs /dev/loop0 ro
41 27 8:1 /var/lib/docker/x /mnt/bind rw shared:1 - ext4 /dev/sda1 rw
42 27 0:44 / /var/lib/docker/overlay2/m/merged rw - overlay overlay rw,lowerdir=/l
43 27 8:33 / /mnt/my\\040disk ro - xfs /dev/sdc1 ro
44 27 0:50 / /nfs rw - nfs4 server:/x rw
45 27 0:51 / /tmp rw - tmpfs tmpfs rw
";

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + hour * 3600).expect("a time")
}

fn fs(used: u64, free: u64) -> FileSystem {
    FileSystem {
        mount: "/srv".into(),
        device: "/dev/vdb1".into(),
        kind: "ext4".into(),
        read_only: false,
        meant_read_only: false,
        bytes: used + free,
        used,
        free,
        inodes: 1000,
        inodes_free: 900,
    }
}

fn said(fs: &FileSystem) -> (State, String) {
    let verdict = judge(fs, &Samples::default());
    (verdict.state, verdict.found)
}

#[test]
fn only_real_file_systems_are_looked_at_each_once() {
    let found = mounts::real(MOUNTINFO);
    let points: Vec<&str> = found.iter().map(|m| m.point.to_str().unwrap()).collect();
    assert_eq!(points, ["/", "/boot/efi", "/mnt/my disk"]);
    assert!(found[2].read_only && !found[0].read_only);
    let inside = "1 0 0:44 / / rw - overlay overlay rw\n2 1 0:5 / /proc rw - proc proc rw\n";
    assert_eq!(mounts::real(inside)[0].kind, "overlay");
    let holder = mounts::holding(MOUNTINFO, Path::new("/mnt/my disk/a/b")).unwrap();
    assert_eq!(holder.device, "/dev/sdc1");
    assert!(mounts::wanted_read_only(
        "/dev/sdc1 /mnt/my\\040disk xfs ro,nofail 0 2\n",
        Path::new("/mnt/my disk")
    ));
    assert!(!mounts::wanted_read_only(
        "#/dev/sdc1 /mnt xfs ro 0 2\n/dev/x /mnt xfs rw 0 0\n",
        Path::new("/mnt")
    ));
}

#[test]
fn what_runs_full_is_said_in_exact_words() {
    use State::{Fail, Pass, Warn};
    assert_eq!(
        said(&fs(79 * GIB, 21 * GIB)),
        (Pass, "/srv is 79 % full, 21.0 GiB free".into())
    );
    assert_eq!(
        said(&fs(80 * GIB, 20 * GIB)),
        (Warn, "/srv is 80 % full, 20.0 GiB free".into())
    );
    assert_eq!(
        said(&fs(90 * GIB, 10 * GIB)),
        (Fail, "/srv is 90 % full, 10.0 GiB free".into())
    );
    let many = FileSystem {
        inodes_free: 50,
        ..fs(GIB, GIB)
    };
    assert_eq!(
        said(&many),
        (Fail, "/srv has 950 files: 95 % of what it can hold".into())
    );
    let without_limit = FileSystem {
        inodes: 0,
        inodes_free: 0,
        ..fs(GIB, 9 * GIB)
    };
    assert_eq!(said(&without_limit).0, Pass);
    let read_only = FileSystem {
        read_only: true,
        ..fs(GIB, 9 * GIB)
    };
    assert_eq!(
        said(&read_only),
        (
            Fail,
            "/srv can only be read: after an error the kernel lets nobody write".into()
        )
    );
    let meant = FileSystem {
        meant_read_only: true,
        ..read_only
    };
    assert_eq!(said(&meant).0, Pass);
}

#[test]
fn the_pace_of_a_day_tells_when_it_is_full() {
    let mut samples = Samples::default();
    for minutes in 0..(12 * 60) {
        let now = at(0) + SignedDuration::from_mins(minutes);
        samples = samples.after(now, 50 * GIB + GIB * minutes as u64 / 60);
    }
    let hours = samples.hours_to_full(20 * GIB).unwrap();
    assert!((hours - 20.0).abs() < 0.1, "{hours}");
    let verdict = judge(&fs(50 * GIB, 20 * GIB), &samples);
    assert_eq!(verdict.state, State::Warn);
    assert!(
        verdict.found.starts_with("/srv will be full in "),
        "{}",
        verdict.found
    );
    let verdict = judge(&fs(88 * GIB, 2 * GIB + GIB / 2 + 10 * GIB), &samples);
    assert_eq!(verdict.state, State::Warn);
    let verdict = judge(&fs(17 * GIB, 3 * GIB), &samples);
    assert_eq!(verdict.state, State::Fail);
    // An hour is no pace, and what shrinks does not fill.
    let hour = Samples::default().after(at(0), GIB).after(at(1), 40 * GIB);
    assert_eq!(hour.hours_to_full(GIB), None);
    let shrinking = Samples::default().after(at(0), 2 * GIB).after(at(8), GIB);
    assert_eq!(shrinking.hours_to_full(GIB), None);
    // The clock was put back: what it knew is of no use.
    assert_eq!(samples.after(at(-24), GIB).hours_to_full(GIB), None);
    let bytes = serde_json::to_vec(&samples).unwrap().len();
    assert!(bytes < 8 << 10, "{bytes}");
}

#[test]
fn this_machines_file_systems_answer() {
    let found = all().unwrap();
    assert!(!found.is_empty());
    let here = of(&std::env::temp_dir()).unwrap();
    assert!(here.bytes > 0 && here.bytes >= here.used, "{here:?}");
    let failure = of(Path::new("/rg-no-such-place")).unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("cannot look at /rg-no-such-place"),
        "{failure}"
    );
}

#[test]
fn a_call_that_never_comes_back_does_not_keep_us() {
    let begun = std::time::Instant::now();
    let failure = within("/lost".into(), |_| std::thread::park()).unwrap_err();
    assert_eq!(failure.to_string(), "/lost has not answered within 5 s");
    assert!(begun.elapsed() < ANSWER_LIMIT * 4);
}
