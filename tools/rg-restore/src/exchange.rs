//! The moment of truth: units stopped, everything exchanged, units started, health waited for,
//! and all of it taken back when the app does not come up.
//!
//! Before the first exchange the journal says what is to happen. Whether a part has been
//! exchanged is read off the world (a database's oid, a directory's inode), never off the journal:
//! so a crash at any instruction leaves something that [`recover`] can finish.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rg_common::cli::Context;
use rg_common::config::{Config, DatabaseConfig, DatasetConfig, DatasetKind};
use rg_common::names::DatasetName;
use rg_common::postgres::create;
use rg_common::postgres::exchange as databases;
use rg_common::{Failure, Result, app, stop};

use crate::database::Server;
use crate::journal::{self, Journal, Part};
use crate::{bucket, files, live, scratch};

/// How long the app may take to come up when a later command finishes what a killed one began.
const RECOVERED_HEALTH_LIMIT: Duration = Duration::from_secs(60);

/// How the app is treated.
pub struct Manners {
    /// Neither stop nor start units, nor ask for health.
    pub leave_units: bool,
    /// How long the app may take to come up.
    pub health_limit: Duration,
}

/// The units to stop, found out before anything is done.
pub fn units(config: &Config, environment: &str, manners: &Manners) -> Result<Vec<String>> {
    match config.environment(environment) {
        Some(environment) if !manners.leave_units => app::active(&environment.app),
        _ => Ok(Vec::new()),
    }
}

/// Exchanges everything that the journal names, or nothing; `buckets` does it for those. An app that does not come up healthy
/// gets back what it had.
pub fn perform(
    context: &Context,
    config: &Config,
    journal: &Journal,
    manners: &Manners,
    buckets: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let servers = Servers::new(context, config);
    if let Err(failure) = journal::begin(config, journal) {
        for part in &journal.parts {
            discard(&servers, journal, part);
        }
        return Err(failure.context("nothing was exchanged"));
    }
    // Buckets first: what can fail half way comes before what takes an instant.
    let exchanged = app::stop_units(&journal.units)
        .and_then(|()| buckets())
        .and_then(|()| exchange_all(&servers, journal));
    // Not held while the app comes up: the server may be restarted meanwhile.
    drop(servers);
    if let Err(failure) = exchanged {
        return Err(take_back(context, config, journal, failure, manners));
    }
    let healthy = app::start_units(&journal.units)
        .map_err(|failure| failure.context("the app's units did not start"))
        .and_then(|()| wait_healthy(context, config, journal, manners.health_limit));
    match healthy {
        Ok(()) => journal::done(config, journal),
        Err(failure) => Err(take_back(context, config, journal, failure, manners)),
    }
}

/// Waits until the app is healthy, unless it is to be left alone.
pub fn wait_healthy(
    context: &Context,
    config: &Config,
    journal: &Journal,
    limit: Duration,
) -> Result<()> {
    match config.environment(&journal.environment) {
        Some(environment) if !journal.leave_units => {
            app::wait_healthy(context, &environment.app, &journal.units, limit)
        }
        _ => Ok(()),
    }
}

/// Puts everything back as it was; the failure says that, or what is left to do.
fn take_back(
    context: &Context,
    config: &Config,
    journal: &Journal,
    failure: Failure,
    manners: &Manners,
) -> Failure {
    tracing::warn!("switching back: {failure}");
    let servers = Servers::new(context, config);
    let back = (|| {
        // Where nothing was exchanged the app has its data, and nothing has to be stopped: what
        // failed may be the stopping.
        if any_exchanged(&servers, journal)? {
            app::stop_units(&journal.units)?;
        }
        for part in journal.parts.iter().rev() {
            revert(&servers, part)?;
        }
        app::start_units(&journal.units)
    })();
    match back {
        Ok(()) => {
            for part in &journal.parts {
                discard(&servers, journal, part);
            }
            if let Err(left) = journal::taken_back(config) {
                return failure.context(format!("switched back, but {left}"));
            }
            let healthy = match stop::check() {
                Ok(()) => wait_healthy(context, config, journal, manners.health_limit),
                Err(_) => Ok(()),
            };
            let failure = failure.context("the restore was taken back and everything is as it was");
            match healthy {
                Ok(()) => failure,
                Err(still) => {
                    failure.hint(format!("the app was not healthy before either: {still}"))
                }
            }
        }
        Err(left) => failure
            .context(format!("switching back failed too: {left}"))
            .hint("run rg-restore again: it finishes what the journal says"),
    }
}

fn exchange_all(servers: &Servers<'_>, journal: &Journal) -> Result<()> {
    journal
        .parts
        .iter()
        .try_for_each(|part| exchange(servers, part))
}

