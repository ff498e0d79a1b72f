//! Archives made to do harm: each is refused with its reason, and nothing lands outside.

use tar::{EntryType, Header};

use super::kit::*;
use crate::files::*;

/// One member, built by hand so that nothing checks it on the way in.
pub fn member(kind: EntryType, path: &str, link: &str, data: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(path: &str) -> Vec<u8> {
    member(EntryType::Regular, path, "", b"harm")
}

fn directory(path: &str) -> Vec<u8> {
    member(EntryType::Directory, path, "", b"")
}

fn symlink(path: &str, to: &str) -> Vec<u8> {
    member(EntryType::Symlink, path, to, b"")
}

fn hard_link(path: &str, to: &str) -> Vec<u8> {
    member(EntryType::Link, path, to, b"")
}

/// Extracts and says why not; nothing but the target may have appeared.
fn refusal(members: &[Vec<u8>]) -> String {
    refusal_with(members, trusting())
}

fn refusal_with(members: &[Vec<u8>], options: ExtractOptions) -> String {
    let scratch = Scratch::new();
    scratch.file("outside/victim", b"untouched");
    let bytes = [&members.concat()[..], &[0; 1024]].concat();
    let failure = extract(&bytes[..], &scratch.path("out"), options, &mut |_| Ok(()));
    let names = scratch.names();
    let outside = names
        .iter()
        .filter(|n| *n != "out" && !n.starts_with("out/"));
    assert_eq!(outside.collect::<Vec<_>>(), ["outside", "outside/victim"]);
    let victim = std::fs::read(scratch.path("outside/victim")).unwrap();
    assert_eq!(victim, b"untouched");
    failure.unwrap_err().to_string()
}

#[test]
fn hostile_members_are_refused_with_their_reason() {
    let cases: &[(&[Vec<u8>], &str)] = &[
        (
            &[file("/tmp/x")],
            "cannot extract `/tmp/x`: refused: an absolute path",
        ),
        (
            &[file("a/../../outside/x")],
            "cannot extract `a/../../outside/x`: refused: a path that climbs out with `..`",
        ),
        (
            &[symlink("l", "../outside"), file("l/x")],
            "cannot extract `l/x`: refused: a path through the symbolic link in `l`",
        ),
        (
            &[symlink("l", "."), file("l/x")],
            "cannot extract `l/x`: refused: a path through the symbolic link in `l`",
        ),
        (
            &[
                directory("d"),
                symlink("d/up", ".."),
                symlink("d/l", "up/../outside"),
                file("d/l/x"),
            ],
            "cannot extract `d/l/x`: refused: a path through the symbolic link in `d/l`",
        ),
        (
            &[symlink("l", "../outside/victim"), file("l")],
            "cannot extract `l`: refused: the same name comes twice",
        ),
        (
            &[directory("d"), symlink("d", "../outside"), file("d/x")],
            "cannot extract `d`: refused: the same name comes twice",
        ),
        (
            &[symlink("d", "../outside"), directory("d")],
            "cannot extract `d`: refused: the same name comes twice",
        ),
        (
            &[directory("d"), directory("./d/")],
            "cannot extract `./d/`: refused: the same name comes twice",
        ),
        (
            &[file("f"), file("f/x")],
            "cannot extract `f/x`: refused: a path through `f`, which is no directory",
        ),
        (
            &[hard_link("h", "../outside/victim")],
            "cannot extract `h`: a hard link's target: refused: a path that climbs out with `..`",
        ),
        (
            &[hard_link("h", "/etc/passwd")],
            "cannot extract `h`: a hard link's target: refused: an absolute path",
        ),
        (
            &[symlink("l", "../outside"), hard_link("h", "l/victim")],
            "cannot extract `h`: a hard link to `l/victim`: refused: a path through the symbolic link in `l`",
        ),
        (
            &[symlink("l", "../outside/victim"), hard_link("h", "l")],
            "cannot extract `h`: a hard link to `l`: refused: a hard link to something that is no file",
        ),
        (
            &[hard_link("h", "missing")],
            "cannot extract `h`: a hard link to `missing`: No such file or directory (os error 2)",
        ),
        (
            &[member(EntryType::Block, "b", "", b"")],
            "cannot extract `b`: refused: a device has no place in a backup of files",
        ),
        (
            &[member(EntryType::Char, "c", "", b"")],
            "cannot extract `c`: refused: a device has no place in a backup of files",
        ),
        (
            &[symlink(".", "../outside")],
            "cannot extract `.`: refused: the root can only be a directory",
        ),
        (
            &[symlink("l", "")],
            "cannot extract `l`: refused: a symbolic link with an impossible target",
        ),
        (&[file("")], "cannot extract ``: refused: an empty path"),
        (
            &[member(EntryType::new(b'D'), "dump", "", b"")],
            "the archive holds a member of the unknown type `D`, near byte 512",
        ),
    ];
    for (members, reason) in cases {
        assert_eq!(refusal(members), *reason);
    }
}

#[test]
fn more_than_the_limits_allow_is_refused_at_once() {
    let options = |entries_max, bytes_max, path_max| ExtractOptions {
        limits: Limits {
            entries_max,
            bytes_max,
            path_max,
        },
        ..trusting()
    };
    let many: Vec<_> = (0..10).map(|n| file(&format!("f{n}"))).collect();
    assert_eq!(
        refusal_with(&many, options(5, 1000, 100)),
        "cannot extract `f4`: refused: it holds more than 5 names"
    );
    assert_eq!(
        refusal_with(&many, options(100, 30, 100)),
        "cannot extract `f7`: refused: it holds more than 30 bytes"
    );
    assert_eq!(
        refusal_with(&[file("abcdef")], options(100, 30, 5)),
        "cannot extract `abcdef`: refused: a path that is too long"
    );
    // Directories that nobody described count as well.
    assert_eq!(
        refusal_with(&[file("a/b/c/d"), file("x")], options(5, 1000, 100)),
        "cannot extract `x`: refused: it holds more than 5 names"
    );
}

#[test]
fn a_size_that_was_only_declared_writes_nothing() {
    let mut bomb = Header::new_gnu();
    bomb.set_entry_type(EntryType::Regular);
    bomb.as_old_mut().name[0] = b'b';
    bomb.set_mode(0o644);
    bomb.set_uid(0);
    bomb.set_gid(0);
    bomb.set_mtime(0);
    bomb.set_size(1 << 60);
    bomb.set_cksum();
    assert_eq!(
        refusal(&[bomb.as_bytes().to_vec()]),
        "cannot extract `b`: refused: it holds more than 1099511627776 bytes"
    );
}

#[test]
fn oversized_and_malformed_headers_are_refused_before_memory_is_taken() {
    let mut oversized = Header::new_ustar();
    oversized.set_entry_type(EntryType::XHeader);
    oversized.set_size(7 << 30);
    oversized.set_cksum();
    assert_eq!(
        refusal(&[oversized.as_bytes().to_vec()]),
        "the archive holds an oversized extended header, near byte 512"
    );
    let extended = |text: &[u8]| member(EntryType::XHeader, "x", "", text);
    for text in [
        &b"99 path=x\n"[..],
        b"no",
        b"9 path=xy",
        b"0 a=b\n",
        b"18 size=-1abcdefgh\n",
    ] {
        assert_eq!(
            refusal(&[extended(text), file("f")]),
            "the archive holds a malformed extended header, near byte 1024"
        );
    }
    let endless = vec![extended(b"8 a=bcd\n"); 100];
    assert!(refusal(&endless).starts_with("the archive holds too many extended headers"));
    assert!(
        refusal(&[
            member(EntryType::XGlobalHeader, "g", "", b"9 path=x\n"),
            file("f")
        ])
        .starts_with("the archive holds an extended header for all members")
    );
    // A name from an extended header is judged like any other.
    assert_eq!(
        refusal(&[extended(b"17 path=../../up\n"), file("f")]),
        "cannot extract `../../up`: refused: a path that climbs out with `..`"
    );
    assert_eq!(
        refusal(&[extended(b"12 path=a\0b\n"), file("f")]),
        "cannot extract `a%00b`: refused: a path with a NUL"
    );
}

#[test]
fn maps_of_holes_that_lie_are_refused() {
    let sparse = |map: &str, size: u64, data: &[u8]| {
        let mut records = String::new();
        for record in [
            "22 GNU.sparse.major=1\n".to_owned(),
            "22 GNU.sparse.minor=0\n".to_owned(),
            format!(
                "{} GNU.sparse.realsize={size}\n",
                24 + size.to_string().len()
            ),
        ] {
            records += &record;
        }
        let mut body = map.as_bytes().to_vec();
        body.resize(512, 0);
        body.extend(data);
        [
            member(EntryType::XHeader, "x", "", records.as_bytes()),
            member(EntryType::Regular, "f", "", &body),
        ]
    };
    let fit = "the archive holds a map of a file with holes that does not fit its data";
    for (map, size, reason) in [
        ("1\n0\n5\n", 100, fit),
        ("1\n99\n4\n", 100, fit),
        ("2\n50\n2\n0\n2\n", 100, fit),
        ("1\n18446744073709551615\n4\n", 100, fit),
        (
            "2000000\n",
            100,
            "the archive holds a file with too many holes",
        ),
        (
            "1\nx\n",
            100,
            "the archive holds a malformed map of a file with holes",
        ),
    ] {
        let failure = refusal(&sparse(map, size, b"data"));
        assert!(failure.starts_with(reason), "{map:?}: {failure}");
    }
    let scratch = Scratch::new();
    let bytes = [&sparse("1\n10\n4\n", 100, b"data").concat()[..], &[0; 1024]].concat();
    extracted(&bytes, &scratch.path("out")).unwrap();
    let found = std::fs::read(scratch.path("out/f")).unwrap();
    assert_eq!((found.len(), &found[10..14]), (100, &b"data"[..]));
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    let scratch = Scratch::new();
    let whole = [&directory("d")[..], &file("d/f"), &file("g"), &[0; 1024]].concat();
    extracted(&whole, &scratch.path("whole")).unwrap();
    for len in (0..whole.len()).step_by(256) {
        let out = scratch.path(&format!("out{len}"));
        let failure = extracted(&whole[..len], &out).unwrap_err().to_string();
        assert!(
            failure.contains("the archive ends too early"),
            "{len}: {failure}"
        );
    }
    let doubled = [&whole[..], &file("second"), &[0; 1024]].concat();
    let failure = extracted(&doubled, &scratch.path("doubled")).unwrap_err();
    assert!(failure.to_string().contains("something behind its end"));
}

#[test]
fn an_error_at_the_very_end_of_the_stream_is_not_lost() {
    struct Ends<'a>(&'a [u8]);
    impl std::io::Read for Ends<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            match std::io::Read::read(&mut self.0, buf)? {
                0 => Err(crate::Failure::new("the digest differs").into_io()),
                n => Ok(n),
            }
        }
    }
    let scratch = Scratch::new();
    let whole = [&file("f")[..], &[0; 1024]].concat();
    let got = extract(Ends(&whole), &scratch.path("out"), trusting(), &mut |_| {
        Ok(())
    });
    assert_eq!(got.unwrap_err().to_string(), "the digest differs");
}

#[test]
fn set_id_bits_are_dropped_unless_asked_for() {
    let scratch = Scratch::new();
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.as_old_mut().name[0] = b's';
    header.set_mode(0o6755);
    header.set_size(0);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(0);
    header.set_cksum();
    let bytes = [&header.as_bytes()[..], &[0; 1024]].concat();
    use std::os::unix::fs::PermissionsExt;
    for (allow_setuid, mode) in [(false, 0o755), (true, 0o6755)] {
        let out = scratch.path(&format!("out-{allow_setuid}"));
        let options = ExtractOptions {
            allow_setuid,
            ..trusting()
        };
        let inventory = extract(&bytes[..], &out, options, &mut |_| Ok(())).unwrap();
        let found = out.join("s").metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode);
        assert_eq!(inventory.notes.is_empty(), allow_setuid);
    }
}
