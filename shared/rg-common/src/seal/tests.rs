//! The promises of both directions, for every recipe.

use std::fs;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use ::age::secrecy::ExposeSecret;
use ::age::x25519::Identity;
use proptest::prelude::*;

use super::*;
use crate::program::Program;

/// Some keys: two recipients' identities and a stranger's.
struct Keys {
    recipients: Recipients,
    first: Identities,
    second: Identities,
    stranger: Identities,
}

fn keys() -> Keys {
    let [first, second, stranger] = [(); 3].map(|()| Identity::generate());
    let public = [first.to_public(), second.to_public()].map(|key| key.to_string());
    let identities = |identity: &Identity| {
        Identities::parse(identity.to_string().expose_secret()).expect("a fresh identity")
    };
    Keys {
        recipients: Recipients::parse(public).expect("fresh recipients"),
        first: identities(&first),
        second: identities(&second),
        stranger: identities(&stranger),
    }
}

fn recipes(keys: &Keys) -> Vec<Recipe> {
    let compressions = [
        Compression::ZSTD,
        Compression::Zstd {
            level: 3,
            threads: 0,
        },
        Compression::GZIP,
        Compression::None,
    ];
    let mut recipes = Vec::new();
    for compression in compressions {
        for recipients in [Recipients::default(), keys.recipients.clone()] {
            recipes.push(Recipe {
                compression,
                recipients,
            });
        }
    }
    recipes
}

/// Text with numbers, as a dump has it; the same for the same arguments.
fn rows(bytes: usize, seed: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 100);
    let mut state = seed | 1;
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let row = format!(
            "{}\t{:016x}\t2026-01-{:02} 02:00:00+00\t{{\"state\": \"done\", \"exit\": {}}}\n",
            text.len(),
            state,
            state % 28 + 1,
            state % 3
        );
        text.extend_from_slice(row.as_bytes());
    }
    text.truncate(bytes);
    text
}

fn sealed(plain: impl Read, recipe: &Recipe) -> Result<(Vec<u8>, Digests)> {
    let mut sealer = seal(plain, recipe)?;
    let mut stored = Vec::new();
    let read = sealer.read_to_end(&mut stored);
    read.map_err(|error| Failure::from_io("cannot seal", error))?;
    let (_, digests) = sealer.finish()?;
    Ok((stored, digests))
}

fn opened(stored: impl Read, name: &str, keys: &Keys) -> Result<(Vec<u8>, Digests)> {
    let mut opener = open(stored, name, Some(&keys.second))?;
    let mut plain = Vec::new();
    let read = opener.read_to_end(&mut plain);
    read.map_err(|error| Failure::from_io("cannot open", error))?;
    let (_, digests) = opener.finish()?;
    Ok((plain, digests))
}

/// Gives `left` bytes of `source`, then fails with a failure.
struct FailAfter<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for FailAfter<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(Failure::new("pg_dump ended with exit status 1")
                .hint("look at its messages above")
                .into_io());
        }
        let n = (&mut self.source).take(self.left).read(buf)?;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Gives pieces of the given lengths, over and over, with an interruption between any two.
struct Pieces<R> {
    source: R,
    lengths: Vec<usize>,
    turn: usize,
}

impl<R: Read> Read for Pieces<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = self.lengths[(self.turn / 2) % self.lengths.len()];
        let length = length.min(buf.len());
        self.source.read(&mut buf[..length])
    }
}

/// A file of its own, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("rg-seal-{}-{name}", std::process::id()));
        fs::write(&path, content).expect("a file in the temporary directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).expect("the file is still there");
    }
}

#[test]
fn a_source_that_dies_half_way_never_ends_cleanly() {
    let keys = keys();
    let plain = rows(3_000_000, 1);
    for recipe in recipes(&keys) {
        for left in [0, 1, 70_000, 2_999_999, 3_000_000] {
            let source = FailAfter {
                source: &plain[..],
                left,
            };
            let failure = sealed(source, &recipe).unwrap_err();
            assert_eq!(failure.to_string(), "pg_dump ended with exit status 1");
            assert_eq!(failure.hints(), ["look at its messages above"]);
        }
        let (stored, _) = sealed(&plain[..], &recipe).unwrap();
        for left in [0, 1, 100, stored.len() / 2, stored.len()] {
            let source = FailAfter {
                source: &stored[..],
                left: left as u64,
            };
            let failure = opened(source, &recipe.extension(), &keys).unwrap_err();
            assert_eq!(failure.to_string(), "pg_dump ended with exit status 1");
            assert_eq!(failure.hints(), ["look at its messages above"]);
        }
    }
}

