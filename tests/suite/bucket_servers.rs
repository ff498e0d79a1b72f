//! What each server is expected to do, in one table: what it lacks is a decision, seen here, and
//! comes out of `plan` as a note with the way round it.

use crate::site::{Declared, Shows, fresh, json, place, server};

const NO_ERASURE: &str = "it needs erasure-coded storage (MinIO on a plain file system has none)";

/// A setting; and for each server nothing where it has it, or the note.
struct Row {
    setting: &'static str,
    seaweedfs: Option<&'static str>,
    juicefs: Option<&'static str>,
}

const TABLE: &[Row] = &[
    Row {
        setting: "access = \"private\"",
        seaweedfs: None,
        juicefs: None,
    },
    Row {
        setting: "expire_days = 90",
        seaweedfs: None,
        juicefs: Some(
            "MinIO has no lifecycle rules (NotImplemented): the application must delete what is old; `rg-bucket clean` sweeps abandoned uploads",
        ),
    },
    Row {
        setting: "abandoned_upload_days = 2",
        seaweedfs: None,
        juicefs: Some(
            "MinIO has no lifecycle rules (NotImplemented): the application must delete what is old; `rg-bucket clean` sweeps abandoned uploads",
        ),
    },
    Row {
        setting: "versioning = true\nnoncurrent_days = 30",
        seaweedfs: None,
        juicefs: Some(NO_ERASURE),
    },
    Row {
        setting: "cors = [{ origins = [\"https://b.example.org\", \"https://a.example.org\"], methods = [\"PUT\", \"GET\"], headers = [\"x-b\", \"x-a\"], max_age_seconds = 600 }]",
        seaweedfs: None,
        juicefs: Some(
            "MinIO has no CORS rules: set MINIO_API_CORS_ALLOW_ORIGIN on the server, for all of its buckets",
        ),
    },
];

#[test]
fn each_setting_is_made_or_noted_with_the_way_round_it() {
    for name in ["SeaweedFS", "JuiceFS"] {
        for row in TABLE {
            let note = if name == "SeaweedFS" {
                row.seaweedfs
            } else {
                row.juicefs
            };
            let bucket = fresh(server(name), "setting");
            let place = place(&[Declared {
                word: "files",
                server: server(name),
                bucket: &bucket,
                settings: row.setting,
            }]);
            let at = format!("{name}: {}", row.setting);
            assert_eq!(json(&place, &["plan"]).0, 1, "{at}");
            let (code, applied) = json(&place, &["apply", "--yes"]);
            assert_eq!(code, 0, "{at}: {applied:#}");
            // No perpetual difference, whatever words the server gives its settings back in.
            let (code, plan) = json(&place, &["plan"]);
            assert_eq!(code, 0, "{at}: {plan:#}");
            let found = &plan["buckets"][0];
            assert_eq!(found["steps"], serde_json::json!([]), "{at}");
            let notes = found["notes"].to_string();
            match note {
                None => assert_eq!(notes, "[]", "{at}"),
                Some(note) => assert!(notes.contains(note), "{at}: {notes}"),
            }
        }
    }
}

#[test]
fn object_lock_is_made_with_the_bucket_or_noted() {
    let lock = "lock = { mode = \"governance\", days = 1 }";
    let bucket = fresh(server("SeaweedFS"), "locked");
    let declared = |settings| Declared {
        word: "files",
        server: server("SeaweedFS"),
        bucket: &bucket,
        settings,
    };
    let place_of = place(&[declared(lock)]);
    place_of
        .run("rg-bucket", ["apply", "--yes"])
        .ok()
        .shows("new objects are locked for 1 d, governance");
    place_of.run("rg-bucket", ["plan"]).ok();
    // Another number of days is a change of the default alone.
    crate::site::declare(
        &place_of,
        &[declared("lock = { mode = \"governance\", days = 2 }")],
        &server("SeaweedFS").admin,
    );
    place_of
        .run("rg-bucket", ["plan"])
        .fails(1)
        .shows("- new objects are locked for 1 d, governance");
    // What is written there could not be taken back: a probe refuses.
    let probe = place_of.run("rg-bucket", ["probe"]).fails(2);
    assert!(
        probe
            .out()
            .contains("locks every new object: what a probe writes could not be taken back"),
        "{probe:?}"
    );

    // Where there is none: on a bucket that is there, and on a server that has none.
    let (late, bucket) = crate::site::made(server("SeaweedFS"), "");
    crate::site::declare(
        &late,
        &[Declared {
            word: "files",
            server: server("SeaweedFS"),
            bucket: &bucket,
            settings: lock,
        }],
        &server("SeaweedFS").admin,
    );
    late.run("rg-bucket", ["plan"])
        .ok()
        .shows("object lock cannot be switched on for a bucket that is there");
    let (none, bucket) = crate::site::made(server("JuiceFS"), "");
    crate::site::declare(
        &none,
        &[Declared {
            word: "files",
            server: server("JuiceFS"),
            bucket: &bucket,
            settings: lock,
        }],
        &server("JuiceFS").admin,
    );
    none.run("rg-bucket", ["plan"])
        .ok()
        .shows("MinIO has no object lock (NotImplemented): it needs erasure-coded storage");
}
