//! The contract that every store keeps, whatever lies behind it: a folder, or a bucket of any of the
//! kit's servers. What one of them cannot do stands in the kit's table.

use std::io::{self, Read};
use std::thread;

use rg_common::config::{StoreConfig, StorePlace};
use rg_common::store::{self, Key, Object, PutError, Store};
use rg_tests::{CANNOT, Need, S3Server, Sandbox, s3_network, sandbox, servers_for_the_contract};

/// As the kit configures it.
const PART_BYTES: usize = 5 << 20;

/// A kind of store with a place for one.
struct Peer {
    name: &'static str,
    config: StoreConfig,
    server: Option<(&'static S3Server, String)>,
}

impl Peer {
    fn store(&self) -> Box<dyn Store> {
        store::open(&self.config).expect("the store can be opened")
    }

    fn can(&self, need: Need) -> bool {
        rg_tests::can(self.name, need)
    }

    /// Those of these lengths that go there in one piece where it takes nothing in parts. (In a
    /// folder everything does.)
    fn lengths(&self, all: &[usize]) -> Vec<usize> {
        let in_parts = self.server.is_none() || self.can(Need::Uploads);
        let fits = |length: &usize| in_parts || *length < PART_BYTES;
        all.iter().copied().filter(fits).collect()
    }

    /// Nothing was left begun on the server.
    fn assert_nothing_open(&self, what: &str) {
        if let Some((server, bucket)) = &self.server
            && self.can(Need::Uploads)
        {
            assert_eq!(
                server.open_uploads(bucket),
                [""; 0],
                "{}: {what}",
                self.name
            );
        }
    }
}

/// Runs a promise against every kind of store.
fn each(place: &Sandbox, promise: impl Fn(&Peer)) {
    let _inside = s3_network().enter();
    let folder = StoreConfig {
        name: "offsite".into(),
        place: StorePlace::Folder(place.path("folder")),
    };
    std::fs::create_dir(place.path("folder")).expect("a folder");
    promise(&Peer {
        name: "folder",
        config: folder,
        server: None,
    });
    for server in servers_for_the_contract() {
        let bucket = server.bucket();
        let config = server.store("offsite", &bucket, "vps-1/rg", place.root());
        promise(&Peer {
            name: server.name(),
            config,
            server: Some((server, bucket)),
        });
    }
}

fn key(text: &str) -> Key {
    Key::new(text).expect("a key")
}

fn read(store: &dyn Store, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reader = store.get(&key(text)).expect("it can be opened");
    reader.read_to_end(&mut bytes).expect("it can be read");
    bytes
}

/// Bytes that do not repeat within a part, so that mixed up parts show.
fn pattern(length: usize) -> Vec<u8> {
    let words = (0u64..).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    words.take(length).collect()
}

/// A body that ends in an error.
struct Dies(io::Cursor<Vec<u8>>);

impl Read for Dies {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the dump died")),
            n => Ok(n),
        }
    }
}

#[test]
fn a_body_that_fails_leaves_nothing_whatever_its_length() {
    let place = sandbox!();
    each(&place, |peer| {
        let store = peer.store();
        for length in peer.lengths(&[0, 100, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 5]) {
            let body = pattern(length);
            let error = store
                .put(
                    &key("app/database/x.dump"),
                    &mut Dies(io::Cursor::new(body)),
                )
                .expect_err("a dump that died");
            assert!(
                matches!(error, PutError::Body(_)),
                "{}: {error:?}",
                peer.name
            );
            assert_eq!(
                store.list("").expect("a list"),
                [],
                "{} {length}",
                peer.name
            );
            peer.assert_nothing_open("after a dump that died");
        }
    });
}

