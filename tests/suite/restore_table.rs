//! Rows of single tables put back into a live database: against a real server, with dumps that
//! `pg_dump` made, in both formats.

use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicU32, Ordering};

use rg_common::dump::{Inventory, InventoryReader};
use rg_common::failure::{Failure, Result};
use rg_common::names::Stamp;
use rg_common::postgres::{Connector, DatabaseUrl};
use rg_restore::table::{TablePlan, TableReport, TableRestore, discard, list, plan, replace, undo};
use rg_tests::{Postgres, Tool};

/// A web of tables: foreign keys in every direction, triggers in every state, identity and generated
/// columns, odd names, partitions.
const WEB: &str = r#"
CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, best_friend int REFERENCES customers);
CREATE TABLE orders (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer int NOT NULL REFERENCES customers ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    price numeric NOT NULL, taxed numeric GENERATED ALWAYS AS (price * 1.19) STORED,
    at timestamptz NOT NULL, raw bytea, ratio float8, took interval
);
COMMENT ON CONSTRAINT orders_customer_fkey ON orders IS 'whose it is';
CREATE TABLE invoices (id int PRIMARY KEY, "order" int REFERENCES orders);
CREATE TABLE audit (what text);
CREATE SCHEMA "Odd ""one""";
CREATE TABLE "Odd ""one"""."Größe, (1)" ("a ""b"", c" text, "select" int);
CREATE TABLE "Odd ""one""".orders (x int);
CREATE TABLE events (day date NOT NULL, customer int REFERENCES customers, note text) PARTITION BY RANGE (day);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE events_2026 PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO public.audit VALUES (TG_NAME || ' ' || TG_OP); RETURN NULL; END $$;
CREATE TRIGGER t_origin AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER t_always AFTER INSERT OR TRUNCATE ON orders FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER t_off AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER t_replica AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE orders ENABLE ALWAYS TRIGGER t_always;
ALTER TABLE orders DISABLE TRIGGER t_off;
ALTER TABLE orders ENABLE REPLICA TRIGGER t_replica;
INSERT INTO customers (name, best_friend) SELECT 'customer ' || i, CASE WHEN i > 1 THEN i - 1 END FROM generate_series(1, 50) i;
INSERT INTO orders (customer, price, at, raw, ratio, took)
    SELECT 1 + i % 50, i / 7.0, '2026-01-01'::timestamptz + i * '1 hour'::interval, decode(md5(i::text), 'hex'),
           i / 3.0, i * '1 day 2 minutes'::interval FROM generate_series(1, 1000) i;
INSERT INTO invoices SELECT i, i FROM generate_series(1, 100) i;
INSERT INTO "Odd ""one"""."Größe, (1)" VALUES (E'tab\tnew\nline \\ back', 1), (NULL, NULL), ('', 2);
INSERT INTO "Odd ""one""".orders VALUES (1), (2);
INSERT INTO events VALUES ('2025-05-05', 1, 'a'), ('2026-05-05', 2, 'b');
DELETE FROM audit;
"#;

/// What a careless statement does.
const ACCIDENT: &str =
    "UPDATE orders SET price = 0 WHERE id > 3; DELETE FROM orders WHERE id BETWEEN 500 AND 600";

/// Everything about the tables that must not change: constraints, triggers, indexes, columns.
const SHAPE: &str = "
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
    SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || convalidated || condeferred
        || coalesce(obj_description(oid, 'pg_constraint'), '') AS line FROM pg_constraint WHERE conrelid > 16383 AND conname !~ '^rg_'
    UNION ALL SELECT tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname !~ '^(pg_|rg_)'
    UNION ALL SELECT table_schema || table_name || column_name || data_type || is_generated || is_identity
        FROM information_schema.columns WHERE table_schema !~ '^(pg_|rg_|information)'
) AS lines";

struct Live {
    database: String,
    role: String,
    runtime: tokio::runtime::Runtime,
}

