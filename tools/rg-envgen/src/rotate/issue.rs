//! Access keys that a service makes: asked for, and the old one deleted, by its IAM interface.
//!
//! The service names the new key, so a run that is killed between its answer and our journal knows
//! no name. What was there before stands in the journal: a key that was not, and that is as young
//! as the rotation, is the one.

use std::path::Path;
use std::time::{Duration, Instant};

use rg_common::s3::{Credentials, Iam, IamKey, Kind, S3Error};
use rg_common::{Failure, Result};

use super::Work;
use super::journal::{Journal, Step};
use super::keys::{self, KeyChange, Pair, Way};
use crate::{place, safe};

/// A key that was made this long after the service was asked what there is was made by somebody else.
const YOUNG_SECONDS: i64 = 120;
/// Clocks within one service may differ by this much.
const SKEW_SECONDS: i64 = 5;
/// A service may still make a key although whoever asked for it was killed; this is waited for it.
const LATE: Duration = Duration::from_secs(2);
/// The wait between two looks at it.
const LATE_LOOK: Duration = Duration::from_millis(250);

impl Work<'_> {
    /// The service's interface, with the administrator's keys or this pair.
    fn iam(&self, key: &KeyChange, own: &Pair) -> Result<Iam> {
        let Way::Issued { admin, .. } = &key.way else {
            return Err(Failure::new("this key is not made by its service"));
        };
        let credentials = match self.key_admin(admin.as_deref())? {
            Some(credentials) => credentials,
            None => own.credentials("the env file"),
        };
        Iam::new(
            &self.context.network,
            &key.config(credentials),
            self.context.clock(),
        )
    }

    /// The administrator's keys: `--admin` when it holds some, else what the journal or `rg.toml` names.
    fn key_admin(&self, named: Option<&Path>) -> Result<Option<Credentials>> {
        if let Some(path) = &self.args.admin {
            let text = place::read(path)?;
            if !text.trim_start().starts_with("postgres") {
                let origin = path.display().to_string();
                return Credentials::from_text(&text, &origin).map(Some);
            }
        }
        named.map(Credentials::from_file).transpose()
    }

    /// Finds out who may have keys made for whom, before anything is changed.
    pub(super) fn prepare_issue(&self, key: &mut KeyChange) -> Result<()> {
        let has_admin = match &key.way {
            Way::Issued { admin, .. } => self.key_admin(admin.as_deref())?.is_some(),
            _ => return Ok(()),
        };
        let iam = self.iam(key, &key.old)?;
        let found = if has_admin {
            let owner = iam.owner(&key.old.access);
            let owner = owner
                .map_err(|error| refusal(&iam, "cannot find the user of the access key", error))?;
            let owner = owner.ok_or_else(|| {
                let failure = Failure::new(format!("no user at {} has the access key that is in the file", iam.shown()));
                failure.hint("a root account's key, or one from the server's own configuration, is changed there by hand; --value-from FILE then gives the new pair to the app")
            })?;
            Some(owner)
        } else {
            iam.keys(None)
                .map_err(|error| refusal(&iam, "cannot list the app's access keys", error))?;
            None
        };
        if let Way::Issued { user, .. } = &mut key.way {
            *user = found;
        }
        Ok(())
    }

    /// Notes which keys there are, immediately before one is made.
    pub(super) fn survey(&self, key: &mut KeyChange) -> Result<()> {
        if !matches!(key.way, Way::Issued { .. }) {
            return Ok(());
        }
        let iam = self.iam(key, &key.old)?;
        if let Way::Issued {
            user,
            before,
            asked,
            ..
        } = &mut key.way
        {
            let there = iam.keys(user.as_deref());
            let there =
                there.map_err(|error| refusal(&iam, "cannot list the access keys", error))?;
            *asked = there.at;
            *before = there.keys.into_iter().map(|key| key.id).collect();
        }
        Ok(())
    }

    /// Has every key made that a service makes, and puts what it gave in the place of the marks.
    pub(super) fn issue(&self, journal: &mut Journal) -> Result<()> {
        for at in 0..journal.keys.len() {
            let key = &journal.keys[at];
            let Way::Issued { user, .. } = &key.way else {
                continue;
            };
            let iam = self.iam(key, &key.old)?;
            let made = iam.create(user.as_deref());
            let (access, secret) =
                made.map_err(|error| refusal(&iam, "cannot make an access key", error))?;
            let new = Pair {
                access,
                secret: secret.reveal().to_owned(),
            };
            let marks = std::mem::replace(&mut journal.keys[at].new, new.clone());
            for file in &mut journal.files {
                file.new = file.new.replace(&marks.access, &new.access);
                file.new = file.new.replace(&marks.secret, &new.secret);
            }
            if let Way::Issued { known, .. } = &mut journal.keys[at].way {
                *known = true;
            }
            journal.step = Step::Issued;
            journal.write(&self.state)?;
            safe::check("the new access key", &new.access)?;
            safe::check("the new secret key", &new.secret)?;
        }
        Ok(())
    }

    /// Deletes the key that was made, whether or not its name got into the journal.
    pub(super) fn revoke(&self, key: &KeyChange) -> Result<()> {
        let Way::Issued {
            user,
            before,
            asked,
            known,
            ..
        } = &key.way
        else {
            return Ok(());
        };
        let iam = self.iam(key, &key.old)?;
        let user = user.as_deref();
        let failed = |error| refusal(&iam, "cannot delete the new access key", error);
        if *known {
            return iam.delete(user, &key.new.access).map_err(failed);
        }
        let began = Instant::now();
        let ours: Vec<IamKey> = loop {
            let mut there = iam.keys(user).map_err(failed)?.keys;
            there.retain(|key| !before.contains(&key.id) && is_young(key, *asked));
            if !there.is_empty() || !self.recovering.get() || began.elapsed() >= LATE {
                break there;
            }
            std::thread::sleep(LATE_LOOK);
        };
        match ours.as_slice() {
            [] => Ok(()),
            [one] => iam.delete(user, &one.id).map_err(failed),
            many => {
                let endings: Vec<String> = many.iter().map(|key| keys::ending(&key.id)).collect();
                Err(Failure::new(format!(
                    "several access keys have been made since the rotation began ({}), and it cannot be told which is ours",
                    endings.join(", ")
                ))
                .hint("delete those that nobody uses on the server, then run it again"))
            }
        }
    }

    /// Deletes the old key; the new pair, or the administrator, asks for it.
    pub(super) fn retire(&self, key: &KeyChange) -> Result<()> {
        let Way::Issued { user, .. } = &key.way else {
            return Ok(());
        };
        let iam = self.iam(key, &key.new)?;
        let deleted = iam.delete(user.as_deref(), &key.old.access);
        deleted.map_err(|error| refusal(&iam, "cannot delete the old access key", error))?;
        self.refused(key)
    }
}

