//! What a restore takes out of a bucket, kept until it is certain that nobody wants it back.
//!
//! `STATE/restore/DATASET_before_STAMP.objects/` holds `objects.tar.zst` and `objects.jsonl` (the
//! format of a backup) of all that was replaced or deleted, and `created.jsonl` with the keys that
//! were not there. It appears whole, before the first change, and `done` in it says that the change
//! was made and compared. So a crash at any instruction can be told and taken back.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::config::Config;
use rg_common::dataset::bucket::{Changes, OpenArchive, Scope, Target, prove, wanted_as_listed};
use rg_common::names::{DatasetName, Stamp};
use rg_common::seal::{self, Compression, Recipe, Recipients};
use rg_common::store::free_bytes;
use rg_common::{Failure, OrFail, Result, report};

use super::{Place, differs, flush};
use crate::journal::Part;
use crate::{live, scratch};

/// So often a bucket is put as it was, where it does not hold that afterwards.
const TAKE_BACK_TRIES: u32 = 3;
const SUFFIX: &str = ".objects";
const UNFINISHED: &str = ".objects.tmp";
const ARCHIVE: &str = "objects.tar.zst";
const LIST: &str = "objects.jsonl";
const CREATED: &str = "created.jsonl";
/// There when the bucket itself was made.
const MADE: &str = "made";
const DONE: &str = "done";

/// Where what a restore of that stamp replaces is kept.
pub fn path(config: &Config, dataset: &DatasetName, stamp: Stamp) -> Result<PathBuf> {
    let name = dataset.as_str().replace('/', ".");
    let name = format!("{name}{}{stamp}{SUFFIX}", live::BEFORE);
    Ok(scratch::restore_folder(config)?.join(name))
}

/// Whether a name in `STATE/restore` is that of such a directory, finished or not.
pub fn is_safety(name: &str) -> bool {
    name.ends_with(SUFFIX) || name.ends_with(UNFINISHED)
}

/// How far a change of a bucket came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was changed.
    Untouched,
    /// Something may have been changed.
    Half,
    /// All was changed and compared.
    Done,
}

/// How far the change came that keeps what it replaces there.
pub fn progress(safety: &Path) -> Progress {
    match (safety.exists(), safety.join(DONE).exists()) {
        (false, _) => Progress::Untouched,
        (true, false) => Progress::Half,
        (true, true) => Progress::Done,
    }
}

/// Whether what will be replaced fits beside `STATE/restore`; compression is not counted on.
pub fn check_room(config: &Config, changes: &Changes) -> Result<()> {
    let folder = scratch::restore_folder(config)?;
    match free_bytes(&folder) {
        Some(free) if free < changes.replaced_bytes => Err(Failure::new(format!(
            "too little space in {}: what the restore replaces or deletes needs {}, {} are free",
            folder.display(),
            report::bytes(changes.replaced_bytes),
            report::bytes(free)
        ))
        .hint("what is replaced is kept there so that it can be put back; `state` in rg.toml names the place, and --beside needs none of it")),
        _ => Ok(()),
    }
}

/// Makes the bucket hold what is wanted: saves what goes, deletes, puts, reads back, compares.
pub fn change(
    context: &Context,
    config: &Config,
    place: &Place,
    scope: Scope<'_>,
    (safety, stamp): (&Path, Stamp),
    archive: &mut OpenArchive<'_>,
    notes: &mut Vec<String>,
) -> Result<Changes> {
    let target = &place.target;
    let missing = !target.exists()?;
    let changes = place.plan(target, scope)?;
    check_room(config, &changes)?;
    save(context, target, &changes, missing, safety, stamp).map_err(|failure| {
        failure.context(format!("cannot lay aside what {} holds", target.shown()))
    })?;
    if missing {
        target.make()?;
    }
    changes.apply(target, archive)?;
    let wrong = changes.check(target, &place.wanted(), scope, notes)?;
    if !wrong.is_empty() {
        return Err(differs(target, &wrong));
    }
    new_file(&safety.join(DONE))?
        .sync_all()
        .or_fail(|| format!("cannot flush {}", safety.display()))?;
    flush(safety)?;
    Ok(changes)
}

