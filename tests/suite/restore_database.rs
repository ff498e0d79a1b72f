//! What a database is beyond its rows comes back too; which backup is taken; a server that is
//! empty; memory.

use std::time::Duration;

use rg_tests::{Deployment, Postgres, Scale, Tool, deployment, eventually, load_demo, sandbox};

/// Long enough for a loaded machine; no test waits this long when all is well.
const SOON: Duration = Duration::from_secs(60);
const RUN: &[&str] = &["run", "production/database", "--yes"];

/// What lies in a database, by its own catalog: definitions, owners, grants, sequences, comments.
const INSIDE: &str = "
SELECT 'relation', n.nspname, c.relname, c.relkind::text, r.rolname, c.relacl::text, obj_description(c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
  WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema';
SELECT 'column', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attgenerated, attidentity
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
  WHERE attnum > 0 AND NOT attisdropped AND relnamespace::regnamespace::text !~ '^(pg_|information)';
SELECT 'index', indexdef FROM pg_indexes WHERE schemaname !~ '^pg_';
SELECT 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
  WHERE connamespace::regnamespace::text !~ '^(pg_|information)';
SELECT 'view', schemaname, viewname, definition FROM pg_views WHERE schemaname !~ '^(pg_|information)';
SELECT 'sequence', schemaname, sequencename, last_value, increment_by FROM pg_sequences;
SELECT 'partition', inhrelid::regclass, inhparent::regclass, pg_get_expr(relpartbound, c.oid)
  FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid;
SELECT 'function', oid::regprocedure, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_proc.oid AND deptype = 'e');
SELECT 'trigger', tgrelid::regclass, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal;
SELECT 'extension', extname, extversion FROM pg_extension;
SELECT 'policy', tablename, policyname, qual FROM pg_policies;
SELECT 'large object', l.oid, r.rolname, l.lomacl::text, md5(lo_get(l.oid)) FROM pg_largeobject_metadata l
  JOIN pg_roles r ON r.oid = l.lomowner;";

