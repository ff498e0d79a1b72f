//! What a bare file holds: an old script's dump or archive, read to its end once, so that from there on
//! it has a manifest's content like any backup.

use std::io::{self, Read};
use std::path::Path;

use crate::catalog::Content;
use crate::catalog::manifest::{DatabaseContent, FilesContent};
use crate::config::DatasetKind;
use crate::dump::InventoryReader;
use crate::failure::{Failure, Result};
use crate::files::{self, ExtractOptions, Limits, Owner};
use crate::seal::Opener;

/// Reads plain bytes to their end. An archive is what can be unpacked: that is done into `scratch`,
/// which must not exist yet and is the caller's to remove; it may fill the disk's free space.
pub fn survey<R: Read>(
    kind: &DatasetKind,
    mut opener: Opener<R>,
    scratch: &Path,
) -> Result<(Content, Opener<R>)> {
    if let DatasetKind::Files(_) = kind {
        let options = ExtractOptions {
            owner: Owner::Mine,
            limits: Limits::of_free_space(scratch.parent().unwrap_or(scratch))?,
            allow_setuid: false,
            attributes: false,
        };
        let inventory = files::extract(&mut opener, scratch, options, &mut |_| Ok(()))?;
        let content = FilesContent {
            path: String::new(),
            inventory,
            list: None,
        };
        return Ok((Content::Files(Box::new(content)), opener));
    }
    let mut reader = InventoryReader::new(opener);
    io::copy(&mut reader, &mut io::sink())
        .map_err(|error| Failure::from_io("cannot read it", error))?;
    let (opener, inventory) = reader.finish()?;
    let content = DatabaseContent {
        inventory,
        shape: None,
        settings: None,
    };
    Ok((Content::Database(Box::new(content)), opener))
}
