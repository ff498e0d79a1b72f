use super::*;
use rg_common::dump::{DumpFormat, LargeObjects};

fn inventory(names: &[(&str, &str)]) -> Inventory {
    let table = |(schema, name): &(&str, &str)| Table {
        schema: (*schema).to_owned(),
        name: (*name).to_owned(),
        columns: "id".to_owned(),
        rows: 0,
        checksum: "0".repeat(32),
        bytes: 0,
    };
    Inventory {
        format: DumpFormat::Custom,
        archive_version: None,
        server_version: "15.1".to_owned(),
        pg_dump_version: "15.1".to_owned(),
        encoding: None,
        database: None,
        counted: true,
        uncounted_because: None,
        tables: names.iter().map(table).collect(),
        sequences: Vec::new(),
        large_objects: LargeObjects {
            count: 0,
            checksum: "0".repeat(32),
        },
        objects: Default::default(),
        roles: Default::default(),
        extensions: Vec::new(),
    }
}

fn resolved(wanted: &[&str]) -> Result<Vec<String>> {
    let inventory = inventory(&[
        ("public", "users"),
        ("public", "orders"),
        ("old", "users"),
        ("rg_before_20260101_000000", "orders"),
    ]);
    let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let found = resolve(&inventory, &wanted)?;
    let names = found.iter().map(|t| format!("{}.{}", t.schema, t.name));
    Ok(names.collect())
}

#[test]
fn a_misspelt_table_is_an_error_with_the_nearest_name() {
    let failure = resolved(&["order"]).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the backup has no rows of a table `order`"
    );
    assert_eq!(failure.hints(), ["did you mean `orders`?"]);
}

#[test]
fn a_name_in_two_schemas_is_asked_back() {
    let failure = resolved(&["users"]).unwrap_err();
    assert_eq!(failure.hints(), ["say which: public.users, old.users"]);
}

#[test]
fn a_table_named_twice_is_restored_once() {
    assert_eq!(
        resolved(&["orders", "old.users", "public.orders"]).unwrap(),
        ["public.orders", "old.users"]
    );
}
