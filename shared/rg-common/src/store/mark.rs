//! Whether a folder store is the one that was written before.
//!
//! A disk that is not mounted leaves an empty folder at its mount point, and a backup would go to the
//! wrong disk without a word. So the first write puts a mark `.rg-store` with a random id into the
//! store, and `STATE/stores/NAME.json` remembers the id. The promise: once remembered, a folder without
//! that mark is neither written nor read as this store. A bucket needs none: it is there or it is not.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Store;
use crate::config::{Config, StoreConfig, StorePlace};
use crate::failure::{Failure, OrFail, Result};
use crate::whole;

/// The mark's name in the store's root; a list never shows it.
const MARK: &str = ".rg-store";
/// Bytes of an id: 128 bits in hexadecimal.
const ID_BYTES: usize = 32;
/// A remembered mark is read up to this size.
const REMEMBERED_BYTES: u64 = 64 << 10;

/// What the state remembers of a store.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The folder; another one in `rg.toml` is another store.
    path: PathBuf,
    /// Its mark.
    id: String,
}

/// The store of that name, to be written: the first time its folder is made and marked. An error when
/// the folder is not the one that was marked before.
pub fn open_to_write(config: &Config, name: &str) -> Result<Box<dyn Store>> {
    // Checks it too.
    let store = super::open_named(config, name)?;
    let place = config.stores.iter().find(|known| known.name == name);
    if let Some(StoreConfig {
        place: StorePlace::Folder(root),
        ..
    }) = place
        && remembered(config, name, root)?.is_none()
    {
        let id = claim(root).map_err(|failure| failure.context(format!("store `{name}`")))?;
        remember(config, name, root, id)?;
    }
    Ok(store)
}

/// Whether a store's folder is still to be made: it holds nothing, and nothing is wrong with that.
pub fn is_to_be_made(config: &Config, name: &str) -> Result<bool> {
    match config.stores.iter().find(|known| known.name == name) {
        Some(StoreConfig {
            place: StorePlace::Folder(root),
            ..
        }) => Ok(!root.exists() && remembered(config, name, root)?.is_none()),
        _ => Ok(false),
    }
}

/// An error when the state remembers a mark of this store and its folder does not have it.
pub fn check(config: &Config, store: &StoreConfig) -> Result<()> {
    let StorePlace::Folder(root) = &store.place else {
        return Ok(());
    };
    let Some(known) = remembered(config, &store.name, root)? else {
        return Ok(());
    };
    let found =
        read_mark(root).map_err(|failure| failure.context(format!("store `{}`", store.name)))?;
    let (name, root) = (&store.name, root.display());
    let failure = match found {
        Some(found) if found == known.id => return Ok(()),
        Some(_) => Failure::new(format!(
            "store `{name}`: {root} is another store than before"
        ))
        .hint("is another disk mounted there?"),
        None => Failure::new(format!(
            "store `{name}`: {root} is not the store that was written before: it has no mark {MARK}"
        ))
        .hint("is its disk mounted?"),
    };
    Err(failure.hint(format!(
        "should it be another or an emptied one on purpose: rm {}",
        memory(config, name).display()
    )))
}

/// The mark of a folder; made, together with the folder, when it has none.
fn claim(root: &Path) -> Result<String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .or_fail(|| format!("cannot make the folder {}", root.display()))?;
    let path = root.join(MARK);
    let what = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .or_fail(what)?;
    // Two first writes at once must agree on one id.
    file.lock().or_fail(what)?;
    if let Some(id) = id_in(&mut file).or_fail(what)? {
        return Ok(id);
    }
    let mut random = [0; ID_BYTES / 2];
    getrandom::fill(&mut random).or_fail(|| "cannot get random bytes".to_owned())?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // What a cut of power left there is no id.
    file.set_len(0)
        .and_then(|()| io::Seek::rewind(&mut file))
        .and_then(|()| file.write_all(format!("{id}\n").as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(root)?.sync_all())
        .or_fail(what)?;
    Ok(id)
}

fn read_mark(root: &Path) -> Result<Option<String>> {
    let path = root.join(MARK);
    let what = || format!("cannot read {}", path.display());
    match File::open(&path) {
        Ok(mut file) => id_in(&mut file).or_fail(what),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::because(what(), error)),
    }
}

fn id_in(file: &mut File) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    file.take(ID_BYTES as u64 + 1).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let id = text.trim_end();
    let whole = id.len() == ID_BYTES && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(whole.then(|| id.to_owned()))
}

fn memory(config: &Config, name: &str) -> PathBuf {
    config.state.join("stores").join(format!("{name}.json"))
}

fn remembered(config: &Config, name: &str, root: &Path) -> Result<Option<Remembered>> {
    let path = memory(config, name);
    let what = || format!("cannot read {}", path.display());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::because(what(), error)),
    };
    let known: Remembered =
        serde_json::from_reader(file.take(REMEMBERED_BYTES)).map_err(|error| {
            Failure::because(format!("{} is damaged", path.display()), error)
                .hint("look that the store is what it should be, then remove that file")
        })?;
    Ok((known.path == root).then_some(known))
}

fn remember(config: &Config, name: &str, root: &Path, id: String) -> Result<()> {
    let path = memory(config, name);
    whole::private_folder(&config.state.join("stores"))?;
    let known = Remembered {
        path: root.to_owned(),
        id,
    };
    let text =
        serde_json::to_vec_pretty(&known).or_fail(|| format!("cannot write {}", path.display()))?;
    whole::write(&path, &text, 0o600)
}
