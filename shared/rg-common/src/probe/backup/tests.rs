//! Backups in real folders: made, late, shrunk, damaged, not copied, never restored.

use std::path::PathBuf;

use super::*;
use crate::catalog::manifest::{FORMAT, GlobalsContent};
use crate::catalog::{Extent, Finding, write_proof};
use crate::store::{Folder, Key};

const DATASET: &str = "production/database";

struct Place {
    root: PathBuf,
    stores: Vec<(String, Folder)>,
}

impl Place {
    fn new(name: &str, stores: &[&str]) -> Place {
        let root = std::env::temp_dir().join(format!("rg-backups-{}-{name}", std::process::id()));
        let open = |store: &&str| {
            let path = root.join(store);
            std::fs::create_dir_all(&path).expect("a folder");
            ((*store).to_owned(), Folder::new(store, &path))
        };
        let stores = stores.iter().map(open).collect();
        Place { root, stores }
    }

    /// A backup of that many bytes, by its stamp.
    fn backup(&self, store: &str, stamp: &str, bytes: usize) -> BackupId {
        let (_, folder) = self
            .stores
            .iter()
            .find(|(name, _)| name == store)
            .expect("a store");
        let id: BackupId = format!("{DATASET}@{stamp}").parse().expect("an id");
        let extent = Extent {
            bytes: bytes as u64,
            sha256: String::new(),
        };
        let file = format!("{}.dump", id.stem());
        folder
            .put(
                &Key::new(format!("{DATASET}/{file}")).expect("a key"),
                &mut vec![7u8; bytes].as_slice(),
            )
            .expect("put");
        let manifest = Manifest {
            format: FORMAT,
            host: "vps".into(),
            started: id.stamp.time(),
            finished: id.stamp.time() + SignedDuration::from_secs(60),
            tool: "test".into(),
            file,
            plain: extent.clone(),
            stored: extent,
            encrypted_to: Vec::new(),
            restore_with: "cat".into(),
            adopted_from: None,
            content: Content::Globals(GlobalsContent {
                server_version: "15".into(),
                roles: Vec::new(),
                passwords: true,
            }),
            notes: Vec::new(),
            id: id.clone(),
        };
        catalog::record(folder, &manifest).expect("recorded");
        id
    }

    fn drilled(&self, id: &BackupId, at: &str, good: bool) {
        let finding = Finding {
            at: time(at),
            good,
            seconds: 1,
            said: "2 rows differ".into(),
        };
        write_proof(&self.stores[0].1, id, |proof| proof.drilled = Some(finding)).expect("written");
    }

    fn backups(&self) -> Backups {
        let dataset: DatasetName = DATASET.parse().expect("a name");
        let read = |(name, folder): &(String, Folder)| {
            (
                name.clone(),
                catalog::newest(folder, &dataset, MEDIAN_OF + 1),
            )
        };
        Backups {
            stores: self.stores.iter().map(read).collect(),
            schedule: Some(Schedule::parse("0 2 * * *").expect("a schedule")),
            dataset,
        }
    }

    fn said(&self, now: &str) -> (State, String) {
        let verdict = judge(&self.backups(), time(now), &TimeZone::UTC).expect("a verdict");
        (verdict.state, verdict.found)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.root).expect("removed");
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect(text)
}

#[test]
fn a_backup_that_was_not_made_when_it_was_due_is_said() {
    let place = Place::new("due", &["local"]);
    assert_eq!(
        place.said("2026-01-23T12:00:00Z"),
        (
            State::Fail,
            "there is no backup of production/database".into()
        )
    );
    place.backup("local", "20260123_020000", 1000);
    assert_eq!(
        place.said("2026-01-23T12:00:00Z"),
        (
            State::Pass,
            "production/database@20260123_020000 is 10 h old, 1000 B, in local".into()
        )
    );
    // The next is due, and may still be under way.
    assert_eq!(place.said("2026-01-24T02:59:00Z").0, State::Pass);
    assert_eq!(
        place.said("2026-01-24T03:01:00Z"),
        (State::Fail, "the newest backup of production/database is 1 d 1 h old; one was due at 2026-01-24 02:00 UTC".into())
    );
    place.backup("local", "20260124_030200", 1000);
    assert_eq!(place.said("2026-01-24T03:03:00Z").0, State::Pass);
    // The clock was put back by a day.
    assert_eq!(
        place.said("2026-01-23T03:03:00Z"),
        (
            State::Warn,
            "production/database@20260124_030200 lies in the future: the clock is wrong, or was"
                .into()
        )
    );
}

