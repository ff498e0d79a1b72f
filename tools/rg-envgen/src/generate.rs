//! Fresh values from the system's random source.
//!
//! Each character is drawn by rejection sampling, so that all are equally likely, and comes from
//! letters, digits, `-` and `_`, which every reader of an env file takes as they are.

use rg_common::secret::Secret;
use rg_common::{OrFail, Result};

use crate::schema::Generator;

const HEX: &[u8] = b"0123456789abcdef";
const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const URL_SAFE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Where random bytes come from.
pub trait Random {
    /// Fills the buffer, or fails; never a part of it.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<()>;
}

/// The system's own.
pub struct System;

impl Random for System {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        getrandom::fill(buffer).or_fail(|| "the system gives no random bytes".to_owned())
    }
}

/// A new value.
pub fn generate(generator: Generator, random: &mut dyn Random) -> Result<Secret> {
    let text = match generator {
        Generator::Hex(bytes) => draw(HEX, bytes * 2, random)?,
        Generator::UrlSafe(bytes) => {
            // As long as the base64 of so many bytes. The first is no `-`: it would be an option
            // where somebody hands the value to a program.
            let first = draw(ALPHANUMERIC, 1, random)?;
            first + &draw(URL_SAFE, (bytes * 4).div_ceil(3), random)?
        }
        Generator::Password(length) => draw(ALPHANUMERIC, length, random)?,
        Generator::Uuid => uuid(random)?,
    };
    Ok(Secret::new(text))
}

fn draw(alphabet: &[u8], length: u32, random: &mut dyn Random) -> Result<String> {
    // Bytes from here on would make the first characters of the alphabet likelier.
    let limit = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length as usize);
    let mut buffer = [0u8; 64];
    while text.len() < length as usize {
        random.fill(&mut buffer)?;
        let missing = length as usize - text.len();
        let fair = buffer.iter().map(|byte| usize::from(*byte));
        let fair = fair.filter(|byte| *byte < limit).take(missing);
        text.extend(fair.map(|byte| char::from(alphabet[byte % alphabet.len()])));
    }
    Ok(text)
}

/// RFC 9562, version 4.
fn uuid(random: &mut dyn Random) -> Result<String> {
    let mut bytes = [0u8; 16];
    random.fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    Ok(format!("{a}-{b}-{c}-{d}-{e}"))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The same bytes every time.
    pub struct Counting(pub u64);

    impl Random for Counting {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
            for byte in buffer {
                self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (self.0 ^ (self.0 >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                *byte = (mixed >> 56) as u8;
            }
            Ok(())
        }
    }

    #[test]
    fn values_have_the_length_and_the_characters_that_were_asked_for() {
        let mut random = Counting(7);
        let mut make = |text: &str| {
            let generator = Generator::parse(text).unwrap();
            generate(generator, &mut random)
                .unwrap()
                .reveal()
                .to_owned()
        };
        assert_eq!(make("hex:16").len(), 32);
        assert_eq!(make("hex:32").len(), 64);
        assert_eq!(make("password:24").len(), 24);
        assert_eq!(make("urlsafe:32").len(), 44);
        let uuid = make("uuid");
        let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert_eq!(&uuid[14..15], "4");
        assert!("89ab".contains(&uuid[19..20]));
        for _ in 0..500 {
            assert!(make("urlsafe:16").starts_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn every_character_is_as_likely_as_every_other() {
        let mut random = Counting(1);
        let text = draw(ALPHANUMERIC, 62_000, &mut random).unwrap();
        for character in ALPHANUMERIC {
            let count = text.bytes().filter(|byte| byte == character).count();
            // Five standard deviations around a thousand.
            assert!(
                (840..1160).contains(&count),
                "{} {count}",
                char::from(*character)
            );
        }
    }

    #[test]
    fn the_system_never_gives_the_same_twice() {
        let make = || generate(Generator::Hex(16), &mut System).unwrap();
        assert_ne!(make(), make());
    }
}
