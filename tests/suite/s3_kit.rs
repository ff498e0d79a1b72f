//! The S3 servers of the kit: they start, they tell keys apart, and they end with the test.

use std::net::TcpStream;
use std::time::Duration;

use rg_common::s3::Kind;
use rg_tests::{JuiceFs, SeaweedFs, eventually};

#[test]
fn a_server_makes_buckets_for_its_admin_and_ends_with_the_test() {
    for server in [SeaweedFs::start(), JuiceFs::start()] {
        let admin = server.client(&server.admin);
        let make = admin.sdk().create_bucket().bucket("first").send();
        let made = admin.call(make);
        assert!(
            made.is_ok(),
            "{}: {made:?}\n{}",
            server.name(),
            server.log()
        );
        let port = server.port();
        drop(server);
        let gone = || TcpStream::connect(("127.0.0.1", port)).is_err();
        assert!(eventually(Duration::from_secs(10), gone));
    }
}

#[test]
fn a_reader_may_not_write() {
    let server = SeaweedFs::shared();
    let reader = server.reader.as_ref().expect("a key that may only read");
    let reader = server.client(reader);
    let call = reader.sdk().create_bucket().bucket("not-for-me").send();
    let error = reader.call(call).expect_err("it may not");
    assert_eq!(error.kind, Kind::Denied, "{error}");
}
