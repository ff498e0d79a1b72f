//! `import`: what a kit holds goes back to its place, or into a directory.
//!
//! Nothing that differs is overwritten without `--yes`; what would change is shown by the names of
//! variables, never by their values.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::report::{Outcome, Page, Report, Tone};
use rg_common::{OrFail, Result};
use serde::Serialize;

use crate::args::Import;
use crate::edit::EditedFile;
use crate::kit::{self, Key, Kit, Packed, Role};
use crate::replace::{self, Manner};
use crate::{export, owners, passphrase};

#[derive(Serialize)]
struct Imported {
    host: String,
    time: jiff::Timestamp,
    files: Vec<FileImported>,
    /// Whether something differs and was left alone.
    refused: bool,
    dry_run: bool,
}

#[derive(Serialize)]
struct FileImported {
    path: PathBuf,
    /// `new`, `same` or `differs`.
    state: &'static str,
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    /// Who it belonged to, where that could not be given back.
    not_given_to: Option<String>,
}

/// Runs `rg-envgen import`.
pub fn import(_context: &Context, args: &Import) -> Result<Box<dyn Report>> {
    let sealed = kit::read(&args.file)?;
    let key = match (&args.identity, &args.passphrase_file) {
        (Some(path), _) => export::identity(path)?,
        (None, Some(path)) => Key::Passphrase(passphrase::from_file(path)?),
        (None, None) => Key::Passphrase(passphrase::asked(false)?),
    };
    let at = || format!("cannot import {}", args.file.display());
    let plain = kit::opened(&sealed, &key).map_err(|failure| failure.context(at()))?;
    let kit = Kit::unpacked(&plain).map_err(|failure| failure.context(at()))?;
    let base = common_directory(&kit);
    let target = |file: &Packed| match &args.dir {
        Some(dir) => dir.join(file.path.strip_prefix(&base).unwrap_or(&file.path)),
        None => file.path.clone(),
    };
    let mut files = Vec::new();
    for file in &kit.files {
        files.push(compared(&target(file), file)?);
    }
    let differs = files.iter().any(|file| file.state == "differs");
    let refused = differs && !args.yes;
    if !args.dry_run && !refused {
        for (file, record) in kit.files.iter().zip(&mut files) {
            if record.state != "same" {
                record.not_given_to = put(&target(file), file)?;
            }
        }
    }
    Ok(Box::new(Imported {
        host: kit.host.clone(),
        time: kit.time,
        files,
        refused: refused && !args.dry_run,
        dry_run: args.dry_run,
    }))
}

/// The longest directory that all files of a kit lie in.
fn common_directory(kit: &Kit) -> PathBuf {
    let mut base = kit
        .files
        .first()
        .map(|file| replace::directory_of(&file.path))
        .unwrap_or_default();
    for file in &kit.files {
        while !file.path.starts_with(&base) && base.pop() {}
    }
    base
}

fn compared(path: &Path, file: &Packed) -> Result<FileImported> {
    let mut record = FileImported {
        path: path.to_owned(),
        state: "new",
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
        not_given_to: None,
    };
    if path.symlink_metadata().is_err() {
        return Ok(record);
    }
    let there = kit::read(path)?;
    if there == file.content {
        record.state = "same";
        return Ok(record);
    }
    record.state = "differs";
    if matches!(file.role, Role::Env | Role::Keys) {
        let parse = |bytes: &[u8]| EditedFile::parse(&String::from_utf8_lossy(bytes));
        if let (Ok(old), Ok(new)) = (parse(&there), parse(&file.content)) {
            let names = |one: &EditedFile, other: &EditedFile| -> Vec<String> {
                let only = one.names().filter(|name| other.get(name).is_none());
                only.map(str::to_owned).collect()
            };
            record.added = names(&new, &old);
            record.removed = names(&old, &new);
            let both = new.names().filter(|name| {
                old.get(name)
                    .is_some_and(|value| Some(value) != new.get(name))
            });
            record.changed = both.map(str::to_owned).collect();
        }
    }
    Ok(record)
}

/// Writes one file; whom it could not be given to.
fn put(path: &Path, file: &Packed) -> Result<Option<String>> {
    let what = || format!("cannot write {}", path.display());
    let directory = replace::directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&directory)
        .or_fail(what)?;
    let _held = replace::hold(&directory)?;
    let manner = Manner {
        mode: file.mode,
        group: file.owner.1.clone(),
        fix_mode: true,
        ..Manner::default()
    };
    let new = !path.exists();
    replace::replace(path, &file.content, &manner)?;
    if !new || !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let Some(user) = &file.owner.0 else {
        return Ok(None);
    };
    let Some(number) = owners::user_number(user) else {
        return Ok(Some(user.clone()));
    };
    std::os::unix::fs::chown(path, Some(number), None).or_fail(what)?;
    Ok(None)
}

impl Report for Imported {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        page.line(format!("The kit of {}, made {}", self.host, self.time));
        for file in &self.files {
            let (tone, word) = match (file.state, self.refused, self.dry_run) {
                ("same", ..) => (Tone::Faint, "unchanged"),
                ("new", true, _) => (Tone::Plain, "not written"),
                ("new", _, true) => (Tone::Plain, "would be new"),
                ("new", ..) => (Tone::Good, "written"),
                (_, true, _) | (_, _, true) => (Tone::Warn, "differs"),
                _ => (Tone::Good, "overwritten"),
            };
            page.line(format!(
                "{}  {}",
                page.tone(tone, word),
                file.path.display()
            ));
            for (sign, names) in [
                ("+", &file.added),
                ("-", &file.removed),
                ("~", &file.changed),
            ] {
                for name in names {
                    page.line(format!("    {sign} {name}"));
                }
            }
            if let Some(user) = &file.not_given_to {
                page.line(format!(
                    "    there is no user {user} here: chown it once there is"
                ));
            }
        }
        if self.refused {
            page.line("Nothing was written: --yes overwrites what differs.");
        }
    }

    fn outcome(&self) -> Outcome {
        if self.refused {
            Outcome::Incomplete
        } else {
            Outcome::Well
        }
    }
}
