//! What `rg.toml` says about health checks: `[[check]]`, `[alerts]`, `[[maintenance]]`.
//!
//! A check of the configuration is of the same kinds as those that are derived from the rest of
//! the file. A key that its kind does not know is an error: an assertion that is never looked at
//! would pass for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;

use super::{Environment, HealthConfig, Value, nearest};
use crate::failure::{Failure, OrFail, Result};
use crate::names::is_word;
use crate::schedule::Schedule;

/// A check that is written in `rg.toml`.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// Its name: the last word of its id.
    pub name: String,
    /// The environment it belongs to; none for the whole machine.
    pub environment: Option<String>,
    /// What it looks at, in a few words; its name otherwise.
    pub about: String,
    /// Ids of checks whose failure is the cause of this one's.
    pub needs: Vec<String>,
    /// When it is told of, where that differs from its kind's default.
    pub patience: Option<Patience>,
    /// What is looked at.
    pub kind: CheckKind,
}

/// How often a check must fail before somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// So many times in a row.
    InARow(u32),
    /// So many of the last so many: `MOfN { m: 3, n: 5 }`. `n` is 64 at most.
    MOfN {
        /// Failures
        m: u32,
        /// of runs.
        n: u32,
    },
}

/// What a check of `rg.toml` looks at.
#[derive(Debug, Clone)]
pub enum CheckKind {
    /// An address that must answer.
    Http(Box<HttpCheck>),
    /// A port that must take connections.
    Tcp {
        /// `host:port`
        address: String,
    },
    /// A name that must resolve.
    Dns {
        /// The name.
        host: String,
        /// Addresses of which each must be among the answers; empty: any will do.
        expect: Vec<std::net::IpAddr>,
    },
    /// A certificate that must be valid for long enough.
    Tls {
        /// `host:port`
        address: String,
        /// The name that it must be for; the host of the address otherwise.
        server_name: Option<String>,
        /// The certificate on disk that must be the one that is served.
        certificate: Option<PathBuf>,
    },
    /// A question to the environment's database.
    Sql {
        /// A SELECT of one row and one column.
        query: String,
        /// What the answer must be.
        expect: SqlExpectation,
    },
    /// A systemd unit that must be up.
    Unit {
        /// Its name.
        unit: String,
    },
    /// A container that must be up and healthy.
    Container {
        /// Its name.
        container: String,
    },
    /// A file system that must have room.
    Disk {
        /// Any path in it.
        path: PathBuf,
    },
    /// A log in which errors must be few.
    Log {
        /// Where it is.
        log: LogPlace,
        /// More ERROR lines a minute than this are a failure.
        errors_per_minute_max: f64,
    },
}

/// An HTTP check with its assertions: one request, all assertions.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    /// The address; `$NAME` is looked up in the environment's env file.
    pub url: Value,
    /// The status it must answer with.
    pub status: u16,
    /// Headers that its answer must have, with a part of their value.
    pub headers: Vec<(String, String)>,
    /// RFC 9535 paths into its JSON answer and the value of each.
    pub json: Vec<(String, serde_json::Value)>,
    /// A text that must be in its answer.
    pub contains: Option<String>,
    /// The most that it may take, from the name look-up to the answer's last byte.
    pub max_ms: Option<u64>,
    /// The address to connect to instead of what the name resolves to; Host and SNI stay.
    pub connect_to: Option<std::net::SocketAddr>,
}

/// What the answer to a question in SQL must be.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlExpectation {
    /// A number, at least this.
    AtLeast(f64),
    /// A number, at most this.
    AtMost(f64),
    /// A time, not longer ago than this.
    NewerThan(Duration),
    /// This text, exactly.
    Equals(String),
}

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogPlace {
    /// The journal of a unit.
    Unit(String),
    /// A file of JSON lines.
    File(PathBuf),
}

/// When somebody is told, and how often.
#[derive(Debug, Clone)]
pub struct AlertsConfig {
    /// How often a check that may blip must fail before somebody is told.
    pub after: Patience,
    /// How many good runs in a row end an incident.
    pub recover_after: u32,
    /// How long after an alert it is said again.
    pub remind: Duration,
    /// For how long the history is kept.
    pub history: Duration,
}

