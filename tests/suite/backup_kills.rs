//! `kill -9` at any moment leaves nothing that counts: only whole backups are listed, and the next
//! run cleans up by itself.

use std::time::Duration;

use rg_tests::{Chance, Postgres, Site, eventually, kills, programs_for, site};

/// After so many kills a run is let through to its end.
const KILLS_IN_A_ROW: u64 = 6;

fn leftovers(site: &Site) -> Vec<String> {
    let all = ["store", "second"].map(|store| site.files(store)).concat();
    let left = |name: &String| name.contains(".rg-tmp-") || name.ends_with(".unfinished");
    all.into_iter().filter(left).collect()
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing_that_counts() {
    let site = site!("killed");
    Postgres::shared().psql(
        "killed",
        "CREATE TABLE noise AS SELECT i, gen_random_uuid() AS u FROM generate_series(1, 30000) i",
    );
    let stores = "[stores.local]\nurl = \"file://{root}/store\"\n\
                  [stores.second]\nurl = \"file://{root}/second\"\n";
    site.write("uploads/a.txt", "a");
    site.configure_stores(
        stores,
        "keep = { last = 2 }\n[environments.app.files.uploads]\npath = \"uploads\"\nkeep = { last = 1 }\n",
    );
    let run = ["run", "app"];
    let whole = site.rg_backup(&run).ok().wall;
    let mut chance = Chance::new();
    let (mut killed, mut listed) = (0, site.all_whole());
    for kill in 1..=kills() {
        let delay = Duration::from_micros(chance.below(whole.as_micros() as u64 * 11 / 10));
        let running = site.spawn_backup(&run);
        std::thread::sleep(delay);
        running.kill();
        killed += u32::from(running.wait().code() == 137);
        let now = site.list();
        let newest = |ids: &[String]| ids.iter().rfind(|id| id.contains("/database")).cloned();
        assert!(newest(&now) >= newest(&listed), "{now:?} after {listed:?}");
        listed = site.all_whole();
        if kill % KILLS_IN_A_ROW == 0 {
            site.rg_backup(&run).ok();
            site.rg_backup(&["sync"]).ok();
            assert_eq!(leftovers(&site), [""; 0], "after {delay:?}");
            listed = site.all_whole();
        }
    }
    assert!(killed > 0, "some were killed before their end");
    site.rg_backup(&run).ok();
    assert_eq!(leftovers(&site), [""; 0]);
    let gone = eventually(Duration::from_secs(30), || {
        programs_for("killed").is_empty()
    });
    assert!(gone, "left: {:?}", programs_for("killed"));
}
