//! What was copied and proven: a line for each object, sorted by key, beside the locks in `state`.
//!
//! It is what makes the next run quick (an object whose tags are the same on both sides is not
//! read again) and a killed one resume: lines are written in the order of the keys as copies are
//! proven, and what a killed run wrote counts. Losing it loses time, not data.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::iter::Peekable;
use std::path::{Path, PathBuf};

use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

/// An object that was copied, or found to be the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The source's tag when it was read.
    pub etag: String,
    /// The copy's tag when it was proven.
    pub copy: String,
    /// The content's digest; none where only the servers' own MD5 were compared.
    pub sha256: Option<String>,
}

/// The two sides that a manifest is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sides {
    /// Service, bucket and prefix that are read.
    pub from: String,
    /// Service, bucket and prefix that are written.
    pub to: String,
}

/// The files of one mirror.
pub struct Place {
    /// The proven state of the last run that ended.
    whole: PathBuf,
    /// What the current run, or one that was killed, has proven.
    partial: PathBuf,
    sides: Sides,
}

/// The lines of a manifest, sorted by key.
pub type Lines = Peekable<Box<dyn Iterator<Item = Result<Known>>>>;

/// A manifest that is being written.
pub struct Writer {
    file: BufWriter<File>,
    place: PathBuf,
    whole: PathBuf,
}

impl Place {
    /// In the folder `folder`, for these two sides.
    pub fn new(folder: &Path, sides: Sides) -> Place {
        Place {
            whole: folder.join("manifest.jsonl"),
            partial: folder.join("manifest.partial.jsonl"),
            sides,
        }
    }

    /// Puts what a killed run has proven before what the run before it had, so that [`Place::read`]
    /// finds both.
    pub fn recover(&self) -> Result<()> {
        let what = || {
            format!(
                "cannot keep what a run before has proven: {}",
                self.partial.display()
            )
        };
        if !self.partial.exists() {
            return Ok(());
        }
        let joined = self.whole.with_extension("joined");
        let mut file = BufWriter::new(File::create(&joined).or_fail(what)?);
        write_line(&mut file, &self.sides).or_fail(what)?;
        let mut last: Option<String> = None;
        // The last line of a killed run may be torn; what stands before it counts.
        for line in lines(&self.partial, &self.sides)?.map_while(Result::ok) {
            if last.as_ref().is_some_and(|last| *last >= line.key) {
                break;
            }
            write_line(&mut file, &line).or_fail(what)?;
            last = Some(line.key);
        }
        for line in lines(&self.whole, &self.sides)? {
            let line = line?;
            if last.as_ref().is_none_or(|last| *last < line.key) {
                write_line(&mut file, &line).or_fail(what)?;
            }
        }
        finish(file).or_fail(what)?;
        fs::rename(&joined, &self.whole).or_fail(what)?;
        fs::remove_file(&self.partial).or_fail(what)
    }

    /// The lines of the last run; none where there was none, or one between other buckets.
    pub fn read(&self) -> Result<Lines> {
        Ok(lines(&self.whole, &self.sides)?.peekable())
    }

    /// Begins a new one.
    pub fn write(&self) -> Result<Writer> {
        let what = || format!("cannot write {}", self.partial.display());
        let mut file = BufWriter::new(File::create(&self.partial).or_fail(what)?);
        write_line(&mut file, &self.sides).or_fail(what)?;
        Ok(Writer {
            file,
            place: self.partial.clone(),
            whole: self.whole.clone(),
        })
    }
}

impl Writer {
    /// Adds a line; keys must come in order. It survives a kill from here on.
    pub fn add(&mut self, known: &Known) -> Result<()> {
        let what = || format!("cannot write {}", self.place.display());
        write_line(&mut self.file, known)
            .and_then(|()| self.file.flush())
            .or_fail(what)
    }

    /// It is complete: takes the place of the one before.
    pub fn finish(self) -> Result<()> {
        let what = || format!("cannot write {}", self.whole.display());
        finish(self.file).or_fail(what)?;
        fs::rename(&self.place, &self.whole).or_fail(what)
    }
}

fn finish(file: BufWriter<File>) -> std::io::Result<()> {
    file.into_inner()
        .map_err(|error| error.into_error())?
        .sync_all()
}

fn write_line(file: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

fn lines(path: &Path, sides: &Sides) -> Result<Box<dyn Iterator<Item = Result<Known>>>> {
    let what = format!("cannot read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Box::new(std::iter::empty()));
        }
        Err(error) => return Err(Failure::because(what, error)),
    };
    let mut lines = BufReader::new(file).lines();
    let first = lines
        .next()
        .and_then(std::result::Result::ok)
        .unwrap_or_default();
    if serde_json::from_str::<Sides>(&first).ok().as_ref() != Some(sides) {
        return Ok(Box::new(std::iter::empty()));
    }
    Ok(Box::new(lines.map(move |line| {
        let line = line.or_fail(|| what.clone())?;
        serde_json::from_str(&line).map_err(|error| {
            Failure::because(what.clone(), error)
                .hint("remove it: the next run compares everything anew")
        })
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(key: &str, etag: &str) -> Known {
        Known {
            key: key.into(),
            size: 1,
            etag: etag.into(),
            copy: "c".into(),
            sha256: None,
        }
    }

    fn place(name: &str) -> (PathBuf, Place) {
        let folder =
            std::env::temp_dir().join(format!("rg-manifest-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let sides = Sides {
            from: "a".into(),
            to: "b".into(),
        };
        (folder.clone(), Place::new(&folder, sides))
    }

    fn all(place: &Place) -> Vec<(String, String)> {
        place
            .read()
            .unwrap()
            .map(|line| line.unwrap())
            .map(|known| (known.key, known.etag))
            .collect()
    }

    #[test]
    fn what_a_killed_run_has_proven_counts_and_a_torn_line_does_not() {
        let (folder, place) = place("killed");
        let mut writer = place.write().unwrap();
        for key in ["a", "c", "e"] {
            writer.add(&known(key, "old")).unwrap();
        }
        writer.finish().unwrap();
        let mut writer = place.write().unwrap();
        writer.add(&known("a", "new")).unwrap();
        writer.add(&known("b", "new")).unwrap();
        drop(writer);
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(&place.partial)
            .unwrap();
        file.write_all(b"{\"key\":\"c\",\"si").unwrap();
        place.recover().unwrap();
        let wanted = [("a", "new"), ("b", "new"), ("c", "old"), ("e", "old")];
        assert_eq!(
            all(&place),
            wanted.map(|(k, e)| (k.to_owned(), e.to_owned()))
        );
        assert!(!place.partial.exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_manifest_of_other_buckets_is_not_believed() {
        let (folder, place) = place("other");
        let mut writer = place.write().unwrap();
        writer.add(&known("a", "x")).unwrap();
        writer.finish().unwrap();
        let other = Place::new(
            &folder,
            Sides {
                from: "a".into(),
                to: "elsewhere".into(),
            },
        );
        assert_eq!(all(&other), []);
        assert_eq!(all(&place).len(), 1);
        fs::remove_dir_all(folder).unwrap();
    }
}
