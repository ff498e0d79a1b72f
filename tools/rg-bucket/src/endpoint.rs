//! What an endpoint's address tells: whether it is this machine's own, and whether what is sent
//! there can be read on the way.

use std::net::IpAddr;

/// Whether an address is this machine's own.
pub fn is_loopback(endpoint: &str) -> bool {
    let host = host_of(endpoint);
    let number: Option<IpAddr> = host.parse().ok();
    number.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified())
        || host == "localhost"
        || host.ends_with(".localhost")
}

/// Whether it is spoken to without TLS over a network that is not one's own: a public number, or a
/// name with a dot in it. A container's plain name and private numbers do not count.
pub fn is_in_the_open(endpoint: &str) -> bool {
    let host = host_of(endpoint);
    let closed = match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_unique_local(),
        Err(_) => !host.contains('.') || host.ends_with(".internal") || host.ends_with(".local"),
    };
    endpoint.starts_with("http://") && !is_loopback(endpoint) && !closed
}

fn host_of(endpoint: &str) -> &str {
    let rest = endpoint.split("://").nth(1).unwrap_or(endpoint);
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_known() {
        for own in [
            "http://127.0.0.1:9000",
            "http://localhost",
            "http://[::1]:9000/x",
            "http://0.0.0.0:1",
            "https://a.localhost",
        ] {
            assert!(is_loopback(own), "{own}");
        }
        for other in [
            "https://s3.example.org",
            "http://10.0.0.5:9000",
            "https://localhost.example.org",
            "http://[2001:db8::1]",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn keys_and_data_that_cross_the_internet_unencrypted_are_known() {
        for open in [
            "http://s3.example.org",
            "http://203.0.113.5:9000",
            "http://[2001:db8::1]:9000",
        ] {
            assert!(is_in_the_open(open), "{open}");
        }
        for closed in [
            "https://s3.example.org",
            "http://10.0.0.5:9000",
            "http://minio:9000",
            "http://127.0.0.1:9000",
            "http://[fd00::1]",
        ] {
            assert!(!is_in_the_open(closed), "{closed}");
        }
    }
}
