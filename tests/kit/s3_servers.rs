//! Which S3 servers the suite runs against, and what each of them cannot do: two tables, so that what
//! is left out is a decision that can be seen.

use std::sync::OnceLock;

use crate::s3_further::{Moto, Rclone};
use crate::s3_server::{JuiceFs, S3Server, SeaweedFs};

/// What a test may need and not every server, or store, has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `If-Match` and `If-None-Match` on writes: of two machines one waits.
    ConditionalWrites,
    /// What is written can be locked for some days.
    ObjectLock,
    /// What cannot be locked is refused, or shown as not locked.
    HonestLock,
    /// Uploads in parts, and a list of those that are open.
    Uploads,
    /// A second key that may list and read only.
    ReadOnlyKey,
    /// An object whose key is another one's folder: `a` and `a/b`.
    KeyBelowKey,
    /// The storage class that was asked for is kept and shown.
    StorageClass,
}

/// What a server cannot do: with it a promise of the suite is left out for that server, in words.
/// Nothing else is left out anywhere. The folder is the store that needs no server.
pub const CANNOT: &[(&str, Need, &str)] = &[
    (
        "folder",
        Need::Uploads,
        "temporary files are swept under the lock",
    ),
    (
        "folder",
        Need::ConditionalWrites,
        "the kernel's lock is for one machine",
    ),
    ("folder", Need::ObjectLock, "a disk has no such thing"),
    (
        "JuiceFS",
        Need::ConditionalWrites,
        "it ignores If-None-Match and If-Match",
    ),
    ("JuiceFS", Need::ObjectLock, "it has none (501)"),
    ("JuiceFS", Need::ReadOnlyKey, "it knows one key alone"),
    (
        "JuiceFS",
        Need::KeyBelowKey,
        "it keeps objects as files in directories",
    ),
    (
        "JuiceFS",
        Need::StorageClass,
        "it takes any class and shows none",
    ),
    (
        "rclone",
        Need::Uploads,
        "its answer to an upload's begin is not what AWS's client reads",
    ),
    (
        "rclone",
        Need::ConditionalWrites,
        "it ignores If-None-Match and If-Match",
    ),
    ("rclone", Need::ObjectLock, "it has none"),
    (
        "rclone",
        Need::HonestLock,
        "it gives back a lock's headers as it got them, and locks nothing",
    ),
    (
        "moto",
        Need::ObjectLock,
        "it does not keep the lock that comes with an object",
    ),
];

/// Whether a server, or the folder, has what a test needs.
pub fn can(name: &str, need: Need) -> bool {
    !CANNOT
        .iter()
        .any(|(who, cannot, _)| *who == name && *cannot == need)
}

/// The servers that every test of buckets runs against, each started once for the process.
pub fn every_server() -> [&'static S3Server; 2] {
    [SeaweedFs::shared(), JuiceFs::shared()]
}

/// Those that a slow test runs against: SeaweedFS, and all of them in `make test-s3`.
pub fn servers_for_slow_tests() -> Vec<&'static S3Server> {
    match all_asked_for() {
        true => every_server().to_vec(),
        false => vec![SeaweedFs::shared()],
    }
}

/// Those that keep the contract of stores: every server, and two more in `make test-s3`.
pub fn servers_for_the_contract() -> Vec<&'static S3Server> {
    let mut servers = every_server().to_vec();
    if all_asked_for() {
        servers.extend([Rclone::shared(), Moto::shared()]);
    }
    servers
}

/// Whether `RG_S3_SERVERS=all` is set, as `make test-s3` does.
fn all_asked_for() -> bool {
    static ASKED: OnceLock<bool> = OnceLock::new();
    *ASKED.get_or_init(|| match std::env::var("RG_S3_SERVERS").as_deref() {
        Err(_) => false,
        Ok("all") => true,
        Ok(other) => panic!("RG_S3_SERVERS is `{other}` and can only be `all`"),
    })
}

/// Makes tests of functions that take a server: of a function above one for each server, of one
/// behind `slow:` a single one against [`servers_for_slow_tests`].
#[macro_export]
macro_rules! on_every_server {
    ($($promise:ident),* $(,)? $(; slow: $($slow:ident),* $(,)?)?) => {
        mod seaweedfs {
            $(#[test]
            fn $promise() {
                super::$promise($crate::SeaweedFs::shared());
            })*
        }
        mod juicefs {
            $(#[test]
            fn $promise() {
                super::$promise($crate::JuiceFs::shared());
            })*
        }
        $(mod slow {
            $(#[test]
            fn $slow() {
                for server in $crate::servers_for_slow_tests() {
                    super::$slow(server);
                }
            })*
        })?
    };
}

impl S3Server {
    /// Whether it has what a test needs; if not, [`CANNOT`] says why.
    pub fn can(&self, need: Need) -> bool {
        can(self.name(), need)
    }
}