#[test]
fn a_backup_of_another_size_than_usual_is_said() {
    let place = Place::new("size", &["local"]);
    for day in 10..20 {
        place.backup("local", &format!("202601{day}_020000"), 100_000 + day);
    }
    assert_eq!(place.said("2026-01-19T12:00:00Z").0, State::Pass);
    place.backup("local", "20260120_020000", 20_000);
    assert_eq!(
        place.said("2026-01-20T12:00:00Z"),
        (
            State::Warn,
            "the newest backup of production/database holds 19.5 KiB, 20 % of the usual 97.7 KiB"
                .into()
        )
    );
}

#[test]
fn a_copy_that_is_missing_or_damaged_is_said_until_it_is_mended() {
    let place = Place::new("copies", &["local", "offsite"]);
    for day in ["20", "21", "22", "23"] {
        place.backup("local", &format!("202601{day}_020000"), 1000);
    }
    let now = "2026-01-23T12:00:00Z";
    assert_eq!(
        place.said(now),
        (
            State::Fail,
            "store `offsite` has no backup of production/database".into()
        )
    );
    place.backup("offsite", "20260120_020000", 1000);
    assert_eq!(
        place.said(now),
        (
            State::Fail,
            "store `offsite` lacks production/database@20260123_020000; its newest is 3 d 10 h old"
                .into()
        )
    );
    place.backup("offsite", "20260122_020000", 1000);
    assert_eq!(place.said(now).0, State::Warn);
    place.backup("offsite", "20260123_020000", 1000);
    assert_eq!(
        place.said(now),
        (
            State::Pass,
            "production/database@20260123_020000 is 10 h old, 1000 B, in local and offsite".into()
        )
    );
    let file = place
        .root
        .join("offsite")
        .join(DATASET)
        .join("production_20260123_020000.dump");
    std::fs::write(&file, "cut").expect("written");
    assert_eq!(
        place.said(now),
        (State::Fail, "production/database@20260123_020000 in store `offsite` is damaged: production_20260123_020000.dump has 3 bytes, not 1000".into())
    );
    std::fs::remove_file(&file).expect("removed");
    assert!(
        place
            .said(now)
            .1
            .ends_with("production_20260123_020000.dump is missing")
    );
    std::fs::write(&file, vec![7u8; 1000]).expect("written");
    assert_eq!(place.said(now).0, State::Pass);
}

#[test]
fn backups_that_nobody_restored_are_said() {
    let place = Place::new("drill", &["local"]);
    let first = place.backup("local", "20251201_020000", 1000);
    for day in 10..24 {
        place.backup("local", &format!("202601{day}_020000"), 1000);
    }
    let now = "2026-01-23T12:00:00Z";
    assert_eq!(
        place.said(now),
        (
            State::Warn,
            "no backup of production/database was ever restored by a drill".into()
        )
    );
    place.drilled(&first, "2025-12-02T12:00:00Z", true);
    assert_eq!(
        place.said(now),
        (
            State::Warn,
            "the last drill of production/database was 52 d ago".into()
        )
    );
    let newer: BackupId = format!("{DATASET}@20260112_020000").parse().expect("an id");
    place.drilled(&newer, "2026-01-12T12:00:00Z", false);
    assert_eq!(
        place.said(now),
        (
            State::Fail,
            "the last drill could not restore production/database@20260112_020000: 2 rows differ"
                .into()
        )
    );
    let newest: BackupId = format!("{DATASET}@20260123_020000").parse().expect("an id");
    place.drilled(&newest, "2026-01-23T04:00:00Z", true);
    assert_eq!(place.said(now).0, State::Pass);
}

#[test]
fn a_store_that_cannot_be_read_leaves_it_unknown_unless_it_is_bad_anyway() {
    let place = Place::new("unread", &["local"]);
    place.backup("local", "20260123_020000", 1000);
    let gone = || Failure::new("its disk is not mounted").hint("mount it");
    let mut backups = place.backups();
    backups.stores.push(("offsite".into(), Err(gone())));
    let failure = judge(&backups, time("2026-01-23T12:00:00Z"), &TimeZone::UTC).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "cannot tell whether production/database is backed up: its disk is not mounted"
    );
    assert_eq!(failure.hints(), ["mount it"]);
    let verdict = judge(&backups, time("2026-01-25T12:00:00Z"), &TimeZone::UTC).unwrap();
    assert_eq!(verdict.state, State::Fail);
    assert_eq!(verdict.evidence, ["its disk is not mounted"]);
    backups.stores.retain(|(name, _)| name != "local");
    assert!(judge(&backups, time("2026-01-25T12:00:00Z"), &TimeZone::UTC).is_err());
}
