//! What a value must look like, and what makes one.

use rg_common::config::nearest;
use rg_common::{Failure, Result};

/// A secret that is made here has at least this many random bits.
pub const BITS_MIN: u32 = 128;

/// What a value must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A password, key or token with at least so many bits.
    Secret {
        /// The least bits that a value is worth.
        bits: u32,
    },
    /// The address of a PostgreSQL database.
    PostgresUrl {
        /// SQLAlchemy's driver (`asyncpg`, `psycopg`); none for a plain `postgresql://`.
        driver: Option<String>,
    },
    /// A TCP port, no other variable of the host having the same.
    Port,
    /// The name of an S3 bucket.
    BucketName,
    /// `https://host`: scheme, host and port, nothing behind.
    Origin,
    /// `host:port`.
    Endpoint,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The least.
        min: Option<i64>,
        /// The greatest.
        max: Option<i64>,
    },
    /// A number.
    Number,
    /// A JSON list, as pydantic-settings wants one.
    JsonList,
    /// One of these words.
    Enum(Vec<String>),
    /// An absolute path.
    Path,
    /// A mail address.
    Mail,
    /// A domain name.
    Domain,
    /// A UUID.
    Uuid,
    /// Any text.
    Text,
}

/// The words for the kinds in a schema.
pub const WORDS: &[&str] = &[
    "secret",
    "postgres_url",
    "port",
    "bucket_name",
    "origin",
    "endpoint",
    "boolean",
    "integer",
    "number",
    "json_list",
    "enum",
    "path",
    "mail",
    "domain",
    "uuid",
    "text",
];

/// What makes a value out of the system's random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// `hex:16`: so many bytes in hexadecimal.
    Hex(u32),
    /// `urlsafe:32`: so many bytes' worth of letters, digits, `-` and `_`, beginning with a letter or digit.
    UrlSafe(u32),
    /// `uuid`: a version 4 UUID; 122 bits, so never for a secret.
    Uuid,
    /// `password:24`: so many letters and digits.
    Password(u32),
}

impl Generator {
    /// Parses `hex:16`, `urlsafe:32`, `password:24` or `uuid`.
    pub fn parse(text: &str) -> Result<Generator> {
        let (word, length) = text.split_once(':').unwrap_or((text, ""));
        let wrong = || {
            let failure = Failure::new(format!("`{text}` is no generator"));
            match nearest(word, ["hex", "urlsafe", "password", "uuid"]) {
                Some(near) if near != word => failure.hint(format!("did you mean `{near}`?")),
                _ => failure.hint("one of hex:16, hex:32, urlsafe:32, password:24, uuid"),
            }
        };
        if word == "uuid" && length.is_empty() {
            return Ok(Generator::Uuid);
        }
        let length: u32 = length
            .parse()
            .ok()
            .filter(|n| *n <= 1024)
            .ok_or_else(wrong)?;
        match word {
            "hex" => Ok(Generator::Hex(length)),
            "urlsafe" => Ok(Generator::UrlSafe(length)),
            "password" => Ok(Generator::Password(length)),
            _ => Err(wrong()),
        }
    }

    /// How many random bits a value has.
    pub fn bits(self) -> u32 {
        match self {
            Generator::Hex(bytes) | Generator::UrlSafe(bytes) => bytes * 8,
            Generator::Uuid => 122,
            // log2 of 62 letters and digits is 5.954.
            Generator::Password(length) => length * 5954 / 1000,
        }
    }
}

