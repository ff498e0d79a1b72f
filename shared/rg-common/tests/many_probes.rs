//! Five hundred endpoints at once: all are asked side by side, in bounded memory, and nothing
//! stays open. A process of its own, because its peak of memory is what is measured.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rg_common::check::State;
use rg_common::config::{HttpCheck, Value};
use rg_common::probe::clock::Limits;
use rg_common::probe::http::{HttpRequest, judge, probe};
use rg_common::probe::network::Network;
use rg_common::probe::tls::Authorities;
use rg_common::secret::Secret;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// As many as the promise names.
const ENDPOINTS: usize = 500;
/// The promise, in KiB. The servers of the test are in it too.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

/// A server that answers nobody before all have asked. Returns its address and its certificate.
async fn server() -> (SocketAddr, String) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let all = Arc::new(Barrier::new(ENDPOINTS));
    let padding = " ".repeat(40_000);
    let body = format!("{{\"status\":\"ok\"{padding}}}");
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    let answer: Arc<str> = answer.into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, all, answer) = (acceptor.clone(), all.clone(), answer.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                all.wait().await;
                // In pieces: what the server's end buffers counts too.
                for piece in answer.as_bytes().chunks(4096) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                }
                stream.shutdown().await.unwrap();
            });
        }
    });
    (at, own.cert.pem())
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn memory_kib_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:"));
    let words = peak.unwrap().split_whitespace().nth(1);
    words.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_endpoints_are_asked_at_once_in_bounded_memory() {
    let network = Arc::new(Network::new().unwrap());
    let (server, certificate) = server().await;
    let name = format!("rg-many-{}.pem", std::process::id());
    let file: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&file, certificate).unwrap();
    let authorities = Authorities::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let check = HttpCheck {
        url: Value::parse("https://localhost").unwrap(),
        status: 200,
        headers: Vec::new(),
        json: vec![("$.status".to_owned(), "ok".into())],
        contains: None,
        max_ms: None,
        connect_to: None,
    };
    let check = Arc::new(check);
    let url = Secret::new(format!("https://localhost:{}/health", server.port()));
    let mut request = HttpRequest::of(&check, url).unwrap();
    request.authorities = Some(authorities);
    // Far more than it takes: this is about memory, on a machine that may be busy.
    request.limits = Limits {
        dns: Duration::from_secs(120),
        connect: Duration::from_secs(120),
        tls: Duration::from_secs(120),
        total: Duration::from_secs(120),
    };
    let request = Arc::new(request);
    let now = "2026-02-01T00:00:00Z".parse().unwrap();

    let before = open_files();
    let mut round = JoinSet::new();
    for _ in 0..ENDPOINTS {
        let (network, request, check) = (network.clone(), request.clone(), check.clone());
        round.spawn(async move {
            let facts = probe(&network, &request, now).await.unwrap();
            judge(&check, &facts)
        });
    }
    while let Some(verdict) = round.join_next().await {
        let verdict = verdict.unwrap();
        assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
    }
    let peak = memory_kib_peak();
    assert!(peak < MEMORY_KIB_MAX, "{peak} KiB at the peak");
    // The server's ends close a moment later than ours.
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while open_files() > before {
        assert!(
            tokio::time::Instant::now() < end,
            "{} stay open",
            open_files()
        );
        tokio::task::yield_now().await;
    }
}
