//! What the old scripts left is taken into the catalog when it is good, and refused with the
//! reason when it is not. The scripts' own pipelines make it here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rg_tests::{Damage, Postgres, Site, TableDigest, age_key, site};

/// A shell pipeline as the scripts had it (no pipefail), with the server's address around it.
#[track_caller]
fn script(site: &Site, line: &str) {
    let cluster = Postgres::shared();
    let mut path = cluster.bin().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    site.program("bash", ["-c", line])
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", cluster.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", cluster.password("postgres"))
        .env("PGDATABASE", site.database())
        .run()
        .ok();
}

/// Adopts the folder `old`, with the host in Berlin.
fn adopt(site: &Site, dataset: &str, more: &[&str]) -> rg_tests::Output {
    let old = site.path("old");
    let mut args = vec!["adopt", "old", "--as", dataset];
    args.extend(more);
    assert!(old.is_dir());
    site.backup_tool(&args).env("TZ", "Europe/Berlin").run()
}

/// Verdict and words by the file's name.
fn verdicts(output: &rg_tests::Output) -> BTreeMap<String, (String, String)> {
    let document = output.json();
    let files = document["files"].as_array().expect("files").iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    files
        .map(|file| {
            let name = text(&file["file"]);
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            (name, (text(&file["verdict"]), text(&file["said"])))
        })
        .collect()
}

fn bytes_of(site: &Site, folder: &str) -> Vec<(String, Vec<u8>)> {
    let names = site.files(folder).into_iter();
    names
        .map(|name| {
            let bytes = fs::read(site.path(folder).join(&name)).expect("a file");
            (name, bytes)
        })
        .collect()
}

fn good_ones(site: &Site) {
    fs::create_dir_all(site.path("old")).expect("the old folder");
    script(site, "pg_dump > old/app_20260115_020000.sql");
    script(site, "pg_dump | gzip > old/app_20260716_020000.sql.gz");
    script(site, "pg_dump -Fc > old/app_20260117_020000.dump");
}

#[test]
fn good_old_dumps_are_adopted_with_the_hosts_time_and_restore() {
    let site = site!("adopt_good");
    good_ones(&site);
    let before = bytes_of(&site, "old");
    fs::remove_dir(site.path("store")).expect("the empty store");
    let output = adopt(&site, "app/database", &["--dry-run"]).ok();
    assert!(!site.path("store").exists(), "a dry run makes nothing");
    assert!(
        output.out().contains("nothing was written (--dry-run)"),
        "{output:?}"
    );
    assert_eq!(site.stored(), [""; 0]);
    let output = adopt(&site, "app/database", &[]).ok();
    assert!(
        output.out().contains("2,202 rows, read to the end"),
        "{output:?}"
    );
    assert_eq!(
        site.all_whole(),
        [
            "app/database@20260115_010000",
            "app/database@20260117_010000",
            "app/database@20260716_000000",
        ]
    );
    assert_eq!(bytes_of(&site, "old"), before, "the originals stay");
    let again = adopt(&site, "app/database", &[]).ok();
    assert_eq!(again.out().matches(": known as ").count(), 3, "{again:?}");
    // The newest first: each is the one that is restored, then it goes.
    let wanted: BTreeMap<String, TableDigest> = Postgres::shared().digest("adopt_good");
    for number in 0..3 {
        let into = format!("adopt_good_{number}");
        let restored = site.restore_with_standard_tools(&into, Path::new("-"));
        assert_eq!(restored, wanted);
        let (newest, manifest) = site.manifests("store").pop().expect("a manifest");
        assert!(
            manifest["adopted_from"]
                .as_str()
                .is_some_and(|from| from.contains("old/app_"))
        );
        fs::remove_file(newest).expect("its manifest");
    }
}

