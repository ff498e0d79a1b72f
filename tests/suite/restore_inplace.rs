//! A whole database restored into itself by a role that may not create databases: against a real
//! server, with dumps that `pg_dump` made, in both formats.

use std::fs;
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU32, Ordering};

use rg_common::dump::{Inventory, InventoryReader};
use rg_common::failure::{Failure, Result};
use rg_common::postgres::{Connector, DatabaseUrl, Place};
use rg_restore::inplace::{InPlace, InPlaceReport, restore_in_place};
use rg_tests::{Postgres, Signal, Tool};

/// What the superuser has prepared: extensions in `public` and in a schema of their own, with a
/// comment each that only he may set; a schema that the app may use but does not own.
const PREPARED: &str = r#"
CREATE EXTENSION citext;
CREATE SCHEMA "my Ext"; CREATE EXTENSION hstore SCHEMA "my Ext"; GRANT USAGE ON SCHEMA "my Ext" TO PUBLIC;
COMMENT ON EXTENSION hstore IS 'ours
now';
CREATE SCHEMA lent; COMMENT ON SCHEMA lent IS 'for the app'; GRANT ALL ON SCHEMA lent TO app_role;
"#;

/// One of everything that an app has.
const APP: &str = r#"
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SCHEMA shop;
CREATE FUNCTION shop.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * x';
CREATE AGGREGATE shop.total (int) (sfunc = int4pl, stype = int);
CREATE OPERATOR shop.@@@ (function = shop.twice, rightarg = int);
CREATE TABLE users (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail citext UNIQUE, m mood, p pair, n positive,
    tags "my Ext".hstore, doubled int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE shop.orders (id serial PRIMARY KEY, "user" int NOT NULL REFERENCES users, at timestamptz, ratio float8, raw bytea);
CREATE TABLE lent.things (id int PRIMARY KEY, what text);
CREATE TABLE events (day date) PARTITION BY RANGE (day);
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE VIEW busy AS SELECT "user", count(*) AS orders FROM shop.orders GROUP BY 1;
CREATE MATERIALIZED VIEW shop.daily AS SELECT at::date AS day, count(*) FROM shop.orders GROUP BY 1;
CREATE SEQUENCE tickets INCREMENT 7;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.mail := lower(NEW.mail); RETURN NEW; END $$;
CREATE TRIGGER lower BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION note();
CREATE STATISTICS together (dependencies) ON id, mail FROM users;
CREATE COLLATION german (provider = icu, locale = 'de');
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON users USING (mail::text = current_user);
GRANT SELECT ON users TO PUBLIC;
INSERT INTO users (mail, m, p, n, tags) SELECT 'user' || i, 'good', ROW(i, E'tab\t\\'::text)::pair, i, ('k=>' || i)::"my Ext".hstore FROM generate_series(1, 200) i;
INSERT INTO shop.orders ("user", at, ratio, raw) SELECT 1 + i % 200, '2026-01-01'::timestamptz + i * '1 min'::interval, i / 7.0,
    decode(md5(i::text), 'hex') FROM generate_series(1, 3000) i;
INSERT INTO lent.things VALUES (1, E'one\ntwo'), (2, NULL);
INSERT INTO events VALUES ('2026-03-04');
SELECT nextval('tickets'), nextval('tickets');
SELECT lo_from_bytea(4711, 'short'), lo_from_bytea(4712, decode(repeat('00ff', 700000), 'hex')), lo_create(4713);
REFRESH MATERIALIZED VIEW shop.daily;
"#;

/// What has happened since the backup.
const SINCE: &str = r#"
DELETE FROM shop.orders WHERE id % 2 = 0; UPDATE users SET m = 'bad'; DROP TABLE lent.things; CREATE SCHEMA later;
CREATE TABLE later.new AS SELECT 1 AS one; CREATE VIEW of_later AS SELECT * FROM later.new; SELECT nextval('tickets');
CREATE TABLE lent.other (x int); ALTER TABLE users ADD COLUMN added int; SELECT lo_unlink(4711), lo_create(5000);
"#;

/// Every object, its owner and rights; large objects with their content.
const OBJECTS: &str = "
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
    SELECT i.type || ' ' || i.identity AS line FROM (
        SELECT 'pg_class'::regclass AS c, oid FROM pg_class UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc
        UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace
        UNION ALL SELECT 'pg_operator'::regclass, oid FROM pg_operator UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'pg_extension'::regclass, oid FROM pg_extension UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy
        UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint UNION ALL SELECT 'pg_collation'::regclass, oid FROM pg_collation
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext
    ) o, pg_identify_object(o.c, o.oid, 0) i WHERE coalesce(i.schema, '') !~ '^(pg_|information)' AND i.identity !~ 'pg_(toast|temp)'
    UNION ALL SELECT oid::regclass || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE relnamespace > 16000 OR relnamespace = 'public'::regnamespace
    UNION ALL SELECT nspname || ' ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') || coalesce(obj_description(oid, 'pg_namespace'), '')
        FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT schemaname || sequencename || coalesce(last_value::text, '') FROM pg_sequences
    UNION ALL SELECT oid || ' ' || md5(lo_get(oid)) || lomowner::regrole FROM pg_largeobject_metadata
) lines";

