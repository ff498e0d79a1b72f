//! Which PostgreSQL servers there are: the distribution's newest, and those of other majors that
//! `tests/majors.sh` fetched into `target/postgres`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian and Ubuntu put theirs, one folder a major.
const INSTALLED: &str = "/usr/lib/postgresql";

/// The programs of the distribution's newest server.
pub(crate) fn newest_bin() -> PathBuf {
    let newest = majors_in(Path::new(INSTALLED)).pop();
    let newest = newest.expect("no PostgreSQL server in /usr/lib/postgresql; run tests/install.sh");
    bin(Path::new(INSTALLED), newest)
}

/// The majors that `tests/majors.sh` fetched, in order; 16 and 18 (both with pgvector) are always
/// among them.
pub fn fetched_majors() -> Vec<u32> {
    let majors = majors_in(&fetched());
    for wanted in [16, 18] {
        assert!(
            majors.contains(&wanted),
            "no PostgreSQL {wanted} in {}; run tests/majors.sh",
            fetched().display()
        );
    }
    majors
}

/// The programs of a fetched server, and the client programs fit for it, where the server's `user`
/// can reach them: root's servers run as another user, to whom a folder below `/root` is closed, so
/// that the new cluster's `dir` gets a copy.
pub(crate) fn fetched_bins(major: u32, user: &[String], dir: &Path) -> (PathBuf, PathBuf) {
    assert!(
        fetched_majors().contains(&major),
        "no PostgreSQL {major} in {}; run tests/majors.sh",
        fetched().display()
    );
    let mut place = fetched();
    let reachable = user.is_empty()
        || Command::new("setpriv")
            .args(user)
            .args([
                "test".as_ref(),
                "-x".as_ref(),
                bin(&place, major).as_os_str(),
            ])
            .status()
            .is_ok_and(|status| status.success());
    if !reachable {
        place = dir.join("server");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(fetched()).arg(&place);
        let done = copy.status().is_ok_and(|status| status.success());
        assert!(done, "cannot copy {}", fetched().display());
    }
    (bin(&place, major), clients(&place, major))
}

/// The server's own client programs, else those of the next major that has some: npm's servers come
/// without.
fn clients(place: &Path, major: u32) -> PathBuf {
    let mut all: Vec<(u32, PathBuf)> = [place, Path::new(INSTALLED)]
        .into_iter()
        .flat_map(|place| {
            let majors = majors_in(place).into_iter();
            majors.map(|major| (major, bin(place, major)))
        })
        .filter(|(found, bin)| *found >= major && bin.join("psql").exists())
        .collect();
    all.sort();
    let first = all.into_iter().next();
    first
        .expect("client programs that are not older than the server")
        .1
}

fn bin(place: &Path, major: u32) -> PathBuf {
    place.join(major.to_string()).join("bin")
}

fn majors_in(place: &Path) -> Vec<u32> {
    let mut majors: Vec<u32> = fs::read_dir(place)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|major| bin(place, *major).join("initdb").exists())
        .collect();
    majors.sort_unstable();
    majors
}

/// `postgres` in Cargo's target directory, which this program lies in too.
fn fetched() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let mut folders = program.ancestors().map(|folder| folder.join("postgres"));
    folders
        .find(|folder| folder.is_dir())
        .expect("no target/postgres; run tests/majors.sh")
}
