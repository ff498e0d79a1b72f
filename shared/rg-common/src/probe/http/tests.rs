//! Servers on loopback that answer well, badly, slowly, for ever and not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::tls::tests::{NAMES, at, authority, serve};
use super::*;
use crate::check::{State, Verdict};
use crate::config::Value as ConfigValue;

const NOW: &str = "2026-02-01T00:00:00Z";

/// A server that hands each connection, its request read, to `answer`.
async fn server<F, W>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream, String) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                answer(stream, String::from_utf8(request).unwrap()).await;
            });
        }
    });
    at
}

/// A server that always sends the same.
async fn says(answer: &'static str) -> SocketAddr {
    server(move |mut stream, _| async move {
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await
}

fn check() -> HttpCheck {
    HttpCheck {
        url: ConfigValue::parse("http://app.test").unwrap(),
        status: 200,
        headers: Vec::new(),
        json: Vec::new(),
        contains: None,
        max_ms: None,
        connect_to: None,
    }
}

fn request(check: &HttpCheck, url: String) -> HttpRequest {
    let mut request = HttpRequest::of(check, Secret::new(url)).unwrap();
    request.limits.total = Duration::from_millis(600);
    request
}

async fn asked(check: &HttpCheck, request: &HttpRequest) -> Verdict {
    let network = Network::of_test(NAMES);
    judge(check, &probe(&network, request, at(NOW)).await.unwrap())
}

async fn judged(check: &HttpCheck, server: SocketAddr) -> Verdict {
    let url = format!("http://app.test:{}/health", server.port());
    asked(check, &request(check, url)).await
}

#[tokio::test]
async fn every_assertion_that_does_not_hold_is_named_in_one_verdict() {
    let health = says(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nX-Build: 41\r\n\r\n\
         {\"status\":\"degraded\",\"db\":{\"up\":false,\"url\":\"postgres://a:hunter2@db/x\"}}",
    )
    .await;
    let check = HttpCheck {
        headers: vec![
            ("content-type".to_owned(), "json".to_owned()),
            ("x-build".to_owned(), "42".to_owned()),
            ("strict-transport-security".to_owned(), "max-age".to_owned()),
        ],
        json: vec![
            ("$.status".to_owned(), json!("healthy")),
            ("$.db.up".to_owned(), json!(true)),
            ("$.cache".to_owned(), json!("up")),
        ],
        contains: Some("all well".to_owned()),
        ..check()
    };
    let verdict = judged(&check, health).await;
    let shown = r#"{"db":{"up":false,"url":"postgres://a:***@db/x"},"status":"degraded"}"#;
    assert_eq!(
        (verdict.state, verdict.found),
        (
            State::Fail,
            [
                "it answers 503, not 200",
                "header `x-build` is `41`, without `42`",
                "header `strict-transport-security` is not there",
                "`$.status` is \"degraded\", not \"healthy\"",
                "`$.db.up` is false, not true",
                &format!("`$.cache` leads nowhere in the answer {shown}"),
                "`all well` is not in the answer",
            ]
            .join("; ")
        )
    );
    assert_eq!(verdict.evidence, [format!("answer: {shown}")]);
    assert!(verdict.fix.is_some());
}

#[tokio::test]
async fn a_good_answer_passes_with_the_figures_of_its_phases() {
    let health = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n{\"status\":\"ok\"}\r\n0\r\n\r\n").await;
    let check = HttpCheck {
        json: vec![("$.status".to_owned(), json!("ok"))],
        contains: Some("status".to_owned()),
        max_ms: Some(500),
        ..check()
    };
    let verdict = judged(&check, health).await;
    assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
    assert!(verdict.found.starts_with("200 in "), "{}", verdict.found);
    let names: Vec<&str> = verdict.figures.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["total", "dns", "connect", "first_byte"]);
    assert_eq!(verdict.figures[0].fail, Some(0.5));
}

#[tokio::test]
async fn who_took_too_long_is_named_with_the_phase() {
    let slow = server(|mut stream, _| async move {
        tokio::time::sleep(Duration::from_millis(120)).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
    })
    .await;
    let check = HttpCheck {
        max_ms: Some(50),
        ..check()
    };
    let verdict = judged(&check, slow).await;
    let found = verdict.found;
    assert_eq!(verdict.state, State::Fail);
    assert!(found.starts_with("it took 1"), "{found}");
    assert!(
        found.contains(" ms, allowed are 50 ms: first byte 1"),
        "{found}"
    );
}

#[test]
fn the_phase_that_took_most_of_the_time_is_named() {
    let check = HttpCheck {
        max_ms: Some(50),
        ..check()
    };
    let answer = Answer {
        peer: "127.0.0.1:443".parse().unwrap(),
        status: 200,
        headers: Vec::new(),
        body_bytes: 0,
        body_cut: false,
        excerpt: String::new(),
        json: Ok(Vec::new()),
        contains: None,
    };
    let facts = HttpFacts {
        hops: Vec::new(),
        answer: Ok(answer),
        tls: None,
        times: Times {
            dns: Some(Duration::from_millis(3)),
            connect: Some(Duration::from_millis(140)),
            tls: Some(Duration::from_millis(2100)),
            first_byte: Some(Duration::from_millis(50)),
            body: Some(Duration::from_millis(7)),
            total: Duration::from_millis(2300),
        },
    };
    let verdict = judge(&check, &facts);
    let words = "it took 2.3 s, allowed are 50 ms: TLS 2.1 s of 2.3 s";
    assert_eq!(
        (verdict.state, verdict.found.as_str()),
        (State::Fail, words)
    );
}

#[tokio::test]
async fn a_target_that_misbehaves_costs_the_deadline_at_most_and_is_described() {
    let closes = server(|stream, _| async move { drop(stream) }).await;
    let silent = server(|stream, _| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let drips = server(|mut stream, _| async move {
        drop(
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
                .await,
        );
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let garbage = says("\x00\x1b[2J\x16\x03\x01 what?").await;
    let short = says("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!").await;
    for (server, begins) in [
        (closes, "it closed the connection without an answer"),
        (silent, "it did not begin to answer within 600 ms"),
        (drips, "its answer did not end within 600 ms"),
        (
            garbage,
            "it does not answer in HTTP/1.1 but with `[2J what?`",
        ),
        (short, "it closed the connection after 5 of its 10 bytes"),
    ] {
        let began = Instant::now();
        let verdict = judged(&check(), server).await;
        assert_eq!(verdict.state, State::Fail);
        assert!(verdict.found.starts_with(begins), "{}", verdict.found);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn an_endless_answer_is_left_after_its_first_part() {
    let endless = server(|mut stream, _| async move {
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nwelcome").await);
        let piece = vec![b'x'; 64 * 1024];
        while stream.write_all(&piece).await.is_ok() {}
    })
    .await;
    let mut check = check();
    let verdict = judged(&check, endless).await;
    assert_eq!(verdict.state, State::Pass);
    let words = "; the first 1.0 MiB were read of a longer answer";
    assert!(verdict.found.ends_with(words), "{}", verdict.found);
    check.contains = Some("welcome".to_owned());
    assert_eq!(judged(&check, endless).await.state, State::Pass);
    check.contains = Some("goodbye".to_owned());
    check.json = vec![("$.a".to_owned(), json!(1))];
    assert_eq!(
        judged(&check, endless).await.found,
        "the answer is longer than 1.0 MiB: its JSON was not read; \
         `goodbye` is not in the first 1.0 MiB of the answer"
    );
}

#[tokio::test]
async fn redirects_are_the_answer_unless_they_are_followed_and_five_at_most() {
    let asks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asks);
    let around = server(move |mut stream, _| {
        let at = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            let answer = format!("HTTP/1.1 302 Found\r\nLocation: /{at}?token=x\r\n\r\n");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    })
    .await;
    let port = around.port();
    let verdict = judged(&check(), around).await;
    assert_eq!(verdict.found, "it answers 302 (to /0), not 200");
    let mut follow = request(&check(), format!("http://app.test:{port}/"));
    follow.redirects = 100;
    let verdict = asked(&check(), &follow).await;
    assert_eq!(
        verdict.found,
        format!(
            "redirected 6 times, to http://app.test:{port}/6: \
             it redirects more than 5 times, now to http://app.test:{port}/6"
        )
    );
    assert_eq!(asks.load(Ordering::SeqCst), 1 + 6);
}

#[tokio::test]
async fn a_redirect_is_followed_and_reported_and_headers_stay_at_home() {
    let home = server(|mut stream, request| async move {
        let status = if request.contains("X-Key: k") && !request.starts_with("GET /start") {
            "200 OK"
        } else {
            "301 Moved\r\nLocation: /end"
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await;
    let url = format!("http://elsewhere.test:{}/start", home.port());
    let mut request = request(&check(), url);
    request.headers = vec![("X-Key".to_owned(), "k".to_owned())];
    request.connect_to = Some(home);
    request.redirects = 1;
    let network = Network::of_test(NAMES);
    let facts = probe(&network, &request, at(NOW)).await.unwrap();
    assert_eq!(facts.hops.len(), 1);
    assert_eq!(facts.hops[0].status, 301);
    assert_eq!(judge(&check(), &facts).state, State::Pass, "{facts:?}");
    // To another origin neither the headers nor the address go along.
    let away = says("HTTP/1.1 302 Found\r\nLocation: http://none.test/\r\n\r\n").await;
    request.connect_to = Some(away);
    let verdict = asked(&check(), &request).await;
    assert_eq!(
        verdict.found,
        "redirected to http://none.test/: `none.test` does not resolve: Name or service not known"
    );
}

#[tokio::test]
async fn the_connection_goes_to_the_given_address_with_the_right_host_and_sni() {
    let echo = server(|mut stream, request| async move {
        let host = request.lines().find(|line| line.starts_with("Host: "));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Saw: {}\r\n\r\n",
            host.unwrap_or("none")
        );
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await;
    let mut check = HttpCheck {
        headers: vec![("x-saw".to_owned(), "Host: shop.test".to_owned())],
        connect_to: Some(echo),
        ..check()
    };
    let plain = request(&check, "http://shop.test/".to_owned());
    let verdict = asked(&check, &plain).await;
    assert_eq!(verdict.state, State::Pass, "{}", verdict.found);

    let root = authority("Test Root");
    let leaf = root.leaf(&["shop.test"], (2026, 1, 1), (2026, 4, 1));
    check.headers.clear();
    check.connect_to = Some(serve(&leaf, &[], b"HTTP/1.1 200 OK\r\n\r\nhi").await);
    let mut secure = request(&check, "https://shop.test/".to_owned());
    let verdict = asked(&check, &secure).await;
    assert_eq!(verdict.state, State::Fail);
    assert!(
        verdict.found.starts_with("incomplete chain: "),
        "{}",
        verdict.found
    );
    secure.authorities = Some(root.trusted());
    let verdict = asked(&check, &secure).await;
    assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
    assert!(verdict.figures.iter().any(|one| one.name == "tls"));
    secure.url = Secret::new("https://other.test/");
    let verdict = asked(&check, &secure).await;
    let words = "wrong name: the certificate is for shop.test, not for `other.test`";
    assert_eq!(verdict.found, words);
}

#[tokio::test]
async fn families_are_judged_apart() {
    const BOTH: &[(&str, &[&str])] = &[
        ("both.test", &["127.0.0.1", "::1"]),
        ("four.test", &["127.0.0.1"]),
    ];
    let server = says("HTTP/1.1 200 OK\r\n\r\n").await;
    let network = Network::of_test(BOTH);
    let over = async |host: &str| {
        let request = request(&check(), format!("http://{host}:{}/", server.port()));
        let both = probe_families(&network, &request, at(NOW)).await;
        judge_families(&check(), both).unwrap()
    };
    let verdict = over("both.test").await;
    assert_eq!(verdict.state, State::Fail);
    assert!(
        verdict.found.starts_with("IPv4: 200 in "),
        "{}",
        verdict.found
    );
    let refused = format!("; IPv6: [::1]:{} refused the connection", server.port());
    assert!(verdict.found.ends_with(&refused), "{}", verdict.found);
    assert_eq!(over("four.test").await.state, State::Pass);
    assert_eq!(over("none.test").await.state, State::Fail);
}

#[tokio::test]
async fn more_large_answers_than_there_is_room_for_wait_for_their_turn() {
    let large = server(|mut stream, _| async move {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n\"".to_vec();
        answer.resize(600_000, b'x');
        answer.extend(b"\"");
        drop(stream.write_all(&answer).await);
    })
    .await;
    let check = HttpCheck {
        json: vec![("$.a".to_owned(), json!(1))],
        ..check()
    };
    let network = Arc::new(Network::of_test(NAMES));
    let mut request = request(&check, format!("http://app.test:{}/", large.port()));
    request.limits.total = Duration::from_secs(20);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (network, request) = (Arc::clone(&network), request.clone());
        all.spawn(async move { probe(&network, &request, at(NOW)).await });
    }
    while let Some(facts) = all.join_next().await {
        let answer = facts.unwrap().unwrap().answer.unwrap();
        assert_eq!((answer.status, answer.json.unwrap()[0].count), (200, 0));
    }
}

#[test]
fn a_wrong_json_path_is_an_error_before_anything_is_asked() {
    let check = HttpCheck {
        json: vec![("status".to_owned(), json!("ok"))],
        ..check()
    };
    let Err(failure) = HttpRequest::of(&check, Secret::new("http://app.test")) else {
        panic!("taken")
    };
    assert!(
        failure
            .to_string()
            .starts_with("`status` is not a JSON path")
    );
}
