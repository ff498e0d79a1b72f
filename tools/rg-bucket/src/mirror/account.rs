//! What a mirror has to say: everything is counted, the first of each sort are named.

use rg_common::report::{self, Outcome, Page, Report, Tone};
use serde::Serialize;

use super::copy::Done;
use super::spool::Entry;
use super::trouble::Trouble;
use crate::pages::printable;

/// So many keys of each sort are named; all are counted.
const SHOWN_MAX: usize = 200;
/// The account of one run.
#[derive(Serialize, Default)]
pub struct Mirrored {
    /// The bucket that is read.
    pub from: String,
    /// The bucket that is written.
    pub to: String,
    /// Whether nothing was written because of `--dry-run`.
    pub dry_run: bool,
    /// What the source has.
    pub objects: u64,
    /// Written and proven.
    pub copied: u64,
    /// Bytes of it.
    pub copied_bytes: u64,
    /// Proven by reading both sides; the others by the server's checksum, or by an earlier run.
    pub reread: u64,
    /// The same on both sides.
    pub unchanged: u64,
    /// Of the same size on both sides, and nothing proves that they are the same: they are read.
    pub to_compare: u64,
    /// What the target alone has.
    pub extra: u64,
    /// Deleted in the target, because it was asked for.
    pub deleted: u64,
    /// Copies whose tags the target did not take.
    pub lost_tags: u64,
    /// Objects that changed or went while they were copied; the next run takes them.
    pub changed: Keys,
    /// Keys that the target cannot hold.
    pub cannot_hold: Keys,
    /// Copies that are not what was sent.
    pub differs: Keys,
    /// Objects that were not copied, and why.
    pub failed: Keys,
    /// What a dry run would copy.
    pub to_copy: Keys,
    /// What a dry run would delete.
    pub to_delete: Keys,
}

/// A count, and the first of them.
#[derive(Serialize, Default)]
pub struct Keys {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Keys {
    /// One more.
    pub fn add(&mut self, text: String) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(text);
        }
    }
}

impl Mirrored {
    /// An object is proven; `written` when it had to be copied for that.
    pub fn take(&mut self, done: &Done, entry: &Entry, written: bool) {
        self.reread += u64::from(done.was_reread);
        if !written {
            self.unchanged += 1;
            return;
        }
        self.copied += 1;
        self.copied_bytes += entry.size;
        self.lost_tags += u64::from(done.lost_tags);
    }

    /// An object was not copied.
    pub fn stumble(&mut self, trouble: Trouble, entry: &Entry) {
        let key = printable(&entry.key);
        match trouble {
            Trouble::Changed => self.changed.add(key),
            Trouble::CannotHold(said) => self.cannot_hold.add(format!("{key} ({said})")),
            Trouble::Differs(said) => self.differs.add(format!("{key}: {said}")),
            Trouble::Failed(said) => self.failed.add(format!("{key}: {said}")),
        }
    }
}

impl Report for Mirrored {
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn human(&self, page: &mut Page) {
        let bytes = report::bytes(self.copied_bytes);
        if self.dry_run {
            for key in &self.to_copy.first {
                page.line(format!("+ {}", printable(key)));
            }
            for key in &self.to_delete.first {
                page.line(format!("- {}", printable(key)));
            }
            page.line(format!(
                "{} → {}: {} would be copied ({bytes}), {} compared, {} deleted; {} are the same",
                self.from,
                self.to,
                report::count(self.to_copy.count),
                report::count(self.to_compare),
                report::count(self.to_delete.count),
                report::count(self.unchanged)
            ));
        } else {
            page.line(format!(
                "{} → {}: {} copied ({bytes}), {} the same, {} deleted; {} proven by reading both sides, the others by checksum",
                self.from,
                self.to,
                report::count(self.copied),
                report::count(self.unchanged),
                report::count(self.deleted),
                report::count(self.reread)
            ));
        }
        let kept = self
            .extra
            .saturating_sub(self.deleted)
            .saturating_sub(self.to_delete.count);
        if kept > 0 {
            let sign = page.tone(Tone::Warn, "⚠");
            page.line(format!(
                "{sign}  {} in {} alone, left there (--delete removes what the source does not have)",
                report::counted(kept, "objects"),
                self.to
            ));
        }
        if self.lost_tags > 0 {
            let sign = page.tone(Tone::Warn, "⚠");
            page.line(format!(
                "{sign}  the tags of {} did not come along: the target does not take them",
                report::counted(self.lost_tags, "objects")
            ));
        }
        for (keys, what) in [
            (
                &self.cannot_hold,
                "cannot be held by the target: such a name is refused there",
            ),
            (&self.differs, "is not what was sent"),
            (
                &self.changed,
                "was changed or deleted meanwhile; run it again",
            ),
            (&self.failed, "was not copied"),
        ] {
            let sign = page.tone(Tone::Bad, "✗");
            for key in &keys.first {
                page.line(format!("{sign}  {key} {what}"));
            }
            if keys.count > keys.first.len() as u64 {
                page.line(format!(
                    "{sign}  … and {} more",
                    report::count(keys.count - keys.first.len() as u64)
                ));
            }
        }
    }

    fn outcome(&self) -> Outcome {
        if self.failed.count > 0 || self.changed.count > 0 {
            Outcome::Incomplete
        } else if self.cannot_hold.count > 0 || self.differs.count > 0 {
            Outcome::BadNews
        } else {
            Outcome::Well
        }
    }
}
