//! Faults on the wire between a store and its bucket. Each ends in success after retries or in a
//! failure with the cause in words; nothing is ever half there, and nothing stays begun.

use std::io::Read;
use std::time::{Duration, Instant};

use rg_common::store::{self, Key, Store};
use rg_tests::{
    Fault, Op, S3FaultProxy, S3Server, Sandbox, on_every_server, s3_network, s3_store, sandbox,
};

on_every_server! {
    a_fault_that_passes_at_any_part_costs_a_retry_and_nothing_else,
    a_fault_that_stays_at_any_part_is_named_and_the_upload_is_aborted,
    a_completion_whose_answer_is_lost_is_recognised,
    an_object_whose_etag_is_wrong_is_read_back_before_it_is_believed,
    an_object_that_arrived_with_other_bytes_is_removed,
    a_read_that_is_cut_goes_on_at_its_byte,
    an_object_that_is_replaced_while_it_is_read_is_an_error,
    a_list_that_is_not_all_of_it_is_an_error,
    an_abort_that_fails_at_first_is_repeated;
    slow:
    a_side_that_falls_silent_is_given_up_in_time,
    a_completion_answered_200_with_an_error_inside_is_tried_again_or_named,
    a_service_that_is_busy_for_good_is_named_after_the_last_try,
}

/// As the kit configures it.
const PART_BYTES: usize = 5 << 20;
/// Two whole parts and a short one.
const BYTES: usize = 2 * PART_BYTES + 1_000;
const PARTS: u32 = 3;

/// A store behind a proxy, and its bucket as it is behind it.
struct Wire {
    proxy: S3FaultProxy,
    store: Box<dyn Store>,
    server: &'static S3Server,
    bucket: String,
}

impl Wire {
    fn new(place: &Sandbox, server: &'static S3Server) -> Wire {
        let bucket = server.bucket();
        let proxy = S3FaultProxy::before(server);
        let at = ("offsite", &*bucket, "rg");
        let config = s3_store(&proxy.endpoint(), &server.admin, at, place.root());
        let _inside = s3_network().enter();
        let store = store::open(&config).expect("a store");
        Wire {
            proxy,
            store,
            server,
            bucket,
        }
    }