fn is_young(key: &IamKey, asked: Option<jiff::Timestamp>) -> bool {
    match (key.created, asked) {
        (Some(created), Some(asked)) => {
            let age = created.as_second() - asked.as_second();
            (-SKEW_SECONDS..=YOUNG_SECONDS).contains(&age)
        }
        // A service that does not say when: it was not there before, and that has to do.
        _ => true,
    }
}

/// What the service's interface refused, with what to do.
fn refusal(iam: &Iam, what: &str, error: S3Error) -> Failure {
    const BY_HAND: &str = "by hand: have a new pair made in the service's console, give it by --value-from FILE (AWS_ACCESS_KEY_ID=…, AWS_SECRET_ACCESS_KEY=…), and delete the old key in the console";
    let hint = match error.kind {
        Kind::Denied => {
            "name an administrator's keys: admin_credentials = \"FILE\" of the bucket in rg.toml, or --admin FILE"
        }
        Kind::WrongKey | Kind::WrongSecret => {
            "see the keys that sign this: those of --admin or admin_credentials, else the app's own"
        }
        Kind::Unsupported | Kind::NotS3 | Kind::NoObject | Kind::Other
            if error.code.as_deref() != Some("LimitExceeded") =>
        {
            let cause = format!(
                "{} does not make access keys when it is asked to: {error}",
                iam.shown()
            );
            return Failure::because(what.to_owned(), cause).hint(BY_HAND);
        }
        Kind::Other => {
            "AWS keeps two access keys of a user at most: delete the one that nobody uses"
        }
        _ => "run it again once the service answers",
    };
    let failure = Failure::because(what.to_owned(), format!("{} says {error}", iam.shown()));
    match error.kind {
        Kind::Denied => failure.hint(hint).hint(BY_HAND),
        _ => failure.hint(hint),
    }
}
