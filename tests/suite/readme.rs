//! What README.md says is true: its pipes restore, its configuration is understood.

use std::path::{Path, PathBuf};

use rg_common::config::Config;
use rg_tests::{Postgres, Site, age_key, site};

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    std::fs::read_to_string(path).expect("README.md")
}

/// The text of the code blocks in that language.
fn blocks(language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let readme = readme();
    let after = readme.split(&fence).skip(1);
    let inside = |text: &str| text.split("```").next().unwrap_or_default().to_owned();
    after.map(inside).collect()
}

/// The lines of the block that needs nothing of ours, with the extension that each is for.
fn pipes() -> Vec<(String, String)> {
    let block = blocks("sh").pop().expect("the block of pipes");
    let extension = |line: &str| {
        let after = line.split("$BACKUP").nth(1).expect("a pipe names $BACKUP");
        after.split_whitespace().next().expect("a word").to_owned()
    };
    let commands = block.lines().filter(|line| !line.starts_with('#'));
    commands
        .map(|line| (extension(line), line.to_owned()))
        .collect()
}

/// The newest stored file with exactly that extension, the extension cut off.
fn newest(site: &Site, extension: &str) -> PathBuf {
    let (path, manifest) = site.manifests("store").pop().expect("a manifest");
    let file = manifest["file"].as_str().expect("a name");
    let stem = file
        .strip_suffix(extension)
        .unwrap_or_else(|| panic!("{file} does not end in {extension}"));
    assert!(
        !stem.contains('.'),
        "{file} has more layers than {extension}"
    );
    path.with_file_name(stem)
}

#[test]
fn every_pipe_in_the_readme_restores_what_was_backed_up() {
    let site = site!("readme");
    let (public, identity) = age_key(&site);
    let pipes = pipes();
    assert_eq!(pipes.len(), 12, "{pipes:?}");
    let uploads = site.path("uploads");
    std::fs::create_dir_all(uploads.join("deep/er")).expect("a folder");
    std::fs::write(uploads.join("deep/er/one file.txt"), "content").expect("a file");
    std::os::unix::fs::symlink("deep", uploads.join("link")).expect("a link");
    let cluster = Postgres::shared();
    let before = cluster.digest(site.database());
    for (number, (extension, pipe)) in pipes.iter().enumerate() {
        let mut rest = String::new();
        for (word, keys) in [
            (".sql", "format = \"plain\"\n"),
            (".dump.gz", "compression = \"gzip\"\n"),
            (".sql.gz", "compression = \"gzip\"\n"),
        ] {
            if extension.starts_with(word) {
                rest.push_str(keys);
            }
        }
        rest.push_str("[environments.app.files.uploads]\npath = \"{root}/uploads\"\n");
        if extension.starts_with(".tar.gz") {
            rest.push_str("compression = \"gzip\"\n");
        }
        if extension.ends_with(".age") {
            rest.push_str(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
        }
        site.configure(&rest);
        if number > 0 {
            site.lose_store("local", "store");
        }
        let dataset = if extension.starts_with(".tar") {
            "app/files/uploads"
        } else {
            "app/database"
        };
        site.rg_backup(&["run", dataset]).ok();
        let backup = newest(&site, extension);
        let (database, folder) = (format!("readme_{number}"), site.path("new"));
        cluster.create_database(&database);
        std::fs::create_dir(&folder).expect("a folder");
        site.program("bash", ["-c", &format!("set -euo pipefail; {pipe}")])
            .env("BACKUP", backup.to_str().expect("a path"))
            .env("IDENTITY", identity.to_str().expect("a path"))
            .env("NEW_DATABASE", &database)
            .env("NEW_FOLDER", folder.to_str().expect("a path"))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", cluster.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", cluster.password("postgres"))
            .run()
            .ok();
        if extension.starts_with(".tar") {
            site.program("diff", ["-r", "--no-dereference"])
                .arg(&uploads)
                .arg(&folder)
                .run()
                .ok();
        } else {
            assert_eq!(cluster.digest(&database), before, "{pipe}");
        }
        std::fs::remove_dir_all(&folder).expect("the folder is removed");
    }
}

#[test]
fn the_configuration_in_the_readme_is_understood() {
    let text = blocks("toml").concat();
    let site = site!("readme_toml");
    let path = site.path("readme.toml");
    std::fs::write(&path, text).expect("the file");
    let config = Config::read(&path, "vps-1").expect("it is understood");
    let names: Vec<&str> = config.datasets.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "globals",
            "production/database",
            "production/files/uploads",
            "production/buckets/artifacts"
        ]
    );
}
