//! The S3 servers of the kit: they start, they tell keys apart, and they end with the test.

use std::net::TcpStream;
use std::time::Duration;

use rg_common::s3::{Client, Credentials, Kind, S3Config};
use rg_common::secret::Secret;
use rg_tests::{JuiceFs, S3Key, S3Server, SeaweedFs, eventually};

fn client(network: &tokio::runtime::Runtime, server: &S3Server, key: &S3Key) -> Client {
    let keys = Credentials::new(
        Secret::new(&*key.access),
        Secret::new(&*key.secret),
        "the suite",
    );
    let config = S3Config {
        endpoint: Some(server.endpoint()),
        region: "us-east-1".into(),
        path_style: None,
        credentials: Some(keys),
    };
    Client::new(network.handle(), &config).expect("a client")
}

fn network() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

#[test]
fn a_server_makes_buckets_for_its_admin_and_ends_with_the_test() {
    let network = network();
    for server in [SeaweedFs::start(), JuiceFs::start()] {
        let admin = client(&network, &server, &server.admin);
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
    let network = network();
    let server = SeaweedFs::shared();
    let reader = server.reader.as_ref().expect("a key that may only read");
    let reader = client(&network, server, reader);
    let call = reader.sdk().create_bucket().bucket("not-for-me").send();
    let error = reader.call(call).expect_err("it may not");
    assert_eq!(error.kind, Kind::Denied, "{error}");
}
