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
        self.stored_file(config, &self.manifest.file)
    }

    fn stored_file(&self, config: &Config, file: &str) -> Result<Box<dyn Read + Send>> {
        match &self.place {
            Place::Store(name) => {
                store::open_named(config, name)?.get(&catalog::beside(&self.manifest.id, file)?)
            }
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

    /// Whether the list beside it is as it was recorded; an error when it cannot be read.
    pub fn is_list_as_recorded(&self, config: &Config) -> Result<bool> {
        let Some(list) = self.manifest.content.list() else {
            return Ok(true);
        };
        let (_, sha256) = seal::stored_digest(self.stored_file(config, &list.file)?)?;
        Ok(sha256 == list.stored.sha256)
    }

    /// The older backups that it cannot be restored without, from the same store.
    pub fn needed(&self, config: &Config) -> Result<Vec<Source>> {
        let needs = self.manifest.content.needs();
        let (Place::Store(name), false) = (&self.place, needs.is_empty()) else {
            return Ok(Vec::new());
        };
        let id = &self.manifest.id;
        let listing = catalog::read(&*store::open_named(config, name)?, Some(&id.dataset))?;
        let find = |stamp: Stamp| {
            let needed = BackupId {
                dataset: id.dataset.clone(),
                stamp,
            };
            let lacks = |why: &str| Failure::new(format!("{id} needs {needed}, which is {why}"));
            match listing.copies.get(&needed).map(|copy| &copy.manifest) {
                Some(Ok(manifest)) => Ok(Source::stored(name, (**manifest).clone())),
                Some(Err(why)) => Err(lacks(&format!("damaged: {why}"))),
                None => {
                    Err(lacks("not there").hint("another store may have all of it: --store NAME"))
                }
            }
        };
        needs.iter().map(|need| find(need.stamp)).collect()
    }

    /// The plain bytes; their end comes only when every digest was right.
    pub fn open(
        &self,
        context: &Context,
        config: &Config,
        identities: Option<&Identities>,
    ) -> Result<Checked> {
        let Manifest {
            file,
            plain,
            stored,
            ..
        } = &self.manifest;
        self.open_file(context, config, identities, (file, plain, stored))
    }

    /// The plain bytes of the list beside it, likewise.
    pub fn open_list(
        &self,
        context: &Context,
        config: &Config,
        identities: Option<&Identities>,
    ) -> Result<Checked> {
        let list = self.manifest.content.list();
        let list =
            list.ok_or_else(|| Failure::new(format!("{} has no list of objects", self.name())))?;
        let file = (list.file.as_str(), &list.plain, &list.stored);
        self.open_file(context, config, identities, file)
    }

    fn open_file(
        &self,
        context: &Context,
        config: &Config,
        identities: Option<&Identities>,
        (file, plain, stored): (&str, &Extent, &Extent),
    ) -> Result<Checked> {
        let bytes: Box<dyn Read + Send> = Box::new(Progress::new(
            context,
            &format!("reading {file}"),
            Some(stored.bytes),
            Stoppable(self.stored_file(config, file)?),
        ));
        let opener = seal::open(bytes, &extension_name(file), identities)
            .map_err(|failure| failure.context(format!("cannot read {}", self.name())))?;
        Ok(Checked {
            opener: Some(opener),
            name: self.name(),
            plain: plain.clone(),
            stored: stored.clone(),
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
