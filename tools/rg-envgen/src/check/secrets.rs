//! What a secret is worth, and comparing secrets without showing them.

use std::borrow::Cow;

use rg_common::{OrFail, Result};
use ring::hmac;

/// Keyed digests of values: equal values have equal ones within a run, and nobody can try values
/// against them later.
pub struct Fingerprints(hmac::Key);

impl Fingerprints {
    /// With a fresh key.
    pub fn new() -> Result<Fingerprints> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).or_fail(|| "the system gives no random bytes".to_owned())?;
        Ok(Fingerprints(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The first 48 bits in hexadecimal.
    pub fn of(&self, value: &str) -> String {
        let digest = hmac::sign(&self.0, value.as_bytes());
        digest.as_ref()[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// Whether a name says that its value is a secret.
pub fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 10] = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "APIKEY",
        "CREDENTIAL",
        "PRIVATE",
        "PEPPER",
        "SALT",
    ];
    const KEYS: [&str; 6] = [
        "API_KEY",
        "ACCESS_KEY",
        "ENCRYPTION_KEY",
        "SIGNING_KEY",
        "MASTER_KEY",
        "AUTH_KEY",
    ];
    // What stands beside a secret, and is none.
    const ENDS: [&str; 24] = [
        "_FILE",
        "_PATH",
        "_DIR",
        "_ID",
        "_URL",
        "_URI",
        "_TTL",
        "_AGE",
        "_NAME",
        "_ALGORITHM",
        "_EXPIRE",
        "_LENGTH",
        "_ENABLED",
        "_MINUTES",
        "_SECONDS",
        "_HOURS",
        "_DAYS",
        "_HEADER",
        "_PREFIX",
        "_TYPE",
        "_LIMIT",
        "_REQUESTS",
        "_WINDOW",
        "_TOKENS",
    ];
    let name = name.to_ascii_uppercase();
    let named = PARTS.iter().any(|part| name.contains(part))
        || KEYS.iter().any(|key| name.ends_with(key))
        || name.ends_with("_PASS")
        || name.ends_with("_PW")
        || name.ends_with("_MINIO_ACCESS");
    named && !ENDS.iter().any(|end| name.ends_with(end)) && !name.contains("PUBLIC")
}

/// The password in an address, percent-encoded as it stands there.
pub fn password_in(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (login, _) = rest[..end].rsplit_once('@')?;
    let (_, password) = login.split_once(':')?;
    (!password.is_empty()).then_some(password)
}

/// How many bits a value is worth at most: its length in the alphabet that it shows, less when
/// characters repeat or it is a word with a number.
pub fn bits(value: &str) -> u32 {
    let length = value.chars().count() as f64;
    let has = |test: fn(char) -> bool| value.chars().any(test);
    let hex = value
        .chars()
        .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c) || c == '-')
        || value
            .chars()
            .all(|c| c.is_ascii_digit() || ('A'..='F').contains(&c) || c == '-');
    let alphabet = if value.chars().all(|c| c.is_ascii_digit()) {
        10.0
    } else if hex {
        16.0
    } else {
        [
            (26.0, has(|c| c.is_ascii_lowercase())),
            (26.0, has(|c| c.is_ascii_uppercase())),
            (10.0, has(|c| c.is_ascii_digit())),
            (2.0, has(|c| c == '-' || c == '_')),
            (
                30.0,
                has(|c| !c.is_ascii_alphanumeric() && c != '-' && c != '_'),
            ),
        ]
        .iter()
        .filter(|(_, there)| *there)
        .map(|(size, _)| size)
        .sum()
    };
    let nominal = length * f64::log2(alphabet);
    // What the value's own characters are worth: a random text of this length is not far below
    // the nominal figure, `aaaaaaaa` and `abcabcabc` are.
    let shannon = length * entropy(value);
    let best = f64::min(f64::log2(alphabet), f64::log2(length.max(1.0))) * length;
    let worth = if shannon < 0.7 * best {
        shannon
    } else {
        nominal
    };
    let worth = if is_guessable(value) {
        worth.min(24.0)
    } else {
        worth
    };
    // Written out: no value is negative or beyond a u32.
    worth.max(0.0) as u32
}

fn entropy(value: &str) -> f64 {
    let mut characters: Vec<char> = value.chars().collect();
    characters.sort_unstable();
    let total = characters.len() as f64;
    characters
        .chunk_by(|a, b| a == b)
        .map(|same| same.len() as f64 / total)
        .map(|p| -p * p.log2())
        .sum()
}

