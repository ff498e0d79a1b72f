use proptest::prelude::*;

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

#[test]
fn a_placeholder_is_no_secret() {
    let values = run(
        &[
            ("DB_PASSWORD", "<STAGING_DB_PASSWORD>"),
            (
                "DATABASE_URL",
                "postgresql+asyncpg://rgrid_staging:<STAGING_DB_PASSWORD>@localhost:5433/rgrid_staging",
            ),
            ("API_SECRET_KEY", "GENERATED_32_CHAR_SECRET"),
        ],
        None,
    )
    .unwrap();
    let get = |id: &str| values.get(id).unwrap().reveal().to_owned();
    assert_eq!(get("DB_PASSWORD").len(), 32);
    assert!(get("DATABASE_URL").contains(&get("DB_PASSWORD")));
    assert_eq!(get("API_SECRET_KEY").len(), 64);
    assert_eq!(values.notes.len(), 3);
}

proptest! {
    /// Whatever a file holds: what is a secret there stays, and a second run changes nothing.
    #[test]
    fn an_existing_secret_never_changes(
        secrets in proptest::collection::vec(proptest::option::of("[0-9a-f]{8,64}"), 5),
        seed in any::<u64>(),
    ) {
        let ids = ["DB_PASSWORD", "MINIO_ACCESS", "MINIO_SECRET", "API_SECRET_KEY", "HETZNER_API_TOKEN"];
        let given = ids.iter().zip(&secrets);
        let found: BTreeMap<String, Secret> = given
            .filter_map(|(id, value)| Some(((*id).to_owned(), Secret::new(value.clone()?))))
            .collect();
        let schema = schema();
        let known = |found: BTreeMap<String, Secret>| Known {
            schema: &schema,
            environment: &schema.environments[1],
            found,
            given: BTreeMap::new(),
        };
        let first = values(known(found.clone()), &mut Counting(seed), &|_| None).unwrap();
        for (id, value) in &found {
            prop_assert_eq!(first.get(id), Some(value));
        }
        let all: BTreeMap<String, Secret> =
            first.values.iter().map(|(id, (value, _))| (id.clone(), value.clone())).collect();
        let second = values(known(all.clone()), &mut Counting(!seed), &|_| None).unwrap();
        for (id, (value, _)) in &second.values {
            prop_assert_eq!(Some(value), all.get(id));
        }
        prop_assert_eq!(second.values.len(), all.len());
    }
}
