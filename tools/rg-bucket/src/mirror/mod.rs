//! `mirror A B`: B gets what A has, and proves it.
//!
//! Both lists are read in full before anything is written; a list that could not be read is an
//! error, so that nothing is ever deleted because it did not show. Deletions happen only when asked
//! for, after all copies are proven, and never above a set share. An object that is the same on
//! both sides is not read again. What is under way is bounded by [`PARALLEL`] objects and the
//! memory that `copy` allows.

mod account;
mod body;
mod copy;
mod manifest;
mod spool;
mod trouble;
mod uploads;
mod walk;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use futures_util::stream::{self, StreamExt};
use rg_common::cli::Context;
use rg_common::report::{self, Report};
use rg_common::s3::S3Error;
use rg_common::{Failure, OrFail, Result, stop};

use crate::pages::{Objects, printable};
use crate::target::{Target, choose_one};
use crate::{args, live};
use account::{Keys, Mirrored};
use copy::{Copier, Done};
use manifest::{Known, Place, Sides};
use spool::{Entry, Sorted, Spool};
use trouble::Trouble;
use walk::{Item, Walk};

/// Objects that are copied, or deleted, side by side.
const PARALLEL: usize = 8;
/// After so many objects that could not be copied the run ends: something is wrong with more than them.
const FAILED_MAX: u64 = 100;

/// `rg-bucket mirror`
pub fn mirror(context: &Context, args: &args::Mirror) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let from = choose_one(&config, Some(&args.from))?.open(context, &config)?;
    let to = choose_one(&config, Some(&args.to))?.open(context, &config)?;
    refuse(&from, &to, args)?;
    let folder =
        config
            .state
            .join("mirror")
            .join(format!("{}--{}", word(&from.name), word(&to.name)));
    let work = Work::begin(&folder)?;
    let sides = Sides {
        from: identity(&from),
        to: identity(&to),
    };
    let place = Place::new(&folder, sides);
    let source = listed(&from, &work.lists, "source")?;
    if source.count == 0 {
        return Err(Failure::new(format!("nothing is mirrored: the source {} is empty", from.shown()))
            .hint("is it the right bucket? an empty source would empty the target, so it is refused always"));
    }
    let target = listed(&to, &work.lists, "target")?;
    if !args.dry_run {
        place.recover()?;
    }
    let lists = Lists {
        source: &source,
        target: &target,
        place: &place,
        reread: args.reread,
    };
    let mut mirrored = Mirrored {
        from: from.name.clone(),
        to: to.name.clone(),
        dry_run: args.dry_run,
        objects: source.count,
        ..Mirrored::default()
    };
    foresee(&lists, args.delete, &mut mirrored)?;
    limit(&mirrored, &target, &to, args)?;
    if args.dry_run {
        return Ok(Box::new(mirrored));
    }
    if args.delete && mirrored.extra > 0 {
        let count = report::counted(mirrored.extra, "objects");
        context.confirm(
            &format!(
                "delete {count}, which the source does not have, from {}?",
                to.shown()
            ),
            args.yes,
        )?;
    }
    (mirrored.to_copy, mirrored.to_delete) = (Keys::default(), Keys::default());
    let copier = Copier::new(&from, &to, live::can_lock(&to)?, args.reread);
    let outcome = copy_all(&copier, &lists, &mut mirrored);
    let open = copier.uploads.abandon(&to);
    if open > 0 {
        tracing::warn!(
            "{} could not be dropped; `rg-bucket clean {}` drops what is left later",
            report::counted(open, "uploads"),
            to.name
        );
    }
    outcome?;
    let is_whole = mirrored.failed.count + mirrored.differs.count + mirrored.changed.count == 0;
    if args.delete && mirrored.extra > 0 && is_whole {
        delete_extra(&to, &lists, &mut mirrored)?;
    }
    Ok(Box::new(mirrored))
}

/// What is wrong with the question itself.
fn refuse(from: &Target, to: &Target, args: &args::Mirror) -> Result<()> {
    if identity(from) == identity(to) {
        return Err(Failure::new(format!(
            "{} and {} are the same bucket",
            from.name, to.name
        )));
    }
    if to.is_store && args.delete {
        return Err(Failure::new(format!(
            "{} holds backups: nothing is deleted there by a mirror",
            to.name
        ))
        .hint(
            "mirror without --delete; `rg-backup prune` deletes what retention no longer wants",
        ));
    }
    Ok(())
}

/// The files of one mirror, for one run at a time.
struct Work {
    lists: PathBuf,
    _lock: File,
}

impl Work {
    fn begin(folder: &Path) -> Result<Work> {
        let what = || format!("cannot use {}", folder.display());
        let lists = folder.join("lists");
        fs::create_dir_all(folder).or_fail(what)?;
        let lock = File::create(folder.join("lock")).or_fail(what)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(
                    Failure::new("this mirror is running already").hint("wait for it to end")
                );
            }
            Err(TryLockError::Error(error)) => return Err(Failure::because(what(), error)),
        }
        // A killed run leaves its lists.
        if lists.exists() {
            fs::remove_dir_all(&lists).or_fail(what)?;
        }
        fs::create_dir_all(&lists).or_fail(what)?;
        Ok(Work { lists, _lock: lock })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // The next run removes what stays.
        fs::remove_dir_all(&self.lists).ok();
    }
}

fn word(name: &str) -> String {
    name.replace(['/', ':'], "_")
}

