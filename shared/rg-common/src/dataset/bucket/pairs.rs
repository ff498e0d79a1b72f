//! What is wanted beside what is live, key by key: both come in the order of their keys.

use std::cmp::Ordering;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::changes::Scope;
use super::live::Listed;
use super::prove::Wanted;
use super::sorted::{Sorted, read_line};
use super::target::open;
use crate::failure::Result;

/// An object that is wanted, live, or both.
pub(super) enum Pair {
    Wanted(Box<Wanted>),
    Live(Listed),
    Both(Box<Wanted>, Listed),
}

/// What is wanted beside what is live, by key.
pub(super) fn pairs(
    wanted: &Path,
    live: Option<Sorted<Listed>>,
    mut each: impl FnMut(Pair) -> Result<()>,
) -> Result<()> {
    let mut wanted = open(wanted)?;
    let mut live = live;
    let mut next_live = || live.as_mut().map_or(Ok(None), Sorted::next);
    let (mut one, mut other) = (read_line::<Wanted>(&mut wanted)?, next_live()?);
    loop {
        let order = match (&one, &other) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.entry.key.cmp(&other.key),
        };
        match (order, one.take(), other.take()) {
            (Ordering::Less, Some(wanted), live) => {
                other = live;
                each(Pair::Wanted(Box::new(wanted)))?;
            }
            (Ordering::Greater, wanted, Some(live)) => {
                one = wanted;
                each(Pair::Live(live))?;
            }
            (_, Some(wanted), Some(live)) => each(Pair::Both(Box::new(wanted), live))?,
            (_, None, None) | (_, Some(_), None) | (_, None, Some(_)) => return Ok(()),
        }
        if one.is_none() {
            one = read_line(&mut wanted)?;
        }
        if other.is_none() {
            other = next_live()?;
        }
    }
}

/// The keys that are to go, asked for in their order.
pub(super) struct Gone {
    keys: Option<BufReader<File>>,
    next: Option<String>,
}

impl Gone {
    pub fn of(scope: Scope<'_>) -> Result<Gone> {
        let mut gone = Gone {
            keys: None,
            next: None,
        };
        if let Scope::Only(path) = scope {
            let mut keys = open(path)?;
            gone.next = read_line(&mut keys)?;
            gone.keys = Some(keys);
        }
        Ok(gone)
    }

    /// Whether that key is among them.
    pub fn names(&mut self, key: &str) -> Result<bool> {
        let Some(keys) = &mut self.keys else {
            return Ok(true);
        };
        while self.next.as_deref().is_some_and(|next| next < key) {
            self.next = read_line(keys)?;
        }
        Ok(self.next.as_deref() == Some(key))
    }
}
