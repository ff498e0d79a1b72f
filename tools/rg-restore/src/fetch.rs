//! A backup's data file out of its store, as it lies there or opened.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rg_common::cli::Context;
use rg_common::config::{CompressionKind, DatasetConfig, DatasetKind, FilesConfig};
use rg_common::report::{self, Outcome, Plain, Report};
use rg_common::seal::{self, Identities};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args::Fetch;
use crate::choose::{self, Wanted};

#[derive(Serialize)]
struct Fetched {
    id: String,
    file: String,
    bytes: u64,
    restore_with: String,
}

/// Fetches one backup; the file appears whole, its digest proven, or not at all.
pub fn fetch(context: &Context, args: &Fetch) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let identities = args
        .reading
        .identity
        .as_deref()
        .map(Identities::from_file)
        .transpose()?;
    let mut catalog = choose::read(&config, args.reading.store.as_deref())?;
    let dataset = stand_in(&args.id);
    let source = choose::choose(&mut catalog, &dataset, &Wanted::Id(&args.id))?;
    let manifest = &source.manifest;
    let mut name = manifest.file.as_str();
    if args.plain {
        name = name.strip_suffix(".age").unwrap_or(name);
        name = name
            .strip_suffix(".zst")
            .or_else(|| name.strip_suffix(".gz"))
            .unwrap_or(name);
    }
    let target = args.output.join(name);
    let bytes = if args.plain {
        manifest.plain.bytes
    } else {
        manifest.stored.bytes
    };
    if target.exists() {
        return Err(
            Failure::new(format!("{} is there already", target.display()))
                .hint("choose another directory with -o DIR"),
        );
    }
    if !args.dry_run {
        let what = || format!("cannot write {}", target.display());
        let temporary = args
            .output
            .join(format!(".{name}.rg-tmp-{}", std::process::id()));
        let written = if args.plain {
            write(
                &temporary,
                &mut source.open(context, &config, identities.as_ref())?,
            )
        } else {
            write_stored(
                &temporary,
                &mut source.stored_bytes(&config)?,
                &manifest.stored.sha256,
            )
        };
        if let Err(failure) = written.and_then(|()| fs::rename(&temporary, &target).or_fail(what)) {
            fs::remove_file(&temporary).ok();
            return Err(failure.context(what()));
        }
    }
    let verb = if args.dry_run { "would write" } else { "wrote" };
    let restore_with = rg_common::dataset::restore_with(name);
    let text = format!(
        "{verb} {} ({})\nrestore it without these tools: {restore_with}",
        target.display(),
        report::bytes(bytes)
    );
    let document = Fetched {
        id: args.id.to_string(),
        file: target.display().to_string(),
        bytes,
        restore_with,
    };
    Ok(Box::new(Plain {
        document,
        text,
        outcome: Outcome::Well,
    }))
}

/// An id is enough to fetch: its dataset need not be configured here.
fn stand_in(id: &rg_common::names::BackupId) -> DatasetConfig {
    DatasetConfig {
        name: id.dataset.clone(),
        environment: String::new(),
        kind: DatasetKind::Files(FilesConfig {
            path: std::path::PathBuf::new(),
            exclude: Vec::new(),
            owner: None,
            compression: CompressionKind::Zstd,
        }),
        schedule: None,
        keep: None,
        stores: Vec::new(),
    }
}

fn create(path: &Path) -> Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .or_fail(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, from: &mut impl Read) -> Result<()> {
    let mut file = create(path)?;
    io::copy(from, &mut file).map_err(|error| Failure::from_io("cannot fetch it", error))?;
    file.sync_all()
        .or_fail(|| format!("cannot flush {}", path.display()))
}

fn write_stored(path: &Path, from: &mut impl Read, sha256: &str) -> Result<()> {
    write(path, from)?;
    let (_, found) = seal::stored_digest(
        File::open(path).or_fail(|| format!("cannot read {}", path.display()))?,
    )?;
    if found == sha256 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "it is damaged: its SHA-256 is {found}, not {sha256}"
    ))
    .hint("another store may have a sound copy: --store NAME"))
}
