//! A server's roles, put back where they are missing. A role that exists is left as it is: its
//! password may have been changed since, and the apps rely on it.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use rg_common::catalog::Content;
use rg_common::cli::Context;
use rg_common::config::{Config, DatabaseConfig, DatasetConfig};
use rg_common::dataset;
use rg_common::dataset::globals::{BYTES_MAX, roles};
use rg_common::postgres::{Place, facts};
use rg_common::seal::Identities;
use rg_common::{Failure, Result};

use crate::bootstrap::Socket;
use crate::database::{self, Server, Trouble};
use crate::run::{Choice, Done, Job};
use crate::source::Source;

/// Makes the roles that are missing, with their passwords, memberships and settings.
pub fn restore(
    job: &Job<'_>,
    choice: &Choice<'_>,
    database: &DatabaseConfig,
    notes: &mut Vec<String>,
) -> Result<Done> {
    let server = match Server::open(
        job.context,
        job.config,
        &choice.dataset.environment,
        database,
    ) {
        Ok(server) => server,
        Err(failure) => return on_an_empty_server(job, choice, database, failure, notes),
    };
    let text = read(
        job.context,
        job.config,
        &choice.source,
        job.identities.as_ref(),
    )?;
    let there: BTreeSet<String> = facts::roles(&server.admin)?.into_iter().collect();
    let all = roles(text.as_bytes());
    let missing: Vec<&String> = all.iter().filter(|role| !there.contains(*role)).collect();
    let kept: Vec<&str> = all
        .iter()
        .filter(|role| there.contains(*role))
        .map(String::as_str)
        .collect();
    if !kept.is_empty() {
        notes.push(format!("left as they are: {}", kept.join(", ")));
    }
    if !job.args.dry_run {
        execute(&server, &without_existing(&text, &there), "COMMIT;\n")?;
    }
    let names: Vec<&str> = missing.iter().map(|role| role.as_str()).collect();
    let into = if names.is_empty() {
        "no role was missing".to_owned()
    } else {
        format!("roles {}", names.join(", "))
    };
    Ok(Done {
        dataset: choice.dataset.name.to_string(),
        from: choice.source.name(),
        into,
        kept: None,
        count: missing.len() as u64,
        count_of: "roles",
    })
}

/// Where the configured role is not there yet: all roles through the server's socket. Otherwise the
/// failure to log in stays what it was.
fn on_an_empty_server(
    job: &Job<'_>,
    choice: &Choice<'_>,
    database: &DatabaseConfig,
    failure: Failure,
    notes: &mut Vec<String>,
) -> Result<Done> {
    let config = job.config;
    let url = dataset::database::url(config, &choice.dataset.environment, database)?;
    let Some(socket) = Socket::find(&url, &Place::parse(&database.via)?) else {
        return Err(failure);
    };
    let text = read(job.context, config, &choice.source, job.identities.as_ref())?;
    let roles = if job.args.dry_run {
        roles(text.as_bytes())
    } else {
        let made = socket.populate(config, |there| without_existing(&text, there))?;
        for name in &made.databases {
            notes.push(format!("made the empty database {name}"));
        }
        made.roles
    };
    notes.push(format!(
        "the server did not know {} yet: the roles were made as its superuser, those of the configured URLs with their passwords",
        url.user
    ));
    Ok(Done {
        dataset: choice.dataset.name.to_string(),
        from: choice.source.name(),
        into: format!("roles {}", roles.join(", ")),
        kept: None,
        count: roles.len() as u64,
        count_of: "roles",
    })
}

/// Runs a globals dump on the real server in a transaction that is taken back: every statement
/// for roles that are missing, and the list of roles against what was recorded.
pub fn drill(
    context: &Context,
    config: &Config,
    dataset: &DatasetConfig,
    database: &DatabaseConfig,
    source: &Source,
    identities: Option<&Identities>,
) -> Result<(), Trouble> {
    let text = read(context, config, source, identities)
        .map_err(|failure| source.blame(config, failure))?;
    let Content::Globals(recorded) = &source.manifest.content else {
        return Err(Trouble::Bad(Failure::new(
            "its manifest is not that of globals",
        )));
    };
    if roles(text.as_bytes()) != recorded.roles {
        return Err(Trouble::Bad(Failure::new(
            "the roles in it are not those recorded",
        )));
    }
    let server = Server::open(context, config, &dataset.environment, database)?;
    if !facts::rights(&server.admin)?.superuser {
        return Ok(());
    }
    let there: BTreeSet<String> = facts::roles(&server.admin)?.into_iter().collect();
    execute(&server, &without_existing(&text, &there), "ROLLBACK;\n")
        .map_err(|failure| database::told_by(&server, failure))
}

fn read(
    context: &Context,
    config: &Config,
    source: &Source,
    identities: Option<&Identities>,
) -> Result<String> {
    let mut text = Vec::new();
    let mut plain = source.open(context, config, identities)?;
    (&mut plain)
        .take(BYTES_MAX as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| Failure::from_io(format!("cannot read {}", source.name()), error))?;
    String::from_utf8(text).map_err(|_| Failure::new(format!("{} is not UTF-8", source.name())))
}

/// The dump without the statements that would make or change roles that exist, and without what
/// cannot be in a transaction (tablespaces, which are of another machine's disks).
fn without_existing(text: &str, there: &BTreeSet<String>) -> String {
    let named = |line: &str, verb: &str| {
        let rest = line.strip_prefix(verb)?;
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => rest.split([' ', ';']).next()?,
        };
        there.contains(name).then_some(())
    };
    let wanted = |line: &&str| {
        ["CREATE ROLE ", "ALTER ROLE "]
            .iter()
            .all(|verb| named(line, verb).is_none())
            && !line.starts_with("CREATE TABLESPACE ")
            && !line.starts_with("ALTER TABLESPACE ")
    };
    let mut kept: String = text
        .lines()
        .filter(wanted)
        .flat_map(|line| [line, "\n"])
        .collect();
    kept.push('\n');
    kept
}

/// Runs a script in one transaction; its passwords stay out of the server's log.
fn execute(server: &Server<'_>, script: &str, end: &str) -> Result<()> {
    let maintenance = server.admin.url();
    let program = server
        .place
        .program("psql", maintenance, server.admin.version())?
        .args([
            "--no-psqlrc",
            "--quiet",
            "--no-password",
            "--set=ON_ERROR_STOP=1",
            "--output=/dev/null",
        ])
        .arg(format!("--dbname={}", maintenance.database))
        .arg("--file=-");
    let mut writer = program.writer()?;
    let quiet = if facts::rights(&server.admin)?.superuser {
        "SET LOCAL log_statement = 'none'; SET LOCAL log_min_error_statement = 'panic'; SET LOCAL log_min_duration_statement = -1;\n"
    } else {
        ""
    };
    for part in ["BEGIN;\n", quiet, script, end] {
        writer
            .write_all(part.as_bytes())
            .map_err(|error| Failure::from_io("cannot run the globals", error))?;
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn existing_roles_are_left_as_they_are() {
        let text = "CREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'x';\nCREATE ROLE \"new one\";\nALTER ROLE \"new one\" WITH LOGIN;\nGRANT app TO \"new one\";\n";
        let there = BTreeSet::from(["app".to_owned()]);
        assert_eq!(
            without_existing(text, &there),
            "CREATE ROLE \"new one\";\nALTER ROLE \"new one\" WITH LOGIN;\nGRANT app TO \"new one\";\n\n"
        );
    }
}
