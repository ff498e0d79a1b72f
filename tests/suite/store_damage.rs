//! A flipped bit or a lost end in any file of a backup is found, and the file is named.

use std::path::PathBuf;

use rg_common::catalog;
use rg_common::store::Folder;
use rg_tests::{Chance, Damage, Site, age_key, rounds, site};

/// A database and a directory, backed up once; every file of both backups.
fn backed_up(site: &Site, encryption: &str) -> Vec<PathBuf> {
    for number in 0..40 {
        site.write(
            format!("uploads/file {number}.txt"),
            format!("{number} ").repeat(500),
        );
    }
    site.configure(&format!(
        "[environments.app.files.uploads]\npath = \"uploads\"\n{encryption}"
    ));
    site.rg_backup(&["run", "app"]).ok();
    let files: Vec<PathBuf> = site
        .stored()
        .iter()
        .map(|name| site.path("store").join(name))
        .collect();
    assert_eq!(
        files.len(),
        5,
        "two data files, a list, two manifests: {files:?}"
    );
    files
}

fn library_finds_damage(store: &Folder) -> bool {
    let listing = catalog::read(store, None).expect("a readable store");
    listing.copies.values().any(|copy| match &copy.manifest {
        Ok(manifest) => !copy.is_sound() || catalog::check_stored(store, manifest).is_err(),
        Err(_) => true,
    })
}

fn tool_finds_damage(site: &Site, file: &std::path::Path, how: &str) {
    let name = file.file_name().expect("a name").to_string_lossy();
    let output = site.rg_backup(&["verify", "--all", "--dry-run"]).fails(1);
    assert!(output.out().contains(&*name), "{how} in {name}: {output:?}");
}

fn every_damage_is_found(site: &Site, files: &[PathBuf]) {
    let store = Folder::new("local", &site.path("store"));
    assert!(!library_finds_damage(&store), "before any damage");
    site.rg_backup(&["verify", "--all", "--dry-run"]).ok();
    let mut chance = Chance::new();
    for round in 0..rounds(150) {
        let file = &files[round as usize % files.len()];
        let damage = Damage::to(file);
        let (position, bit) = (chance.below(damage.size()), chance.below(8) as u32);
        damage.flip_bit(position, bit);
        assert!(
            library_finds_damage(&store),
            "bit {bit} of byte {position} of {file:?}"
        );
        if round % 6 == 0 {
            tool_finds_damage(site, file, &format!("bit {bit} of byte {position}"));
        }
        damage.flip_bit(position, bit);
    }
    for file in files {
        let whole = std::fs::read(file).expect("the file");
        let damage = Damage::to(file);
        for size in [0, 1, chance.below(damage.size()), damage.size() - 1] {
            damage.cut_to(size);
            assert!(library_finds_damage(&store), "{file:?} cut to {size}");
            if size > 0 {
                tool_finds_damage(site, file, &format!("cut to {size}"));
            }
            std::fs::write(file, &whole).expect("the file as it was");
        }
        let mut longer = whole.clone();
        longer.push(b'\n');
        std::fs::write(file, longer).expect("a longer file");
        tool_finds_damage(site, file, "one byte more");
        std::fs::write(file, &whole).expect("the file as it was");
    }
    site.rg_backup(&["verify", "--all"]).ok();
}

#[test]
fn every_damage_to_a_plain_backup_is_found_and_its_file_named() {
    let site = site!("damaged");
    let files = backed_up(&site, "");
    every_damage_is_found(&site, &files);
}

#[test]
fn every_damage_to_an_encrypted_backup_is_found_without_the_key() {
    let site = site!("damaged_age");
    let (public, identity) = age_key(&site);
    let files = backed_up(
        &site,
        &format!("[encryption]\nrecipients = [\"{public}\"]\n"),
    );
    every_damage_is_found(&site, &files);
    // With the key the content is proven too.
    let identity = identity.to_string_lossy();
    let args = ["verify", "--all", "--json", "--identity", &*identity];
    let found = site.rg_backup(&args).ok().json();
    for copy in found["copies"].as_array().expect("copies") {
        assert_eq!(copy["content"], true, "{found:#}");
    }
}

#[test]
fn a_lost_data_file_is_damage_and_a_lost_manifest_no_backup() {
    let site = site!("lost_files");
    let files = backed_up(&site, "");
    let data = files
        .iter()
        .find(|file| file.to_string_lossy().ends_with(".dump.zst"));
    let data = data.expect("the dump");
    let away = site.path("away");
    std::fs::rename(data, &away).expect("the dump taken away");
    tool_finds_damage(&site, data, "missing");
    std::fs::rename(&away, data).expect("the dump brought back");
    let manifest = files
        .iter()
        .find(|file| file.to_string_lossy().ends_with("manifest.json"));
    std::fs::remove_file(manifest.expect("a manifest")).expect("a lost manifest");
    let listed = site.rg_backup(&["list", "--json"]).ok().json();
    assert_eq!(
        listed["backups"].as_array().expect("rows").len(),
        1,
        "{listed:#}"
    );
    assert_eq!(
        listed["strangers"].as_array().expect("rows").len(),
        1,
        "{listed:#}"
    );
}

#[test]
fn a_wrong_key_says_nothing_about_the_backup() {
    let site = site!("damaged_wrong_key");
    let (public, identity) = age_key(&site);
    backed_up(
        &site,
        &format!("[encryption]\nrecipients = [\"{public}\"]\n"),
    );
    let right = site.path("right.key");
    std::fs::rename(identity, &right).expect("the key put aside");
    let (_, wrong) = age_key(&site);
    let verify = |identity: &std::path::Path, code: i32| {
        let identity = identity.to_string_lossy();
        let args = ["verify", "--all", "--identity", &*identity];
        site.rg_backup(&args).fails(code)
    };
    let output = verify(&wrong, 2);
    assert!(output.out().contains("app/database@"), "{output:?}");
    let listed = site.rg_backup(&["list", "--json"]).ok().json();
    assert_eq!(listed["backups"][0]["proof"], "recorded", "{listed:#}");
    verify(&right, 0);
    // Damage is damage, whatever the key.
    let data = site
        .stored()
        .into_iter()
        .find(|name| name.ends_with(".dump.zst.age"));
    Damage::to(site.path("store").join(data.expect("the dump"))).flip_bit(5000, 1);
    verify(&wrong, 1);
    verify(&right, 1);
    let listed = site.rg_backup(&["list", "--json"]).ok().json();
    assert_eq!(listed["backups"][0]["proof"], "damaged", "{listed:#}");
    assert_eq!(listed["backups"][1]["proof"], "verified", "{listed:#}");
}
