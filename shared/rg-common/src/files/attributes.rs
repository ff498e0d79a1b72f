//! Extended attributes: those that a restore can and should bring back.
//!
//! `user.*`, both POSIX ACLs and file capabilities. Not `security.selinux`, `trusted.*` and the
//! like: they belong to the machine and not to the data.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

use super::entry::Xattr;
use crate::failure::{Failure, OrFail, Result};

/// The kernel's bound for a list of names and for one value.
const KERNEL_BYTES_MAX: usize = 64 << 10;
/// All values of one file together; ext4 allows less, XFS in theory more.
const FILE_BYTES_MAX: usize = 1 << 20;

pub(super) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// Whether an attribute is archived and restored.
pub(super) fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.") || [ACL_ACCESS, ACL_DEFAULT, CAPABILITY].contains(&name)
}

/// A reader with its buffers.
#[derive(Default)]
pub(super) struct Attributes {
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Attributes {
    /// The kept attributes of an open file, by name; none where the file system has none.
    pub fn read(&mut self, of: BorrowedFd<'_>) -> Result<Vec<Xattr>> {
        self.list.resize(KERNEL_BYTES_MAX, 0);
        let listed = match flistxattr(of, &mut self.list[..]) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            other => other
                .map_err(io::Error::from)
                .or_fail(|| "cannot list extended attributes".into())?,
        };
        let (mut all, mut bytes) = (Vec::new(), 0);
        let names = self.list[..listed].split(|b| *b == 0);
        for name in names.filter(|name| is_kept(name)) {
            self.value.resize(KERNEL_BYTES_MAX, 0);
            let len = match fgetxattr(of, name, &mut self.value[..]) {
                // Removed since it was listed.
                Err(Errno::NODATA) => continue,
                other => other
                    .map_err(io::Error::from)
                    .or_fail(|| "cannot read extended attributes".into())?,
            };
            bytes += name.len() + len;
            if bytes > FILE_BYTES_MAX {
                let what = format!("has more than {FILE_BYTES_MAX} bytes of extended attributes");
                return Err(Failure::new(what));
            }
            all.push((name.to_vec(), self.value[..len].to_vec()));
        }
        all.sort();
        Ok(all)
    }
}

/// Sets one attribute.
pub(super) fn set(of: BorrowedFd<'_>, (name, value): &Xattr) -> Result<()> {
    fsetxattr(of, &name[..], value, XattrFlags::empty())
        .map_err(io::Error::from)
        .or_fail(|| format!("cannot set the attribute {}", super::escape(name)))
        .map_err(|failure| {
            failure.hint("restore onto a file system with extended attributes and ACLs")
        })
}

/// Removes ACLs that a new directory inherited, so that nothing in it inherits them in turn.
pub(super) fn remove_acls(of: BorrowedFd<'_>) -> Result<()> {
    for name in [ACL_ACCESS, ACL_DEFAULT] {
        match fremovexattr(of, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => {
                let what = "cannot remove an inherited access control list";
                return Err(Failure::because(what, io::Error::from(error)));
            }
        }
    }
    Ok(())
}
