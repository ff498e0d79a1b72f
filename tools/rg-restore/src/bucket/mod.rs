//! A bucket made to hold what a backup recorded.
//!
//! Every object is read out of its archive and proven before anything is touched. What is live and
//! the same is left alone; what will be replaced or deleted is laid aside first (`safety.rs`), then
//! the rest is deleted and put, read back and compared. A bucket cannot be exchanged in one step:
//! one that was caught half way is taken back.

mod backup;
mod drill;
mod safety;

use std::cell::Cell;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::config::{BucketConfig, Config, DatasetConfig, DatasetKind};
use rg_common::dataset::bucket::{Changes, Scope, Target, wanted_as_listed};
use rg_common::names::DatasetName;
use rg_common::report;
use rg_common::s3::Client;
use rg_common::{Failure, OrFail, Result};

use crate::journal::Part;
use crate::run::{Choice, Job};
use crate::scratch;
use crate::source::Source;
use backup::Backup;
pub use drill::drill;
pub use safety::{Progress, PutBack, is_safety, path as safety_path, progress, take_back};

/// A bucket of the app, and a place for lists while a command runs.
pub struct Place {
    /// The bucket.
    pub target: Target,
    service: String,
    folder: scratch::Folder,
}

impl Place {
    /// The bucket that the configuration names; nothing is asked yet.
    pub fn open(
        context: &Context,
        config: &Config,
        dataset: &DatasetConfig,
        bucket: &BucketConfig,
    ) -> Result<Place> {
        let (service, name) = config.bucket_service(&dataset.environment, bucket)?;
        let client = Client::new(&context.network, &service)?;
        let folder = scratch::Folder::new(config, context, "bucket")?;
        let path = folder.path();
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .or_fail(|| format!("cannot make {}", path.display()))?;
        Ok(Place {
            target: Target::new(client, &service, &name, path),
            service: service.shown(),
            folder,
        })
    }

    /// The bucket that a journal's part names.
    pub fn of_part(
        context: &Context,
        config: &Config,
        dataset: &DatasetName,
        (service, bucket): (&str, &str),
    ) -> Result<Place> {
        let found = config.datasets.iter().find(|known| known.name == *dataset);
        let Some((found, DatasetKind::Bucket(known))) = found.map(|found| (found, &found.kind))
        else {
            return Err(Failure::new(format!(
                "no bucket `{dataset}` is configured any longer"
            )));
        };
        let place = Place::open(context, config, found, known)?;
        if (place.service.as_str(), place.target.name()) != (service, bucket) {
            return Err(Failure::new(format!(
                "{dataset} was bucket `{bucket}` at {service} and is {} now",
                place.target.shown()
            ))
            .hint("put the bucket's old name and endpoint into rg.toml, and run it again"));
        }
        Ok(place)
    }

    /// Where the list of a backup lies.
    fn list(&self) -> PathBuf {
        self.folder.path().join("list.jsonl")
    }

    /// Where the proven list lies.
    fn wanted(&self) -> PathBuf {
        self.folder.path().join("wanted.jsonl")
    }

    /// What is to be done, by what the lists say.
    fn plan(&self, target: &Target, scope: Scope<'_>) -> Result<Changes> {
        Changes::plan(target, &self.wanted(), scope, self.folder.path())
    }
}

/// What is put, deleted and left alone.
#[derive(Debug, Clone, Copy)]
struct Counts {
    put: u64,
    delete: u64,
    leave: u64,
}

impl Counts {
    fn of(changes: &Changes) -> Counts {
        Counts {
            put: changes.puts(),
            delete: changes.deletes,
            leave: changes.unchanged,
        }
    }
}

/// A backup and the bucket that it goes into.
pub struct Prepared {
    place: Place,
    needed: Vec<Source>,
    exists: bool,
    counts: Cell<Counts>,
    beside: Option<Target>,
    safety: PathBuf,
}

impl Prepared {
    /// What can be known without reading the objects; nothing is changed.
    pub fn new(job: &Job<'_>, choice: &Choice<'_>, bucket: &BucketConfig) -> Result<Prepared> {
        let Job {
            context, config, ..
        } = job;
        let place = Place::open(context, config, choice.dataset, bucket)?;
        let beside = job.args.beside.as_ref();
        let beside = beside.map(|name| place.target.named(name));
        if let Some(other) = &beside
            && (other.name() == place.target.name() || !other.is_empty()?)
        {
            return Err(Failure::new(format!("{} is not empty", other.shown()))
                .hint("--beside fills a bucket that is missing or empty: choose another name"));
        }
        let needed = choice.source.needed(config)?;
        let backup = Backup::new(
            job.context,
            config,
            job.identities(),
            &choice.source,
            &needed,
        );
        backup.read_list(&place.list())?;
        wanted_as_listed(&place.list(), &place.wanted())?;
        let target = beside.as_ref().unwrap_or(&place.target);
        let exists = target.exists()?;
        let changes = place.plan(target, Scope::Whole)?;
        if beside.is_none() {
            safety::check_room(config, &changes)?;
        }
        Ok(Prepared {
            counts: Cell::new(Counts::of(&changes)),
            safety: safety::path(config, &choice.dataset.name, job.stamp)?,
            place,
            needed,
            exists,
            beside,
        })
    }

