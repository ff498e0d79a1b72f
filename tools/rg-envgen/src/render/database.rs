//! The SQL that makes an environment's role and database, for `psql` as a superuser.
//!
//! It holds a SCRAM verifier and no password, may be run again, and changes nothing that is there.

use postgres_protocol::password::scram_sha_256;
use rg_common::postgres::DatabaseUrl;
use rg_common::postgres::create::{identifier, literal};
use rg_common::{Failure, Result};

use super::Rendered;
use crate::derive::Values;
use crate::place::Place;
use crate::schema::{Environment, Source, Variable};

/// The SQL for an environment's database.
pub fn sql(place: &Place, environment: &Environment, values: &Values) -> Result<Rendered> {
    let name = format!("database-{}.sql", environment.name);
    let is_address = |variable: &&Variable| matches!(variable.source, Source::Url(_));
    let variable = place.schema.variables.iter().find(is_address);
    let there = variable.and_then(|variable| values.values.get(&variable.id));
    let Some((address, crate::derive::How::Kept)) = there else {
        return Err(Failure::new(format!(
            "{name} needs the database's address, and no env file of {} has one",
            environment.name
        ))
        .hint("rg-envgen write makes it"));
    };
    let url = DatabaseUrl::parse(address.reveal())?;
    let password = url
        .password
        .as_ref()
        .ok_or_else(|| Failure::new(format!("{url} has no password")))?;
    let verifier = scram_sha_256(password.reveal().as_bytes());
    let (role, database) = (&url.user, &url.database);
    let create_role = format!(
        "CREATE ROLE {} LOGIN PASSWORD {}",
        identifier(role),
        literal(&verifier)
    );
    let create_database = format!(
        "CREATE DATABASE {} OWNER {}",
        identifier(database),
        identifier(role)
    );
    let mut text = format!(
        "-- The role and the database of {}, for a superuser: rg-envgen render database | psql -X -v ON_ERROR_STOP=1\n\
         -- What is there already stays as it is; rg-envgen rotate changes a password.\n\
         SELECT {} WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {}) \\gexec\n\
         SELECT {} WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = {}) \\gexec\n",
        environment.name,
        literal(&create_role),
        literal(role),
        literal(&create_database),
        literal(database),
    );
    let extensions = place.extensions(environment);
    if !extensions.is_empty() {
        // In a script `\\connect` to a name in single quotes takes it as it is.
        text.push_str(&format!("\\connect {}\n", literal(database)));
        for extension in extensions {
            text.push_str(&format!(
                "CREATE EXTENSION IF NOT EXISTS {};\n",
                identifier(&extension)
            ));
        }
    }
    Ok(Rendered {
        name,
        path: None,
        changed: true,
        text,
    })
}
