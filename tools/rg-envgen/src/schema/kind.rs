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
