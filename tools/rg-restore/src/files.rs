//! A directory restored beside the live one, and proven to be what the backup recorded.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rg_common::catalog::Content;
use rg_common::cli::Context;
use rg_common::config::{Config, FilesConfig};
use rg_common::files::{self, ArchiveOptions, ExtractOptions, FilesInventory, Limits, Owner};
use rg_common::names::Stamp;
use rg_common::seal::Identities;
use rg_common::store::free_bytes;
use rg_common::{Failure, OrFail, Result, report, stop};

use crate::database::Trouble;
use crate::scratch;
use crate::source::Source;

/// How many differing paths a message names.
const NAMED_PATHS: usize = 8;

/// `/srv/.uploads.rg-WORD-20260123_030000`, beside `/srv/uploads`: on the same file system, and
/// hidden from the app.
pub fn sibling(live: &Path, word: &str, stamp: Stamp) -> Result<PathBuf> {
    let name = live
        .file_name()
        .ok_or_else(|| Failure::new(format!("{} cannot be restored as a whole", live.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".rg-{word}-{stamp}"));
    Ok(live.with_file_name(hidden))
}

/// Removes what killed restores left beside a directory.
pub fn sweep(live: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (live.parent(), live.file_name()) else {
        return Ok(());
    };
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Ok(());
    };
    let prefix = format!(".{}.rg-restoring-", name.to_string_lossy());
    for entry in entries.flatten() {
        let found = entry.file_name().to_string_lossy().into_owned();
        if found
            .strip_prefix(&prefix)
            .is_some_and(|stamp| stamp.parse::<Stamp>().is_ok())
        {
            tracing::info!(
                "removing {}, left by a killed restore",
                entry.path().display()
            );
            scratch::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A mount point or a symbolic link cannot change places with a directory: said before anything
/// is restored beside it.
pub fn refuse_what_cannot_be_exchanged(live: &Path) -> Result<()> {
    let Ok(meta) = live.symlink_metadata() else {
        return Ok(());
    };
    let cannot = |why: &str| Failure::new(format!("{} is {why}", live.display()));
    if meta.is_symlink() {
        return Err(
            cannot("a symbolic link, which cannot be exchanged for a directory")
                .hint("configure the path that it points to"),
        );
    }
    if !meta.is_dir() {
        return Err(cannot("not a directory").hint("the path stands in rg.toml"));
    }
    let found = rustix::fs::statx(
        rustix::fs::CWD,
        live,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        rustix::fs::StatxFlags::BASIC_STATS,
    );
    let mounted = found.is_ok_and(|found| {
        found
            .stx_attributes
            .contains(rustix::fs::StatxAttributes::MOUNT_ROOT)
    });
    if mounted {
        return Err(cannot("a mount point, which cannot be exchanged for a directory")
            .hint("configure a directory below it, or restore with --beside and move the files yourself"));
    }
    Ok(())
}

fn inventory(source: &Source) -> Result<&FilesInventory> {
    match &source.manifest.content {
        Content::Files(content) => Ok(&content.inventory),
        other => Err(Failure::new(format!(
            "{} holds {}, not files",
            source.name(),
            other.kind()
        ))),
    }
}

/// What can be known before a byte is read: the owner, free space.
pub fn check(source: &Source, config: &FilesConfig, beside: &Path) -> Result<()> {
    owner(config)?;
    let needed = inventory(source)?.bytes;
    match free_bytes(beside) {
        Some(free) if free < needed => Err(Failure::new(format!(
            "too little space beside {}: the restored files need {}, {} are free",
            beside.display(),
            report::bytes(needed),
            report::bytes(free)
        ))
        .hint("the live directory stays until the restored one is proven, so both must fit; nothing was changed")),
        _ => Ok(()),
    }
}

/// Extracts a backup into a new directory and compares what came to lie there with what was
/// recorded. On any failure the directory is removed again.
pub fn unpack(
    context: &Context,
    config: &Config,
    source: &Source,
    files: &FilesConfig,
    into: &Path,
    identities: Option<&Identities>,
) -> Result<(), Trouble> {
    let filled = fill(context, config, source, files, into, identities);
    if filled.is_err()
        && let Err(failure) = scratch::remove(into)
    {
        tracing::warn!("{failure}; the next command removes it");
    }
    filled
}

fn fill(
    context: &Context,
    config: &Config,
    source: &Source,
    files: &FilesConfig,
    into: &Path,
    identities: Option<&Identities>,
) -> Result<(), Trouble> {
    let recorded = inventory(source)?;
    let owner = owner(files)?;
    let foreign = source.manifest.adopted_from.is_some();
    let options = ExtractOptions {
        owner,
        limits: Limits::of(recorded),
        allow_setuid: !foreign && owner == Owner::Recorded,
        attributes: !foreign,
    };
    let blame = |failure| match stop::check() {
        Ok(()) => source.blame(config, failure),
        Err(stopped) => Trouble::Unknown(stopped),
    };
    let mut plain = source.open(context, config, identities).map_err(blame)?;
    let held = files::extract(&mut plain, into, options, &mut |_| Ok(())).map_err(blame)?;
    // The archive's own end is not the stream's: the digests are checked at the latter.
    std::io::copy(&mut plain.by_ref(), &mut std::io::sink())
        .map_err(|error| blame(Failure::from_io("cannot read the backup to its end", error)))?;
    if held.digest != recorded.digest {
        return Err(Trouble::Bad(differs(
            source,
            "the archive holds",
            &held,
            recorded,
        )));
    }
    let found = files::scan(into, ArchiveOptions::default(), &mut |_| Ok(()))?;
    let same = match owner {
        Owner::Recorded if !foreign => found.digest == recorded.digest,
        _ => found.content_digest == recorded.content_digest,
    };
    if !same {
        return Err(Trouble::Bad(differs(
            source,
            "on disk are",
            &found,
            recorded,
        )));
    }
    if foreign {
        descend(into, &files.path)?;
    }
    Ok(())
}

/// The old scripts' archives hold the directory under its own name (`uploads/…`) or under its
/// whole path: what is restored is the directory itself.
fn descend(into: &Path, live: &Path) -> Result<()> {
    let names: Vec<_> = live.components().skip(1).collect();
    let inner = (0..names.len())
        .map(|from| into.join(names[from..].iter().collect::<PathBuf>()))
        .find(|inner| inner.is_dir() && is_only_content(into, inner));
    let Some(inner) = inner else { return Ok(()) };
    let mut apart = into.as_os_str().to_owned();
    apart.push("-inner");
    let apart = PathBuf::from(apart);
    rename(&inner, &apart)?;
    scratch::remove(into)?;
    rename(&apart, into)
}

/// Whether nothing lies in `into` but the way to `inner`.
fn is_only_content(into: &Path, inner: &Path) -> bool {
    let mut way = inner;
    while way != into {
        let Some(parent) = way.parent() else {
            return false;
        };
        if std::fs::read_dir(parent).map_or(true, |entries| entries.count() != 1) {
            return false;
        }
        way = parent;
    }
    true
}

fn differs(
    source: &Source,
    what: &str,
    found: &FilesInventory,
    recorded: &FilesInventory,
) -> Failure {
    let notes: Vec<&str> = found
        .notes
        .iter()
        .take(NAMED_PATHS)
        .map(String::as_str)
        .collect();
    let figures = |i: &FilesInventory| {
        format!(
            "{}, {}, {}, {}",
            report::counted(i.files, "files"),
            report::counted(i.directories, "directories"),
            report::counted(i.links, "links"),
            report::bytes(i.bytes)
        )
    };
    let mut failure = Failure::new(format!(
        "what was restored from {} is not what was recorded: {what} {}, recorded were {}",
        source.name(),
        figures(found),
        figures(recorded)
    ));
    if figures(found) == figures(recorded) {
        failure = failure.hint("the counts agree: a file's content, mode, owner or time differs");
    }
    if !notes.is_empty() {
        failure = failure.hint(notes.join("; "));
    }
    failure
}

/// Who will own what is restored: as configured, as recorded for root, ourselves otherwise.
fn owner(files: &FilesConfig) -> Result<Owner> {
    let root = rustix::process::geteuid().is_root();
    match &files.owner {
        None if root => Ok(Owner::Recorded),
        None => Ok(Owner::Mine),
        Some(text) => {
            let (user, group) = text.split_once(':').unwrap_or((text, text));
            let ids = (number(user, "/etc/passwd")?, number(group, "/etc/group")?);
            let me = (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            match () {
                () if root => Ok(Owner::Fixed(ids.0, ids.1)),
                () if ids == me => Ok(Owner::Mine),
                () => Err(Failure::new(format!("only root can give files to {text}"))
                    .hint("run it with sudo")),
            }
        }
    }
}

/// A user's or a group's number, by name or by number.
fn number(name: &str, table: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = std::fs::read_to_string(table).or_fail(|| format!("cannot read {table}"))?;
    let of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    };
    text.lines().find_map(of).ok_or_else(|| {
        Failure::new(format!("no `{name}` in {table}"))
            .hint("the name stands in `owner` in rg.toml")
    })
}

/// Device and inode: what a path means after a crash.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path)
        .ok()
        .map(|meta| (meta.dev(), meta.ino()))
}

/// Puts `fresh` under the name `live`; what was there is called `aside` from then on.
pub fn exchange(live: &Path, fresh: &Path, aside: &Path) -> Result<()> {
    if live.symlink_metadata().is_err() {
        return rename(fresh, live);
    }
    files::exchange(fresh, live)?;
    // From here on the new tree is live; the old one only still has the new one's name.
    rename(fresh, aside)
}

/// Renames and makes it durable.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("cannot rename {} to {}", from.display(), to.display());
    if to.symlink_metadata().is_ok() {
        return Err(Failure::new(format!("{}: there is one already", what())));
    }
    std::fs::rename(from, to).or_fail(what)?;
    let parent = to.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|folder| folder.sync_all())
        .or_fail(|| format!("cannot flush {}", parent.display()))
}
