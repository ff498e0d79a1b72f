//! Several stores: one that is down, one that is damaged, one that is lost.

use std::fs;
use std::time::Duration;

use rg_tests::{Chance, Damage, Signal, Site, eventually, rounds, site};

const STORES: &str = "[stores.local]\nurl = \"file://{root}/store\"\n\
                      [stores.offsite]\nurl = \"file://{root}/offsite\"\n";

fn two_stores(site: &Site) {
    site.write("uploads/a.txt", "a");
    site.configure_stores(
        STORES,
        "[environments.app.files.uploads]\npath = \"uploads\"\n",
    );
}

/// Files of a store without its locks, its mark and proofs.
fn content(site: &Site, store: &str) -> Vec<String> {
    let all = site.files(store).into_iter();
    let apart = [".rg-lock", ".rg-store", ".proof.json"];
    all.filter(|name| !apart.iter().any(|end| name.ends_with(end)))
        .collect()
}

#[test]
fn every_store_gets_the_same_bytes() {
    let site = site!("copies");
    two_stores(&site);
    site.rg_backup(&["run", "app"]).ok();
    assert_eq!(content(&site, "store"), content(&site, "offsite"));
    for name in content(&site, "store") {
        let read = |store: &str| fs::read(site.path(store).join(&name)).expect("a stored file");
        assert_eq!(read("store"), read("offsite"), "{name}");
    }
    let output = site.rg_backup(&["sync"]).ok();
    assert_eq!(output.out(), "every store has everything\n");
}

#[test]
fn a_second_store_that_is_down_is_a_warning_and_sync_catches_up() {
    let site = site!("copies_down");
    two_stores(&site);
    // A file where its folder should be: root cannot be kept out by permissions.
    site.write("offsite", "not a folder");
    let output = site.rg_backup(&["run", "app"]).fails(1);
    let said = output.out();
    assert!(said.contains("no copy in store `offsite`: "), "{output:?}");
    assert!(said.contains("`rg-backup sync` catches up"), "{output:?}");
    assert!(said.contains("✓  app/database@"), "{output:?}");
    let output = site.rg_backup(&["sync"]).fails(2);
    assert!(output.out().contains("offsite"), "{output:?}");
    // A list that is not complete says so.
    let output = site.rg_backup(&["list"]).fails(2);
    assert!(output.out().contains("app/database@"), "{output:?}");
    fs::remove_file(site.path("offsite")).expect("the disk comes back");
    let output = site.rg_backup(&["sync", "--dry-run"]).ok();
    assert!(output.out().contains(" would be copied "), "{output:?}");
    assert!(!site.path("offsite").exists(), "a dry run makes nothing");
    let output = site.rg_backup(&["sync"]).ok();
    assert!(
        output.out().contains(" copied from local to offsite"),
        "{output:?}"
    );
    assert_eq!(content(&site, "store"), content(&site, "offsite"));
    site.all_whole();
}

#[test]
fn a_first_store_that_is_down_is_a_failure() {
    let site = site!("copies_first_down");
    two_stores(&site);
    fs::remove_dir(site.path("store")).expect("the empty store");
    site.write("store", "not a folder");
    let output = site.rg_backup(&["run", "app"]).fails(2);
    assert!(
        output
            .out()
            .contains("store `local`: cannot make the folder "),
        "{output:?}"
    );
    assert_eq!(content(&site, "offsite"), [""; 0]);
}

