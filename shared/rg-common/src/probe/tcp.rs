//! Does a port take connections. Nothing is sent.
//!
//! Addresses are tried one after the other (no happy eyeballs): which one took the connection, and
//! which did not, is what the operator wants to know.

use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clock::{Clock, Limits, Times, span};
use super::dns::{host_and_port, look_up};
use super::network::{Family, Network};
use super::trouble::{Phase, Trouble, TroubleKind, trouble};
use crate::check::{Figure, Unit, Verdict};
use crate::failure::Result;

/// The most addresses of a name that are tried.
pub const TRIED_MAX: usize = 6;

/// What came of a connection.
#[derive(Debug, Clone)]
pub struct TcpFacts {
    /// What was asked: `host:port`.
    pub address: String,
    /// Who took it.
    pub peer: Option<SocketAddr>,
    /// Why nobody did.
    pub trouble: Option<Trouble>,
    /// Where the time went.
    pub times: Times,
}

/// Connects to `host:port` and closes again.
pub async fn probe(
    network: &Network,
    address: &str,
    family: Family,
    limits: Limits,
) -> Result<TcpFacts> {
    let (host, port) = host_and_port(address)?;
    let mut clock = Clock::start(limits);
    let (peer, trouble) = match reach(network, &mut clock, host, port, family).await? {
        Ok((_, peer)) => (Some(peer), None),
        Err(trouble) => (None, Some(trouble)),
    };
    Ok(TcpFacts {
        address: address.to_owned(),
        peer,
        trouble,
        times: clock.times(),
    })
}

/// Good if somebody took the connection.
pub fn judge(facts: &TcpFacts) -> Verdict {
    let verdict = match (&facts.trouble, facts.peer) {
        (Some(trouble), _) => Verdict::fail(trouble.to_string(), trouble.fix()),
        (None, Some(peer)) => Verdict::pass(format!(
            "{peer} took the connection in {}",
            span(facts.times.total)
        )),
        (None, None) => Verdict::skip("not tried"),
    };
    figures(verdict, &facts.times)
}

/// The figures that all probes with a connection have in common.
pub(super) fn figures(verdict: Verdict, times: &Times) -> Verdict {
    let phases = [
        ("total", Some(times.total)),
        ("dns", times.dns),
        ("connect", times.connect),
        ("tls", times.tls),
        ("first_byte", times.first_byte),
    ];
    phases
        .into_iter()
        .filter_map(|(name, time)| Some(Figure::new(name, time?.as_secs_f64(), Unit::Seconds)))
        .fold(verdict, Verdict::figure)
}

/// Looks up a name and connects to the first of its addresses that takes the connection.
pub(super) async fn reach(
    network: &Network,
    clock: &mut Clock,
    host: &str,
    port: u16,
    family: Family,
) -> Result<Result<(TcpStream, SocketAddr), Trouble>> {
    let found = match look_up(network, clock, host).await? {
        Ok(found) => found,
        Err(trouble) => return Ok(Err(trouble)),
    };
    let wanted: Vec<IpAddr> = found.into_iter().filter(|ip| family.has(*ip)).collect();
    if wanted.is_empty() {
        let what = format!("`{host}` has no {} address", family.word());
        let trouble = Trouble::new(Phase::Dns, TroubleKind::NoAddress, what);
        return Ok(Err(trouble));
    }
    let addresses: Vec<SocketAddr> = wanted
        .into_iter()
        .take(TRIED_MAX)
        .map(|ip| SocketAddr::new(ip, port))
        .collect();
    connect(clock, &addresses).await
}