struct Live {
    database: String,
    role: String,
    runtime: tokio::runtime::Runtime,
}

impl Live {
    /// Filled; its owner may log in and nothing else.
    fn new() -> Live {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (database, role) = (format!("place{number}"), format!("tenant{number}"));
        let cluster = Postgres::shared();
        cluster.role(&role, "LOGIN NOCREATEDB NOSUPERUSER");
        cluster.create_database_of(&database, &role);
        cluster.psql(&database, &PREPARED.replace("app_role", &role));
        let live = Live {
            database,
            role,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        live.as_app(APP);
        live
    }

    fn sql(&self, sql: &str) -> String {
        Postgres::shared().psql(&self.database, sql)
    }

    fn as_app(&self, sql: &str) {
        Postgres::shared()
            .try_psql(&self.database, &self.role, sql)
            .ok();
    }

    fn dump(&self, format: &str) -> Vec<u8> {
        let mut command = Postgres::shared().command("pg_dump", &self.database, &self.role);
        command.args([format, "--compress=0"]);
        Tool::new(command, "pg_dump").run().ok().stdout
    }

    fn restore(&self, whole: &[u8], dump: impl Read + Send + 'static) -> Result<InPlaceReport> {
        self.restore_as(&inventory(whole), dump)
    }

    fn restore_as(
        &self,
        inventory: &Inventory,
        dump: impl Read + Send + 'static,
    ) -> Result<InPlaceReport> {
        let url = Postgres::shared().url(&self.database, &self.role);
        let request = InPlace {
            url: &DatabaseUrl::parse(&url).unwrap(),
            place: &Place::Local,
            connector: &Connector::new(self.runtime.handle().clone(), "rg-restore"),
            inventory,
        };
        restore_in_place(&request, Box::new(dump)).map_err(|broken| broken.failure)
    }

    /// All rows of all tables, and all objects.
    fn state(&self) -> String {
        let digest = Postgres::shared().digest(&self.database);
        let digest: Vec<String> = digest
            .iter()
            .map(|(name, digest)| format!("{name} {digest:?}"))
            .collect();
        format!("{}\n{}", digest.join("\n"), self.sql(OBJECTS))
    }

    #[track_caller]
    fn is_as(&self, before: &str) {
        let now = self.state();
        let (now, before): (Vec<&str>, Vec<&str>) =
            (now.lines().collect(), before.lines().collect());
        let lost: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        assert_eq!((lost, new), (vec![], vec![]));
    }
}

fn inventory(dump: &[u8]) -> Inventory {
    let mut reader = InventoryReader::new(dump);
    io::copy(&mut reader, &mut io::sink()).unwrap();
    reader.finish().unwrap().1
}

/// What happens when a dump is read on.
struct OnRead<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize> + Send> Read for OnRead<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0(buffer)
    }
}

