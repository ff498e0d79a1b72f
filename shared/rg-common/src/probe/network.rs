//! What all network probes of a round share, their limits, and the words for what went wrong.
//!
//! Hundreds of probes run at once on one `Network`: the trusted certificates are read once, look-ups
//! have a fixed number of threads, and large answers a fixed number of places.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::tls::Client;
use super::tls::trust::Authorities;
use crate::failure::{Failure, Result};

/// Names that are looked up at once: each is a thread until the system's resolver answers.
const LOOKUPS_AT_ONCE: usize = 64;
/// Answers above [`super::http::SMALL_BODY_BYTES`] that are kept at once.
const LARGE_BODIES_AT_ONCE: usize = 8;
/// JSON documents that are parsed at once: a parsed one can take 50 times its bytes.
const PARSED_AT_ONCE: usize = 1;
/// Sockets that a round may want: the soft limit of open files is raised to this.
const OPEN_FILES: u64 = 4096;

/// How a name is resolved: the system's resolver, or a test's.
pub(super) type Resolver = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// What the probes of a round share.
pub struct Network {
    pub(super) lookups: Arc<Semaphore>,
    pub(super) large_bodies: Arc<Semaphore>,
    pub(super) parsed: Semaphore,
    pub(super) resolver: Resolver,
    pub(super) client: Client,
    system: OnceLock<Result<Authorities, String>>,
}

impl Network {
    /// A network with the system's resolver and trusted certificates. Raises this process's soft
    /// limit of open files, so that a round of hundreds of probes has sockets for all.
    pub fn new() -> Result<Network> {
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit
            .maximum
            .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
        if limit.current.is_some_and(|current| current < wanted) {
            let mut more = limit;
            more.current = Some(wanted);
            if let Err(error) = setrlimit(Resource::Nofile, more) {
                tracing::debug!("cannot raise the limit of open files to {wanted}: {error}");
            }
        }
        Ok(Network {
            lookups: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
            large_bodies: Arc::new(Semaphore::new(LARGE_BODIES_AT_ONCE)),
            parsed: Semaphore::new(PARSED_AT_ONCE),
            resolver: Arc::new(system_resolver),
            client: Client::new()?,
            system: OnceLock::new(),
        })
    }

    /// The system's trusted certificates, read at the first need of them.
    pub(super) fn system_authorities(&self) -> Result<&Authorities> {
        let read = || Authorities::of_system().map_err(|failure| failure.to_string());
        self.system
            .get_or_init(read)
            .as_ref()
            .map_err(|why| Failure::new(why.clone()).hint("install ca-certificates"))
    }

    /// The same with names that only a test knows, and no authority trusted.
    #[cfg(test)]
    pub(super) fn of_test(names: &'static [(&'static str, &'static [&'static str])]) -> Network {
        let mut network = Network::new().unwrap();
        network.system = OnceLock::from(Ok(Authorities::default()));
        network.resolver =
            Arc::new(
                move |host| match names.iter().find(|(name, _)| *name == host) {
                    Some((_, found)) => Ok(found.iter().map(|ip| ip.parse().unwrap()).collect()),
                    None => Err(io::Error::other("Name or service not known")),
                },
            );
        network
    }
}

fn system_resolver(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|one| one.ip()).collect())
}

/// How long the phases of a probe may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The look-up of the name.
    pub dns: Duration,
    /// The connection, over all of the name's addresses.
    pub connect: Duration,
    /// The handshake.
    pub tls: Duration,
    /// Everything.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            dns: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            total: Duration::from_secs(10),
        }
    }
}

/// Which of a name's addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// All, one after the other in the resolver's order, until one takes the connection.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    pub(super) fn has(self, ip: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => ip.is_ipv4(),
            Family::V6 => ip.is_ipv6(),
        }
    }

    /// `IPv4`, `IPv6`, `IP`.
    pub fn word(self) -> &'static str {
        match self {
            Family::Any => "IP",
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// The part of a probe in which time is spent or trouble comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The name is looked up.
    Dns,
    /// The connection is made.
    Connect,
    /// The handshake, and the proof of the certificate.
    Tls,
    /// From the request to the answer's first byte.
    FirstByte,
    /// From there to the answer's last byte.
    Body,
}

impl Phase {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Dns => "DNS",
            Phase::Connect => "connect",
            Phase::Tls => "TLS",
            Phase::FirstByte => "first byte",
            Phase::Body => "body",
        }
    }
}

/// What kind of trouble a target makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TroubleKind {
    /// Its name does not resolve, or not to an address of the wanted family.
    NoAddress,
    /// Nothing listens there.
    Refused,
    /// Its host or network cannot be reached.
    Unreachable,
    /// It did not do its part in time.
    Timeout,
    /// It ended the connection too early.
    Closed,
    /// Its certificate is not good.
    Distrusted(super::tls::Distrust),
    /// It does not speak the protocol.
    Garbage,
    /// It leads from address to address.
    Redirects,
}