    fn put(&self, name: &str, body: &[u8]) -> Result<u64, String> {
        let key = Key::new(name).expect("a key");
        let put = self.store.put(&key, &mut &body[..]);
        put.map_err(|error| error.into_failure("").to_string())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, String> {
        let key = Key::new(name).expect("a key");
        let mut bytes = Vec::new();
        let mut reader = self
            .store
            .get(&key)
            .map_err(|failure| failure.to_string())?;
        match reader.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Nothing half there, nothing begun.
    #[track_caller]
    fn holds(&self, keys: &[&str]) {
        assert_eq!(self.server.keys(&self.bucket), keys);
        assert_eq!(self.server.open_uploads(&self.bucket), [""; 0]);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    let words = (0u64..).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
    words.take(length).collect()
}

fn a_fault_that_passes_at_any_part_costs_a_retry_and_nothing_else(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    let faults = [
        Fault::Answer(500, "InternalError"),
        Fault::Answer(503, "SlowDown"),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::CutHead,
        Fault::Answer(400, "BadDigest"),
        Fault::Answer(400, "RequestTimeout"),
    ];
    for fault in faults {
        for part in 1..=PARTS {
            wire.proxy.heal();
            wire.proxy.on(Op::Part, part..=part, fault.clone());
            assert_eq!(wire.put("app/x", &body), Ok(BYTES as u64));
            assert!(wire.proxy.count(Op::Part) > PARTS, "the fault was met");
            wire.holds(&["rg/app/x"]);
        }
    }
    wire.proxy.heal();
    assert!(wire.get("app/x").expect("it can be read") == body);
}

fn a_fault_that_stays_at_any_part_is_named_and_the_upload_is_aborted(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    for (part, fault, words) in [
        (
            1,
            Fault::Answer(403, "AccessDenied"),
            "do not allow it (AccessDenied)",
        ),
        (
            2,
            Fault::Answer(403, "ExpiredToken"),
            "the keys have expired",
        ),
        (
            3,
            Fault::Answer(403, "RequestTimeTooSkewed"),
            "this machine's clock is wrong",
        ),
        (
            3,
            Fault::Answer(400, "BadDigest"),
            "bytes were changed on their way",
        ),
        (
            2,
            Fault::Answer(404, "NoSuchUpload"),
            "it is not there (NoSuchUpload)",
        ),
    ] {
        wire.proxy.heal();
        wire.proxy.on(Op::Part, part..=99, fault);
        let said = wire.put("app/x", &body).expect_err(words);
        assert!(said.contains(words), "{said}");
        assert!(
            said.starts_with("cannot write app/x in store `offsite`: "),
            "{said}"
        );
        wire.holds(&[]);
    }
}

fn a_service_that_is_busy_for_good_is_named_after_the_last_try(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    wire.proxy
        .on(Op::Put, 1..=99, Fault::Answer(503, "SlowDown"));
    let said = wire.put("app/x", b"abc").expect_err("busy for good");
    assert!(
        said.contains("was too busy, each time it was tried (SlowDown)"),
        "{said}"
    );
    assert_eq!(wire.proxy.count(Op::Put), 8);
    wire.holds(&[]);
}

fn a_completion_whose_answer_is_lost_is_recognised(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    // The first attempt did it, the second is told that there is no such upload.
    wire.proxy.on(Op::Complete, 1..=1, Fault::ResetAfter);
    assert_eq!(wire.put("app/x", &body), Ok(BYTES as u64));
    wire.holds(&["rg/app/x"]);
}

fn a_completion_answered_200_with_an_error_inside_is_tried_again_or_named(
    server: &'static S3Server,
) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    wire.proxy
        .on(Op::Complete, 1..=1, Fault::Answer(200, "InternalError"));
    assert_eq!(wire.put("app/x", &body), Ok(BYTES as u64));
    assert!(wire.proxy.count(Op::Complete) > 1, "the fault was met");
    wire.holds(&["rg/app/x"]);
    wire.proxy.heal();
    wire.proxy
        .on(Op::Complete, 1..=99, Fault::Answer(200, "InternalError"));
    let said = wire.put("app/y", &body).expect_err("never completed");
    assert!(
        said.contains("failed, each time it was tried: InternalError"),
        "{said}"
    );
    wire.holds(&["rg/app/x"]);
}

fn an_object_whose_etag_is_wrong_is_read_back_before_it_is_believed(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    wire.proxy.on(Op::Head, 1..=99, Fault::Change(other_etag));
    assert_eq!(wire.put("app/x", &body), Ok(BYTES as u64));
    assert!(wire.proxy.count(Op::Get) >= 2, "it was read back");
    // A service with odd ETags has them always: the next object is believed.
    wire.proxy
        .on(Op::Get, 1..=99, Fault::Answer(500, "InternalError"));
    assert_eq!(wire.put("app/y", &body), Ok(BYTES as u64));
    wire.holds(&["rg/app/x", "rg/app/y"]);
}

fn an_object_that_arrived_with_other_bytes_is_removed(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    wire.proxy.on(Op::Put, 1..=1, Fault::Change(other_etag));
    wire.proxy.on(
        Op::Get,
        1..=9,
        Fault::Change(|answer| answer.replace("abc", "abd")),
    );
    let said = wire.put("app/x", b"abc").expect_err("damaged");
    assert!(
        said.contains("and reading it back shows other bytes"),
        "{said}"
    );
    wire.holds(&[]);
}

fn other_etag(answer: String) -> String {
    let lines = answer.split("\r\n").map(|line| match line.split_once(':') {
        Some((name, _)) if name.eq_ignore_ascii_case("etag") => {
            "ETag: \"0123456789abcdef0123456789abcdef\"".to_owned()
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

fn a_read_that_is_cut_goes_on_at_its_byte(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    wire.put("app/x", &body).expect("put");
    for fault in [
        Fault::CutAfter(100_000),
        Fault::CutAfter(0),
        Fault::ResetAfter,
        Fault::Answer(503, "SlowDown"),
    ] {
        for which in 1..=3 {
            wire.proxy.heal();
            wire.proxy.on(Op::Get, which..=which, fault.clone());
            assert!(wire.get("app/x").expect("it can be read") == body);
        }
    }
    // Every connection is cut, each brings a piece.
    wire.proxy.heal();
    wire.proxy.on(Op::Get, 1..=9_999, Fault::CutAfter(1 << 20));
    assert!(wire.get("app/x").expect("it can be read") == body);
    wire.proxy.heal();
    wire.proxy.on(Op::Get, 1..=9_999, Fault::CutAfter(0));
    let said = wire.get("app/x").expect_err("nothing ever comes");
    assert!(said.contains("cannot be reached"), "{said}");
}

fn an_object_that_is_replaced_while_it_is_read_is_an_error(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    // More than is asked for ahead of the reader.
    const LONG: usize = 40 << 20;
    wire.put("app/x", &pattern(LONG)).expect("put");
    let key = Key::new("app/x").expect("a key");
    let mut reader = wire.store.get(&key).expect("it can be opened");
    let mut start = vec![0; 1_000];
    reader.read_exact(&mut start).expect("its start");
    let mut other = pattern(LONG);
    other.reverse();
    wire.put("app/x", &other).expect("another in its place");
    let mut rest = Vec::new();
    let error = reader.read_to_end(&mut rest).expect_err("a mixture of two");
    let said = error.to_string();
    assert!(
        said.contains("it was changed by somebody else meanwhile"),
        "{said}"
    );
}

fn a_list_that_is_not_all_of_it_is_an_error(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    for name in ["app/a", "app/b", "app/c"] {
        wire.put(name, b"").expect("put");
    }
    let listed = || match wire.store.list("app") {
        Ok(objects) => Ok(objects.len()),
        Err(failure) => Err(failure.to_string()),
    };
    type Spoilt = (fn(String) -> String, &'static str);
    let broken: [Spoilt; 4] = [
        (
            |a| a.replace("<IsTruncated>false", "<IsTruncated>true"),
            "more is promised, but not where",
        ),
        (
            |a| {
                a.replacen("<Contents>", "<Ignored>", 1)
                    .replacen("</Contents>", "</Ignored>", 1)
            },
            "says 3 keys and holds 2",
        ),
        (|a| a.replace("rg/app/c", "rg/app/a"), "holds `app/a` twice"),
        (|a| a.replace("rg/app/c", "rg/other"), "outside `rg/app/`"),
    ];
    for (change, words) in broken {
        wire.proxy.heal();
        wire.proxy.on(Op::List, 1..=1, Fault::Change(change));
        let said = listed().expect_err(words);
        assert!(said.contains(words), "{said}");
    }
    // The same page for ever, each with a token of its own.
    wire.proxy.heal();
    let forever: fn(String) -> String = |answer| {
        let next = "<IsTruncated>true</IsTruncated><NextContinuationToken>";
        let token = answer.len() + usize::from(answer.contains("ContinuationToken"));
        let replaced = answer.replace(
            "<IsTruncated>false</IsTruncated>",
            &format!("{next}t{token}</NextContinuationToken>"),
        );
        replaced.replace("<NextContinuationToken></NextContinuationToken>", "")
    };
    wire.proxy.on(Op::List, 1..=99, Fault::Change(forever));
    let said = listed().expect_err("a list that goes round in circles");
    assert!(
        // MinIO's front end takes no token that it has not made.
        said.contains("a second time")
            || said.contains("not where")
            || said.contains("continuation token"),
        "{said}"
    );
    wire.proxy.heal();
    wire.proxy.on(Op::List, 1..=1, Fault::CutAfter(200));
    assert_eq!(listed(), Ok(3), "a cut answer is asked for again");
    wire.proxy
        .on(Op::List, 1..=99, Fault::Answer(500, "InternalError"));
    let said = listed().expect_err("no list");
    assert!(said.contains("cannot list s3://"), "{said}");
}

fn a_side_that_falls_silent_is_given_up_in_time(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    let body = pattern(BYTES);
    wire.put("app/x", &body).expect("put");
    let began = Instant::now();
    wire.proxy.on(Op::Get, 2..=2, Fault::StallAfter(1_000));
    wire.proxy.on(Op::List, 1..=1, Fault::Silence);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(wire.get("app/x").expect("it can be read") == body));
        scope.spawn(|| assert_eq!(wire.store.list("app").expect("a list").len(), 1));
    });
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
}

fn an_abort_that_fails_at_first_is_repeated(server: &'static S3Server) {
    let place = sandbox!();
    let wire = Wire::new(&place, server);
    wire.proxy
        .on(Op::Part, 2..=99, Fault::Answer(403, "AccessDenied"));
    wire.proxy
        .on(Op::Abort, 1..=2, Fault::Answer(503, "SlowDown"));
    wire.put("app/x", &pattern(BYTES)).expect_err("not allowed");
    wire.holds(&[]);
}