impl Live {
    /// A database of its own, owned by a role that may do nothing else.
    fn new(setup: &str) -> Live {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (database, role) = (format!("live{number}"), format!("app{number}"));
        let cluster = Postgres::shared();
        cluster.role(&role, "LOGIN");
        cluster.create_database_of(&database, &role);
        let live = Live {
            database,
            role,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        live.sql(&format!("ALTER SCHEMA public OWNER TO {}", live.role));
        live.as_app(setup);
        live
    }

    /// As superuser.
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

    fn url(&self) -> DatabaseUrl {
        DatabaseUrl::parse(&Postgres::shared().url(&self.database, &self.role)).unwrap()
    }

    fn connector(&self) -> Connector {
        Connector::new(self.runtime.handle().clone(), "rg-restore")
    }

    fn plan(&self, dump: &[u8], tables: &[&str]) -> Result<TablePlan> {
        self.asked(dump, tables, plan)
    }

    /// What `ask` does with a request for tables of a dump.
    fn asked<T>(
        &self,
        dump: &[u8],
        tables: &[&str],
        ask: impl Fn(&TableRestore<'_>) -> Result<T>,
    ) -> Result<T> {
        let tables: Vec<String> = tables.iter().map(|name| (*name).to_owned()).collect();
        ask(&TableRestore {
            url: &self.url(),
            connector: &self.connector(),
            inventory: &inventory(dump),
            tables: &tables,
            stamp: "20260123_020000".parse::<Stamp>().unwrap(),
        })
    }

    fn replace(&self, dump: &[u8], tables: &[&str]) -> Result<TableReport> {
        self.replace_from(dump, tables, &|| Ok(Box::new(Cursor::new(dump.to_vec()))))
    }

    fn replace_from(
        &self,
        whole: &[u8],
        tables: &[&str],
        open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
    ) -> Result<TableReport> {
        self.asked(whole, tables, |request| replace(request, open))
    }

    /// All rows of all tables outside the kept ones, and everything about them.
    #[track_caller]
    fn is_as(&self, before: &str) {
        let now = self.state();
        let (now, before): (Vec<&str>, Vec<&str>) =
            (now.lines().collect(), before.lines().collect());
        let lost: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        assert_eq!((lost, new), (vec![], vec![]));
    }

    fn state(&self) -> String {
        let mut digest = Postgres::shared().digest(&self.database);
        digest.retain(|name, _| !name.starts_with("rg_before_"));
        let digest: Vec<String> = digest
            .iter()
            .map(|(name, digest)| format!("{name} {digest:?}"))
            .collect();
        format!("{}\n{}", digest.join("\n"), self.sql(SHAPE))
    }

    fn kept_schemas(&self) -> String {
        self.sql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'rg\\_%'")
    }
}

fn inventory(dump: &[u8]) -> Inventory {
    let mut reader = InventoryReader::new(dump);
    io::copy(&mut reader, &mut io::sink()).unwrap();
    reader.finish().unwrap().1
}

const KEPT: &str = "rg_before_20260123_020000";

#[test]
fn the_rows_of_one_table_come_back_and_nothing_else_moves() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new(WEB);
        let before = live.state();
        let dump = live.dump(format);
        live.as_app(ACCIDENT);
        live.as_app("DELETE FROM audit; INSERT INTO invoices VALUES (1000, 3)");
        let report = live.replace(&dump, &["public.orders"]).unwrap();
        assert_eq!(report.schema, KEPT);
        assert_eq!(report.notes, [""; 0]);
        let table = &report.tables[0];
        assert_eq!((table.rows_before, table.rows_after), (899, 1000));
        // No trigger fired, the row added elsewhere is still there.
        assert_eq!(live.sql("SELECT count(*) FROM audit"), "0");
        live.as_app("DELETE FROM invoices WHERE id = 1000");
        live.is_as(&before);
    }
}

#[test]
fn odd_names_and_partitions_come_back_together() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new(WEB);
        let before = live.state();
        let dump = live.dump(format);
        live.as_app(
            r#"DELETE FROM events; DELETE FROM "Odd ""one"""."Größe, (1)"; DELETE FROM "Odd ""one""".orders;
            DELETE FROM invoices; DELETE FROM customers WHERE id > 40; UPDATE customers SET name = 'x'"#,
        );
        let tables = [
            "events_2025",
            "events_2026",
            "Größe, (1)",
            "Odd \"one\".orders",
            "public.orders",
            "invoices",
            "customers",
        ];
        // Both tables called `orders` are kept, under different names.
        live.as_app("DELETE FROM audit");
        let report = live.replace(&dump, &tables).unwrap();
        assert_eq!(report.tables.len(), tables.len());
        live.is_as(&before);
        let kept = list(&live.url(), &live.connector()).unwrap();
        assert_eq!(kept[0].tables.len(), tables.len());
        discard(&live.url(), &live.connector(), KEPT).unwrap();
        assert_eq!(live.kept_schemas(), "0");
        live.is_as(&before);
    }
}

