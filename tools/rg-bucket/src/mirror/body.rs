//! Bodies in bounded memory: cut into equal parts as they stream, or read for their digest.

use aws_sdk_s3::primitives::ByteStream;
use rg_common::catalog::manifest::hex;
use rg_common::s3::S3Error;
use rg_common::sha256::Sha256;

use super::trouble::{Stumble, Trouble, Unread, cut};
use crate::target::Target;

/// Objects up to this size are put in one piece; larger ones in parts of it.
pub const PART_BYTES: u64 = 8 << 20;
/// The most parts that S3 takes; parts grow when an object would need more.
pub const PARTS_MAX: u64 = 10_000;
/// All parts that are in memory together, in MiB.
pub const MEMORY_MIB: u32 = 64;
/// Larger objects are refused: their parts would not fit into [`MEMORY_MIB`].
pub const OBJECT_BYTES_MAX: u64 = (MEMORY_MIB as u64 * PARTS_MAX) << 20;
/// A body that is cut into parts.
pub struct Body {
    body: ByteStream,
    /// Bytes that are still to come.
    pub left: u64,
    /// What came with the last chunk and belongs to the next part.
    rest: Vec<u8>,
    sha256: Sha256,
}

impl Body {
    /// A body of `bytes`.
    pub fn new(body: ByteStream, bytes: u64) -> Body {
        Body {
            body,
            left: bytes,
            rest: Vec::new(),
            sha256: Sha256::new(),
        }
    }

    /// The SHA-256 of everything that came.
    pub fn digest(self) -> String {
        hex(&self.sha256.finalize())
    }

    /// The next part: `bytes`, or what is left. A body that ends early or goes on is an error.
    pub async fn fill(&mut self, bytes: u64) -> Result<Vec<u8>, Stumble> {
        let wanted = usize::try_from(bytes.min(self.left)).unwrap_or(usize::MAX);
        // Exactly as large as it will be: a buffer that grows doubles.
        let mut part = Vec::with_capacity(wanted);
        part.extend(self.rest.drain(..self.rest.len().min(wanted)));
        while part.len() < wanted {
            match self.body.next().await {
                Some(Ok(chunk)) => {
                    let (mine, rest) = chunk.split_at(chunk.len().min(wanted - part.len()));
                    part.extend_from_slice(mine);
                    self.rest = rest.to_vec();
                }
                Some(Err(error)) => return Err(cut(&error)),
                None => return Err(cut("it ended early")),
            }
        }
        self.left -= wanted as u64;
        if self.left == 0 && !self.rest.is_empty() {
            return Err(Trouble::Changed.finally());
        }
        self.sha256.update(&part);
        Ok(part)
    }
}

/// The SHA-256 of an object as it is read now, under this tag where one is given, and its tag.
pub async fn digest(target: &Target, key: &str, tag: &str) -> Result<(String, String), Unread> {
    let call = target
        .client
        .sdk()
        .get_object()
        .bucket(&target.bucket)
        .key(key);
    let tag = (!tag.is_empty()).then(|| format!("\"{tag}\""));
    let got = call.set_if_match(tag).send().await;
    let mut got = got.map_err(|error| Unread::Refused(S3Error::of(error)))?;
    let mut digest = Sha256::new();
    while let Some(chunk) = got.body.next().await {
        digest.update(chunk.map_err(|error| Unread::Cut(cut(error)))?);
    }
    Ok((hex(&digest.finalize()), bare(got.e_tag())))
}

/// A tag without its quotes; empty where there is none.
pub fn bare(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

/// How large the parts of an object are: equal, as some services demand, and few enough.
pub fn part_bytes(size: u64) -> u64 {
    let needed = size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20);
    needed.max(PART_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_needs_more_parts_than_there_are_nor_more_memory() {
        for size in [
            1,
            PART_BYTES + 1,
            80 << 30,
            (80 << 30) + 1,
            600 << 30,
            OBJECT_BYTES_MAX,
        ] {
            let part = part_bytes(size);
            assert!(size.div_ceil(part) <= PARTS_MAX, "{size}");
            assert!(part <= u64::from(MEMORY_MIB) << 20, "{size}");
        }
    }
}
