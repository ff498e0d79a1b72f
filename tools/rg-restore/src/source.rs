//! Where a restore's bytes come from, and what they must turn out to be.
//!
//! A bare file is read to its end once before anything else happens, so that both kinds have a
//! manifest: from there on nothing tells them apart. The plain stream ends cleanly only if every
//! stored and every plain byte was as the manifest says.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rg_common::catalog::manifest::{Extent, FORMAT};
use rg_common::catalog::{self, Manifest};
use rg_common::cli::Context;
use rg_common::config::{Config, DatasetConfig};
use rg_common::names::{BackupId, Stamp};
use rg_common::progress::Progress;
use rg_common::seal::{self, Identities, Opener};
use rg_common::stop::Stoppable;
use rg_common::{Failure, OrFail, Result, dataset, store};

use crate::database::Trouble;

/// A backup that can be read.
pub struct Source {
    place: Place,
    /// What it must turn out to be.
    pub manifest: Manifest,
}

enum Place {
    Store(String),
    File(PathBuf),
}

impl Source {
    /// A backup in a store.
    pub fn stored(store: &str, manifest: Manifest) -> Source {
        Source {
            place: Place::Store(store.to_owned()),
            manifest,
        }
    }

    /// A bare file, read to its end for what it holds.
    pub fn bare(
        context: &Context,
        config: &Config,
        dataset: &DatasetConfig,
        path: &Path,
        identities: Option<&Identities>,
    ) -> Result<Source> {
        let what = || format!("cannot read {}", path.display());
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let size = fs::metadata(path).or_fail(what)?.len();
        let file = Progress::new(
            context,
            &name,
            Some(size),
            Stoppable(File::open(path).or_fail(what)?),
        );
        let opener = seal::open(file, &extension_name(&name), identities)
            .map_err(|failure| failure.context(what()))?;
        let scratch = crate::scratch::Folder::new(config, context, "survey")?;
        let (content, opener) = dataset::survey(&dataset.kind, opener, scratch.path())
            .map_err(|failure| failure.context(what()))?;
        let (_, digests) = opener.finish()?;
        let manifest = Manifest {
            format: FORMAT,
            id: BackupId {
                dataset: dataset.name.clone(),
                stamp: Stamp::at(context.now),
            },
            host: config.host.clone(),
            started: context.now,
            finished: context.now,
            tool: context.tool.clone(),
            restore_with: dataset::restore_with(&name),
            file: name,
            plain: Extent {
                bytes: digests.plain_bytes,
                sha256: digests.plain_sha256,
            },
            stored: Extent {
                bytes: digests.stored_bytes,
                sha256: digests.stored_sha256,
            },
            encrypted_to: Vec::new(),
            adopted_from: Some(path.display().to_string()),
            content,
            notes: Vec::new(),
        };
        Ok(Source {
            place: Place::File(path.to_owned()),
            manifest,
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match &self.place {
            Place::Store(store) => format!("{} from `{store}`", self.manifest.id),
            Place::File(path) => path.display().to_string(),
        }
    }

    /// The store it lies in, if it lies in one.
    pub fn store(&self) -> Option<&str> {
        match &self.place {
            Place::Store(store) => Some(store),
            Place::File(_) => None,
        }
    }

    /// The stored bytes.
    pub fn stored_bytes(&self, config: &Config) -> Result<Box<dyn Read + Send>> {
        match &self.place {
            Place::Store(name) => store::open_named(config, name)?
                .get(&catalog::beside(&self.manifest.id, &self.manifest.file)?),
            Place::File(path) => Ok(Box::new(
                File::open(path).or_fail(|| format!("cannot read {}", path.display()))?,
            )),
        }
    }

    /// Who is to blame for a failure to read or unpack it: the backup when its stored bytes are no
    /// longer those recorded, else the key, the disk or the rights, which prove nothing against it.
    pub fn blame(&self, config: &Config, failure: Failure) -> Trouble {
        match self.is_as_recorded(config) {
            Ok(false) => Trouble::Bad(failure),
            Ok(true) | Err(_) => Trouble::Unknown(failure),
        }
    }

    /// Whether its stored bytes are those recorded; an error when they cannot be read.
    pub fn is_as_recorded(&self, config: &Config) -> Result<bool> {
        let (_, sha256) = seal::stored_digest(self.stored_bytes(config)?)?;
        Ok(sha256 == self.manifest.stored.sha256)
    }

    /// The plain bytes; their end comes only when every digest was right.
    pub fn open(
        &self,
        context: &Context,
        config: &Config,
        identities: Option<&Identities>,
    ) -> Result<Checked> {
        let stored = self.stored_bytes(config)?;
        let label = format!("reading {}", self.manifest.file);
        let stored: Box<dyn Read + Send> = Box::new(Progress::new(
            context,
            &label,
            Some(self.manifest.stored.bytes),
            Stoppable(stored),
        ));
        let opener = seal::open(stored, &extension_name(&self.manifest.file), identities)
            .map_err(|failure| failure.context(format!("cannot read {}", self.name())))?;
        Ok(Checked {
            opener: Some(opener),
            name: self.name(),
            plain: self.manifest.plain.clone(),
            stored: self.manifest.stored.clone(),
        })
    }
}

/// `.tgz` is short for `.tar.gz`.
fn extension_name(file: &str) -> String {
    file.strip_suffix(".tgz")
        .map_or_else(|| file.to_owned(), |stem| format!("{stem}.tar.gz"))
}

/// Plain bytes whose clean end means that all of them were right.
pub struct Checked {
    opener: Option<Opener<Box<dyn Read + Send>>>,
    name: String,
    plain: Extent,
    stored: Extent,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(opener) = &mut self.opener else {
            return Ok(0);
        };
        let n = opener.read(buffer).map_err(|error| {
            Failure::from_io("cannot read it", error)
                .context(format!("{} is damaged or cannot be read", self.name))
                .hint("another store may have a sound copy: --store NAME")
                .into_io()
        })?;
        if n == 0
            && !buffer.is_empty()
            && let Some(opener) = self.opener.take()
        {
            let (_, found) = opener.finish().map_err(Failure::into_io)?;
            let as_recorded = (found.plain_bytes, &found.plain_sha256)
                == (self.plain.bytes, &self.plain.sha256)
                && (found.stored_bytes, &found.stored_sha256)
                    == (self.stored.bytes, &self.stored.sha256);
            if !as_recorded {
                let failure = Failure::new(format!(
                    "{} is damaged: its digests are not those in its manifest",
                    self.name
                ));
                return Err(failure
                    .hint("another store may have a sound copy: --store NAME")
                    .into_io());
            }
        }
        Ok(n)
    }
}
