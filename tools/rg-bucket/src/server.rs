//! Whose server it is, what it is known to lack, and the way round it.
//!
//! A call that a server refuses when asked for the setting is found out on the spot. This table is
//! for the rest: settings that a server shows as unset and refuses, or drops, when they are put
//! (they would be planned for ever), and the words that tell an operator what to do instead.

use std::fmt;

/// A kind of S3 server, told by its address or its `Server` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Amazon S3.
    Aws,
    /// MinIO, and gateways that carry its S3 front end.
    Minio,
    /// RustFS.
    RustFs,
    /// SeaweedFS.
    SeaweedFs,
    /// Garage.
    Garage,
    /// Cloudflare R2.
    R2,
    /// Backblaze B2.
    B2,
    /// Anything else.
    Other,
}

/// A setting, where servers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Bucket policies.
    Policy,
    /// Versions.
    Versioning,
    /// Lifecycle rules at all.
    Lifecycle,
    /// The rule for old versions.
    NoncurrentRule,
    /// The rule for abandoned uploads.
    AbandonedRule,
    /// Cross-origin access.
    Cors,
    /// Object lock.
    Lock,
}

impl Feature {
    /// Its name in a message.
    pub fn name(self) -> &'static str {
        match self {
            Feature::Policy => "bucket policies",
            Feature::Versioning => "versioning",
            Feature::Lifecycle => "lifecycle rules",
            Feature::NoncurrentRule => "rules for old versions",
            Feature::AbandonedRule => "rules for abandoned uploads",
            Feature::Cors => "CORS rules",
            Feature::Lock => "object lock",
        }
    }
}

/// What a server shows as unset and does not keep when it is put. From the servers' own sources
/// and documentation of 2025 and 2026.
const KNOWN_LACKS: &[(Server, Feature)] = &[
    (Server::Minio, Feature::Cors),
    (Server::Minio, Feature::AbandonedRule),
    (Server::Garage, Feature::NoncurrentRule),
    (Server::R2, Feature::NoncurrentRule),
];

/// The way round what a server lacks.
const WAYS: &[(Option<Server>, Feature, &str)] = &[
    (
        Some(Server::Minio),
        Feature::Cors,
        "set MINIO_API_CORS_ALLOW_ORIGIN on the server, for all of its buckets",
    ),
    (
        Some(Server::Minio),
        Feature::AbandonedRule,
        "the server drops them by itself after MINIO_API_STALE_UPLOADS_EXPIRY (24 h); `rg-bucket clean` sweeps them too",
    ),
    (
        Some(Server::Minio),
        Feature::Versioning,
        "it needs erasure-coded storage (MinIO on a plain file system has none)",
    ),
    (
        Some(Server::Minio),
        Feature::Lock,
        "it needs erasure-coded storage (MinIO on a plain file system has none)",
    ),
    (
        Some(Server::Garage),
        Feature::Policy,
        "Garage knows rights per key; for public files `garage bucket website --allow`",
    ),
    (
        Some(Server::R2),
        Feature::Policy,
        "make it public by a custom domain in R2's dashboard",
    ),
    (
        Some(Server::B2),
        Feature::Policy,
        "set `Files in Bucket are` to public or private in Backblaze's console",
    ),
    (
        Some(Server::B2),
        Feature::Versioning,
        "B2 always keeps versions",
    ),
    (
        Some(Server::R2),
        Feature::Lock,
        "use R2's own bucket locks in its dashboard",
    ),
    (
        None,
        Feature::Policy,
        "who may read is decided by the server's own means; `rg-bucket plan` proves it all the same",
    ),
    (None, Feature::Versioning, "keep copies with `rg-backup`"),
    (
        None,
        Feature::Lifecycle,
        "the application must delete what is old; `rg-bucket clean` sweeps abandoned uploads",
    ),
    (
        None,
        Feature::NoncurrentRule,
        "use a service that has it, or leave noncurrent_days out of rg.toml",
    ),
    (
        None,
        Feature::AbandonedRule,
        "`rg-bucket clean` sweeps them",
    ),
    (
        None,
        Feature::Cors,
        "let the proxy in front of it add the Access-Control headers",
    ),
    (
        None,
        Feature::Lock,
        "give the backups' key no right to delete",
    ),
];

impl Server {
    /// Told by the endpoint's host, else by the `Server` header.
    pub fn told_by(endpoint: Option<&str>, header: Option<&str>) -> Server {
        let host = endpoint
            .and_then(|e| e.split("://").nth(1))
            .unwrap_or_default();
        let host = host
            .split(['/', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        match host.as_str() {
            "" => return Server::Aws,
            h if h.ends_with(".amazonaws.com") || h.ends_with(".amazonaws.com.cn") => {
                return Server::Aws;
            }
            h if h.ends_with(".r2.cloudflarestorage.com") => return Server::R2,
            h if h.ends_with(".backblazeb2.com") => return Server::B2,
            _ => {}
        }
        let header = header.unwrap_or_default().to_ascii_lowercase();
        [
            ("minio", Server::Minio),
            ("rustfs", Server::RustFs),
            ("seaweedfs", Server::SeaweedFs),
            ("garage", Server::Garage),
        ]
        .iter()
        .find(|(word, _)| header.contains(word))
        .map_or(Server::Other, |(_, server)| *server)
    }

    /// Whether it shows the setting as unset and does not keep it.
    pub fn lacks(self, feature: Feature) -> bool {
        KNOWN_LACKS.contains(&(self, feature))
    }

    /// What to do instead.
    pub fn way_round(self, feature: Feature) -> &'static str {
        let of = |server: Option<Server>| {
            WAYS.iter()
                .find(move |way| way.0 == server && way.1 == feature)
        };
        of(Some(self))
            .or_else(|| of(None))
            .map_or("use a service that has it", |way| way.2)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Server::Aws => "AWS",
            Server::Minio => "MinIO",
            Server::RustFs => "RustFS",
            Server::SeaweedFs => "SeaweedFS",
            Server::Garage => "Garage",
            Server::R2 => "Cloudflare R2",
            Server::B2 => "Backblaze B2",
            Server::Other => "this server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_by_its_address_or_its_header() {
        let told = |endpoint, header| Server::told_by(endpoint, header);
        assert_eq!(told(None, None), Server::Aws);
        assert_eq!(
            told(Some("https://s3.eu-central-003.backblazeb2.com"), None),
            Server::B2
        );
        assert_eq!(
            told(Some("https://x.r2.cloudflarestorage.com/"), None),
            Server::R2
        );
        assert_eq!(
            told(Some("http://127.0.0.1:9000"), Some("MinIO")),
            Server::Minio
        );
        assert_eq!(
            told(Some("http://127.0.0.1:8333"), Some("SeaweedFS 8000GB 4.48")),
            Server::SeaweedFs
        );
        assert_eq!(told(Some("http://127.0.0.1:1"), None), Server::Other);
    }

    #[test]
    fn every_feature_has_a_way_round_everywhere() {
        let features = [
            Feature::Policy,
            Feature::Versioning,
            Feature::Lifecycle,
            Feature::NoncurrentRule,
            Feature::AbandonedRule,
            Feature::Cors,
            Feature::Lock,
        ];
        for feature in features {
            assert_ne!(
                Server::Other.way_round(feature),
                "use a service that has it"
            );
        }
        assert!(
            Server::Minio
                .way_round(Feature::Cors)
                .contains("MINIO_API_CORS_ALLOW_ORIGIN")
        );
    }
}