fn inside_of(cluster: &Postgres, database: &str) -> Vec<String> {
    let text = cluster.psql(database, INSIDE);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What belongs to the database itself: no dump of it holds this.
fn around(cluster: &Postgres, database: &str) -> String {
    cluster.psql(
        "postgres",
        &format!(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, daticulocale, \
             datconnlimit, rolname, shobj_description(d.oid, 'pg_database'), \
             (SELECT array_agg(a ORDER BY a) FROM unnest(datacl::text[]) a) \
             FROM pg_database d JOIN pg_roles r ON r.oid = datdba WHERE datname = '{database}'; \
             SELECT coalesce(rolname, '-'), (SELECT array_agg(s ORDER BY s) FROM unnest(setconfig) s) \
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase \
             LEFT JOIN pg_roles r ON r.oid = setrole WHERE datname = '{database}' ORDER BY 1"
        ),
    )
}

const RICH: &str = r#"
CREATE EXTENSION pg_trgm;
CREATE SCHEMA "Odd schema";
CREATE TYPE mood AS ENUM ('well', 'tired');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE "Odd schema"."Ünïcode ""t""" (id positive PRIMARY KEY, m mood, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO "Odd schema"."Ünïcode ""t""" (id, m) SELECT i, 'well' FROM generate_series(1, 50) i;
CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT i, date '2026-01-01' + i FROM generate_series(1, 90) i;
CREATE MATERIALIZED VIEW sums AS SELECT customer, sum(total) FROM orders GROUP BY customer;
CREATE INDEX names_alike ON customers USING gin (name gin_trgm_ops);
CREATE SEQUENCE numbers INCREMENT 7 START 100; SELECT nextval('numbers'), nextval('numbers');
CREATE SEQUENCE untouched;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'noted'; RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION note();
COMMENT ON TABLE customers IS 'with ''quotes''';
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON customers USING (name <> 'hidden');
SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex'));
CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS id;
"#;

#[test]
fn what_hangs_on_a_database_and_lies_in_it_is_as_it_was() {
    let cluster = Postgres::shared();
    let app = deployment!("rich");
    cluster.psql(
        "rich",
        "CREATE ROLE rich_reader; GRANT CREATE ON SCHEMA public TO rich",
    );
    cluster.try_psql("rich", "rich", RICH).ok();
    cluster.psql(
        "rich",
        "GRANT SELECT ON customers TO rich_reader; GRANT SELECT ON LARGE OBJECT 4711 TO rich_reader; \
         ALTER DATABASE rich SET work_mem = '5MB'; ALTER DATABASE rich SET search_path = public, \"Odd schema\"; \
         ALTER ROLE rich IN DATABASE rich SET statement_timeout = '7min'; \
         ALTER DATABASE rich CONNECTION LIMIT 33; COMMENT ON DATABASE rich IS 'it''s rich'; \
         REVOKE CONNECT ON DATABASE rich FROM PUBLIC; GRANT CONNECT ON DATABASE rich TO rich_reader",
    );
    let (inside, outside) = (inside_of(cluster, "rich"), around(cluster, "rich"));
    let held = app.held();
    // As the owner, who is no superuser and may make databases: with custom and with plain dumps.
    for format in ["custom", "plain"] {
        app.configure(&format!("format = \"{format}\""), "", "");
        app.backup_of("production/database");
        cluster.psql(
            "rich",
            "TRUNCATE customers CASCADE; DROP TABLE parts; SELECT lo_unlink(4711)",
        );
        let output = app.restore(RUN).ok();
        app.is_as(&held);
        assert_eq!(inside_of(cluster, "rich"), inside, "{format}");
        assert_eq!(around(cluster, "rich"), outside, "{format}: {output:?}");
        // Sequences go on where they stood.
        assert_eq!(
            cluster.psql("rich", "SELECT nextval('numbers'), nextval('untouched')"),
            "114|1"
        );
        let insert = "INSERT INTO orders (customer, total) VALUES (1, 1) RETURNING id";
        assert_eq!(cluster.psql("rich", insert), "501");
        cluster.psql(
            "rich",
            "DELETE FROM orders WHERE id = 501; ALTER TABLE orders ALTER id RESTART WITH 501",
        );
        cluster.psql("rich", "SELECT setval('numbers', 107), setval('untouched', 1, false), setval('orders_id_seq', 500)");
        // And a database that is gone altogether comes back with what was recorded of it.
        cluster.psql("postgres", "DROP DATABASE rich WITH (FORCE)");
        app.restore(RUN).ok();
        assert_eq!(around(cluster, "rich"), outside, "{format}, from nothing");
        app.is_as(&held);
        app.restore(&["undo", "production/database", "--yes"])
            .fails(2)
            .says("nothing was there before");
    }
}

#[test]
fn another_encoding_and_locale_are_carried_over() {
    let app = deployment!("latin");
    let cluster = app.cluster;
    cluster.psql("postgres", "DROP DATABASE latin");
    cluster.psql(
        "postgres",
        "CREATE DATABASE latin OWNER latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    let fill = "CREATE TABLE names AS SELECT 'Müller ' || i AS name FROM generate_series(1, 99) i";
    cluster.try_psql("latin", "latin", fill).ok();
    let (held, outside) = (app.held(), around(cluster, "latin"));
    app.backup_of("production/database");
    cluster.psql("latin", "DELETE FROM names");
    app.restore(RUN).ok();
    app.is_as(&held);
    assert_eq!(around(cluster, "latin"), outside);
}

#[test]
fn owners_and_grants_of_roles_that_are_missing_can_be_left_out() {
    let app = deployment!("no_owner");
    let cluster = app.cluster;
    cluster.psql(
        "no_owner",
        "CREATE ROLE leaving; GRANT SELECT ON customers TO leaving; \
         GRANT CREATE ON SCHEMA public TO no_owner",
    );
    let held = app.held();
    app.backup_of("production/database");
    cluster.psql(
        "no_owner",
        "DROP OWNED BY leaving; DROP ROLE leaving; DELETE FROM orders",
    );
    app.restore(RUN)
        .fails(2)
        .says("lacks roles that the backup needs: leaving")
        .says("--no-owner");
    app.restore(&[RUN, &["--no-owner"]].concat()).ok();
    app.is_as(&held);
}

#[test]
fn a_session_that_we_may_not_end_keeps_the_live_database_in_place() {
    let app = deployment!("weak");
    app.backup_of("production/database");
    app.change("since");
    let before = app.held();
    // A superuser's session in the live database: the owner may not end it.
    let stay = app.cluster.command("psql", "weak", "postgres");
    let session = Tool::new(stay, "psql")
        .arg("-c")
        .arg("SELECT pg_sleep(600)")
        .spawn();
    let there = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = 'weak'";
    assert!(eventually(SOON, || app.cluster.psql("postgres", there) == "1"));
    app.restore(RUN)
        .fails(2)
        .says("taken back")
        .says("postgres");
    app.is_as(&before);
    drop(session);
    assert!(eventually(SOON, || app.cluster.psql("postgres", there)
        == "0"
        || {
            app.cluster.psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)' AND datname = 'weak'");
            false
        }));
    app.restore(RUN).ok();
}

#[test]
fn a_fresh_server_gets_roles_with_their_passwords_database_and_files_from_the_store() {
    let place = sandbox!();
    let old = Postgres::start();
    let app = Deployment::new(place, &old, "moved");
    // As in a container made for one app: the app's own role is the superuser.
    old.psql("moved", "ALTER ROLE moved SUPERUSER; CREATE ROLE moved_reader LOGIN PASSWORD 'read it'; \
        GRANT SELECT ON customers TO moved_reader; GRANT moved_reader TO moved; ALTER ROLE moved_reader SET work_mem = '6MB'");
    let held = app.held();
    app.backup_of("globals");
    app.backup();

    let new = Postgres::start();
    std::fs::remove_dir_all(app.path("srv")).expect("an empty disk");
    std::fs::remove_dir_all(app.path("state")).expect("an empty disk");
    // The new server has only its superuser; with it the roles are made.
    app.write(
        "env",
        format!("DATABASE_URL={}\n", new.url("moved", "postgres")),
    );
    app.restore(&["run", "production", "--yes"])
        .fails(2)
        .says("rg-restore run globals");
    let output = app.restore(&["run", "globals", "--yes"]).ok();
    assert!(output.out().contains("moved_reader"), "{output:?}");
    assert!(!format!("{output:?}").contains("SCRAM"), "{output:?}");
    // From here on the old address holds, with the old password.
    let url = old
        .url("moved", "moved")
        .replace(&old.port().to_string(), &new.port().to_string());
    app.write("env", format!("DATABASE_URL={url}\n"));
    app.restore(&["run", "production", "--yes"])
        .fails(2)
        .says("is not a directory");
    std::fs::create_dir(app.path("srv")).expect("the uploads' parent");
    app.restore(&["run", "production", "--yes"]).ok();
    assert!(new.digest("moved") == held.rows);
    app.tree_is(&app.uploads, &held.tree);
    let reader = format!(
        "postgresql://moved_reader:read%20it@127.0.0.1:{}/moved",
        new.port()
    );
    let ask = "SELECT count(*), current_setting('work_mem') FROM customers";
    let said = app.program("psql", [&reader, "-XAtc", ask]).run().ok();
    assert_eq!(said.out().trim(), "300|6MB");
    // Roles that are there are left as they are.
    app.restore(&["run", "globals", "--yes"]).ok();
}

#[test]
fn ids_times_and_bare_files_choose_what_is_restored() {
    let app = deployment!("choose");
    let first = app.held();
    let id = app.backup_of("production/database").remove(0);
    let now = app
        .program("date", ["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .run()
        .ok();
    let wait = app.program(
        "sh",
        [
            "-c",
            "s=$(date +%s); while [ $(date +%s) = $s ]; do sleep 0.05; done",
        ],
    );
    wait.run().ok();
    app.change("second");
    let second = app.held();
    app.backup_of("production/database");
    app.change("third");
    let third = app.held();

    let run = |more: &[&str]| app.restore(&[RUN, more].concat());
    run(&[]).ok();
    assert!(app.held().rows == second.rows);
    run(&["--from", &id]).ok();
    assert!(app.held().rows == first.rows);
    run(&["--from", "latest"]).ok();
    assert!(app.held().rows == second.rows);
    run(&["--at", now.out().trim()]).ok();
    assert!(app.held().rows == first.rows);
    run(&["--at", "2001-01-01 00:00"])
        .fails(2)
        .says("no backup of production/database at 2001");
    run(&["--at", "noon"]).fails(2).says("`noon` is not a time");
    run(&["--from", "production/database@20010101_000000"])
        .fails(2)
        .says("no backup");
    run(&["--from", "nothing.sql"]).fails(2).says("nothing.sql");
    assert_eq!(app.left_over(), [""; 0]);

    // Files as the old scripts and PostgreSQL's own tools leave them.
    let make = "set -e; pg_dump >old.sql; gzip -k old.sql; pg_dump -Fc >old.dump; zstd -q old.dump; \
                printf '' | gzip >empty.sql.gz; head -c 3000 old.dump >cut.dump; head -c 900 old.sql.gz >cut.sql.gz";
    app.program("bash", ["-c", make])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", app.cluster.port().to_string())
        .env("PGUSER", "choose")
        .env("PGPASSWORD", app.cluster.password("choose"))
        .env("PGDATABASE", "choose")
        .run()
        .ok();
    for file in ["old.sql", "old.sql.gz", "old.dump", "./old.dump.zst"] {
        app.change("again");
        run(&["--from", file]).ok();
        assert!(app.held().rows == first.rows, "{file}");
    }
    let before = app.held();
    assert_eq!(
        app.program("stat", ["-c", "%s", "empty.sql.gz"])
            .run()
            .ok()
            .out()
            .trim(),
        "20"
    );
    for file in ["empty.sql.gz", "cut.dump", "cut.sql.gz", "env"] {
        run(&["--from", file]).fails(2).says(file);
        app.is_as(&before);
    }
    drop(third);
}

#[test]
fn beside_takes_no_name_that_is_taken() {
    let app = deployment!("beside");
    let held = app.held();
    app.backup();
    app.change("since");
    let before = app.held();
    let beside =
        |dataset: &str, name: &str| app.restore(&["run", dataset, "--beside", name, "--yes"]);
    beside("production/database", "postgres")
        .fails(2)
        .says("there is a database `postgres` already");
    beside("production/database", "beside")
        .fails(2)
        .says("already");
    beside("production/database", "beside look").ok();
    assert!(app.cluster.digest("beside look") == held.rows);
    beside("production/files/uploads", "srv")
        .fails(2)
        .says("is there already");
    beside("production/files/uploads", "no/such/place")
        .fails(2)
        .says("is not a directory");
    beside("production/files/uploads", "srv/look").ok();
    app.tree_is(&app.path("srv/look"), &held.tree);
    app.is_as(&before);
    app.restore(&["undo", "production", "--yes"])
        .fails(2)
        .says("no restore of production to undo");
}

#[test]
fn nothing_is_replaced_unasked_and_the_question_names_the_target() {
    let app = deployment!("asked");
    let good = app.held();
    app.backup();
    app.change("since");
    let before = app.held();
    app.restore(&["run", "production"])
        .fails(2)
        .says("not confirmed")
        .says("replace database `asked`")
        .says("--yes");
    app.is_as(&before);
    let plan = app.restore(&["run", "production", "--dry-run"]).ok();
    assert!(
        plan.out()
            .contains("would restore production/database from"),
        "{plan:?}"
    );
    app.is_as(&before);
    assert_eq!(app.kept(), [""; 0]);
    let document = app
        .restore(&["run", "production", "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(document["parts"].as_array().map(Vec::len), Some(2));
    // With a terminal it asks there.
    let on_terminal = |answer: &str| {
        let command = format!("{} rg-restore run production", app.driver().display());
        let words = ["-qec", &command, "/dev/null"];
        app.program("script", words)
            .stdin(format!("{answer}\n"))
            .run()
    };
    let no = on_terminal("n").fails(2).out();
    assert!(
        no.contains("replace database `asked`") && no.contains("srv/uploads"),
        "{no}"
    );
    assert!(no.contains("nothing was changed"), "{no}");
    app.is_as(&before);
    on_terminal("y").ok();
    app.is_as(&good);
    let document = app
        .restore(&["undo", "production", "--yes", "--json"])
        .ok()
        .json();
    assert_eq!(document["put_back"].as_array().map(Vec::len), Some(2));
    let document = app
        .restore(&["run", "production/nothing", "--json"])
        .fails(2)
        .json();
    assert!(document["error"].is_string(), "{document}");
}

#[test]
fn a_second_restore_says_that_the_first_is_at_work() {
    let app = deployment!("twice");
    app.backup();
    let (seen, gate) = (app.path("seen"), app.path("gate"));
    app.program_does(
        "pg_restore",
        &format!(
            "touch '{}'; while [ ! -e '{}' ]; do sleep 0.02; done; exec \"$real\" \"$@\"",
            seen.display(),
            gate.display()
        ),
    );
    let first = app.spawn_restore(RUN);
    assert!(eventually(SOON, || seen.exists()));
    app.restore(&["run", "production", "--yes"])
        .fails(2)
        .says("rg-restore on this machine")
        .says(&first.pid().to_string());
    app.write("gate", "");
    first.wait().ok();
    assert_eq!(app.left_over(), [""; 0]);
}

#[test]
fn fifty_megabytes_are_restored_in_little_memory() {
    let app = deployment!("memory");
    let cluster = app.cluster;
    cluster.psql(
        "memory",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION memory",
    );
    load_demo(cluster, "memory", "memory", Scale::Megabytes(50));
    let held = app.held();
    app.backup_of("production/database");
    cluster.psql("memory", "DROP TABLE executions CASCADE");
    let output = app.restore(RUN).ok();
    println!(
        "50 MB restored in {:?}, {} KiB",
        output.wall, output.rss_kib_max
    );
    assert!(output.rss_kib_max < 64 * 1024, "{output:?}");
    app.is_as(&held);
    let drill = app.restore(&["drill", "production/database"]).ok();
    assert!(drill.rss_kib_max < 64 * 1024, "{drill:?}");
}