#[test]
fn adopted_dumps_are_encrypted_where_backups_are() {
    let site = site!("adopt_age");
    let (public, identity) = age_key(&site);
    site.configure(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    good_ones(&site);
    adopt(&site, "app/database", &[]).ok();
    let data: Vec<String> = site
        .stored()
        .into_iter()
        .filter(|name| !name.ends_with(".json"))
        .collect();
    assert!(data.iter().all(|name| name.ends_with(".age")), "{data:?}");
    let restored = site.restore_with_standard_tools("adopt_age_back", &identity);
    assert_eq!(restored, Postgres::shared().digest("adopt_age"));
}

#[test]
fn bad_old_dumps_are_refused_with_the_reason() {
    let site = site!("adopt_bad");
    good_ones(&site);
    // What F1 and F18 left: nothing at all, in 20 bytes of valid gzip.
    script(&site, "false | gzip > old/app_20260201_020000.sql.gz");
    script(
        &site,
        "f=old/app_20260202_020000.sql.gz; pg_dump | gzip > $f; truncate -s -5000 $f",
    );
    script(
        &site,
        "pg_dump -Fc | head -c 20000 > old/app_20260203_020000.dump",
    );
    script(
        &site,
        "pg_dump -Fc | head -c -100 > old/app_20260208_020000.dump",
    );
    script(&site, "pg_dump | gzip > old/app_20260204_020000.sql.gz");
    Damage::to(site.path("old/app_20260204_020000.sql.gz")).flip_bit(30_000, 2);
    // Cut where a statement ends: psql would load it without an error.
    script(
        &site,
        "pg_dump | sed '/PostgreSQL database dump complete/,$d' > old/app_20260205_020000.sql",
    );
    script(
        &site,
        "pg_dump | sed '/^COPY public.customers/,$d' > old/app_20260206_020000.sql",
    );
    script(
        &site,
        "pg_dump | sed '/PostgreSQL database dump complete/,$d' | gzip > old/app_20260207_020000.sql.gz",
    );
    script(&site, "pg_dump -Fc > old/app_20260209_020000.dump");
    Damage::to(site.path("old/app_20260209_020000.dump")).flip_bit(40_000, 5);
    script(&site, ": > old/app_20260210_020000.sql");
    script(
        &site,
        "echo 'pg_dump: error: connection failed' > old/app_20260211_020000.sql",
    );
    let before = bytes_of(&site, "old");
    let output = adopt(&site, "app/database", &["--json"]).fails(1);
    let found = verdicts(&output);
    let refused: Vec<&str> = found
        .iter()
        .filter(|(_, (verdict, said))| verdict == "refused" && !said.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    let bad: Vec<&str> = found
        .keys()
        .map(String::as_str)
        .filter(|name| name.contains("_202602"))
        .collect();
    assert_eq!(refused, bad, "{output:?}");
    assert_eq!(bad.len(), 11, "{output:?}");
    assert!(
        found["app_20260201_020000.sql.gz"]
            .1
            .contains("the dump is empty"),
        "{output:?}"
    );
    assert_eq!(bytes_of(&site, "old"), before, "the originals stay");
    assert_eq!(site.all_whole().len(), 3);
    // Nothing of the refused ones lies in the store.
    assert_eq!(
        site.stored()
            .iter()
            .filter(|name| name.contains("202602") || name.contains("202601312"))
            .count(),
        0
    );
}

#[test]
fn old_archives_of_a_directory_are_adopted_and_bad_ones_refused() {
    let site = site!("adopt_files");
    rg_tests::write_uploads(&site.path("uploads"), 60).expect("uploads");
    site.configure("[environments.app.files.uploads]\npath = \"uploads\"\n");
    fs::create_dir_all(site.path("old")).expect("the old folder");
    script(
        &site,
        "tar -czf old/uploads_20260118_030000.tar.gz -C uploads .",
    );
    script(&site, "tar -czf old/uploads_20260719_030000.tar.gz uploads");
    script(
        &site,
        "tar -cz uploads | head -c 100000 > old/uploads_20260201_030000.tar.gz",
    );
    script(&site, "tar -czf old/uploads_20260202_030000.tar.gz uploads");
    Damage::to(site.path("old/uploads_20260202_030000.tar.gz")).flip_bit(50_000, 1);
    script(&site, "false | gzip > old/uploads_20260203_030000.tar.gz");
    script(
        &site,
        "tar -c uploads | head -c 300000 | gzip > old/uploads_20260204_030000.tar.gz",
    );
    let output = adopt(&site, "app/files/uploads", &["--json"]).fails(1);
    let found = verdicts(&output);
    for (name, (verdict, said)) in &found {
        let wanted = if name.contains("_202602") {
            "refused"
        } else {
            "adopted"
        };
        assert_eq!(verdict, wanted, "{name}: {said}");
    }
    assert_eq!(found.len(), 6);
    let ids = site.all_whole();
    assert_eq!(
        ids,
        [
            "app/files/uploads@20260118_020000",
            "app/files/uploads@20260719_010000"
        ]
    );
    let manifest = site.manifest();
    let pipe = manifest["restore_with"].as_str().expect("its pipe");
    fs::create_dir(site.path("back")).expect("a folder");
    let pipe = pipe.replace("NEW_FOLDER", &site.path("back").to_string_lossy());
    site.program("bash", ["-c", &format!("set -eo pipefail; {pipe}")])
        .current_dir(site.path("store/app/files/uploads"))
        .run()
        .ok();
    site.program("diff", ["-r", "uploads", "back/uploads"])
        .run()
        .ok();
    let left: Vec<String> = site.files("state/tmp");
    assert_eq!(left, [""; 0], "no scratch folder is left");
}

#[test]
fn a_folder_without_old_backups_says_what_is_looked_for() {
    let site = site!("adopt_none");
    site.write("old/readme.txt", "nothing here");
    let output = adopt(&site, "app/database", &[]).fails(2);
    assert!(
        output
            .err()
            .contains("hint: for app/database these are looked for: .sql, .sql.gz"),
        "{output:?}"
    );
    let output = adopt(&site, "app", &[]).fails(2);
    assert!(output.err().contains("hint: name it in full"), "{output:?}");
}

#[test]
fn a_file_without_a_stamp_takes_its_own_time() {
    let site = site!("adopt_no_stamp");
    fs::create_dir_all(site.path("old")).expect("the old folder");
    script(
        &site,
        "pg_dump > old/before-migration.sql; touch -d '2026-03-04 05:06:07 UTC' old/before-migration.sql",
    );
    adopt(&site, "app/database", &[]).ok();
    assert_eq!(site.all_whole(), ["app/database@20260304_050607"]);
}
