//! The values of a custom archive: integers and texts that come in pieces of any size.
//!
//! A length in the archive is never reserved in memory, only counted down.

use crate::failure::{Failure, Result};

/// The longest text that is looked into: a `COPY` with 1600 quoted columns takes 0.2 MB.
const TEXT_BYTES_MAX: i64 = 4 << 20;
/// The longest value of fixed length: an integer or offset of 8 bytes and the byte before it.
const FIXED_BYTES_MAX: usize = 9;

/// Takes one value at a time from the archive's bytes.
pub(super) struct Values {
    /// How many bytes an integer has beside its sign, 1 to 8.
    pub int_bytes: usize,
    bytes: [u8; FIXED_BYTES_MAX],
    got: usize,
    text: Option<TextValue>,
}

/// A text of which a part has come.
struct TextValue {
    left: i64,
    kept: Option<Vec<u8>>,
}

/// A text in the archive.
pub(super) enum Text {
    /// More bytes are needed.
    Unfinished,
    Absent,
    /// Empty also if it was not to be kept.
    Present(Vec<u8>),
}

impl Values {
    pub fn new() -> Self {
        Values {
            int_bytes: 4,
            bytes: [0; FIXED_BYTES_MAX],
            got: 0,
            text: None,
        }
    }

    /// The next `need` bytes (9 at most), once they are all there.
    #[inline]
    pub fn fixed(&mut self, input: &mut &[u8], need: usize) -> Option<[u8; FIXED_BYTES_MAX]> {
        let length = (need - self.got).min(input.len());
        let (piece, rest) = input.split_at(length);
        *input = rest;
        self.bytes[self.got..self.got + length].copy_from_slice(piece);
        self.got += length;
        if self.got < need {
            return None;
        }
        self.got = 0;
        Some(self.bytes)
    }

    /// An integer: a sign byte and its magnitude.
    #[inline]
    pub fn int(&mut self, input: &mut &[u8]) -> Option<i64> {
        let bytes = self.fixed(input, 1 + self.int_bytes)?;
        let mut magnitude = [0; 8];
        magnitude[..self.int_bytes].copy_from_slice(&bytes[1..=self.int_bytes]);
        let magnitude = u64::from_le_bytes(magnitude) as i64;
        Some(match bytes[0] {
            0 => magnitude,
            _ => magnitude.wrapping_neg(),
        })
    }

    /// A text: its length and its bytes, which are kept or only passed over.
    pub fn text(&mut self, input: &mut &[u8], is_kept: bool) -> Result<Text> {
        if self.text.is_none() {
            let Some(left) = self.int(input) else {
                return Ok(Text::Unfinished);
            };
            if left < 0 {
                return Ok(Text::Absent);
            }
            if is_kept && left > TEXT_BYTES_MAX {
                return Err(damaged(format!(
                    "a text of {left} bytes in its table of contents"
                )));
            }
            let kept = is_kept.then(Vec::new);
            self.text = Some(TextValue { left, kept });
        }
        let Some(mut text) = self.text.take() else {
            return Ok(Text::Unfinished);
        };
        let length = usize::try_from(text.left)
            .unwrap_or(usize::MAX)
            .min(input.len());
        let (piece, rest) = input.split_at(length);
        *input = rest;
        text.left -= length as i64;
        if let Some(kept) = &mut text.kept {
            kept.extend_from_slice(piece);
        }
        if text.left > 0 {
            self.text = Some(text);
            return Ok(Text::Unfinished);
        }
        Ok(Text::Present(text.kept.unwrap_or_default()))
    }
}

/// An archive that says what cannot be.
pub(super) fn damaged(what: String) -> Failure {
    Failure::new(format!("the dump is damaged: {what}"))
        .hint("try `pg_restore --file=/dev/null` on it; if that fails too, take another backup")
}