/// How a target failed a probe: a fact, not a failure of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub phase: Phase,
    /// Of which kind.
    pub kind: TroubleKind,
    /// In words, without secrets.
    pub what: String,
}

impl Trouble {
    pub(super) fn new(phase: Phase, kind: TroubleKind, what: impl Into<String>) -> Trouble {
        Trouble {
            phase,
            kind,
            what: what.into(),
        }
    }

    /// What to do next.
    pub fn fix(&self) -> &str {
        match &self.kind {
            TroubleKind::NoAddress => "look at the name's records, and at `resolvectl status`",
            TroubleKind::Refused => "is the service up? `ss -ltnp` shows what listens",
            TroubleKind::Unreachable => {
                "look at the firewall and the route: `ip route get ADDRESS`"
            }
            TroubleKind::Timeout if self.phase == Phase::Connect => {
                "a firewall that drops, or a full backlog: `ss -ltn`, `ufw status`"
            }
            TroubleKind::Timeout if self.phase == Phase::Dns => {
                "the resolver does not answer: `resolvectl status`"
            }
            TroubleKind::Timeout => "the service hangs: look at its log and its load",
            TroubleKind::Closed => "look at the service's log: it ends connections",
            TroubleKind::Distrusted(distrust) => distrust.fix(),
            TroubleKind::Garbage => "is it the right port? something else may listen there",
            TroubleKind::Redirects => "look at the redirects of the proxy and of the app",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Where a probe's time went. A phase that was not reached is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The look-up; none for an address that is given.
    pub dns: Option<Duration>,
    /// The connection.
    pub connect: Option<Duration>,
    /// The handshake.
    pub tls: Option<Duration>,
    /// From the request to the answer's first byte.
    pub first_byte: Option<Duration>,
    /// From there to the last byte.
    pub body: Option<Duration>,
    /// Everything.
    pub total: Duration,
}

impl Times {
    /// Adds to a phase; redirects go through the phases again.
    pub(super) fn spent(&mut self, phase: Phase, time: Duration) {
        let slot = match phase {
            Phase::Dns => &mut self.dns,
            Phase::Connect => &mut self.connect,
            Phase::Tls => &mut self.tls,
            Phase::FirstByte => &mut self.first_byte,
            Phase::Body => &mut self.body,
        };
        *slot = Some(slot.unwrap_or_default() + time);
    }

    /// The phase that took the most, with its time.
    pub fn slowest(&self) -> Option<(Phase, Duration)> {
        let all = [
            (Phase::Dns, self.dns),
            (Phase::Connect, self.connect),
            (Phase::Tls, self.tls),
            (Phase::FirstByte, self.first_byte),
            (Phase::Body, self.body),
        ];
        let reached = all
            .into_iter()
            .filter_map(|(phase, time)| Some((phase, time?)));
        reached.max_by_key(|(_, time)| *time)
    }
}

/// A span of time as a person reads it: `340 µs`, `12 ms`, `2.3 s`.
pub fn span(time: Duration) -> String {
    if time >= Duration::from_millis(999) {
        format!("{:.1} s", time.as_secs_f64())
    } else if time >= Duration::from_millis(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} µs", time.as_micros())
    }
}

/// The clock of one probe: what is over its limit is trouble with the phase's name.
pub(super) struct Clock {
    began: Instant,
    limits: Limits,
    end: Instant,
    pub(super) times: Times,
}

impl Clock {
    pub(super) fn start(limits: Limits) -> Clock {
        let began = Instant::now();
        Clock {
            began,
            limits,
            end: began + limits.total,
            times: Times::default(),
        }
    }

    /// Time in which the probe waited for its turn, which is not the target's.
    pub(super) fn forgive(&mut self, waited: Duration) {
        self.began += waited;
        self.end += waited;
    }

    /// The time for the connection, over all addresses.
    pub(super) fn connect_limit(&self) -> Duration {
        self.limits.connect
    }

    /// The times so far.
    pub(super) fn times(&self) -> Times {
        Times {
            total: self.began.elapsed(),
            ..self.times
        }
    }

    /// Runs a phase within its limit and within what is left of the whole.
    pub(super) async fn phase<T>(
        &mut self,
        phase: Phase,
        work: impl Future<Output = T>,
    ) -> Result<T, Trouble> {
        let own = match phase {
            Phase::Dns => self.limits.dns,
            Phase::Connect => self.limits.connect,
            Phase::Tls => self.limits.tls,
            Phase::FirstByte | Phase::Body => self.limits.total,
        };
        let begins = Instant::now();
        let done = timeout_at(self.end.min(begins + own), work).await;
        self.times.spent(phase, begins.elapsed());
        let limit = if begins + own < self.end {
            own
        } else {
            self.limits.total
        };
        done.map_err(|_| self.late(phase, limit))
    }