fn identity(target: &Target) -> String {
    let endpoint = target
        .service
        .endpoint
        .as_deref()
        .unwrap_or(&target.service.region);
    format!(
        "{}/{}/{}",
        endpoint.trim_end_matches('/').to_ascii_lowercase(),
        target.bucket,
        target.prefix
    )
}

fn listed(target: &Target, place: &Path, name: &'static str) -> Result<Sorted> {
    let mut spool = Spool::new(place, name);
    let mut pages = Objects::new(target, &target.prefix);
    while let Some(page) = pages.next_page()? {
        for object in page {
            let key = object
                .key
                .strip_prefix(&target.prefix)
                .unwrap_or(&object.key)
                .to_owned();
            spool.push(Entry {
                key,
                size: object.size,
                etag: object.etag,
            })?;
        }
    }
    Ok(spool.finish())
}

/// Everything that a walk reads; it can be walked more than once.
struct Lists<'a> {
    source: &'a Sorted,
    target: &'a Sorted,
    place: &'a Place,
    reread: bool,
}

impl Lists<'_> {
    fn walk(&self) -> Result<Walk> {
        Ok(Walk::new(
            self.source.read()?,
            self.target.read()?,
            self.place.read()?,
            self.reread,
        ))
    }
}

/// What a run would do.
fn foresee(lists: &Lists, delete: bool, mirrored: &mut Mirrored) -> Result<()> {
    for item in lists.walk()? {
        stop::check()?;
        match item? {
            Item::Copy(entry) => {
                mirrored.copied_bytes += entry.size;
                mirrored.to_copy.add(entry.key);
            }
            Item::Compare(_) => mirrored.to_compare += 1,
            Item::Same(_) => mirrored.unchanged += 1,
            Item::Extra(entry) => {
                mirrored.extra += 1;
                if delete {
                    mirrored.to_delete.add(entry.key);
                }
            }
        }
    }
    Ok(())
}

/// The share of deletions that is allowed.
fn limit(mirrored: &Mirrored, target: &Sorted, to: &Target, args: &args::Mirror) -> Result<()> {
    let allowed = target.count * u64::from(args.max_delete);
    if args.delete && mirrored.extra * 100 > allowed {
        return Err(Failure::new(format!(
            "nothing is mirrored: {} of {} in {} would be deleted, more than {}%",
            report::count(mirrored.extra),
            report::counted(target.count, "objects"),
            to.shown(),
            args.max_delete
        ))
        .hint("see which with --dry-run --max-delete 100%; raise --max-delete when it is meant"));
    }
    Ok(())
}

fn copy_all(copier: &Copier, lists: &Lists, mirrored: &mut Mirrored) -> Result<()> {
    let mut writer = lists.place.write()?;
    mirrored.copied_bytes = 0;
    mirrored.unchanged = 0;
    let walk = lists
        .walk()?
        .filter(|item| !matches!(item, Ok(Item::Extra(_))));
    let calls = walk.map(|item| async move {
        match item? {
            Item::Same(known) => Ok(Step::Same(known)),
            Item::Copy(entry) | Item::Extra(entry) => {
                let done = copier.copy(&entry).await;
                Ok(Step::Copied(done.map(|done| (done, true)), entry))
            }
            Item::Compare(entry) => Ok(Step::Copied(copier.compare(&entry).await, entry)),
        }
    });
    // In the order of the keys, so that the manifest is sorted and a killed run can go on.
    let mut steps = std::pin::pin!(stream::iter(calls).buffered(PARALLEL));
    while let Some(step) = copier.to.client.wait(steps.next())? {
        match step? {
            Step::Same(known) => {
                mirrored.unchanged += 1;
                writer.add(&known)?;
            }
            Step::Copied(Ok((done, written)), entry) => {
                tracing::debug!("proven: {}", printable(&entry.key));
                writer.add(&done.known)?;
                mirrored.take(&done, &entry, written);
            }
            Step::Copied(Err(trouble), entry) => mirrored.stumble(trouble, &entry),
        }
        if mirrored.failed.count >= FAILED_MAX {
            break;
        }
    }
    // A run that gave up keeps what it has proven as a killed one does.
    if mirrored.failed.count < FAILED_MAX {
        writer.finish()?;
    }
    Ok(())
}

enum Step {
    Same(Known),
    /// Proven, and whether it had to be written; or not.
    Copied(std::result::Result<(Done, bool), Trouble>, Entry),
}

fn delete_extra(to: &Target, lists: &Lists, mirrored: &mut Mirrored) -> Result<()> {
    let extra = lists.walk()?.filter_map(|item| match item {
        Ok(Item::Extra(entry)) => Some(Ok(entry)),
        Ok(_) => None,
        Err(failure) => Some(Err(failure)),
    });
    let calls = extra.map(|entry| async move {
        let entry = entry?;
        let key = format!("{}{}", to.prefix, entry.key);
        let outcome = to
            .client
            .sdk()
            .delete_object()
            .bucket(&to.bucket)
            .key(key)
            .send()
            .await;
        Ok::<_, Failure>((entry.key, outcome.map_err(S3Error::of)))
    });
    let mut steps = std::pin::pin!(stream::iter(calls).buffer_unordered(PARALLEL));
    while let Some(step) = to.client.wait(steps.next())? {
        match step? {
            (_, Ok(_)) => mirrored.deleted += 1,
            (key, Err(error)) => {
                let failure = to.client.failure("cannot delete it", error);
                mirrored.failed.add(format!(
                    "{}: {}",
                    printable(&key),
                    report::with_hints(&failure)
                ));
            }
        }
        if mirrored.failed.count >= FAILED_MAX {
            break;
        }
    }
    Ok(())
}
