//! Tells a connection pooler from a server.
//!
//! Behind a transaction pooler a dump's settings land on other sessions and its snapshot may not
//! hold, so a pooled address is refused: by its name where the provider has a known one, else by
//! its behaviour: a start-up option that the server must know is refused or lost on the way.

use super::url::{DatabaseUrl, Host};
use crate::failure::Failure;

/// The name of the start-up option that a pooler loses. Any role may set a name with a dot.
pub(super) const NONCE_SETTING: &str = "rg.session";

/// What is said of a pooler's address.
const REFUSED: &str = "is a connection pooler, which cannot be dumped or restored through";

/// Supabase's transaction pooler listens on this port of the database's own host.
const SUPABASE_POOLER_PORT: u16 = 6543;

/// A failure if the address is a provider's pooler by its name.
pub fn by_name(url: &DatabaseUrl) -> Option<Failure> {
    let Host::Tcp(host) = &url.host else {
        return None;
    };
    let host = host.to_ascii_lowercase();
    let pooled = |hint: String| Some(refused(url).hint(hint));
    if let Some((first, rest)) = host.split_once('.')
        && rest.ends_with("neon.tech")
        && let Some(direct) = first.strip_suffix("-pooler")
    {
        return pooled(format!("Neon's direct host is {direct}.{rest}"));
    }
    if host.ends_with("pooler.supabase.com") {
        let project = url
            .user
            .split_once('.')
            .map_or("PROJECT", |(_, project)| project);
        return pooled(format!(
            "Supabase's direct address is postgresql://postgres:…@db.{project}.supabase.co:5432/postgres"
        )).map(|failure| failure.hint("without IPv6 it needs Supabase's IPv4 add-on"));
    }
    if host.ends_with(".supabase.co") && url.port == SUPABASE_POOLER_PORT {
        return pooled("Supabase's direct port is 5432 on the same host".to_owned());
    }
    None
}

/// The failure for an address that behaves as a pooler.
pub(super) fn by_behaviour(url: &DatabaseUrl, because: &str) -> Failure {
    Failure::because(refused(url).to_string(), because).hint(
        "give the server's own address: the host and port in PgBouncer's [databases] section, usually port 5432",
    )
}

/// Whether a failure says that the address is a pooler's.
pub fn is_refusal(failure: &Failure) -> bool {
    failure.to_string().contains(REFUSED)
}

/// Whether the server's words say that a pooler refused our start-up options.
pub(super) fn says_so(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("unsupported startup parameter")
        || message.contains("rds proxy")
        || message.contains("unsupported startup option")
}

fn refused(url: &DatabaseUrl) -> Failure {
    Failure::new(format!("{url} {REFUSED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(url: &str) -> Option<String> {
        let url = DatabaseUrl::parse(url).unwrap();
        by_name(&url).map(|failure| failure.hints().join(" | "))
    }

    #[test]
    fn a_providers_pooled_address_is_named_with_its_direct_one() {
        assert_eq!(
            hint("postgresql://u:p@ep-cool-1-pooler.eu-central-1.aws.neon.tech/d").unwrap(),
            "Neon's direct host is ep-cool-1.eu-central-1.aws.neon.tech"
        );
        assert_eq!(
            hint("postgresql://postgres.abcd:p@aws-0-eu.pooler.supabase.com:6543/postgres")
                .unwrap(),
            "Supabase's direct address is postgresql://postgres:…@db.abcd.supabase.co:5432/postgres | without IPv6 it needs Supabase's IPv4 add-on"
        );
        assert_eq!(
            hint("postgresql://postgres:p@db.abcd.supabase.co:6543/postgres").unwrap(),
            "Supabase's direct port is 5432 on the same host"
        );
    }

    #[test]
    fn a_direct_address_is_left_alone() {
        assert_eq!(hint("postgresql://u:p@ep-cool-1.eu.aws.neon.tech/d"), None);
        assert_eq!(hint("postgresql://u:p@db.abcd.supabase.co/postgres"), None);
        assert_eq!(hint("postgresql://u:p@my-pooler.example.org:6543/d"), None);
    }
}
