//! What is wanted of a bucket, as `rg.toml` declares it. Plain values, no server.

use std::fmt;

use rg_common::config::{self, BucketConfig, BucketStore, LockMode};
use rg_common::{Failure, Result};
use serde::Serialize;

/// Everything that `plan` compares. What is `None` is not declared, and is left as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bucket's name at the service.
    pub bucket: String,
    /// Who may read without a key.
    pub access: Option<Access>,
    /// Whether old versions are kept.
    pub versioning: Option<bool>,
    /// The rules that are ours; each has an id of its own.
    pub rules: Vec<Rule>,
    /// Which web pages may read the bucket from a browser, in order.
    pub cors: Option<Vec<Cors>>,
    /// Whether objects can be locked; only for a bucket that was created with it.
    pub lockable: bool,
    /// The lock that new objects get without asking.
    pub lock: Option<Lock>,
}

impl Wanted {
    /// From `[environments.ENV.buckets.NAME]`; `bucket` is the name as looked up. The error names
    /// the setting that cannot be.
    pub fn of_bucket(config: &BucketConfig, bucket: &str) -> Result<Wanted> {
        let days = [
            ("expire_days", config.expire_days),
            ("noncurrent_days", config.noncurrent_days),
            ("abandoned_upload_days", config.abandoned_upload_days),
            ("lock.days", config.lock.map(|lock| lock.days)),
        ];
        if let Some((name, _)) = days.iter().find(|(_, days)| *days == Some(0)) {
            return Err(Failure::new(format!("{name} is 0")).hint("leave it out to have none"));
        }
        if config.lock.is_some() && config.versioning == Some(false) {
            return Err(
                Failure::new("versioning = false and a lock exclude each other")
                    .hint("a bucket with object lock keeps versions"),
            );
        }
        let rules = [
            config.expire_days.map(Rule::Expire),
            config.noncurrent_days.map(Rule::Noncurrent),
            config.abandoned_upload_days.map(Rule::Abandoned),
        ];
        let cors = |rule: &config::CorsRule| {
            Cors {
                origins: rule.origins.clone(),
                methods: rule.methods.clone(),
                headers: rule.headers.clone(),
                expose: rule.expose.clone(),
                max_age_seconds: rule.max_age_seconds,
            }
            .sorted()
        };
        Ok(Wanted {
            bucket: bucket.to_owned(),
            access: config.access.map(|access| match access {
                config::Access::Private => Access::Private,
                config::Access::PublicRead => Access::PublicRead,
            }),
            versioning: config.versioning,
            rules: rules.into_iter().flatten().collect(),
            cors: config
                .cors
                .as_ref()
                .map(|rules| rules.iter().map(cors).collect()),
            lockable: config.lock.is_some(),
            lock: config.lock.map(|lock| Lock {
                days: lock.days,
                compliance: lock.mode == LockMode::Compliance,
            }),
        })
    }

    /// From `[stores.NAME]`: backups are private, and lockable where `lock_days` is set. Nothing
    /// else of it is declared: retention is the business of `rg-backup`.
    pub fn of_store(store: &BucketStore) -> Wanted {
        Wanted {
            bucket: store.bucket.clone(),
            access: Some(Access::Private),
            versioning: None,
            rules: Vec::new(),
            cors: None,
            lockable: store.lock_days.is_some(),
            lock: None,
        }
    }
}

/// Who may read without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Nobody.
    Private,
    /// Anybody who knows an object's key can read it; nobody can list or write.
    PublicRead,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Private => "private",
            Access::PublicRead => "public-read",
        })
    }
}

/// A rule of the lifecycle for the whole bucket, in days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Objects are deleted so long after they were written.
    Expire(u32),
    /// Versions are deleted so long after another took their place.
    Noncurrent(u32),
    /// Uploads that were never completed are dropped so long after they began.
    Abandoned(u32),
}

/// What the ids of our rules begin with; rules of other ids are never touched.
pub const OUR_RULES: &str = "rg-";

impl Rule {
    /// The id by which the rule is known again.
    pub fn id(self) -> &'static str {
        match self {
            Rule::Expire(_) => "rg-expire",
            Rule::Noncurrent(_) => "rg-noncurrent",
            Rule::Abandoned(_) => "rg-abandoned-uploads",
        }
    }

    /// Days.
    pub fn days(self) -> u32 {
        match self {
            Rule::Expire(days) | Rule::Noncurrent(days) | Rule::Abandoned(days) => days,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Expire(days) => write!(f, "objects are deleted after {days} d"),
            Rule::Noncurrent(days) => write!(f, "old versions are deleted after {days} d"),
            Rule::Abandoned(days) => write!(f, "abandoned uploads are dropped after {days} d"),
        }
    }
}

/// One rule of cross-origin access; the words in each list are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Cors {
    /// `https://app.example.org`, or `*`.
    pub origins: Vec<String>,
    /// `GET`, `PUT`, `POST`, `DELETE`, `HEAD`.
    pub methods: Vec<String>,
    /// Request headers that are allowed.
    pub headers: Vec<String>,
    /// Response headers that a page may read.
    pub expose: Vec<String>,
    /// For how many seconds a browser may remember the answer.
    pub max_age_seconds: Option<u32>,
}

impl Cors {
    /// The same rule with its lists sorted and without repeats: how two are compared.
    #[must_use]
    pub fn sorted(mut self) -> Cors {
        for list in [
            &mut self.origins,
            &mut self.methods,
            &mut self.headers,
            &mut self.expose,
        ] {
            list.sort();
            list.dedup();
        }
        // Servers say 0 for "not said".
        self.max_age_seconds = self.max_age_seconds.filter(|seconds| *seconds > 0);
        self
    }
}

impl fmt::Display for Cors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} from {}",
            self.methods.join(", "),
            self.origins.join(", ")
        )?;
        if !self.headers.is_empty() {
            write!(f, " with {}", self.headers.join(", "))?;
        }
        if !self.expose.is_empty() {
            write!(f, ", showing {}", self.expose.join(", "))?;
        }
        match self.max_age_seconds {
            Some(seconds) => write!(f, ", remembered for {seconds} s"),
            None => Ok(()),
        }
    }
}

/// How long each new object is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// Days from the object's writing.
    pub days: u32,
    /// Compliance: not even the bucket's owner can lift it. Governance otherwise.
    pub compliance: bool,
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.compliance {
            "compliance"
        } else {
            "governance"
        };
        write!(f, "{} d, {mode}", self.days)
    }
}