impl Kind {
    /// Whether a value is of this kind; the error continues `the value of X …` and never shows it.
    pub fn accepts(&self, value: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("is no {what}"));
        if value.is_empty() {
            return Err("is empty".to_owned());
        }
        match self {
            Kind::Secret { bits } => {
                // The most that so many characters of such an alphabet can be worth.
                let most = bits_at_most(value);
                if most < f64::from(*bits).min(f64::from(BITS_MIN)) {
                    return Err(format!(
                        "is worth {most:.0} bits at most, fewer than {BITS_MIN}"
                    ));
                }
            }
            Kind::PostgresUrl { driver } => {
                if let Err(failure) = rg_common::postgres::DatabaseUrl::parse(value) {
                    return Err(format!("is no address: {failure}"));
                }
                let found = crate::address::driver(value);
                if found != driver.as_deref() {
                    let scheme = match driver {
                        Some(driver) => format!("postgresql+{driver}://"),
                        None => "postgresql://".to_owned(),
                    };
                    return Err(format!("has the wrong driver: it must begin with {scheme}"));
                }
            }
            Kind::Port if !value.parse::<u16>().is_ok_and(|port| port > 0) => {
                return wrong("port from 1 to 65535");
            }
            Kind::BucketName if !is_bucket_name(value) => {
                return wrong("bucket's name (3 to 63 of a-z, 0-9, `-`, `.`)");
            }
            Kind::Origin => {
                let host = value
                    .strip_prefix("https://")
                    .or(value.strip_prefix("http://"));
                if !host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
                    return wrong("origin (https://host, nothing behind it)");
                }
            }
            Kind::Endpoint => {
                let port = value.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
                if value.contains('/') || !matches!(port, Some(Ok(1..))) {
                    return wrong("host:port");
                }
            }
            Kind::Boolean if !matches!(value, "true" | "false") => {
                return wrong("`true` or `false`");
            }
            Kind::Integer { min, max } => match value.parse::<i64>() {
                Ok(n) if min.is_none_or(|min| n >= min) && max.is_none_or(|max| n <= max) => {}
                Ok(_) => return Err("is outside of its limits".to_owned()),
                Err(_) => return wrong("whole number"),
            },
            Kind::Number if !value.parse::<f64>().is_ok_and(f64::is_finite) => {
                return wrong("number");
            }
            Kind::JsonList if serde_json::from_str::<Vec<serde_json::Value>>(value).is_err() => {
                return wrong("JSON list");
            }
            Kind::Enum(options) if !options.iter().any(|option| option == value) => {
                return Err(format!("is none of {}", options.join(", ")));
            }
            Kind::Path if !value.starts_with('/') => return wrong("absolute path"),
            Kind::Mail => match value.split_once('@') {
                Some((name, host)) if !name.is_empty() && is_domain(host) => {}
                _ => return wrong("mail address"),
            },
            Kind::Domain if !is_domain(value) => return wrong("domain name"),
            Kind::Uuid => {
                let groups: Vec<&str> = value.split('-').collect();
                let lengths = groups.iter().map(|group| group.len());
                let hex = groups
                    .iter()
                    .all(|group| group.bytes().all(|b| b.is_ascii_hexdigit()));
                if !hex || !lengths.eq([8, 4, 4, 4, 12]) {
                    return wrong("UUID");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// The most bits that a value can be worth: its length times those of the smallest alphabet it fits.
pub fn bits_at_most(value: &str) -> f64 {
    let all = |test: fn(char) -> bool| value.chars().all(test);
    let alphabet: f64 = if all(|c| c.is_ascii_digit()) {
        10.0
    } else if all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()) {
        16.0
    } else if all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        36.0
    } else if all(|c| c.is_ascii_alphanumeric()) {
        62.0
    } else {
        94.0
    };
    value.chars().count() as f64 * alphabet.log2()
}

fn is_bucket_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| inner(b) || b == b'-' || b == b'.')
        && name.bytes().next().is_some_and(inner)
        && name.bytes().last().is_some_and(inner)
        && !name.contains("..")
}

/// A name with at least one dot, whose labels are letters, digits and `-`, and not a template's.
fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let template = [
        "yourdomain.com",
        "your-domain.com",
        "your-frontend-domain.com",
    ];
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(label)
        && !template
            .iter()
            .any(|word| name == *word || name.ends_with(&format!(".{word}")))
}
