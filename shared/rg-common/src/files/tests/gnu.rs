//! GNU tar restores our archives without us, and we read those that it made.

use super::kit::*;
use crate::files::*;
use crate::program::Program;

fn tar(args: &[&str]) -> crate::Result<Vec<u8>> {
    Program::new("/usr/bin/tar").args(args).output(100 << 20)
}

#[test]
fn gnu_tar_restores_our_archive_to_the_same_tree() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    let (bytes, inventory, _) = archived(&tree).unwrap();
    let file = scratch.file("a.tar", &bytes);
    std::fs::create_dir(scratch.path("out")).unwrap();
    tar(&[
        "--xattrs",
        "--xattrs-include=*",
        "--same-permissions",
        "-C",
        scratch.path("out").to_str().unwrap(),
        "-xf",
        file.to_str().unwrap(),
    ])
    .unwrap();
    let out = scanned(&scratch.path("out"));
    if am_root() {
        assert_same(&out, &inventory);
    } else {
        assert_eq!(out.content_digest, inventory.content_digest);
    }
    use std::os::unix::fs::MetadataExt;
    let sparse = scratch.path("out/sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 1_000_000, "it has holes again");
}

#[test]
fn archives_of_gnu_tar_in_all_its_formats_are_read() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"hello");
    scratch.file("tree/sub/b", &[1; 70_000]);
    scratch.file("tree/sub/c", b"");
    std::os::unix::fs::symlink("../a", scratch.path("tree/sub/l")).unwrap();
    std::fs::hard_link(scratch.path("tree/a"), scratch.path("tree/sub/a")).unwrap();
    let tree = scratch.path("tree");
    let plain = scanned(&tree);
    for format in ["v7", "ustar", "oldgnu", "gnu", "pax"] {
        let bytes = tar(&[
            "-C",
            tree.to_str().unwrap(),
            "--format",
            format,
            "-cf",
            "-",
            ".",
        ]);
        let out = scratch.path(&format!("out-{format}"));
        let inventory = extracted(&bytes.unwrap(), &out).unwrap();
        let found = scanned(&out);
        assert_same(&found, &inventory);
        assert_eq!(found.content_digest, plain.content_digest, "{format}");
    }
}

#[test]
fn long_names_and_holes_are_read_in_all_of_their_formats() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    let plain = scanned(&tree);
    for (at, options) in [
        &["--format=gnu", "--sparse"][..],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ]
    .iter()
    .enumerate()
    {
        let mut args = vec!["--warning=none", "-C", tree.to_str().unwrap(), "-cf", "-"];
        args.extend(*options);
        args.extend(["--xattrs", "--xattrs-include=*", "."]);
        let bytes = tar(&args).unwrap();
        let out = scratch.path(&format!("out-{at}"));
        let inventory = extracted(&bytes, &out).unwrap();
        assert_same(&scanned(&out), &inventory);
        assert_eq!(
            (inventory.files, inventory.bytes),
            (plain.files, plain.bytes)
        );
        use std::os::unix::fs::MetadataExt;
        let sparse = out.join("sparse").metadata().unwrap();
        assert!(sparse.blocks() * 512 < 1_000_000, "{options:?}");
    }
}

#[test]
fn an_old_scripts_archive_keeps_the_name_of_its_directory() {
    let scratch = Scratch::new();
    scratch.file("data/uploads/a", b"hello");
    let data = scratch.path("data");
    let bytes = tar(&["-C", data.to_str().unwrap(), "-cf", "-", "uploads/a"]).unwrap();
    let inventory = extracted(&bytes, &scratch.path("out")).unwrap();
    assert_eq!(
        scratch
            .names()
            .iter()
            .filter(|n| n.starts_with("out"))
            .count(),
        3
    );
    assert_eq!((inventory.files, inventory.directories), (1, 2));
    assert_same(&scanned(&scratch.path("out")), &inventory);
    let found = Limits::of_free_space(&scratch.0).unwrap();
    assert!(found.bytes_max > 0 && found.entries_max > 0);
}
