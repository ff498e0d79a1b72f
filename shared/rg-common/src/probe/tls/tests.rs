//! Real handshakes on loopback, with certificates that are made here. The time is given, so that a
//! certificate expires when the test wants it.

use std::io::Write;
use std::net::SocketAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::check::{State, Verdict};

type Date = (i32, u8, u8);

/// Somebody who signs certificates.
pub(crate) struct TestAuthority {
    params: CertificateParams,
    key: KeyPair,
    certificate: rcgen::Certificate,
}

/// A server's certificate and its key.
pub(crate) struct Leaf {
    pub der: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
    pub pem: String,
}

/// An authority that signs itself, from 2020 to 2040.
pub(crate) fn authority(name: &str) -> TestAuthority {
    let (params, key) = (
        authority_params(name, (2040, 1, 1)),
        KeyPair::generate().unwrap(),
    );
    let certificate = params.self_signed(&key).unwrap();
    TestAuthority {
        params,
        key,
        certificate,
    }
}

fn authority_params(name: &str, to: Date) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = called(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(to.0, to.1, to.2);
    params
}

fn called(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

impl TestAuthority {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(crate) fn trusted(&self) -> Authorities {
        let mut file = tempfile();
        file.1.write_all(self.certificate.pem().as_bytes()).unwrap();
        let read = Authorities::read(&file.0).unwrap();
        std::fs::remove_file(&file.0).unwrap();
        read
    }

    fn intermediate(&self, name: &str, to: Date) -> TestAuthority {
        let (params, key) = (authority_params(name, to), KeyPair::generate().unwrap());
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        TestAuthority {
            params,
            key,
            certificate,
        }
    }

    pub(crate) fn leaf(&self, names: &[&str], from: Date, to: Date) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name = called(&names[0]);
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.params, &self.key);
        leaf(&params.signed_by(&key, &issuer).unwrap(), &key)
    }
}

fn leaf(certificate: &rcgen::Certificate, key: &KeyPair) -> Leaf {
    Leaf {
        der: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        pem: certificate.pem(),
    }
}

/// A fresh file under a name of its own.
fn tempfile() -> (PathBuf, std::fs::File) {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    let name = format!("rg-tls-{:x}.pem", u64::from_ne_bytes(random));
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::create_new(&path).unwrap();
    (path, file)
}

/// Serves a chain on loopback; each client gets `answer` once its handshake is done.
pub(crate) async fn serve(
    leaf: &Leaf,
    above: &[CertificateDer<'static>],
    answer: &'static [u8],
) -> SocketAddr {
    let mut chain = vec![leaf.der.clone()];
    chain.extend_from_slice(above);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, leaf.key.clone_key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    drop(stream.write_all(answer).await);
                    drop(stream.shutdown().await);
                }
            });
        }
    });
    at
}

pub(crate) const NAMES: &[(&str, &[&str])] = &[("app.test", &["127.0.0.1"])];

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

async fn judged(port: u16, trusted: Option<&TestAuthority>, now: &str) -> Verdict {
    let mut request = TlsRequest::new(format!("app.test:{port}"));
    request.authorities = trusted.map(TestAuthority::trusted);
    judged_with(&request, now).await
}

async fn judged_with(request: &TlsRequest, now: &str) -> Verdict {
    let network = Network::of_test(NAMES);
    let now = at(now);
    judge(&probe(&network, request, now).await.unwrap(), now)
}

/// Valid from January to April 2026: 90 days, so a third is 30 days and a sixth 15.
const FROM: Date = (2026, 1, 1);
const TO: Date = (2026, 4, 1);

