//! Gives what was extracted its owner, mode, attributes and time.

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod, fchown,
    futimens, utimensat,
};
use rustix::io::Errno;

use super::attributes;
use super::entry::{Entry, Kind, Mtime, Xattr, escape};
use super::inventory::is_privilege;
use super::limits::{ExtractOptions, Owner};
use super::owners::Owners;
use crate::failure::{Failure, OrFail, Result};

/// Users whose names are compared with those of this machine.
const USERS_MAX: usize = 1000;

/// What the options say about it, and what is worth a note at the end.
pub(super) struct Describe {
    owner: Owner,
    allow_setuid: bool,
    attributes: bool,
    set_ids_dropped: u64,
    owners: Owners,
    users_seen: HashSet<u32>,
    strangers: Vec<String>,
}

impl Describe {
    pub fn new(options: &ExtractOptions) -> Self {
        Describe {
            owner: options.owner,
            allow_setuid: options.allow_setuid,
            attributes: options.attributes,
            set_ids_dropped: 0,
            owners: Owners::here(),
            users_seen: HashSet::new(),
            strangers: Vec::new(),
        }
    }

    /// Owner, mode, attributes and time of an open file or directory, in the order in which none
    /// undoes another: `user.*` needs the right to write, a change of owner clears set-id bits and
    /// capabilities, a change of mode changes the ACL's mask.
    pub fn open(&mut self, of: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
        self.compare_owner(entry);
        let is = |wanted: fn(&[u8]) -> bool| {
            let xattrs: &[Xattr] = if self.attributes { &entry.xattrs } else { &[] };
            xattrs.iter().filter(move |(name, _)| wanted(name))
        };
        for attribute in is(|name| name.starts_with(b"user.")) {
            attributes::set(of, attribute)?;
        }
        if let Some((uid, gid)) = self.ids(entry) {
            fchown(of, Some(uid), Some(gid)).map_err(cannot_own)?;
        }
        let mode = Mode::from_raw_mode(self.mode(entry));
        fchmod(of, mode)
            .map_err(io::Error::from)
            .or_fail(|| "cannot set the mode".into())?;
        for attribute in is(|name| name.starts_with(b"system.")) {
            attributes::set(of, attribute)?;
        }
        for attribute in is(is_privilege) {
            if self.allow_setuid && rustix::process::geteuid().is_root() {
                attributes::set(of, attribute)?;
            } else {
                self.set_ids_dropped += 1;
            }
        }
        if entry.mode & 0o6000 != 0 && !self.allow_setuid {
            self.set_ids_dropped += 1;
        }
        futimens(of, &times(entry.mtime))
            .map_err(io::Error::from)
            .or_fail(|| "cannot set the time".into())
    }

    fn mode(&self, entry: &Entry) -> u32 {
        if self.allow_setuid {
            entry.mode
        } else {
            entry.mode & 0o1777
        }
    }

    fn ids(&self, entry: &Entry) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.owner {
            Owner::Recorded => (entry.uid, entry.gid),
            Owner::Fixed(uid, gid) => (uid, gid),
            Owner::Mine => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// The same for a symbolic link or a named pipe, which are not opened.
    pub fn name(&mut self, parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) -> Result<()> {
        self.compare_owner(entry);
        if let Some((uid, gid)) = self.ids(entry) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            chownat(parent, name, Some(uid), Some(gid), flags).map_err(cannot_own)?;
        }
        if entry.kind == Kind::Fifo {
            // The name was made exclusively in a directory of ours, so it is no link.
            let mode = Mode::from_raw_mode(self.mode(entry));
            chmodat(parent, name, mode, AtFlags::empty())
                .map_err(io::Error::from)
                .or_fail(|| "cannot set the mode".into())?;
        }
        utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .or_fail(|| "cannot set the time".into())
    }

    /// Notes, once for each user, that a number belongs to somebody else on this machine.
    fn compare_owner(&mut self, entry: &Entry) {
        let Some(then) = &entry.owner else { return };
        if self.owner != Owner::Recorded
            || self.users_seen.len() >= USERS_MAX
            || !self.users_seen.insert(entry.uid)
        {
            return;
        }
        let now = self.owners.user(entry.uid);
        if now.as_ref() != Some(then) {
            let (uid, now) = (entry.uid, now.as_deref().unwrap_or("nobody"));
            let then = escape(then.as_bytes());
            self.strangers.push(format!(
                "files of `{then}` keep the user number {uid}, which here belongs to {now}"
            ));
        }
    }

    /// What an operator should know about owners and rights.
    pub fn notes(&mut self) -> Vec<String> {
        let mut notes = std::mem::take(&mut self.strangers);
        if self.set_ids_dropped > 0 {
            let count = self.set_ids_dropped;
            notes.push(format!(
                "{count} set-id bits or capabilities were not restored"
            ));
        }
        notes
    }
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

fn cannot_own(error: Errno) -> Failure {
    Failure::because("cannot set the owner", io::Error::from(error))
        .hint("only root can give files to others: run as root, or keep them as yours")
}
