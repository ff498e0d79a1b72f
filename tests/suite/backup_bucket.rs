//! Buckets of the app as datasets: everything is in the backup, and what has not changed is not
//! read again.

use std::collections::BTreeMap;
use std::fs;

use rg_tests::{Fault, Op, Output, S3Bucket, S3FaultProxy, S3Server, Site, on_every_server, site};
use serde_json::Value;

on_every_server! {
    every_object_is_in_the_backup_and_tar_reads_it,
    what_has_not_changed_is_not_read_again,
    an_archive_that_a_newer_backup_needs_is_kept_copied_and_verified,
    what_cannot_be_read_is_said_with_what_to_do_and_nothing_is_recorded,
    what_was_small_when_it_was_listed_is_read_whole_however_it_has_grown,
    a_small_object_that_is_cut_off_is_asked_for_again,
}

const STORES: &str = "[stores.local]\nurl = \"file://{root}/store\"\n\
                      [stores.offsite]\nurl = \"file://{root}/offsite\"\n";

fn site_with(bucket: &S3Bucket, stores: &str, more: &str) -> Site {
    let site = site!("unused", "postgresql://nobody@127.0.0.1:1/unused");
    let env = format!("{}{}", site.read("env"), bucket.env());
    site.write("env", env);
    site.configure_stores(stores, &format!("\n{}{more}", bucket.toml("artifacts")));
    site
}

fn filled(server: &S3Server) -> S3Bucket {
    let bucket = S3Bucket::new(server);
    bucket.put_with("reports/2026/a b.txt", "hello", "text/plain", "first");
    bucket.put("reports/2026/ä&%+.bin", vec![7; 1000]);
    bucket.put("empty", "");
    bucket.put("reports-old/x", "old");
    bucket.put("large.bin", vec![3; 5 << 20]);
    bucket
}

/// The manifests of the only dataset in a store, the oldest first.
fn manifests(site: &Site, store: &str) -> Vec<Value> {
    let names = site.files(format!("{store}/app/buckets/artifacts"));
    let ends = |name: &String| name.ends_with(".manifest.json");
    let read = |name: String| {
        let text = site.read(format!("{store}/app/buckets/artifacts/{name}"));
        serde_json::from_str(&text).expect("a manifest")
    };
    names.into_iter().filter(ends).map(read).collect()
}

fn said(output: Output, text: &str) {
    assert!(output.out().contains(text), "{output:?}");
}

fn run(site: &Site) {
    site.rg_backup(&["run", "app/buckets/artifacts"]).ok();
}

/// What the pipe in a manifest brings back, by path.
fn by_standard_tools(site: &Site, manifest: &Value) -> BTreeMap<String, Vec<u8>> {
    let folder = site.path("by-hand");
    fs::create_dir_all(&folder).expect("a folder");
    let pipe = manifest["restore_with"].as_str().expect("a pipe");
    let pipe = pipe.replace("NEW_FOLDER", &folder.display().to_string());
    site.program("sh", ["-c", &pipe])
        .current_dir(site.path("store/app/buckets/artifacts"))
        .run()
        .ok();
    let names = site.files("by-hand");
    let read = |name: String| {
        let content = fs::read(folder.join(&name)).expect("a file");
        (name, content)
    };
    names.into_iter().map(read).collect()
}

fn every_object_is_in_the_backup_and_tar_reads_it(server: &'static S3Server) {
    let bucket = filled(server);
    let site = site_with(&bucket, STORES, "");
    run(&site);
    let manifest = &manifests(&site, "store")[0];
    let content = &manifest["content"];
    assert_eq!(content["kind"], "bucket");
    assert_eq!(content["objects"], 5);
    assert_eq!(content["bytes"], 5 + 1000 + 3 + (5 << 20));
    assert_eq!(content["read"], 5);
    let files = by_standard_tools(&site, manifest);
    for (key, bytes) in bucket.content() {
        assert_eq!(files.get(&format!("objects/{key}")), Some(&bytes), "{key}");
    }
    said(site.rg_backup(&["verify"]).ok(), "as recorded");
    said(site.rg_backup(&["list"]).ok(), "5 objects");
}

fn what_has_not_changed_is_not_read_again(server: &'static S3Server) {
    let bucket = filled(server);
    let site = site_with(&bucket, STORES, "");
    run(&site);
    bucket.put("new", "new");
    bucket.put("reports/2026/a b.txt", "changed");
    bucket.delete("empty");
    run(&site);
    let second = &manifests(&site, "store")[1];
    let content = &second["content"];
    assert_eq!(
        (&content["objects"], &content["read"]),
        (&5.into(), &2.into())
    );
    assert_eq!(content["needs"].as_array().map(Vec::len), Some(1));
    let files = by_standard_tools(&site, second);
    assert_eq!(
        files.get("objects/new").map(Vec::as_slice),
        Some(&b"new"[..])
    );
    let text = files.get("objects/reports/2026/a b.txt").map(Vec::as_slice);
    assert_eq!(text, Some(&b"changed"[..]));
    // Without what the last run remembered everything is read once more.
    fs::remove_dir_all(site.path("state/buckets")).expect("an index");
    run(&site);
    let third = &manifests(&site, "store")[2];
    assert_eq!(third["content"]["read"], 5);
    assert_eq!(third["content"]["needs"], Value::Null);
}

