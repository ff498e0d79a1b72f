//! `mirror`: what arrives is proven, what cannot is named, and nothing is deleted by surprise.

use rg_tests::{S3Server, Sandbox};
use serde_json::json;

use crate::site::{Behind, Declared, Fresh, behind, fresh, json, place, server};

const FROM: &str = "production/buckets/from";
const TO: &str = "production/buckets/to";

struct Pair {
    place: Sandbox,
    from: Fresh,
    to: Fresh,
    source: Behind,
    target: Behind,
}

/// Two empty buckets.
fn pair(from_server: &'static S3Server, to_server: &'static S3Server) -> Pair {
    let (from, to) = (fresh(from_server, "from"), fresh(to_server, "to"));
    let place = place(&[
        Declared {
            word: "from",
            server: from_server,
            bucket: &from,
            settings: "",
        },
        Declared {
            word: "to",
            server: to_server,
            bucket: &to,
            settings: "",
        },
    ]);
    place.run("rg-bucket", ["apply", "--yes"]).ok();
    Pair {
        place,
        from,
        to,
        source: behind(from_server),
        target: behind(to_server),
    }
}

impl Pair {
    fn mirror(&self, more: &[&str]) -> (i32, serde_json::Value) {
        let args: Vec<&str> = ["mirror", FROM, TO].iter().chain(more).copied().collect();
        json(&self.place, &args)
    }
}

/// Bytes that no two objects share.
fn bytes(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|n| u8::try_from((n * 31 + seed * 7 + n / 251) % 256).unwrap_or(0))
        .collect()
}

#[test]
fn an_empty_source_is_refused_and_the_target_kept() {
    let pair = pair(server("SeaweedFS"), server("SeaweedFS"));
    pair.target.put(&pair.to, "only-here", b"1");
    let refused = pair
        .place
        .run(
            "rg-bucket",
            [
                "mirror",
                FROM,
                TO,
                "--delete",
                "--max-delete",
                "100%",
                "--yes",
            ],
        )
        .fails(2);
    assert!(
        refused.err().contains(&format!(
            "nothing is mirrored: the source `{}` at ",
            pair.from
        )),
        "{refused:?}"
    );
    assert_eq!(pair.target.keys(&pair.to), ["only-here"]);
}

#[test]
fn deletions_happen_only_when_asked_for_and_below_the_share() {
    let pair = pair(server("SeaweedFS"), server("SeaweedFS"));
    for n in 0..8 {
        pair.source
            .put(&pair.from, &format!("k{n}"), &bytes(n, 100));
    }
    pair.target.put(&pair.to, "extra-1", b"1");
    pair.target.put(&pair.to, "extra-2", b"2");
    let (code, kept) = pair.mirror(&[]);
    assert_eq!(
        (code, &kept["copied"], &kept["extra"], &kept["deleted"]),
        (0, &json!(8), &json!(2), &json!(0)),
        "{kept:#}"
    );
    let refused = pair
        .place
        .run("rg-bucket", ["mirror", FROM, TO, "--delete", "--yes"])
        .fails(2);
    assert!(
        refused.err().contains(&format!(
            "nothing is mirrored: 2 of 10 objects in `{}` at ",
            pair.to
        )),
        "{refused:?}"
    );
    assert!(
        refused.err().contains("would be deleted, more than 10%"),
        "{refused:?}"
    );
    pair.place
        .run(
            "rg-bucket",
            ["mirror", FROM, TO, "--delete", "--max-delete", "20%"],
        )
        .fails(2);
    assert_eq!(pair.target.keys(&pair.to).len(), 10);
    let (code, gone) = pair.mirror(&["--delete", "--max-delete", "20%", "--yes"]);
    assert_eq!(
        (code, &gone["deleted"], &gone["unchanged"]),
        (0, &json!(2), &json!(8)),
        "{gone:#}"
    );
    assert_eq!(pair.target.keys(&pair.to), pair.source.keys(&pair.from));
}

