//! No secret is shown: not in arguments, not in what is printed or logged, not in what is stored.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rg_tests::{ArgvWatch, Output, Postgres, Site, age_key, fake_docker, site};

/// A blank, quotes, a dollar, a per cent sign, and what ends parts of a URL.
const PASSWORD: &str = "pa ss'w\"o$HOME%41rd/@:?#&";
/// The same as it stands in a URL.
const ENCODED: &str = "pa%20ss%27w%22o$HOME%2541rd%2F%40%3A%3F%23%26";
/// What is enough to recognise either.
const TRACES: [&str; 2] = ["ss'w\"o$HOME%41rd", "ss%27w%22o$HOME"];

/// A site whose role has that password.
fn secret_site(database: &str) -> Site {
    let site = site!(database);
    let cluster = Postgres::shared();
    cluster.role(database, "LOGIN SUPERUSER");
    let quoted = PASSWORD.replace('\'', "''");
    cluster.psql(
        "postgres",
        &format!("ALTER ROLE {database} PASSWORD '{quoted}'"),
    );
    let port = cluster.port();
    site.address(&format!(
        "postgresql+asyncpg://{database}:{ENCODED}@127.0.0.1:{port}/{database}"
    ));
    site
}

#[track_caller]
fn silent_about_it(output: Output) -> Output {
    let all = format!("{output:?}");
    for trace in TRACES {
        assert!(!all.contains(trace), "{trace}: {all}");
    }
    output
}

/// Every file below a folder, also decompressed, is without it.
fn nothing_below(site: &Site, folder: &str) -> usize {
    let names = site.files(folder);
    for name in &names {
        let path = site.path(folder).join(name);
        let mut texts = vec![fs::read(&path).expect("a file")];
        if name.ends_with(".zst") {
            texts.push(site.program("zstd", ["-dc"]).arg(&path).run().ok().stdout);
        }
        for text in texts {
            for trace in TRACES {
                let found = text
                    .windows(trace.len())
                    .any(|part| part == trace.as_bytes());
                assert!(!found, "{trace} in {name}");
            }
        }
    }
    names.len()
}

#[test]
fn a_password_is_never_seen_whatever_happens() {
    let site = secret_site("secret_words");
    let watches = TRACES.map(ArgvWatch::start);
    let loud = |args: &[&str]| {
        let plain = silent_about_it(site.rg_backup(args));
        let mut words = args.to_vec();
        words.extend(["-vv", "--log", "json", "--json"]);
        let loud = silent_about_it(site.rg_backup(&words));
        assert_eq!(plain.code(), loud.code(), "{plain:?}{loud:?}");
        loud
    };
    loud(&["run"]).ok();
    loud(&["run", "--dry-run"]).ok();
    loud(&["verify", "--all"]).ok();
    loud(&["list"]).ok();
    site.configure("format = \"plain\"\n");
    loud(&["run"]).ok();
    // In a container.
    fake_docker(&site, "docker", "pg", Postgres::shared());
    site.configure("via = \"docker:pg\"\n");
    loud(&["run"]).ok();
    site.configure("via = \"docker:another\"\n");
    loud(&["run"]).fails(2);
    // Refused by the server, by pg_dump, by us.
    site.configure("required_tables = [\"nowhere\"]\n");
    loud(&["run", "app"]).fails(2);
    site.configure("");
    let port = Postgres::shared().port();
    for address in [
        format!("postgresql://secret_words:{ENCODED}@127.0.0.1:{port}/not_there"),
        format!("postgresql://postgres:{ENCODED}@127.0.0.1:{port}/secret_words"),
        format!("postgresql://postgres:{ENCODED}@127.0.0.1:1/secret_words"),
        format!("postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/secret_words"),
        format!("postgresql://postgres:{ENCODED}@127.0.0.1:{port}/secret_words?nonsense=1"),
    ] {
        site.address(&address);
        loud(&["run", "app"]).fails(2);
    }
    site.write("env", format!("DATABASE_URL='{ENCODED}\nOTHER=1\n"));
    loud(&["run", "app"]).fails(2);
    site.write("env", format!("{ENCODED}\n"));
    loud(&["run", "app"]).fails(2);
    for watch in watches {
        assert!(watch.looks() > 100, "the arguments were looked at");
        assert_eq!(watch.stop(), [""; 0]);
    }
    assert!(nothing_below(&site, "store") > 10);
    nothing_below(&site, "state");
}

