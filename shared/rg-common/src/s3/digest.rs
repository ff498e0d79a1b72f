//! MD5, which S3 names its objects' content by: in `Content-MD5` on the way there, and in the ETag
//! on the way back (of one piece: its MD5; of several: the MD5 of their MD5s, `-`, their number).
//! Against accidents only: forgery is the business of the SHA-256 in the manifests.

use md5::Digest;

/// The MD5 of some bytes.
pub type Md5 = [u8; 16];

/// Of these bytes.
pub fn md5(bytes: &[u8]) -> Md5 {
    md5::Md5::digest(bytes).into()
}

/// The MD5 of bytes that come one after the other.
pub struct Md5Sum(md5::Md5);

impl Md5Sum {
    /// Of nothing yet.
    #[allow(clippy::new_without_default, reason = "as for SHA-256")]
    pub fn new() -> Self {
        Md5Sum(md5::Md5::new())
    }

    /// More bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Of all of them.
    pub fn finish(self) -> Md5 {
        self.0.finalize().into()
    }
}

/// The ETag of an object that was put together from parts with these digests.
pub fn multipart_etag(parts: &[Md5]) -> String {
    format!("{}-{}", hex(&md5(parts.as_flattened())), parts.len())
}

/// The ETag of an object that was sent in one piece.
pub fn etag_md5(digest: &Md5) -> String {
    hex(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 4648's alphabet with padding, for `Content-MD5`.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= group.len() {
                char::from(ALPHABET[sextet as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_as_s3_writes_them() {
        // RFC 4648, section 10, and RFC 1321, appendix A.5.
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
        assert_eq!(etag_md5(&md5(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert!(multipart_etag(&[md5(b"a"), md5(b"b")]).ends_with("-2"));
    }
}
