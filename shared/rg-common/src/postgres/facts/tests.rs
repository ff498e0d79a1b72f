use super::*;
use crate::postgres::cluster::cluster;

#[test]
fn rows_that_a_policy_hides_stop_the_backup() {
    let cluster = cluster();
    let role = cluster.unique("policed");
    let name = cluster.database(
        "rls",
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'p';
             CREATE TABLE secrets (id int);
             ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
             GRANT SELECT ON secrets TO {role};"
        ),
    );
    let url = cluster.address(&format!(
        "postgresql://{role}:p@127.0.0.1:{}/{name}",
        cluster.port
    ));
    let policed = cluster.connector().open(&url).unwrap();
    let failure = refuse_hidden_rows(&policed).unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!("row-level security hides rows of public.secrets from role `{role}`")
    );
    assert!(failure.hints()[0].contains("BYPASSRLS"));
    refuse_hidden_rows(&cluster.session(&name)).unwrap();
    assert_eq!(
        rights(&policed).unwrap(),
        Rights {
            superuser: false,
            create_databases: false,
            bypass_row_security: false,
            signal_backends: false,
        }
    );
    assert!(rights(&cluster.session(&name)).unwrap().superuser);
    assert_eq!(data_directory(&policed).unwrap(), None);
    assert!(roles(&policed).unwrap().contains(&role));
}

#[test]
fn what_a_database_carries_is_found() {
    let cluster = cluster();
    let role = cluster.unique("reader");
    let name = cluster.database("facts", &format!("CREATE ROLE {role}"));
    let session = cluster.session(&name);
    let plain = settings(&session, &name).unwrap();
    assert_eq!(plain.grants, None);
    session
        .execute(&format!(
            "ALTER DATABASE {name} SET work_mem = '9MB';
             ALTER ROLE {role} IN DATABASE {name} SET search_path = a, \"B c\";
             GRANT CONNECT ON DATABASE {name} TO {role} WITH GRANT OPTION;
             REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;
             COMMENT ON DATABASE {name} IS 'it''s ours';
             ALTER DATABASE {name} CONNECTION LIMIT 7"
        ))
        .unwrap();
    let found = settings(&session, &name).unwrap();
    assert_eq!(found.comment.as_deref(), Some("it's ours"));
    assert_eq!((found.connection_limit, found.is_template), (7, false));
    assert_eq!(
        found.settings,
        [
            Setting {
                role: None,
                name: "work_mem".into(),
                value: "9MB".into()
            },
            Setting {
                role: Some(role.clone()),
                name: "search_path".into(),
                value: "a, \"B c\"".into()
            },
        ]
    );
    let grants = found.grants.unwrap();
    assert!(grants.contains(&Grant {
        to: Some(role),
        privilege: "CONNECT".into(),
        grantable: true
    }));
    assert!(
        !grants
            .iter()
            .any(|g| g.to.is_none() && g.privilege == "TEMPORARY")
    );
    assert_eq!(
        shape(&session, &name).unwrap(),
        DatabaseShape {
            encoding: "UTF8".into(),
            collate: "C.UTF-8".into(),
            ctype: "C.UTF-8".into(),
            provider: "libc".into(),
            locale: None,
            icu_rules: None,
            owner: "postgres".into(),
            tablespace: None,
        }
    );
    assert!(size_bytes(&session, &name).unwrap() > 1_000_000);
    assert!(data_directory(&session).unwrap().is_some());
    let plpgsql = |list: Vec<Extension>| list.iter().any(|one| one.name == "plpgsql");
    assert!(plpgsql(installed_extensions(&session).unwrap()));
    assert!(plpgsql(available_extensions(&session).unwrap()));
    assert!(exists(&session, &name).unwrap());
}

#[test]
fn a_missing_database_is_named() {
    let session = cluster().session("postgres");
    let failure = shape(&session, "nowhere").unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("there is no database `nowhere` at 127.0.0.1:"),
        "{failure}"
    );
    assert!(!exists(&session, "nowhere").unwrap());
}

#[test]
fn a_newer_dump_does_not_go_into_an_older_server() {
    let failure = refuse_older_target(ServerVersion(170_002), ServerVersion(150_018)).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the backup is of PostgreSQL 17.2, the server to restore into is 15.18, which is older"
    );
    assert_eq!(
        failure.hints(),
        ["restore into a server of version 17 or newer"]
    );
    refuse_older_target(ServerVersion(150_001), ServerVersion(150_000)).unwrap();
}
