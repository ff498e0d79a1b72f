//! The address of a database as text: put together from parts, and changed in place.
//!
//! Parts are percent-encoded so that the result stays within what every reader of an env file takes
//! as it is. A change touches only what it names: the rest of a hand-written address stays.

use rg_common::postgres::DatabaseUrl;
use rg_common::postgres::url::Host;
use rg_common::{Failure, Result};

/// The parts of an address, not encoded.
pub struct Address<'a> {
    /// SQLAlchemy's driver; none for `postgresql://`.
    pub driver: Option<&'a str>,
    /// The role.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// The host, without brackets.
    pub host: &'a str,
    /// The port.
    pub port: &'a str,
    /// The database.
    pub database: &'a str,
    /// What follows the `?`, encoded already.
    pub query: Option<&'a str>,
}

/// The address as text.
pub fn written(address: &Address<'_>) -> String {
    let scheme = scheme(address.driver);
    let host = if address.host.contains(':') {
        format!("[{}]", address.host)
    } else {
        encoded(address.host)
    };
    let mut text = format!(
        "{scheme}://{}:{}@{host}:{}/{}",
        encoded(address.user),
        encoded(address.password),
        address.port,
        encoded(address.database)
    );
    if let Some(query) = address.query.filter(|query| !query.is_empty()) {
        text = format!("{text}?{query}");
    }
    with_driver(&text, address.driver).unwrap_or(text)
}

/// The same address with another password; the other bytes stay.
pub fn with_password(text: &str, password: &str) -> Result<String> {
    let no = || Failure::new("the address has no password to be changed");
    let (scheme, rest) = text.split_once("://").ok_or_else(no)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (login, host) = rest[..end].rsplit_once('@').ok_or_else(no)?;
    let (user, _) = login.split_once(':').ok_or_else(no)?;
    Ok(format!(
        "{scheme}://{user}:{}@{host}{}",
        encoded(password),
        &rest[end..]
    ))
}

/// The same address for another driver: its scheme, and the word that the driver has for TLS
/// (asyncpg says `ssl`, libpq's drivers `sslmode`). None when it is no address.
pub fn with_driver(text: &str, driver: Option<&str>) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (from, to) = match driver {
        Some("asyncpg") => ("sslmode=", "ssl="),
        _ => ("ssl=", "sslmode="),
    };
    let query = query.map(|query| {
        let options = query
            .split('&')
            .map(|option| match option.strip_prefix(from) {
                Some(value) => format!("{to}{value}"),
                None => option.to_owned(),
            });
        options.collect::<Vec<_>>().join("&")
    });
    let scheme = scheme(driver);
    Some(match query {
        Some(query) => format!("{scheme}://{place}?{query}"),
        None => format!("{scheme}://{place}"),
    })
}

/// The driver that an address names.
pub fn driver(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    scheme.split_once('+').map(|(_, driver)| driver)
}

/// A part of an address by its name in the schema: `user`, `password`, `host`, `port`, `database`.
pub fn part(url: &DatabaseUrl, name: &str) -> Option<String> {
    Some(match name {
        "user" => url.user.clone(),
        "password" => url.password.as_ref()?.reveal().to_owned(),
        "host" => match &url.host {
            Host::Tcp(host) | Host::Socket(host) => host.clone(),
        },
        "port" => url.port.to_string(),
        "database" => url.database.clone(),
        _ => return None,
    })
}

fn scheme(driver: Option<&str>) -> String {
    match driver {
        Some(driver) => format!("postgresql+{driver}"),
        None => "postgresql".to_owned(),
    }
}

/// Percent-encoding of all but letters, digits, `-`, `_` and `.`; a `~` too, which a shell expands.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address<'a>(user: &'a str, password: &'a str, database: &'a str) -> Address<'a> {
        Address {
            driver: Some("asyncpg"),
            user,
            password,
            host: "127.0.0.1",
            port: "5433",
            database,
            query: None,
        }
    }

    #[test]
    fn the_words_for_tls_follow_the_driver() {
        let text = "postgresql://u:p@h/d?sslmode=require&x=1";
        assert_eq!(
            with_driver(text, Some("asyncpg")).unwrap(),
            "postgresql+asyncpg://u:p@h/d?ssl=require&x=1"
        );
        let text = "postgresql+asyncpg://u:p@h/d?ssl=require";
        assert_eq!(
            with_driver(text, None).unwrap(),
            "postgresql://u:p@h/d?sslmode=require"
        );
        assert_eq!(driver(text), Some("asyncpg"));
    }

    #[test]
    fn a_new_password_leaves_the_rest_as_it_was() {
        let text = "postgresql+asyncpg://u%40x:old@[::1]:5432/d?ssl=require#f";
        assert_eq!(
            with_password(text, "n:e/w").unwrap(),
            "postgresql+asyncpg://u%40x:n%3Ae%2Fw@[::1]:5432/d?ssl=require#f"
        );
        assert!(with_password("postgresql://u@h/d", "x").is_err());
    }

    proptest! {
        #[test]
        fn parts_are_read_back_as_they_were(
            user in "\\PC{1,12}", password in "\\PC{1,20}", database in "\\PC{1,12}"
        ) {
            let text = written(&address(&user, &password, &database));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"%-_.+:/@".contains(&b)));
            let url = DatabaseUrl::parse(&text).unwrap();
            prop_assert_eq!(part(&url, "user").unwrap(), user);
            prop_assert_eq!(part(&url, "password").unwrap(), password);
            prop_assert_eq!(part(&url, "database").unwrap(), database);
            prop_assert_eq!(part(&url, "port").unwrap(), "5433");
        }
    }
}
