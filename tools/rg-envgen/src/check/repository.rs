//! Whether git has the file, had it, or would take it.
//!
//! git is asked with its hooks and its file-system monitor off, and told to trust the directory for
//! this question: a repository of the deployment's user is looked at by root, and must not be able
//! to make root run something.

use std::path::Path;

use rg_common::program::Program;
use rg_common::{Failure, Result};

use super::file::Env;
use super::{Finding, codes, exit_status};

/// How long git may take for one answer, in seconds; a long history takes a while.
const GIT_SECONDS: &str = "30";
const GIT_BYTES_MAX: usize = 1 << 16;

/// One file.
pub fn check(env: &Env, findings: &mut Vec<Finding>) {
    let Ok(path) = env.path.canonicalize() else {
        return;
    };
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    if !path
        .ancestors()
        .skip(1)
        .any(|above| above.join(".git").exists())
    {
        return;
    }
    let name = Path::new(name);
    match look(directory, name) {
        Ok(found) => findings.extend(
            found
                .into_iter()
                .map(|(code, detail)| Finding::new(code, env, 0, None, detail)),
        ),
        Err(failure) => {
            let detail = format!("whether git has the file: {failure}");
            findings.push(Finding::new(codes::CANNOT_TELL, env, 0, None, detail));
        }
    }
}

fn look(directory: &Path, name: &Path) -> Result<Vec<(&'static codes::Code, String)>> {
    let ask = |words: &[&str]| {
        let git = Program::new("timeout")
            .args([
                GIT_SECONDS,
                "git",
                "-c",
                "safe.directory=*",
                "-c",
                "core.fsmonitor=false",
            ])
            .args(["-c", "core.hooksPath=/dev/null", "-C"])
            .arg(directory)
            .args(words)
            .arg("--")
            .arg(name)
            .without_env("GIT_DIR")
            .without_env("GIT_WORK_TREE");
        git.output(GIT_BYTES_MAX)
    };
    let no = |failure: Failure| match exit_status(&failure) {
        Some(1) => Ok(None),
        _ => Err(failure),
    };
    let mut found = Vec::new();
    let tracked = ask(&["ls-files", "--error-unmatch"])
        .map(Some)
        .or_else(no)?
        .is_some();
    if tracked {
        found.push((codes::TRACKED, String::new()));
    } else {
        // Unlike `log`, it has nothing against a repository without a commit.
        let history = ask(&[
            "rev-list",
            "--all",
            "--full-history",
            "--abbrev-commit",
            "-n",
            "1",
        ])?;
        let commit = String::from_utf8_lossy(&history).trim().to_owned();
        if !commit.is_empty() {
            found.push((codes::IN_HISTORY, format!("last in commit {commit}")));
        }
        if ask(&["check-ignore", "-q"])
            .map(Some)
            .or_else(no)?
            .is_none()
        {
            found.push((codes::NOT_IGNORED, String::new()));
        }
    }
    Ok(found)
}
