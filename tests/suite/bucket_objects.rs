//! `probe` and `clean`: what is written to try a bucket is taken back, and nothing is deleted that
//! was not counted and confirmed.

use crate::site::{Shows, behind, json, made, server};

#[test]
fn a_probe_takes_back_what_it_wrote_and_says_what_the_server_does_not_keep_to() {
    for (name, conditional) in [
        ("SeaweedFS", "refused, as it should be"),
        (
            "JuiceFS",
            "written all the same: the server does not keep to If-None-Match",
        ),
    ] {
        let versioning = if name == "SeaweedFS" {
            "access = \"private\"\nversioning = true"
        } else {
            "access = \"private\""
        };
        let (place, bucket) = made(server(name), versioning);
        let (code, probe) = json(&place, &["probe"]);
        assert_eq!(code, 0, "{probe:#}");
        let steps = probe["buckets"][0]["steps"]
            .as_array()
            .expect("steps")
            .clone();
        let names: Vec<&str> = steps
            .iter()
            .filter_map(|step| step["what"].as_str())
            .collect();
        assert_eq!(
            names,
            [
                "put",
                "get",
                "put if absent",
                "signed link",
                "without a key",
                "delete"
            ],
            "{name}"
        );
        assert_eq!(steps[2]["found"], conditional, "{name}");
        // No version stays behind either.
        let (_, usage) = json(&place, &["usage"]);
        let figures = &usage["buckets"][0];
        assert_eq!(figures["objects"], 0, "{figures:#}");
        assert!(
            figures["old_versions"].as_u64().unwrap_or(0) == 0
                && figures["delete_markers"].as_u64().unwrap_or(0) == 0,
            "{figures:#}"
        );
        assert_eq!(behind(server(name)).keys(&bucket), [""; 0]);
    }
}

#[test]
fn a_probe_of_a_bucket_that_is_more_open_than_declared_is_bad_news() {
    let server = server("SeaweedFS");
    let (place, bucket) = made(server, "access = \"private\"");
    let everybody = serde_json::json!([{"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [format!("arn:aws:s3:::{bucket}/*")]}]);
    behind(server).policy(&bucket, everybody);
    place
        .run("rg-bucket", ["probe"])
        .fails(1)
        .shows("anybody can read an object (HTTP 200 without a key)");
    assert_eq!(behind(server).keys(&bucket), [""; 0]);
}

#[test]
fn a_running_upload_is_left_alone_and_an_abandoned_one_is_dropped() {
    for name in ["SeaweedFS", "JuiceFS"] {
        let (place, bucket) = made(server(name), "");
        let behind = behind(server(name));
        behind.abandon_upload(&bucket, "never", 5 << 20);
        place
            .run("rg-bucket", ["clean", "--yes"])
            .ok()
            .shows("0 abandoned uploads (0 B) were dropped");
        assert_eq!(behind.open_uploads(&bucket), 1, "{name}");
        place
            .run("rg-bucket", ["clean", "--older-than", "0s", "--dry-run"])
            .ok()
            .shows("1 abandoned upload (5.0 MiB) would be dropped");
        place
            .run("rg-bucket", ["clean", "--older-than", "0s"])
            .fails(2);
        assert_eq!(behind.open_uploads(&bucket), 1, "{name}");
        place
            .run("rg-bucket", ["clean", "--older-than", "0s", "--yes"])
            .ok()
            .shows("1 abandoned upload (5.0 MiB) were dropped");
        assert_eq!(behind.open_uploads(&bucket), 0, "{name}");
    }
}

#[test]
fn a_bucket_is_emptied_only_when_its_own_name_is_typed() {
    for name in ["SeaweedFS", "JuiceFS"] {
        let versioning = if name == "SeaweedFS" {
            "versioning = true"
        } else {
            ""
        };
        let (place, bucket) = made(server(name), versioning);
        let behind = behind(server(name));
        behind.put(&bucket, "a", b"1");
        behind.put(&bucket, "a", b"22");
        behind.put(&bucket, "logs/b", b"333");
        let counted = if name == "SeaweedFS" {
            "2 objects, 1 old version and 0 delete markers (6 B)"
        } else {
            "2 objects, 0 old versions and 0 delete markers (5 B)"
        };
        place
            .run("rg-bucket", ["clean", "--all-objects", "--dry-run"])
            .ok()
            .shows(&format!("{counted} would be deleted"));
        // --yes is for uploads; it does not empty a bucket.
        let asked = place
            .run("rg-bucket", ["clean", "--all-objects", "--yes"])
            .fails(2);
        assert!(
            asked
                .err()
                .contains(&format!("not confirmed: delete {counted} from `{bucket}`")),
            "{asked:?}"
        );
        let wrong = place
            .run(
                "rg-bucket",
                ["clean", "--all-objects", "--confirm", "files"],
            )
            .fails(2);
        assert!(
            wrong.err().contains(&format!(
                "not confirmed: `files` is not `{bucket}`; nothing was deleted"
            )),
            "{wrong:?}"
        );
        assert_eq!(behind.keys(&bucket), ["a", "logs/b"], "{name}");
        place
            .run(
                "rg-bucket",
                [
                    "clean",
                    "--all-objects",
                    "--prefix",
                    "logs/",
                    "--confirm",
                    &bucket,
                ],
            )
            .ok();
        assert_eq!(behind.keys(&bucket), ["a"], "{name}");
        place
            .run(
                "rg-bucket",
                ["clean", "--all-objects", "--confirm", &bucket],
            )
            .ok();
        let (_, usage) = json(&place, &["usage"]);
        assert_eq!(
            (
                &usage["buckets"][0]["objects"],
                usage["buckets"][0]["old_versions"].as_u64().unwrap_or(0)
            ),
            (&serde_json::json!(0), 0),
            "{name}"
        );
    }
}