#[test]
fn a_store_whose_disk_is_not_mounted_is_neither_written_nor_taken_for_an_empty_one() {
    let site = site!("copies_unmounted");
    two_stores(&site);
    site.rg_backup(&["run", "app"]).ok();
    let unmount = |store: &str| {
        fs::rename(site.path(store), site.path("unmounted")).expect("a rename");
        fs::create_dir(site.path(store)).expect("the mount point");
    };
    let mount = |store: &str| {
        fs::remove_dir(site.path(store)).expect("nothing was written to the mount point");
        fs::rename(site.path("unmounted"), site.path(store)).expect("a rename");
    };
    let words = [
        "is not the store that was written before: it has no mark .rg-store",
        "is its disk mounted?",
        "on purpose: rm ",
    ];
    unmount("store");
    let commands: [&[&str]; 5] = [
        &["run", "app"],
        &["list"],
        &["sync"],
        &["sync", "--dry-run"],
        &["prune"],
    ];
    for command in commands {
        let output = site.rg_backup(command).fails(2);
        let said = output.out();
        assert!(words.iter().all(|word| said.contains(word)), "{output:?}");
    }
    mount("store");
    // Not even the mount point is there.
    fs::rename(site.path("store"), site.path("unmounted")).expect("a rename");
    site.rg_backup(&["run", "app"]).fails(2);
    assert!(!site.path("store").exists());
    fs::create_dir(site.path("store")).expect("the mount point");
    mount("store");
    // The second one: the backup is made, its copy is not.
    unmount("offsite");
    let output = site.rg_backup(&["run", "app"]).fails(1);
    assert!(output.out().contains(words[0]), "{output:?}");
    mount("offsite");
    site.rg_backup(&["sync"]).ok();
    assert_eq!(content(&site, "store"), content(&site, "offsite"));
    // Another disk at its place.
    let (mark, other) = (site.path("store/.rg-store"), site.path("offsite/.rg-store"));
    fs::copy(other, &mark).expect("another mark");
    let output = site.rg_backup(&["run", "app"]).fails(2);
    let said = output.out();
    assert!(said.contains("is another store than before"), "{output:?}");
    // The operator says that it is meant.
    fs::remove_file(site.path("state/stores/local.json")).expect("what is remembered");
    site.rg_backup(&["run", "app"]).ok();
    site.all_whole();
}

#[test]
fn a_damaged_copy_is_replaced_by_a_sound_one_from_another_store() {
    let site = site!("copies_damaged");
    two_stores(&site);
    site.rg_backup(&["run", "app"]).ok();
    let names = content(&site, "store");
    let whole = |store: &str| {
        let bytes = names
            .iter()
            .map(|name| fs::read(site.path(store).join(name)).expect("a file"));
        bytes.collect::<Vec<_>>()
    };
    let before = whole("store");
    for (store, kind) in [
        ("store", ".dump.zst"),
        ("offsite", ".manifest.json"),
        ("store", ".files.jsonl.zst"),
        ("offsite", ".tar.zst"),
    ] {
        let name = names
            .iter()
            .find(|name| name.ends_with(kind))
            .expect("a file of that kind");
        Damage::to(site.path(store).join(name)).flip_bit(20, 1);
        site.rg_backup(&["verify", "--all"]).fails(1);
        let output = site.rg_backup(&["sync"]).ok();
        assert_eq!(
            output.out().matches(" copied from ").count(),
            1,
            "{output:?}"
        );
        assert_eq!(whole("store"), before, "{store} {kind}");
        assert_eq!(whole("offsite"), before, "{store} {kind}");
        site.all_whole();
    }
}

#[test]
fn a_copy_of_something_damaged_is_never_made() {
    let site = site!("copies_no_damage");
    two_stores(&site);
    site.rg_backup(&["run", "app/database"]).ok();
    site.lose_store("offsite", "offsite");
    let data = content(&site, "store")
        .into_iter()
        .find(|name| name.ends_with(".zst"));
    // Nobody has looked: only the digest on the way tells.
    Damage::to(site.path("store").join(data.expect("the dump"))).flip_bit(900, 0);
    let output = site.rg_backup(&["sync"]).fails(2);
    assert!(
        output.out().contains("is damaged: its SHA-256 is "),
        "{output:?}"
    );
    assert_eq!(content(&site, "offsite"), [""; 0]);
}

#[test]
fn a_lost_first_store_comes_back_from_the_other_with_its_pins() {
    let site = site!("copies_lost");
    two_stores(&site);
    let id = site.backup();
    site.rg_backup(&["pin", &id]).ok();
    site.rg_backup(&["run", "app"]).ok();
    let before = content(&site, "store");
    site.lose_store("local", "store");
    site.rg_backup(&["sync"]).ok();
    assert_eq!(content(&site, "store"), before);
    site.all_whole();
}

