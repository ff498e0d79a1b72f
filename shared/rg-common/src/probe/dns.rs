//! Does a name resolve, and to what: A and AAAA by the system's own resolver.
//!
//! `getaddrinfo` cannot be interrupted. It runs on a thread that nobody waits for beyond the
//! deadline, so that a dead resolver cannot hold up a round or the end of the program.

use std::net::IpAddr;

use tokio::sync::oneshot;

use super::clock::{Clock, Limits, Times, span};
use super::excerpt;
use super::network::Network;
use super::trouble::{Phase, Trouble, TroubleKind};
use crate::check::{Figure, Unit, Verdict};
use crate::failure::{Failure, OrFail, Result};

/// The most addresses of one name that are looked at.
pub const ADDRESSES_MAX: usize = 64;
/// The stack of a thread that looks up a name: the C library's modules want some.
const LOOKUP_STACK: usize = 512 * 1024;

/// What a look-up found.
#[derive(Debug, Clone)]
pub struct DnsFacts {
    /// The name.
    pub host: String,
    /// Its addresses in the resolver's order, [`ADDRESSES_MAX`] at most; IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// How it went wrong.
    pub trouble: Option<Trouble>,
    /// How long it took.
    pub times: Times,
}

/// Looks up a name within `limits.dns`.
pub async fn probe(network: &Network, host: &str, limits: Limits) -> Result<DnsFacts> {
    let mut clock = Clock::start(limits);
    let (addresses, trouble) = match look_up(network, &mut clock, host).await? {
        Ok(addresses) => (addresses, None),
        Err(trouble) => (Vec::new(), Some(trouble)),
    };
    Ok(DnsFacts {
        host: host.to_owned(),
        addresses,
        trouble,
        times: clock.times(),
    })
}

/// Good if the name resolves and each of `expect` is among its addresses.
pub fn judge(facts: &DnsFacts, expect: &[IpAddr]) -> Verdict {
    let total = Figure::new("total", facts.times.total.as_secs_f64(), Unit::Seconds);
    let found = list(&facts.addresses);
    let missing: Vec<IpAddr> = expect
        .iter()
        .copied()
        .filter(|one| !facts.addresses.contains(one))
        .collect();
    let verdict = match &facts.trouble {
        Some(trouble) => Verdict::fail(trouble.to_string(), trouble.fix()),
        None if missing.is_empty() => Verdict::pass(format!(
            "`{}` is {found} ({})",
            facts.host,
            span(facts.times.total)
        )),
        None => Verdict::fail(
            format!("`{}` is {found}, not {}", facts.host, list(&missing)),
            "look at the name's A and AAAA records, and at /etc/hosts",
        ),
    };
    verdict.figure(total)
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().take(8).map(IpAddr::to_string).collect();
    match addresses.len().saturating_sub(words.len()) {
        0 => words.join(", "),
        more => format!("{} and {more} more", words.join(", ")),
    }
}

/// The addresses of a name; one that is an address itself is not looked up.
pub(super) async fn look_up(
    network: &Network,
    clock: &mut Clock,
    host: &str,
) -> Result<Result<Vec<IpAddr>, Trouble>> {
    if let Ok(ip) = host.parse() {
        return Ok(Ok(vec![ip]));
    }
    let (lookups, resolver) = (network.lookups.clone(), network.resolver.clone());
    let name = host.to_owned();
    let answer = clock.phase(Phase::Dns, async move {
        // The permit goes with the thread: one that hangs in the resolver counts until it ends.
        let permit = lookups
            .acquire_owned()
            .await
            .or_fail(|| "cannot look up names any more".to_owned())?;
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new()
            .name("look-up".to_owned())
            .stack_size(LOOKUP_STACK)
            .spawn(move || {
                let found = resolver(&name);
                drop(permit);
                // Nobody may be waiting any more.
                drop(tell.send(found));
            })
            .or_fail(|| "cannot start a thread to look up a name".to_owned())?;
        told.await
            .or_fail(|| "the thread that looks up a name died".to_owned())
    });
    let answer = match answer.await {
        Ok(answer) => answer?,
        Err(mut late) => {
            late.what = format!("`{host}`: {}", late.what);
            return Ok(Err(late));
        }
    };
    Ok(match answer {
        Ok(mut addresses) => {
            addresses.truncate(ADDRESSES_MAX * 4);
            let mut once: Vec<IpAddr> = Vec::new();
            for one in addresses {
                if !once.contains(&one) && once.len() < ADDRESSES_MAX {
                    once.push(one);
                }
            }
            if once.is_empty() {
                Err(no_address(host, "it has no address"))
            } else {
                Ok(once)
            }
        }
        Err(error) => {
            let text = error.to_string();
            let text = text.strip_prefix("failed to lookup address information: ");
            let why = text.map_or_else(|| error.to_string(), str::to_owned);
            Err(no_address(host, &excerpt::text(&why)))
        }
    })
}

