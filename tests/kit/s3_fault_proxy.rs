//! A wire that breaks as told: a proxy on loopback in front of an S3 server, which knows enough of
//! S3 to act on the third part of an upload or on the second page of a list.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::s3_server::S3Server;

/// A side that says nothing for this long is given up; longer than any limit of the tools.
const SILENCE: Duration = Duration::from_secs(120);

/// What a request asks of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// An object in one piece.
    Put,
    /// The begin of a multipart upload.
    Begin,
    /// A part.
    Part,
    /// The end of a multipart upload.
    Complete,
    /// Its abort.
    Abort,
    /// An object's bytes.
    Get,
    /// An object's description.
    Head,
    /// A page of the list of objects.
    List,
    /// The list of uploads, or of an upload's parts.
    Uploads,
    /// The removal of an object.
    Delete,
    /// Anything else.
    Other,
}

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// The server never sees it; this status and code answer.
    Answer(u16, &'static str),
    /// The server never sees it; the connection is reset in the middle of the request's body.
    ResetBefore,
    /// The server does it; the connection is reset before a word of the answer.
    ResetAfter,
    /// The server does it; the answer ends in the middle of its head.
    CutHead,
    /// The server does it; the answer ends after so many bytes of its body, the connection with it.
    CutAfter(usize),
    /// The server does it; after so many bytes of the answer's body nothing more comes.
    StallAfter(usize),
    /// The server never sees it, and nothing is ever answered.
    Silence,
    /// The server does it; its answer's head or body is changed.
    Change(fn(String) -> String),
}

#[derive(Default)]
struct Shared {
    rules: Vec<(Op, RangeInclusive<u32>, Fault)>,
    counts: HashMap<Op, u32>,
    /// The heads of all requests.
    heads: Vec<(Op, String)>,
    now: u32,
    most: u32,
}

/// The proxy.
pub struct S3FaultProxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl S3FaultProxy {
    /// One that passes everything on, until told otherwise.
    pub fn before(server: &S3Server) -> S3FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let upstream = server.port();
        let thread = {
            let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (Ok(stream), shared) = (stream, Arc::clone(&shared)) else {
                        continue;
                    };
                    // A connection that breaks is what this is for.
                    thread::spawn(move || serve(stream, upstream, &shared).ok());
                }
            })
        };
        S3FaultProxy {
            address,
            shared,
            stop,
            server: Some(thread),
        }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the `which`th requests of a kind, counted from 1 at this call, meet a fault.
    pub fn on(&self, op: Op, which: RangeInclusive<u32>, fault: Fault) {
        let mut shared = lock(&self.shared);
        shared.counts.insert(op, 0);
        shared.rules.push((op, which, fault));
    }

    /// Nothing breaks any more; what was counted is forgotten.
    pub fn heal(&self) {
        let mut shared = lock(&self.shared);
        shared.rules.clear();
        shared.counts.clear();
        shared.heads.clear();
        shared.most = 0;
    }

    /// The most requests that were under way at the same time.
    pub fn most_at_once(&self) -> u32 {
        lock(&self.shared).most
    }

    /// What the requests of a kind said in that header, in the order in which they came.
    pub fn headers(&self, op: Op, name: &str) -> Vec<Option<String>> {
        let shared = lock(&self.shared);
        let heads = shared.heads.iter().filter(|(of, _)| *of == op);
        heads.map(|(_, head)| header(head, name)).collect()
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many requests of a kind came.
    pub fn count(&self, op: Op) -> u32 {
        lock(&self.shared).counts.get(&op).copied().unwrap_or(0)
    }
}

impl Drop for S3FaultProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it from waiting for the next connection.
        TcpStream::connect(self.address).ok();
        if let Some(server) = self.server.take() {
            server.join().ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts a request until its connection ends.
struct UnderWay<'a>(&'a Mutex<Shared>);

impl<'a> UnderWay<'a> {
    fn begin(shared: &'a Mutex<Shared>) -> Self {
        let mut all = lock(shared);
        all.now += 1;
        all.most = all.most.max(all.now);
        UnderWay(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).now -= 1;
    }
}

