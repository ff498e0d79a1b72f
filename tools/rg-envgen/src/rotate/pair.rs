//! Which variables are an access key pair, and how its server is to get to know a new one: what
//! `rg.toml` says of buckets, put together with what the schema says of variables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rg_common::s3::Credentials;
use rg_common::secret::Secret;
use rg_common::{Failure, Result};

use super::Work;
use super::keys::{self, KeyChange, Pair, Way};
use crate::generate::{self, Random};
use crate::schema::{Consumer, Environment, Generator, Source};
use crate::{derive, safe};

/// What stands in place of what only the server can make, until it has.
const MARK: Generator = Generator::Hex(16);

/// The variables of an access key pair, by the schema's ids.
#[derive(PartialEq, Eq)]
pub(super) struct PairNames {
    pub(super) access: String,
    pub(super) secret: String,
}

/// What a new pair does that an operator should know beforehand.
pub(super) fn effect(key: Option<&KeyChange>, access: &str) -> Option<String> {
    match &key?.way {
        Way::Started { .. } => Some(format!(
            "{access} keeps its name: what was made under it on the server would be lost with it"
        )),
        Way::Given => Some(format!(
            "the old access key ({}) still works: delete it where it was made",
            keys::ending(&key?.old.access)
        )),
        Way::Issued { .. } => None,
    }
}

impl Work<'_> {
    /// The access key pair that a variable is half of, by the buckets in `rg.toml`.
    pub(super) fn pair_of(&self, environment: &str, id: &str) -> Option<PairNames> {
        let config = self.place.config.as_ref()?;
        let mut found = None;
        keys::buckets_of(config, environment, |access, secret| {
            let names = self.pair_names(environment, access, secret);
            let names = names.filter(|names| names.access == id || names.secret == id);
            found = found.take().or(names);
            false
        });
        found
    }

    fn pair_names(&self, environment: &str, access: &str, secret: &str) -> Option<PairNames> {
        let schema = &self.place.schema;
        let root = |name| Some(self.root(schema.meant(name, environment).ok()?).id.clone());
        Some(PairNames {
            access: root(access)?,
            secret: root(secret)?,
        })
    }

    /// A pair before and after, and how its server gets to know it.
    pub(super) fn key_change(
        &self,
        environment: &Environment,
        names: &PairNames,
        old: &derive::Values,
        fresh: &mut BTreeMap<String, Secret>,
        random: &mut dyn Random,
    ) -> Result<KeyChange> {
        let of = &environment.name;
        let config = self.place.config.as_ref();
        let config = config.ok_or_else(|| Failure::new("there is no rg.toml"))?;
        let buckets = keys::buckets_of(config, of, |access, secret| {
            self.pair_names(of, access, secret).as_ref() == Some(names)
        });
        let mut service = None;
        let mut buckets_by_name = Vec::new();
        for bucket in &buckets {
            let (found, name) = config.bucket_service(of, bucket)?;
            buckets_by_name.push(name);
            service = Some((found, bucket.admin_credentials.clone()));
        }
        let (service, admin) =
            service.ok_or_else(|| Failure::new("no bucket in rg.toml has this access key"))?;
        let value = |id: &str| {
            let value = old.get(id).map(|value| value.reveal().to_owned());
            value.ok_or_else(|| {
                Failure::new(format!("{id} has no value in {of} yet"))
                    .hint("rg-envgen write makes one")
            })
        };
        let before = Pair {
            access: value(&names.access)?,
            secret: value(&names.secret)?,
        };
        let used = service.credentials.as_ref();
        if used.is_none_or(|used| {
            used.access_key().reveal() != before.access
                || used.secret_key().reveal() != before.secret
        }) {
            return Err(Failure::new(format!(
                "the access key that the app uses is not the one of {} and {}",
                names.access, names.secret
            ))
            .hint("rg-envgen check says where they differ"));
        }
        keys::refuse_shared(config, of, &before.access)?;
        let source = self
            .place
            .schema
            .variable(&names.secret)
            .map(|one| &one.source);
        let (way, after) = match (source, &self.args.value_from) {
            (Some(Source::Generated(_)), Some(_)) => {
                return Err(Failure::new(format!("{} is made here", names.secret))
                    .hint("rotate it without --value-from"));
            }
            (Some(Source::Generated(generator)), None) => {
                if self.args.leave_units {
                    return Err(Failure::new("the storage server reads its access key when it starts, so it has to be restarted")
                        .hint("without --leave-units it is"));
                }
                let files = self.compose_files(environment);
                let containers = self.containers_with(of, &before.secret, &files)?;
                let secret = generate::generate(*generator, random)?.reveal().to_owned();
                let after = Pair {
                    access: before.access.clone(),
                    secret,
                };
                (Way::Started { containers }, after)
            }
            (_, Some(_)) if self.args.names.len() > 1 => {
                return Err(Failure::new(
                    "--value-from is for one secret or one access key at a time",
                ));
            }
            (_, Some(path)) => {
                let text = self.given(path)?;
                let given = Credentials::from_text(&text, &path.display().to_string())?;
                let after = Pair {
                    access: given.access_key().reveal().to_owned(),
                    secret: given.secret_key().reveal().to_owned(),
                };
                (Way::Given, after)
            }
            (_, None) => {
                let mark = || generate::generate(MARK, random).map(|mark| mark.reveal().to_owned());
                let mut mark = mark;
                let after = Pair {
                    access: mark()?,
                    secret: mark()?,
                };
                let way = Way::Issued {
                    user: None,
                    admin,
                    before: Vec::new(),
                    asked: None,
                    known: false,
                };
                (way, after)
            }
        };
        if before == after {
            return Err(Failure::new("the new access key is the old one"));
        }
        for (id, old, new) in [
            (&names.access, &before.access, &after.access),
            (&names.secret, &before.secret, &after.secret),
        ] {
            if old != new {
                safe::check(id, new)?;
                fresh.insert(id.clone(), Secret::new(new.as_str()));
            }
        }
        Ok(KeyChange::new(
            &service,
            buckets_by_name,
            way,
            [before, after],
        ))
    }

    /// The env files that docker compose reads.
    fn compose_files(&self, environment: &Environment) -> Vec<PathBuf> {
        let files = self.place.schema.files.iter().enumerate();
        files
            .filter(|(_, file)| file.readers.contains(&Consumer::Compose))
            .map(|(at, _)| self.place.path(environment, at))
            .collect()
    }
}