/// Exchanges a part unless it has been already.
fn exchange(servers: &Servers<'_>, part: &Part) -> Result<()> {
    match part {
        Part::Database {
            dataset,
            live,
            fresh,
            aside,
            ..
        } => {
            let server = servers.of(dataset)?;
            if is_exchanged(&server, part)? {
                return Ok(());
            }
            databases::exchange(&server.admin, live, fresh, aside)
        }
        Part::Files {
            live,
            fresh,
            fresh_id,
            aside,
            replaces,
            ..
        } => {
            if files::identity(live) == Some(*fresh_id) {
                // Exchanged, but perhaps killed before the old tree got its name.
                if *replaces
                    && fresh.symlink_metadata().is_ok()
                    && aside.symlink_metadata().is_err()
                {
                    files::rename(fresh, aside)?;
                }
                return Ok(());
            }
            files::exchange(live, fresh, aside)
        }
        Part::Tables { .. } | Part::InPlace { .. } | Part::Bucket { .. } => Ok(()),
    }
}

/// Takes a part back if it has been exchanged: the fresh one gets its old name again.
fn revert(servers: &Servers<'_>, part: &Part) -> Result<()> {
    match part {
        Part::Database {
            dataset,
            live,
            fresh,
            aside,
            replaces,
            ..
        } => {
            let server = servers.of(dataset)?;
            match (is_exchanged(&server, part)?, replaces) {
                (false, _) => Ok(()),
                (true, true) => databases::exchange(&server.admin, live, aside, fresh),
                (true, false) => create::rename_database(&server.admin, live, fresh),
            }
        }
        Part::Files {
            live,
            fresh,
            fresh_id,
            aside,
            replaces,
            ..
        } => match (files::identity(live) == Some(*fresh_id), replaces) {
            (false, _) => Ok(()),
            (true, true) if aside.symlink_metadata().is_ok() => files::exchange(live, aside, fresh),
            // Killed before the old tree got its name: it still has the new one's.
            (true, true) => rg_common::files::exchange(live, fresh),
            (true, false) => files::rename(live, fresh),
        },
        Part::Bucket { .. } => bucket::take_back(servers.context, servers.config, part),
        Part::Tables { .. } | Part::InPlace { .. } => Ok(()),
    }
}

/// Removes the fresh one of a part that is not live.
fn discard(servers: &Servers<'_>, journal: &Journal, part: &Part) {
    if journal.undo && !matches!(part, Part::Bucket { .. }) {
        // What an undo would have put back is what the restore before it had replaced.
        return;
    }
    let discarded = match part {
        Part::Database {
            dataset,
            fresh,
            fresh_oid,
            ..
        } => servers.of(dataset).and_then(|server| {
            let ours = server.oid(fresh)? == Some(*fresh_oid);
            if ours {
                create::drop_database(&server.admin, fresh, true)
            } else {
                Ok(())
            }
        }),
        Part::Files {
            fresh, fresh_id, ..
        } if files::identity(fresh) == Some(*fresh_id) => scratch::remove(fresh),
        Part::Bucket { safety, .. } => scratch::remove(safety),
        Part::Files { .. } | Part::Tables { .. } | Part::InPlace { .. } => Ok(()),
    };
    if let Err(failure) = discarded {
        tracing::warn!("{failure}; the next restore removes it");
    }
}

fn is_exchanged(server: &Server<'_>, part: &Part) -> Result<bool> {
    match part {
        Part::Database {
            live, fresh_oid, ..
        } => Ok(server.oid(live)? == Some(*fresh_oid)),
        _ => Ok(false),
    }
}

