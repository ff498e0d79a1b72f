//! A small HTTP server on loopback: notes every request, answers as told. For webhooks, pings and
//! an application's health endpoint.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::run::eventually;

/// A client that says nothing for this long is cut off.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path with the query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body as text.
    pub body: String,
}

#[derive(Default)]
struct Shared {
    requests: Vec<Request>,
    answers: HashMap<String, (u16, String)>,
    delay: Duration,
}

/// The server. It answers 200 with an empty body until told otherwise.
pub struct HttpSink {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl HttpSink {
    /// Starts one on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let server = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Ok(stream) = stream {
                        let shared = Arc::clone(&shared);
                        thread::spawn(move || serve(stream, &shared));
                    }
                }
            })
        };
        HttpSink {
            address,
            shared,
            stop,
            server: Some(server),
        }
    }

    /// The URL of a path here.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on this path (without the query) is answered like this; `*` stands for all others.
    pub fn answer(&self, path: &str, status: u16, body: &str) {
        lock(&self.shared)
            .answers
            .insert(path.into(), (status, body.into()));
    }

    /// From now on every answer comes this late.
    pub fn delay(&self, delay: Duration) {
        lock(&self.shared).delay = delay;
    }

    /// All requests until now.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared).requests.clone()
    }

    /// Waits until `count` requests have come; panics with those that did when they do not.
    #[track_caller]
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<Request> {
        let came = eventually(limit, || self.requests().len() >= count);
        let requests = self.requests();
        assert!(came, "wanted {count} requests in {limit:?}: {requests:#?}");
        requests
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the server up; when it cannot be reached it has ended.
        TcpStream::connect(self.address).ok();
        if let Some(server) = self.server.take() {
            server.join().ok();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request, one answer, end of connection. A request that is not HTTP is dropped.
fn serve(mut stream: TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    stream.set_read_timeout(Some(READ_LIMIT)).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let body = body(&mut reader, &headers)?;

    let (status, text, delay) = {
        let mut shared = lock(shared);
        let bare = path.split('?').next().unwrap_or_default();
        let answer = shared.answers.get(bare).or(shared.answers.get("*"));
        let (status, text) = answer.cloned().unwrap_or((200, String::new()));
        shared.requests.push(Request {
            method,
            path,
            headers,
            body,
        });
        (status, text, shared.delay)
    };
    thread::sleep(delay);
    let head = format!(
        "HTTP/1.1 {status} told\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(text.as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()
}

fn body(reader: &mut impl BufRead, headers: &HashMap<String, String>) -> Option<String> {
    let mut bytes = Vec::new();
    if headers.get("transfer-encoding").map(String::as_str) == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let size = u64::from_str_radix(line.trim(), 16).ok()?;
            reader.take(size).read_to_end(&mut bytes).ok()?;
            reader.read_line(&mut String::new()).ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length") {
        reader
            .take(length.parse().ok()?)
            .read_to_end(&mut bytes)
            .ok()?;
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