#[test]
fn undo_puts_the_replaced_rows_back_and_can_itself_be_undone() {
    let live = Live::new(WEB);
    let before = live.state();
    let dump = live.dump("-Fc");
    live.as_app(ACCIDENT);
    live.as_app("DELETE FROM audit");
    let after_accident = live.state();
    live.replace(&dump, &["public.orders", "Odd \"one\".orders"])
        .unwrap();
    live.is_as(&before);
    let undone = undo(&live.url(), &live.connector(), KEPT).unwrap();
    assert_eq!((undone[1].rows_before, undone[1].rows_after), (1000, 899));
    live.is_as(&after_accident);
    undo(&live.url(), &live.connector(), KEPT).unwrap();
    live.is_as(&before);
}

#[test]
fn a_row_that_refers_to_nothing_any_more_leaves_everything_as_it_was() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    live.as_app("DELETE FROM invoices; UPDATE customers SET best_friend = NULL WHERE id = 8; DELETE FROM customers WHERE id = 7");
    let before = live.state();
    // The cascade has taken the customer's orders; they would refer to nobody.
    let failure = live.replace(&dump, &["public.orders"]).unwrap_err();
    let text = failure.to_string();
    assert!(
        text.contains(
            "the foreign key `orders_customer_fkey` of public.orders does not hold with these rows"
        ),
        "{text}"
    );
    assert!(text.contains("Key (customer)=(7) is not present"), "{text}");
    assert!(
        failure
            .hints()
            .contains(&"restore the table at its other end too: one more --table")
    );
    live.is_as(&before);
    assert_eq!(live.kept_schemas(), "0");
}

/// What happens when a dump is read on.
struct OnRead<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize> + Send> Read for OnRead<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0(buffer)
    }
}

/// Inside the rows of `public.orders`.
fn half_way(dump: &[u8]) -> Vec<u8> {
    let row = b"\t71.0000000000000000\t";
    let at = dump.windows(row.len()).position(|window| window == row);
    dump[..at.expect("a row of orders in the dump")].to_vec()
}

#[test]
fn several_tables_come_out_of_one_reading_of_the_dump() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new(WEB);
        let dump = live.dump(format);
        let before = live.state();
        live.as_app(ACCIDENT);
        let readings = AtomicU32::new(0);
        // Not in the order in which the dump has them, one of them without rows.
        let tables = ["invoices", "public.orders", "audit", "customers"];
        let report = live.replace_from(&dump, &tables, &|| {
            readings.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(Cursor::new(dump.clone())))
        });
        assert_eq!(report.unwrap().tables.len(), 4);
        assert_eq!(readings.into_inner(), 1);
        live.is_as(&before);
    }
}

#[test]
fn a_dump_that_breaks_half_way_leaves_everything_as_it_was() {
    for format in ["-Fc", "-Fp"] {
        let live = Live::new(WEB);
        let dump = live.dump(format);
        live.as_app(ACCIDENT);
        let before = live.state();
        let half = half_way(&dump);
        let truncated = live.replace_from(&dump, &["public.orders"], &|| {
            Ok(Box::new(Cursor::new(half.clone())))
        });
        let text = truncated.unwrap_err().to_string();
        assert!(text.contains("table public.orders"), "{text}");
        live.is_as(&before);
        let broken = live.replace_from(&dump, &["public.orders"], &|| {
            let dies = OnRead(|_: &mut [u8]| Err(Failure::new("the store went away").into_io()));
            Ok(Box::new(Cursor::new(half.clone()).chain(dies)))
        });
        assert!(
            broken
                .unwrap_err()
                .to_string()
                .contains("the store went away")
        );
        live.is_as(&before);
        assert_eq!(live.kept_schemas(), "0");
    }
}

#[test]
fn a_session_that_is_killed_half_way_leaves_everything_as_it_was() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    live.as_app(ACCIDENT);
    let before = live.state();
    let half = half_way(&dump);
    let rest = &dump[half.len()..];
    let outcome = live.replace_from(&dump, &["public.orders"], &|| {
        let kill = format!(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{}'",
            live.database
        );
        let mut rest = Cursor::new(rest.to_vec());
        let then = OnRead(move |buffer: &mut [u8]| {
            if rest.position() == 0 {
                assert_eq!(Postgres::shared().psql("postgres", &kill), "t");
            }
            rest.read(buffer)
        });
        Ok(Box::new(Cursor::new(half.clone()).chain(then)))
    });
    assert!(outcome.is_err());
    live.is_as(&before);
    assert_eq!(live.kept_schemas(), "0");
}

