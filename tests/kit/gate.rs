//! A wire that stops a conversation at a word: right before the server hears it, or right after the
//! server has answered and before anybody hears that.
//!
//! It knows no protocol, so it stands before an S3 server, PostgreSQL or an app's health address
//! alike. With it a tool can be killed at a known step, every time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A conversation that is held longer than this is given up.
const HOLD_LIMIT: Duration = Duration::from_secs(60);

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The server has not heard it.
    Before,
    /// The server has done it and nobody knows.
    After,
}

#[derive(Default)]
struct State {
    /// Words still to come, in this order; the last is the one that is held.
    words: Vec<String>,
    moment: Option<Moment>,
    held: bool,
    /// What becomes of what is held: passed on, or dropped.
    verdict: Option<bool>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

/// The wire.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Gate {
    /// One before a port of 127.0.0.1, that passes everything on.
    pub fn before(port: u16) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on 127.0.0.1");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if inner.stop.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(client), shared) = (client, Arc::clone(&inner)) else {
                    continue;
                };
                // A connection that breaks is what this is for.
                thread::spawn(move || serve(&client, port, &shared).ok());
            }
        });
        Gate { address, shared }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets these words of clients pass in this order, and holds the last of them.
    pub fn hold(&self, words: &[&str], moment: Moment) {
        let mut state = self.shared.lock();
        state.words = words.iter().map(|word| (*word).to_owned()).collect();
        state.moment = Some(moment);
        state.held = false;
        state.verdict = None;
    }

    /// Waits until the word is held.
    #[track_caller]
    pub fn wait_held(&self) {
        let began = Instant::now();
        let mut state = self.shared.lock();
        while !state.held {
            assert!(
                began.elapsed() < HOLD_LIMIT,
                "nobody said {:?}",
                state.words
            );
            let wait = self.shared.changed.wait_timeout(state, HOLD_LIMIT);
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is held goes on.
    pub fn pass(&self) {
        self.judge(true);
    }

    /// What is held never arrives; from here on everything passes.
    pub fn forget(&self) {
        self.judge(false);
    }

    fn judge(&self, pass: bool) {
        let mut state = self.shared.lock();
        state.words.clear();
        state.moment = None;
        if state.held {
            state.verdict = Some(pass);
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.judge(false);
        // Wakes it from waiting for the next connection.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what a client has said since the last answer is the word to hold.
    fn hears(&self, said: &[u8]) -> Option<Moment> {
        let mut state = self.lock();
        let word = state.words.first()?;
        if !said.windows(word.len()).any(|part| part == word.as_bytes()) {
            return None;
        }
        if state.words.len() > 1 {
            state.words.remove(0);
            return None;
        }
        state.words.clear();
        state.moment.take()
    }

    /// Holds until it is judged; whether it may go on.
    fn hold(&self) -> bool {
        let mut state = self.lock();
        state.held = true;
        self.changed.notify_all();
        let began = Instant::now();
        loop {
            if let Some(pass) = state.verdict.take() {
                state.held = false;
                return pass;
            }
            if began.elapsed() > HOLD_LIMIT || self.stop.load(Ordering::Relaxed) {
                return false;
            }
            let wait = self.changed.wait_timeout(state, Duration::from_millis(200));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the two directions of a connection know of each other.
#[derive(Default)]
struct Talk {
    /// The server has said something since the client did.
    answered: AtomicBool,
    /// The next answer is held.
    withhold: AtomicBool,
}

fn serve(client: &TcpStream, port: u16, shared: &Arc<Shared>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let talk = Arc::new(Talk::default());
    let back = {
        let (client, server) = (client.try_clone()?, server.try_clone()?);
        let (talk, shared) = (Arc::clone(&talk), Arc::clone(shared));
        thread::spawn(move || answers(&client, &server, &talk, &shared))
    };
    let done = questions(client, &server, &talk, shared);
    server.shutdown(Shutdown::Both).ok();
    client.shutdown(Shutdown::Both).ok();
    back.join().ok();
    done
}

fn questions(
    mut client: &TcpStream,
    mut server: &TcpStream,
    talk: &Talk,
    shared: &Shared,
) -> io::Result<()> {
    let mut said = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = client.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if talk.answered.swap(false, Ordering::SeqCst) {
            said.clear();
        }
        said.extend_from_slice(&piece[..length]);
        match shared.hears(&said) {
            Some(Moment::Before) if !shared.hold() => return Ok(()),
            Some(Moment::After) => talk.withhold.store(true, Ordering::SeqCst),
            _ => {}
        }
        server.write_all(&piece[..length])?;
    }
}

fn answers(
    mut client: &TcpStream,
    mut server: &TcpStream,
    talk: &Talk,
    shared: &Shared,
) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let length = server.read(&mut piece)?;
        if length == 0 {
            return client.shutdown(Shutdown::Write);
        }
        if talk.withhold.swap(false, Ordering::SeqCst) && !shared.hold() {
            return client.shutdown(Shutdown::Both);
        }
        talk.answered.store(true, Ordering::SeqCst);
        client.write_all(&piece[..length])?;
    }
}
