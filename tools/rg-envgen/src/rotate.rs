//! `rotate`: a new value everywhere or nowhere.
//!
//! The steps: everything that will change is written into a journal; the server gets the new
//! password, or makes a new access key; a new login proves it; the env files are switched; the units
//! are restarted and the app is asked for its health; an old access key is deleted and seen to be
//! refused; the journal goes. Any failure before the app is well puts server and files back as they
//! were, byte for byte. After a kill at any instruction the next run does one or the other, first of
//! all; which one, [`journal::Step`] says.

pub mod ages;
mod canary;
mod containers;
mod create;
mod issue;
mod journal;
mod keys;
mod pair;
mod report;
mod server;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::postgres::Connector;
use rg_common::report::Report;
use rg_common::{Failure, Result, app};

use crate::args::Rotate;
use crate::audit::{self, Act, What};
use crate::generate;
use crate::place;
use crate::place::Place;
use crate::replace::{self, Manner};
use journal::{FileChange, Journal, Step};
use report::Rotated;

/// Runs `rg-envgen rotate`.
pub fn rotate(context: &Context, schema: Option<&Path>, args: &Rotate) -> Result<Box<dyn Report>> {
    let place = Place::open(context, schema)?;
    let state = place.state()?;
    if args.list {
        return ages::list(context, &place, &state, args.env.as_deref());
    }
    let work = Work {
        context,
        place: &place,
        state,
        args,
        connector: Connector::new(context.network.clone(), server::APPLICATION),
        recovering: Cell::new(false),
    };
    let _held = journal::hold(&work.state)?;
    replace::sweep(&Journal::path(&work.state))?;
    let earlier = match Journal::read(&work.state)? {
        Some(journal) if args.dry_run => Some(journal.said(false)),
        Some(journal) => {
            work.recovering.set(true);
            let said = work.recover(&journal)?;
            work.recovering.set(false);
            Some(said)
        }
        None => None,
    };
    if args.names.is_empty() {
        return match earlier {
            Some(said) => Ok(Box::new(Rotated {
                earlier: Some(said),
                dry_run: args.dry_run,
                ..Rotated::default()
            })),
            None => Err(Failure::new("no secret is named")
                .hint("rg-envgen rotate --list shows them with their age")),
        };
    }
    let environment = match (&args.env, place.schema.environments.as_slice()) {
        (Some(name), _) => place.schema.environment(name)?,
        (None, [only]) => only,
        (None, _) => {
            return Err(Failure::new("there are several environments").hint("say which with --env"));
        }
    };
    let (mut journal, effects) = work.create(environment, &mut generate::System)?;
    let report = Rotated {
        environment: environment.name.clone(),
        names: journal.names.clone(),
        files: journal.files.iter().map(|file| file.path.clone()).collect(),
        roles: journal
            .logins
            .iter()
            .map(|login| login.role.clone())
            .collect(),
        buckets: journal
            .keys
            .iter()
            .flat_map(|key| key.service.buckets.clone())
            .collect(),
        containers: journal.containers(),
        units: journal.units.clone(),
        effects,
        earlier,
        dry_run: args.dry_run,
    };
    if args.dry_run {
        return Ok(Box::new(report));
    }
    context.confirm(&report.question(), args.yes)?;
    for key in &mut journal.keys {
        work.survey(key)?;
    }
    journal.write(&work.state)?;
    match work.forward(&mut journal) {
        Ok(()) => Ok(Box::new(report)),
        Err(failure) => Err(work.back(&journal, failure)),
    }
}

/// What writes env files waits until a rotation that was cut off is finished or undone.
pub fn refuse_pending(state: &Path) -> Result<()> {
    match Journal::path(state).exists() {
        false => Ok(()),
        true => Err(Failure::new("a rotation was cut off")
            .hint("`rg-envgen rotate` without names finishes or undoes it")),
    }
}

struct Work<'a> {
    context: &'a Context,
    place: &'a Place,
    state: PathBuf,
    args: &'a Rotate,
    connector: Connector,
    /// Whether an earlier run may have left an object that proves a key.
    recovering: Cell<bool>,
}

