//! A server on loopback that speaks SMTP, with a certificate of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::config::{NotifyKind, NotifyLevel};

struct Certificates {
    authority: Vec<u8>,
    config: Arc<ServerConfig>,
}

/// An authority and a certificate for localhost, made once.
fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = "set -e; d=$(mktemp -d); cd $d; \
            new='openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'; \
            $new -subj /CN=ca -keyout ca.key -out ca.pem 2>/dev/null; \
            $new -subj /CN=mail -addext subjectAltName=DNS:localhost \
              -addext basicConstraints=critical,CA:FALSE -CA ca.pem -CAkey ca.key \
              -keyout key -out leaf 2>/dev/null; cat ca.pem; echo SPLIT; cat leaf key; rm -r $d";
        let made = Program::new("sh").arg("-c").arg(script).output(1 << 16);
        let text = String::from_utf8(made.unwrap()).unwrap();
        let (authority, server) = text.split_once("SPLIT\n").unwrap();
        let leaf = CertificateDer::from_pem_slice(server.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(server.as_bytes()).unwrap();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        Certificates {
            authority: authority.as_bytes().to_vec(),
            config: Arc::new(config),
        }
    })
}

/// How the server behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Plain,
    Tls,
    StartTls,
    /// Takes the mail and cuts the connection instead of saying so.
    DiesAfterTheMail,
    /// Knows nobody.
    Refuses,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Serves one connection; all that the client said comes back, a line each, TLS marked.
fn serve(manner: Manner) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let wrap = |stream: TcpStream| -> Box<dyn Stream> {
        let config = Arc::clone(&certificates().config);
        Box::new(StreamOwned::new(
            ServerConnection::new(config).unwrap(),
            stream,
        ))
    };
    let thread = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        let mut stream = BufReader::new(if manner == Manner::Tls {
            wrap(socket.try_clone().unwrap())
        } else {
            Box::new(socket.try_clone().unwrap()) as Box<dyn Stream>
        });
        let (mut tls, mut in_mail) = (manner == Manner::Tls, false);
        let mut answer = "220 test".to_owned();
        loop {
            if !answer.is_empty() && write!(stream.get_mut(), "{answer}\r\n").is_err() {
                return said;
            }
            stream.get_mut().flush().ok();
            if answer.starts_with("220 go") {
                stream = BufReader::new(wrap(socket.try_clone().unwrap()));
                (tls, answer) = (true, String::new());
                continue;
            }
            let mut line = String::new();
            if !matches!(stream.read_line(&mut line), Ok(1..)) {
                return said;
            }
            let line = line.trim_end().to_owned();
            said.push(line.clone());
            let word = line.split(' ').next().unwrap_or_default();
            answer = match word {
                _ if in_mail && line == "." => {
                    in_mail = false;
                    if manner == Manner::DiesAfterTheMail {
                        return said;
                    }
                    "250 taken".to_owned()
                }
                _ if in_mail => String::new(),
                "EHLO" if manner == Manner::StartTls && !tls => {
                    "250-test\r\n250 STARTTLS".to_owned()
                }
                "EHLO" => "250-test\r\n250 AUTH PLAIN".to_owned(),
                "STARTTLS" => "220 go on".to_owned(),
                "AUTH" => "235 known".to_owned(),
                "RCPT" if manner == Manner::Refuses => "550 nobody here".to_owned(),
                "DATA" => {
                    in_mail = true;
                    "354 go on".to_owned()
                }
                "QUIT" => return said,
                _ => "250 ok".to_owned(),
            };
        }
    });
    (port, thread)
}

fn channel() -> NotifyConfig {
    NotifyConfig {
        name: "ops".to_owned(),
        kind: NotifyKind::Mail,
        url: None,
        env_file: None,
        to: Some("admin@example.org, two@example.org".to_owned()),
        from: None,
        level: NotifyLevel::Warn,
        fallback: false,
        tools: Vec::new(),
    }
}

fn mail() -> lettre::Message {
    let message = Message {
        subject: "vps-1: FAIL production/http\nBcc: x@example.org".to_owned(),
        text: "it answered 500\n.\nfrom 02:58".to_owned(),
        tone: super::super::Tone::Bad,
        document: serde_json::json!({}),
        key: "7-1".to_owned(),
        host: "vps-1".to_owned(),
    };
    write(&channel(), &message).unwrap()
}

async fn sent(protection: Protection, port: u16, trusted: bool) -> Result<(), Undelivered> {
    let server = Server {
        host: "localhost".to_owned(),
        port,
        protection,
        user: Some(Credentials::new("me".to_owned(), "s3cret".to_owned())),
    };
    let authority = trusted.then(|| Certificate::from_pem(&certificates().authority).unwrap());
    server.send("vps-1", &mail(), authority).await
}

