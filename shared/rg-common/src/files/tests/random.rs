//! Random trees come back; random damage does no harm.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::kit::*;

/// Names to contents; a content of none is a directory.
type Tree = BTreeMap<Vec<Vec<u8>>, Option<(u8, usize)>>;

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'c', 1 => any::<u8>()];
    prop::collection::vec(byte, 1..130).prop_filter("a possible name", |name| {
        !name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b".."
    })
}

fn tree() -> impl Strategy<Value = Tree> {
    let content = prop::option::of((
        any::<u8>(),
        prop_oneof![0..2000_usize, 100_000..400_000_usize],
    ));
    let path = prop::collection::vec(name(), 1..5);
    prop::collection::btree_map(path, content, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_trees_come_back(tree in tree()) {
        let scratch = Scratch::new();
        let root = scratch.path("tree");
        std::fs::create_dir(&root).unwrap();
        for (path, content) in &tree {
            let mut place = root.clone();
            place.extend(path.iter().map(|name| std::ffi::OsStr::from_bytes(name)));
            // A path through a file or to an existing directory cannot be made; so be it.
            let made = match content {
                None => std::fs::create_dir_all(&place).is_ok(),
                Some((byte, len)) => {
                    std::fs::create_dir_all(place.parent().unwrap()).is_ok()
                        && std::fs::write(&place, vec![*byte; *len]).is_ok()
                }
            };
            prop_assert!(made || place.exists() || !tree.is_empty());
        }
        let (tar, inventory, _) = archived(&root).unwrap();
        let out = extracted(&tar, &scratch.path("out")).unwrap();
        assert_same(&out, &inventory);
        assert_same(&scanned(&scratch.path("out")), &inventory);
    }
}

#[test]
fn flipped_bytes_never_write_outside_and_never_panic() {
    let scratch = Scratch::new();
    furnish_small(&scratch);
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    // A linear congruential generator (Knuth's MMIX): the same damage on every run.
    let mut random = 1_u64;
    let mut next = |bound: usize| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) as usize % bound
    };
    let mut unnoticed = 0;
    for round in 0..400 {
        let mut damaged = tar.clone();
        for _ in 0..=next(4) {
            let at = next(damaged.len());
            damaged[at] = next(256) as u8;
        }
        // Most damage would end at a checksum: mend them, so that the rest is tried as well.
        if round % 2 == 0 {
            mend_checksums(&mut damaged);
        }
        let inside = Scratch::new();
        let got = extracted(&damaged, &inside.path("out"));
        assert_eq!(std::fs::read_dir(&inside.0).unwrap().count(), 1);
        if got.is_ok_and(|out| out.digest == inventory.digest) && damaged != tar {
            unnoticed += 1;
        }
    }
    // What remains is damage in padding and in fields that carry nothing.
    assert!(unnoticed < 320, "{unnoticed}");
    assert_eq!(scratch.names().len(), 8);
}

fn furnish_small(scratch: &Scratch) {
    scratch.file("tree/a", b"a");
    scratch.file("tree/sub/b", b"bbb");
    scratch.file(&format!("tree/sub/{}", "l".repeat(150)), b"");
    std::os::unix::fs::symlink("a", scratch.path("tree/l")).unwrap();
    std::fs::hard_link(scratch.path("tree/a"), scratch.path("tree/z")).unwrap();
    let hole = std::fs::File::create(scratch.path("tree/hole")).unwrap();
    hole.set_len(200_000).unwrap();
}

/// Gives every block that looks like a header its right checksum.
fn mend_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] != b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
