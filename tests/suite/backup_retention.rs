//! Retention end to end: what is deleted, and what never is.

use std::fs;
use std::time::Duration;

use jiff::SignedDuration;
use rg_common::catalog::{self, Content, Manifest};
use rg_common::names::{BackupId, Stamp};
use rg_common::store::Folder;
use rg_tests::{Chance, Damage, Postgres, Signal, Site, before_now, eventually, site};

/// Makes a copy of the newest backup of `dataset` that looks `age` old, in the folder `store`.
fn older(site: &Site, store: &str, dataset: &str, age: SignedDuration) -> String {
    let folder = Folder::new(store, &site.path(store));
    let dataset = dataset.parse().expect("a dataset's name");
    let listing = catalog::read(&folder, Some(&dataset)).expect("a readable store");
    let (_, copy) = listing.copies.iter().next_back().expect("a backup");
    let manifest: &Manifest = copy.manifest.as_ref().expect("an intact manifest");
    let id = BackupId {
        dataset,
        stamp: Stamp::at(before_now(age)),
    };
    let mut aged = manifest.clone();
    aged.file = manifest.file.replace(&manifest.id.stem(), &id.stem());
    if let Content::Files(files) = &mut aged.content {
        files.list = None;
    }
    aged.id = id.clone();
    let data = |manifest: &Manifest| {
        folder.path(&catalog::beside(&manifest.id, &manifest.file).expect("a key"))
    };
    fs::copy(data(manifest), data(&aged)).expect("a copy of the data");
    catalog::record(&folder, &aged).expect("a recorded copy");
    id.to_string()
}

/// So many days and an hour: whole days are counted from a backup that was made a moment ago.
fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count + 1)
}

