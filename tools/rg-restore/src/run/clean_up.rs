//! What earlier restores had replaced goes when a later one can be undone in their place.

use rg_common::postgres::create;

use super::Job;
use crate::journal::{self, Journal, Part};
use crate::{exchange, live, scratch};

/// What the restores before this one had replaced is removed: this one can be undone now.
pub fn clean_up(job: &Job<'_>, journal: &Journal, notes: &mut Vec<String>) {
    let older = match journal::undoable(job.config) {
        Ok(older) => older,
        Err(failure) => return notes.push(failure.to_string()),
    };
    for old in older.iter().filter(|old| old.stamp < journal.stamp) {
        for part in &old.parts {
            if !journal
                .parts
                .iter()
                .any(|new| new.dataset() == part.dataset())
            {
                continue;
            }
            let removed = match part {
                Part::Database {
                    dataset,
                    aside,
                    replaces: true,
                    ..
                } => exchange::server(job.context, job.config, dataset)
                    .and_then(|server| create::drop_database(&server.admin, aside, false)),
                Part::Files {
                    aside,
                    replaces: true,
                    ..
                } => scratch::remove(aside),
                _ => live::discard(job.context, job.config, part),
            };
            let removed =
                removed.and_then(|()| journal::forget(job.config, old.stamp, |gone| gone == part));
            if let Err(failure) = removed {
                notes.push(format!(
                    "what the restore {} had replaced is still there: {failure}",
                    old.stamp
                ));
            }
        }
    }
}
