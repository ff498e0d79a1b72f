//! Buckets backed up and restored, on real servers: the live bucket is what the backup says or what
//! it was before, every object to its last byte and header.

use std::collections::BTreeMap;
use std::time::Duration;

use rg_common::sha256::Sha256;
use rg_tests::{
    Chance, Damage, Deployment, FakeProgram, Fault, HttpSink, Need, Op, S3FaultProxy, S3Key,
    S3Server, Sandbox, Signal, age_key, deployment, eventually, on_every_server, rounds, sandbox,
};

on_every_server! {
    odd_keys_metadata_and_many_megabytes_come_back_into_an_empty_and_a_missing_bucket,
    a_changed_bucket_is_as_the_backup_and_undone_as_it_was,
    headers_that_were_changed_alone_come_back,
    a_byte_flipped_in_an_older_archive_is_found_before_anything_is_touched,
    a_drill_proves_a_backup_in_a_bucket_of_its_own_and_removes_it,
    beside_fills_another_bucket_and_leaves_the_live_one_alone,
    a_restore_that_a_service_refuses_is_taken_back,
    a_restore_that_is_told_to_stop_is_taken_back_at_once,
    an_encrypted_backup_in_a_bucket_needs_the_identity_and_comes_back,
    retention_keeps_the_archives_that_the_last_backup_needs;
    slow:
    a_killed_restore_is_taken_back_or_was_done,
    database_files_and_bucket_are_one_recovery_point,
}

/// So many objects are changed before each kill.
const OBJECTS: u32 = 30;
const SOON: Duration = Duration::from_secs(60);
const DATASET: &str = "app/buckets/artifacts";
const RUN: &[&str] = &["run", DATASET, "--yes"];

/// A sandbox whose app keeps its objects in a bucket.
struct App {
    place: Sandbox,
    server: &'static S3Server,
    bucket: String,
}

/// What a bucket holds: of each key its length, digest and headers.
type Held = BTreeMap<String, (usize, [u8; 32], String)>;

fn app(place: Sandbox, server: &'static S3Server) -> App {
    let bucket = server.bucket();
    let app = App {
        place,
        server,
        bucket,
    };
    app.configure(&server.endpoint(), &server.admin, "");
    app
}

/// The tables of `rg.toml` for a bucket.
fn tables(environment: &str, endpoint: &str, bucket: &str, rest: &str) -> String {
    format!(
        "[environments.{environment}.buckets.artifacts]\nendpoint = \"{endpoint}\"\n\
         name = \"{bucket}\"\naccess_key = \"$ACCESS\"\nsecret_key = \"$SECRET\"\n{rest}\n"
    )
}

fn env(key: &S3Key) -> String {
    format!("ACCESS={}\nSECRET={}\n", key.access, key.secret)
}

impl App {
    fn configure(&self, endpoint: &str, key: &S3Key, rest: &str) {
        self.place.write("env", env(key));
        self.place.config(&format!(
            "[stores.local]\nurl = \"file://{{root}}/store\"\n[environments.app]\nenv_file = \"env\"\n{}",
            tables("app", endpoint, &self.bucket, rest)
        ));
    }

    fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        put(self.server, &self.bucket, key, content);
    }

    fn delete(&self, key: &str) {
        let client = self.server.client(&self.server.admin);
        let call = client.sdk().delete_object().bucket(&self.bucket).key(key);
        client.call(call.send()).expect("the object deleted");
    }

    fn held(&self) -> Held {
        held(self.server, &self.bucket)
    }

    /// A good backup; its manifest's content.
    fn backup(&self) -> serde_json::Value {
        self.place.run("rg-backup", ["run", DATASET]).ok();
        self.manifests().pop().expect("a manifest")["content"].clone()
    }

    fn manifests(&self) -> Vec<serde_json::Value> {
        let names = self.place.files("store").into_iter();
        let names = names.filter(|name| name.ends_with(".manifest.json"));
        let text = names.map(|name| self.place.read(format!("store/{name}")));
        text.map(|text| serde_json::from_str(&text).expect("JSON"))
            .collect()
    }

    fn restore(&self, words: &[&str]) -> rg_tests::Output {
        self.place.run("rg-restore", words.iter().copied())
    }

    /// A byte in the archive of the oldest backup is another one.
    fn damage_oldest(&self) {
        let names = self.place.files("store").into_iter();
        let archive = names.into_iter().find(|name| name.ends_with(".tar.zst"));
        let damage = Damage::to(self.place.path("store").join(archive.expect("an archive")));
        damage.flip_bit(damage.size() / 2, 3);
    }

    /// What restores keep or have left over in the state directory.
    fn kept(&self) -> Vec<String> {
        let mut names = self.place.files("state/restore");
        names.retain(|name| name.contains("_before_") && name.ends_with("objects.jsonl"));
        names
    }

    /// Names of buckets that begin with the bucket's.
    fn neighbours(&self) -> Vec<String> {
        let client = self.server.client(&self.server.admin);
        let call = client.sdk().list_buckets().send();
        let found = client.call(call).expect("the buckets");
        let names = found.buckets().iter().filter_map(|bucket| bucket.name());
        let prefix = format!("{}-", self.bucket);
        names
            .filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect()
    }

    fn make(&self, bucket: &str) {
        let client = self.server.client(&self.server.admin);
        let call = client.sdk().create_bucket().bucket(bucket).send();
        client.call(call).expect("a bucket");
    }

    fn drop_bucket(&self) {
        for key in self.server.keys(&self.bucket) {
            self.delete(&key);
        }
        let client = self.server.client(&self.server.admin);
        let call = client.sdk().delete_bucket().bucket(&self.bucket).send();
        client.call(call).expect("the bucket removed");
    }
}