fn any_exchanged(servers: &Servers<'_>, journal: &Journal) -> Result<bool> {
    for part in &journal.parts {
        if matches!(state(servers, part)?, State::Exchanged | State::Half) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether anything of a part has been exchanged, or could still be.
enum State {
    Exchanged,
    /// In the midst of it; it can only be taken back.
    Half,
    Ready,
    /// Neither: somebody else changed it since.
    Lost,
}

fn state(servers: &Servers<'_>, part: &Part) -> Result<State> {
    Ok(match part {
        Part::Database {
            dataset,
            fresh,
            fresh_oid,
            ..
        } => {
            let server = servers.of(dataset)?;
            match () {
                () if is_exchanged(&server, part)? => State::Exchanged,
                () if server.oid(fresh)? == Some(*fresh_oid) => State::Ready,
                () => State::Lost,
            }
        }
        Part::Files {
            live,
            fresh,
            fresh_id,
            ..
        } => match () {
            () if files::identity(live) == Some(*fresh_id) => State::Exchanged,
            () if files::identity(fresh) == Some(*fresh_id) => State::Ready,
            () => State::Lost,
        },
        Part::Bucket { safety, .. } => match bucket::progress(safety) {
            bucket::Progress::Untouched => State::Lost,
            bucket::Progress::Half => State::Half,
            bucket::Progress::Done => State::Exchanged,
        },
        Part::Tables { .. } | Part::InPlace { .. } => State::Exchanged,
    })
}

/// Finishes what a killed restore had begun, or takes it back when nothing was exchanged yet.
/// What was done, for people.
pub fn recover(context: &Context, config: &Config) -> Result<Option<String>> {
    let Some(journal) = journal::pending(config)? else {
        live::sweep(config)?;
        return Ok(None);
    };
    let what = || {
        format!(
            "an interrupted restore of {} cannot be finished",
            journal.stamp
        )
    };
    let servers = Servers::new(context, config);
    let states = journal
        .parts
        .iter()
        .map(|part| state(&servers, part))
        .collect::<Result<Vec<_>>>();
    let states = states.map_err(|failure| {
        failure.context(what()).hint(format!(
            "{} says what it was exchanging; should that be beyond repair, move it away",
            journal::path(config).display()
        ))
    })?;
    let any = |which: fn(&State) -> bool| states.iter().any(which);
    let any_exchanged = any(|state| matches!(state, State::Exchanged | State::Half));
    let any_lost = any(|state| matches!(state, State::Lost | State::Half));
    let taken_back = !any_exchanged || any_lost;
    let (said, started) = if !taken_back {
        if states.iter().any(|state| matches!(state, State::Ready)) {
            // The machine may have started again since, and the app with it.
            app::stop_units(&journal.units).map_err(|failure| failure.context(what()))?;
        }
        exchange_all(&servers, &journal).map_err(|failure| failure.context(what()))?;
        let started = app::start_units(&journal.units);
        journal::done(config, &journal)?;
        ("finished", started)
    } else {
        if any_exchanged {
            app::stop_units(&journal.units).map_err(|failure| failure.context(what()))?;
        }
        for part in journal.parts.iter().rev() {
            revert(&servers, part).map_err(|failure| failure.context(what()))?;
        }
        let started = app::start_units(&journal.units);
        for part in &journal.parts {
            discard(&servers, &journal, part);
        }
        journal::taken_back(config)?;
        ("taken back", started)
    };
    drop(servers);
    let in_place = |part: &Part| matches!(part, Part::InPlace { .. });
    let said = if journal.parts.iter().any(in_place) {
        format!(
            "the restore {} in place had been interrupted: its one transaction took effect or did not, \
             and `rg-restore undo` puts back what was there before",
            journal.stamp
        )
    } else {
        format!(
            "the restore {} had been interrupted during its exchange; it is {said} now",
            journal.stamp
        )
    };
    // The data is in order; said once, it does not keep later commands from their work.
    started.map_err(|failure| failure.context(format!("{said}, but the app did not start")))?;
    wait_healthy(context, config, &journal, RECOVERED_HEALTH_LIMIT).map_err(|failure| {
        let failure = failure.context(format!("{said}, but the app does not come up"));
        match taken_back {
            true => failure,
            false => failure.hint("`rg-restore undo` puts back what was there before"),
        }
    })?;
    tracing::warn!("{said}");
    Ok(Some(said))
}

/// The servers of the databases that are exchanged, each connected to once.
struct Servers<'a> {
    context: &'a Context,
    config: &'a Config,
    open: RefCell<BTreeMap<DatasetName, Rc<Server<'a>>>>,
}

impl<'a> Servers<'a> {
    fn new(context: &'a Context, config: &'a Config) -> Self {
        Servers {
            context,
            config,
            open: RefCell::default(),
        }
    }

    fn of(&self, dataset: &DatasetName) -> Result<Rc<Server<'a>>> {
        if let Some(server) = self.open.borrow().get(dataset) {
            return Ok(Rc::clone(server));
        }
        let server = Rc::new(server(self.context, self.config, dataset)?);
        let mut open = self.open.borrow_mut();
        open.insert(dataset.clone(), Rc::clone(&server));
        Ok(server)
    }
}

/// The server of a dataset's database.
pub fn server<'a>(
    context: &'a Context,
    config: &'a Config,
    dataset: &DatasetName,
) -> Result<Server<'a>> {
    let (dataset, database) = database_of(config, dataset)?;
    Server::open(context, config, &dataset.environment, database)
}

/// The configuration of a database that a journal names.
pub fn database_of<'a>(
    config: &'a Config,
    dataset: &DatasetName,
) -> Result<(&'a DatasetConfig, &'a DatabaseConfig)> {
    let found = config.datasets.iter().find(|known| known.name == *dataset);
    match found.map(|found| (found, &found.kind)) {
        Some((found, DatasetKind::Database(database) | DatasetKind::Globals(database))) => {
            Ok((found, database))
        }
        _ => Err(Failure::new(format!(
            "no database `{dataset}` is configured any longer"
        ))),
    }
}
