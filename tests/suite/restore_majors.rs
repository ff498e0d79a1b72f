//! PostgreSQL's other majors, and pgvector: what is backed up on each server comes back on it, row by
//! row, and on a newer one too.

use std::thread;

use rg_tests::{Deployment, Postgres, Scale, deployment, fetched_majors, load_demo, sandbox};

/// Chunks of text with an embedding each, as a retrieval service keeps them; the extension lives in
/// a schema of its own, as managed services have it.
const EMBEDDINGS: &str = "
CREATE SCHEMA extensions;
CREATE EXTENSION vector SCHEMA extensions;
CREATE SCHEMA rag;
CREATE TABLE rag.chunks (id bigint PRIMARY KEY, body text NOT NULL, embedding extensions.vector(24));
INSERT INTO rag.chunks SELECT i, 'chunk ' || i, CASE WHEN i % 50 > 0 THEN (SELECT
  array_agg((('x' || substr(md5(i::text || k % 3), k, 2))::bit(8)::int / 255.0)::real ORDER BY k)
  FROM generate_series(1, 24) k)::extensions.vector END FROM generate_series(1, 600) i;
CREATE INDEX chunks_near ON rag.chunks USING hnsw (embedding extensions.vector_cosine_ops)
  WITH (m = 8, ef_construction = 32);
";

/// Extension, column, index, and what the index finds nearest to one chunk.
const NEAREST: &str = "
SELECT extname, extnamespace::regnamespace FROM pg_extension WHERE extname = 'vector';
SELECT format_type(atttypid, atttypmod) FROM pg_attribute
  WHERE attrelid = 'rag.chunks'::regclass AND attname = 'embedding';
SELECT indexdef FROM pg_indexes WHERE indexname = 'chunks_near';
SET search_path = extensions; SET enable_seqscan = off;
SELECT id FROM rag.chunks ORDER BY embedding <=> (SELECT embedding FROM rag.chunks WHERE id = 7) LIMIT 5;
";

const RUN: &[&str] = &["run", "production", "--yes"];

/// What the server has beside the rows: sequences, indexes, views, constraints.
const SHAPE: &str = "
SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2;
SELECT indexdef FROM pg_indexes WHERE schemaname !~ '^pg_' ORDER BY 1;
SELECT schemaname, viewname FROM pg_views WHERE schemaname !~ '^(pg_|information_schema)' ORDER BY 1, 2;
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
  WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema)' ORDER BY 1, 2;
";

/// The app's tables, dropped and emptied.
fn accident(app: &Deployment<'_>) {
    app.cluster.psql(
        &app.database,
        "DROP TABLE executions, users CASCADE; TRUNCATE workers CASCADE; DELETE FROM orders",
    );
    std::fs::remove_dir_all(&app.uploads).expect("the uploads");
}

#[test]
fn every_major_gets_back_what_it_had_from_both_formats() {
    // Side by side: most of the time is spent waiting for servers.
    thread::scope(|scope| {
        for major in fetched_majors() {
            scope.spawn(move || gets_back_what_it_had(major));
        }
    });
}

fn gets_back_what_it_had(major: u32) {
    let cluster = Postgres::setup().major(major).start();
    let found = cluster.psql("postgres", "SHOW server_version_num");
    assert_eq!(found[..2], major.to_string());
    let app = Deployment::new(sandbox!(), &cluster, "shop");
    // As the postgres image makes it: the app's role may do everything, so pgvector is used.
    cluster.psql("postgres", "ALTER ROLE shop SUPERUSER");
    load_demo(&cluster, "shop", "shop", Scale::Small);
    let good = app.held();
    let shape = cluster.psql("shop", SHAPE);
    for format in ["custom", "plain"] {
        app.configure(&format!("format = \"{format}\""), "", "");
        app.backup();
        app.run("rg-backup", ["verify", "--latest"]).ok();
        accident(&app);
        app.restore(RUN).ok();
        app.is_as(&good);
        assert_eq!(cluster.psql("shop", SHAPE), shape, "{major}, {format}");
        app.restore(&["drill", "production"]).ok();
        app.is_as(&good);
    }
}

#[test]
fn vectors_come_back_with_their_extension_and_their_index() {
    thread::scope(|scope| {
        for major in [16, 18] {
            scope.spawn(move || vectors_come_back(major));
        }
    });
}

fn vectors_come_back(major: u32) {
    let cluster = Postgres::setup().major(major).start();
    let app = Deployment::new(sandbox!(), &cluster, "rag");
    cluster.psql("postgres", "ALTER ROLE rag SUPERUSER");
    cluster.try_psql("rag", "rag", EMBEDDINGS).ok();
    let good = app.held();
    let nearest = cluster.psql("rag", NEAREST);
    assert_eq!(nearest.lines().nth(1), Some("extensions.vector(24)"));
    for format in ["custom", "plain"] {
        let toml = format!("format = \"{format}\"\nextensions = [\"vector\"]");
        app.configure(&toml, "", "");
        app.backup();
        app.run("rg-backup", ["verify", "--latest"]).ok();
        cluster.psql(
            "rag",
            "DROP EXTENSION vector CASCADE; DELETE FROM rag.chunks",
        );
        app.restore(RUN).ok();
        app.is_as(&good);
        assert_eq!(cluster.psql("rag", NEAREST), nearest, "{major}, {format}");
        app.restore(&["drill", "production/database"]).ok();
        app.is_as(&good);
    }
    // One table alone, beside everything else that has gone on.
    cluster.psql("rag", "DELETE FROM rag.chunks WHERE id % 3 = 0");
    let words = [
        "run",
        "production/database",
        "--table",
        "rag.chunks",
        "--yes",
    ];
    app.restore(&words).ok();
    let chunks = cluster.digest("rag")["rag.chunks"].clone();
    assert_eq!(chunks, good.rows["rag.chunks"]);
    assert_eq!(cluster.psql("rag", NEAREST), nearest, "{major}, one table");
}

#[test]
fn a_server_without_pgvector_is_refused_before_anything_starts() {
    let cluster = Postgres::setup().major(18).start();
    let app = Deployment::new(sandbox!(), &cluster, "rag");
    cluster.psql("postgres", "ALTER ROLE rag SUPERUSER");
    cluster.try_psql("rag", "rag", EMBEDDINGS).ok();
    app.backup();
    let data = app.stored("production/database", ".dump.zst");
    let bare = deployment!("bare");
    let before = bare.held();
    let data = data.to_string_lossy();
    let words = ["run", "production/database", "--from", &data, "--yes"];
    bare.restore(&words).fails(2).says("hint: ");
    bare.is_as(&before);
}

#[test]
fn a_newer_server_takes_over_what_an_older_one_backed_up() {
    let (older, newer) = (Postgres::shared(), Postgres::setup().major(18).start());
    let app = Deployment::new(sandbox!(), older, "moves");
    older.psql("postgres", "ALTER ROLE moves SUPERUSER");
    load_demo(older, "moves", "moves", Scale::Small);
    let rows = older.digest("moves");
    app.backup();
    // The new host: the role is there, its database still empty.
    newer.role("moves", "LOGIN CREATEDB");
    let url = newer.create_database_of("moves", "moves");
    app.write("env", format!("DATABASE_URL={url}\n"));
    app.put_on_path(newer.bin());
    app.restore(&["run", "production/database", "--yes"]).ok();
    assert!(newer.digest("moves") == rows, "the rows are not the same");
    app.restore(&["drill", "production/database"]).ok();
}