/// Connects to the first address that takes it. Each address has an equal part of the time.
pub(super) async fn connect(
    clock: &mut Clock,
    addresses: &[SocketAddr],
) -> Result<Result<(TcpStream, SocketAddr), Trouble>> {
    let share = clock.connect_limit() / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    let attempts = async {
        let mut theirs: Vec<Trouble> = Vec::new();
        let mut ours = None;
        for address in addresses {
            let error = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Ok((stream, *address))),
                Ok(Err(error)) => error,
                Err(_) => {
                    let what = format!(
                        "{address} did not take the connection within {}",
                        span(share)
                    );
                    theirs.push(Trouble::new(Phase::Connect, TroubleKind::Timeout, what));
                    continue;
                }
            };
            match trouble(Phase::Connect, &error, &address.to_string()) {
                Ok(trouble) => theirs.push(trouble),
                Err(failure) => ours = Some(failure),
            }
        }
        match (theirs.is_empty(), ours) {
            (true, Some(failure)) => Err(failure),
            _ => Ok(Err(joined(theirs))),
        }
    };
    match clock.phase(Phase::Connect, attempts).await {
        Ok(outcome) => outcome,
        Err(late) => {
            let first = addresses.first().map(SocketAddr::to_string);
            let what = late.what.replacen("it", &first.unwrap_or_default(), 1);
            Ok(Err(Trouble { what, ..late }))
        }
    }
}

/// The first trouble's kind, and the words of all.
fn joined(troubles: Vec<Trouble>) -> Trouble {
    let words: Vec<&str> = troubles.iter().map(|one| one.what.as_str()).collect();
    let kind = troubles
        .first()
        .map_or(TroubleKind::NoAddress, |one| one.kind.clone());
    Trouble::new(Phase::Connect, kind, words.join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::check::State;

    const NAMES: &[(&str, &[&str])] = &[
        ("both.test", &["::1", "127.0.0.1"]),
        ("four.test", &["127.0.0.1"]),
    ];

    fn limits() -> Limits {
        Limits {
            connect: Duration::from_millis(400),
            ..Limits::default()
        }
    }

    async fn probed(address: &str, family: Family) -> Verdict {
        let network = Network::of_test(NAMES);
        judge(&probe(&network, address, family, limits()).await.unwrap())
    }

    #[tokio::test]
    async fn a_port_that_is_closed_is_named_and_one_that_opens_again_is_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let verdict = probed(&at.to_string(), Family::Any).await;
        assert_eq!(verdict.state, State::Fail);
        assert_eq!(verdict.found, format!("{at} refused the connection"));
        assert_eq!(
            verdict.fix.as_deref(),
            Some("is the service up? `ss -ltnp` shows what listens")
        );
        let _listener = TcpListener::bind(at).await.unwrap();
        let verdict = probed(&at.to_string(), Family::Any).await;
        assert_eq!(verdict.state, State::Pass);
        let figures: Vec<&str> = verdict.figures.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(figures, ["total", "connect"]);
    }

    #[tokio::test]
    async fn a_full_backlog_costs_the_deadline() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let at = listener.local_addr().unwrap();
        // Linux takes one more than the backlog before it drops.
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(300), TcpStream::connect(at)).await
        {
            waiting.push(stream);
            assert!(waiting.len() < 10, "the backlog never fills");
        }
        let verdict = probed(&at.to_string(), Family::Any).await;
        let words = format!("{at} did not take the connection within 400 ms");
        assert_eq!((verdict.state, verdict.found), (State::Fail, words));
    }

    #[tokio::test]
    async fn each_family_is_tried_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let verdict = probed(&format!("both.test:{port}"), Family::V6).await;
        let words = format!("[::1]:{port} refused the connection");
        assert_eq!((verdict.state, verdict.found), (State::Fail, words));
        let verdict = probed(&format!("both.test:{port}"), Family::Any).await;
        assert_eq!(verdict.state, State::Pass, "{}", verdict.found);
        let verdict = probed(&format!("four.test:{port}"), Family::V6).await;
        assert_eq!(verdict.found, "`four.test` has no IPv6 address");
    }

    #[test]
    fn what_this_machine_lacks_is_not_blamed_on_the_target() {
        for errno in [
            rustix::io::Errno::MFILE,
            rustix::io::Errno::NETUNREACH,
            rustix::io::Errno::PERM,
        ] {
            let error = std::io::Error::from(errno);
            let failure = trouble(Phase::Connect, &error, "10.0.0.1:80").unwrap_err();
            let words = failure.to_string();
            assert!(words.starts_with("cannot connect to 10.0.0.1:80 from here: "));
            assert_eq!(failure.hints().len(), 1, "{words}");
        }
    }
}
