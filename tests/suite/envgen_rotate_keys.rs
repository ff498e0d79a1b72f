//! `rg-envgen rotate` for S3 access keys, with real servers: SeaweedFS, which makes keys when it is
//! asked to, and the gateway of JuiceFS (MinIO's code), which reads its key when it starts.

#[path = "envgen_rotate_kills.rs"]
mod kills;
#[path = "envgen_rotate_site.rs"]
mod site;
#[path = "envgen_rotate_started.rs"]
mod started;

use rg_tests::{ArgvWatch, JuiceFs, S3Key};
use site::{Backend, Rig, logs_in};

fn keys(rig: &Rig) -> (&rg_tests::S3Server, &str, &str, &S3Key) {
    match &rig.backend {
        Backend::Keys {
            server,
            user,
            bucket,
            first,
        } => (server, user, bucket, first),
        Backend::Role => panic!("a role"),
    }
}

#[test]
fn an_app_that_does_not_come_up_keeps_its_key_and_the_new_one_is_gone() {
    let rig = Rig::keys("sick", "");
    let before = rig.files();
    rig.health.answer("/health", 503, "{}");
    let output = rig.rotate_within("1", &["S3_ACCESS_KEY"]);
    output
        .fails(2)
        .says("everything is as it was before")
        .says("it answers 503");
    assert_eq!(rig.files(), before);
    rig.is_consistent();
    assert_eq!(rig.pair(), *keys(&rig).3);
    assert!(
        rig.place
            .read("state/envgen/audit.jsonl")
            .contains("\"rolledback\"")
    );
}

#[test]
fn a_new_key_is_in_every_file_and_the_old_one_is_refused() {
    let rig = Rig::keys("well", "");
    let (server, _, bucket, first) = keys(&rig);
    let before = rig.files();
    rig.rotate(&["S3_SECRET_KEY", "--dry-run"]).ok();
    assert_eq!(rig.files(), before);
    rig.is_consistent();
    let watch = ArgvWatch::start(&first.secret);
    let output = rig.rotate(&["S3_SECRET_KEY", "--json", "-v"]).ok();
    assert_eq!(watch.stop(), [""; 0]);
    rig.is_consistent();
    let new = rig.pair();
    assert!(new.access != first.access && new.secret != first.secret);
    assert!(!logs_in(server, first, bucket), "the old key is still good");
    let expected = before[0].replace(&format!("'{}'", first.access), &new.access);
    assert_eq!(rig.files()[0], expected.replace(&first.secret, &new.secret));
    assert_eq!(
        rig.files()[1],
        before[1].replace(&first.secret, &new.secret)
    );
    let audit = rig.place.read("state/envgen/audit.jsonl");
    assert!(
        audit.contains("\"rotated\"") && audit.contains("[\"S3_ACCESS_KEY\",\"S3_SECRET_KEY\"]")
    );
    for secret in [&first.access, &first.secret, &new.access, &new.secret] {
        for text in [&output.out(), &output.err(), &audit, &rig.list().out()] {
            assert!(
                !text.contains(secret.as_str()),
                "{secret} is shown in {text}"
            );
        }
    }
    assert_eq!(output.json()["buckets"], serde_json::json!([bucket]));
}

#[test]
fn an_administrator_may_do_it_for_the_app() {
    let rig = Rig::keys("led", "admin_credentials = \"admin.env\"");
    let (server, user, ..) = keys(&rig);
    rig.place.write("admin.env", server.admin.env());
    rig.rotate(&["S3_SECRET_KEY"]).ok();
    rig.is_consistent();
    // One who is not known changes nothing.
    let wrong = S3Key {
        access: "NOBODYKNOWSTHISKEY00".into(),
        secret: "x".repeat(40),
    };
    rig.place.write("admin.env", wrong.env());
    let before = rig.files();
    rig.rotate(&["S3_SECRET_KEY"])
        .fails(2)
        .says("admin_credentials");
    assert_eq!(rig.files(), before);
    let admin = rig.place.write("other.env", server.admin.env());
    rig.rotate(&["S3_SECRET_KEY", "--admin", admin.to_str().expect("a path")])
        .ok();
    rig.is_consistent();
    assert_eq!(server.access_keys(user).len(), 1);
}

#[test]
fn a_key_that_somebody_else_uses_too_is_not_touched() {
    let rig = Rig::keys("shared", "");
    let before = rig.files();
    let config = rig.place.read("rg.toml");
    rig.place.write("both.env", keys(&rig).3.env());
    rig.place.write(
        "rg.toml",
        format!("{config}\n[stores.offsite]\nurl = \"s3://elsewhere/x\"\nendpoint = \"{}\"\ncredentials = \"both.env\"\n", rig.wire.endpoint()),
    );
    rig.rotate(&["S3_SECRET_KEY"])
        .fails(2)
        .says("the store `offsite` has the same access key");
    assert_eq!(rig.files(), before);
    rig.is_consistent();
}

#[test]
fn a_server_that_makes_no_keys_is_told_what_to_do_by_hand() {
    let rig = Rig::keys("byhand", "");
    let (server, user, bucket, first) = keys(&rig);
    let config = rig.place.read("rg.toml");
    // The same app, with a server that has no such interface.
    let juice = JuiceFs::shared();
    let other = juice.bucket();
    let moved = config
        .replace(&rig.wire.endpoint(), &juice.endpoint())
        .replace(bucket, &other);
    rig.place.write("rg.toml", moved);
    let own = rig.files();
    for (file, text) in ["app/.env", "app/.env.compose"].iter().zip(&own) {
        let text = text.replace(&first.access, &juice.admin.access);
        rig.place
            .write(file, text.replace(&first.secret, &juice.admin.secret));
    }
    let before = rig.files();
    let output = rig.rotate(&["S3_SECRET_KEY"]).fails(2);
    assert!(
        output.err().contains("does not make access keys"),
        "{output:?}"
    );
    assert!(
        output.err().contains("by hand: have a new pair made"),
        "{output:?}"
    );
    assert_eq!(rig.files(), before);
    assert!(!rig.journal());
    // By hand: a pair that a person had made is proven before any file changes.
    rig.place.write("rg.toml", config);
    for (file, text) in ["app/.env", "app/.env.compose"].iter().zip(&own) {
        rig.place.write(file, text);
    }
    let wrong = S3Key {
        access: "NOBODYKNOWSTHISKEY00".into(),
        secret: "x".repeat(40),
    };
    let given = rig.place.write("given.env", wrong.env());
    let given = given.to_str().expect("a path").to_owned();
    rig.rotate(&["S3_SECRET_KEY", "--value-from", &given])
        .fails(2)
        .says("does not log in");
    assert_eq!(rig.files(), own);
    let second = server.user(user, bucket);
    rig.place.write("given.env", second.env());
    let output = rig.rotate(&["S3_SECRET_KEY", "--value-from", &given]).ok();
    assert!(
        output.out().contains("delete it where it was made"),
        "{output:?}"
    );
    assert_eq!(rig.pair(), second);
    assert!(rig.logs_in());
}