#[test]
fn everything_arrives_with_its_metadata_in_any_order_and_is_not_read_again() {
    // SeaweedFS lists `a/b` before `a-b`, JuiceFS after it.
    for (from, to) in [("SeaweedFS", "JuiceFS"), ("JuiceFS", "SeaweedFS")] {
        let pair = pair(server(from), server(to));
        let keys = ["a/b", "a-b", "a.b", "odd key/ü %41+&.txt", "empty", "big"];
        for (seed, key) in keys.iter().enumerate() {
            let length = match *key {
                "big" => (17 << 20) + 5,
                "empty" => 0,
                _ => 1000,
            };
            let call = pair
                .source
                .client
                .sdk()
                .put_object()
                .bucket(&pair.from)
                .key(*key)
                .body(bytes(seed, length).into());
            let call = call
                .content_type("image/png")
                .cache_control("max-age=60")
                .metadata("who", "me")
                .tagging("colour=green");
            pair.source
                .client
                .call(call.send())
                .unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        let (code, dry) = pair.mirror(&["--dry-run"]);
        assert_eq!((code, &dry["to_copy"]["count"]), (0, &json!(6)), "{dry:#}");
        assert_eq!(pair.target.keys(&pair.to), [""; 0]);
        let (code, first) = pair.mirror(&[]);
        assert_eq!(
            (code, &first["copied"], &first["lost_tags"]),
            (0, &json!(6), &json!(0)),
            "{first:#}"
        );
        for (seed, key) in keys.iter().enumerate() {
            let (source, copy) = (
                pair.source.get(&pair.from, key),
                pair.target.get(&pair.to, key),
            );
            assert!(
                source.is_some() && source == copy,
                "{from} to {to}: {key} ({seed})"
            );
            let head = pair
                .target
                .client
                .call(
                    pair.target
                        .client
                        .sdk()
                        .head_object()
                        .bucket(&pair.to)
                        .key(*key)
                        .send(),
                )
                .expect("a copy");
            assert_eq!(
                (head.content_type(), head.cache_control()),
                (Some("image/png"), Some("max-age=60")),
                "{to}: {key}"
            );
            assert_eq!(
                head.metadata()
                    .and_then(|m| m.get("who"))
                    .map(String::as_str),
                Some("me"),
                "{to}: {key}"
            );
        }
        assert_eq!(pair.target.open_uploads(&pair.to), 0);
        let (_, again) = pair.mirror(&[]);
        assert_eq!(
            (&again["copied"], &again["unchanged"], &again["reread"]),
            (&json!(0), &json!(6), &json!(0)),
            "{again:#}"
        );
        // On request both sides are read, and nothing is written for it.
        let (_, reread) = pair.mirror(&["--reread"]);
        assert_eq!(
            (&reread["copied"], &reread["unchanged"], &reread["reread"]),
            (&json!(0), &json!(6), &json!(6)),
            "{reread:#}"
        );
    }
}

#[test]
fn a_copy_that_somebody_changed_is_found_and_mended() {
    let pair = pair(server("SeaweedFS"), server("SeaweedFS"));
    pair.source.put(&pair.from, "small", &bytes(1, 1000));
    pair.source.put(&pair.from, "big", &bytes(2, 9 << 20));
    pair.mirror(&[]);
    pair.target.put(&pair.to, "small", &bytes(3, 1000));
    pair.target.put(&pair.to, "big", &bytes(4, 9 << 20));
    let (code, mended) = pair.mirror(&[]);
    assert_eq!((code, &mended["copied"]), (0, &json!(2)), "{mended:#}");
    for key in ["small", "big"] {
        assert!(
            pair.source.get(&pair.from, key) == pair.target.get(&pair.to, key),
            "{key}"
        );
    }
}

#[test]
fn without_the_manifest_what_is_the_same_is_compared_and_not_written_again() {
    let pair = pair(server("SeaweedFS"), server("JuiceFS"));
    pair.source.put(&pair.from, "small", &bytes(1, 1000));
    pair.source.put(&pair.from, "big", &bytes(2, 9 << 20));
    pair.mirror(&[]);
    std::fs::remove_dir_all(pair.place.path("state/mirror")).expect("the manifest");
    let (code, again) = pair.mirror(&[]);
    // The tag of what was put in one piece is proof; that of parts is not.
    assert_eq!(
        (
            code,
            &again["copied"],
            &again["unchanged"],
            &again["reread"]
        ),
        (0, &json!(0), &json!(2), &json!(1)),
        "{again:#}"
    );
}

#[test]
fn an_object_that_cannot_be_copied_is_named_and_the_rest_arrives() {
    let pair = pair(server("SeaweedFS"), server("JuiceFS"));
    pair.source.put(&pair.from, "good", b"1");
    // A folder as a console makes it, and a key that a list in XML cannot write.
    pair.source.put(&pair.from, "folder/", b"");
    pair.source.put(&pair.from, "c\u{1}d", b"3");
    let (code, mirrored) = pair.mirror(&[]);
    assert_eq!((code, &mirrored["copied"]), (2, &json!(2)), "{mirrored:#}");
    assert_eq!(
        mirrored["failed"]["first"],
        json!([
            "c\u{fffd}d: the list cannot say this key: it holds a character that XML has no way to write"
        ])
    );
    assert_eq!(pair.target.keys(&pair.to), ["folder/", "good"]);
    assert_eq!(pair.target.open_uploads(&pair.to), 0);
}

#[test]
fn a_run_that_was_killed_goes_on_where_it_was() {
    let pair = pair(server("SeaweedFS"), server("JuiceFS"));
    for n in 0..30 {
        pair.source
            .put(&pair.from, &format!("k{n:02}"), &bytes(n, 1 << 20));
    }
    let running = pair.place.spawn("rg-bucket", ["mirror", FROM, TO]);
    let partial = || {
        pair.place
            .files("state/mirror")
            .into_iter()
            .find(|name| name.ends_with("manifest.partial.jsonl"))
    };
    let lines = || {
        partial().map_or(0, |name| {
            pair.place
                .read(format!("state/mirror/{name}"))
                .lines()
                .count()
        })
    };
    let begun = rg_tests::eventually(std::time::Duration::from_secs(60), || {
        lines() > 5 || !running.is_running()
    });
    running.kill();
    running.wait();
    assert!(begun);
    let proven = lines().saturating_sub(1) as u64;
    let (code, rest) = pair.mirror(&[]);
    assert_eq!(code, 0, "{rest:#}");
    // What was proven counts; only the last line may have been torn.
    assert!(
        rest["unchanged"].as_u64() >= Some(proven.saturating_sub(1)),
        "{proven}: {rest:#}"
    );
    assert_eq!(pair.target.keys(&pair.to), pair.source.keys(&pair.from));
}

#[test]
fn a_bucket_is_not_mirrored_onto_itself() {
    let pair = pair(server("SeaweedFS"), server("SeaweedFS"));
    let refused = pair.place.run("rg-bucket", ["mirror", FROM, FROM]).fails(2);
    assert_eq!(
        refused.err(),
        "rg-bucket: production/buckets/from and production/buckets/from are the same bucket\n"
    );
}

#[test]
fn a_run_that_is_told_to_stop_leaves_no_open_upload() {
    let pair = pair(server("SeaweedFS"), server("JuiceFS"));
    let large = vec![7; 24 << 20];
    for n in 0..4 {
        pair.source.put(&pair.from, &format!("big{n}"), &large);
    }
    let running = pair.place.spawn("rg-bucket", ["mirror", FROM, TO]);
    let begun = rg_tests::eventually(std::time::Duration::from_secs(60), || {
        pair.target.open_uploads(&pair.to) > 0 || !running.is_running()
    });
    assert!(
        begun && running.is_running(),
        "it ended before it could be stopped"
    );
    running.signal(rg_tests::Signal::TERM);
    let ended = running.wait().fails(2);
    assert!(ended.err().contains("stopped by a signal"), "{ended:?}");
    // Four objects of 24 MiB were under way, and none of them whole.
    assert!(ended.rss_kib_max < 128 << 10, "{ended:?}");
    assert_eq!(pair.target.open_uploads(&pair.to), 0);
}