#[test]
fn an_object_comes_back_as_it_was_put() {
    let place = sandbox!();
    each(&place, |peer| {
        let store = peer.store();
        let lengths = [
            0,
            1,
            PART_BYTES - 1,
            PART_BYTES,
            PART_BYTES + 1,
            2 * PART_BYTES + 77,
        ];
        for length in peer.lengths(&lengths) {
            let body = pattern(length);
            let put = store.put(&key("app/x"), &mut &body[..]);
            assert_eq!(put.expect("it can be put"), length as u64, "{}", peer.name);
            assert!(read(&*store, "app/x") == body, "{} {length}", peer.name);
            let listed = Object {
                key: key("app/x"),
                bytes: length as u64,
            };
            assert_eq!(
                store.list("app").expect("a list"),
                [listed],
                "{}",
                peer.name
            );
            peer.assert_nothing_open("after whole objects");
        }
    });
}

#[test]
fn putting_again_replaces_and_deleting_what_is_absent_is_fine() {
    let place = sandbox!();
    each(&place, |peer| {
        let store = peer.store();
        store.put(&key("a/b"), &mut &b"one"[..]).expect("put");
        store
            .put(&key("a/b"), &mut &b"three"[..])
            .expect("put again");
        assert_eq!(read(&*store, "a/b"), b"three", "{}", peer.name);
        store.delete(&key("a/b")).expect("delete");
        store.delete(&key("a/b")).expect("delete again");
        store
            .delete(&key("never/was"))
            .expect("delete what never was");
        assert_eq!(store.list("").expect("a list"), [], "{}", peer.name);
        let error = store
            .get(&key("a/b"))
            .err()
            .expect("it is gone")
            .to_string();
        assert!(error.starts_with("cannot read "), "{}: {error}", peer.name);
    });
}

#[test]
fn a_list_is_all_of_a_prefix_sorted_and_nothing_beside_it() {
    const COUNT: usize = 1_103;
    let place = sandbox!();
    each(&place, |peer| {
        let store = peer.store();
        // `app-staging` begins like `app` and sorts before what lies in it.
        for beside in ["app-staging/x", "app.x", "apps/x", "b"] {
            store.put(&key(beside), &mut &b""[..]).expect("put");
        }
        let wanted: Vec<String> = (0..COUNT)
            .map(|n| format!("app/database/{n:05}.json"))
            .collect();
        let next = std::sync::atomic::AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(name) = wanted.get(at) else { return };
                        store.put(&key(name), &mut name.as_bytes()).expect("put");
                    }
                });
            }
        });
        let listed = store.list("app").expect("a list");
        let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(names, wanted, "{}", peer.name);
        assert_eq!(
            store.list("").expect("a list").len(),
            COUNT + 4,
            "{}",
            peer.name
        );
        assert_eq!(store.list("nothing").expect("a list"), [], "{}", peer.name);
        let keys: Vec<Key> = listed.into_iter().map(|object| object.key).collect();
        let small = store.get_small(&keys, 1 << 20);
        assert_eq!(small.len(), COUNT);
        for (name, bytes) in wanted.iter().zip(small) {
            assert_eq!(
                bytes.expect("it can be read"),
                name.as_bytes(),
                "{}",
                peer.name
            );
        }
    });
}

#[test]
fn names_with_blanks_percents_and_letters_of_the_world_are_kept() {
    let place = sandbox!();
    each(&place, |peer| {
        let store = peer.store();
        let odd = [
            "a b/c d",
            "a%20b",
            "a+b",
            "ä/ö/ü",
            "x=1&y=2",
            "q?x#y",
            "日本/語",
            "it's (1)",
        ];
        for name in odd {
            store.put(&key(name), &mut name.as_bytes()).expect(name);
        }
        let mut wanted: Vec<&str> = odd.to_vec();
        wanted.sort_unstable();
        let listed = store.list("").expect("a list");
        let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(names, wanted, "{}", peer.name);
        for name in odd {
            assert_eq!(read(&*store, name), name.as_bytes(), "{} {name}", peer.name);
            store.delete(&key(name)).expect(name);
        }
        assert_eq!(store.list("").expect("a list"), [], "{}", peer.name);
    });
}