/// A time in which nobody is told of failures: alerts wait for its end.
#[derive(Debug, Clone)]
pub struct Maintenance {
    /// Its name.
    pub name: String,
    /// Only of this environment.
    pub environment: Option<String>,
    /// When it begins.
    pub begins: Schedule,
    /// How long it lasts.
    pub lasts: Duration,
    /// The time zone of `begins`.
    pub zone: TimeZone,
}

/// The longest that a maintenance window lasts: what is longer is not maintenance.
const MAINTENANCE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The default patience of what may blip: an answer over the network.
const AFTER: Patience = Patience::InARow(2);
/// Two good runs in a row are a recovery: one may be luck.
const RECOVER_AFTER: u32 = 2;
const REMIND: Duration = Duration::from_secs(4 * 3600);
const HISTORY: Duration = Duration::from_secs(90 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckRaw {
    name: String,
    kind: Kind,
    environment: Option<String>,
    about: Option<String>,
    #[serde(default)]
    needs: Vec<String>,
    after: Option<u32>,
    of: Option<u32>,
    url: Option<String>,
    status: Option<u16>,
    headers: Option<super::Ordered<String>>,
    json: Option<super::Ordered<serde_json::Value>>,
    contains: Option<String>,
    max_ms: Option<u64>,
    connect_to: Option<std::net::SocketAddr>,
    address: Option<String>,
    host: Option<String>,
    expect: Option<Vec<std::net::IpAddr>>,
    server_name: Option<String>,
    certificate: Option<PathBuf>,
    query: Option<String>,
    at_least: Option<f64>,
    at_most: Option<f64>,
    newer_than: Option<String>,
    equals: Option<String>,
    unit: Option<String>,
    container: Option<String>,
    path: Option<PathBuf>,
    file: Option<PathBuf>,
    errors_per_minute_max: Option<f64>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Http,
    Tcp,
    Dns,
    Tls,
    Sql,
    Unit,
    Container,
    Disk,
    Log,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Http => "http",
            Kind::Tcp => "tcp",
            Kind::Dns => "dns",
            Kind::Tls => "tls",
            Kind::Sql => "sql",
            Kind::Unit => "unit",
            Kind::Container => "container",
            Kind::Disk => "disk",
            Kind::Log => "log",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Http => &[
                "url",
                "status",
                "headers",
                "json",
                "contains",
                "max_ms",
                "connect_to",
            ],
            Kind::Tcp => &["address"],
            Kind::Dns => &["host", "expect"],
            Kind::Tls => &["address", "server_name", "certificate"],
            Kind::Sql => &["query", "at_least", "at_most", "newer_than", "equals"],
            Kind::Unit => &["unit"],
            Kind::Container => &["container"],
            Kind::Disk => &["path"],
            Kind::Log => &["unit", "file", "errors_per_minute_max"],
        }
    }
}