#[test]
fn a_failed_stream_stays_failed_and_cannot_be_finished() {
    let keys = keys();
    let plain = rows(10, 1);
    for recipe in recipes(&keys) {
        let source = FailAfter {
            source: &plain[..],
            left: 10,
        };
        let mut sealer = seal(source, &recipe).unwrap();
        io::copy(&mut sealer, &mut io::sink()).unwrap_err();
        sealer.read(&mut [0]).unwrap_err();
        assert!(sealer.finish().is_err());

        let mut unread = seal(&plain[..], &recipe).unwrap();
        unread.read_exact(&mut [0; 4]).unwrap();
        assert!(unread.finish().is_err());
    }
}

#[test]
fn every_size_comes_back_as_it_was() {
    let keys = keys();
    let (k64, m1) = (64 << 10, 1 << 20);
    let sizes = [0, 1, k64 - 1, k64, k64 + 1, m1 - 1, m1, m1 + 1, 5_000_000];
    for recipe in recipes(&keys) {
        for size in sizes {
            let plain = rows(size, 7);
            let (stored, sealing) = sealed(&plain[..], &recipe).unwrap();
            let (back, opening) = opened(&stored[..], &recipe.extension(), &keys).unwrap();
            assert!(back == plain, "{size} bytes, {}", recipe.extension());
            assert_eq!(sealing, opening);
            assert_eq!(sealing.plain_bytes, size as u64);
            let stored = stored_digest(&stored[..]).unwrap();
            assert_eq!(stored, (sealing.stored_bytes, sealing.stored_sha256));
        }
    }
}

