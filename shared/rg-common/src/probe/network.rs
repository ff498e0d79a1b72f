//! What all network probes of a round share.
//!
//! Hundreds of probes run at once on one `Network`: the trusted certificates are read once, look-ups
//! have a fixed number of threads, and large answers a fixed number of places.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, OnceLock};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;

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
}