impl CheckRaw {
    /// The keys that only some kinds know, as far as they are set.
    fn set(&self) -> Vec<&'static str> {
        let all = [
            ("url", self.url.is_some()),
            ("status", self.status.is_some()),
            ("headers", self.headers.is_some()),
            ("json", self.json.is_some()),
            ("contains", self.contains.is_some()),
            ("max_ms", self.max_ms.is_some()),
            ("connect_to", self.connect_to.is_some()),
            ("address", self.address.is_some()),
            ("host", self.host.is_some()),
            ("expect", self.expect.is_some()),
            ("server_name", self.server_name.is_some()),
            ("certificate", self.certificate.is_some()),
            ("query", self.query.is_some()),
            ("at_least", self.at_least.is_some()),
            ("at_most", self.at_most.is_some()),
            ("newer_than", self.newer_than.is_some()),
            ("equals", self.equals.is_some()),
            ("unit", self.unit.is_some()),
            ("container", self.container.is_some()),
            ("path", self.path.is_some()),
            ("file", self.file.is_some()),
            (
                "errors_per_minute_max",
                self.errors_per_minute_max.is_some(),
            ),
        ];
        all.into_iter()
            .filter_map(|(key, set)| set.then_some(key))
            .collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct AlertsRaw {
    after: Option<u32>,
    of: Option<u32>,
    recover_after: Option<u32>,
    remind: Option<String>,
    history_days: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintenanceRaw {
    name: String,
    environment: Option<String>,
    schedule: String,
    #[serde(rename = "for")]
    lasts: String,
    zone: Option<String>,
}

/// Validates the checks; names of environments and of checks must be known.
pub(super) fn checks(
    raws: Vec<CheckRaw>,
    base: &Path,
    environments: &[Environment],
) -> Result<Vec<CheckConfig>> {
    let mut checks: Vec<CheckConfig> = Vec::new();
    for raw in raws {
        let name = raw.name.clone();
        let at = |failure: Failure| failure.context(format!("check `{name}`"));
        if !is_word(&name) {
            return Err(at(Failure::new("its name is not a word")
                .hint("names are letters, digits, `.`, `_` and `-`")));
        }
        let environment = raw.environment.clone();
        if let Some(word) = &environment {
            known_environment(word, environments).map_err(at)?;
        }
        let check = check(raw, base).map_err(at)?;
        if checks
            .iter()
            .any(|other| other.name == name && other.environment == environment)
        {
            return Err(Failure::new(format!("check `{name}` is there twice")));
        }
        checks.push(check);
    }
    Ok(checks)
}

fn known_environment(word: &str, environments: &[Environment]) -> Result<()> {
    let names = || environments.iter().map(|e| e.name.as_str());
    if names().any(|name| name == word) {
        return Ok(());
    }
    let failure = Failure::new(format!("no environment `{word}` is configured"));
    Err(match nearest(word, names()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    })
}

fn check(raw: CheckRaw, base: &Path) -> Result<CheckConfig> {
    let kind = raw.kind;
    if let Some(strange) = raw.set().into_iter().find(|key| !kind.keys().contains(key)) {
        return Err(
            Failure::new(format!("kind `{}` has no key `{strange}`", kind.word()))
                .hint(format!("it has: {}", kind.keys().join(", "))),
        );
    }
    let needs = |key: &str| {
        let what = format!("kind `{}` needs `{key}`", kind.word());
        move || Failure::new(what)
    };
    let check = match kind {
        Kind::Http => {
            let url = raw.url.as_deref().ok_or_else(needs("url"))?;
            CheckKind::Http(Box::new(HttpCheck {
                url: Value::parse(url)?,
                status: raw.status.unwrap_or(200),
                headers: raw.headers.map(|h| h.0).unwrap_or_default(),
                json: raw.json.map(|j| j.0).unwrap_or_default(),
                contains: raw.contains,
                max_ms: raw.max_ms,
                connect_to: raw.connect_to,
            }))
        }
        Kind::Tcp => CheckKind::Tcp {
            address: host_and_port(raw.address.ok_or_else(needs("address"))?)?,
        },
        Kind::Dns => CheckKind::Dns {
            host: raw.host.ok_or_else(needs("host"))?,
            expect: raw.expect.unwrap_or_default(),
        },
        Kind::Tls => CheckKind::Tls {
            address: host_and_port(raw.address.ok_or_else(needs("address"))?)?,
            server_name: raw.server_name,
            certificate: raw.certificate.map(|path| base.join(path)),
        },
        Kind::Sql => {
            if raw.environment.is_none() {
                return Err(Failure::new("kind `sql` needs `environment`")
                    .hint("it asks that environment's database"));
            }
            let age = raw.newer_than.as_deref().map(duration).transpose()?;
            let mut expectations = [
                raw.at_least.map(SqlExpectation::AtLeast),
                raw.at_most.map(SqlExpectation::AtMost),
                age.map(SqlExpectation::NewerThan),
                raw.equals.map(SqlExpectation::Equals),
            ]
            .into_iter()
            .flatten();
            let (Some(expect), None) = (expectations.next(), expectations.next()) else {
                return Err(Failure::new(
                    "kind `sql` needs exactly one of `at_least`, `at_most`, `newer_than`, `equals`",
                ));
            };
            CheckKind::Sql {
                query: raw.query.ok_or_else(needs("query"))?,
                expect,
            }
        }
        Kind::Unit => CheckKind::Unit {
            unit: raw.unit.ok_or_else(needs("unit"))?,
        },
        Kind::Container => CheckKind::Container {
            container: raw.container.ok_or_else(needs("container"))?,
        },
        Kind::Disk => CheckKind::Disk {
            path: base.join(raw.path.ok_or_else(needs("path"))?),
        },
        Kind::Log => CheckKind::Log {
            log: log_place(raw.unit, raw.file, base)?,
            errors_per_minute_max: raw
                .errors_per_minute_max
                .ok_or_else(needs("errors_per_minute_max"))?,
        },
    };
    Ok(CheckConfig {
        about: raw.about.unwrap_or_else(|| raw.name.clone()),
        name: raw.name,
        environment: raw.environment,
        needs: raw.needs,
        patience: patience(raw.after, raw.of)?,
        kind: check,
    })
}

fn host_and_port(text: String) -> Result<String> {
    let port = text.rsplit_once(':').and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        (!host.is_empty() && port > 0).then_some(port)
    });
    match port {
        Some(_) => Ok(text),
        None => Err(Failure::new(format!("`{text}` is not host:port"))),
    }
}