    /// Proves the backup object by object; a bucket beside the live one is filled and compared. The
    /// live one is not touched.
    pub fn fill(&self, job: &Job<'_>, choice: &Choice<'_>) -> Result<Vec<String>> {
        let backup = self.backup(job, choice);
        backup
            .prove(&self.place)
            .map_err(crate::database::Trouble::into_failure)?;
        let mut notes = Vec::new();
        if let Some(target) = &self.beside {
            let made = target.make()?;
            if let Err(failure) = fill(&self.place, target, &backup, &mut notes) {
                let failure = failure.context(format!("{} is not filled", target.shown()));
                return Err(match empty(&self.place, target, made) {
                    Ok(()) => failure,
                    Err(left) => failure.hint(format!("what was put there stays: {left}")),
                });
            }
        }
        if !self.exists {
            let target = self.beside.as_ref().unwrap_or(&self.place.target);
            notes.push(format!(
                "{} was missing and is made without any policy or setting: `rg-bucket apply` sets what rg.toml says",
                target.shown()
            ));
        }
        Ok(notes)
    }

    /// What the journal must know.
    pub fn part(&self, choice: &Choice<'_>) -> Part {
        Part::Bucket {
            dataset: choice.dataset.name.clone(),
            service: self.place.service.clone(),
            bucket: self.place.target.name().to_owned(),
            safety: self.safety.clone(),
            puts_back: None,
        }
    }

    /// Makes the live bucket hold what the backup recorded. The journal must know of it.
    pub fn exchange(
        &self,
        job: &Job<'_>,
        choice: &Choice<'_>,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        let backup = self.backup(job, choice);
        let changes = safety::change(
            job.context,
            job.config,
            &self.place,
            Scope::Whole,
            (&self.safety, job.stamp),
            &mut |stamp| backup.archive(stamp),
            notes,
        )?;
        self.counts.set(Counts::of(&changes));
        Ok(())
    }

    fn backup<'a>(&'a self, job: &'a Job<'_>, choice: &'a Choice<'_>) -> Backup<'a> {
        Backup::new(
            job.context,
            job.config,
            job.identities(),
            &choice.source,
            &self.needed,
        )
    }

    /// What is about to happen, for a question.
    pub fn target(&self) -> String {
        let Counts { put, delete, leave } = self.counts.get();
        let (put, delete, leave) = (
            report::counted(put, "objects"),
            report::count(delete),
            report::count(leave),
        );
        let shown = self.place.target.shown();
        match (&self.beside, self.exists) {
            (Some(target), _) => format!("fill {}", target.shown()),
            (None, false) => format!("make {shown} and put {put}"),
            (None, true) => format!(
                "change {shown}: put {put}, delete {delete}, leave {leave} alone (what goes is kept in {})",
                self.safety.display()
            ),
        }
    }

    /// Where the backup is or would be now, and where what was replaced is kept.
    pub fn place_and_kept(&self) -> (String, Option<String>) {
        let Counts { put, delete, leave } = self.counts.get();
        let target = self.beside.as_ref().unwrap_or(&self.place.target);
        let into = format!(
            "{} ({} put, {} deleted, {} left alone)",
            target.shown(),
            report::count(put),
            report::count(delete),
            report::count(leave)
        );
        let kept = self
            .beside
            .is_none()
            .then(|| self.safety.display().to_string());
        (into, kept)
    }
}

/// Fills an empty bucket with a proven backup and compares all of it.
fn fill(
    place: &Place,
    target: &Target,
    backup: &Backup<'_>,
    notes: &mut Vec<String>,
) -> Result<()> {
    let changes = place.plan(target, Scope::Whole)?;
    changes.apply(target, &mut |stamp| backup.archive(stamp))?;
    let wrong = changes.check(target, &place.wanted(), Scope::Whole, notes)?;
    if wrong.is_empty() {
        return Ok(());
    }
    Err(differs(target, &wrong))
}

fn differs(target: &Target, wrong: &[String]) -> Failure {
    Failure::new(format!(
        "{} does not hold what was put there: {}",
        target.shown(),
        wrong.join("; ")
    ))
}

/// Takes out of a bucket what was put there: all of it, because it was empty.
fn empty(place: &Place, target: &Target, remove: bool) -> Result<()> {
    if remove {
        return target.remove();
    }
    let nothing = place.folder.path().join("nothing.jsonl");
    std::fs::write(&nothing, "").or_fail(|| format!("cannot write {}", nothing.display()))?;
    let changes = Changes::plan(target, &nothing, Scope::Whole, place.folder.path())?;
    changes.apply(target, &mut |_| Ok(Box::new(std::io::empty())))
}

/// A directory's content and its name are on the disk when this returns.
fn flush(folder: &Path) -> Result<()> {
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .or_fail(|| format!("cannot flush {}", folder.display()))
}
