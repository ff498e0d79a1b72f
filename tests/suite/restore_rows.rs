//! Rows that go into the server past `pg_restore`: when that is done, when it is not, and that it
//! makes no difference.

use std::fs;

use rg_tests::{Deployment, deployment};

const RUN: &[&str] = &["run", "production/database", "--yes"];

/// All kinds of tables and of values, and nothing that only `pg_restore` can load.
const SHAPES: &str = r#"
CREATE SCHEMA "Odd schema";
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE "Odd schema"."Ünïcode ""t""" (id positive PRIMARY KEY, "c, ""d" text, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO "Odd schema"."Ünïcode ""t""" (id, "c, ""d") SELECT i, E'a\tb\nc\\.\r' || chr(i) FROM generate_series(1, 120) i;
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT i, date '2026-01-01' + i FROM generate_series(1, 90) i;
CREATE TABLE above (id int); CREATE TABLE below (more text) INHERITS (above);
INSERT INTO above VALUES (1); INSERT INTO below VALUES (2, 'x');
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE no_rows (id int); CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id;
CREATE TABLE long_rows AS SELECT i AS id, repeat(md5(i::text), 40000) AS text FROM generate_series(1, 3) i;
CREATE MATERIALIZED VIEW sums AS SELECT customer, sum(total) FROM orders GROUP BY customer;
CREATE SEQUENCE numbers INCREMENT 7 START 100; SELECT nextval('numbers'), nextval('numbers');
CREATE SEQUENCE untouched;
"#;

/// From now on every call of `pg_restore` writes its arguments down.
fn watch(app: &Deployment<'_>) {
    let body = format!(
        "printf '%s ' \"$@\" >>'{}'; exec \"$real\" \"$@\"",
        app.path("said-to-pg_restore").display()
    );
    app.program_does("pg_restore", &body);
}

/// Whether `pg_restore` has loaded rows since the last question.
fn loaded_rows(app: &Deployment<'_>) -> bool {
    let calls = fs::read_to_string(app.path("said-to-pg_restore")).expect("calls");
    fs::remove_file(app.path("said-to-pg_restore")).expect("the file");
    assert!(calls.contains("--section=post-data"), "{calls}");
    calls.contains("--section=data")
}

/// Backs up, takes rows away, restores: everything is as it was, however it was loaded.
#[track_caller]
fn comes_back(app: &Deployment<'_>, by_pg_restore: bool) {
    let held = app.held();
    let rows = "SELECT count(*), min(id), sum(length(text)) FROM long_rows;
        SELECT nextval('numbers'), nextval('untouched');
        SELECT setval('numbers', 107), setval('untouched', 1, false);
        SELECT sum(id), md5(string_agg(t::text, '' ORDER BY id)) FROM \"Odd schema\".\"Ünïcode \"\"t\"\"\" t";
    let before = app.cluster.psql(&app.database, rows);
    app.backup_of("production/database");
    let change = "DELETE FROM orders WHERE id % 7 = 0; UPDATE long_rows SET id = id + 1";
    app.cluster.psql(&app.database, change);
    app.restore(&[RUN, &["--jobs", "2"]].concat()).ok();
    assert_eq!(loaded_rows(app), by_pg_restore);
    app.is_as(&held);
    assert_eq!(app.cluster.psql(&app.database, rows), before);
}

#[test]
fn rows_alone_go_past_pg_restore_and_anything_else_does_not() {
    let app = deployment!("past");
    app.cluster
        .psql("past", "GRANT CREATE ON SCHEMA public TO past");
    app.cluster.try_psql("past", "past", SHAPES).ok();
    watch(&app);
    comes_back(&app, false);
    // What was loaded is frozen, and an index is used: nothing hangs on the way that it came.
    let frozen =
        "SELECT relallvisible = relpages AND relpages > 0 FROM pg_class WHERE relname = 'orders'";
    app.cluster.psql("past", "ANALYZE orders");
    assert_eq!(app.cluster.psql("past", frozen), "t");
    // Rights that the owner took from himself: to pg_restore they come after the rows.
    let revoke = "REVOKE INSERT ON no_rows FROM past";
    app.cluster.try_psql("past", "past", revoke).ok();
    comes_back(&app, true);
    let grant = "GRANT INSERT ON no_rows TO past";
    app.cluster.try_psql("past", "past", grant).ok();
    comes_back(&app, false);
    let large = "SELECT lo_from_bytea(4711, 'large')";
    app.cluster.try_psql("past", "past", large).ok();
    comes_back(&app, true);
}

#[test]
fn a_row_that_the_server_does_not_take_is_named_by_table_and_line_and_nothing_changes() {
    let app = deployment!("lively");
    // Its check looks into a table that is filled later: no such dump can be loaded.
    let trap = "CREATE TABLE zz_later AS SELECT 1 AS id;
        CREATE FUNCTION there(int) RETURNS boolean LANGUAGE sql AS 'SELECT $1 < 3 OR EXISTS (SELECT FROM public.zz_later)';
        CREATE TABLE aa_checked (id int CHECK (there(id)));
        INSERT INTO aa_checked SELECT generate_series(1, 5)";
    app.cluster
        .psql("lively", "GRANT CREATE ON SCHEMA public TO lively");
    app.cluster.try_psql("lively", "lively", trap).ok();
    app.backup_of("production/database");
    app.change("since the backup");
    let before = app.held();
    app.restore(&[RUN, &["--jobs", "2"]].concat())
        .fails(2)
        .says("cannot load table public.aa_checked")
        .says("violates check constraint")
        .says("COPY aa_checked, line 3");
    app.is_as(&before);
}
