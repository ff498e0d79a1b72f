//! Connections to a server, and questions to it.
//!
//! The promise: a [`Session`] talks to the server itself (a pooler is found out and refused),
//! nothing waits without a limit, and what goes wrong is said with its remedy. Synchronous outside:
//! every call blocks its thread, so it must not be made from within the runtime.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Config, Connection, Error, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::url::{DatabaseUrl, Host, TlsMode};
use super::{pooler, tls, trouble};
use crate::failure::{Failure, OrFail, Result};

/// The longest wait for the answer to a question.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// The longest wait for the server to take a request to cancel a question.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);
/// A connection without any traffic is probed after this long, so that a vanished server is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);

/// A parameter of a question.
pub type Param<'a> = &'a (dyn ToSql + Sync);
/// The two halves of a connection: questions, and what must be polled for answers to come.
pub(super) type Wire = (
    Client,
    Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>,
);

/// Opens sessions: knows the runtime that the network runs on, and which tool is asking.
#[derive(Clone, Debug)]
pub struct Connector {
    handle: Handle,
    application: String,
}

impl Connector {
    /// `application` is what `pg_stat_activity` shows, such as `rg-backup`.
    pub fn new(handle: Handle, application: impl Into<String>) -> Connector {
        Connector {
            handle,
            application: application.into(),
        }
    }

    /// Connects, and makes sure that it is the server and no pooler that answers.
    pub fn open(&self, url: &DatabaseUrl) -> Result<Session> {
        if let Some(failure) = pooler::by_name(url) {
            return Err(failure);
        }
        let nonce = nonce()?;
        let (client, driver) = self.handle.block_on(async {
            let (client, connection) = dial(url, &self.application, Some(&nonce)).await?;
            Ok::<_, Failure>((client, tokio::spawn(connection)))
        })?;
        let mut session = Session {
            connector: self.clone(),
            url: url.clone(),
            client,
            driver,
            version: ServerVersion(0),
        };
        let row = session.row(
            "SELECT pg_catalog.current_setting($1, true),
                    pg_catalog.current_setting('server_version_num')",
            &[&pooler::NONCE_SETTING],
        )?;
        if row.get::<_, Option<String>>(0).as_deref() != Some(nonce.as_str()) {
            return Err(pooler::by_behaviour(
                url,
                "a start-up option did not reach the server",
            ));
        }
        let number: String = row.get(1);
        session.version = ServerVersion(
            number
                .parse()
                .or_fail(|| format!("{url} says that its version is `{number}`"))?,
        );
        session.execute(&own_settings(session.version))?;
        Ok(session)
    }

    /// The runtime that the network runs on.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What `pg_stat_activity` shows.
    pub fn application(&self) -> &str {
        &self.application
    }
}

/// A server's version as it numbers itself: 170002 is 17.2.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ServerVersion(pub u32);

impl ServerVersion {
    /// 17 for 17.2.
    pub fn major(self) -> u32 {
        self.0 / 10_000
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 10_000, self.0 % 10_000)
    }
}

/// One connection to one database. Its `search_path` is empty: name tables with their schema.
pub struct Session {
    connector: Connector,
    url: DatabaseUrl,
    client: Client,
    driver: JoinHandle<Result<(), Error>>,
    version: ServerVersion,
}

impl Session {
    /// Where it is connected to.
    pub fn url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// The server's version.
    pub fn version(&self) -> ServerVersion {
        self.version
    }

    /// What opened it, for further sessions.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A session with another database of the same server and role.
    pub fn beside(&self, database: &str) -> Result<Session> {
        self.connector.open(&self.url.with_database(database))
    }

    /// All rows of an answer. For facts, not for data: they are held in memory.
    pub fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>> {
        self.wait(ANSWER_LIMIT, sql, self.client.query(sql, params))
    }