#[tokio::test]
async fn a_mail_arrives_whole_over_tls_starttls_and_loopback() {
    for (protection, manner) in [
        (Protection::Tls, Manner::Tls),
        (Protection::StartTls, Manner::StartTls),
        (Protection::Loopback, Manner::Plain),
    ] {
        let (port, server) = serve(manner);
        let outcome = sent(protection, port, true).await;
        assert!(outcome.is_ok(), "{protection:?}: {outcome:?}");
        let said = server.join().unwrap();
        for line in [
            "AUTH PLAIN AG1lAHMzY3JldA==",
            "MAIL FROM:<rg@vps-1>",
            "RCPT TO:<admin@example.org>",
            "RCPT TO:<two@example.org>",
            "Subject: vps-1: FAIL production/http Bcc: x@example.org",
            "Message-ID: <7-1@vps-1>",
            "Auto-Submitted: auto-generated",
            "it answered 500",
            "..",
            "from 02:58",
        ] {
            assert!(said.iter().any(|one| one == line), "{line}: {said:#?}");
        }
    }
}

#[tokio::test]
async fn without_starttls_neither_mail_nor_password_is_sent() {
    let (port, server) = serve(Manner::Plain);
    let no = sent(Protection::StartTls, port, true).await.unwrap_err();
    assert!(no.certain, "{no:?}");
    let hints = no.failure.hints().join("; ");
    assert!(hints.contains("smtp:// needs STARTTLS"), "{no:?}");
    let said = server.join().unwrap();
    assert_eq!(said, ["EHLO vps-1"], "nothing after the greeting");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_gets_nothing() {
    for (protection, manner) in [
        (Protection::Tls, Manner::Tls),
        (Protection::StartTls, Manner::StartTls),
    ] {
        let (port, server) = serve(manner);
        let no = sent(protection, port, false).await.unwrap_err();
        assert!(no.failure.to_string().contains("certificate"), "{no:?}");
        let said = server.join().unwrap();
        assert!(
            !said.iter().any(|line| line.starts_with("AUTH")),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn what_a_server_refused_is_certain_and_what_it_left_open_is_not() {
    let (port, server) = serve(Manner::Refuses);
    let no = sent(Protection::Loopback, port, false).await.unwrap_err();
    server.join().unwrap();
    assert_eq!(
        no.failure.to_string(),
        format!("localhost:{port}: permanent error (550): nobody here")
    );
    assert!(no.certain);

    let (port, server) = serve(Manner::DiesAfterTheMail);
    let no = sent(Protection::Loopback, port, false).await.unwrap_err();
    let said = server.join().unwrap();
    assert_eq!(said.last().map(String::as_str), Some("."));
    assert!(!no.certain, "{no:?}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let no = sent(Protection::Loopback, port, false).await.unwrap_err();
    assert!(no.certain, "{no:?}");
    assert!(no.failure.to_string().contains("refused"), "{no:?}");
}

#[test]
fn an_address_says_how_the_way_is_protected() {
    let server = Server::parse("smtps://me%40example.org:p@ss:1%2F@mail.example.org").unwrap();
    assert_eq!(
        (server.host.as_str(), server.port),
        ("mail.example.org", 465)
    );
    assert_eq!(server.protection, Protection::Tls);
    let me = Credentials::new("me@example.org".to_owned(), "p@ss:1/".to_owned());
    assert_eq!(server.user, Some(me));
    for (url, protection, port) in [
        ("smtp://mail.example.org:2525", Protection::StartTls, 2525),
        ("smtp://mail.example.org/", Protection::StartTls, 587),
        ("smtp://127.0.0.1", Protection::Loopback, 25),
        ("smtp://[::1]:1025", Protection::Loopback, 1025),
        ("smtp://[2001:db8::1]", Protection::StartTls, 587),
    ] {
        let server = Server::parse(url).unwrap();
        assert_eq!(
            (server.protection, server.port),
            (protection, port),
            "{url}"
        );
    }
    for (url, why) in [
        ("mail.example.org", "its url has no scheme"),
        (
            "https://mail.example.org",
            "its url is neither smtps:// nor smtp://",
        ),
        ("smtp://mail:s3cret", "its url has a port that is no number"),
        ("smtps://me:s3cret@", "its url names no host"),
    ] {
        let failure = Server::parse(url).err().unwrap();
        assert_eq!(failure.to_string(), why, "{url}");
    }
}

#[test]
fn addresses_that_are_none_are_said() {
    let mut bad = channel();
    bad.to = Some("nobody".to_owned());
    let message = Message {
        subject: String::new(),
        text: String::new(),
        tone: super::super::Tone::Test,
        document: serde_json::json!({}),
        key: "1".to_owned(),
        host: "h".to_owned(),
    };
    let failure = write(&bad, &message).unwrap_err().to_string();
    assert!(
        failure.starts_with("`nobody` is no list of mail addresses"),
        "{failure}"
    );
}