fn put(server: &S3Server, bucket: &str, key: &str, content: impl Into<Vec<u8>>) {
    let client = server.client(&server.admin);
    let call = client.sdk().put_object().bucket(bucket).key(key);
    let call = call
        .body(content.into().into())
        .content_type("text/x-odd")
        .metadata("colour", "dark green");
    client
        .call(call.send())
        .unwrap_or_else(|error| panic!("{} does not take `{key}`: {error}", server.name()));
}

fn held(server: &S3Server, bucket: &str) -> Held {
    let client = server.client(&server.admin);
    let of = |key: String| {
        let call = client.sdk().get_object().bucket(bucket).key(&key);
        let found = client.call(call.send()).expect("an object");
        let headers = format!(
            "{:?} {:?} {:?}",
            found.content_type(),
            found.cache_control(),
            found
                .metadata()
                .map(|all| all.iter().collect::<BTreeMap<_, _>>())
        );
        let bytes = client.wait(found.body.collect()).expect("not stopped");
        let bytes = bytes.expect("its bytes").into_bytes();
        (key, (bytes.len(), Sha256::digest(&bytes), headers))
    };
    server.keys(bucket).into_iter().map(of).collect()
}

fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Three objects, backed up; two more and one changed, backed up; then changed in all ways.
fn changed(place: Sandbox, server: &'static S3Server) -> (App, Held, Held) {
    let app = app(place, server);
    for (key, content) in [("kept", "1"), ("changed", "old"), ("folder/deleted", "2")] {
        app.put(key, content);
    }
    app.backup();
    app.put("second", "3");
    app.put("also/second", noise(300_000, 1));
    let content = app.backup();
    assert_eq!(content["objects"], 5);
    assert_eq!(content["read"], 2, "only what is new is read");
    assert_eq!(content["needs"].as_array().map(Vec::len), Some(1));
    let old = app.held();
    app.put("changed", "new and longer");
    app.put("made/since", "4");
    app.delete("folder/deleted");
    let new = app.held();
    (app, old, new)
}

fn odd_keys_metadata_and_many_megabytes_come_back_into_an_empty_and_a_missing_bucket(
    server: &'static S3Server,
) {
    let app = app(sandbox!(), server);
    let mut keys = vec![
        "plain",
        "with space/and %41 + more",
        "ä/ö/日本語.txt",
        "-/_/~",
        "x/y/z",
    ];
    if server.can(Need::KeyBelowKey) {
        keys.extend(["a", "a/b"]);
    }
    for key in keys {
        app.put(key, key);
    }
    app.put("empty", "");
    app.put("large", noise(20 << 20, 2));
    app.backup();
    let content = app.backup();
    let old = app.held();
    assert_eq!(content["objects"], old.len());
    assert_eq!(content["read"], 0, "{}: nothing has changed", server.name());
    for key in old.keys() {
        app.delete(key);
    }
    app.restore(RUN).ok();
    assert_eq!(app.held(), old, "{}: an empty bucket", server.name());
    assert_eq!(server.open_uploads(&app.bucket), [""; 0]);
    // All is there: nothing is put again.
    let again = app.restore(RUN).ok();
    let left = format!("(0 put, 0 deleted, {} left alone)", old.len());
    assert!(again.out().contains(&left), "{}: {again:?}", server.name());
    app.drop_bucket();
    let output = app.restore(RUN).ok();
    assert!(
        output.out().contains("was missing and is made"),
        "{output:?}"
    );
    assert_eq!(app.held(), old, "{}: a missing bucket", server.name());
}

