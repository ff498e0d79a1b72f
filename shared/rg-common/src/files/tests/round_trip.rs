//! What is archived is what comes back.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::kit::*;
use crate::files::*;

#[test]
fn a_missing_root_is_an_error_with_a_hint() {
    let scratch = Scratch::new();
    let root = scratch.path("uploads");
    let failure = archived(&root).unwrap_err();
    let expected = format!(
        "cannot read the directory {}: No such file or directory (os error 2)",
        root.display()
    );
    assert_eq!(failure.to_string(), expected);
    assert_eq!(
        failure.hints(),
        ["check the configured `path`, and who runs this"]
    );
    let file = scratch.file("file", b"");
    assert!(archived(&file).is_err());
}

#[test]
fn a_file_that_may_not_be_read_ends_the_backup() {
    let scratch = Scratch::new();
    let file = scratch.file("tree/secret", b"x");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).unwrap();
    let got = archived(&scratch.path("tree"));
    if am_root() {
        assert_eq!(got.unwrap().1.files, 1);
    } else {
        let failure = got.unwrap_err().to_string();
        assert!(failure.contains("secret: Permission denied"), "{failure}");
    }
}

#[test]
fn an_archive_that_was_not_read_to_its_end_has_no_inventory() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"x");
    let mut archive =
        archive(&scratch.path("tree"), ArchiveOptions::default(), |_| Ok(())).unwrap();
    archive.read_exact(&mut [0; 100]).unwrap();
    let failure = archive.finish().unwrap_err();
    assert_eq!(failure.to_string(), "the archive was not read to its end");
}

#[test]
fn an_error_of_the_sink_ends_the_archive_again_and_again() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"x");
    let mut archive = archive(&scratch.path("tree"), ArchiveOptions::default(), |_| {
        Err(std::io::Error::from_raw_os_error(28))
    })
    .unwrap();
    for _ in 0..3 {
        let error = archive.read(&mut [0; 4096]).unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
    }
    assert!(archive.finish().is_err());
}