#[tokio::test]
async fn what_is_left_of_a_lifetime_decides() {
    let root = authority("Test Root");
    let leaf = root.leaf(&["app.test"], FROM, TO);
    let port = serve(&leaf, &[], b"").await.port();
    for (now, state, found) in [
        (
            "2026-02-01T00:00:00Z",
            State::Pass,
            "valid for another 59 d of 90 d, until 2026-04-01T00:00:00Z, by `Test Root`",
        ),
        (
            "2026-03-02T12:00:00Z",
            State::Warn,
            "valid for another 29 d 12 h of 90 d, until 2026-04-01T00:00:00Z, by `Test Root`",
        ),
        (
            "2026-03-18T00:00:00Z",
            State::Fail,
            "valid for another 14 d of 90 d, until 2026-04-01T00:00:00Z, by `Test Root`",
        ),
        (
            "2026-04-01T00:00:01Z",
            State::Fail,
            "the certificate of `app.test` expired on 2026-04-01T00:00:00Z",
        ),
        (
            "2025-12-31T23:00:00Z",
            State::Fail,
            "the certificate of `app.test` is not yet valid: it begins on 2026-01-01T00:00:00Z",
        ),
    ] {
        let verdict = judged(port, Some(&root), now).await;
        assert_eq!((verdict.state, verdict.found.as_str()), (state, found));
    }
    let verdict = judged(port, Some(&root), "2026-03-02T12:00:00Z").await;
    let figure = verdict
        .figures
        .iter()
        .find(|f| f.name == "days_left")
        .unwrap();
    assert_eq!(
        (figure.value, figure.warn, figure.fail),
        (29.5, Some(30.0), Some(15.0))
    );
}

#[tokio::test]
async fn a_certificate_of_six_days_has_a_day_at_least() {
    let root = authority("Test Root");
    let leaf = root.leaf(&["app.test"], (2026, 1, 1), (2026, 1, 4));
    let port = serve(&leaf, &[], b"").await.port();
    // A sixth of three days is twelve hours; twenty-three are still too few.
    let verdict = judged(port, Some(&root), "2026-01-03T01:00:00Z").await;
    assert_eq!(verdict.state, State::Fail, "{}", verdict.found);
}