fn an_archive_that_a_newer_backup_needs_is_kept_copied_and_verified(server: &'static S3Server) {
    let bucket = filled(server);
    let site = site_with(
        &bucket,
        "[stores.local]\nurl = \"file://{root}/store\"\n",
        "keep = { last = 1 }\n",
    );
    run(&site);
    bucket.put("new", "new");
    run(&site);
    assert_eq!(manifests(&site, "store").len(), 2);
    said(site.rg_backup(&["prune", "--dry-run"]).ok(), "needs it");
    // A second store that comes later gets what it needs.
    site.configure_stores(
        STORES,
        &format!("\n{}keep = {{ last = 1 }}\n", bucket.toml("artifacts")),
    );
    bucket.put("newer", "newer");
    run(&site);
    let copies = manifests(&site, "offsite");
    let (newest, older) = copies.split_last().expect("copies");
    let needs = newest["content"]["needs"].as_array().expect("needs");
    for need in needs {
        let there = |copy: &Value| copy["file"] == need["file"];
        assert!(older.iter().any(there), "{need} is not in the second store");
    }
    // Damage in an older archive is damage of the newest.
    let first = site
        .path("store/app/buckets/artifacts")
        .join(copies[0]["file"].as_str().expect("a name"));
    let mut bytes = fs::read(&first).expect("an archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&first, bytes).expect("written");
    said(
        site.rg_backup(&["verify", "--store", "local"]).fails(1),
        "damaged",
    );
    said(site.rg_backup(&["list"]).ok(), "which is damaged");
    site.rg_backup(&["sync"]).ok();
    site.rg_backup(&["verify"]).ok();
}

fn what_cannot_be_read_is_said_with_what_to_do_and_nothing_is_recorded(server: &'static S3Server) {
    let bucket = S3Bucket::missing(server, "not-there");
    let site = site_with(&bucket, STORES, "");
    let output = site.rg_backup(&["run", "app/buckets/artifacts"]).fails(2);
    let said = output.out();
    assert!(said.contains("cannot list bucket `not-there`"), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(manifests(&site, "store").is_empty());
    let secret = format!("S3_SECRET={}", bucket.key.secret);
    let wrong = site.read("env").replace(&secret, "S3_SECRET=wrong");
    site.write("env", wrong);
    let output = site.rg_backup(&["run", "app/buckets/artifacts"]).fails(2);
    assert!(!output.out().contains(&bucket.key.secret), "{output:?}");
}

/// A site whose bucket is reached through a proxy.
fn behind(proxy: &S3FaultProxy, bucket: &S3Bucket) -> Site {
    let through = S3Bucket::at(&proxy.endpoint(), &bucket.key, &bucket.name);
    site_with(&through, STORES, "")
}

fn what_was_small_when_it_was_listed_is_read_whole_however_it_has_grown(server: &'static S3Server) {
    let bucket = filled(server);
    let proxy = S3FaultProxy::before(server);
    let site = behind(&proxy, &bucket);
    // Between the list and the read it was replaced by one of five megabytes.
    proxy.on(
        Op::List,
        1..=1,
        Fault::Change(|list| list.replace("<Size>5242880</Size>", "<Size>12</Size>")),
    );
    run(&site);
    let manifest = &manifests(&site, "store")[0];
    assert_eq!(manifest["content"]["bytes"], 5 + 1000 + 3 + (5 << 20));
    let files = by_standard_tools(&site, manifest);
    assert_eq!(files.get("objects/large.bin"), Some(&vec![3; 5 << 20]));
}

fn a_small_object_that_is_cut_off_is_asked_for_again(server: &'static S3Server) {
    let bucket = S3Bucket::new(server);
    bucket.put("one", vec![1; 1000]);
    let proxy = S3FaultProxy::before(server);
    let site = behind(&proxy, &bucket);
    proxy.on(Op::Get, 1..=2, Fault::CutAfter(10));
    run(&site);
    assert_eq!(proxy.count(Op::Get), 3);
    proxy.heal();
    std::fs::remove_dir_all(site.path("state/buckets")).expect("an index");
    proxy.on(Op::Get, 1..=99, Fault::CutAfter(10));
    let output = site.rg_backup(&["run", "app/buckets/artifacts"]).fails(2);
    said(output, "cannot read object `one`");
    assert!(
        (4..=9).contains(&proxy.count(Op::Get)),
        "{}",
        proxy.count(Op::Get)
    );
    assert_eq!(manifests(&site, "store").len(), 1);
}
