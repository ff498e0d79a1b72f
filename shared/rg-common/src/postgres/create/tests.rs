use super::*;
use crate::postgres::cluster::cluster;
use crate::postgres::facts;

#[test]
fn settings_survive_the_way_from_one_database_to_another() {
    let cluster = cluster();
    let role = cluster.unique("it's \"a\" role");
    let quoted = identifier(&role);
    let from = cluster.database("settings from", &format!("CREATE ROLE {quoted}"));
    let to = cluster.database("settings to", "");
    let session = cluster.session("postgres");
    let (name, all) = (identifier(&from), ["search_path", "my.setting"]);
    session
        .execute(&format!(
            "ALTER DATABASE {name} SET search_path = \"$user\", public, \"B, \"\"c\";
             ALTER DATABASE {name} SET my.setting = 'a\\b''c, d';
             ALTER ROLE {quoted} IN DATABASE {name} SET search_path = '';
             ALTER DATABASE {name} SET DateStyle = 'ISO, YMD';
             GRANT CREATE ON DATABASE {name} TO {quoted};
             REVOKE CONNECT ON DATABASE {name} FROM PUBLIC;
             COMMENT ON DATABASE {name} IS E'two\\nlines \\\\ and ''quotes''';
             ALTER DATABASE {name} CONNECTION LIMIT 5;
             ALTER DATABASE {name} OWNER TO {quoted}"
        ))
        .unwrap();
    let wanted = facts::settings(&session, &from).unwrap();
    assert_eq!(wanted.settings.len(), 4, "{all:?}");
    assert_eq!(apply(&session, &wanted, &to).unwrap(), Vec::<String>::new());
    assert_eq!(facts::settings(&session, &to).unwrap(), wanted);
    drop_database(&session, &from, false).unwrap();
    drop_database(&session, &to, false).unwrap();
}

#[test]
fn a_missing_role_is_said_and_the_rest_applied() {
    let cluster = cluster();
    let name = cluster.database("partial", "");
    let session = cluster.session("postgres");
    let mut wanted = facts::settings(&session, &name).unwrap();
    wanted.settings.push(Setting {
        role: Some("nobody".into()),
        name: "work_mem".into(),
        value: "1MB".into(),
    });
    wanted.comment = Some("applied".into());
    let left_out = apply(&session, &wanted, &name).unwrap();
    assert_eq!(left_out.len(), 1);
    assert!(
        left_out[0].contains("role \"nobody\" does not exist"),
        "{left_out:?}"
    );
    let found = facts::settings(&session, &name).unwrap();
    assert_eq!(found.comment.as_deref(), Some("applied"));
}

#[test]
fn encoding_and_icu_locale_are_kept() {
    let cluster = cluster();
    let session = cluster.session("postgres");
    let mut like = facts::shape(&session, "postgres").unwrap();
    like.encoding = "LATIN1".into();
    like.collate = "C".into();
    like.ctype = "C".into();
    let name = cluster.unique("latin");
    create_database(&session, &name, &like).unwrap();
    assert_eq!(facts::shape(&session, &name).unwrap(), like);
    if session.version().major() >= 15 {
        like.encoding = "UTF8".into();
        like.provider = "icu".into();
        like.locale = Some("de".into());
        let name = cluster.unique("icu");
        create_database(&session, &name, &like).unwrap();
        assert_eq!(facts::shape(&session, &name).unwrap(), like);
    }
}

#[test]
fn what_stops_a_new_database_has_its_remedy() {
    let cluster = cluster();
    let session = cluster.session("postgres");
    let good = facts::shape(&session, "postgres").unwrap();
    let hint = |session: &Session, like: &DatabaseShape| {
        let failure = create_database(session, &cluster.unique("never"), like).unwrap_err();
        failure.hints().join(" | ")
    };
    let mut like = good.clone();
    like.collate = "xx_XX.UTF-8".into();
    assert!(hint(&session, &like).contains("locale-gen"));
    like = good.clone();
    like.owner = "nobody".into();
    assert!(hint(&session, &like).contains("restore the globals first"));
    let role = cluster.unique("plain");
    session
        .execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p'"))
        .unwrap();
    let url = cluster.address(&format!(
        "postgresql://{role}:p@127.0.0.1:{}/postgres",
        cluster.port
    ));
    let plain = cluster.connector().open(&url).unwrap();
    assert!(hint(&plain, &good).contains("CREATEDB"));
}