/// A well-known word with decoration, a run of neighbours, or one character repeated.
fn is_guessable(value: &str) -> bool {
    const WORDS: [&str; 24] = [
        "password",
        "passwort",
        "passwd",
        "secret",
        "admin",
        "letmein",
        "welcome",
        "qwerty",
        "qwertz",
        "monkey",
        "dragon",
        "master",
        "login",
        "hello",
        "test",
        "demo",
        "root",
        "user",
        "postgres",
        "minio",
        "docker",
        "staging",
        "production",
        "iloveyou",
    ];
    let plain: String = value
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            '0' => 'o',
            '1' | '!' => 'i',
            '3' => 'e',
            '4' | '@' => 'a',
            '5' | '$' => 's',
            other => other,
        })
        .collect();
    let lower = value.to_ascii_lowercase();
    // Little is left besides the words.
    let decorated = |text: &str| {
        let letters = letters(text);
        let mut rest = Cow::Borrowed(text);
        for word in WORDS.iter().filter(|word| can_hold(letters, word)) {
            if rest.contains(*word) {
                rest = Cow::Owned(rest.replace(*word, ""));
            }
        }
        rest.len() < text.len() && rest.len() <= 6
    };
    let chars: Vec<u32> = lower.chars().map(u32::from).collect();
    let steps = chars
        .windows(2)
        .filter(|two| two[0].abs_diff(two[1]) <= 1)
        .count();
    decorated(&plain)
        || decorated(&lower)
        || (chars.len() > 3 && steps * 4 >= (chars.len() - 1) * 3)
}

/// Which of a to z a text has, one bit each.
fn letters(text: &str) -> u32 {
    let small = text.bytes().filter(u8::is_ascii_lowercase);
    small.fold(0, |letters, b| letters | 1 << (b - b'a'))
}

/// Whether a text with these letters can hold the word: most secrets are done with here, without a
/// search for each word.
fn can_hold(of_the_text: u32, word: &str) -> bool {
    letters(word) & !of_the_text == 0
}

/// Passwords, and user names with power, that everybody knows from a vendor's documents.
pub const VENDOR_DEFAULTS: &[&str] = &[
    "minioadmin",
    "minio123",
    "minio",
    "rustfsadmin",
    "postgres",
    "postgresql",
    "root",
    "admin",
    "administrator",
    "password",
    "passw0rd",
    "changeit",
    "guest",
    "rabbitmq",
    "redis",
    "mysql",
    "mongo",
    "docker",
    "portainer",
    "grafana",
    "prom-operator",
    "test",
    "test123",
    "secret",
    "toor",
    "default",
    "user",
    "pass",
    "admin123",
    "password123",
    "123456",
    "12345678",
    "123456789",
    "qwerty",
    "letmein",
];

/// Why a value is a placeholder, if it is one. `name` tells a domain from a secret.
pub fn placeholder(name: &str, value: &str) -> Option<&'static str> {
    let lower = value.trim().to_ascii_lowercase();
    if lower.is_empty() {
        return None;
    }
    let bare: String = lower.chars().filter(char::is_ascii_alphanumeric).collect();
    const WORDS: [&str; 26] = [
        "changeme",
        "changethis",
        "changeit",
        "replaceme",
        "replacethis",
        "replacewith",
        "todo",
        "fixme",
        "tbd",
        "placeholder",
        "fillmein",
        "fillthisin",
        "setme",
        "insert",
        "putyour",
        "enteryour",
        "yourpassword",
        "yoursecret",
        "yourapikey",
        "yourkey",
        "yourtoken",
        "yourdomain",
        "yourserver",
        "youremail",
        "notsosecret",
        "supersecretkey",
    ];
    if angle_brackets(value) {
        return Some("something in angle brackets");
    }
    if lower.contains("{{") && lower.contains("}}") {
        return Some("a template's `{{ … }}`");
    }
    let letters = letters(&bare);
    if let Some(word) = WORDS
        .iter()
        .filter(|word| can_hold(letters, word))
        .find(|word| bare == **word || (word.len() > 6 && bare.contains(**word)))
    {
        return Some(word);
    }
    if lower.starts_with("your-")
        || lower.starts_with("your_")
        || lower.contains("-here") && lower.contains("your")
    {
        return Some("`your-…`");
    }
    // GENERATED_32_CHAR_SECRET, STAGING_DB_PASSWORD: capitals that name what belongs there.
    let shouts = value.len() > 6
        && value.contains('_')
        && value
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let names_it = [
        "SECRET",
        "PASSWORD",
        "TOKEN",
        "GENERATED",
        "YOUR",
        "KEY",
        "CHANGE",
    ]
    .iter()
    .any(|word| value.contains(word));
    if shouts && names_it {
        return Some("capitals that name what belongs there");
    }
    if bare.len() >= 3 && bare.chars().all(|c| c == 'x') || bare.contains("xxxxx") {
        return Some("`xxx`");
    }
    let hosts = [
        "example.com",
        "example.org",
        "example.net",
        "yourdomain",
        "your-domain",
        "mydomain.com",
        "domain.tld",
    ];
    if let Some(host) = hosts
        .iter()
        .find(|host| can_hold(letters, host) && lower.contains(**host))
    {
        return Some(host);
    }
    let keys = ["sk-...", "sk-your", "sk-xxx", "..."];
    if is_secret_name(name)
        && let Some(key) = keys
            .iter()
            .find(|key| lower.starts_with(**key) || lower.ends_with("..."))
    {
        return Some(key);
    }
    None
}