#[tokio::test]
async fn the_reason_is_named_in_words() {
    let (root, other) = (authority("Test Root"), authority("Private Root"));
    let middle = root.intermediate("Middle", (2039, 1, 1));
    let now = "2026-02-01T00:00:00Z";
    let good = middle.leaf(&["app.test"], FROM, TO);
    let whole = serve(&good, &[middle.der()], b"").await.port();
    assert_eq!(judged(whole, Some(&root), now).await.state, State::Pass);

    let alone = serve(&good, &[], b"").await.port();
    let stray = middle.leaf(&["www.other.test", "other.test"], FROM, TO);
    let stray = serve(&stray, &[middle.der()], b"").await.port();
    let private = other.leaf(&["app.test"], FROM, TO);
    let private = serve(&private, &[other.der()], b"").await.port();
    let hidden = other.intermediate("Hidden", (2039, 1, 1));
    let hidden_leaf = hidden.leaf(&["app.test"], FROM, TO);
    let hidden = serve(&hidden_leaf, &[hidden.der()], b"").await.port();
    let old = root.intermediate("Old Middle", (2026, 1, 15));
    let old_leaf = old.leaf(&["app.test"], FROM, TO);
    let old = serve(&old_leaf, &[old.der()], b"").await.port();
    for (port, found) in [
        (
            alone,
            "incomplete chain: the certificate of its issuer `Middle` is not sent, and is not one this system trusts",
        ),
        (
            stray,
            "wrong name: the certificate is for www.other.test, other.test, not for `app.test`",
        ),
        (
            private,
            "unknown authority: the chain ends at `Private Root`, whom this system does not trust",
        ),
        (
            hidden,
            "unknown authority: the chain ends at `Private Root`, whom this system does not trust",
        ),
        (
            old,
            "expired: the intermediate certificate `Old Middle` in the chain, on 2026-01-15T00:00:00Z",
        ),
    ] {
        let verdict = judged(port, Some(&root), now).await;
        assert_eq!(
            (verdict.state, verdict.found.as_str()),
            (State::Fail, found)
        );
        assert!(verdict.fix.is_some());
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_good_only_where_it_is_named() {
    let mut params = CertificateParams::new(vec!["app.test".to_owned()]).unwrap();
    params.distinguished_name = called("app.test");
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
    let key = KeyPair::generate().unwrap();
    let own = leaf(&params.self_signed(&key).unwrap(), &key);
    let mut request = TlsRequest::new(format!("app.test:{}", serve(&own, &[], b"").await.port()));
    let now = "2026-02-01T00:00:00Z";
    let verdict = judged_with(&request, now).await;
    assert_eq!(
        verdict.found,
        "unknown authority: the certificate is self-signed"
    );
    let (path, mut file) = tempfile();
    file.write_all(own.pem.as_bytes()).unwrap();
    request.authorities = Some(Authorities::read(&path).unwrap());
    let verdict = judged_with(&request, now).await;
    assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
    request.server_name = Some("www.app.test".to_owned());
    let verdict = judged_with(&request, now).await;
    assert_eq!(
        verdict.found,
        "wrong name: the certificate is for app.test, not for `www.app.test`"
    );
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn an_issuer_that_expires_first_ends_the_certificate_with_it() {
    let root = authority("Test Root");
    let middle = root.intermediate("Middle", (2026, 2, 10));
    let leaf = middle.leaf(&["app.test"], FROM, TO);
    // A certificate besides, that is expired but not part of the proof, does not count.
    let stray = root.intermediate("Stray", (2021, 1, 1));
    let port = serve(&leaf, &[middle.der(), stray.der()], b"").await.port();
    let verdict = judged(port, Some(&root), "2026-02-01T00:00:00Z").await;
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (
            State::Fail,
            "valid only as long as its issuer `Middle`: for another 9 d of 90 d, until 2026-02-10T00:00:00Z, by `Middle`"
        )
    );
}

#[tokio::test]
async fn a_certificate_that_was_renewed_but_not_reloaded_is_seen_until_the_reload() {
    let root = authority("Test Root");
    let old = root.leaf(&["app.test"], FROM, TO);
    let new = root.leaf(&["app.test"], (2026, 2, 25), (2026, 5, 26));
    let (path, mut file) = tempfile();
    file.write_all(new.pem.as_bytes()).unwrap();
    let mut request = TlsRequest::new(format!("app.test:{}", serve(&old, &[], b"").await.port()));
    request.authorities = Some(root.trusted());
    request.on_disk = Some(path.clone());
    let now = "2026-02-26T00:00:00Z";
    let verdict = judged_with(&request, now).await;
    let words = format!(
        "renewed but not reloaded: {} is of 2026-02-25T00:00:00Z, the served certificate of 2026-01-01T00:00:00Z; ",
        path.display()
    );
    assert_eq!(verdict.state, State::Fail);
    assert!(verdict.found.starts_with(&words), "{}", verdict.found);
    request.address = format!("app.test:{}", serve(&new, &[], b"").await.port());
    assert_eq!(judged_with(&request, now).await.state, State::Pass);
    std::fs::remove_file(&path).unwrap();
    // Without the file nobody can tell.
    let network = Network::of_test(NAMES);
    let failure = probe(&network, &request, at(now)).await.unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("cannot read the certificate")
    );
}

#[tokio::test]
async fn a_port_without_tls_and_one_that_hangs_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(stream.write_all(b"220 mail.test ESMTP ready\r\n").await);
        }
    });
    let verdict = judged(plain, None, "2026-02-01T00:00:00Z").await;
    assert_eq!(verdict.found, "`app.test` does not speak TLS there");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = TlsRequest::new(format!("app.test:{}", silent.local_addr().unwrap().port()));
    request.limits.tls = std::time::Duration::from_millis(150);
    let verdict = judged_with(&request, "2026-02-01T00:00:00Z").await;
    let words = "the TLS handshake did not end within 150 ms";
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Fail, words)
    );
}

#[tokio::test]
async fn the_systems_authorities_can_be_read() {
    let authorities = Authorities::of_system();
    assert!(authorities.is_ok(), "the tests need ca-certificates");
}