fn a_changed_bucket_is_as_the_backup_and_undone_as_it_was(server: &'static S3Server) {
    let (app, old, new) = changed(sandbox!(), server);
    let plan = app.restore(&["run", DATASET, "--dry-run"]).ok();
    assert!(
        plan.out().contains("(2 put, 1 deleted, 3 left alone)"),
        "{plan:?}"
    );
    assert_eq!(app.held(), new);
    let done = app.restore(RUN).ok();
    assert!(
        done.out().contains("(2 put, 1 deleted, 3 left alone)"),
        "{done:?}"
    );
    assert_eq!(app.held(), old);
    app.restore(&["undo", DATASET, "--yes"]).ok();
    assert_eq!(app.held(), new);
    assert_eq!(app.kept().len(), 1, "what the undo replaced");
    app.restore(&["undo", DATASET, "--yes"]).ok();
    assert_eq!(app.held(), old);
    let first = app.manifests()[0]["id"].as_str().expect("an id").to_owned();
    app.restore(&["run", DATASET, "--yes", "--from", &first])
        .ok();
    assert_eq!(
        app.server.keys(&app.bucket),
        ["changed", "folder/deleted", "kept"]
    );
    assert_eq!(app.kept().len(), 1, "only the last restore can be undone");
}

fn headers_that_were_changed_alone_come_back(server: &'static S3Server) {
    let app = app(sandbox!(), server);
    app.put("page", "text");
    app.backup();
    let old = app.held();
    let client = app.server.client(&app.server.admin);
    let call = client.sdk().put_object().bucket(&app.bucket).key("page");
    let call = call.body(b"text".to_vec().into()).content_type("text/html");
    client.call(call.send()).expect("the same content");
    assert_ne!(app.held(), old);
    app.restore(RUN).ok();
    assert_eq!(app.held(), old);
}

fn a_byte_flipped_in_an_older_archive_is_found_before_anything_is_touched(
    server: &'static S3Server,
) {
    let (app, old, new) = changed(sandbox!(), server);
    let id = app.manifests()[1]["id"].as_str().expect("an id").to_owned();
    app.damage_oldest();
    app.restore(RUN)
        .fails(2)
        .says("is damaged or cannot be read");
    app.restore(&["run", DATASET, "--yes", "--beside", "rg-not-made"])
        .fails(2);
    assert_eq!(app.held(), new);
    assert_eq!(app.kept(), [""; 0]);
    let drill = app.restore(&["drill", DATASET]).fails(1);
    assert!(drill.out().contains(&format!("{id} needs ")), "{drill:?}");
    assert_eq!(app.neighbours(), [""; 0]);
    // What was found is recorded, so the next backup relies on nothing of it.
    let content = app.backup();
    assert_eq!(content["read"], new.len());
    app.restore(&["drill", DATASET]).ok();
    app.put("kept", "lost");
    app.restore(RUN).ok();
    assert_eq!(app.held(), new);
    assert_ne!(old, new);
}

fn a_drill_proves_a_backup_in_a_bucket_of_its_own_and_removes_it(server: &'static S3Server) {
    let (app, _, new) = changed(sandbox!(), server);
    let left = format!("{}-rg-drill-20260102-030405", app.bucket);
    app.make(&left);
    put(app.server, &left, "by/a/killed/drill", "x");
    app.make(&format!("{}-rg-drill-mine", app.bucket));
    let drill = app.restore(&["drill", DATASET]).ok();
    assert!(
        drill.out().contains("5 objects restored and compared"),
        "{drill:?}"
    );
    assert_eq!(
        app.neighbours(),
        [format!("{}-rg-drill-mine", app.bucket)],
        "what is not a drill's stays"
    );
    assert_eq!(app.held(), new);
    if !server.can(Need::ReadOnlyKey) {
        return;
    }
    // A key that may not make buckets still proves what it can, and says so.
    let reader = app.server.reader.as_ref().expect("a reader");
    app.configure(&app.server.endpoint(), reader, "");
    let drill = app.restore(&["drill", DATASET]).ok();
    assert!(
        drill.out().contains("the key may not make a bucket"),
        "{drill:?}"
    );
    let proof = app.place.files("store").into_iter();
    let proof = {
        let mut proof = proof;
        proof.rfind(|name| name.ends_with(".proof.json"))
    };
    let proof = app.place.read(format!("store/{}", proof.expect("a proof")));
    assert!(proof.contains("but not restored"), "{proof}");
}

