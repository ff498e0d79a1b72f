//! `plan` and `apply`: drift is found, said and mended; who may read is proven, not believed.

use rg_tests::S3Key;
use serde_json::json;

use crate::site::{Declared, Shows, behind, declare, fresh, json, made, place, server};

const BOTH: [&str; 2] = ["SeaweedFS", "JuiceFS"];

/// What `mc anonymous set download` writes: everybody may list.
fn downloads(bucket: &str) -> serde_json::Value {
    json!([
        {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetBucketLocation", "s3:ListBucket"], "Resource": [format!("arn:aws:s3:::{bucket}")]},
        {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"], "Resource": [format!("arn:aws:s3:::{bucket}/*")]},
    ])
}

#[test]
fn a_bucket_that_everybody_can_list_is_found_and_closed() {
    for name in BOTH {
        let (place, bucket) = made(server(name), "access = \"public-read\"");
        let behind = behind(server(name));
        behind.put(&bucket, "report.pdf", b"content");
        behind.policy(&bucket, downloads(&bucket));
        let plan = place.run("rg-bucket", ["plan"]).fails(1);
        assert_eq!(
            plan.out(),
            format!(
                "production/buckets/files  `{bucket}` at {}\n  policy\n    - anybody may s3:GetBucketLocation on arn:aws:s3:::{bucket}\n    - anybody may s3:ListBucket on arn:aws:s3:::{bucket}\n  ✗  anybody can list the keys (HTTP 200 without a key)\n  ⚠  public: anybody who knows an object's key can read it (access = \"public-read\")\n  without a key: GET 200, LIST 200, PUT 403\n",
                server(name).endpoint()
            ),
            "{name}"
        );
        place
            .run("rg-bucket", ["apply", "--yes"])
            .ok()
            .shows("without a key: GET 200, LIST 403, PUT 403");
        place.run("rg-bucket", ["plan"]).ok();
        // Nothing but the policy was touched.
        assert_eq!(behind.keys(&bucket), ["report.pdf"], "{name}");
    }
}

#[test]
fn private_and_public_are_proven_by_asking_without_a_key() {
    for name in BOTH {
        let bucket = fresh(server(name), "access");
        let declared = |settings| Declared {
            word: "files",
            server: server(name),
            bucket: &bucket,
            settings,
        };
        let place = place(&[declared("access = \"public-read\"")]);
        let key = &server(name).admin;
        // An empty bucket is proven by an object that is put for it and taken back.
        let (code, applied) = json(&place, &["apply", "--yes"]);
        assert_eq!(
            (code, &applied["buckets"][0]["without_a_key"]),
            (0, &json!({"get": 200, "list": 403, "put": 403})),
            "{name}"
        );
        assert_eq!(behind(server(name)).keys(&bucket), [""; 0], "{name}");
        declare(&place, &[declared("access = \"private\"")], key);
        let (code, plan) = json(&place, &["plan"]);
        assert_eq!(code, 1, "{name}");
        assert_eq!(
            plan["buckets"][0]["steps"][0]["lines"],
            json!([format!(
                "- anybody may s3:GetObject on arn:aws:s3:::{bucket}/*"
            )])
        );
        let (code, applied) = json(&place, &["apply", "--yes"]);
        assert_eq!(
            (code, &applied["buckets"][0]["without_a_key"]),
            (0, &json!({"get": 403, "list": 403, "put": 403})),
            "{name}"
        );
    }
}

#[test]
fn a_public_bucket_that_nobody_declared_is_pointed_out() {
    let (place, bucket) = made(server("SeaweedFS"), "");
    let behind = behind(server("SeaweedFS"));
    behind.put(&bucket, "report.pdf", b"content");
    behind.policy(&bucket, downloads(&bucket));
    let plan = place.run("rg-bucket", ["plan"]).fails(1);
    assert!(plan.out().contains("✗  anybody can read an object (HTTP 200 without a key); rg.toml does not declare its access: say access = \"private\" or \"public-read\""), "{plan:?}");
    // What is not declared is not changed either.
    place.run("rg-bucket", ["apply", "--yes"]).fails(1);
    assert!(plan.out().contains("anybody can list the keys"), "{plan:?}");
}

#[test]
fn somebody_who_can_write_without_a_key_is_found_and_nothing_is_written() {
    // SeaweedFS lets nobody write without a key, whatever its policy says.
    let server = server("JuiceFS");
    let (place, bucket) = made(server, "access = \"private\"");
    let behind = behind(server);
    behind.policy(&bucket, json!([{"Effect": "Allow", "Principal": "*", "Action": ["s3:PutObject"], "Resource": [format!("arn:aws:s3:::{bucket}/*")]}]));
    place.run("rg-bucket", ["plan"]).fails(1).shows(
        "anybody can write an object (HTTP 400: not the stranger was refused, only the digest)",
    );
    assert_eq!(behind.keys(&bucket), [""; 0]);
    place.run("rg-bucket", ["apply", "--yes"]).ok();
    assert_eq!(behind.keys(&bucket), [""; 0]);
}

#[test]
fn statements_and_rules_that_are_not_ours_survive() {
    let server = server("SeaweedFS");
    let (place, bucket) = made(server, "access = \"public-read\"\nexpire_days = 90");
    let behind = behind(server);
    let deny = json!({"Sid": "theirs", "Effect": "Deny", "Principal": "*", "Action": ["s3:DeleteObject"], "Resource": [format!("arn:aws:s3:::{bucket}/keep/*")]});
    behind.policy(&bucket, json!([deny]));
    place
        .run("rg-bucket", ["apply", "--yes"])
        .ok()
        .shows("+ anybody may s3:GetObject");
    let call = behind.client.sdk().get_bucket_policy().bucket(&bucket);
    let policy = behind.client.call(call.send()).expect("the policy");
    let policy = policy.policy().unwrap_or_default();
    assert!(
        policy.contains("theirs") && policy.contains("s3:DeleteObject"),
        "{policy}"
    );
    place.run("rg-bucket", ["plan"]).ok();
}

#[test]
fn a_dry_run_and_a_question_that_nobody_answers_change_nothing() {
    let server = server("SeaweedFS");
    let bucket = fresh(server, "dry");
    let place = place(&[Declared {
        word: "files",
        server,
        bucket: &bucket,
        settings: "access = \"private\"",
    }]);
    place
        .run("rg-bucket", ["apply", "--dry-run"])
        .fails(1)
        .shows(&format!("+ {bucket}"));
    let asked = place.run("rg-bucket", ["apply"]).fails(2);
    assert!(
        asked.out().contains("not confirmed:")
            && asked
                .out()
                .contains("answer with --yes where nobody can be asked"),
        "{asked:?}"
    );
    place
        .run("rg-bucket", ["plan"])
        .fails(1)
        .shows(&format!("+ {bucket}"));
    // Nor was a directory of that name made instead.
    assert!(!place.path(&*bucket).exists());
    place.run("rg-bucket", ["apply", "--yes"]).ok();
    // One's own bucket is fine, again and again.
    place
        .run("rg-bucket", ["apply", "--yes"])
        .ok()
        .shows("nothing to do");
}

#[test]
fn a_key_that_may_not_change_it_and_a_wrong_one_are_named() {
    let server = server("SeaweedFS");
    let (place, bucket) = made(server, "access = \"private\"");
    let declared = [Declared {
        word: "files",
        server,
        bucket: &bucket,
        settings: "access = \"public-read\"",
    }];
    let reader = server.reader.as_ref().expect("a reader");
    declare(&place, &declared, reader);
    place.run("rg-bucket", ["plan"]).fails(1);
    place
        .run("rg-bucket", ["apply", "--yes"])
        .fails(2)
        .shows(&format!(
            "cannot set the policy of the bucket `{bucket}`: the keys are known to"
        ));
    let wrong = S3Key {
        access: "NOSUCHKEY".into(),
        secret: "hunter2hunter2".into(),
    };
    declare(&place, &declared, &wrong);
    let plan = place.run("rg-bucket", ["plan"]).fails(2);
    assert!(
        plan.out()
            .contains("does not know the access key (InvalidAccessKeyId)"),
        "{plan:?}"
    );
    assert!(
        !plan.out().contains("hunter2") && !plan.err().contains("hunter2"),
        "{plan:?}"
    );
}

#[test]
fn a_server_that_is_down_is_not_a_difference() {
    let (place, _) = made(server("SeaweedFS"), "access = \"private\"");
    let toml = place
        .read("rg.toml")
        .replace(&server("SeaweedFS").endpoint(), "http://127.0.0.1:9");
    place.write("rg.toml", toml);
    let plan = place.run("rg-bucket", ["plan"]).fails(2);
    assert!(
        plan.out().contains("http://127.0.0.1:9 cannot be reached"),
        "{plan:?}"
    );
}

#[test]
fn the_least_that_an_application_needs_is_shown() {
    let (place, bucket) = made(server("SeaweedFS"), "access = \"private\"");
    let (_, plan) = json(&place, &["plan", "--show-policy"]);
    let least = &plan["buckets"][0]["least_privilege"]["Statement"];
    assert_eq!(
        least[0]["Resource"],
        json!([format!("arn:aws:s3:::{bucket}/*")])
    );
    assert!(!least.to_string().contains("s3:*"), "{least}");
}

#[test]
fn an_unknown_bucket_is_answered_with_the_nearest() {
    let (place, _) = made(server("SeaweedFS"), "");
    let plan = place
        .run("rg-bucket", ["plan", "production/buckets/flies"])
        .fails(2);
    assert!(
        plan.err()
            .contains("no bucket `production/buckets/flies` in "),
        "{plan:?}"
    );
    assert!(
        plan.err()
            .contains("hint: did you mean `production/buckets/files`?"),
        "{plan:?}"
    );
    let plan = place
        .run("rg-bucket", ["plan", "production/database"])
        .fails(2);
    assert!(
        plan.err()
            .contains("hint: configured are: production/buckets/files"),
        "{plan:?}"
    );
}