    /// The one row of an answer.
    pub fn row(&self, sql: &str, params: &[Param<'_>]) -> Result<Row> {
        self.wait(ANSWER_LIMIT, sql, self.client.query_one(sql, params))
    }

    /// The one value of an answer.
    pub fn value<T: FromSqlOwned>(&self, sql: &str, params: &[Param<'_>]) -> Result<T> {
        self.row(sql, params)?
            .try_get(0)
            .map_err(|error| trouble::asking(&self.url, sql, error))
    }

    /// Runs statements without an answer; several, divided by `;`, are one transaction.
    pub fn execute(&self, sql: &str) -> Result<()> {
        self.execute_within(ANSWER_LIMIT, sql)
    }

    /// As [`Session::execute`], for what may take longer.
    pub fn execute_within(&self, limit: Duration, sql: &str) -> Result<()> {
        self.wait(limit, sql, self.client.batch_execute(sql))
    }

    /// As [`Session::execute_within`], with the server's own error for callers that branch on it.
    pub(super) fn attempt(&self, limit: Duration, sql: &str) -> Result<Result<(), Error>> {
        self.within(limit, sql, self.client.batch_execute(sql))
    }

    /// For questions that run side by side on the runtime.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Ends it and waits until the server has closed its side, so that the database has one
    /// session less.
    pub fn close(self) {
        let Session {
            connector,
            client,
            driver,
            ..
        } = self;
        drop(client);
        connector.handle.block_on(async {
            // Without an answer it ends with the process.
            drop(tokio::time::timeout(CANCEL_LIMIT, driver).await);
        });
    }

    fn wait<T>(
        &self,
        limit: Duration,
        sql: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T> {
        self.within(limit, sql, answer)?
            .map_err(|error| trouble::asking(&self.url, sql, error))
    }

    /// Waits for an answer; the server's own error is a value, its silence a failure.
    pub(super) fn within<T>(
        &self,
        limit: Duration,
        sql: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>> {
        let tls = tls::connector(&self.url)?;
        self.connector.handle.block_on(async {
            if let Ok(answer) = tokio::time::timeout(limit, answer).await {
                return Ok(answer);
            }
            let cancel = self.client.cancel_token();
            // The server may be gone; then there is nothing to cancel.
            drop(tokio::time::timeout(CANCEL_LIMIT, cancel.cancel_query(tls)).await);
            Err(trouble::too_late(&self.url, sql, limit))
        })
    }
}

/// One connection, by libpq's order of attempts for the URL's `sslmode`.
pub(super) async fn dial(
    url: &DatabaseUrl,
    application: &str,
    nonce: Option<&str>,
) -> Result<Wire> {
    let (first, second) = match (&url.host, url.tls) {
        (Host::Socket(_), _) | (_, TlsMode::Disable) => (SslMode::Disable, None),
        (_, TlsMode::Allow) => (SslMode::Disable, Some(SslMode::Require)),
        (_, TlsMode::Prefer) => (SslMode::Prefer, Some(SslMode::Disable)),
        _ => (SslMode::Require, None),
    };
    let tls = tls::connector(url)?;
    let attempt = async |mode| {
        let config = config(url, application, nonce, mode);
        let connecting = config.connect(tls.clone());
        tokio::time::timeout(url.connect_timeout, connecting)
            .await
            .map_err(|_| trouble::no_connection(url))
    };
    let error = match attempt(first).await? {
        Ok(wire) => return Ok(wire),
        Err(error) => error,
    };
    if let Some(mode) = second
        && trouble::other_encryption_may_help(&error)
        && let Ok(wire) = attempt(mode).await?
    {
        return Ok(wire);
    }
    Err(trouble::connecting(url, error))
}

fn config(url: &DatabaseUrl, application: &str, nonce: Option<&str>, mode: SslMode) -> Config {
    let mut config = Config::new();
    match &url.host {
        Host::Tcp(host) => config.host(host),
        Host::Socket(directory) => config.host_path(directory),
    };
    config
        .port(url.port)
        .user(&url.user)
        .dbname(&url.database)
        .application_name(application)
        .keepalives_idle(KEEPALIVE_IDLE)
        .ssl_mode(mode);
    if let Some(password) = &url.password {
        config.password(password.reveal());
    }
    let mut options = url.options.clone().unwrap_or_default();
    // A role's or database's own limit would end even the first question.
    options.push_str(" -c statement_timeout=0");
    if let Some(nonce) = nonce {
        options.push_str(&format!(" -c {}={nonce}", pooler::NONCE_SETTING));
    }
    config.options(options.trim_start());
    config
}

/// What a role's or a database's own settings must not change for us: limits that would end long
/// work, and where names are looked up. With an empty path only PostgreSQL's own functions and
/// operators are found without a schema, so that nobody's of the same name run with our rights.
pub(super) fn own_settings(version: ServerVersion) -> String {
    let mut sql = "SET search_path = ''; SET statement_timeout = 0; SET lock_timeout = 0; \
        SET idle_in_transaction_session_timeout = 0"
        .to_owned();
    for (name, since) in [("idle_session_timeout", 14), ("transaction_timeout", 17)] {
        if version.major() >= since {
            sql.push_str(&format!("; SET {name} = 0"));
        }
    }
    sql
}

fn nonce() -> Result<String> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).or_fail(|| "cannot get random bytes from the system".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