fn save(
    context: &Context,
    target: &Target,
    changes: &Changes,
    missing: bool,
    safety: &Path,
    stamp: Stamp,
) -> Result<()> {
    let folder = safety.with_extension("objects.tmp");
    scratch::remove(&folder)?;
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .or_fail(|| format!("cannot make {}", folder.display()))?;
    let what = || format!("cannot write into {}", folder.display());
    let saving = changes.save(target, &folder.join(LIST), stamp, context.now)?;
    let recipe = Recipe {
        compression: Compression::ZSTD,
        recipients: Recipients::default(),
    };
    let mut sealer = seal::seal(saving, &recipe)?;
    let mut file = new_file(&folder.join(ARCHIVE))?;
    io::copy(&mut sealer, &mut file).map_err(|error| Failure::from_io(what(), error))?;
    file.sync_all().or_fail(what)?;
    let (saving, _) = sealer.finish()?;
    let (objects, bytes) = saving.finish()?;
    tracing::info!(
        "kept {} ({}) in {}",
        report::counted(objects, "objects"),
        report::bytes(bytes),
        safety.display()
    );
    let mut created = new_file(&folder.join(CREATED))?;
    let mut keys = File::open(changes.created_keys()).or_fail(what)?;
    io::copy(&mut keys, &mut created).or_fail(what)?;
    created.sync_all().or_fail(what)?;
    if missing {
        new_file(&folder.join(MADE))?.sync_all().or_fail(what)?;
    }
    flush(&folder)?;
    fs::rename(&folder, safety).or_fail(what)?;
    flush(safety.parent().unwrap_or(Path::new("/")))
}

fn new_file(path: &Path) -> Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_fail(|| format!("cannot write {}", path.display()))
}

fn kept(safety: &Path) -> Result<Box<dyn Read>> {
    let path = safety.join(ARCHIVE);
    let file = File::open(&path).or_fail(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(seal::open(file, ARCHIVE, None)?))
}

/// Gives a bucket back what a restore took out of it, and takes out what it put there. Nothing to
/// do where nothing was changed; it can be done any number of times.
pub fn take_back(context: &Context, config: &Config, part: &Part) -> Result<()> {
    let Part::Bucket {
        dataset,
        service,
        bucket,
        safety,
        ..
    } = part
    else {
        return Ok(());
    };
    if progress(safety) == Progress::Untouched {
        return Ok(());
    }
    let place = Place::of_part(context, config, dataset, (service, bucket))?;
    let target = &place.target;
    let made = safety.join(MADE).exists();
    if !target.exists()? && made {
        return Ok(());
    }
    wanted_as_listed(&safety.join(LIST), &place.wanted())?;
    let created = safety.join(CREATED);
    let scope = Scope::Only(&created);
    let mut notes = Vec::new();
    for tries_left in (0..TAKE_BACK_TRIES).rev() {
        let changes = place.plan(target, scope)?;
        changes.apply(target, &mut |_| kept(safety))?;
        notes.clear();
        let wrong = changes.check(target, &place.wanted(), scope, &mut notes)?;
        if wrong.is_empty() {
            break;
        }
        if tries_left == 0 {
            return Err(differs(target, &wrong));
        }
        // What a killed restore had sent may arrive behind what has just been put.
        tracing::info!("{}; it is put once more", differs(target, &wrong));
    }
    for note in notes {
        tracing::warn!("{note}");
    }
    // From here on it is not what the restore made of it.
    scratch::remove(&safety.join(DONE))?;
    if made && target.is_empty()? {
        target.remove()?;
    }
    Ok(())
}

/// An undo: the kept objects, proven, and the bucket that they go back into.
pub struct PutBack<'a> {
    context: &'a Context,
    config: &'a Config,
    place: Place,
    from: PathBuf,
    into: PathBuf,
}

impl<'a> PutBack<'a> {
    /// Reads all that was kept by the restore of `stamp`; nothing is changed.
    pub fn prove(
        context: &'a Context,
        config: &'a Config,
        part: &Part,
        stamp: Stamp,
    ) -> Result<PutBack<'a>> {
        let Part::Bucket {
            dataset,
            service,
            bucket,
            safety,
            puts_back: Some(from),
        } = part
        else {
            return Err(Failure::new(format!(
                "nothing of {} can be put back",
                part.dataset()
            )));
        };
        if progress(from) != Progress::Done {
            return Err(Failure::new(format!("{} is gone", from.display()))
                .hint("restore a backup from before: rg-restore run … --at TIME"));
        }
        let place = Place::of_part(context, config, dataset, (service, bucket))?;
        prove(
            &from.join(LIST),
            None,
            &[stamp],
            &mut |_| kept(from),
            place.folder.path(),
            &place.wanted(),
        )
        .map_err(|failure| failure.context(format!("{} is damaged", from.display())))?;
        Ok(PutBack {
            context,
            config,
            place,
            from: from.clone(),
            into: safety.clone(),
        })
    }

    /// Puts it back, keeping what is there now.
    pub fn put_back(&self, stamp: Stamp) -> Result<()> {
        let created = self.from.join(CREATED);
        let mut notes = Vec::new();
        change(
            self.context,
            self.config,
            &self.place,
            Scope::Only(&created),
            (&self.into, stamp),
            &mut |_| kept(&self.from),
            &mut notes,
        )?;
        for note in notes {
            tracing::warn!("{note}");
        }
        Ok(())
    }
}
