use super::*;
use crate::generate::tests::Counting;
use crate::profile;

fn schema() -> Schema {
    Schema::parse(profile::RGRID.schema).unwrap()
}

fn run(found: &[(&str, &str)], exists: Option<&str>) -> Result<Values> {
    let schema = schema();
    let known = Known {
        schema: &schema,
        environment: schema.environment("staging")?,
        found: found
            .iter()
            .map(|(id, value)| ((*id).to_owned(), Secret::new(*value)))
            .collect(),
        given: BTreeMap::new(),
    };
    values(known, &mut Counting(1), &|_| exists.map(str::to_owned))
}

#[test]
fn a_password_is_not_made_up_for_a_database_that_exists() {
    let values = run(&[], Some("the volume is there")).unwrap();
    assert_eq!(values.get("DB_PASSWORD"), None);
    assert_eq!(values.get("DATABASE_URL"), None);
    let missing: Vec<_> = values
        .missing
        .iter()
        .filter(|m| m.required)
        .map(|m| (m.name.as_str(), m.what.as_str()))
        .collect();
    assert_eq!(
        missing,
        [
            ("STAGING_DB_PASSWORD", "the volume is there"),
            ("DATABASE_URL", "it is made of others that are missing"),
            ("DATABASE_URL_SYNC", "it is made of others that are missing"),
        ]
    );
    assert!(values.get("API_SECRET_KEY").is_some());
}

#[test]
fn what_stands_only_inside_an_address_or_a_copy_is_known_by_it() {
    let values = run(
        &[
            ("DATABASE_URL", "postgresql+asyncpg://rgrid_staging:p%40ss@localhost:5433/rgrid_staging?ssl=require"),
            ("MINIO_ACCESS_KEY", "abc"),
        ],
        Some("never asked"),
    )
    .unwrap();
    let get = |id: &str| values.get(id).unwrap().reveal().to_owned();
    assert_eq!(get("DB_PASSWORD"), "p@ss");
    assert_eq!(get("MINIO_ACCESS"), "abc");
    assert_eq!(
        get("DATABASE_URL_SYNC"),
        "postgresql://rgrid_staging:p%40ss@localhost:5433/rgrid_staging?sslmode=require"
    );
    assert_eq!(values.notes, [""; 0]);
}

#[test]
fn an_address_and_its_parts_that_disagree_are_pointed_out_and_kept() {
    let values = run(
        &[
            (
                "DATABASE_URL",
                "postgresql+asyncpg://rgrid_staging:one@h:5433/rgrid_staging",
            ),
            ("DB_PASSWORD", "two"),
        ],
        None,
    )
    .unwrap();
    assert_eq!(
        values.notes,
        ["DATABASE_URL and STAGING_DB_PASSWORD disagree about the password"]
    );
    assert_eq!(values.get("DB_PASSWORD").unwrap().reveal(), "two");
}

#[test]
fn twins_come_from_the_same_parts() {
    let values = run(&[], None).unwrap();
    let get = |id: &str| values.get(id).unwrap().reveal().to_owned();
    let password = get("DB_PASSWORD");
    let rest = format!("rgrid_staging:{password}@127.0.0.1:5433/rgrid_staging");
    assert_eq!(get("DATABASE_URL"), format!("postgresql+asyncpg://{rest}"));
    assert_eq!(get("DATABASE_URL_SYNC"), format!("postgresql://{rest}"));
    assert_eq!(get("ALLOWED_ORIGINS"), "https://staging.rgrid.dev");
    assert!(
        values.missing.iter().all(|missing| !missing.required),
        "{:?}",
        values.missing
    );
}

#[test]
fn a_secret_that_is_there_is_not_given_another_value() {
    let schema = schema();
    let known = Known {
        schema: &schema,
        environment: schema.environment("staging").unwrap(),
        found: [("API_SECRET_KEY".to_owned(), Secret::new("old"))].into(),
        given: [("API_SECRET_KEY".to_owned(), Secret::new("new"))].into(),
    };
    let failure = values(known, &mut Counting(1), &|_| None).unwrap_err();
    assert!(
        failure.to_string().contains("never changes a secret"),
        "{failure}"
    );
}
