//! Both lists and the manifest side by side: what is to be done with each key. Pure.

use std::iter::Peekable;

use rg_common::Result;

use super::manifest::{Known, Lines};
use super::spool::{Entry, Merge};

/// What is to be done with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The target lacks it, or has something of another size under that key.
    Copy(Entry),
    /// Both have something of the same size, and nothing proves that it is the same.
    Compare(Entry),
    /// The target has it, proven by an earlier run or by the servers' own MD5.
    Same(Known),
    /// The target alone has it.
    Extra(Entry),
}

/// All keys of both sides, in order.
pub struct Walk {
    source: Peekable<Merge>,
    target: Peekable<Merge>,
    known: Lines,
    reread: bool,
}

impl Walk {
    /// With `reread`, nothing is the same until it was read on both sides.
    pub fn new(source: Merge, target: Merge, known: Lines, reread: bool) -> Walk {
        Walk {
            source: source.peekable(),
            target: target.peekable(),
            known,
            reread,
        }
    }

    fn step(&mut self) -> Result<Option<Item>> {
        let key = |entry: Option<&Result<Entry>>| {
            entry.and_then(|e| e.as_ref().ok()).map(|e| e.key.clone())
        };
        let (source, target) = (key(self.source.peek()), key(self.target.peek()));
        // A list that cannot be read shows as an error, never as its end.
        if source.is_none()
            && let Some(error) = self.source.next_if(Result::is_err)
        {
            return error.map(|_| None);
        }
        if target.is_none()
            && let Some(error) = self.target.next_if(Result::is_err)
        {
            return error.map(|_| None);
        }
        let extra = match (&source, &target) {
            (None, None) => return Ok(None),
            (Some(source), Some(target)) => target < source,
            (None, Some(_)) => true,
            (Some(_), None) => false,
        };
        if extra {
            return Ok(self.target.next().transpose()?.map(Item::Extra));
        }
        let both = source == target;
        let Some(source) = self.source.next().transpose()? else {
            return Ok(None);
        };
        let target = if both {
            self.target.next().transpose()?
        } else {
            None
        };
        let known = self.known_of(&source.key)?;
        Ok(Some(decide(source, target, known, self.reread)))
    }

    /// The manifest's line for a key; lines of keys that are gone are passed over.
    fn known_of(&mut self, key: &str) -> Result<Option<Known>> {
        let before =
            |line: &Result<Known>| line.as_ref().map_or(true, |known| known.key.as_str() < key);
        while let Some(line) = self.known.next_if(before) {
            line?;
        }
        let same = |line: &Result<Known>| line.as_ref().is_ok_and(|known| known.key == key);
        self.known.next_if(same).transpose()
    }
}

impl Iterator for Walk {
    type Item = Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

fn decide(source: Entry, target: Option<Entry>, known: Option<Known>, reread: bool) -> Item {
    let Some(target) = target.filter(|target| target.size == source.size) else {
        return Item::Copy(source);
    };
    if reread {
        return Item::Compare(source);
    }
    if let Some(known) = known
        && known.size == source.size
        && known.copy == target.etag
        && !known.copy.is_empty()
        && !known.etag.is_empty()
    {
        // The copy is as it was proven; if the source is not, it was changed since.
        return if known.etag == source.etag {
            Item::Same(known)
        } else {
            Item::Copy(source)
        };
    }
    // The tag of an object that was put in one piece is the MD5 of its content.
    if is_md5(&source.etag) && is_md5(&target.etag) {
        return if source.etag == target.etag {
            Item::Same(Known {
                key: source.key,
                size: source.size,
                etag: source.etag,
                copy: target.etag,
                sha256: None,
            })
        } else {
            Item::Copy(source)
        };
    }
    Item::Compare(source)
}

/// Whether a tag is a plain MD5, and not that of an upload in parts (`…-3`).
fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    const OTHER: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn entry(etag: &str) -> Entry {
        Entry {
            key: "k".into(),
            size: 3,
            etag: etag.into(),
        }
    }

    fn known(etag: &str, copy: &str) -> Option<Known> {
        Some(Known {
            key: "k".into(),
            size: 3,
            etag: etag.into(),
            copy: copy.into(),
            sha256: Some("00".into()),
        })
    }

    fn decided(source: &str, target: Option<&str>, known: Option<Known>) -> &'static str {
        match decide(entry(source), target.map(entry), known, false) {
            Item::Copy(_) => "copy",
            Item::Compare(_) => "compare",
            Item::Same(_) => "same",
            Item::Extra(_) => "extra",
        }
    }

    #[test]
    fn a_doubt_is_never_the_same() {
        assert_eq!(decided("a-2", None, None), "copy");
        assert_eq!(decided(MD5, Some(OTHER), None), "copy");
        assert_eq!(decided("new", Some("b-3"), known("a-2", "b-3")), "copy");
        // Parts cut differently, no tag at all, a copy that somebody changed.
        assert_eq!(decided("a-2", Some("a-2"), None), "compare");
        assert_eq!(decided("", Some(""), known("", "")), "compare");
        assert_eq!(
            decided("a-2", Some("changed"), known("a-2", "b-3")),
            "compare"
        );
        let larger = Entry {
            size: 4,
            ..entry(MD5)
        };
        assert!(matches!(
            decide(larger, Some(entry(MD5)), None, false),
            Item::Copy(_)
        ));
    }

    #[test]
    fn what_was_proven_is_not_read_again_unless_told() {
        assert_eq!(decided("a-2", Some("b-3"), known("a-2", "b-3")), "same");
        assert_eq!(decided(MD5, Some(MD5), None), "same");
        assert!(matches!(
            decide(entry(MD5), Some(entry(MD5)), None, true),
            Item::Compare(_)
        ));
    }
}
