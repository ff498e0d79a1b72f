use super::*;
use crate::dump::RowSum;
use crate::postgres::cluster::cluster;

/// Everything that a comparison looks at.
const CONTENT: &str = r#"
CREATE SCHEMA "Odd, ""schema";
CREATE TABLE "Odd, ""schema"."T able" (id int, "a, ""b" text, double float8, at timestamptz,
    raw bytea, twice int GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO "Odd, ""schema"."T able"
    SELECT i, 'line' || E'\n\t\\ ü€' || i, i / 3.0, '2026-01-23 02:00+01'::timestamptz + i * interval '1 h', decode('00ff', 'hex')
    FROM generate_series(1, 1000) i;
CREATE TABLE twins (v text);
INSERT INTO twins VALUES ('a'), ('a'), ('b'), ('c');
CREATE TABLE empty (v text);
CREATE UNLOGGED TABLE passing (v text);
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE parent (k int, v text) PARTITION BY LIST (k);
CREATE TABLE child PARTITION OF parent FOR VALUES IN (1);
INSERT INTO parent VALUES (1, 'x');
CREATE SEQUENCE numbers START 5;
CREATE SEQUENCE used;
SELECT nextval('used'), nextval('used');
SELECT lo_from_bytea(70001, 'abc'), lo_from_bytea(70002, ''),
       lo_from_bytea(70003, convert_to(repeat('0123456789abcdef', 150000), 'UTF8'));
"#;

struct Content {
    tables: Vec<Table>,
    sequences: Vec<Sequence>,
    large_objects: LargeObjects,
    encoding: String,
}

impl Content {
    /// What a dump of the database holds, by way of the real `pg_dump`.
    fn of(database: &str) -> Content {
        let session = cluster().session(database);
        session
            .execute("SET timezone = 'UTC'; SET extra_float_digits = 3; SET datestyle = 'ISO, YMD'")
            .unwrap();
        let encoding: String = session.value("SHOW server_encoding", &[]).unwrap();
        let sequences = inventory::sequences(&session).unwrap();
        let sequences = sequences.into_iter().map(|one| Sequence {
            schema: one.schema,
            name: one.name,
            last_value: one.last_value,
            is_called: one.is_called,
        });
        let objects = session
            .rows("SELECT oid, lo_get(oid) FROM pg_largeobject_metadata", &[])
            .unwrap();
        let mut sum = RowSum::default();
        for object in &objects {
            let mut bytes = object.get::<_, u32>(0).to_le_bytes().to_vec();
            bytes.extend(object.get::<_, Vec<u8>>(1));
            sum.add_row(&bytes);
        }
        Content {
            tables: dumped(database, &encoding),
            sequences: sequences.collect(),
            large_objects: LargeObjects {
                count: sum.rows(),
                checksum: sum.checksum(),
            },
            encoding,
        }
    }

    fn expected(&self) -> Expected<'_> {
        Expected {
            encoding: Some(&self.encoding),
            lc_monetary: None,
            tables: &self.tables,
            sequences: &self.sequences,
            large_objects: &self.large_objects,
        }
    }

    fn against(&self, database: &str) -> Vec<String> {
        let cluster = cluster();
        let found = compare(
            &cluster.connector(),
            &cluster.url(database),
            &self.expected(),
            2,
        );
        found.unwrap().iter().map(ToString::to_string).collect()
    }
}

/// The tables as the real `pg_dump` writes them, taken apart line by line.
fn dumped(database: &str, encoding: &str) -> Vec<Table> {
    let cluster = cluster();
    let version = cluster.session(database).version();
    let dump = crate::postgres::Place::Local
        .program("pg_dump", &cluster.url(database), version)
        .unwrap()
        .arg("--data-only")
        .output(16 << 20)
        .unwrap();
    let text = |line: &[u8]| match encoding {
        "LATIN1" => line.iter().map(|byte| char::from(*byte)).collect(),
        _ => String::from_utf8(line.to_vec()).unwrap(),
    };
    let mut tables = Vec::new();
    let mut lines = dump.split(|byte| *byte == b'\n');
    while let Some(line) = lines.next() {
        let line = if line.starts_with(b"COPY ") {
            text(line)
        } else {
            continue;
        };
        let head = line[5..].strip_suffix(" FROM stdin;").unwrap();
        let (name, columns) = head
            .strip_suffix(')')
            .and_then(|head| head.split_once(" ("))
            .unwrap_or((head.trim(), ""));
        let parts = names(&name.replacen('.', ",", 1));
        let (mut sum, mut bytes) = (RowSum::default(), 0);
        for row in lines.by_ref().take_while(|row| *row != b"\\.") {
            sum.add_row(row);
            bytes += row.len() as u64 + 1;
        }
        tables.push(Table {
            schema: parts[0].clone(),
            name: parts[1].clone(),
            columns: columns.to_owned(),
            rows: sum.rows(),
            checksum: sum.checksum(),
            bytes,
        });
    }
    tables
}