#[test]
fn everything_a_tree_can_hold_comes_back() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    let (tar, inventory, entries) = archived(&tree).unwrap();
    assert_eq!(
        (
            inventory.files,
            inventory.directories,
            inventory.links,
            inventory.other
        ),
        (9, 6, 4, 1),
    );
    assert_eq!(inventory.skipped, 1, "the socket");
    assert_eq!(inventory.notes, ["socket, not in the backup: socket"]);
    assert_eq!((inventory.changed, inventory.vanished), (0, 0));

    let mut out_entries = Vec::new();
    let out = extract(&tar[..], &scratch.path("out"), trusting(), &mut |entry| {
        out_entries.push(entry.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(lines(&out_entries), lines(&entries));
    assert_same(&out, &inventory);
    let again = scanned(&scratch.path("out"));
    if am_root() {
        assert_same(&again, &inventory);
    } else {
        assert_eq!(again.content_digest, inventory.content_digest);
    }
    assert_same(&scanned(&tree), &inventory);

    let sparse = scratch.path("out/sparse").metadata().unwrap();
    assert_eq!(sparse.size(), 50_000_100);
    assert!(sparse.blocks() * 512 < 1_000_000, "it has holes again");
    assert!(tar.len() < 5_000_000, "holes take no room in the archive");
    let linked = |name: &str| scratch.path(name).metadata().unwrap().ino();
    assert_eq!(linked("out/plain"), linked("out/zz-other-name"));
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    assert_eq!(archived(&tree).unwrap().0, archived(&tree).unwrap().0);
    // However small the portions are in which it is read.
    let mut bytes: Vec<u8> = Vec::new();
    let mut stream = archive(&tree, ArchiveOptions::default(), |_| Ok(())).unwrap();
    let mut portion = [0; 777];
    loop {
        let n = stream.read(&mut portion).unwrap();
        if n == 0 {
            break;
        }
        bytes.extend(&portion[..n]);
    }
    assert_eq!(bytes, archived(&tree).unwrap().0);
}

#[test]
fn pieces_are_the_same_archive_and_never_large() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    let mut archive = archive(&tree, ArchiveOptions::default(), |_| Ok(())).unwrap();
    let (mut all, mut piece) = (Vec::new(), vec![7; 100]);
    loop {
        archive.next_piece(&mut piece).unwrap();
        assert!(piece.len() <= 512 << 10, "{} bytes", piece.len());
        if piece.is_empty() {
            break;
        }
        all.extend_from_slice(&piece);
    }
    assert!(archive.finish().is_ok());
    assert!(all == archived(&tree).unwrap().0);
}

#[test]
fn what_is_excluded_or_skipped_is_left_out_with_all_below() {
    let scratch = Scratch::new();
    scratch.file("tree/a.tmp", b"x");
    scratch.file("tree/keep/b.tmp", b"x");
    scratch.file("tree/keep/c", b"x");
    scratch.file("tree/cache/deep/d", b"x");
    scratch.file("tree/backups/e", b"x");
    let store = scratch.path("tree/backups").metadata().unwrap();
    let options = ArchiveOptions {
        exclude: vec![
            Pattern::parse("*.tmp").unwrap(),
            Pattern::parse("cache/").unwrap(),
        ],
        skip: vec![(store.dev(), store.ino())],
    };
    let (_, inventory, entries) = archived_with(&scratch.path("tree"), options).unwrap();
    let paths: Vec<_> = entries.iter().map(|e| escape(&e.path)).collect();
    assert_eq!(paths, [".", "keep", "keep/c"]);
    assert_eq!(inventory.excluded, 4);
}

#[test]
fn a_configured_owner_takes_everything() {
    let scratch = Scratch::new();
    let tree = furnish(&scratch);
    let (tar, inventory, _) = archived(&tree).unwrap();
    let options = ExtractOptions {
        owner: Owner::Fixed(12_345, 54_321),
        allow_setuid: false,
        ..trusting()
    };
    let got = extract(&tar[..], &scratch.path("out"), options, &mut |_| Ok(()));
    if !am_root() {
        let failure = got.unwrap_err();
        assert!(
            failure.to_string().contains("cannot set the owner"),
            "{failure}"
        );
        return;
    }
    assert!(
        got.unwrap()
            .notes
            .iter()
            .any(|note| note.contains("set-id"))
    );
    let found = scanned(&scratch.path("out"));
    assert_eq!(found.content_digest, inventory.content_digest);
    assert_ne!(found.digest, inventory.digest);
    scan(
        &scratch.path("out"),
        ArchiveOptions::default(),
        &mut |entry| {
            assert_eq!((entry.uid, entry.gid), (12_345, 54_321));
            assert_eq!(entry.mode & 0o6000, 0);
            Ok(())
        },
    )
    .unwrap();
}

#[test]
fn a_directory_with_something_in_it_is_not_extracted_into() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"new");
    scratch.file("out/a", b"old");
    let (tar, _, _) = archived(&scratch.path("tree")).unwrap();
    let failure = extracted(&tar, &scratch.path("out")).unwrap_err();
    assert!(failure.to_string().ends_with("the directory is not empty"));
    assert_eq!(std::fs::read(scratch.path("out/a")).unwrap(), b"old");
    symlink(scratch.path("elsewhere"), scratch.path("link")).unwrap();
    std::fs::create_dir(scratch.path("elsewhere")).unwrap();
    assert!(extracted(&tar, &scratch.path("link")).is_err());
}

#[test]
fn a_sparse_bomb_is_one_line_of_arithmetic_on_our_side_too() {
    let scratch = Scratch::new();
    scratch.file("tree/hole", b"");
    let file = std::fs::File::create(scratch.path("tree/hole")).unwrap();
    file.set_len(200_000_000).unwrap();
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    assert!(tar.len() < 10_000);
    let options = ExtractOptions {
        limits: Limits {
            bytes_max: 100_000_000,
            ..trusting().limits
        },
        ..trusting()
    };
    let failure = extract(&tar[..], &scratch.path("no"), options, &mut |_| Ok(())).unwrap_err();
    assert!(
        failure.to_string().contains("more than 100000000 bytes"),
        "{failure}"
    );
    let options = ExtractOptions {
        limits: Limits::of(&inventory),
        ..trusting()
    };
    extract(&tar[..], &scratch.path("out"), options, &mut |_| Ok(())).unwrap();
}