#[test]
fn a_dump_of_other_rows_than_the_manifest_says_is_refused() {
    let live = Live::new(WEB);
    let whole = live.dump("-Fc");
    live.as_app(ACCIDENT);
    let other = live.dump("-Fc");
    let before = live.state();
    let outcome = live.replace_from(&whole, &["public.orders"], &|| {
        Ok(Box::new(Cursor::new(other.clone())))
    });
    let text = outcome.unwrap_err().to_string();
    assert!(
        text.contains("the dump holds other rows of it than its manifest says"),
        "{text}"
    );
    live.is_as(&before);
}

#[test]
fn a_table_that_changed_is_refused_where_values_would_be_lost() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    live.as_app("ALTER TABLE orders RENAME price TO net; DROP TABLE invoices; ALTER TABLE customers ADD vip bool DEFAULT false");
    let before = live.state();
    let failure = live.replace(&dump, &["public.orders"]).unwrap_err();
    assert_eq!(
        failure.to_string(),
        format!(
            "cannot restore tables into the live database {}: the live table public.orders has no column price to take the backup's values",
            live.database
        )
    );
    let failure = live.replace(&dump, &["invoices"]).unwrap_err();
    assert!(
        failure
            .to_string()
            .ends_with("the live database has no table public.invoices")
    );
    live.is_as(&before);
    // A column that the backup does not know is fine, and said; before anything is done, too.
    let plan = live.plan(&dump, &["customers"]).unwrap();
    assert_eq!(plan.tables, [("public.customers".to_owned(), 50)]);
    let report = live.replace(&dump, &["customers"]).unwrap();
    assert_eq!(plan.notes, report.notes);
    assert_eq!(
        report.notes,
        [
            "table public.customers has columns that the backup does not know, now at their defaults: vip"
        ]
    );
}

#[test]
fn new_ids_do_not_collide_with_the_rows_that_came_back() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    live.as_app(
        "TRUNCATE customers RESTART IDENTITY CASCADE; INSERT INTO customers (name) VALUES ('new')",
    );
    live.replace(&dump, &["customers", "public.orders", "invoices"])
        .unwrap();
    live.as_app("INSERT INTO customers (name) VALUES ('next'); INSERT INTO orders (customer, price, at) VALUES (1, 1, now())");
    assert_eq!(live.sql("SELECT max(id) FROM customers"), "51");
    assert_eq!(live.sql("SELECT max(id) FROM orders"), "1001");
    // A sequence that is further on stays where it is.
    live.as_app("SELECT setval('customers_id_seq', 900)");
    discard(&live.url(), &live.connector(), KEPT).unwrap();
    live.replace(&dump, &["customers"]).unwrap();
    assert_eq!(live.sql("SELECT last_value FROM customers_id_seq"), "900");
}

#[test]
fn a_role_that_does_not_own_the_table_is_told_who_does() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    live.sql("ALTER TABLE audit OWNER TO postgres");
    let failure = live.replace(&dump, &["audit"]).unwrap_err();
    assert!(
        failure.to_string().ends_with(&format!(
            "role `{}` does not own table public.audit, `postgres` does",
            live.role
        )),
        "{failure}"
    );
}

#[test]
fn a_table_in_use_is_waited_for_ten_seconds_and_no_longer() {
    let live = Live::new(WEB);
    let dump = live.dump("-Fc");
    let mut command = Postgres::shared().command("psql", &live.database, &live.role);
    command.args([
        "-Xqc",
        "BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE; SELECT pg_sleep(60)",
    ]);
    let holder = Tool::new(command, "psql").spawn();
    let held = || {
        live.sql("SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND granted")
            != "0"
    };
    assert!(rg_tests::eventually(
        std::time::Duration::from_secs(10),
        held
    ));
    let failure = live.replace(&dump, &["public.orders"]).unwrap_err();
    holder.kill();
    assert!(
        failure
            .to_string()
            .contains("other sessions have used the table for the last 10 s"),
        "{failure}"
    );
}