/// `{ unit = "…" }` or `{ file = "…" }`.
pub(super) fn log_place(
    unit: Option<String>,
    file: Option<PathBuf>,
    base: &Path,
) -> Result<LogPlace> {
    match (unit, file) {
        (Some(unit), None) => Ok(LogPlace::Unit(unit)),
        (None, Some(file)) => Ok(LogPlace::File(base.join(file))),
        _ => Err(Failure::new("a log needs either `unit` or `file`")),
    }
}

fn patience(after: Option<u32>, of: Option<u32>) -> Result<Option<Patience>> {
    match (after, of) {
        (None, None) => Ok(None),
        (Some(0), _) => Err(Failure::new("`after` is 0").hint("1 tells at the first failure")),
        (Some(after), None) => Ok(Some(Patience::InARow(after))),
        (Some(m), Some(n)) if m <= n && n <= 64 => Ok(Some(Patience::MOfN { m, n })),
        _ => Err(Failure::new(
            "`of` needs `after`, which is not greater, and is 64 at most",
        )),
    }
}

/// Validates `[alerts]`.
pub(super) fn alerts(raw: AlertsRaw) -> Result<AlertsConfig> {
    let remind = raw.remind.as_deref().map(duration).transpose()?;
    if raw.recover_after == Some(0) || raw.history_days == Some(0) {
        return Err(Failure::new("[alerts] has a number that must not be 0"));
    }
    Ok(AlertsConfig {
        after: patience(raw.after, raw.of)?.unwrap_or(AFTER),
        recover_after: raw.recover_after.unwrap_or(RECOVER_AFTER),
        remind: remind.unwrap_or(REMIND),
        history: raw.history_days.map_or(HISTORY, |days| {
            Duration::from_secs(u64::from(days) * 86_400)
        }),
    })
}

/// Validates the maintenance windows.
pub(super) fn maintenance(
    raws: Vec<MaintenanceRaw>,
    environments: &[Environment],
) -> Result<Vec<Maintenance>> {
    let one = |raw: MaintenanceRaw| {
        let at = |failure: Failure| failure.context(format!("maintenance `{}`", raw.name));
        if let Some(word) = &raw.environment {
            known_environment(word, environments).map_err(at)?;
        }
        let lasts = duration(&raw.lasts).map_err(at)?;
        if lasts > MAINTENANCE_MAX {
            return Err(at(Failure::new("it lasts longer than a day").hint(
                "what is down for longer belongs out of rg.toml, or under `silence`",
            )));
        }
        let zone = match &raw.zone {
            Some(name) => TimeZone::get(name)
                .or_fail(|| format!("`{name}` is not a time zone"))
                .map_err(at)?,
            None => TimeZone::system(),
        };
        Ok(Maintenance {
            begins: Schedule::parse(&raw.schedule).map_err(at)?,
            name: raw.name,
            environment: raw.environment,
            lasts,
            zone,
        })
    };
    raws.into_iter().map(one).collect()
}