#[test]
fn what_is_damaged_everywhere_is_said_and_nothing_is_deleted() {
    let site = site!("copies_all_damaged");
    two_stores(&site);
    let id = site.backup();
    for store in ["store", "offsite"] {
        let names = content(&site, store).into_iter();
        for name in names.filter(|name| name.ends_with(".dump.zst")) {
            Damage::to(site.path(store).join(name)).flip_bit(700, 2);
        }
    }
    site.rg_backup(&["verify", "--all"]).fails(1);
    let before = (content(&site, "store"), content(&site, "offsite"));
    let output = site.rg_backup(&["sync"]).fails(1);
    let words = format!("{id} is damaged, and no store has a sound copy");
    assert!(output.out().contains(&words), "{output:?}");
    assert_eq!((content(&site, "store"), content(&site, "offsite")), before);
    let listed = site.rg_backup(&["list"]).ok().out();
    assert!(listed.contains("damaged"), "{listed}");
}

/// Kills the tool at random moments while it copies; afterwards all is as if it had not begun, or
/// had ended.
#[test]
fn a_sync_killed_at_any_moment_leaves_nothing_that_counts() {
    let site = site!("copies_killed");
    two_stores(&site);
    for _ in 0..3 {
        site.rg_backup(&["run", "app"]).ok();
    }
    let mut chance = Chance::new();
    let whole = site.rg_backup(&["sync"]).ok().wall.as_micros() as u64;
    for _ in 0..rounds(12) {
        site.lose_store("offsite", "offsite");
        let delay = Duration::from_micros(chance.below(whole * 3));
        let running = site.spawn_backup(&["sync"]);
        std::thread::sleep(delay);
        running.kill();
        running.wait();
        if site.path("offsite").exists() {
            site.all_whole();
        }
        site.rg_backup(&["sync"]).ok();
        assert_eq!(content(&site, "store"), content(&site, "offsite"));
        site.all_whole();
    }
}

#[test]
fn a_signal_while_a_copy_is_made_leaves_the_backup_and_no_half_copy() {
    let site = site!("copies_signal");
    two_stores(&site);
    // Does not compress, and takes a while.
    let mut noise = vec![0; 96 << 20];
    Chance::seeded(1).fill(&mut noise);
    site.write("uploads/noise", &noise);
    let running = site.spawn_backup(&["run", "app/files/uploads"]);
    let copying = || {
        let names = site.files("offsite").into_iter();
        names
            .filter(|name| name.contains(".rg-tmp-"))
            .any(|name| name.ends_with(".tar.zst"))
    };
    let begun = eventually(Duration::from_secs(100), copying);
    assert!(begun, "{}", running.stderr_so_far());
    running.signal(Signal::TERM);
    let output = running.wait().fails(2);
    assert!(output.out().contains("stopped by a signal"), "{output:?}");
    assert_eq!(content(&site, "offsite"), [""; 0]);
    assert_eq!(site.all_whole().len(), 1);
    site.rg_backup(&["sync"]).ok();
    assert_eq!(content(&site, "store"), content(&site, "offsite"));
}

#[test]
fn one_folder_under_two_names_is_refused_or_left_alone() {
    let site = site!("copies_same");
    let twice = "[stores.local]\nurl = \"file://{root}/store\"\n\
                 [stores.offsite]\nurl = \"file://{root}/store\"\n";
    site.configure_stores(twice, "");
    let output = site.try_backup().fails(2);
    let words = "the stores `local` and `offsite` are the same place";
    assert!(output.err().contains(words), "{output:?}");
    site.configure_stores(STORES, "stores = [\"local\", \"local\"]\n");
    let output = site.try_backup().fails(2);
    assert!(
        output.err().contains("stores names `local` twice"),
        "{output:?}"
    );
    // By a link the configuration cannot tell; the backup is not touched again.
    std::os::unix::fs::symlink(site.path("store"), site.path("offsite")).expect("a link");
    site.configure_stores(STORES, "");
    let before = site.backup();
    let file = site.manifest()["file"].as_str().expect("a name").to_owned();
    let changed = || {
        let meta = fs::metadata(site.path("store/app/database").join(&file)).expect("the dump");
        std::os::unix::fs::MetadataExt::ino(&meta)
    };
    let inode = changed();
    site.rg_backup(&["sync"]).ok();
    assert_eq!(changed(), inode);
    assert_eq!(site.all_whole(), [before]);
}
