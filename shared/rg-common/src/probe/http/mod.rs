//! One GET, with a clock on each of its phases, and what its answer has of what is looked for.
//!
//! HTTP/1.1 on a connection of its own, because a client that keeps connections cannot say where
//! the time went. The facts are small whatever was answered: of the body there is an excerpt, and
//! what was looked for in it. Redirects are followed only where that is asked for.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use memchr::memmem;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

mod answer;
mod judge;
mod target;

pub use answer::{BODY_BYTES_MAX, HEAD_BYTES_MAX};
pub use judge::{judge, judge_families};

use self::answer::{Bad, Body, Head, Reader, Step};
use self::target::Target;
use super::clock::{Clock, Limits, Times};
use super::excerpt;
use super::json_path::{self, Look};
use super::network::{Family, Network};
use super::tcp::{connect, reach};
use super::tls::{Asked, Authorities, Served, handshake};
use super::trouble::{Phase, Trouble, TroubleKind, trouble};
use crate::config::HttpCheck;
use crate::failure::{Failure, OrFail, Result};
use crate::secret::Secret;

/// The most redirects that are followed.
pub const REDIRECTS_MAX: usize = 5;
/// What is kept of a body without waiting for room, in bytes.
pub const SMALL_BODY_BYTES: usize = 8 * 1024;
/// What is kept of a body in which nothing is looked for, in bytes.
const EXCERPT_BYTES: usize = 2 * 1024;
/// The wait for room for a large body.
const ROOM_WAIT: Duration = Duration::from_secs(20);

/// What is asked, and what is looked for in the answer.
#[derive(Clone)]
pub struct HttpRequest {
    /// The address with its names looked up; never shown whole.
    pub url: Secret,
    /// Where to connect instead of what the name resolves to; Host and SNI stay. Counts for
    /// redirects to the same origin too.
    pub connect_to: Option<SocketAddr>,
    /// Which of the name's addresses are tried.
    pub family: Family,
    /// How many redirects are followed, [`REDIRECTS_MAX`] at most; 0: the redirect is the answer.
    pub redirects: usize,
    /// Headers to send, to the first origin only.
    pub headers: Vec<(String, String)>,
    /// JSON paths and the value of each.
    pub json: Vec<(String, Value)>,
    /// A text in the body.
    pub contains: Option<String>,
    /// Authorities beside the system's.
    pub authorities: Option<Authorities>,
    /// How long it may take.
    pub limits: Limits,
}

impl HttpRequest {
    /// What a check of `rg.toml` asks, with its address looked up. A wrong JSON path is an error
    /// here, before anything is asked.
    pub fn of(check: &HttpCheck, url: Secret) -> Result<HttpRequest> {
        for (path, _) in &check.json {
            json_path::parse(path)?;
        }
        Ok(HttpRequest {
            url,
            connect_to: check.connect_to,
            family: Family::Any,
            redirects: 0,
            headers: Vec::new(),
            json: check.json.clone(),
            contains: check.contains.clone(),
            authorities: None,
            limits: Limits::default(),
        })
    }

    fn kept_bytes(&self) -> usize {
        if self.json.is_empty() && self.contains.is_none() {
            EXCERPT_BYTES
        } else {
            usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX)
        }
    }
}

/// What came of a request.
#[derive(Debug, Clone)]
pub struct HttpFacts {
    /// The redirects that were followed.
    pub hops: Vec<Hop>,
    /// The last answer.
    pub answer: Result<Answer, Trouble>,
    /// What the last server showed in its handshake, good or not.
    pub tls: Option<Served>,
    /// Where the time went, over all hops.
    pub times: Times,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// From where, without query.
    pub from: String,
    /// 301, 302, 303, 307, 308.
    pub status: u16,
    /// Where to, without query.
    pub to: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Who gave it.
    pub peer: SocketAddr,
    /// Its status.
    pub status: u16,
    /// Its headers, names as they came.
    pub headers: Vec<(String, String)>,
    /// How much of the body was read.
    pub body_bytes: u64,
    /// Whether there is more than [`BODY_BYTES_MAX`] of it.
    pub body_cut: bool,
    /// The body's beginning, as it may be shown.
    pub excerpt: String,
    /// What the JSON paths led to, in their order; else why there is no JSON to look into.
    pub json: Result<Vec<Look>, String>,
    /// Whether the text is there; none if none is looked for.
    pub contains: Option<bool>,
}

