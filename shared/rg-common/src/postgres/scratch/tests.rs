use super::*;
use crate::postgres::cluster::cluster;
use crate::postgres::create::{create_database, drop_database};
use crate::postgres::facts;

const STAMP: &str = "20260123_020000";

#[test]
fn a_name_fits_and_says_what_it_is() {
    assert_eq!(
        scratch_name("rgrid_production", Purpose::Before, STAMP),
        "rgrid_production_rg_before_20260123_020000"
    );
    let long = |last: &str| {
        scratch_name(
            &format!("{}{last}", "ä".repeat(31)),
            Purpose::Restoring,
            STAMP,
        )
    };
    assert!(long("a").len() <= NAME_BYTES);
    assert_ne!(long("a"), long("b"));
    for base in ["app", &"x".repeat(63)] {
        for purpose in Purpose::ALL {
            let name = scratch_name(base, purpose, STAMP);
            let found = read_scratch(base, &name).unwrap();
            assert_eq!((found.purpose, found.stamp.as_str()), (purpose, STAMP));
        }
    }
}

#[test]
fn another_databases_leftovers_are_not_ours() {
    for name in [
        "app",
        "app_staging_rg_before_20260123_020000",
        "app_rg_before_20260123-020000",
        "app_rg_other_20260123_020000",
        "app_rg_before_2026012x_020000",
        "xapp_rg_before_20260123_020000",
        "ä",
    ] {
        assert_eq!(read_scratch("app", name), None, "{name}");
    }
}

#[test]
fn leftovers_are_found_on_the_server() {
    let cluster = cluster();
    let base = cluster.unique("left \"over");
    let session = cluster.session("postgres");
    let like = facts::shape(&session, "postgres").unwrap();
    let later = scratch_name(&base, Purpose::Drill, "20260124_000000");
    let earlier = scratch_name(&base, Purpose::Restoring, STAMP);
    create_database(&session, &later, &like).unwrap();
    create_database(&session, &earlier, &like).unwrap();
    let names = || -> Vec<String> {
        let found = list_scratch(&session, &base).unwrap();
        found.into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names(), [earlier.clone(), later.clone()]);
    let user = cluster.session(&earlier);
    drop_database(&session, &later, false).unwrap();
    drop_database(&session, &earlier, true).unwrap();
    drop_database(&session, "never there", false).unwrap();
    assert!(names().is_empty());
    assert!(user.execute("SELECT 1").is_err());
}