#[test]
fn every_kind_of_difference_is_found() {
    let cluster = cluster();
    let original = cluster.database("original", CONTENT);
    let content = Content::of(&original);
    assert_eq!(content.against(&original), Vec::<String>::new());
    // Changes that do not touch each other share a database, to save time.
    for (changes, differences) in [
        (
            r#"UPDATE "Odd, ""schema"."T able" SET "a, ""b" = replace("a, ""b", 'ü', 'Ü') WHERE id = 500;
               INSERT INTO empty VALUES (NULL);
               -- a a b c → a b b c: as many rows, the same set.
               UPDATE twins SET v = 'b' WHERE ctid = (SELECT min(ctid) FROM twins WHERE v = 'a');
               UPDATE parent SET v = NULL;
               SELECT nextval('used');
               CREATE SEQUENCE more;
               CREATE TABLE further (v text);
               SELECT lo_put(70003, 2399999, 'X')"#,
            &[
                "sequence public.more is not in the backup",
                "sequence public.used stands at 3 (used) instead of 2 (used)",
                "table Odd, \"schema.T able has 1,000 rows as in the backup, but the content differs",
                "table public.child has 1 row as in the backup, but the content differs",
                "table public.empty has 1 row instead of 0",
                "table public.further is not in the backup",
                "table public.twins has 4 rows as in the backup, but the content differs",
                "the database has 3 large objects as in the backup, but the content differs",
            ][..],
        ),
        (
            r#"DELETE FROM "Odd, ""schema"."T able" WHERE id = 1;
               DROP TABLE empty;
               ALTER TABLE twins ADD COLUMN w int;
               SELECT setval('numbers', 5, true);
               DROP SEQUENCE used;
               SELECT lo_unlink(70002)"#,
            &[
                "sequence public.numbers stands at 5 (used) instead of 5 (not yet used)",
                "sequence public.used is missing",
                "table Odd, \"schema.T able has 999 rows instead of 1,000",
                "table public.empty is missing",
                "table public.twins has the columns (v, w) instead of (v)",
                "the database has 2 large objects instead of 3",
            ],
        ),
    ] {
        let name = cluster.unique("changed");
        let session = cluster.session("postgres");
        session
            .execute(&format!("CREATE DATABASE {name} TEMPLATE {original}"))
            .unwrap();
        cluster.session(&name).execute(changes).unwrap();
        assert_eq!(content.against(&name), differences);
    }
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let cluster = cluster();
    let first = cluster.database("forward", CONTENT);
    let second = cluster.database(
        "backward",
        &format!(
            "{CONTENT};
             CREATE TEMP TABLE kept AS SELECT * FROM twins ORDER BY v DESC;
             TRUNCATE twins;
             INSERT INTO twins SELECT * FROM kept ORDER BY v DESC"
        ),
    );
    assert_eq!(Content::of(&first).against(&second), Vec::<String>::new());
}

#[test]
fn another_encoding_is_compared_in_its_own_bytes() {
    let cluster = cluster();
    let name = cluster.unique("latin1");
    cluster
        .session("postgres")
        .execute(&format!(
            "CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'"
        ))
        .unwrap();
    cluster
        .session(&name)
        .execute("CREATE TABLE \"Größe\" (\"Maß\" text); INSERT INTO \"Größe\" VALUES ('fünf'), ('sechs')")
        .unwrap();
    let content = Content::of(&name);
    assert_eq!(content.encoding, "LATIN1");
    assert_eq!(content.against(&name), Vec::<String>::new());
}

#[test]
fn a_table_that_cannot_be_read_is_a_failure_and_not_a_difference() {
    let cluster = cluster();
    let role = cluster.unique("reader");
    let name = cluster.database(
        "closed",
        &format!("CREATE TABLE closed (v text); CREATE ROLE {role} LOGIN PASSWORD 'p'"),
    );
    let content = Content::of(&name);
    let url = cluster.address(&format!(
        "postgresql://{role}:p@127.0.0.1:{}/{name}",
        cluster.port
    ));
    let failure = compare(&cluster.connector(), &url, &content.expected(), 2).unwrap_err();
    assert!(
        failure
            .to_string()
            .contains("permission denied for table closed"),
        "{failure}"
    );
}