impl Work<'_> {
    /// Server, proof, files, app; the journal's marks say what is done for certain.
    fn forward(&self, journal: &mut Journal) -> Result<()> {
        for key in &mut journal.keys {
            self.try_old(key)?;
        }
        self.issue(journal)?;
        for login in &journal.logins {
            self.set(login)?;
        }
        for login in &journal.logins {
            self.prove(login)?;
        }
        // A server that reads it at its start does not know it yet.
        for key in journal.keys.iter().filter(|key| !key.is_started()) {
            self.prove_key(key)?;
        }
        for file in &journal.files {
            switch(file, &file.old, &file.new)?;
        }
        journal.step = Step::Switched;
        journal.write(&self.state)?;
        self.finish(journal)
    }

    /// Restarts and asks the app; then the new values are the ones, and the old are retired.
    fn finish(&self, journal: &mut Journal) -> Result<()> {
        if journal.step == Step::Switched {
            self.recreate(journal)?;
            app::restart_units(&journal.units)?;
            for key in journal.keys.iter().filter(|key| key.is_started()) {
                self.prove_key(key)?;
                self.refused(key)?;
            }
            self.wait_healthy(journal)?;
        }
        if journal.retires() {
            journal.step = Step::Healthy;
            journal.write(&self.state)?;
        }
        for key in &journal.keys {
            self.retire(key)?;
            self.sweep_canary(key, &key.new)?;
        }
        self.record(journal, What::Rotated)?;
        Journal::remove(&self.state)
    }

    fn wait_healthy(&self, journal: &Journal) -> Result<()> {
        let config = self.place.config.as_ref();
        match config.and_then(|config| config.environment(&journal.environment)) {
            // What was not restarted is as well as it was.
            Some(environment) if !journal.units.is_empty() => {
                app::wait_healthy(self.context, &environment.app, &journal.units, self.limit())
            }
            _ => Ok(()),
        }
    }

    /// What an earlier run left: finished when only the app was left to do, undone otherwise.
    fn recover(&self, journal: &Journal) -> Result<String> {
        for file in &journal.files {
            let _held = replace::hold(&replace::directory_of(&file.path))?;
            replace::sweep(&file.path)?;
        }
        let names = journal.names.join(", ");
        let of = &journal.environment;
        if matches!(journal.step, Step::Switched | Step::Healthy) {
            let mut journal = journal.clone();
            return match self.finish(&mut journal) {
                Ok(()) => Ok(format!(
                    "the rotation of {names} in {of} that was cut off is finished"
                )),
                Err(failure) => Err(self.back(&journal, failure)),
            };
        }
        self.undo(journal)
            .map_err(|failure| self.stuck(journal, failure))?;
        Ok(format!(
            "the rotation of {names} in {of} that was cut off is undone"
        ))
    }

    /// Undoes, and says with the failure how that went.
    fn back(&self, journal: &Journal, failure: Failure) -> Failure {
        if journal.step == Step::Healthy {
            return failure
                .context("the new values are in use everywhere, but the rotation is not over")
                .hint("run `rg-envgen rotate` again: it goes on from here");
        }
        match self.undo(journal) {
            Ok(()) => failure.context("the rotation failed, and everything is as it was before"),
            Err(second) => self
                .stuck(journal, second)
                .context(format!("the rotation failed: {failure}")),
        }
    }

    fn stuck(&self, journal: &Journal, failure: Failure) -> Failure {
        let roles: Vec<&str> = journal
            .logins
            .iter()
            .map(|login| login.role.as_str())
            .collect();
        let failure = failure.context("the old state could not be put back");
        let failure = failure.hint(format!(
            "{} holds both values; run `rg-envgen rotate` again once the cause is gone",
            Journal::path(&self.state).display()
        ));
        match roles.is_empty() {
            true => failure,
            false => failure.hint(format!(
                "a superuser can set the password of {}: --admin FILE",
                roles.join(", ")
            )),
        }
    }

    /// Server and files as they were; the app restarted where it may have seen the new values.
    fn undo(&self, journal: &Journal) -> Result<()> {
        // From here on no run finishes it any more, even if the app comes up meanwhile.
        let seen = matches!(journal.step, Step::Switched | Step::Undoing);
        if journal.step == Step::Switched {
            let mut journal = journal.clone();
            journal.step = Step::Undoing;
            journal.write(&self.state)?;
        }
        for login in &journal.logins {
            self.restore(login)?;
        }
        let mut switched = false;
        for file in &journal.files {
            if place::read(&file.path)? != file.old {
                switch(file, &file.new, &file.old)?;
                switched = true;
            }
        }
        if switched || seen {
            self.recreate(journal)?;
            app::restart_units(&journal.units)?;
            for key in journal.keys.iter().filter(|key| key.is_started()) {
                self.prove_old(key)?;
            }
        }
        // Last: until here the app may have needed the new key.
        for key in &journal.keys {
            self.revoke(key)?;
            self.sweep_canary(key, &key.old)?;
        }
        self.record(journal, What::Rolledback)?;
        Journal::remove(&self.state)
    }

    fn record(&self, journal: &Journal, what: What) -> Result<()> {
        let act = Act {
            time: self.context.clock(),
            what,
            environment: journal.environment.clone(),
            names: journal.names.clone(),
            user: audit::user(),
        };
        audit::record(&self.state, &[act])
    }
}

/// Replaces a file that is still what it was expected to be.
fn switch(file: &FileChange, from: &str, to: &str) -> Result<()> {
    let directory = replace::directory_of(&file.path);
    let _held = replace::hold(&directory)?;
    if place::read(&file.path)? != from {
        return Err(Failure::new(format!(
            "{} was changed by somebody else meanwhile",
            file.path.display()
        ))
        .hint("put the rotated names right by hand; the journal holds both values"));
    }
    let manner = Manner {
        mode: 0o600,
        ..Manner::default()
    };
    replace::replace(&file.path, to.as_bytes(), &manner)
}