/// `90s`, `10m`, `4h`, `2d`, `1h30m`: at least a second, at most ten years.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Failure::new(format!("`{text}` is not a span of time"))
            .hint("write it as 90s, 10m, 4h, 2d or 1h30m")
    };
    let (mut rest, mut seconds) = (text, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut after = rest[digits..].chars();
        let unit = match after.next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        rest = after.as_str();
        let more = number.checked_mul(unit).ok_or_else(wrong)?;
        seconds = seconds.checked_add(more).ok_or_else(wrong)?;
    }
    if seconds == 0 || seconds > 10 * 366 * 86_400 {
        return Err(wrong());
    }
    Ok(Duration::from_secs(seconds))
}

impl HealthConfig {
    /// The same as a check's assertions.
    pub fn as_check(&self) -> Result<HttpCheck> {
        Ok(HttpCheck {
            url: Value::parse(&self.url.replace('$', "$$"))?,
            status: self.status,
            headers: Vec::new(),
            json: self.json.clone(),
            contains: None,
            max_ms: self.max_ms,
            connect_to: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw;
    use super::*;

    const BASE: &str = "[stores.local]\nurl = \"file:///b\"\n[environments.production]\n";

    fn parsed(text: &str) -> Result<super::super::Config, String> {
        raw::parse(&format!("{BASE}{text}"), Path::new("/etc/rg"), "vps")
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_assertion_that_its_kind_never_looks_at_is_refused() {
        for (check, why) in [
            (
                "kind = \"tcp\"\naddress = \"h:1\"\nstatus = 200",
                "check `x`: kind `tcp` has no key `status`",
            ),
            ("kind = \"http\"", "check `x`: kind `http` needs `url`"),
            (
                "kind = \"tcp\"\naddress = \"h\"",
                "check `x`: `h` is not host:port",
            ),
            (
                "kind = \"sql\"\nquery = \"select 1\"\nat_least = 1",
                "check `x`: kind `sql` needs `environment`",
            ),
            (
                "kind = \"sql\"\nenvironment = \"production\"\nquery = \"select 1\"",
                "check `x`: kind `sql` needs exactly one of `at_least`, `at_most`, `newer_than`, `equals`",
            ),
            (
                "kind = \"unit\"\nunit = \"u\"\nenvironment = \"prod\"",
                "check `x`: no environment `prod` is configured",
            ),
            (
                "kind = \"unit\"\nunit = \"u\"\nafter = 3\nof = 2",
                "check `x`: `of` needs `after`, which is not greater, and is 64 at most",
            ),
        ] {
            let text = format!("[[check]]\nname = \"x\"\n{check}\n");
            assert_eq!(parsed(&text).unwrap_err(), why, "{check}");
        }
    }

    #[test]
    fn checks_windows_and_alerts_are_read() {
        let config = parsed(
            "[alerts]\nafter = 3\nof = 5\nremind = \"1h30m\"\n\
             [[maintenance]]\nname = \"updates\"\nschedule = \"0 3 * * 0\"\nfor = \"1h\"\n\
             [[check]]\nname = \"fresh\"\nkind = \"sql\"\nenvironment = \"production\"\n\
             query = \"select max(at) from runs\"\nnewer_than = \"2d\"\n",
        )
        .unwrap();
        assert_eq!(config.alerts.after, Patience::MOfN { m: 3, n: 5 });
        assert_eq!(config.alerts.remind, Duration::from_secs(5400));
        assert_eq!(config.maintenance[0].lasts, Duration::from_secs(3600));
        let CheckKind::Sql { expect, .. } = &config.checks[0].kind else {
            panic!("{:?}", config.checks)
        };
        assert_eq!(
            *expect,
            SqlExpectation::NewerThan(Duration::from_secs(172_800))
        );
    }

    #[test]
    fn spans_of_time_are_exact_or_refused() {
        assert_eq!(duration("90s").unwrap().as_secs(), 90);
        assert_eq!(duration("1h30m").unwrap().as_secs(), 5400);
        for wrong in [
            "",
            "0s",
            "10",
            "1w",
            "h",
            "-1h",
            "99999999999999999999s",
            "9999d9999d",
        ] {
            assert_eq!(
                duration(wrong).unwrap_err().to_string(),
                format!("`{wrong}` is not a span of time")
            );
        }
    }
}