fn no_address(host: &str, why: &str) -> Trouble {
    let what = format!("`{host}` does not resolve: {why}");
    Trouble::new(Phase::Dns, TroubleKind::NoAddress, what)
}

/// `host:port` in two; an IPv6 address stands in brackets.
pub(super) fn host_and_port(address: &str) -> Result<(&str, u16)> {
    let split = address.rsplit_once(':').and_then(|(host, port)| {
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Some((host, port.parse().ok()?))
    });
    split
        .filter(|(host, port)| !host.is_empty() && *port > 0)
        .ok_or_else(|| Failure::new(format!("`{address}` is not host:port")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::check::State;

    const NAMES: &[(&str, &[&str])] = &[
        ("app.test", &["127.0.0.1", "::1", "127.0.0.1"]),
        ("empty.test", &[]),
    ];

    fn limits() -> Limits {
        Limits {
            dns: Duration::from_millis(200),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_a_fact_and_its_words_say_which() {
        let network = Network::of_test(NAMES);
        for (host, words) in [
            (
                "none.test",
                "`none.test` does not resolve: Name or service not known",
            ),
            (
                "empty.test",
                "`empty.test` does not resolve: it has no address",
            ),
        ] {
            let facts = probe(&network, host, limits()).await.unwrap();
            let verdict = judge(&facts, &[]);
            assert_eq!(
                (verdict.state, verdict.found.as_str()),
                (State::Fail, words)
            );
        }
    }

    #[tokio::test]
    async fn a_resolver_that_hangs_costs_the_deadline_and_no_more() {
        let (release, hold) = std::sync::mpsc::channel::<()>();
        let hold = std::sync::Mutex::new(hold);
        let mut network = Network::of_test(NAMES);
        network.resolver = Arc::new(move |_| {
            // Ends when the test does.
            assert!(hold.lock().unwrap().recv().is_err());
            Ok(Vec::new())
        });
        let facts = probe(&network, "app.test", limits()).await.unwrap();
        let verdict = judge(&facts, &[]);
        let words = "`app.test`: its name did not resolve within 200 ms";
        assert_eq!(
            (verdict.state, verdict.found.as_str()),
            (State::Fail, words)
        );
        assert!(facts.times.total < Duration::from_secs(5));
        drop(release);
    }

    #[tokio::test]
    async fn both_families_are_found_and_an_expected_address_that_is_missing_is_named() {
        let network = Network::of_test(NAMES);
        let facts = probe(&network, "app.test", limits()).await.unwrap();
        let expected = ["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(judge(&facts, &expected).state, State::Pass);
        let verdict = judge(&facts, &["10.0.0.9".parse().unwrap()]);
        assert_eq!(verdict.found, "`app.test` is 127.0.0.1, ::1, not 10.0.0.9");
    }

    #[tokio::test]
    async fn the_systems_resolver_knows_localhost() {
        let network = Network::new().unwrap();
        let facts = probe(&network, "localhost", limits()).await.unwrap();
        assert_eq!(judge(&facts, &[]).state, State::Pass, "{facts:?}");
    }

    #[test]
    fn addresses_are_host_and_port() {
        assert_eq!(host_and_port("h:1").unwrap(), ("h", 1));
        assert_eq!(host_and_port("[::1]:443").unwrap(), ("::1", 443));
        for wrong in ["h", "h:", ":1", "h:0", "h:65536", "[]:1"] {
            assert_eq!(
                host_and_port(wrong).unwrap_err().to_string(),
                format!("`{wrong}` is not host:port")
            );
        }
    }
}
