//! A bucket's backup with the older ones that it needs: read, and proven.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rg_common::catalog::manifest::BucketContent;
use rg_common::catalog::{Content, Finding};
use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::dataset::bucket;
use rg_common::names::Stamp;
use rg_common::seal::Identities;
use rg_common::{Failure, OrFail, Result, stop};

use super::Place;
use crate::database::Trouble;
use crate::source::Source;

/// What is restored, and how to read it.
pub struct Backup<'a> {
    context: &'a Context,
    config: &'a Config,
    identities: Option<&'a Identities>,
    source: &'a Source,
    needed: &'a [Source],
    records: bool,
}

impl<'a> Backup<'a> {
    /// `needed` is what [`Source::needed`] gave.
    pub fn new(
        context: &'a Context,
        config: &'a Config,
        identities: Option<&'a Identities>,
        source: &'a Source,
        needed: &'a [Source],
    ) -> Backup<'a> {
        Backup {
            context,
            config,
            identities,
            source,
            needed,
            records: false,
        }
    }

    /// An older archive that is found damaged is recorded as that: the next backup reads its objects
    /// again.
    pub fn recording(mut self) -> Backup<'a> {
        self.records = true;
        self
    }

    fn content(&self) -> Result<&BucketContent> {
        match &self.source.manifest.content {
            Content::Bucket(content) => Ok(content),
            other => Err(Failure::new(format!(
                "{} holds {}, not a bucket",
                self.source.name(),
                other.kind()
            ))),
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a Source> {
        self.needed.iter().chain([self.source])
    }

    /// The archive with that stamp; its clean end means that its digests were right.
    pub fn archive(&self, stamp: Stamp) -> Result<Box<dyn Read>> {
        let source = self.all().find(|one| one.manifest.id.stamp == stamp);
        let source = source
            .ok_or_else(|| Failure::new(format!("{} does not name {stamp}", self.source.name())))?;
        Ok(Box::new(source.open(
            self.context,
            self.config,
            self.identities,
        )?))
    }

    /// The list's plain lines into a file; its digests are checked.
    pub fn read_list(&self, into: &Path) -> Result<()> {
        let what = || format!("cannot write {}", into.display());
        let mut list = self
            .source
            .open_list(self.context, self.config, self.identities)?;
        let mut file = File::create(into).or_fail(what)?;
        io::copy(&mut list, &mut file).map_err(|error| Failure::from_io(what(), error))?;
        Ok(())
    }

    /// Reads every object out of its archive and compares it with the list, the list with the
    /// manifest. What was proven lies in the place then.
    pub fn prove(&self, place: &Place) -> Result<(), Trouble> {
        self.read_list(&place.list())
            .map_err(|failure| self.blame_list(failure))?;
        let content = self.content()?;
        let stamps: Vec<Stamp> = self.all().map(|one| one.manifest.id.stamp).collect();
        let mut reading = self.source;
        let proven = bucket::prove(
            &place.list(),
            Some(content),
            &stamps,
            &mut |stamp| {
                reading = self
                    .all()
                    .find(|one| one.manifest.id.stamp == stamp)
                    .unwrap_or(self.source);
                self.archive(stamp)
            },
            place.folder.path(),
            &place.wanted(),
        );
        proven.map_err(|failure| self.blame(reading, failure))
    }

    fn blame_list(&self, failure: Failure) -> Trouble {
        match (stop::check(), self.source.is_list_as_recorded(self.config)) {
            (Ok(()), Ok(false)) => Trouble::Bad(failure),
            _ => Trouble::Unknown(failure),
        }
    }

    /// The backup is bad when its stored bytes are no longer those recorded; and also when they
    /// are, can be read to their end, and hold other objects than the list says.
    fn blame(&self, reading: &Source, failure: Failure) -> Trouble {
        if let Err(stopped) = stop::check() {
            return Trouble::Unknown(stopped);
        }
        let needed = reading.manifest.id != self.source.manifest.id;
        match reading.blame(self.config, failure) {
            Trouble::Bad(failure) if needed => {
                if self.records {
                    self.record(reading, &failure);
                }
                let id = &self.source.manifest.id;
                Trouble::Bad(failure.context(format!("{id} needs {}", reading.manifest.id)))
            }
            Trouble::Unknown(failure) => {
                let again = reading.open(self.context, self.config, self.identities);
                let read = again.and_then(|mut plain| {
                    io::copy(&mut plain, &mut io::sink())
                        .map_err(|error| Failure::from_io("cannot read it", error))
                });
                match read {
                    Ok(_) => Trouble::Bad(failure),
                    Err(_) => Trouble::Unknown(failure),
                }
            }
            bad => bad,
        }
    }

    fn record(&self, reading: &Source, failure: &Failure) {
        let finding = Finding {
            at: self.context.clock(),
            good: false,
            seconds: 0,
            said: failure.to_string(),
        };
        if let Err(left) = crate::drill::record(self.config, reading, finding) {
            tracing::warn!("the finding could not be recorded: {left}");
        }
    }
}
