//! `list`, `usage`, `presign`: what is in a bucket, whole, or said to be cut.

use serde_json::json;

use crate::site::{Declared, Shows, behind, json, made, place, server};

#[test]
fn a_list_that_is_cut_says_so_and_goes_on_where_it_ended() {
    for name in ["SeaweedFS", "JuiceFS"] {
        let (place, bucket) = made(server(name), "");
        let behind = behind(server(name));
        let wanted: Vec<String> = (0..7).map(|n| format!("k{n}")).collect();
        for key in &wanted {
            behind.put(&bucket, key, b"1");
        }
        let mut found: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let mut args = vec!["list", "--limit", "3"];
            if !after.is_empty() {
                args.extend(["--after", &after]);
            }
            let (code, page) = json(&place, &args);
            assert_eq!(code, 0);
            let keys = page["objects"]
                .as_array()
                .expect("rows")
                .iter()
                .map(|row| row["key"].as_str().unwrap_or_default().to_owned());
            found.extend(keys);
            if page["more"] == json!(false) {
                break;
            }
            after = page["next"].as_str().expect("where to go on").to_owned();
        }
        assert_eq!(found, wanted, "{name}");
        place
            .run("rg-bucket", ["list", "--limit", "3"])
            .ok()
            .shows("there is more: --after 'k2'");
    }
}

#[test]
fn a_key_cannot_write_to_the_terminal() {
    let (place, bucket) = made(server("SeaweedFS"), "");
    behind(server("SeaweedFS")).put(&bucket, "a\u{9b}31mred", b"1");
    let list = place.run("rg-bucket", ["list"]).ok();
    assert!(list.out().contains("a\\u{9b}31mred"), "{list:?}");
}

#[test]
fn old_versions_delete_markers_and_open_uploads_are_counted() {
    let server = server("SeaweedFS");
    let (place, bucket) = made(server, "versioning = true");
    let behind = behind(server);
    behind.put(&bucket, "a", b"first");
    behind.put(&bucket, "a", b"second!");
    behind.put(&bucket, "b", b"gone");
    behind
        .client
        .call(
            behind
                .client
                .sdk()
                .delete_object()
                .bucket(&bucket)
                .key("b")
                .send(),
        )
        .expect("deleted");
    behind.abandon_upload(&bucket, "never", 100);
    let (code, usage) = json(&place, &["usage"]);
    assert_eq!(code, 0);
    let found = &usage["buckets"][0];
    let figures = [
        "objects",
        "bytes",
        "old_versions",
        "old_version_bytes",
        "delete_markers",
        "open_uploads",
        "open_upload_bytes",
    ];
    assert_eq!(
        figures.map(|name| found[name].as_u64()),
        [1, 7, 2, 9, 1, 1, 100].map(Some),
        "{found:#}"
    );
    let (_, versions) = json(&place, &["list", "--versions"]);
    assert_eq!(
        versions["objects"].as_array().map(Vec::len),
        Some(4),
        "{versions:#}"
    );
}

#[test]
fn a_bucket_that_is_not_there_is_not_an_empty_one() {
    let server = server("SeaweedFS");
    let place = place(&[Declared {
        word: "files",
        server,
        bucket: "rg-not-there",
        settings: "",
    }]);
    let list = place.run("rg-bucket", ["list"]).fails(2);
    assert!(
        list.err()
            .contains("cannot list the bucket `rg-not-there`: there is no such bucket at"),
        "{list:?}"
    );
    place
        .run("rg-bucket", ["usage"])
        .fails(2)
        .shows("there is no such bucket at");
    place
        .run("rg-bucket", ["probe"])
        .fails(2)
        .shows("there is no such bucket at");
}

#[test]
fn a_link_is_refused_where_it_could_not_work_and_nothing_else_is_printed() {
    let server = server("SeaweedFS");
    let (place, bucket) = made(server, "");
    behind(server).put(&bucket, "report.pdf", b"content");
    let refused = |args: &[&str], words: &str| {
        let output = place.run("rg-bucket", args.iter().copied()).fails(2);
        assert!(output.err().contains(words), "{output:?}");
        assert_eq!(output.out(), "");
    };
    refused(
        &["presign", "report.pdf"],
        "which works on this machine only\nhint: name the service's public address with --endpoint https://…, or say --loopback",
    );
    refused(
        &["presign", "report.pdf", "--expires", "8d"],
        "a link cannot hold for 8d\nhint: from 1s to 7d",
    );
    refused(
        &["presign", "report.pdf", "--expires", "soon"],
        "`soon` is not a span of time",
    );
    refused(
        &["presign", "no-such", "--loopback"],
        "cannot sign a link to no-such in the bucket",
    );
    let link = place
        .run(
            "rg-bucket",
            ["presign", "report.pdf", "--loopback", "--expires", "5m"],
        )
        .ok();
    assert_eq!(link.err(), "");
    let link = link.out();
    assert_eq!(link.lines().count(), 1, "{link}");
    assert!(
        link.starts_with(&server.endpoint()) && link.contains("X-Amz-Expires=300"),
        "{link}"
    );
    let public = place
        .run(
            "rg-bucket",
            [
                "presign",
                "report.pdf",
                "--endpoint",
                "https://files.example.org",
            ],
        )
        .ok();
    assert!(
        public
            .out()
            .starts_with(&format!("https://files.example.org/{bucket}/report.pdf?")),
        "{public:?}"
    );
}
