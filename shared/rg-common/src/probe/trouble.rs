//! What goes wrong on the way to a target, and in which phase: the target's trouble apart from our
//! own inability.

use std::fmt;
use std::io;

use crate::failure::{Failure, Result};

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
