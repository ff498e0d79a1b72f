//! What may be written: the values that docker compose, systemd, a shell, `export $(… | xargs)`,
//! python-dotenv, pydantic-settings and node read alike, without quotes.

use rg_common::env_file::dialect::tier::is_safe;
use rg_common::{Failure, Result};

/// Refuses a value that some reader would take differently, with the way out; the value is not shown.
pub fn check(name: &str, value: &str) -> Result<()> {
    let unsafe_byte = |byte: &u8| !is_safe(char::from(*byte));
    // The options of an address; as a file's name it would have to exist to be expanded.
    let address = value.contains("://");
    let bad = value
        .bytes()
        .find(|byte| unsafe_byte(byte) && !(address && *byte == b'?'));
    let what = match bad {
        None => return Ok(()),
        Some(b' ' | b'\t') => "a blank".to_owned(),
        Some(b'\n' | b'\r') => "a line break".to_owned(),
        Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(byte)),
        Some(_) => "a character that is not plain ASCII".to_owned(),
    };
    let failure = Failure::new(format!(
        "the value of {name} has {what} in it, which not every reader of an env file takes as it is"
    ));
    Err(match address {
        true => {
            failure.hint("in an address it is written in percent-encoding, such as %24 for `$`")
        }
        false => failure
            .hint("write it as base64 or hex, or put it into a file and give the app its path"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_readers_take_differently_is_refused_with_the_way_out() {
        for value in [
            "a b", "a$b", "a#b", "'a'", "a\\b", "a`b`", "a&b", "~/x", "[\"a\"]", "ä", "a\nb", "a!b",
        ] {
            let failure = check("K", value).unwrap_err();
            assert!(!failure.hints().is_empty());
            assert!(!format!("{failure:?}").contains(&format!("`{value}`")));
        }
        for value in [
            "",
            "abc-._",
            "postgresql+asyncpg://u:p%40@h:5432/d?ssl=require",
            "1.0",
            "a=b",
        ] {
            check("K", value).unwrap();
        }
    }
}
