//! What is live: a bucket as its service shows it. Plain values; `live` fills them in.

use aws_sdk_s3::types::LifecycleRule;

use crate::policy::Policy;
use crate::server::Server;
use crate::wanted::{Cors, Lock};

/// What a service answered when it was asked for one setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<T> {
    /// It was never set.
    Unset,
    /// This.
    Is(T),
    /// The service has no such call; in its own words.
    Lacking(String),
    /// The key may not ask; in the service's words.
    Denied(String),
}

impl<T> Answer<T> {
    /// The value, where there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Answer::Is(value) => Some(value),
            _ => None,
        }
    }
}

/// Whether there is a bucket of that name, as far as the key can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// No.
    Absent,
    /// Yes, and the key can look into it.
    Ours,
    /// Yes, and the key cannot look into it: somebody else's, or a key without the right.
    Closed,
}

/// A bucket as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Whether it is there; nothing else is known when it is not.
    pub presence: Presence,
    /// Whose server it is.
    pub server: Server,
    /// Who may do what.
    pub policy: Answer<Policy>,
    /// The older way to let somebody in: what its grants to everybody allow, empty for nothing.
    pub public_grants: Answer<Vec<String>>,
    /// AWS's switch above policies and grants.
    pub public_block: Answer<PublicBlock>,
    /// Whether old versions are kept.
    pub versioning: Answer<Versioning>,
    /// All rules, ours and others'.
    pub lifecycle: Answer<Vec<LifecycleRule>>,
    /// Cross-origin access.
    pub cors: Answer<Vec<Cors>>,
    /// Whether objects can be locked, and which lock new ones get.
    pub lock: Answer<Locking>,
    /// What somebody without a key could do.
    pub exposure: Exposure,
}

/// Versioning can be on, or suspended: versions that exist stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// On.
    Enabled,
    /// Off again.
    Suspended,
}

/// Object lock of a bucket that was created with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locking {
    /// The lock that new objects get without asking.
    pub default: Option<Lock>,
}

/// AWS's four switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicBlock {
    /// No new public grant is taken.
    pub block_acls: bool,
    /// Public grants do not count.
    pub ignore_acls: bool,
    /// No public policy is taken.
    pub block_policy: bool,
    /// A public policy does not count.
    pub restrict: bool,
}

impl PublicBlock {
    /// Everything public is shut off.
    pub const ALL: PublicBlock = PublicBlock {
        block_acls: true,
        ignore_acls: true,
        block_policy: true,
        restrict: true,
    };
}

/// What somebody without a key met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was allowed, with this HTTP status.
    Open(u16),
    /// It was refused, with this HTTP status.
    Refused(u16),
    /// An answer that says neither, with this HTTP status (0: no answer at all).
    Unclear(u16),
    /// Nothing to ask for.
    NotAsked,
}

/// What somebody without a key could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposure {
    /// Read an object that is there.
    pub get: Seen,
    /// List the keys.
    pub list: Seen,
    /// Write an object. Asked with a digest that does not fit, so that nothing is ever written.
    pub put: Seen,
}

impl Exposure {
    /// Nobody has asked.
    pub const UNKNOWN: Exposure = Exposure {
        get: Seen::NotAsked,
        list: Seen::NotAsked,
        put: Seen::NotAsked,
    };
}

impl Found {
    /// No such bucket.
    pub fn absent(server: Server) -> Found {
        Found {
            presence: Presence::Absent,
            server,
            policy: Answer::Unset,
            public_grants: Answer::Unset,
            public_block: Answer::Unset,
            versioning: Answer::Unset,
            lifecycle: Answer::Unset,
            cors: Answer::Unset,
            lock: Answer::Unset,
            exposure: Exposure::UNKNOWN,
        }
    }
}