fn beside_fills_another_bucket_and_leaves_the_live_one_alone(server: &'static S3Server) {
    let (app, old, new) = changed(sandbox!(), server);
    let other = format!("{}-beside", app.bucket);
    app.restore(&["run", DATASET, "--yes", "--beside", &other])
        .ok();
    assert_eq!(held(app.server, &other), old);
    assert_eq!(app.held(), new);
    assert_eq!(app.kept(), [""; 0]);
    app.restore(&["run", DATASET, "--yes", "--beside", &other])
        .fails(2)
        .says("is not empty");
    app.restore(&["run", DATASET, "--yes", "--beside", &app.bucket])
        .fails(2);
    assert_eq!(held(app.server, &other), old);
}

fn a_killed_restore_is_taken_back_or_was_done(server: &'static S3Server) {
    let (app, _, _) = changed(sandbox!(), server);
    for n in 0..OBJECTS {
        app.put(&format!("many/{n}"), noise(20_000, n));
    }
    app.backup();
    let old = app.held();
    let proxy = S3FaultProxy::before(app.server);
    app.configure(&proxy.endpoint(), &app.server.admin, "");
    let mut chance = Chance::new();
    for _ in 0..rounds(3) {
        for n in 0..OBJECTS {
            app.put(&format!("many/{n}"), format!("since {n}"));
        }
        app.put("made/since", "4");
        let new = app.held();
        assert_ne!(new, old);
        // Killed after so many puts as chance will have it: the next is answered by nobody.
        let puts = 1 + chance.below(OBJECTS.into()) as u32;
        proxy.on(Op::Put, puts..=9_999, Fault::Silence);
        let running = app.place.spawn("rg-restore", RUN.iter().copied());
        assert!(eventually(SOON, || proxy.count(Op::Put) >= puts));
        running.kill();
        drop(running.wait());
        proxy.heal();
        app.restore(&["undo", DATASET, "--yes"])
            .fails(2)
            .says("it is taken back now")
            .says("there is no restore of");
        assert_eq!(app.held(), new, "after {puts} puts");
        assert_eq!(app.kept(), [""; 0]);
        app.restore(RUN).ok();
        assert_eq!(app.held(), old);
        app.restore(&["undo", DATASET, "--yes"]).ok();
        assert_eq!(app.held(), new);
        app.restore(&["undo", DATASET, "--yes"]).ok();
        assert_eq!(app.held(), old);
        std::fs::remove_dir_all(app.place.path("state/restore/undo")).expect("what can be undone");
    }
}

fn a_restore_that_a_service_refuses_is_taken_back(server: &'static S3Server) {
    let (app, _, new) = changed(sandbox!(), server);
    let proxy = S3FaultProxy::before(app.server);
    app.configure(&proxy.endpoint(), &app.server.admin, "");
    proxy.on(Op::Put, 2..=2, Fault::Answer(403, "AccessDenied"));
    app.restore(RUN)
        .fails(2)
        .says("cannot write object")
        .says("the restore was taken back and everything is as it was");
    assert_eq!(app.held(), new);
    assert_eq!(app.kept(), [""; 0]);
}

fn a_restore_that_is_told_to_stop_is_taken_back_at_once(server: &'static S3Server) {
    let (app, _, _) = changed(sandbox!(), server);
    for n in 0..20 {
        app.put(&format!("many/{n}"), "old");
    }
    app.backup();
    for n in 0..20 {
        app.put(&format!("many/{n}"), format!("since {n}"));
    }
    let new = app.held();
    let proxy = S3FaultProxy::before(app.server);
    app.configure(&proxy.endpoint(), &app.server.admin, "");
    // Those that travel at that moment are never answered.
    proxy.on(Op::Put, 4..=19, Fault::Silence);
    let running = app.place.spawn("rg-restore", RUN.iter().copied());
    assert!(eventually(SOON, || proxy.count(Op::Put) >= 19));
    running.signal(Signal::TERM);
    running
        .wait()
        .fails(2)
        .says("the restore was taken back and everything is as it was");
    assert_eq!(app.held(), new);
    assert_eq!(app.kept(), [""; 0]);
}