/// One request; the connection is closed after its answer.
fn serve(mut client: TcpStream, upstream: u16, shared: &Mutex<Shared>) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    client.set_nodelay(true)?;
    let Some(head) = read_head(&mut client)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&head).into_owned();
    let under_way = UnderWay::begin(shared);
    let op = op_of(&text);
    let fault = {
        let mut shared = lock(shared);
        shared.heads.push((op, text.clone()));
        let count = shared.counts.entry(op).or_default();
        *count += 1;
        let count = *count;
        let rules = shared.rules.iter().rev();
        let mut rules = rules.filter(|(of, which, _)| *of == op && which.contains(&count));
        rules.next().map(|(_, _, fault)| fault.clone())
    };
    let length = header(&text, "content-length").and_then(|n| n.parse().ok());
    let length: usize = length.unwrap_or(0);
    if header(&text, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if matches!(fault, Some(Fault::ResetBefore)) {
        let mut half = vec![0; length / 2];
        client.read_exact(&mut half)?;
        return reset(&client);
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body)?;
    match &fault {
        Some(Fault::Answer(status, code)) => return answer(&mut client, *status, code),
        Some(Fault::Silence) => return wait_for_end(&mut client),
        _ => {}
    }
    let (head, body) = ask(upstream, &text, &body)?;
    drop(under_way);
    match fault {
        Some(Fault::ResetAfter) => return reset(&client),
        Some(Fault::Change(change)) => {
            let whole = format!("{head}\r\n\r\n{}", String::from_utf8_lossy(&body));
            let whole = change(whole);
            let (head, body) = whole.split_once("\r\n\r\n").unwrap_or((&whole, ""));
            let head = without(head, "content-length");
            let length = if text.starts_with("HEAD ") {
                header(&whole, "content-length").unwrap_or_default()
            } else {
                body.len().to_string()
            };
            write!(client, "{head}\r\nContent-Length: {length}\r\n\r\n{body}")?;
        }
        Some(Fault::CutHead) => client.write_all(&head.as_bytes()[..head.len() / 2])?,
        Some(Fault::CutAfter(bytes)) => {
            write!(client, "{head}\r\n\r\n")?;
            client.write_all(&body[..bytes.min(body.len())])?;
        }
        Some(Fault::StallAfter(bytes)) => {
            write!(client, "{head}\r\n\r\n")?;
            client.write_all(&body[..bytes.min(body.len())])?;
            return wait_for_end(&mut client);
        }
        _ => {
            write!(client, "{head}\r\n\r\n")?;
            client.write_all(&body)?;
        }
    }
    client.shutdown(Shutdown::Write)?;
    wait_for_end(&mut client)
}

/// Asks the server itself; the answer's head, without how its body was framed, and its body.
fn ask(upstream: u16, head: &str, body: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream))?;
    server.set_read_timeout(Some(SILENCE))?;
    let head = without(&without(head.trim_end(), "expect"), "connection");
    write!(server, "{head}\r\nConnection: close\r\n\r\n")?;
    server.write_all(body)?;
    let mut came = Vec::new();
    server.read_to_end(&mut came)?;
    let end = came.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other("the server's answer has no end of its head"))?;
    let head = String::from_utf8_lossy(&came[..end]).into_owned();
    let mut body = came.split_off(end + 4);
    if header(&head, "transfer-encoding").is_some() {
        body = dechunked(&body);
        let plain = without(&head, "transfer-encoding");
        return Ok((format!("{plain}\r\nContent-Length: {}", body.len()), body));
    }
    Ok((head, body))
}

fn dechunked(mut chunks: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = chunks.windows(2).position(|two| two == b"\r\n") {
        let size = String::from_utf8_lossy(&chunks[..end]).into_owned();
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let from = end + 2;
        if size == 0 || chunks.len() < from + size {
            break;
        }
        whole.extend_from_slice(&chunks[from..from + size]);
        chunks = chunks.get(from + size + 2..).unwrap_or_default();
    }
    whole
}

fn answer(client: &mut TcpStream, status: u16, code: &str) -> io::Result<()> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>the proxy says so</Message></Error>"
    );
    write!(
        client,
        "HTTP/1.1 {status} As-Told\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\nDate: {}\r\n\r\n{body}",
        body.len(),
        // A client sets its clock by it.
        jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT")
    )?;
    client.shutdown(Shutdown::Write)?;
    wait_for_end(client)
}

/// RST instead of FIN.
fn reset(client: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?;
    Ok(())
}

/// Until the other side closes.
fn wait_for_end(client: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 1024];
    while client.read(&mut rest)? > 0 {}
    Ok(())
}

/// Byte by byte, so that nothing of the body is taken along.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(head))
}

fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().skip(1).take_while(|line| !line.is_empty());
    let mut pairs = lines.filter_map(|line| line.split_once(':'));
    let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned())
}

fn without(head: &str, name: &str) -> String {
    let lines = head.lines().filter(|line| {
        let key = line.split(':').next().unwrap_or_default();
        !key.eq_ignore_ascii_case(name)
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

fn op_of(head: &str) -> Op {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let asks = |name: &str| {
        let mut pairs = query.split('&');
        pairs.any(|pair| pair.split('=').next() == Some(name))
    };
    let object = path.trim_matches('/').contains('/');
    match method {
        "PUT" if asks("partNumber") => Op::Part,
        "PUT" if object => Op::Put,
        "POST" if asks("uploads") => Op::Begin,
        "POST" if asks("uploadId") => Op::Complete,
        "DELETE" if asks("uploadId") => Op::Abort,
        "DELETE" if object => Op::Delete,
        "HEAD" if object => Op::Head,
        "GET" if asks("uploads") || asks("uploadId") => Op::Uploads,
        "GET" if asks("list-type") => Op::List,
        "GET" if object => Op::Get,
        _ => Op::Other,
    }
}