/// Asks, within `request.limits`.
pub async fn probe(network: &Network, request: &HttpRequest, now: Timestamp) -> Result<HttpFacts> {
    let first = Target::parse(request.url.reveal())?;
    let origin = first.origin();
    let mut target = first;
    let mut clock = Clock::start(request.limits);
    let mut hops: Vec<Hop> = Vec::new();
    loop {
        let mut exchange = Exchange {
            network,
            request,
            now,
            at_home: target.origin() == origin,
            target: &target,
            tls: None,
        };
        let outcome = exchange.run(&mut clock).await?;
        let tls = exchange.tls.take();
        let next = match &outcome {
            Ok(raw) if request.redirects > 0 => redirect(&target, raw),
            _ => None,
        };
        let trouble = match next {
            None => {
                let times = clock.times();
                let answer = match outcome {
                    Ok(raw) => Ok(raw.looked_at(network, request).await?),
                    Err(trouble) => Err(trouble),
                };
                return Ok(HttpFacts {
                    hops,
                    answer,
                    tls,
                    times,
                });
            }
            Some((status, Ok(next))) => {
                hops.push(Hop {
                    from: target.shown(),
                    status,
                    to: next.shown(),
                });
                let most = request.redirects.min(REDIRECTS_MAX);
                if hops.len() <= most {
                    target = next;
                    continue;
                }
                let what = format!(
                    "it redirects more than {most} times, now to {}",
                    next.shown()
                );
                Trouble::new(Phase::FirstByte, TroubleKind::Redirects, what)
            }
            Some((_, Err(failure))) => {
                let what = format!("it redirects to where nobody can follow: {failure}");
                Trouble::new(Phase::FirstByte, TroubleKind::Redirects, what)
            }
        };
        return Ok(HttpFacts {
            hops,
            answer: Err(trouble),
            tls,
            times: clock.times(),
        });
    }
}

/// Asks over IPv4 and over IPv6, side by side.
pub async fn probe_families(
    network: &Network,
    request: &HttpRequest,
    now: Timestamp,
) -> [(Family, Result<HttpFacts>); 2] {
    let over = |family| HttpRequest {
        family,
        ..request.clone()
    };
    let (four, six) = (over(Family::V4), over(Family::V6));
    let (four, six) = tokio::join!(probe(network, &four, now), probe(network, &six, now));
    [(Family::V4, four), (Family::V6, six)]
}

fn redirect(target: &Target, raw: &Raw) -> Option<(u16, Result<Target>)> {
    let status = raw.head.status;
    let location = raw.head.all("location").next()?;
    matches!(status, 301 | 302 | 303 | 307 | 308).then(|| (status, target.follow(location)))
}

/// One request and its answer.
struct Exchange<'a> {
    network: &'a Network,
    request: &'a HttpRequest,
    now: Timestamp,
    target: &'a Target,
    /// Whether it goes to the origin that was asked first.
    at_home: bool,
    tls: Option<Served>,
}

/// An answer before anything was looked for in it.
struct Raw {
    peer: SocketAddr,
    head: Head,
    body: Body,
    /// The place of a large body.
    _room: Option<OwnedSemaphorePermit>,
}