/// `ID: reason` of every line of `prune --dry-run` with that fate.
fn planned(site: &Site, fate: &str) -> Vec<String> {
    let plan = site
        .rg_backup(&["prune", "--dry-run", "--json"])
        .ok()
        .json();
    let lines = plan["plan"].as_array().expect("a plan").iter();
    lines
        .filter(|line| line["fate"] == fate)
        .map(|line| line["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// The site's database as environment `app`, and once more as `app-staging`.
fn with_staging(site: &Site, keep: &str) {
    site.configure(&format!(
        "keep = {keep}\n[environments.app-staging]\nenv_file = \"env\"\n\
         [environments.app-staging.database]\nurl = \"$DATABASE_URL\"\n"
    ));
}

#[test]
fn retention_of_app_never_touches_app_staging() {
    let site = site!("retention_staging");
    with_staging(&site, "{ last = 1 }");
    site.rg_backup(&["run", "app", "app-staging"]).ok();
    let old_staging = older(&site, "store", "app-staging/database", days(100));
    let old = older(&site, "store", "app/database", days(100));
    assert_eq!(planned(&site, "delete"), std::slice::from_ref(&old));
    // A plan is only a plan.
    assert!(site.list().contains(&old));
    site.rg_backup(&["run", "app"]).ok();
    site.rg_backup(&["prune"]).ok();
    let left = site.all_whole();
    assert!(left.contains(&old_staging), "{left:?}");
    assert_eq!(left.len(), 3, "one of app, two of app-staging: {left:?}");
}

#[test]
fn days_are_kept_as_configured_and_the_plan_gives_its_reasons() {
    let site = site!("retention_days");
    site.configure("keep = { days = 7 }\n");
    let newest = site.backup();
    let six = older(&site, "store", "app/database", days(6));
    let nine = older(&site, "store", "app/database", days(9));
    let output = site.rg_backup(&["prune", "--dry-run"]).ok();
    let said = output.out();
    assert!(said.contains("newest proven"), "{said}");
    assert!(said.contains("6 days old, keep.days = 7"), "{said}");
    assert!(said.contains("9 days old, no rule wants it; "), "{said}");
    assert!(said.contains("1 of 3 backups would be deleted"), "{said}");
    let output = site.rg_backup(&["prune"]).ok();
    assert!(
        output.out().contains("1 of 3 backups deleted"),
        "{output:?}"
    );
    assert_eq!(site.all_whole(), [six, newest]);
    let (_, stamp) = nine.split_once('@').expect("an id");
    assert!(site.stored().iter().all(|name| !name.contains(stamp)));
    let output = site.rg_backup(&["prune"]).ok();
    assert!(
        output.out().contains("0 of 2 backups deleted"),
        "{output:?}"
    );
}

#[test]
fn a_pinned_backup_outlives_every_rule_until_it_is_unpinned() {
    let site = site!("retention_pin");
    site.configure("keep = { last = 1 }\n");
    site.backup();
    let old = older(&site, "store", "app/database", days(400));
    site.rg_backup(&["pin", &old]).ok();
    site.backup();
    assert!(site.all_whole().contains(&old));
    site.rg_backup(&["unpin", &old, "--dry-run"]).ok();
    assert_eq!(planned(&site, "delete"), [""; 0]);
    site.rg_backup(&["unpin", &old]).ok();
    site.rg_backup(&["prune"]).ok();
    assert_eq!(site.list().len(), 1);
}

#[test]
fn a_damaged_newest_backup_is_no_reason_to_delete_an_older_one() {
    let site = site!("retention_damaged");
    site.configure("keep = { last = 1 }\n");
    let newest = site.backup();
    let old = older(&site, "store", "app/database", days(30));
    let data = site.manifest()["file"].as_str().expect("a file").to_owned();
    Damage::to(site.path("store/app/database").join(data)).flip_bit(3000, 3);
    // Nobody has looked yet: prune looks itself, and keeps the older one.
    site.rg_backup(&["prune"]).ok();
    assert_eq!(site.list(), [old.clone(), newest.clone()]);
    site.rg_backup(&["verify", "--all"]).fails(1);
    site.rg_backup(&["prune"]).ok();
    assert_eq!(site.list(), [old.clone(), newest]);
    // A new good one is: both may go.
    let next = site.backup();
    assert!(!site.list().contains(&old));
    assert!(site.list().contains(&next));
}

#[test]
fn a_failed_run_deletes_nothing() {
    let site = site!("retention_failed");
    site.configure("keep = { last = 1 }\n");
    site.backup();
    older(&site, "store", "app/database", days(30));
    older(&site, "store", "app/database", days(300));
    let before = site.stored();
    site.pg_dump_does("\"$real\" \"$@\" | head -c 100000; exit 1");
    site.try_backup().fails(2);
    assert_eq!(site.stored(), before);
}

#[test]
fn a_backup_from_the_future_says_that_the_clock_is_wrong_and_nothing_is_deleted() {
    let site = site!("retention_clock");
    site.configure("keep = { last = 1 }\n");
    site.backup();
    older(&site, "store", "app/database", days(30));
    let future = older(&site, "store", "app/database", days(-3));
    let output = site.rg_backup(&["prune"]).ok();
    assert!(
        output.out().contains("0 of 3 backups deleted"),
        "{output:?}"
    );
    let output = site.rg_backup(&["prune", "--dry-run"]).ok();
    let words = format!("{future} lies in the future, so the clock is or was wrong");
    assert!(output.out().contains(&words), "{output:?}");
}

#[test]
fn a_run_after_a_small_step_back_of_the_clock_keeps_the_order_of_ids() {
    let site = site!("retention_order");
    let first = site.backup();
    let ahead = older(
        &site,
        "store",
        "app/database",
        SignedDuration::from_secs(-30),
    );
    let next = site.backup();
    assert!(first < ahead && ahead < next, "{first} {ahead} {next}");
}

#[test]
fn pruning_a_store_that_is_not_there_is_an_error_and_does_not_make_it() {
    let site = site!("retention_gone");
    site.configure_stores(
        "[stores.local]\nurl = \"file://{root}/unmounted/store\"\n",
        "keep = { last = 1 }\n",
    );
    let output = site.rg_backup(&["prune"]).fails(2);
    assert!(
        output.out().contains("app/database in store `local`: "),
        "{output:?}"
    );
    assert!(output.out().contains("is its disk mounted?"), "{output:?}");
    assert!(!site.path("unmounted").exists());
}

#[test]
fn a_new_backup_stays_although_the_clock_was_ahead_before() {
    let site = site!("retention_ahead");
    site.configure("keep = { last = 1 }\n");
    site.backup();
    let ahead = older(
        &site,
        "store",
        "app/database",
        SignedDuration::from_mins(-45),
    );
    let new = site.backup();
    assert!(new > ahead, "{new} after {ahead}");
    assert_eq!(site.all_whole(), [new]);
}

#[test]
fn no_backup_is_deleted_for_one_that_is_suddenly_empty() {
    let site = site!("retention_emptied");
    site.write("uploads/a", "a");
    let config = "keep = { last = 1 }\n[environments.app.files.uploads]\npath = \"uploads\"\nkeep = { last = 1 }\n";
    site.configure(config);
    site.rg_backup(&["run", "app"]).ok();
    let full = site.list();
    // A database made anew, a disk that is not mounted.
    Postgres::shared().psql(
        "retention_emptied",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
    );
    fs::remove_file(site.path("uploads/a")).expect("the upload");
    for night in 1..=2 {
        let output = site.rg_backup(&["run", "app"]).fails(1);
        let said = output.out();
        assert!(
            said.contains("there were 2,202 rows in app/database@"),
            "{output:?}"
        );
        assert!(
            said.contains("there was 1 file in app/files/uploads@"),
            "{output:?}"
        );
        assert!(said.contains("retention deletes nothing"), "{output:?}");
        let left = site.all_whole();
        assert_eq!(left.len(), 2 + 2 * night);
        assert!(full.iter().all(|id| left.contains(id)), "{left:?}");
    }
    // As it should be, says the operator.
    site.rg_backup(&["prune"]).ok();
    assert_eq!(site.all_whole().len(), 2);
    site.rg_backup(&["run", "app"]).ok();
}

#[test]
fn a_backup_that_is_deleted_while_it_is_verified_leaves_no_finding() {
    let site = site!("retention_race");
    let mut noise = vec![0; 64 << 20];
    Chance::seeded(2).fill(&mut noise);
    site.write("uploads/noise", &noise);
    site.configure("[environments.app.files.uploads]\npath = \"uploads\"\nkeep = { last = 1 }\n");
    site.rg_backup(&["run", "app/files"]).ok();
    let old = site.list().pop().expect("a backup");
    let verify = site.spawn_backup(&["verify", &old]);
    let reading = || {
        let fds = fs::read_dir(format!("/proc/{}/fd", verify.pid()));
        let links = fds.into_iter().flatten().flatten();
        links
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|link| link.to_string_lossy().ends_with(".tar.zst"))
    };
    assert!(eventually(Duration::from_secs(60), reading));
    verify.signal(Signal::STOP);
    fs::write(site.path("uploads/noise"), "little").expect("a smaller upload");
    site.rg_backup(&["run", "app/files"]).ok();
    assert!(!site.list().contains(&old));
    verify.signal(Signal::CONT);
    verify.wait().ok();
    let (_, stamp) = old.split_once('@').expect("an id");
    let left = site
        .stored()
        .into_iter()
        .filter(|name| name.contains(stamp));
    assert_eq!(left.collect::<Vec<_>>(), [""; 0]);
}
