//! The containers of a storage server whose access key stands in its own environment (MinIO).
//!
//! A container keeps the environment that it was made with, so restarting it is not enough: docker
//! compose makes it anew. How it was made stands in the labels that compose gave it.

use std::path::PathBuf;

use rg_common::env_file::EnvFile;
use rg_common::program::Program;
use rg_common::{Failure, OrFail, Result};
use serde::{Deserialize, Serialize};

use super::Work;
use super::journal::Journal;
use super::keys::Way;

/// How long docker may take to answer a question, in seconds.
const ASK_SECONDS: &str = "20";
/// How long docker compose may take to make a container anew, in seconds.
const UP_SECONDS: &str = "180";
/// What docker may print.
const PRINTED_BYTES: usize = 4 << 20;

/// A container as docker compose made it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name.
    pub(super) name: String,
    project: String,
    directory: PathBuf,
    files: Vec<PathBuf>,
    env_files: Vec<PathBuf>,
    service: String,
}

impl Work<'_> {
    /// Those of the environment's containers that have the secret in their environment.
    pub(super) fn containers_with(
        &self,
        environment: &str,
        secret: &str,
        env_files: &[PathBuf],
    ) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for name in crate::diff::containers(self.context, environment)? {
            let what = || format!("cannot ask docker about the container {name}");
            let ask = Program::new("timeout")
                .args([
                    ASK_SECONDS,
                    "docker",
                    "inspect",
                    "--type",
                    "container",
                    "--format",
                ])
                .args(["{{json .Config.Env}} {{json .Config.Labels}}", "--", &name]);
            let said = ask.output(PRINTED_BYTES).map_err(|failure| {
                failure
                    .context(what())
                    .hint("it stands in app.containers in rg.toml; start it, or take it out there")
            })?;
            let mut parts = serde_json::Deserializer::from_slice(&said).into_iter();
            let mut next = || parts.next().transpose().or_fail(what);
            let variables: Option<Vec<String>> = part(next()?).or_fail(what)?;
            let labels: Option<serde_json::Map<_, _>> = part(next()?).or_fail(what)?;
            let mut values = variables
                .iter()
                .flatten()
                .filter_map(|one| one.split_once('='));
            if !values.any(|(_, value)| value == secret) {
                continue;
            }
            found.push(container(&name, &labels.unwrap_or_default(), env_files)?);
        }
        Ok(found)
    }

    /// Makes the containers anew that read a changed pair when they start.
    pub(super) fn recreate(&self, journal: &Journal) -> Result<()> {
        let mut done: Vec<&Container> = Vec::new();
        for key in &journal.keys {
            let Way::Started { containers } = &key.way else {
                continue;
            };
            for container in containers {
                if !done.contains(&container) {
                    container.up(journal)?;
                    done.push(container);
                }
            }
        }
        Ok(())
    }
}

fn part<T: serde::de::DeserializeOwned>(
    value: Option<serde_json::Value>,
) -> serde_json::Result<Option<T>> {
    value
        .map(serde_json::from_value)
        .transpose()
        .map(Option::flatten)
}

/// What compose's labels say of a container.
fn container(
    name: &str,
    labels: &serde_json::Map<String, serde_json::Value>,
    env_files: &[PathBuf],
) -> Result<Container> {
    let label = |word: &str| {
        let label = labels
            .get(&format!("com.docker.compose.{word}"))?
            .as_str()?;
        Some(label.to_owned()).filter(|label| !label.is_empty())
    };
    let paths = |list: String| list.split(',').map(PathBuf::from).collect::<Vec<_>>();
    let known = (|| {
        Some(Container {
            name: name.to_owned(),
            project: label("project")?,
            directory: label("project.working_dir")?.into(),
            files: paths(label("project.config_files")?),
            // Without the label compose was not told one by name.
            env_files: label("project.environment_file").map_or_else(|| env_files.to_vec(), paths),
            service: label("service")?,
        })
    })();
    known.ok_or_else(|| {
        Failure::new(format!("the container {name} has the access key, and was not made by docker compose"))
            .hint("only compose can make it anew with another environment: rg-envgen render compose, docker compose up; or change the key by hand and give it by --value-from FILE")
    })
}

impl Container {
    fn up(&self, journal: &Journal) -> Result<()> {
        tracing::info!("docker compose up {}", self.service);
        let mut program = Program::new("timeout")
            .args([UP_SECONDS, "docker", "compose", "--project-name"])
            .arg(self.project.as_str())
            .arg("--project-directory")
            .arg(self.directory.as_os_str());
        for file in &self.files {
            program = program.arg("--file").arg(file.as_os_str());
        }
        for file in &self.env_files {
            program = program.arg("--env-file").arg(file.as_os_str());
        }
        // A variable of ours would win over the file's.
        for file in &journal.files {
            let parsed = EnvFile::parse(&file.old)?;
            for name in parsed.names() {
                program = program.without_env(name);
            }
        }
        program = program.args(["up", "--detach", "--no-deps", "--", self.service.as_str()]);
        program.output(PRINTED_BYTES).map(drop).map_err(|failure| {
            let mut said = failure.to_string();
            for secret in journal.secrets() {
                said = said.replace(secret, "***");
            }
            Failure::new(format!(
                "cannot make the container {} anew: {said}",
                self.name
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_container_that_compose_did_not_make_is_refused_with_what_to_do() {
        let failure = container("minio", &labels("{}"), &[]).err().unwrap();
        assert_eq!(
            failure.to_string(),
            "the container minio has the access key, and was not made by docker compose"
        );
        assert!(failure.hints()[0].contains("--value-from"));
    }

    #[test]
    fn how_it_was_made_stands_in_its_labels() {
        let text = r#"{"com.docker.compose.project": "rgrid", "com.docker.compose.service": "minio",
            "com.docker.compose.project.working_dir": "/srv",
            "com.docker.compose.project.config_files": "/srv/a.yml,/srv/b.yml"}"#;
        let found = container("minio-production", &labels(text), &["/srv/.env".into()]);
        let found = found.ok().unwrap();
        assert_eq!(
            found.files,
            [PathBuf::from("/srv/a.yml"), "/srv/b.yml".into()]
        );
        assert_eq!(found.env_files, [PathBuf::from("/srv/.env")]);
        assert_eq!((&*found.project, &*found.service), ("rgrid", "minio"));
    }
}