/// `<STAGING_DB_PASSWORD>`, wherever it stands in the value.
fn angle_brackets(value: &str) -> bool {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some((inner, _)) = after.split_once('>')
            && inner.len() > 2
            && inner
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || " _-./".contains(c))
            && inner.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_both_deployments_and_of_common_templates_are_known() {
        for value in [
            "<STAGING_DB_PASSWORD>",
            "postgresql://u:<PASSWORD>@h/d",
            "GENERATED_32_CHAR_SECRET",
            "https://yourdomain.com",
            "changeme",
            "Change-Me!",
            "your-secret-key-here",
            "xxx",
            "xxxxxxxx",
            "admin@example.com",
            "TODO",
            "{{ secret }}",
            "sk-your-openai-key",
            "replace_with_real_key",
            "your_password",
            "STAGING_DB_PASSWORD",
        ] {
            assert!(placeholder("API_KEY", value).is_some(), "{value}");
        }
        for value in [
            "",
            "a<b",
            "4f1e9a7c2b",
            "postgresql://u:p@h/d",
            "https://rgrid.dev",
            "json",
            "300",
            "PRODUCTION",
            "DEBUG",
            "AKIAIOSFODNN7ABCDEFG",
            "Zx9_todo_kQ2pLm",
        ] {
            assert_eq!(placeholder("API_KEY", value), None, "{value}");
        }
    }

    #[test]
    fn a_secret_is_worth_its_alphabet_and_no_more_than_it_shows() {
        assert_eq!(bits("4f1e9a7c2b8d60354f1e9a7c2b8d6035"), 128);
        assert!(bits("kQ2pLmZx9sW7vB4nT6yR8cD1") >= 128);
        assert!(bits("k3J-Vq_8fGh2LmNpQrStUvWxYz0123456789AbCdEfG") >= 240);
        for weak in [
            "hunter2",
            "password123",
            "P@ssw0rd!",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "12345678901234567890",
            "abcdefghijklmnopqrstuvwxyz",
            "production-secret",
            "abababababababababababab",
        ] {
            assert!(bits(weak) < 64, "{weak}: {}", bits(weak));
        }
    }

    #[test]
    fn names_beside_a_secret_are_no_secrets() {
        for name in [
            "DB_PASSWORD",
            "API_SECRET_KEY",
            "OPENAI_API_KEY",
            "HETZNER_API_TOKEN",
            "PRODUCTION_MINIO_ACCESS",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "ACCESS_TOKEN_EXPIRE_MINUTES",
            "HETZNER_SSH_KEY_PATH",
            "PASSWORD_FILE",
            "MAX_TOKENS",
            "SESSION_MAX_AGE",
            "DATABASE_URL",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn a_fingerprint_tells_equal_from_different_and_not_the_value() {
        let (one, other) = (Fingerprints::new().unwrap(), Fingerprints::new().unwrap());
        assert_eq!(one.of("a"), one.of("a"));
        assert_ne!(one.of("a"), one.of("b"));
        assert_ne!(one.of("a"), other.of("a"));
        assert_eq!(password_in("postgresql://u:p%40@h:1/d?x=a@b"), Some("p%40"));
        assert_eq!(password_in("https://h/a:b@c"), None);
    }
}
