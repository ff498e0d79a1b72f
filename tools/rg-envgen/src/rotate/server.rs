//! The server's side of a rotation.
//!
//! The server is given a SCRAM verifier made here, so that no password reaches its log. What it
//! kept of the old one is read first and put back as it was, where that may be read.

use std::time::{Duration, Instant};

use postgres_protocol::password::scram_sha_256;
use rg_common::postgres::create::{identifier, literal};
use rg_common::postgres::{DatabaseUrl, Session};
use rg_common::{Failure, Result};

use super::Work;
use super::journal::Login;
use crate::place;

/// What sessions of this tool are called in `pg_stat_activity`.
pub(super) const APPLICATION: &str = "rg-envgen";
/// A session of a run that was killed ends within this time, with its statement.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// The wait between two looks at it. Not cut short by a signal: this is cleaning up.
const SETTLE_LOOK: Duration = Duration::from_millis(100);

impl Work<'_> {
    /// Makes the verifiers, and sees that the old password logs in.
    pub(super) fn prepare(&self, login: &mut Login) -> Result<()> {
        let old = DatabaseUrl::parse(&login.old)?;
        let new = DatabaseUrl::parse(&login.new)?;
        let password = |url: &DatabaseUrl| {
            let secret = url
                .password
                .as_ref()
                .map(|secret| secret.reveal().to_owned());
            secret.ok_or_else(|| Failure::new(format!("{url} has no password")))
        };
        login.new_verifier = scram_sha_256(password(&new)?.as_bytes());
        let session = self.connector.open(&old).map_err(|failure| {
            failure
                .context(format!(
                    "the password that is in the file does not log in as {}",
                    login.role
                ))
                .hint("nothing was changed; rg-envgen check finds where the file went wrong")
        })?;
        let kept = self.kept(&session, &login.role)?;
        login.old_verifier = match kept {
            Some(kept) => kept,
            None => scram_sha_256(password(&old)?.as_bytes()),
        };
        session.close();
        Ok(())
    }

    /// What the server keeps of a role's password; only superusers may see it.
    fn kept(&self, own: &Session, role: &str) -> Result<Option<String>> {
        let sql = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1";
        if let Some(admin) = self.admin(own.url())? {
            let kept = admin.value::<Option<String>>(sql, &[&role])?;
            admin.close();
            return Ok(kept);
        }
        let may = own.value::<bool>(
            "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')",
            &[],
        )?;
        match may {
            true => own.value::<Option<String>>(sql, &[&role]),
            false => Ok(None),
        }
    }

    /// Gives the role its new password.
    pub(super) fn set(&self, login: &Login) -> Result<()> {
        let old = DatabaseUrl::parse(&login.old)?;
        let session = match self.admin(&old)? {
            Some(admin) => admin,
            None => self.connector.open(&old)?,
        };
        alter(&session, &login.role, &login.new_verifier)?;
        session.close();
        Ok(())
    }

    /// A new login with the new password.
    pub(super) fn prove(&self, login: &Login) -> Result<()> {
        let new = DatabaseUrl::parse(&login.new)?;
        let session = self
            .connector
            .open(&new)
            .map_err(|failure| failure.context("the new password does not log in"))?;
        session.close();
        Ok(())
    }

    /// The old password again, if it is another now; proven by a login.
    pub(super) fn restore(&self, login: &Login) -> Result<()> {
        let old = DatabaseUrl::parse(&login.old)?;
        let new = DatabaseUrl::parse(&login.new)?;
        let session = self.either(&old, &new)?;
        settle(&session, &login.role)?;
        session.close();
        let first = match self.connector.open(&old) {
            // A server that asks for no password takes the old one too: what it keeps tells.
            Ok(session) => {
                if self
                    .kept(&session, &login.role)?
                    .is_some_and(|kept| kept != login.old_verifier)
                {
                    alter(&session, &login.role, &login.old_verifier)?;
                }
                session.close();
                return Ok(());
            }
            Err(failure) => failure,
        };
        let session = match self.admin(&old)? {
            Some(admin) => admin,
            // Neither logs in: the first failure says why.
            None => self.connector.open(&new).map_err(|_| first)?,
        };
        alter(&session, &login.role, &login.old_verifier)?;
        session.close();
        self.connector.open(&old)?.close();
        Ok(())
    }

    /// A session by the administrator, or by whichever password is the one. Between the two looks a
    /// statement of a run that was killed may change it, so both are tried again.
    fn either(&self, old: &DatabaseUrl, new: &DatabaseUrl) -> Result<Session> {
        if let Some(admin) = self.admin(old)? {
            return Ok(admin);
        }
        let began = Instant::now();
        loop {
            let first = match self.connector.open(old) {
                Ok(session) => return Ok(session),
                Err(failure) => failure,
            };
            if let Ok(session) = self.connector.open(new) {
                return Ok(session);
            }
            if began.elapsed() >= SETTLE_LIMIT {
                return Err(first);
            }
            std::thread::sleep(SETTLE_LOOK);
        }
    }

    /// The role that `--admin` names, on the same server.
    fn admin(&self, own: &DatabaseUrl) -> Result<Option<Session>> {
        let Some(path) = &self.args.admin else {
            return Ok(None);
        };
        let text = place::read(path)?;
        // Keys of a storage server's administrator are for access keys.
        if text.lines().any(|line| line.contains("AWS_ACCESS_KEY_ID")) {
            return Ok(None);
        }
        let url = DatabaseUrl::parse(text.lines().next().unwrap_or_default().trim())
            .map_err(|failure| failure.context(format!("cannot read {}", path.display())))?;
        if url.server() != own.server() {
            return Err(Failure::new(format!(
                "{} names the server {}, and the app's is {}",
                path.display(),
                url.server(),
                own.server()
            )));
        }
        self.connector.open(&url).map(Some)
    }
}

/// Waits until no session of an earlier run is left: the server finishes a statement although whoever
/// asked for it was killed, and a new password that comes after the look would lock the app out.
fn settle(session: &Session, role: &str) -> Result<()> {
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
               WHERE application_name = $1 AND pid <> pg_catalog.pg_backend_pid()
                 AND (usename = $2 OR usename = current_user)";
    let began = Instant::now();
    while session.value::<i64>(sql, &[&APPLICATION, &role])? > 0 {
        if began.elapsed() >= SETTLE_LIMIT {
            return Err(Failure::new(format!(
                "another session of {APPLICATION} with the role {role} does not end"
            ))
            .hint("wait for it, or end it with pg_terminate_backend"));
        }
        std::thread::sleep(SETTLE_LOOK);
    }
    Ok(())
}

fn alter(session: &Session, role: &str, verifier: &str) -> Result<()> {
    let sql = format!(
        "ALTER ROLE {} PASSWORD {}",
        identifier(role),
        literal(verifier)
    );
    session.execute(&sql).map_err(|failure| {
        // The statement may be quoted in it.
        let said = failure.to_string().replace(verifier, "***");
        let failure = Failure::new(format!("cannot set the password of the role {role}: {said}"));
        failure.hint("a role may change its own password unless a superuser forbade it; --admin FILE names one that may")
    })
}
