//! What a server and a database are: version, locale, rights of our role, extensions, roles, and
//! the settings that belong to the database and that `pg_dump` without `--create` leaves behind.
//!
//! Facts only; what follows from them is judged elsewhere, except where they would make a backup a
//! lie: rows that our role may not see ([`refuse_hidden_rows`]).

use serde::{Deserialize, Serialize};

use super::connect::{ServerVersion, Session};
use crate::failure::{Failure, Result};

/// How many tables a message names.
const NAMED_TABLES: usize = 5;

/// What a database is made of when it is made: needed to make one like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseShape {
    /// `UTF8`, `LATIN1`, `SQL_ASCII` …
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collate: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// `libc`, `icu` or `builtin`; always `libc` before 15.
    pub provider: String,
    /// The provider's own locale, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// ICU's additional rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// The owner's name.
    pub owner: String,
}

/// What a database carries beside its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSettings {
    /// The owner's name.
    pub owner: String,
    /// `CONNECTION LIMIT`; -1 is none.
    pub connection_limit: i32,
    /// Whether others may make databases from it.
    #[serde(default)]
    pub is_template: bool,
    /// Its comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Who may what; nothing here means PostgreSQL's default, an empty list that nobody may anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Vec<Grant>>,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    #[serde(default)]
    pub settings: Vec<Setting>,
}

/// One privilege on a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The role's name; nothing means everybody (`PUBLIC`).
    pub to: Option<String>,
    /// `CONNECT`, `CREATE` or `TEMPORARY`.
    pub privilege: String,
    /// `WITH GRANT OPTION`.
    pub grantable: bool,
}

/// One setting of a database, or of a role in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The role that it is for; nothing means everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The parameter.
    pub name: String,
    /// Its value as the catalog holds it.
    pub value: String,
}

/// What our role may do on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Everything.
    pub superuser: bool,
    /// May make and rename databases.
    pub create_databases: bool,
    /// Sees rows in spite of row-level security.
    pub bypass_row_security: bool,
    /// May end other roles' sessions (`pg_signal_backend`).
    pub signal_backends: bool,
}

/// An extension, installed in a database or available on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The installed version, or the default of the available ones.
    pub version: String,
}

/// The shape of a database of the session's server.
pub fn shape(session: &Session, database: &str) -> Result<DatabaseShape> {
    let (provider, locale, rules) = match session.version().major() {
        ..=14 => ("'c'", "NULL", "NULL"),
        15 => ("datlocprovider::text", "daticulocale", "NULL"),
        16 => ("datlocprovider::text", "daticulocale", "daticurules"),
        17.. => ("datlocprovider::text", "datlocale", "daticurules"),
    };
    let rows = session.rows(
        &format!(
            "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
                    {provider}::text, {locale}::text, {rules}::text, pg_get_userbyid(datdba)::text
             FROM pg_database WHERE datname = $1"
        ),
        &[&database],
    )?;
    let Some(row) = rows.first() else {
        return Err(absent(session, database));
    };
    let provider: String = row.get(3);
    Ok(DatabaseShape {
        encoding: row.get(0),
        collate: row.get(1),
        ctype: row.get(2),
        provider: match provider.as_str() {
            "i" => "icu",
            "b" => "builtin",
            _ => "libc",
        }
        .to_owned(),
        locale: row.get(4),
        icu_rules: row.get(5),
        owner: row.get(6),
    })
}

/// What a database of the session's server carries beside its contents.
pub fn settings(session: &Session, database: &str) -> Result<DatabaseSettings> {
    let rows = session.rows(
        "SELECT pg_get_userbyid(datdba)::text, datconnlimit, datistemplate,
                shobj_description(oid, 'pg_database'), datacl IS NOT NULL
         FROM pg_database WHERE datname = $1",
        &[&database],
    )?;
    let Some(row) = rows.first() else {
        return Err(absent(session, database));
    };
    let has_grants: bool = row.get(4);
    let grants = session.rows(
        "SELECT CASE WHEN a.grantee <> 0 THEN pg_get_userbyid(a.grantee)::text END,
                a.privilege_type, a.is_grantable
         FROM pg_database d, aclexplode(d.datacl) a WHERE d.datname = $1 ORDER BY 1, 2",
        &[&database],
    )?;
    let settings = session.rows(
        "SELECT CASE WHEN s.setrole <> 0 THEN pg_get_userbyid(s.setrole)::text END,
                split_part(c, '=', 1), substr(c, position('=' in c) + 1)
         FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase,
              unnest(s.setconfig) c
         WHERE d.datname = $1 ORDER BY 1 NULLS FIRST, 2",
        &[&database],
    )?;
    Ok(DatabaseSettings {
        owner: row.get(0),
        connection_limit: row.get(1),
        is_template: row.get(2),
        comment: row.get(3),
        grants: has_grants.then(|| {
            let grant = |row: &tokio_postgres::Row| Grant {
                to: row.get(0),
                privilege: row.get(1),
                grantable: row.get(2),
            };
            grants.iter().map(grant).collect()
        }),
        settings: settings
            .iter()
            .map(|row| Setting {
                role: row.get(0),
                name: row.get(1),
                value: row.get(2),
            })
            .collect(),
    })
}