fn an_encrypted_backup_in_a_bucket_needs_the_identity_and_comes_back(server: &'static S3Server) {
    let place = sandbox!();
    let (public, identity) = age_key(&place);
    let app = app(place, server);
    let store = app.server.bucket();
    app.place.write("store.env", app.server.admin.env());
    app.place.config(&format!(
        "[stores.offsite]\nurl = \"s3://{store}/vps-1\"\nendpoint = \"{endpoint}\"\ncredentials = \"store.env\"\n\
         [encryption]\nrecipients = [\"{public}\"]\n[environments.app]\nenv_file = \"env\"\n{}",
        tables("app", &app.server.endpoint(), &app.bucket, ""),
        endpoint = app.server.endpoint(),
    ));
    app.put("first", "1");
    app.place.run("rg-backup", ["run", DATASET]).ok();
    app.put("second", noise(300_000, 3));
    app.place.run("rg-backup", ["run", DATASET]).ok();
    let old = app.held();
    app.put("first", "changed");
    app.delete("second");
    let new = app.held();
    app.restore(RUN).fails(2).says("--identity FILE");
    app.restore(&["drill", DATASET]).fails(2);
    assert_eq!(app.held(), new);
    let identity = identity.to_string_lossy();
    app.restore(&["drill", DATASET, "--identity", &identity])
        .ok();
    app.restore(&[RUN, &["--identity", &identity]].concat())
        .ok();
    assert_eq!(app.held(), old);
}

fn retention_keeps_the_archives_that_the_last_backup_needs(server: &'static S3Server) {
    let (app, old, _) = changed(sandbox!(), server);
    for (key, _) in app.held() {
        app.delete(&key);
    }
    app.configure(
        &app.server.endpoint(),
        &app.server.admin,
        "keep = { last = 1 }",
    );
    app.place.run("rg-backup", ["prune"]).ok();
    app.restore(RUN).ok();
    assert_eq!(app.held(), old);
    assert_eq!(app.manifests().len(), 2);
}

/// A systemctl that keeps one unit's state in `units/api`.
const SYSTEMCTL: &str = r#"
cd "$UNITS" || exit 1
case $1 in
    show) printf 'LoadState=loaded\nActiveState=%s\n' "$(cat api)" ;;
    stop) echo inactive >api ;;
    start) echo active >api ;;
esac
"#;

fn database_files_and_bucket_are_one_recovery_point(server: &'static S3Server) {
    let deployment: Deployment<'static> =
        deployment!(&format!("bucket_point_{}", server.name().to_lowercase()));
    let bucket = server.bucket();
    let proxy = S3FaultProxy::before(server);
    let health = HttpSink::start();
    health.answer("/health", 200, "");
    deployment.write("units/api", "active");
    let systemctl = FakeProgram::new(&deployment, "systemctl");
    let units = deployment.path("units");
    systemctl.does(&format!("UNITS='{}'\n{SYSTEMCTL}", units.display()));
    let old_env = deployment.read("env");
    deployment.write("env", format!("{old_env}{}", env(&server.admin)));
    deployment.configure(
        "",
        "",
        &format!(
            "{}[environments.production.app]\nunits = [\"api\"]\nhealth = [{{ url = \"{}\", status = 200 }}]\n",
            tables("production", &proxy.endpoint(), &bucket, ""),
            health.url("/health")
        ),
    );
    put(server, &bucket, "a", "old");
    put(server, &bucket, "b", "same");
    let old = (deployment.held(), held(server, &bucket));
    deployment.backup();
    deployment.change("since the backup");
    put(server, &bucket, "a", "new");
    put(server, &bucket, "c", "made");
    let new = (deployment.held(), held(server, &bucket));
    let now = || (deployment.held(), held(server, &bucket));
    let run = ["run", "production", "--yes", "--health-timeout", "2"];
    // An app that does not come up gets back all three.
    health.answer("/health", 503, "");
    deployment.restore(&run).fails(2).says("taken back");
    assert!(now() == new);
    health.answer("/health", 200, "");
    // Killed while the bucket is changed, all three are as they were, and the app is started.
    proxy.on(Op::Put, 1..=9_999, Fault::Silence);
    let running = deployment.spawn("rg-restore", run);
    assert!(eventually(SOON, || proxy.count(Op::Put) > 0));
    running.kill();
    drop(running.wait());
    assert_eq!(deployment.read("units/api").trim(), "inactive");
    proxy.heal();
    deployment
        .restore(&["undo", "production", "--yes"])
        .fails(2)
        .says("it is taken back now");
    assert!(now() == new);
    assert_eq!(deployment.read("units/api").trim(), "active");
    deployment.restore(&run).ok();
    assert!(now() == old);
    assert_eq!(deployment.read("units/api").trim(), "active");
    deployment.restore(&["undo", "production", "--yes"]).ok();
    assert!(now() == new);
}
