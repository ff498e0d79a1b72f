//! Where a file lies and who can reach it: mode, owner, link, directory, docker's build context.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use super::file::Env;
use super::{Finding, codes};
use crate::replace::directory_of;

/// Bits that a file with secrets must not have: anything for others, writing for the group.
pub const TOO_OPEN: u32 = 0o037;
/// How many directories up a Dockerfile is looked for.
const LEVELS_UP: usize = 8;
/// So many entries of a directory are looked through for a Dockerfile.
const DIRECTORY_ENTRIES_MAX: usize = 10_000;
/// Names under which people keep all their passwords.
const PLAIN_LISTS: [&str; 5] = [
    "credentials.txt",
    "passwords.txt",
    "secrets.txt",
    "credentials.md",
    "passwords.md",
];
/// A `.dockerignore` is refused above this size.
const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// One file.
pub fn check(env: &Env, findings: &mut Vec<Finding>) {
    let mode = env.meta.permissions().mode() & 0o7777;
    if mode & TOO_OPEN != 0 {
        let who = if mode & 0o007 != 0 {
            "everybody"
        } else {
            "its group"
        };
        let detail = format!("mode {mode:04o}: {who} can read or change it");
        findings.push(Finding::new(codes::MODE, env, 0, None, detail));
    }
    if env.symlink {
        let target = fs::read_link(&env.path).unwrap_or_default();
        let detail = format!("to {}", target.display());
        findings.push(Finding::new(codes::SYMLINK, env, 0, None, detail));
    }
    let directory = directory_of(&env.path);
    if let Ok(around) = fs::metadata(&directory) {
        let bits = around.permissions().mode();
        if bits & 0o002 != 0 && bits & 0o1000 == 0 {
            let detail = directory.display().to_string();
            findings.push(Finding::new(codes::OPEN_DIRECTORY, env, 0, None, detail));
        }
        let own = rustix::process::getuid().as_raw();
        let uid = env.meta.uid();
        if is_odd_owner(uid, own, around.uid()) {
            let detail = format!("it belongs to user {uid}");
            findings.push(Finding::new(codes::OWNER, env, 0, None, detail));
        }
    }
    for name in PLAIN_LISTS {
        let list = directory.join(name);
        if list.is_file() {
            findings.push(Finding::at(codes::PLAIN_LIST, &list, 0, None, ""));
        }
    }
    match build_context(&env.path) {
        Ok(Some(dockerfile)) => {
            let detail = format!("{} is built from there", dockerfile.display());
            findings.push(Finding::new(codes::IN_BUILD_CONTEXT, env, 0, None, detail));
        }
        Ok(None) => {}
        Err(why) => findings.push(Finding::new(codes::CANNOT_TELL, env, 0, None, why)),
    }
}

/// Whether a file's owner is neither root, nor we, nor the directory's owner.
fn is_odd_owner(owner: u32, own: u32, around: u32) -> bool {
    owner != 0 && owner != own && owner != around
}

/// The Dockerfile whose build would take the file along.
fn build_context(path: &Path) -> Result<Option<PathBuf>, String> {
    let path = path
        .canonicalize()
        .map_err(|error| format!("cannot resolve {}: {error}", path.display()))?;
    for context in path.ancestors().skip(1).take(LEVELS_UP) {
        let Some(dockerfile) = dockerfile(context) else {
            continue;
        };
        let ignore = context.join(".dockerignore");
        let text = match fs::metadata(&ignore) {
            Ok(meta) if meta.len() > IGNORE_BYTES_MAX => {
                return Err(format!("{} is larger than 1 MiB", ignore.display()));
            }
            Ok(_) => fs::read_to_string(&ignore)
                .map_err(|error| format!("cannot read {}: {error}", ignore.display()))?,
            Err(_) => String::new(),
        };
        let inside = path.strip_prefix(context).unwrap_or(&path);
        if !is_ignored(&text, inside) {
            return Ok(Some(dockerfile));
        }
    }
    Ok(None)
}

/// `Dockerfile`, `Dockerfile.api`, `Containerfile` in a directory. One that we may not list is asked
/// for the usual names alone: whoever builds in it has it listed.
fn dockerfile(directory: &Path) -> Option<PathBuf> {
    const USUAL: [&str; 2] = ["Dockerfile", "Containerfile"];
    let mut found: Vec<PathBuf> = match fs::read_dir(directory) {
        Ok(entries) => {
            let names = entries
                .take(DIRECTORY_ENTRIES_MAX)
                .flatten()
                .map(|entry| entry.file_name());
            let names = names.filter(|name| {
                let name = name.to_string_lossy();
                USUAL.iter().any(|usual| name.starts_with(usual))
            });
            names.map(|name| directory.join(name)).collect()
        }
        Err(_) => USUAL.iter().map(|name| directory.join(name)).collect(),
    };
    found.retain(|path| path.is_file());
    found.sort();
    found.into_iter().next()
}

/// Docker's rules: the last pattern that matches the file or a directory above it decides.
fn is_ignored(rules: &str, inside: &Path) -> bool {
    let parts: Vec<String> = inside
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    let mut ignored = false;
    for rule in rules
        .lines()
        .map(str::trim)
        .filter(|rule| !rule.is_empty() && !rule.starts_with('#'))
    {
        let (keep, pattern) = match rule.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, rule),
        };
        let pattern: Vec<&str> = pattern
            .trim_start_matches("./")
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        let matched = (1..=parts.len()).any(|depth| matches(&pattern, &parts[..depth]));
        if matched {
            ignored = !keep;
        }
    }
    ignored
}

fn matches(pattern: &[&str], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|skip| matches(rest, &path[skip..])),
        (Some((part, rest)), Some((name, below))) => {
            glob(part.as_bytes(), name.as_bytes()) && matches(rest, below)
        }
        _ => false,
    }
}

/// `*` and `?` within a name; in time that does not grow with the number of `*`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == name[n]) && pattern[p] != b'*'
        {
            p += 1;
            n += 1;
        } else if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if let Some((star_p, star_n)) = star {
            p = star_p + 1;
            n = star_n + 1;
            star = Some((star_p, star_n + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_root_of_ours_or_of_its_directorys_owner_is_in_order() {
        assert!(!is_odd_owner(0, 1000, 1000));
        assert!(!is_odd_owner(1000, 1000, 0));
        assert!(!is_odd_owner(33, 0, 33));
        assert!(is_odd_owner(33, 0, 1000));
    }

    #[test]
    fn dockers_ignore_rules_are_followed() {
        let ignored = |rules: &str, path: &str| is_ignored(rules, Path::new(path));
        assert!(ignored(".env*\n", ".env.production"));
        assert!(ignored("**/.env*", "deploy/.env"));
        assert!(ignored("deploy", "deploy/a/.env"));
        assert!(ignored("*\n!app\n", ".env"));
        assert!(!ignored(".env\n", ".env.production"));
        assert!(!ignored(".env*\n!.env.production\n", ".env.production"));
        assert!(!ignored(".env", "deploy/.env"));
        assert!(!ignored("# .env\n", ".env"));
        assert!(!glob(
            b"a*a*a*a*a*a*b",
            b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        ));
    }
}
