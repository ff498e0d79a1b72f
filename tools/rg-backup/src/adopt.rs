//! Taking the old scripts' files into the catalog: each is read to its end and judged before it
//! counts. The originals stay where they are.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rg_common::catalog::manifest::{Extent, FORMAT};
use rg_common::catalog::{self, Content, Manifest};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig, DatasetKind};
use rg_common::dataset;
use rg_common::names::{BackupId, Stamp};
use rg_common::report::{Outcome, Page, Report, Tone};
use rg_common::seal::{self, Compression, Recipe};
use rg_common::stop::{self, Stoppable};
use rg_common::store::{self, Store};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args::Adopt;
use rg_common::progress::Progress;

#[derive(Serialize)]
struct Adopted {
    dry_run: bool,
    files: Vec<Judged>,
}

#[derive(Serialize)]
struct Judged {
    file: String,
    id: Option<String>,
    /// `adopted`, `known` or `refused`.
    verdict: &'static str,
    said: String,
}

/// Adopts every old backup in a folder, the oldest first.
pub fn adopt(context: &Context, args: &Adopt) -> Result<Box<dyn Report>> {
    let config = context.config()?;
    let chosen = config
        .datasets
        .iter()
        .find(|dataset| dataset.name == args.dataset);
    let dataset = match chosen {
        Some(dataset) => dataset,
        None => config
            .select(&[args.dataset.to_string()])?
            .into_iter()
            .next()
            .filter(|d| d.name == args.dataset)
            .ok_or_else(|| {
                Failure::new(format!("`{}` is not one dataset", args.dataset))
                    .hint("name it in full, such as production/database")
            })?,
    };
    let open = match args.dry_run {
        true => store::open_named,
        false => store::open_to_write,
    };
    let store = open(&config, &dataset.stores[0])?;
    // With --dry-run a store that does not exist yet stays so: it knows nothing.
    let there = !store::is_to_be_made(&config, &dataset.stores[0])?;
    let mut adopted = Adopted {
        dry_run: args.dry_run,
        files: Vec::new(),
    };
    let mut found = old_backups(&args.path, &dataset.kind)?;
    found.sort();
    if found.is_empty() {
        return Err(
            Failure::new(format!("no old backup in {}", args.path.display())).hint(format!(
                "for {} these are looked for: {}",
                dataset.name,
                suffixes(&dataset.kind).join(", ")
            )),
        );
    }
    let lock = match args.dry_run {
        true => None,
        false => Some(store.lock(dataset.name.as_str())?),
    };
    if lock.is_some() {
        catalog::sweep(&*store, &dataset.name)?;
    }
    for path in found {
        stop::check()?;
        adopted.files.push(one(
            context,
            &config,
            dataset,
            &*store,
            there,
            &path,
            args.dry_run,
        ));
    }
    Ok(Box::new(adopted))
}

fn suffixes(kind: &DatasetKind) -> &'static [&'static str] {
    match kind {
        DatasetKind::Database(_) => &[
            ".sql",
            ".sql.gz",
            ".sql.zst",
            ".dump",
            ".dump.gz",
            ".dump.zst",
        ],
        DatasetKind::Globals(_) => &[],
        DatasetKind::Files(_) | DatasetKind::Bucket(_) => &[".tar", ".tar.gz", ".tgz", ".tar.zst"],
    }
}

