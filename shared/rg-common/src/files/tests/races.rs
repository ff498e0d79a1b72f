//! A tree that changes while it is read: the archive stays an archive, and says so.

use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use super::kit::*;
use crate::files::*;

/// Archives with `race` called right before each name is opened.
fn raced(root: &Path, race: impl FnMut(&[u8]) + Send + 'static) -> (Vec<u8>, FilesInventory) {
    let mut archive = archive(root, ArchiveOptions::default(), |_| Ok(())).unwrap();
    archive.observe(Box::new(race));
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes).unwrap();
    (bytes, archive.finish().unwrap())
}

/// Archives a tree with one large file, with `race` called in the middle of it.
fn raced_in_the_middle(scratch: &Scratch, race: impl FnOnce(&std::fs::File)) -> FilesInventory {
    let path = scratch.file("tree/large", &[1; 1_000_000]);
    let mut archive =
        archive(&scratch.path("tree"), ArchiveOptions::default(), |_| Ok(())).unwrap();
    let mut bytes = vec![0; 300_000];
    archive.read_exact(&mut bytes).unwrap();
    race(&std::fs::File::options().write(true).open(path).unwrap());
    archive.read_to_end(&mut bytes).unwrap();
    let inventory = archive.finish().unwrap();
    let out = extracted(&bytes, &scratch.path("out")).unwrap();
    assert_eq!(out.digest, inventory.digest);
    assert_eq!(
        scanned(&scratch.path("out")).content_digest,
        inventory.content_digest
    );
    assert_eq!((inventory.files, inventory.bytes), (1, 1_000_000));
    inventory
}

#[test]
fn a_file_that_shrinks_is_filled_up_and_counted() {
    let scratch = Scratch::new();
    let inventory = raced_in_the_middle(&scratch, |file| file.set_len(400_000).unwrap());
    assert_eq!(inventory.changed, 1);
    assert_eq!(inventory.notes, ["changed while it was read: large"]);
}

#[test]
fn a_file_that_grows_is_cut_and_counted() {
    let scratch = Scratch::new();
    let inventory = raced_in_the_middle(&scratch, |file| file.set_len(2_000_000).unwrap());
    assert_eq!(inventory.changed, 1);
}

#[test]
fn a_file_overwritten_in_place_is_counted() {
    let scratch = Scratch::new();
    let inventory = raced_in_the_middle(&scratch, |file| file.write_all_at(b"x", 3).unwrap());
    assert_eq!(inventory.changed, 1);
}

#[test]
fn a_file_that_nobody_touches_is_not_counted() {
    let scratch = Scratch::new();
    let inventory = raced_in_the_middle(&scratch, |_| {});
    assert_eq!(inventory.changed, 0);
}

#[test]
fn names_that_vanish_are_counted_and_no_error() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"a");
    scratch.file("tree/b/c", b"c");
    scratch.file("tree/d", b"d");
    symlink("x", scratch.path("tree/e")).unwrap();
    let root = scratch.path("tree");
    let tree = root.clone();
    let (bytes, inventory) = raced(&root, move |path| match path {
        b"a" => std::fs::remove_file(tree.join("a")).unwrap(),
        b"b" => std::fs::remove_dir_all(tree.join("b")).unwrap(),
        b"e" => std::fs::remove_file(tree.join("e")).unwrap(),
        _ => {}
    });
    assert_eq!((inventory.files, inventory.directories), (1, 1));
    assert_eq!(inventory.vanished, 3);
    assert_eq!(inventory.notes[0], "gone before it was read: a");
    extracted(&bytes, &scratch.path("out")).unwrap();
}

#[test]
fn a_file_that_becomes_a_link_is_never_followed() {
    let scratch = Scratch::new();
    scratch.file("secret", b"the secret");
    scratch.file("tree/a", b"a");
    scratch.file("tree/b/c", b"c");
    scratch.file("elsewhere/c", b"the secret");
    let root = scratch.path("tree");
    let tree = root.clone();
    let (bytes, inventory) = raced(&root, move |path| match path {
        b"a" if !tree.join("a").is_symlink() => {
            std::fs::remove_file(tree.join("a")).unwrap();
            symlink("../secret", tree.join("a")).unwrap();
        }
        b"b" if !tree.join("b").is_symlink() => {
            std::fs::rename(tree.join("b"), tree.join("../moved")).unwrap();
            symlink("../elsewhere", tree.join("b")).unwrap();
        }
        _ => {}
    });
    assert_eq!((inventory.files, inventory.links), (0, 2));
    assert_eq!(inventory.changed, 2);
    assert!(!bytes.windows(10).any(|w| w == b"the secret"));
}

#[test]
fn a_directory_moved_away_while_inside_is_still_read_from_itself() {
    let scratch = Scratch::new();
    scratch.file("elsewhere/c", b"the secret");
    scratch.file("tree/b/c", b"right");
    let root = scratch.path("tree");
    let tree = root.clone();
    let (bytes, inventory) = raced(&root, move |path| {
        if path == b"b/c" {
            std::fs::rename(tree.join("b"), tree.join("../moved")).unwrap();
            symlink("../elsewhere", tree.join("b")).unwrap();
        }
    });
    assert_eq!(inventory.files, 1);
    assert!(!bytes.windows(10).any(|w| w == b"the secret"));
}

#[test]
fn a_file_that_becomes_a_directory_is_read_as_one() {
    let scratch = Scratch::new();
    scratch.file("tree/a", b"a");
    let root = scratch.path("tree");
    let tree = root.clone();
    let (_, inventory) = raced(&root, move |path| {
        if path == b"a" && tree.join("a").is_file() {
            std::fs::remove_file(tree.join("a")).unwrap();
            std::fs::create_dir(tree.join("a")).unwrap();
        }
    });
    assert_eq!((inventory.files, inventory.directories), (0, 2));
    assert_eq!(inventory.changed, 1);
}