    fn late(&self, phase: Phase, limit: Duration) -> Trouble {
        let what = match phase {
            Phase::Dns => "its name did not resolve",
            Phase::Connect => "it did not take the connection",
            Phase::Tls => "the TLS handshake did not end",
            Phase::FirstByte => "it did not begin to answer",
            Phase::Body => "its answer did not end",
        };
        let slowest = self.times.slowest().filter(|(slow, _)| *slow != phase);
        let total = self.began.elapsed();
        let also = match slowest {
            Some((slow, time)) if 2 * time > total => {
                format!(" ({} {} of {})", slow.word(), span(time), span(total))
            }
            _ => String::new(),
        };
        let what = format!("{what} within {}{also}", span(limit));
        Trouble::new(phase, TroubleKind::Timeout, what)
    }
}

/// An I/O error that a target causes, as trouble; what is our own inability is an `Err`.
pub(super) fn trouble(phase: Phase, error: &io::Error, with: &str) -> Result<Trouble> {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
        Errno::ADDRNOTAVAIL,
        Errno::ACCESS,
        Errno::PERM,
        Errno::AFNOSUPPORT,
        Errno::NETUNREACH,
        Errno::NETDOWN,
        Errno::INVAL,
    ];
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    if let Some(errno) = errno.filter(|errno| ours.contains(errno)) {
        let failure = Failure::new(format!("cannot connect to {with} from here: {error}"));
        return Err(match errno {
            Errno::NETUNREACH => failure.hint("this machine has no route there: `ip route`"),
            Errno::MFILE | Errno::NFILE => failure.hint("raise LimitNOFILE of the unit"),
            Errno::ACCESS | Errno::PERM => failure.hint("a firewall of this machine forbids it"),
            _ => failure,
        });
    }
    let (kind, what) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (
            TroubleKind::Refused,
            format!("{with} refused the connection"),
        ),
        io::ErrorKind::HostUnreachable => (
            TroubleKind::Unreachable,
            format!("{with} cannot be reached"),
        ),
        io::ErrorKind::TimedOut => (
            TroubleKind::Timeout,
            format!("{with} did not take the connection"),
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => (
            TroubleKind::Closed,
            format!("{with} closed the connection in the {} phase", phase.word()),
        ),
        _ => (
            TroubleKind::Garbage,
            format!("{with}: {}", super::excerpt::text(&error.to_string())),
        ),
    };
    Ok(Trouble::new(phase, kind, what))
}

#[cfg(test)]
mod tests {
    use super::super::tls::tests::{NAMES, at, authority, serve};
    use super::super::tls::{TlsRequest, probe};
    use super::*;
    use crate::check::{State, settle};

    #[tokio::test]
    async fn without_trusted_certificates_nobody_can_tell() {
        let mut network = Network::of_test(NAMES);
        let why = "this system has no trusted certificates";
        network.system = OnceLock::from(Err(why.to_owned()));
        let leaf = authority("Root").leaf(&["app.test"], (2026, 1, 1), (2026, 4, 1));
        let server = serve(&leaf, &[], b"").await;
        let request = TlsRequest::new(format!("app.test:{}", server.port()));
        let now = at("2026-02-01T00:00:00Z");
        let facts = probe(&network, &request, now).await;
        let verdict = settle(facts.map(|facts| super::super::tls::judge(&facts, now)));
        assert_eq!(
            (verdict.state, verdict.found.as_str()),
            (State::Unknown, why)
        );
        assert_eq!(verdict.fix.as_deref(), Some("install ca-certificates"));
    }

    #[tokio::test]
    async fn a_phase_that_is_late_because_of_another_says_so() {
        let ms = Duration::from_millis;
        let mut clock = Clock::start(Limits {
            total: ms(200),
            ..Limits::default()
        });
        let slow = clock.phase(Phase::Tls, tokio::time::sleep(ms(150))).await;
        assert_eq!(slow, Ok(()));
        let late = clock.phase(Phase::FirstByte, std::future::pending::<()>());
        let late = late.await.unwrap_err();
        let begins = "it did not begin to answer within 200 ms (TLS 1";
        assert!(late.what.starts_with(begins), "{late}");
        assert_eq!(late.kind, TroubleKind::Timeout);
    }

    #[test]
    fn spans_are_readable() {
        for (time, words) in [
            (Duration::from_micros(340), "340 µs"),
            (Duration::from_micros(12_900), "12 ms"),
            (Duration::from_millis(999), "1.0 s"),
            (Duration::from_millis(2_345), "2.3 s"),
        ] {
            assert_eq!(span(time), words);
        }
    }
}