fn old_backups(path: &Path, kind: &DatasetKind) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let what = || format!("cannot read {}", path.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(path).or_fail(what)? {
        let entry = entry.or_fail(what)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if suffixes(kind).iter().any(|suffix| name.ends_with(suffix)) && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn one(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    store: &dyn Store,
    there: bool,
    path: &Path,
    dry_run: bool,
) -> Judged {
    let mut judged = Judged {
        file: path.display().to_string(),
        id: None,
        verdict: "refused",
        said: String::new(),
    };
    let outcome = stamp_of(path, context).and_then(|stamp| {
        let id = BackupId {
            dataset: dataset.name.clone(),
            stamp,
        };
        judged.id = Some(id.to_string());
        if there && catalog::exists(store, &id)? {
            return Ok(None);
        }
        take(context, config, dataset, store, path, &id, dry_run).map(Some)
    });
    (judged.verdict, judged.said) = match outcome {
        Ok(None) => ("known", "is in the catalog already".to_owned()),
        Ok(Some(manifest)) => {
            let (count, what) = manifest.content.count();
            (
                "adopted",
                format!(
                    "{}, read to the end",
                    rg_common::report::counted(count, what)
                ),
            )
        }
        Err(failure) => ("refused", failure.to_string()),
    };
    judged
}

/// The stamp in the name, which the scripts wrote in the host's time zone; else the file's time.
fn stamp_of(path: &Path, context: &Context) -> Result<Stamp> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let digits = |at: usize| {
        name.get(at..at + 15)
            .and_then(|text| Stamp::parse_in(text, &context.zone).ok())
    };
    if let Some(stamp) = (0..name.len()).find_map(digits) {
        return Ok(stamp);
    }
    let meta = fs::metadata(path).or_fail(|| format!("cannot read {}", path.display()))?;
    let time = meta
        .modified()
        .or_fail(|| format!("cannot read the time of {}", path.display()))?;
    Ok(Stamp::at(Timestamp::try_from(time).or_fail(|| {
        format!("cannot read the time of {}", path.display())
    })?))
}

/// Reads a file to its end for what it holds, then stores it as it is, encrypted if backups are.
fn take(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    store: &dyn Store,
    path: &Path,
    id: &BackupId,
    dry_run: bool,
) -> Result<Manifest> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let inner = suffixes(&dataset.kind)
        .iter()
        .filter(|suffix| name.ends_with(**suffix))
        .max_by_key(|suffix| suffix.len());
    let inner = inner.ok_or_else(|| {
        Failure::new("its name does not say what it is").hint(format!(
            "expected is one of {}",
            suffixes(&dataset.kind).join(", ")
        ))
    })?;
    let inner = if *inner == ".tgz" { ".tar.gz" } else { inner };
    let (content, plain) = judge(context, config, dataset, path, inner)?;
    let recipe = Recipe {
        compression: Compression::None,
        recipients: dataset::recipe(config, &dataset.kind)?.recipients,
    };
    let file = format!("{}{inner}{}", id.stem(), recipe.extension());
    let now = context.clock();
    let mut manifest = Manifest {
        format: FORMAT,
        id: id.clone(),
        host: config.host.clone(),
        started: now,
        finished: now,
        tool: context.tool.clone(),
        plain,
        stored: Extent {
            bytes: 0,
            sha256: String::new(),
        },
        encrypted_to: config.recipients.clone(),
        restore_with: dataset::restore_with(&file),
        file,
        adopted_from: Some(path.display().to_string()),
        content,
        notes: Vec::new(),
    };
    if dry_run {
        return Ok(manifest);
    }
    catalog::begin(store, id)?;
    let stored = (|| {
        let source = Stoppable(open(path)?);
        let mut sealer = seal::seal(source, &recipe)?;
        let key = catalog::beside(id, &manifest.file)?;
        store
            .put(&key, &mut sealer)
            .map_err(|error| error.into_failure(format!("cannot adopt {}", path.display())))?;
        let (_, digests) = sealer.finish()?;
        manifest.stored = Extent {
            bytes: digests.stored_bytes,
            sha256: digests.stored_sha256,
        };
        manifest.finished = context.clock();
        catalog::check_stored(store, &manifest)?;
        catalog::record(store, &manifest)
    })();
    if stored.is_err()
        && let Err(left) = catalog::abandon(store, id)
    {
        tracing::warn!("{left}; the next run removes it");
    }
    stored.map(|()| manifest)
}

fn judge(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    path: &Path,
    inner: &str,
) -> Result<(Content, Extent)> {
    let size = fs::metadata(path)
        .or_fail(|| format!("cannot read {}", path.display()))?
        .len();
    let file = Progress::new(
        context,
        &path.display().to_string(),
        Some(size),
        Stoppable(open(path)?),
    );
    let opener = seal::open(file, inner, None)?;
    let scratch = Scratch::new(context, config)?;
    let (mut content, opener) = dataset::survey(&dataset.kind, opener, &scratch.0)
        .map_err(|failure| failure.context(format!("cannot read {}", path.display())))?;
    match (&mut content, &dataset.kind) {
        (Content::Files(files), _) => files.path = path.display().to_string(),
        (Content::Database(found), DatasetKind::Database(database)) => {
            dataset::database::check_required(&found.inventory, &database.required_tables)?;
        }
        _ => {}
    }
    let (_, digests) = opener.finish()?;
    Ok((
        content,
        Extent {
            bytes: digests.plain_bytes,
            sha256: digests.plain_sha256,
        },
    ))
}

/// Where an archive is unpacked to be judged; gone when this is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(context: &Context, config: &Config) -> Result<Scratch> {
        let folder = config.state.join("tmp");
        fs::create_dir_all(&folder).or_fail(|| format!("cannot make {}", folder.display()))?;
        let nonce = context.clock().as_nanosecond();
        Ok(Scratch(
            folder.join(format!("adopt-{}-{nonce}", std::process::id())),
        ))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && self.0.exists()
        {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn open(path: &Path) -> Result<impl Read> {
    File::open(path).or_fail(|| format!("cannot read {}", path.display()))
}

impl Report for Adopted {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        for judged in &self.files {
            let (tone, sign) = match judged.verdict {
                "adopted" => (Tone::Good, "✓"),
                "known" => (Tone::Faint, "="),
                _ => (Tone::Bad, "✗"),
            };
            let id = judged
                .id
                .as_deref()
                .map_or(String::new(), |id| format!(" as {id}"));
            page.line(format!(
                "{}  {}: {}{id}: {}",
                page.tone(tone, sign),
                judged.file,
                judged.verdict,
                judged.said
            ));
        }
        if self.dry_run {
            page.line("nothing was written (--dry-run)");
        }
    }

    fn outcome(&self) -> Outcome {
        if self.files.iter().any(|judged| judged.verdict == "refused") {
            Outcome::BadNews
        } else {
            Outcome::Well
        }
    }
}
