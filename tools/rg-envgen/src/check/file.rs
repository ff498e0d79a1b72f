//! Which files are checked, and reading them without being fooled.
//!
//! The promise: a pipe, a device, a file of 100 MB or a circle of directories costs neither memory
//! nor time; it is named as something that could not be read.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rg_common::env_file::document::Document;
use rg_common::{Failure, OrFail, Result};
use rustix::fs::{Mode, OFlags};

/// A file is refused above this size: it is no env file.
const BYTES_MAX: u64 = 1 << 20;
/// Directories are searched this deep.
const DEPTH_MAX: usize = 8;
/// A directory tree with more entries is not searched to its end; that is said.
const ENTRIES_MAX: usize = 100_000;
/// Directories in which nobody keeps an env file of a deployment.
const PASSED_OVER: [&str; 8] = [
    ".git",
    "node_modules",
    "target",
    "venv",
    ".venv",
    "__pycache__",
    "site-packages",
    ".tox",
];
/// Files that show what an env file should look like.
const TEMPLATES: [&str; 6] = [".example", ".sample", ".template", ".dist", ".tpl", ".j2"];

/// An env file that was read.
pub struct Env {
    /// As it was named, or found.
    pub path: PathBuf,
    /// Its environment's name, as far as it can be told.
    pub environment: Option<String>,
    /// Its place in the schema's `files`.
    pub spec: Option<usize>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its text; none when it is not UTF-8 or holds NUL.
    pub text: Option<String>,
    /// Its lines; empty without a text.
    pub document: Document,
    /// What the system says of it, links followed.
    pub meta: Metadata,
    /// Whether the path itself is a symbolic link.
    pub symlink: bool,
}

impl Env {
    /// The name for messages.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether it is of the environment that real users meet.
    pub fn is_production(&self) -> bool {
        self.environment
            .as_deref()
            .is_some_and(|name| name.starts_with("prod"))
    }
}

/// Reads one file. A failure says why it could not be read.
pub fn read(path: &Path) -> Result<Env> {
    let what = || format!("cannot read {}", path.display());
    let symlink = fs::symlink_metadata(path).or_fail(what)?.is_symlink();
    // A pipe without a writer must not make us wait; a terminal must not become ours.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let before = fs::metadata(path).or_fail(what)?;
    regular(path, &before)?;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).or_fail(what)?);
    let meta = file.metadata().or_fail(what)?;
    regular(path, &meta)?;
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .or_fail(what)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(too_large(path));
    }
    let text = String::from_utf8(bytes.clone())
        .ok()
        .filter(|text| !text.contains('\0'));
    Ok(Env {
        path: path.to_owned(),
        environment: environment_of(path),
        spec: None,
        document: text.as_deref().map(Document::parse).unwrap_or_default(),
        bytes,
        text,
        meta,
        symlink,
    })
}

fn regular(path: &Path, meta: &Metadata) -> Result<()> {
    if !meta.is_file() {
        let kind = match meta.mode() & 0o170_000 {
            0o010_000 => "a pipe",
            0o040_000 => "a directory",
            0o140_000 => "a socket",
            _ => "a device",
        };
        return Err(
            Failure::new(format!("{} is {kind}, not a file", path.display()))
                .hint("name an env file, or a directory that has some"),
        );
    }
    if meta.len() > BYTES_MAX {
        return Err(too_large(path));
    }
    Ok(())
}

fn too_large(path: &Path) -> Failure {
    Failure::new(format!(
        "{} is larger than 1 MiB, too large for an env file",
        path.display()
    ))
    .hint("is it the right file?")
}

/// The env files of a directory and those below it, in order. Links to directories are not followed.
pub fn find(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![(directory.to_owned(), 0)];
    let mut entries = 0;
    while let Some((directory, depth)) = open.pop() {
        let what = || format!("cannot list {}", directory.display());
        for entry in fs::read_dir(&directory).or_fail(what)? {
            let entry = entry.or_fail(what)?;
            entries += 1;
            if entries > ENTRIES_MAX {
                return Err(Failure::new(format!(
                    "{} has more than {ENTRIES_MAX} entries",
                    directory.display()
                ))
                .hint("name the directory or the files more narrowly"));
            }
            let kind = entry.file_type().or_fail(what)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                if depth < DEPTH_MAX && !PASSED_OVER.contains(&name.as_str()) {
                    open.push((entry.path(), depth + 1));
                }
            } else if is_env_name(&name) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_env_name(name: &str) -> bool {
    let looks =
        name == ".env" || name == "env" || name.starts_with(".env.") || name.ends_with(".env");
    let template = TEMPLATES
        .iter()
        .any(|end| name.ends_with(end) || name.contains(&format!("{end}.")));
    // Our own unfinished replacement, editors' copies.
    looks && !template && !name.ends_with(".rg-new") && !name.ends_with('~')
}

/// The environment that a file's name tells: `.env.production`, `staging.app.env`.
pub fn environment_of(path: &Path) -> Option<String> {
    const KNOWN: [(&str, &str); 8] = [
        ("production", "production"),
        ("prod", "production"),
        ("staging", "staging"),
        ("stage", "staging"),
        ("development", "development"),
        ("dev", "development"),
        ("test", "test"),
        ("testing", "test"),
    ];
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let mut words = name.split(['.', '-', '_']);
    words.find_map(|word| {
        KNOWN
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, of)| (*of).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_from_the_name() {
        let of = |name: &str| environment_of(Path::new(name));
        assert_eq!(
            of("/a/.env.production.compose").as_deref(),
            Some("production")
        );
        assert_eq!(of("staging.app.env").as_deref(), Some("staging"));
        assert_eq!(of("/production/.env"), None);
        assert!(is_env_name(".env.staging") && is_env_name("staging.app.env"));
        assert!(!is_env_name(".env.example") && !is_env_name("env.schema.toml"));
    }
}