/// The first statement behind the rows.
const AFTER_THE_DATA: &str = "ALTER TABLE ONLY lent.things\n    ADD CONSTRAINT things_pkey";

/// Inside the rows of `shop.orders`.
fn half_way(dump: &[u8]) -> usize {
    let row = b"\t142.857142857142";
    let found = dump.windows(row.len()).position(|window| window == row);
    found.expect("a row of orders in the dump")
}

#[test]
fn a_role_that_may_create_nothing_gets_its_database_back_as_it_was() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new();
        let before = live.state();
        let dump = live.dump(format);
        live.as_app(SINCE);
        let report = live.restore(&dump, Cursor::new(dump.clone())).unwrap();
        live.is_as(&before);
        assert_eq!(
            report,
            InPlaceReport {
                tables: 4,
                rows: 200 + 3000 + 2 + 1,
                sequences: 3,
                large_objects: 3
            }
        );
        // And once more over what was just restored.
        live.restore(&dump, Cursor::new(dump.clone())).unwrap();
        live.is_as(&before);
    }
}

#[test]
fn a_dump_that_breaks_half_way_leaves_everything_as_it_was() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new();
        let dump = live.dump(format);
        live.as_app(SINCE);
        let before = live.state();
        for at in [half_way(&dump), dump.len() - 50] {
            let cut = live.restore(&dump, Cursor::new(dump[..at].to_vec()));
            let text = cut.unwrap_err().to_string();
            assert!(
                text.starts_with(&format!(
                    "cannot restore {} in place: nothing was changed: ",
                    live.database
                )),
                "{text}"
            );
            live.is_as(&before);
            let dies = OnRead(|_: &mut [u8]| Err(Failure::new("the store went away").into_io()));
            let cut = live.restore(&dump, Cursor::new(dump[..at].to_vec()).chain(dies));
            assert!(cut.unwrap_err().to_string().contains("the store went away"));
            live.is_as(&before);
        }
    }
}

#[test]
fn an_sql_error_is_named_with_its_line_and_leaves_everything_as_it_was() {
    let live = Live::new();
    let dump = live.dump("-Fp");
    live.as_app(SINCE);
    let before = live.state();
    let mut text = String::from_utf8(dump.clone()).unwrap();
    let at = text.find(AFTER_THE_DATA).unwrap();
    text.insert_str(at, "SELECT no_such_function();\n");
    let line = text[..at].lines().count() + 1;
    let failure = live.restore(&dump, Cursor::new(text)).unwrap_err();
    let text = failure.to_string();
    assert!(
        text.contains(&format!(
            "psql:<stdin>:{line}: ERROR:  function no_such_function() does not exist"
        )),
        "{line}: {text}"
    );
    live.is_as(&before);
}

#[test]
fn rows_that_are_not_those_of_the_backup_are_never_committed() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new();
        let dump = live.dump(format);
        live.as_app(SINCE);
        let before = live.state();
        let mut other = inventory(&dump);
        other.tables[0].checksum = "0".repeat(32);
        let failure = live.restore_as(&other, Cursor::new(dump)).unwrap_err();
        assert!(
            failure
                .to_string()
                .contains("the dump holds other rows than its manifest says"),
            "{failure}"
        );
        live.is_as(&before);
    }
}

#[test]
fn rows_that_change_behind_the_data_are_found_by_the_comparison() {
    let live = Live::new();
    let dump = live.dump("-Fp");
    live.as_app(SINCE);
    let before = live.state();
    // Statements after the data, of which the dump's inventory knows nothing.
    let mut text = String::from_utf8(dump.clone()).unwrap();
    let at = text.find(AFTER_THE_DATA).unwrap();
    text.insert_str(
        at,
        "DELETE FROM shop.orders WHERE id = 5;\nUPDATE lent.things SET what = 'x' WHERE id = 2;\n",
    );
    let failure = live
        .restore(&dump, Cursor::new(text))
        .unwrap_err()
        .to_string();
    assert!(
        failure.ends_with("nothing was changed: what was restored is not what was backed up: table lent.things has other values in its 2 rows; table shop.orders has 2,999 rows instead of 3,000"),
        "{failure}"
    );
    live.is_as(&before);
}

