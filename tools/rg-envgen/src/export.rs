//! `export`: `rg.toml`, the schema, every env file and the keys that `rg.toml` names, in one file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rg_common::cli::Context;
use rg_common::report::{self, Outcome, Page, Report, Tone};
use rg_common::{Failure, OrFail, Result};
use serde::Serialize;

use crate::args::Export;
use crate::audit::{self, Act, What};
use crate::kit::{self, Key, Kit, Lock, Role};
use crate::place::{self, Place};
use crate::replace::{self, Manner};
use crate::{owners, passphrase};

#[derive(Serialize)]
struct Exported {
    output: PathBuf,
    bytes: usize,
    files: Vec<PathBuf>,
    /// What `rg.toml` names and is not there.
    absent: Vec<PathBuf>,
    /// With what it was opened again.
    proven_with: &'static str,
    dry_run: bool,
}

/// Runs `rg-envgen export`.
pub fn export(context: &Context, schema: Option<&Path>, args: &Export) -> Result<Box<dyn Report>> {
    let place = Place::open(context, schema)?;
    let config = place.config.as_ref().ok_or_else(|| {
        Failure::new(format!("there is no {}", context.common.config.display()))
            .hint("a kit without rg.toml would not rebuild anything")
    })?;
    if args.output.exists() && !args.yes && !args.dry_run {
        return Err(
            Failure::new(format!("{} is there already", args.output.display()))
                .hint("--yes overwrites it"),
        );
    }
    let lock = lock(args, &config.recipients)?;
    let mut kit = Kit::new(&config.host, context.now, &context.tool);
    let mut absent = Vec::new();
    let mut wanted = vec![
        (context.common.config.clone(), Role::Config),
        (place.schema_path.clone(), Role::Schema),
    ];
    for environment in &place.schema.environments {
        for spec in 0..place.schema.files.len() {
            wanted.push((place.path(environment, spec), Role::Env));
        }
    }
    wanted.extend(place.keys().into_iter().map(|path| (path, Role::Keys)));
    for (path, role) in wanted {
        let path = std::path::absolute(&path)
            .or_fail(|| format!("cannot tell where {} is", path.display()))?;
        if kit.files.iter().any(|file| file.path == path) {
            continue;
        }
        if !path.exists() {
            absent.push(path);
            continue;
        }
        let meta =
            std::fs::metadata(&path).or_fail(|| format!("cannot look at {}", path.display()))?;
        let owner = (
            owners::user_name(meta.uid()),
            owners::group_name(meta.gid()),
        );
        let content = place::read(&path)?.into_bytes();
        kit.add(path, role, meta.mode() & 0o777, owner, content);
    }
    let proof = match &args.identity {
        Some(path) => Some(identity(path)?),
        None => None,
    };
    let sealed = kit::sealed(&kit.packed()?, &lock, proof.as_ref())?;
    // Once more from the bytes that are about to be written, as `import` will.
    if !args.dry_run {
        let manner = Manner {
            mode: 0o600,
            ..Manner::default()
        };
        replace::replace(&args.output, &sealed, &manner)?;
        let stored = kit::read(&args.output)?;
        if stored != sealed {
            return Err(Failure::new(format!(
                "{} does not hold what was written",
                args.output.display()
            )));
        }
        let acts: Vec<Act> = place
            .schema
            .environments
            .iter()
            .map(|environment| Act {
                time: context.now,
                what: What::Exported,
                environment: environment.name.clone(),
                names: place
                    .schema
                    .variables
                    .iter()
                    .filter(|v| v.is_secret())
                    .map(|v| v.id.clone())
                    .collect(),
                user: audit::user(),
            })
            .collect();
        audit::record(&config.state, &acts)?;
    }
    Ok(Box::new(Exported {
        output: args.output.clone(),
        bytes: sealed.len(),
        files: kit.files.iter().map(|file| file.path.clone()).collect(),
        absent,
        proven_with: match (&proof, &lock) {
            (Some(_), _) => "the identity",
            (None, Lock::Passphrase(_)) => "the passphrase",
            (None, Lock::Recipients(_)) => "a key made for that and forgotten",
        },
        dry_run: args.dry_run,
    }))
}

fn lock(args: &Export, configured: &[String]) -> Result<Lock> {
    if args.passphrase {
        return Ok(Lock::Passphrase(passphrase::asked(true)?));
    }
    if let Some(path) = &args.passphrase_file {
        return Ok(Lock::Passphrase(passphrase::from_file(path)?));
    }
    let keys = if args.recipient.is_empty() {
        configured
    } else {
        &args.recipient
    };
    if keys.is_empty() {
        return Err(Failure::new("nobody is named who could open the kit")
            .hint("--recipient age1… (age-keygen makes one; keep its secret key off this machine), or --passphrase"));
    }
    // The shared parser says what is wrong with a key.
    rg_common::seal::Recipients::parse(keys)?;
    let parsed = keys
        .iter()
        .map(|key| key.trim().parse().map_err(Failure::new));
    Ok(Lock::Recipients(parsed.collect::<Result<_>>()?))
}

/// Secret keys from a file, as `age-keygen` writes it.
pub fn identity(path: &Path) -> Result<Key> {
    rg_common::seal::Identities::from_file(path)?;
    let text = place::read(path)?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|line| line.parse().map_err(Failure::new));
    Ok(Key::Identities(keys.collect::<Result<_>>()?))
}

impl Report for Exported {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let verb = if self.dry_run { "would write" } else { "wrote" };
        page.line(format!(
            "{} {verb} {}: {} files, {}, opened again with {}",
            page.tone(Tone::Good, "✓"),
            self.output.display(),
            self.files.len(),
            report::bytes(self.bytes as u64),
            self.proven_with
        ));
        for file in &self.files {
            page.line(format!("  {}", file.display()));
        }
        for path in &self.absent {
            page.line(format!(
                "{}  {} is not there",
                page.tone(Tone::Warn, "⚠"),
                path.display()
            ));
        }
        page.line("Keep it off this machine, and what opens it somewhere else again.");
    }

    fn outcome(&self) -> Outcome {
        if self.absent.is_empty() {
            Outcome::Well
        } else {
            Outcome::BadNews
        }
    }
}