#[test]
fn of_two_on_one_machine_one_waits_and_then_names_the_other() {
    let place = sandbox!();
    each(&place, |peer| {
        let (store, other) = (peer.store(), peer.store());
        let lock = store.lock("app/database").expect("a lock");
        let beside = other
            .lock("app/files/uploads")
            .expect("another dataset's lock");
        assert_eq!(store.list("").expect("a list"), [], "{}", peer.name);
        drop(beside);
        drop(lock);
        drop(other.lock("app/database").expect("the lock is free again"));
        if let Some((server, bucket)) = &peer.server {
            assert_eq!(
                server.keys(bucket),
                [""; 0],
                "{}: leases were given back",
                peer.name
            );
        }
    });
}

#[test]
fn a_lease_of_another_machine_is_respected_until_it_ends_and_one_of_our_own_dead_run_is_not() {
    let place = sandbox!();
    each(&place, |peer| {
        if !peer.can(Need::ConditionalWrites) {
            return;
        }
        let (server, bucket) = peer.server.as_ref().expect("a server");
        let store = peer.store();
        let client = server.client(&server.admin);
        let leave = |holder: &str| {
            let call = client
                .sdk()
                .put_object()
                .bucket(bucket)
                .key("vps-1/rg/app/.rg-lock");
            let body = holder.as_bytes().to_vec().into();
            client
                .call(call.body(body).send())
                .expect("a lease is left");
        };
        leave(r#"{"host":"vps-2","process":77,"nonce":"x"}"#);
        let failure = store
            .lock("app")
            .err()
            .expect("another machine writes there");
        assert_eq!(
            failure.to_string(),
            "app in store `offsite` is in use by process 77 on vps-2"
        );
        assert!(
            failure.hints()[0].starts_with("if that machine is gone for good, its lease ends in 2")
        );
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("our name");
        leave(&format!(
            r#"{{"host":"{}","process":77,"nonce":"x"}}"#,
            host.trim()
        ));
        drop(
            store
                .lock("app")
                .expect("our own dead run does not hold it"),
        );
        assert_eq!(server.keys(bucket), [""; 0]);
    });
}

#[test]
fn what_is_locked_cannot_be_removed_and_a_server_without_locks_says_so() {
    let place = sandbox!();
    each(&place, |peer| {
        let Some((server, _)) = &peer.server else {
            return;
        };
        if !peer.can(Need::HonestLock) {
            return;
        }
        let client = server.client(&server.admin);
        let bucket = if peer.can(Need::ObjectLock) {
            let name = format!("locked-{}", std::process::id());
            let call = client.sdk().create_bucket().bucket(&name);
            client
                .call(call.object_lock_enabled_for_bucket(true).send())
                .expect("a bucket with locks");
            name
        } else {
            server.bucket()
        };
        let mut config = server.store("offsite", &bucket, "rg", place.root());
        if let StorePlace::Bucket(place) = &mut config.place {
            place.lock_days = Some(1);
        }
        let store = store::open(&config).expect("a store");
        for length in peer.lengths(&[10, PART_BYTES + 1]) {
            let put = store.put(&key("a/x"), &mut &pattern(length)[..]);
            if !peer.can(Need::ObjectLock) {
                let failure = put.expect_err("no lock").into_failure("");
                let said = failure.to_string();
                assert!(
                    said.contains("lock_days is set, but"),
                    "{}: {said}",
                    peer.name
                );
                continue;
            }
            put.expect("a locked object");
            let call = client
                .sdk()
                .head_object()
                .bucket(&bucket)
                .key("rg/a/x")
                .send();
            let version = client
                .call(call)
                .expect("a head")
                .version_id()
                .map(str::to_owned);
            // A plain delete hides it; the version stays and is refused.
            store.delete(&key("a/x")).expect("hidden");
            assert_eq!(store.list("").expect("a list"), []);
            let call = client.sdk().delete_object().bucket(&bucket).key("rg/a/x");
            let call = call
                .set_version_id(version.clone())
                .bypass_governance_retention(true);
            client.call(call.send()).expect_err("a locked version");
        }
    });
}

#[test]
fn the_table_of_what_cannot_be_done_names_only_what_the_suite_knows() {
    let known = ["folder", "SeaweedFS", "JuiceFS", "rclone", "moto"];
    for (name, need, why) in CANNOT {
        assert!(known.contains(name), "{name}: {need:?}");
        assert!(!why.is_empty(), "{name}: {need:?}");
    }
}