#[test]
fn a_password_in_the_configuration_is_not_shown_by_its_errors() {
    let site = secret_site("secret_toml");
    let address = format!("postgresql://u:{}@h/d", ENCODED.replace('$', "$$"));
    for text in [
        format!("[environments.app.database]\nurl = \"{address}\"\nurrl = \"{address}\"\n"),
        format!("[environments.app.database]\nurl = [\"{address}\"]\n"),
        format!("[environments.app.database]\nurl = \"{address}\n"),
        format!(
            "[environments.app.database]\nurl = \"{}\"\n",
            address.replace("$$", "$ ")
        ),
        format!("[environments.app.database]\nurl = \"{address}\"\nformat = \"{address}\"\n"),
    ] {
        site.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n{text}"
        ));
        for args in [&["run"][..], &["run", "--json", "-vv"]] {
            silent_about_it(site.rg_backup(args).fails(2));
        }
    }
}

#[test]
fn what_is_stored_is_for_its_owner_alone() {
    let site = site!("secret_modes");
    site.write("uploads/a", "a");
    site.configure_stores(
        "[stores.local]\nurl = \"file://{root}/vaults/one\"\n[stores.second]\nurl = \"file://{root}/vaults/two\"\n",
        "[environments.app.files.uploads]\npath = \"uploads\"\n",
    );
    // Whatever the umask of whoever calls.
    let script = "umask 0000; exec \"$@\"";
    let words = [
        "-c",
        script,
        "sh",
        env!("CARGO_BIN_EXE_rg-driver"),
        "rg-backup",
    ];
    for args in [&["run"][..], &["verify", "--all"], &["pin"]] {
        let id;
        let mut args = args.to_vec();
        if args == ["pin"] {
            id = site.list().pop().expect("a backup");
            args.push(&id);
        }
        site.program("sh", words.into_iter().chain(args)).run().ok();
    }
    let mut seen = 0;
    let mut open = vec![site.path("vaults"), site.path("state/tmp")];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).expect("what is stored");
        let wanted = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(
            meta.permissions().mode() & 0o7777,
            wanted,
            "{}",
            path.display()
        );
        seen += 1;
        if meta.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    assert!(seen > 20, "{seen} files and folders");
    assert!(Path::new(&site.path("state/tmp")).exists());
}

#[test]
fn an_encrypted_backup_shows_nothing_of_its_content() {
    const MARK: &str = "a-word-that-stands-nowhere-else";
    let site = site!("secret_content");
    let (public, identity) = age_key(&site);
    site.write(format!("uploads/{MARK}.txt"), MARK);
    Postgres::shared().psql(
        "secret_content",
        &format!("INSERT INTO customers (name) VALUES ('{MARK}')"),
    );
    let files = "[environments.app.files.uploads]\npath = \"uploads\"\n";
    let found = || {
        let names = ["store", "state"].map(|folder| {
            let names = site.files(folder).into_iter();
            names
                .map(move |name| format!("{folder}/{name}"))
                .collect::<Vec<_>>()
        });
        let names = names.concat().into_iter();
        names
            .filter(|name| {
                let path = site.path(name);
                let script = "case $0 in *.zst) zstd -dc \"$0\";; *) cat \"$0\";; esac";
                let text = site
                    .program("sh", ["-c", script])
                    .arg(path)
                    .run()
                    .ok()
                    .out();
                name.contains(MARK) || text.contains(MARK)
            })
            .count()
    };
    site.configure(&format!(
        "{files}[encryption]\nrecipients = [\"{public}\"]\n"
    ));
    site.rg_backup(&["run", "app"]).ok();
    assert_eq!(found(), 0);
    let identity = identity.to_string_lossy();
    site.rg_backup(&["verify", "--all", "--identity", &identity])
        .ok();
    assert_eq!(found(), 0);
    // The search finds what is not encrypted: the dump, the archive and its list.
    site.configure(files);
    site.rg_backup(&["run", "app"]).ok();
    assert_eq!(found(), 3);
}

#[test]
fn a_key_that_is_none_is_refused_before_anything_is_written() {
    let site = site!("secret_bad_key");
    site.configure("[encryption]\nrecipients = [\"age1notakey\"]\n");
    let output = site.try_backup().fails(2);
    assert!(output.out().contains("[encryption] in "), "{output:?}");
    assert_eq!(site.files("store"), [""; 0]);
}
