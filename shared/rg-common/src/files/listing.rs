//! The names in a directory, compactly and in order.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// Bytes of one directory's names.
const NAMES_BYTES_MAX: usize = 1 << 30;
/// Directory entries are fetched in portions of so many bytes.
const PORTION_BYTES: usize = 64 << 10;

/// An open directory with its names: 12 bytes each and the name itself.
pub(super) struct Listing {
    pub directory: OwnedFd,
    names: Vec<u8>,
    order: Vec<Name>,
    next: usize,
}

#[derive(Clone, Copy)]
struct Name {
    offset: u32,
    len: u16,
    file_type: FileType,
}

impl Listing {
    /// All names of a directory in order of their bytes; `portion` is a buffer to use again. Too
    /// many names are `EOVERFLOW`.
    pub fn read(directory: OwnedFd, portion: &mut Vec<u8>) -> Result<Self, Errno> {
        portion.clear();
        portion.reserve(PORTION_BYTES);
        let (mut names, mut order) = (Vec::new(), Vec::new());
        let mut raw = RawDir::new(&directory, portion.spare_capacity_mut());
        while let Some(item) = raw.next() {
            let item = match item {
                // The directory was removed after it was opened.
                Err(Errno::NOENT) => break,
                other => other?,
            };
            let name = item.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() + name.len() > NAMES_BYTES_MAX {
                return Err(Errno::OVERFLOW);
            }
            order.push(Name {
                offset: names.len() as u32,
                len: name.len() as u16,
                file_type: item.file_type(),
            });
            names.extend_from_slice(name);
        }
        order.sort_unstable_by(|a, b| bytes(&names, *a).cmp(bytes(&names, *b)));
        Ok(Listing {
            directory,
            names,
            order,
            next: 0,
        })
    }

    /// The next name and what it was listed as.
    pub fn next(&mut self) -> Option<(&[u8], FileType)> {
        let name = *self.order.get(self.next)?;
        self.next += 1;
        Some((bytes(&self.names, name), name.file_type))
    }
}

fn bytes(names: &[u8], name: Name) -> &[u8] {
    let start = name.offset as usize;
    &names[start..start + usize::from(name.len)]
}