#[test]
fn two_trees_change_places_in_one_step() {
    let scratch = Scratch::new();
    scratch.file("live/a", b"old");
    scratch.file("restored/a", b"new");
    exchange(&scratch.path("live"), &scratch.path("restored")).unwrap();
    assert_eq!(std::fs::read(scratch.path("live/a")).unwrap(), b"new");
    assert_eq!(std::fs::read(scratch.path("restored/a")).unwrap(), b"old");

    let failure = exchange(&scratch.path("live"), &scratch.path("missing")).unwrap_err();
    assert!(
        failure.to_string().contains("missing: No such file"),
        "{failure}"
    );
    symlink("live", scratch.path("link")).unwrap();
    let failure = exchange(&scratch.path("link"), &scratch.path("restored")).unwrap_err();
    assert!(
        failure.to_string().ends_with("it is a symbolic link"),
        "{failure}"
    );
    let failure = exchange(std::path::Path::new("/proc"), &scratch.path("live")).unwrap_err();
    assert!(!failure.hints().is_empty(), "{failure}");
}

#[test]
fn a_name_of_any_bytes_comes_back() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("tree")).unwrap();
    for name in [
        &b"\xff\xfe"[..],
        b"new\nline",
        b"-rf",
        b"caf\xc3\xa9",
        b"%41",
        b" ",
    ] {
        let name = std::ffi::OsStr::from_bytes(name);
        std::fs::write(scratch.path("tree").join(name), name.as_bytes()).unwrap();
    }
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    extracted(&tar, &scratch.path("out")).unwrap();
    assert_same(&scanned(&scratch.path("out")), &inventory);
}

#[test]
fn devices_and_other_file_systems_are_noted_and_not_read() {
    // Every Linux has its terminals there, on a file system of their own.
    let options = ArchiveOptions {
        exclude: vec![Pattern::parse("/[!pz]*").unwrap()],
        skip: vec![],
    };
    let (_, inventory, _) = archived_with("/dev".as_ref(), options).unwrap();
    let noted = |note: &str| inventory.notes.iter().any(|n| n == note);
    assert!(noted("mount point below: pts is not in the backup"));
    assert!(noted("device, not in the backup: zero"));
}

#[test]
fn a_tree_deeper_than_the_limit_is_refused_and_not_cut() {
    let scratch = Scratch::new();
    let deep = format!("tree{}", "/d".repeat(DEPTH_MAX - 1));
    std::fs::create_dir_all(scratch.path(&deep)).unwrap();
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    assert_eq!(inventory.directories, DEPTH_MAX as u64);
    extracted(&tar, &scratch.path("out")).unwrap();
    std::fs::create_dir(scratch.path(&deep).join("e")).unwrap();
    let failure = archived(&scratch.path("tree")).unwrap_err();
    assert!(
        failure
            .to_string()
            .ends_with("lies more than 500 directories deep")
    );
    assert_eq!(failure.hints(), ["move it up in the tree, or exclude it"]);
}

#[test]
fn a_number_that_belongs_to_another_user_here_is_noted() {
    use super::hostile::member;
    let scratch = Scratch::new();
    let mut bytes = member(tar::EntryType::Regular, "f", "", b"x");
    bytes[265..273].copy_from_slice(b"deployer");
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes.extend([0; 1024]);
    let inventory = extracted(&bytes, &scratch.path("out")).unwrap();
    let expected = ["files of `deployer` keep the user number 0, which here belongs to root"];
    assert_eq!(inventory.notes, if am_root() { &expected[..] } else { &[] });
}

#[test]
fn a_closed_root_is_closed_last() {
    let scratch = Scratch::new();
    // These sort in front of the root's own name.
    scratch.file("tree/-a/b", b"x");
    scratch.file("tree/ c/d", b"x");
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    let mut closed = tar.clone();
    // A header for the nanoseconds comes first, unless there are none.
    let header = &mut closed[if tar[156] == b'x' { 1024 } else { 0 }..][..512];
    header[100..107].copy_from_slice(b"0000000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let out = extracted(&closed, &scratch.path("out")).unwrap();
    assert_eq!((out.files, out.directories), (2, 3));
    assert_ne!(out.digest, inventory.digest);
    let mode = scratch.path("out").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0);
}
