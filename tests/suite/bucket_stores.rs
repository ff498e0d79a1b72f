//! The bucket behind a store: planned, counted, tried and swept like any other, and never emptied.

use rg_tests::{S3Server, Sandbox, sandbox};

use crate::site::{Fresh, Shows, behind, fresh, json, server};

/// A place whose store `offsite` lies in `PREFIX` of a bucket.
fn place(server: &'static S3Server) -> (Sandbox, Fresh) {
    let bucket = fresh(server, "store");
    let place = sandbox!();
    place.write("offsite.env", server.admin.env());
    place.config(&format!(
        "[stores.local]\nurl = \"file://{{root}}/store\"\n[stores.offsite]\nurl = \"s3://{bucket}/vps-1\"\nendpoint = \"{}\"\ncredentials = \"offsite.env\"\n",
        server.endpoint()
    ));
    (place, bucket)
}

#[test]
fn a_stores_bucket_is_made_private_and_tried_and_only_its_own_part_is_counted() {
    for name in ["SeaweedFS", "JuiceFS"] {
        let (place, bucket) = place(server(name));
        // Without a word it is the environments' buckets that are meant, and there are none.
        place.run("rg-bucket", ["plan"]).fails(2);
        place
            .run("rg-bucket", ["plan", "store:offsite"])
            .fails(1)
            .shows(&format!("+ {bucket}"));
        place
            .run("rg-bucket", ["apply", "store:offsite", "--yes"])
            .ok()
            .shows("without a key: GET 403, LIST 403, PUT 403");
        place.run("rg-bucket", ["probe", "store:offsite"]).ok();
        let behind = behind(server(name));
        behind.put(&bucket, "vps-1/a", b"22");
        behind.put(&bucket, "vps-2/a", b"somebody else's");
        let (_, usage) = json(&place, &["usage", "store:offsite"]);
        assert_eq!(
            (
                &usage["buckets"][0]["objects"],
                &usage["buckets"][0]["bytes"]
            ),
            (&1.into(), &2.into()),
            "{usage:#}"
        );
    }
}

#[test]
fn backups_are_not_deleted_from_here() {
    let (place, bucket) = place(server("SeaweedFS"));
    place
        .run("rg-bucket", ["apply", "store:offsite", "--yes"])
        .ok();
    let behind = behind(server("SeaweedFS"));
    behind.put(&bucket, "vps-1/a", b"22");
    let refused = place
        .run(
            "rg-bucket",
            [
                "clean",
                "store:offsite",
                "--all-objects",
                "--confirm",
                &bucket,
            ],
        )
        .fails(2);
    assert_eq!(
        refused.err(),
        "rg-bucket: store:offsite holds backups and is not emptied from here\nhint: `rg-backup prune` deletes what retention no longer wants\n"
    );
    assert_eq!(behind.keys(&bucket), ["vps-1/a"]);
}
