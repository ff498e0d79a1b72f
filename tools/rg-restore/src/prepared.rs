//! What a dataset is restored into before anything live is touched: a database or a directory
//! beside the live one, filled, proven, and then a part of the journal.

use std::path::{Path, PathBuf};

use rg_common::config::{DatabaseConfig, FilesConfig};
use rg_common::postgres::create;
use rg_common::postgres::facts;
use rg_common::postgres::scratch::{self as databases, Purpose};
use rg_common::{Failure, OrFail, Result};

use crate::database::{self, Server, Trouble};
use crate::journal::Part;
use crate::run::{Choice, Done, Job};
use crate::{bucket, files, scratch};

/// What a dataset is restored into.
pub enum Prepared<'a> {
    Database {
        server: Box<Server<'a>>,
        fresh: String,
        aside: String,
        replaces: bool,
        /// The name under which it stays beside the live one, once it is complete.
        beside: Option<String>,
    },
    Files {
        config: &'a FilesConfig,
        live: PathBuf,
        fresh: PathBuf,
        aside: PathBuf,
        replaces: bool,
        /// The path at which it stays beside the live one, once it is complete.
        beside: Option<PathBuf>,
    },
    Bucket(Box<bucket::Prepared>),
}

impl<'a> Prepared<'a> {
    pub fn database(
        job: &Job<'a>,
        choice: &Choice<'_>,
        environment: &str,
        database: &DatabaseConfig,
    ) -> Result<Prepared<'a>> {
        let server = Server::open(job.context, job.config, environment, database)?;
        if !job.args.dry_run {
            server.sweep()?;
        }
        database::check(&server, &choice.source, &job.args.reading)?;
        let rights = facts::rights(&server.admin)?;
        if !rights.create_databases {
            return Err(Failure::new(format!(
                "role {} may not create databases on {}",
                server.url.user,
                server.url.server()
            ))
            .hint("--beside needs a new database; without it the restore is done in place"));
        }
        let stamp = job.stamp.to_string();
        let beside = job.args.beside.clone();
        if let Some(name) = &beside
            && facts::exists(&server.admin, name)?
        {
            return Err(
                Failure::new(format!("there is a database `{name}` already"))
                    .hint("choose another name for --beside"),
            );
        }
        let fresh = databases::scratch_name(server.live(), Purpose::Restoring, &stamp);
        let aside = databases::scratch_name(server.live(), Purpose::Before, &stamp);
        let replaces = server.live_exists()?;
        Ok(Prepared::Database {
            server: Box::new(server),
            fresh,
            aside,
            replaces,
            beside,
        })
    }

    pub fn files(
        job: &Job<'a>,
        choice: &Choice<'_>,
        config: &'a FilesConfig,
    ) -> Result<Prepared<'a>> {
        let live = config.path.clone();
        if !job.args.dry_run {
            files::sweep(&live)?;
        }
        let beside = match &job.args.beside {
            Some(name) => {
                Some(std::path::absolute(name).or_fail(|| format!("cannot place {name}"))?)
            }
            None => None,
        };
        if let Some(path) = &beside {
            if path.symlink_metadata().is_ok() {
                return Err(Failure::new(format!("{} is there already", path.display()))
                    .hint("choose another name for --beside"));
            }
            if !job.args.dry_run {
                files::sweep(path)?;
            }
        } else {
            files::refuse_what_cannot_be_exchanged(&live)?;
        }
        let fresh = files::sibling(beside.as_ref().unwrap_or(&live), "restoring", job.stamp)?;
        let parent = fresh.parent().unwrap_or(Path::new("/"));
        if !parent.is_dir() {
            return Err(Failure::new(format!(
                "{} is not a directory: nothing can be restored into it",
                parent.display()
            ))
            .hint("make it first, with the owner and mode that the app expects"));
        }
        files::check(&choice.source, config, parent)?;
        let replaces = live.symlink_metadata().is_ok();
        let aside = files::sibling(&live, "before", job.stamp)?;
        Ok(Prepared::Files {
            config,
            live,
            fresh,
            aside,
            replaces,
            beside,
        })
    }

    /// Fills it and proves it; the live data is not touched.
    pub fn fill(&self, job: &Job<'_>, choice: &Choice<'_>) -> Result<Vec<String>> {
        let identities = job.identities.as_ref();
        match self {
            Prepared::Database {
                server,
                fresh,
                beside,
                ..
            } => {
                database::load(server, &choice.source, fresh, &job.args.reading, identities)
                    .map_err(Trouble::into_failure)?;
                match beside {
                    Some(name) => {
                        create::rename_database(&server.admin, fresh, name).map(|()| Vec::new())
                    }
                    None => database::carry_over(server, &choice.source, fresh),
                }
            }
            Prepared::Files {
                config,
                fresh,
                beside,
                ..
            } => {
                files::unpack(
                    job.context,
                    job.config,
                    &choice.source,
                    config,
                    fresh,
                    identities,
                )
                .map_err(Trouble::into_failure)?;
                beside
                    .as_ref()
                    .map_or(Ok(()), |path| files::rename(fresh, path))
                    .map(|()| Vec::new())
            }
            Prepared::Bucket(bucket) => bucket.fill(job, choice),
        }
    }

    /// What the journal must know to exchange it.
    pub fn part(&self, choice: &Choice<'_>) -> Result<Part> {
        let dataset = choice.dataset.name.clone();
        Ok(match self {
            Prepared::Database {
                server,
                fresh,
                aside,
                replaces,
                ..
            } => Part::Database {
                dataset,
                live: server.live().to_owned(),
                fresh: fresh.clone(),
                fresh_oid: server
                    .oid(fresh)?
                    .ok_or_else(|| Failure::new(format!("database {fresh} is gone")))?,
                aside: aside.clone(),
                replaces: *replaces,
            },
            Prepared::Files {
                live,
                fresh,
                aside,
                replaces,
                ..
            } => Part::Files {
                dataset,
                live: live.clone(),
                fresh: fresh.clone(),
                fresh_id: files::identity(fresh)
                    .ok_or_else(|| Failure::new(format!("{} is gone", fresh.display())))?,
                aside: aside.clone(),
                replaces: *replaces,
            },
            Prepared::Bucket(bucket) => bucket.part(choice),
        })
    }

    pub fn discard(&self) -> Result<()> {
        match self {
            Prepared::Database { server, fresh, .. } => {
                create::drop_database(&server.admin, fresh, true)
            }
            Prepared::Files { fresh, .. } => scratch::remove(fresh),
            Prepared::Bucket(_) => Ok(()),
        }
    }

    /// What takes more than an instant is done here, while the app stands still.
    pub fn exchange(
        &self,
        job: &Job<'_>,
        choice: &Choice<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        match self {
            Prepared::Bucket(bucket) => bucket.exchange(job, choice, notes),
            Prepared::Database { .. } | Prepared::Files { .. } => Ok(()),
        }
    }

    /// What is better done when the app is up again.
    pub fn after(&self) {
        if let Prepared::Database {
            server,
            beside: None,
            ..
        } = self
        {
            database::analyze(server, server.live());
        }
    }

    pub fn target(&self) -> String {
        match self {
            Prepared::Database {
                server,
                beside: Some(name),
                ..
            } => format!("fill the new database `{name}` on {}", server.url.server()),
            Prepared::Database {
                server,
                replaces: false,
                ..
            } => format!(
                "make database `{}` on {}",
                server.live(),
                server.url.server()
            ),
            Prepared::Database { server, aside, .. } => {
                format!(
                    "replace database `{}` on {} (kept as {aside})",
                    server.live(),
                    server.url.server()
                )
            }
            Prepared::Files {
                beside: Some(path), ..
            } => format!("fill the new directory {}", path.display()),
            Prepared::Files {
                live,
                replaces: false,
                ..
            } => format!("make {}", live.display()),
            Prepared::Files { live, aside, .. } => {
                format!("replace {} (kept as {})", live.display(), aside.display())
            }
            Prepared::Bucket(bucket) => bucket.target(),
        }
    }

    pub fn done(&self, choice: &Choice<'_>) -> Done {
        let (count, count_of) = choice.source.manifest.content.count();
        let (into, kept) = match self {
            Prepared::Database {
                beside: Some(name), ..
            } => (format!("database {name}"), None),
            Prepared::Database {
                server,
                aside,
                replaces,
                ..
            } => (
                format!("database {}", server.live()),
                replaces.then(|| format!("database {aside}")),
            ),
            Prepared::Files {
                beside: Some(path), ..
            } => (path.display().to_string(), None),
            Prepared::Files {
                live,
                aside,
                replaces,
                ..
            } => (
                live.display().to_string(),
                replaces.then(|| aside.display().to_string()),
            ),
            Prepared::Bucket(bucket) => bucket.place_and_kept(),
        };
        Done {
            dataset: choice.dataset.name.to_string(),
            from: choice.source.name(),
            into,
            kept,
            count,
            count_of,
        }
    }
}