/// What our role may do.
pub fn rights(session: &Session) -> Result<Rights> {
    let row = session.row(
        "SELECT rolsuper, rolcreatedb, rolbypassrls,
                pg_has_role(current_user, 'pg_signal_backend', 'USAGE')
         FROM pg_roles WHERE rolname = current_user",
        &[],
    )?;
    let superuser: bool = row.get(0);
    Ok(Rights {
        superuser,
        create_databases: superuser || row.get(1),
        bypass_row_security: superuser || row.get(2),
        signal_backends: superuser || row.get(3),
    })
}

/// The `lc_monetary` that the session's database writes `money` with; belongs to a comparison.
pub fn lc_monetary(session: &Session) -> Result<String> {
    session.value("SHOW lc_monetary", &[])
}

/// Whether a database of that name exists.
pub fn exists(session: &Session, database: &str) -> Result<bool> {
    session.value(
        "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)",
        &[&database],
    )
}

/// The bytes that a database takes on the server's disk.
pub fn size_bytes(session: &Session, database: &str) -> Result<u64> {
    let bytes: i64 = session.value(
        "SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1",
        &[&database],
    )?;
    Ok(bytes.unsigned_abs())
}

/// Where the server keeps its data, on its own machine; `None` if our role may not know.
pub fn data_directory(session: &Session) -> Result<Option<String>> {
    session.value(
        "SELECT setting FROM (SELECT 1) one
         LEFT JOIN pg_settings ON name = 'data_directory'",
        &[],
    )
}

/// The extensions installed in the session's database.
pub fn installed_extensions(session: &Session) -> Result<Vec<Extension>> {
    extensions(
        session,
        "SELECT extname::text, extversion FROM pg_extension ORDER BY 1",
    )
}

/// The extensions that could be installed on the session's server, with their default version.
pub fn available_extensions(session: &Session) -> Result<Vec<Extension>> {
    extensions(
        session,
        "SELECT name::text, default_version FROM pg_available_extensions
         WHERE default_version IS NOT NULL ORDER BY 1",
    )
}

fn extensions(session: &Session, sql: &str) -> Result<Vec<Extension>> {
    let rows = session.rows(sql, &[])?;
    Ok(rows
        .iter()
        .map(|row| Extension {
            name: row.get(0),
            version: row.get(1),
        })
        .collect())
}

/// The roles of the session's server, its predefined `pg_…` among them: `public` belongs to one.
pub fn roles(session: &Session) -> Result<Vec<String>> {
    let rows = session.rows("SELECT rolname::text FROM pg_roles ORDER BY 1", &[])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// A failure if row-level security would hide rows of the session's database from our role: a
/// dump would end in an error, or be without them.
pub fn refuse_hidden_rows(session: &Session) -> Result<()> {
    let rows = session.rows(
        "SELECT format('%I.%I', n.nspname, c.relname)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid)
         ORDER BY 1",
        &[],
    )?;
    let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if tables.is_empty() {
        return Ok(());
    }
    let mut named = tables[..tables.len().min(NAMED_TABLES)].join(", ");
    if tables.len() > NAMED_TABLES {
        named.push_str(&format!(" and {} more", tables.len() - NAMED_TABLES));
    }
    let user = &session.url().user;
    Err(Failure::new(format!(
        "row-level security hides rows of {named} from role `{user}`"
    ))
    .hint(format!(
        "as a superuser: ALTER ROLE \"{user}\" BYPASSRLS; or back up as the tables' owner (without FORCE ROW LEVEL SECURITY)"
    )))
}

/// A failure if what was dumped from one server may not load into an older one.
pub fn refuse_older_target(dumped: ServerVersion, target: ServerVersion) -> Result<()> {
    if dumped.major() <= target.major() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "the backup is of PostgreSQL {dumped}, the server to restore into is {target}, which is older"
    ))
    .hint(format!(
        "restore into a server of version {} or newer",
        dumped.major()
    )))
}

fn absent(session: &Session, database: &str) -> Failure {
    Failure::new(format!(
        "there is no database `{database}` at {}",
        session.url().server()
    ))
    .hint("`psql -l` lists them")
}

#[cfg(test)]
mod tests;
