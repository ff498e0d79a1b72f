//! A disk that becomes full at any byte of a run: exit 2, nothing left of the attempt, the good
//! backups as they were.

use rg_tests::{Chance, FullDisk, Postgres, Site, rounds, site};

/// Bytes of the disk's blocks.
const BLOCK: u64 = 4096;

fn site_on_a_small_disk(site: Site) -> (Site, FullDisk) {
    let disk = FullDisk::mount(&site, "small", 8);
    let root = disk.path().join("store");
    let stores = format!("[stores.local]\nurl = \"file://{}\"\n", root.display());
    site.write("uploads/a.bin", [7; 100_000]);
    site.configure_stores(
        &stores,
        "keep = { last = 1 }\n[environments.app.files.uploads]\npath = \"uploads\"\nkeep = { last = 1 }\n",
    );
    (site, disk)
}

#[test]
fn a_disk_that_is_full_at_any_byte_leaves_the_good_backups_and_nothing_else() {
    let site = site!("full_disk");
    Postgres::shared().psql(
        "full_disk",
        "CREATE TABLE noise AS SELECT gen_random_uuid() AS u FROM generate_series(1, 15000)",
    );
    let (site, disk) = site_on_a_small_disk(site);
    let first = site.rg_backup(&["run", "app", "--json"]).ok().json();
    let needed = first["backups"][0]["stored_bytes"]
        .as_u64()
        .expect("a size");
    let mut chance = Chance::new();
    let mut listed = site.all_whole();
    let mut full = 0;
    let mut room = vec![0, BLOCK, 2 * BLOCK, 3 * BLOCK];
    room.extend((0..rounds(12)).map(|_| chance.below(needed + 6 * BLOCK)));
    for free in room {
        disk.fill_but(free);
        let output = site.try_backup();
        // While the disk is full: the catalog can still be read.
        let now = site.list();
        if output.code() == 0 {
            assert_eq!(now.len(), 2, "{output:?}");
        } else {
            full += 1;
            let output = output.fails(2);
            let said = output.out();
            assert!(
                said.contains("No space left on device"),
                "{free}: {output:?}"
            );
            assert!(said.contains("hint: free some space"), "{free}: {output:?}");
            assert_eq!(now, listed, "{free}");
        }
        disk.free();
        listed = site.all_whole();
        let left = site.files(disk.path());
        let left = left
            .iter()
            .filter(|name| name.contains("tmp") || name.contains("unfinished"));
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{free}");
    }
    assert!(full >= 4, "the disk was full {full} times");
    site.backup();
}

#[test]
fn verify_tells_what_it_found_where_it_cannot_record_it() {
    let site = site!("full_disk_verify");
    let (site, disk) = site_on_a_small_disk(site);
    let id = site.backup();
    disk.fill_but(0);
    let output = site.rg_backup(&["verify", &id]).fails(2);
    assert!(
        output
            .out()
            .contains("every byte and the content are as recorded"),
        "{output:?}"
    );
    assert!(
        output.out().contains("the finding was not recorded: "),
        "{output:?}"
    );
    disk.free();
    site.rg_backup(&["verify", &id]).ok();
}