#[test]
fn a_dump_that_commits_by_itself_is_stopped_by_the_server() {
    let live = Live::new();
    let dump = live.dump("-Fp");
    live.as_app(SINCE);
    let before = live.state();
    let mut text = String::from_utf8(dump.clone()).unwrap();
    let at = text.find(AFTER_THE_DATA).unwrap();
    text.insert_str(at, "COMMIT;\n");
    let failure = live.restore(&dump, Cursor::new(text)).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("nothing was changed"), "{text}");
    assert!(
        text.contains("the dump tries to end the transaction by itself"),
        "{text}"
    );
    live.is_as(&before);
}

#[test]
fn a_session_or_a_psql_that_is_killed_half_way_leaves_everything_as_it_was() {
    for (format, kill_psql) in [("-Fc", false), ("-Fp", false), ("-Fp", true)] {
        let live = Live::new();
        let dump = live.dump(format);
        live.as_app(SINCE);
        let before = live.state();
        let at = half_way(&dump);
        let database = live.database.clone();
        let mut rest = Cursor::new(dump[at..].to_vec());
        let kill = OnRead(move |buffer: &mut [u8]| {
            if rest.position() == 0 {
                let sessions = format!(
                    "FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'rg'"
                );
                if kill_psql {
                    let port = Postgres::shared()
                        .psql("postgres", &format!("SELECT client_port {sessions}"));
                    kill_client(port.parse().unwrap());
                } else {
                    Postgres::shared().psql(
                        "postgres",
                        &format!("SELECT pg_terminate_backend(pid, 5000) {sessions}"),
                    );
                }
            }
            rest.read(buffer)
        });
        let failure = live
            .restore(&dump, Cursor::new(dump[..at].to_vec()).chain(kill))
            .unwrap_err();
        assert!(
            failure.to_string().contains("nothing was changed"),
            "{failure}"
        );
        live.is_as(&before);
    }
}

/// Kills our own child that speaks from this port: a psql.
fn kill_client(port: u16) {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let inode = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = words.get(1)?.strip_prefix("0100007F:")?;
        (local == format!("{port:04X}")).then(|| words[9].to_owned())
    });
    let socket = format!("socket:[{}]", inode.expect("a connection from this port"));
    let me = format!("PPid:\t{}\n", std::process::id());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let (Ok(pid), true) = (name.parse(), status.contains(&me)) else {
            continue;
        };
        let open = fs::read_dir(entry.path().join("fd")).into_iter().flatten();
        let links = open.flatten().flat_map(|fd| fs::read_link(fd.path()));
        if links
            .into_iter()
            .any(|link| link.as_os_str() == socket.as_str())
        {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            return rustix::process::kill_process(pid, Signal::KILL).unwrap();
        }
    }
    panic!("no child of ours speaks from port {port}");
}

#[test]
fn what_another_role_owns_is_named_and_nothing_is_changed() {
    let live = Live::new();
    live.sql("CREATE TABLE public.theirs (x int); GRANT SELECT ON public.theirs TO PUBLIC");
    let before = live.state();
    let dump = live.dump("-Fc");
    let failure = live.restore(&dump, Cursor::new(dump.clone())).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("relation \"theirs\" already exists"),
        "{failure}"
    );
    let hint = format!(
        "what another role owns was left in place; `{}` cannot replace it",
        live.role
    );
    assert_eq!(failure.hints(), [hint]);
    live.is_as(&before);
}

#[test]
fn a_missing_role_is_found_before_anything_is_touched() {
    let live = Live::new();
    let dump = live.dump("-Fc");
    let mut other = inventory(&dump);
    other.roles.insert("gone".to_owned());
    let failure = live.restore_as(&other, Cursor::new(dump)).unwrap_err();
    assert_eq!(
        failure.hints(),
        ["restore `globals` first, or CREATE ROLE them"]
    );
}