impl Exchange<'_> {
    async fn run(&mut self, clock: &mut Clock) -> Result<Result<Raw, Trouble>> {
        let target = self.target;
        let headers: &[_] = if self.at_home {
            &self.request.headers
        } else {
            &[]
        };
        let head = target.request(headers)?;
        let reached = match self.request.connect_to.filter(|_| self.at_home) {
            Some(address) => connect(clock, &[address]).await?,
            None => {
                let family = self.request.family;
                reach(self.network, clock, &target.host, target.port, family).await?
            }
        };
        let (stream, peer) = match reached {
            Ok(reached) => reached,
            Err(trouble) => return Ok(Err(trouble)),
        };
        if !target.tls {
            return self.ask(clock, stream, peer, &head).await;
        }
        let asked = Asked {
            name: &target.host,
            alpn: true,
            now: self.now,
            authorities: self.request.authorities.as_ref(),
        };
        let (stream, served) = match handshake(self.network, clock, stream, &asked).await? {
            Ok(done) => done,
            Err(trouble) => return Ok(Err(trouble)),
        };
        // Nothing is sent to somebody who did not prove who they are.
        let distrust = served.proved.as_ref().err().cloned();
        self.tls = Some(served);
        if let Some(distrust) = distrust {
            let what = distrust.to_string();
            let kind = TroubleKind::Distrusted(distrust);
            return Ok(Err(Trouble::new(Phase::Tls, kind, what)));
        }
        self.ask(clock, stream, peer, &head).await
    }

    async fn ask(
        &self,
        clock: &mut Clock,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        peer: SocketAddr,
        request: &[u8],
    ) -> Result<Result<Raw, Trouble>> {
        let bad = |phase: Phase, bad: Bad| match bad {
            Bad::Io(error) => trouble(phase, &error, &peer.to_string()),
            Bad::Closed(what) => Ok(Trouble::new(phase, TroubleKind::Closed, what)),
            Bad::Garbage(what) => Ok(Trouble::new(phase, TroubleKind::Garbage, what)),
        };
        let first = clock.phase(Phase::FirstByte, async {
            // A server can answer and close before it has read everything: what it says counts.
            let sent = async {
                stream.write_all(request).await?;
                stream.flush().await
            };
            let sent = sent.await;
            let mut reader = Reader::new(stream);
            match (reader.first_byte().await, sent) {
                (Ok(()), _) => Ok(reader),
                (Err(_), Err(error)) => Err(Bad::Io(error)),
                (Err(bad), Ok(())) => Err(bad),
            }
        });
        let mut reader = match first.await {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => return bad(Phase::FirstByte, error).map(Err),
            Err(late) => return Ok(Err(late)),
        };
        let head = match clock.phase(Phase::Body, reader.head()).await {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return bad(Phase::Body, error).map(Err),
            Err(late) => return Ok(Err(late)),
        };
        let (mut body, mut room) = (Body::default(), None);
        let most = self.request.kept_bytes();
        loop {
            let pause = room.is_none() && most > SMALL_BODY_BYTES;
            let keep = if pause { SMALL_BODY_BYTES } else { most };
            let step = clock.phase(Phase::Body, reader.body(&mut body, keep, pause));
            match step.await {
                Ok(Ok(Step::Done)) => break,
                Ok(Ok(Step::Full)) => room = Some(self.room(clock).await?),
                Ok(Err(error)) => return bad(Phase::Body, error).map(Err),
                Err(mut late) => {
                    late.what = format!("{}: {} bytes came", late.what, body.received);
                    return Ok(Err(late));
                }
            }
        }
        Ok(Ok(Raw {
            peer,
            head,
            body,
            _room: room,
        }))
    }

    /// A place for a large body. The wait for it is not the target's.
    async fn room(&self, clock: &mut Clock) -> Result<OwnedSemaphorePermit> {
        let began = Instant::now();
        let room = self.network.large_bodies.clone().acquire_owned();
        let room = timeout(ROOM_WAIT, room).await;
        clock.forgive(began.elapsed());
        let none = || Failure::new("too many large answers at once: this one was not read");
        room.map_err(|_| none())?.map_err(|_| none())
    }
}

impl Raw {
    async fn looked_at(self, network: &Network, request: &HttpRequest) -> Result<Answer> {
        let Raw {
            peer, head, body, ..
        } = &self;
        let contains = request
            .contains
            .as_ref()
            .map(|text| memmem::find(&body.kept, text.as_bytes()).is_some());
        let json = if request.json.is_empty() {
            Ok(Vec::new())
        } else if body.cut {
            let most = crate::report::bytes(BODY_BYTES_MAX);
            Err(format!("is longer than {most}: its JSON was not read"))
        } else {
            let _turn = network
                .parsed
                .acquire()
                .await
                .or_fail(|| "cannot read JSON any more".to_owned())?;
            match json_path::document(&body.kept) {
                Ok(document) => {
                    let looks = request.json.iter();
                    let looks = looks.map(|(path, value)| json_path::look(&document, path, value));
                    Ok(looks.collect::<Result<_>>()?)
                }
                Err(why) => Err(why),
            }
        };
        let whole = shown_body(&body.kept, body.cut);
        Ok(Answer {
            peer: *peer,
            status: head.status,
            headers: self.head.headers.clone(),
            body_bytes: body.received,
            body_cut: body.cut,
            excerpt: whole,
            json,
            contains,
        })
    }
}

/// The beginning of a body as it may be shown: a small JSON document without the values of its
/// secrets, else its first words.
fn shown_body(kept: &[u8], cut: bool) -> String {
    let whole = (!cut && kept.len() <= EXCERPT_BYTES).then(|| json_path::document(kept));
    if let Some(Ok(document @ (Value::Object(_) | Value::Array(_)))) = whole {
        return excerpt::json(&document);
    }
    excerpt::bytes(kept)
}

#[cfg(test)]
mod tests;