#[test]
fn bytes_cut_off_anywhere_are_missed() {
    let keys = keys();
    let plain = rows(400_000, 3);
    for recipe in recipes(&keys) {
        let (stored, digests) = sealed(&plain[..], &recipe).unwrap();
        let step = stored.len() / 200;
        let ends = (0..stored.len()).filter(|&at| at < 70 || at % step == 0);
        for end in ends.chain(stored.len() - 30..stored.len()) {
            match opened(&stored[..end], &recipe.extension(), &keys) {
                // Without a layer only the manifest's digest can tell.
                Ok((_, cut)) => {
                    assert_eq!(recipe.extension(), "", "cut at {end}");
                    assert_ne!(cut, digests);
                }
                Err(failure) => {
                    let message = failure.to_string();
                    let layers = ["zstd", "gzip", "age"];
                    assert!(
                        layers.iter().any(|layer| message.contains(layer)),
                        "{message}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_never_gives_other_content() {
    let keys = keys();
    let plain = rows(200_000, 4);
    for recipe in recipes(&keys) {
        let (mut stored, digests) = sealed(&plain[..], &recipe).unwrap();
        let mut at = 0;
        for turn in 0..400 {
            at = if turn < 80 { turn } else { at * 31 + 7_919 } % stored.len();
            let bit = 1 << (turn % 8);
            stored[at] ^= bit;
            if let Ok((back, flipped)) = opened(&stored[..], &recipe.extension(), &keys) {
                // Some bits of a header mean nothing; the stored digest still tells.
                assert_ne!(flipped.stored_sha256, digests.stored_sha256);
                let layered = !recipe.extension().is_empty();
                assert!(
                    !layered || back == plain,
                    "byte {at}, {}",
                    recipe.extension()
                );
            }
            stored[at] ^= bit;
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let keys = keys();
    for recipe in recipes(&keys)
        .into_iter()
        .filter(|r| !r.extension().is_empty())
    {
        for size in [0, 1_000, 64 << 10, 300_000] {
            let (stored, _) = sealed(&rows(size, 5)[..], &recipe).unwrap();
            for tail in [
                &b"\0"[..],
                b"x",
                b"\x1f\x8b",
                b"garbage after the end of it",
                &[0; 70_000],
            ] {
                let with_tail = (&stored[..]).chain(tail);
                let name = recipe.extension();
                assert!(
                    opened(with_tail, &name, &keys).is_err(),
                    "{size} {name} {tail:?}"
                );
            }
        }
    }
}

#[test]
fn short_and_interrupted_reads_change_nothing() {
    let keys = keys();
    let plain = rows(100_000, 6);
    for recipe in recipes(&keys) {
        let pieces = |source| Pieces {
            source: Cursor::new(source),
            lengths: (1..8).collect(),
            turn: 0,
        };
        let (stored, sealing) = sealed(pieces(plain.clone()), &recipe).unwrap();
        let (back, opening) = opened(pieces(stored), &recipe.extension(), &keys).unwrap();
        assert!(back == plain);
        assert_eq!(sealing, opening);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_chunking_on_either_side_gives_the_same(
        size in 0usize..1_500_000,
        lengths in proptest::collection::vec(1usize..400_000, 1..6),
        recipe in 0usize..8,
    ) {
        let keys = keys();
        let recipe = &recipes(&keys)[recipe];
        let plain = rows(size, size as u64);
        let source = Pieces { source: &plain[..], lengths: lengths.clone(), turn: 0 };
        let mut sealer = seal(source, recipe).unwrap();
        let mut stored = Vec::new();
        let mut buffer = vec![0; lengths[0]];
        loop {
            match sealer.read(&mut buffer).unwrap() {
                0 => break,
                n => stored.extend_from_slice(&buffer[..n]),
            }
        }
        let source = Pieces { source: &stored[..], lengths, turn: 0 };
        let (back, opening) = opened(source, &recipe.extension(), &keys).unwrap();
        prop_assert!(back == plain);
        prop_assert_eq!(sealer.finish().unwrap().1, opening);
    }
}

#[test]
fn the_standard_programs_read_what_we_write() {
    let plain = rows(2_500_000, 8);
    for (compression, program) in [(Compression::ZSTD, "zstd"), (Compression::GZIP, "gzip")] {
        let recipe = Recipe {
            compression,
            recipients: Recipients::default(),
        };
        let (stored, _) = sealed(&plain[..], &recipe).unwrap();
        let file = Scratch::new(&format!("standard{}", recipe.extension()), &stored);
        let program = Program::new(program).arg("-dc").arg(&file.0);
        assert!(program.output(plain.len()).unwrap() == plain);
    }
}

#[test]
fn gzip_tells_the_size_and_any_reader_of_one_member_reads_all() {
    let plain = rows(2_500_000, 9);
    let recipe = Recipe {
        compression: Compression::GZIP,
        recipients: Recipients::default(),
    };
    let (stored, _) = sealed(&plain[..], &recipe).unwrap();
    let mut first_member = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(&stored[..]);
    reader.read_to_end(&mut first_member).unwrap();
    assert!(first_member == plain);

    let file = Scratch::new("listed.gz", &stored);
    let list = Program::new("gzip").arg("-l").arg(&file.0);
    let list = String::from_utf8(list.output(4096).unwrap()).unwrap();
    assert!(list.contains(" 2500000 "), "{list}");
}

#[test]
fn members_and_frames_of_others_are_read_to_the_last() {
    let keys = keys();
    let mut members = Vec::new();
    let mut frames = Vec::new();
    let mut plain = Vec::new();
    for part in [rows(50_000, 1), Vec::new(), rows(1_000, 2)] {
        let level = flate2::Compression::new(6);
        let mut member = flate2::read::GzEncoder::new(&part[..], level);
        member.read_to_end(&mut members).unwrap();
        frames.extend(::zstd::encode_all(&part[..], 3).unwrap());
        plain.extend(part);
    }
    assert!(opened(&members[..], "uploads.tar.gz", &keys).unwrap().0 == plain);
    assert!(opened(&frames[..], "uploads.tar.zst", &keys).unwrap().0 == plain);
    members.truncate(members.len() - 1);
    frames.truncate(frames.len() - 1);
    assert!(opened(&members[..], "uploads.tar.gz", &keys).is_err());
    assert!(opened(&frames[..], "uploads.tar.zst", &keys).is_err());
}

#[test]
fn only_a_recipients_identity_opens_and_a_missing_one_is_asked_for() {
    let keys = keys();
    let recipe = Recipe {
        compression: Compression::ZSTD,
        recipients: keys.recipients.clone(),
    };
    let (stored, _) = sealed(&rows(1_000, 1)[..], &recipe).unwrap();
    let refusal = |identities| {
        let failure = open(&stored[..], "a.dump.zst.age", identities).err();
        failure.expect("it must not open")
    };
    let missing = refusal(None);
    assert_eq!(
        format!("{missing:?}"),
        "`a.dump.zst.age` is encrypted, and no identity was given\n\
         hint: the identity is kept off the server; pass it with --identity FILE"
    );
    let stranger = refusal(Some(&keys.stranger));
    assert_eq!(
        format!("{stranger:?}"),
        "none of the given identities can decrypt this\n\
         hint: it was encrypted to other public keys; pass the identity of one of these with --identity FILE"
    );
    assert!(open(&stored[..], "a.dump.zst.age", Some(&keys.first)).is_ok());
}

#[test]
fn what_is_not_age_is_said_to_be_so() {
    let keys = keys();
    for content in ["PGDMP and so on", "-----BEGIN AGE ENCRYPTED FILE-----\n"] {
        let failure = opened(content.as_bytes(), "a.dump.age", &keys).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "not encrypted with age (version 1, binary)"
        );
    }
    let endless = b"age-encryption.org/v1\n".chain(io::repeat(b'-'));
    let failure = opened(endless, "a.dump.age", &keys).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the age data is damaged or cut short: its header has no end"
    );
}

#[test]
fn a_recipient_that_is_none_is_named_unless_it_is_secret() {
    let failure = |key: &str| format!("{:?}", Recipients::parse([key]).unwrap_err());
    assert_eq!(
        failure("age1qqqq"),
        "`age1qqqq` is not an age public key\n\
         hint: it looks like `age1` and 58 more letters and digits; `age-keygen -y FILE` prints it again"
    );
    assert_eq!(
        failure("ssh-ed25519 AAAA"),
        "`ssh-ed25519 AAAA` is not an age public key\n\
         hint: only X25519 keys are supported; `age-keygen` makes one"
    );
    let secret = Identity::generate().to_string();
    let told = failure(secret.expose_secret());
    assert!(!told.contains(&secret.expose_secret()[..20]), "{told}");
}

#[test]
fn a_recipient_given_twice_counts_once() {
    let key = Identity::generate().to_public().to_string();
    let once = Recipients::parse([&key]).unwrap();
    assert_eq!(
        Recipients::parse([&key, &format!(" {key}\n")]).unwrap(),
        once
    );
    assert!(Recipients::parse([""; 0]).unwrap().is_empty());
}

#[test]
fn an_identity_file_is_read_with_comments_and_never_shown() {
    let identity = Identity::generate();
    let secret = identity.to_string();
    let text = format!("# created: today\n\n{}\n", secret.expose_secret());
    let file = Scratch::new("identity", text.as_bytes());
    let identities = Identities::from_file(&file.0).unwrap();
    assert_eq!(format!("{identities:?}"), "***");

    let damaged = text.replace("KEY-1", "KEY-1Q");
    let file = Scratch::new("damaged-identity", damaged.as_bytes());
    let failure = Identities::from_file(&file.0).unwrap_err();
    let told = format!("{failure:?}");
    assert!(told.contains("holds no age secret key in line 3"), "{told}");
    assert!(!told.contains(&secret.expose_secret()[18..40]), "{told}");
}

#[test]
fn an_identity_file_of_another_kind_is_refused() {
    let cases = [
        ("", "holds no secret key"),
        ("# nothing\n", "holds no secret key"),
        ("age-encryption.org/v1\n", "is itself encrypted"),
        (
            "-----BEGIN AGE ENCRYPTED FILE-----\n",
            "is itself encrypted",
        ),
        ("age1abc\n", "holds a public key in line 1"),
        (
            "AGE-PLUGIN-YUBIKEY-1QQ\n",
            "holds no age secret key in line 1",
        ),
    ];
    for (content, problem) in cases {
        let file = Scratch::new("other-identity", content.as_bytes());
        let failure = Identities::from_file(&file.0).unwrap_err();
        let expected = format!("the identity file {} {problem}", file.0.display());
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.hints().len(), 1);
    }
}

#[test]
fn a_level_that_a_format_does_not_have_is_refused() {
    let recipe = |compression| Recipe {
        compression,
        recipients: Recipients::default(),
    };
    for compression in [
        Compression::Zstd {
            level: 0,
            threads: 2,
        },
        Compression::Zstd {
            level: 20,
            threads: 2,
        },
        Compression::Gzip {
            level: 10,
            threads: 2,
        },
    ] {
        assert!(seal(io::empty(), &recipe(compression)).is_err());
    }
}

#[test]
fn both_directions_can_move_to_another_thread() {
    fn sendable(_: &impl Send) {}
    let keys = keys();
    for recipe in recipes(&keys) {
        let sealer = seal(&b"plain"[..], &recipe).unwrap();
        sendable(&sealer);
        let opener = open(sealer, &recipe.extension(), Some(&keys.first)).unwrap();
        sendable(&opener);
        let plain = std::thread::scope(|scope| {
            let opening = scope.spawn(|| io::read_to_string(opener));
            opening.join().unwrap().unwrap()
        });
        assert_eq!(plain, "plain");
    }
}

#[test]
fn the_extension_names_the_layers_outermost_last() {
    let extensions: Vec<_> = recipes(&keys()).iter().map(Recipe::extension).collect();
    let expected = [
        ".zst", ".zst.age", ".zst", ".zst.age", ".gz", ".gz.age", "", ".age",
    ];
    assert_eq!(extensions, expected);
}
