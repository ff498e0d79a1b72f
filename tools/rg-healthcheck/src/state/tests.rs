//! Written whole, held by one, and what damage says.

use std::os::unix::fs::MetadataExt;

use super::*;

/// A directory that goes with the test.
pub(crate) struct Place(pub PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("rg-health-{}-{name}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn now() -> Timestamp {
    "2026-11-22T03:00:00Z".parse().unwrap()
}

#[test]
fn a_second_run_is_told_since_when_the_first_is_under_way() {
    let place = Place::new("two_runs");
    let first = hold(&place.0).unwrap();
    note(&place.0, now());
    let failure = hold(&place.0).unwrap_err().to_string();
    let pid = std::process::id();
    assert_eq!(
        failure,
        format!("another run is under way since 2026-11-22T03:00:00Z (process {pid})")
    );
    drop(first);
    hold(&place.0).unwrap();
}

#[test]
fn what_is_written_is_read_and_takes_no_new_room() {
    let place = Place::new("written");
    let hold = hold(&place.0).unwrap();
    let mut memory = load(&place.0, now()).unwrap().memory;
    let file = folder(&place.0).join("state.json");
    let spare = folder(&place.0).join("state.json.spare");
    let mut inodes = Vec::new();
    for n in 0..4 {
        memory.next = n;
        save(&place.0, &memory, &hold).unwrap();
        let loaded = load(&place.0, now()).unwrap();
        assert_eq!(loaded.memory, memory);
        assert_eq!(loaded.damaged, None);
        inodes.push(fs::metadata(&file).unwrap().ino());
        assert!(fs::metadata(&spare).unwrap().len() >= ROOM as u64);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o077, 0);
    }
    // Two files that change places.
    assert_eq!(inodes[1], inodes[3]);
    assert_ne!(inodes[2], inodes[3]);
    // A run that died while it wrote has touched the spare alone.
    fs::write(&spare, "half").unwrap();
    assert_eq!(load(&place.0, now()).unwrap().memory, memory);
    save(&place.0, &memory, &hold).unwrap();
}

#[test]
fn a_damaged_state_is_kept_and_said_until_it_is_replaced() {
    let place = Place::new("damaged");
    let hold = hold(&place.0).unwrap();
    let file = folder(&place.0).join("state.json");
    for damage in [
        "{\"version\":1,",
        "\0\0\0\0",
        "{\"version\":7,\"series\":\"\",\"next\":1}",
    ] {
        fs::write(&file, damage).unwrap();
        for _ in 0..2 {
            let loaded = load(&place.0, now()).unwrap();
            let said = loaded.damaged.unwrap();
            let beside = format!("{}.damaged-20261122_030000", file.display());
            assert!(
                said.ends_with(&format!("; it is kept as {beside}")),
                "{said}"
            );
            assert_eq!(fs::read_to_string(&beside).unwrap(), damage);
            assert!(loaded.memory.checks.is_empty());
        }
        let memory = load(&place.0, now()).unwrap().memory;
        save(&place.0, &memory, &hold).unwrap();
        assert_eq!(load(&place.0, now()).unwrap().damaged, None);
        fs::remove_file(format!("{}.damaged-20261122_030000", file.display())).unwrap();
    }
}
