//! Finds a program of PostgreSQL's on this machine that is fit for a server.

use std::path::PathBuf;

use super::super::connect::ServerVersion;
use super::{ANSWER_BYTES, clean};
use crate::failure::{Failure, Result};
use crate::program::Program;

/// Where distributions keep several majors side by side; `{}` stands for the major.
const INSTALLED: &[&str] = &["/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin"];
/// The majors that are looked for.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=30;

/// The path of the server's own major, else of the newest program that is not older.
pub(super) fn path(name: &str, server: ServerVersion) -> Result<PathBuf> {
    match own_major(name, server) {
        Some(path) => Ok(path),
        None => fit(&installed(name)?, name, server),
    }
}

/// A program with its version.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub path: PathBuf,
    pub version: ServerVersion,
}

fn folders(major: u32) -> impl Iterator<Item = PathBuf> {
    let major = major.to_string();
    let folder = move |pattern: &&str| pattern.replace("{}", &major).into();
    INSTALLED.iter().map(folder)
}

/// The program of the server's own major, where distributions put it.
fn own_major(name: &str, server: ServerVersion) -> Option<PathBuf> {
    let mut paths = folders(server.major()).map(|folder| folder.join(name));
    paths.find(|path| path.exists())
}

/// All installed versions of a program: the distributions' folders, then `PATH`.
fn installed(name: &str) -> Result<Vec<Found>> {
    let mut paths: Vec<PathBuf> = MAJORS
        .flat_map(folders)
        .map(|folder| folder.join(name))
        .filter(|path| path.exists())
        .collect();
    paths.push(name.into());
    let mut found = Vec::new();
    let mut last = None;
    for path in paths {
        let answer = clean(Program::new(&path))
            .arg("--version")
            .output(ANSWER_BYTES);
        match answer.and_then(|answer| read_version(name, &answer)) {
            Ok(version) => found.push(Found { path, version }),
            Err(failure) => last = Some(failure),
        }
    }
    match last {
        Some(failure) if found.is_empty() => Err(failure.hint(format!(
            "install postgresql-client, or run {name} in the server's container: via = \"docker:NAME\""
        ))),
        _ => Ok(found),
    }
}

/// The server's own major, else the newest that is not older.
pub(super) fn fit(found: &[Found], name: &str, server: ServerVersion) -> Result<PathBuf> {
    let newest = |fit: &dyn Fn(&Found) -> bool| {
        found
            .iter()
            .filter(|one| fit(one))
            .max_by_key(|one| one.version)
    };
    let best = newest(&|one| one.version.major() == server.major())
        .or_else(|| newest(&|one| one.version.major() > server.major()));
    match (best, newest(&|_| true)) {
        (Some(best), _) => Ok(best.path.clone()),
        (None, Some(newest)) => Err(too_old(name, newest.version, server, "")),
        (None, None) => Err(Failure::new(format!("{name} is not installed"))),
    }
}

pub(super) fn too_old(
    name: &str,
    version: ServerVersion,
    server: ServerVersion,
    at: &str,
) -> Failure {
    let major = server.major();
    Failure::new(format!(
        "{name} {version}{at} is older than the server ({server})"
    ))
    .hint(format!(
        "install postgresql-client-{major}, or run {name} in the server's container: via = \"docker:NAME\""
    ))
}

/// `pg_dump (PostgreSQL) 15.18 (Debian …)`, `pg_dump (PostgreSQL) 18beta1`.
pub(super) fn read_version(name: &str, answer: &[u8]) -> Result<ServerVersion> {
    let text = String::from_utf8_lossy(answer);
    let word = text.split(") ").nth(1).unwrap_or_default();
    let number = |text: &str| -> Option<u32> {
        let end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let minor = word.split_once('.').and_then(|(_, rest)| number(rest));
    match number(word) {
        Some(major) if text.contains("PostgreSQL") => {
            Ok(ServerVersion(major * 10_000 + minor.unwrap_or(0)))
        }
        _ => Err(Failure::new(format!(
            "`{name} --version` says `{}`, which is no version of PostgreSQL",
            text.trim()
        ))),
    }
}
