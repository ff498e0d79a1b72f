//! What is archived is what comes back.

use super::kit::*;

#[test]
fn a_small_tree_comes_back() {
    let scratch = Scratch::new();
    scratch.file("tree/a.txt", b"hello");
    scratch.file("tree/sub/b.txt", &[7; 300_000]);
    scratch.file("tree/sub/empty", b"");
    std::os::unix::fs::symlink("/etc/passwd", scratch.path("tree/link")).unwrap();
    std::fs::hard_link(scratch.path("tree/a.txt"), scratch.path("tree/z")).unwrap();
    let (tar, inventory, _) = archived(&scratch.path("tree")).unwrap();
    let out = extracted(&tar, &scratch.path("out")).unwrap();
    assert_same(&out, &inventory);
    assert_same(&scanned(&scratch.path("out")), &inventory);
    assert_same(&scanned(&scratch.path("tree")), &inventory);
}
