//! The checks of disks and buckets against the real thing, broken and mended: a file system that is
//! full, or can only be read; a bucket that is gone, a key that may not write, a service that hangs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rg_common::check::State;
use rg_common::probe::{bucket, disk};
use rg_common::s3::Client;
use rg_tests::{FullDisk, Sandbox, SeaweedFs, s3_client, sandbox};

fn looked_at(path: &Path) -> (State, String) {
    let found = disk::of(path).expect("it can be asked");
    let verdict = disk::judge(&found, &disk::Samples::default());
    (verdict.state, verdict.found)
}

/// Remounts, in the mount's own namespace where it has one (`/proc/PID/root/…`).
fn remount(place: &Sandbox, path: &Path, how: &str) {
    let shown = path.to_str().expect("text");
    let inside = shown
        .strip_prefix("/proc/")
        .and_then(|rest| rest.split_once("/root"));
    let option = format!("remount,{how}");
    match inside {
        Some((pid, path)) => {
            let words = [
                "--target", pid, "--user", "--mount", "mount", "-o", &option, path,
            ];
            place.program("nsenter", words)
        }
        None => place.program("mount", ["-o", &option, shown]),
    }
    .run()
    .ok();
}

#[test]
fn a_file_system_that_fills_or_turns_read_only_fails_until_it_is_mended() {
    let place = sandbox!();
    let full = FullDisk::mount(&place, "small", 20);
    assert_eq!(looked_at(full.path()).0, State::Pass);
    let file = full.path().join("file");
    fs::write(&file, vec![1u8; 17 << 20]).expect("room for that");
    let (state, found) = looked_at(full.path());
    assert_eq!(state, State::Warn, "{found}");
    fs::write(&file, vec![1u8; 19 << 20]).expect("room for that");
    let (state, found) = looked_at(full.path());
    assert_eq!(state, State::Fail);
    assert!(found.contains(" is 95 % full, 1.0 MiB free"), "{found}");
    fs::remove_file(&file).expect("removed");
    assert_eq!(looked_at(full.path()).0, State::Pass);

    remount(&place, full.path(), "ro");
    let (state, found) = looked_at(full.path());
    assert_eq!(state, State::Fail);
    assert!(found.contains(" can only be read"), "{found}");
    remount(&place, full.path(), "rw");
    assert_eq!(looked_at(full.path()).0, State::Pass);
}

fn tried(client: &Client, name: &str) -> (State, String) {
    let tried = bucket::collect(client, name).expect("it can be tried");
    let verdict = bucket::judge(name, &tried);
    (verdict.state, verdict.found)
}

#[test]
fn a_bucket_is_tried_with_the_apps_own_key_and_nothing_is_left_in_it() {
    let server = SeaweedFs::shared();
    let client = server.client(&server.admin);
    let name = server.bucket();
    let (state, found) = tried(&client, &name);
    assert_eq!(state, State::Pass, "{found}");
    assert_eq!(server.keys(&name), [""; 0]);

    let reader = server.client(server.reader.as_ref().expect("a reader"));
    let (state, found) = tried(&reader, &name);
    assert_eq!(state, State::Fail);
    assert!(
        found.starts_with(&format!("cannot write an object into the bucket `{name}`")),
        "{found}"
    );

    let gone = client.sdk().delete_bucket().bucket(&name).send();
    client.call(gone).expect("deleted");
    let (state, found) = tried(&client, &name);
    assert_eq!(state, State::Fail);
    assert!(found.contains("there is no such bucket"), "{found}");
    let made = client.sdk().create_bucket().bucket(&name).send();
    client.call(made).expect("made");
    assert_eq!(tried(&client, &name).0, State::Pass);
}

#[test]
fn a_service_that_never_answers_fails_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its address").port();
    let key = &SeaweedFs::shared().admin;
    let client = s3_client(&format!("http://127.0.0.1:{port}"), key);
    let begun = Instant::now();
    let (state, found) = tried(&client, "bucket");
    assert_eq!(state, State::Fail, "{found}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
}
