-- Data shaped like the two deployments, RGrid and ToolkitRAG, in one database.
--
--     psql -X -v ON_ERROR_STOP=1 -v scale=1 -f load.sql
--
-- scale 1 (the default) dumps to a good 300 MB of plain bytes, 0.007 to about 2 MB. Everything is made on
-- the server from counters and md5: the same scale gives the same rows. pgvector is used where
-- the server has it.
\set ON_ERROR_STOP on
\if :{?scale}
\else
    \set scale 1
\endif
SET client_min_messages = warning;
SET synchronous_commit = off;
SET TIME ZONE 'UTC';
BEGIN;

-- n rows at scale 1; never less than 5.
CREATE FUNCTION pg_temp.rows(n numeric) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$ SELECT greatest(5, round(n * current_setting('demo.scale')::numeric))::integer $$;
-- A UUID that depends on nothing but its words.
CREATE FUNCTION pg_temp.id(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5(kind || n)::uuid $$;
-- Text of about 32 * n characters that compresses about as well as hexadecimal digits do.
CREATE FUNCTION pg_temp.words(seed text, n integer) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT string_agg(md5(seed || i), ' ') FROM generate_series(1, n) AS i $$;
SELECT set_config('demo.scale', :'scale', true) \gset demo_

CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('9f2c1ab07d34');

-- RGrid ------------------------------------------------------------------------------------------
CREATE TYPE execution_status AS ENUM ('queued', 'running', 'completed', 'failed');
CREATE TABLE api_keys (
    id uuid PRIMARY KEY, name text NOT NULL, key_hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL, revoked_at timestamptz
);
CREATE TABLE workers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hostname text NOT NULL, address inet,
    max_concurrent integer NOT NULL CHECK (max_concurrent > 0), labels jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE worker_heartbeats (
    worker_id bigint NOT NULL REFERENCES workers ON DELETE CASCADE, at timestamptz NOT NULL,
    load double precision NOT NULL, memory_mb integer NOT NULL, PRIMARY KEY (worker_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE worker_heartbeats_2026_01 PARTITION OF worker_heartbeats
    FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE worker_heartbeats_2026_02 PARTITION OF worker_heartbeats
    FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
CREATE TABLE worker_heartbeats_later PARTITION OF worker_heartbeats DEFAULT;
CREATE TABLE executions (
    id uuid PRIMARY KEY, api_key_id uuid NOT NULL REFERENCES api_keys, worker_id bigint REFERENCES workers,
    script text NOT NULL, runtime text NOT NULL, args jsonb NOT NULL, status execution_status NOT NULL,
    stdout text, exit_code integer, created_at timestamptz NOT NULL, finished_at timestamptz,
    seconds double precision GENERATED ALWAYS AS (extract(epoch FROM finished_at - created_at)) STORED
);
CREATE TABLE artifacts (
    id bigserial PRIMARY KEY, execution_id uuid NOT NULL REFERENCES executions ON DELETE CASCADE,
    path text NOT NULL, content_type text, size_bytes bigint NOT NULL, sha256 bytea NOT NULL, head bytea
);
CREATE TABLE dependency_cache (
    hash text PRIMARY KEY, requirements text NOT NULL, layer bytea NOT NULL, hits integer NOT NULL DEFAULT 0
);
CREATE TABLE combined_cache (
    script_hash text NOT NULL, dependency_hash text NOT NULL REFERENCES dependency_cache,
    image text NOT NULL, last_used timestamptz, PRIMARY KEY (script_hash, dependency_hash)
);

INSERT INTO api_keys SELECT pg_temp.id('key', i), 'key ' || i, decode(md5('hash' || i), 'hex'),
        ARRAY['run', CASE WHEN i % 3 = 0 THEN 'admin' ELSE 'read' END],
        timestamptz '2026-01-01' + i * interval '1 hour',
        CASE WHEN i % 10 = 0 THEN timestamptz '2026-06-01' END
    FROM generate_series(1, 50) AS i;
INSERT INTO workers (hostname, address, max_concurrent, labels) SELECT 'worker-' || i, inet '10.0.0.0' + i,
        1 + i % 8, jsonb_build_object('region', 'eu-' || i % 3, 'gpu', i % 4 = 0, 'note', E'tab\t"quoted" \\')
    FROM generate_series(1, 20) AS i;
INSERT INTO worker_heartbeats SELECT 1 + i % 20, timestamptz '2026-01-20' + i / 20 * interval '60 seconds',
        (i % 400) / 100.0, 512 + i % 4096
    FROM generate_series(0, pg_temp.rows(600000)) AS i;
INSERT INTO executions (id, api_key_id, worker_id, script, runtime, args, status, stdout, exit_code, created_at, finished_at)
    SELECT pg_temp.id('execution', i), pg_temp.id('key', 1 + i % 50), CASE WHEN i % 7 > 0 THEN 1 + i % 20 END,
        E'import sys\nprint("' || md5('script' || i % 400) || E'")\n', 'python' || 3.10 + (i % 3) / 100.0,
        jsonb_build_object('argv', jsonb_build_array(i, md5(i::text)), 'env', jsonb_build_object('N', i % 17)),
        (enum_range(NULL::execution_status))[1 + i % 4], pg_temp.words('stdout' || i, 1 + i % 24),
        CASE WHEN i % 4 >= 2 THEN i % 3 END, timestamptz '2026-01-01' + i * interval '37 seconds',
        CASE WHEN i % 4 >= 2 THEN timestamptz '2026-01-01' + i * interval '41 seconds' END
    FROM generate_series(1, pg_temp.rows(100000)) AS i;
INSERT INTO artifacts (execution_id, path, content_type, size_bytes, sha256, head)
    SELECT pg_temp.id('execution', 1 + i % pg_temp.rows(100000)), 'out/' || i || '/résultat ' || i % 9 || '.bin',
        (ARRAY['text/csv', 'image/png', NULL])[1 + i % 3], i::bigint * 7919 % 10000000,
        sha256(i::text::bytea), decode(replace(pg_temp.words('head' || i, 1 + i % 6), ' ', ''), 'hex')
    FROM generate_series(1, pg_temp.rows(150000)) AS i;
INSERT INTO dependency_cache SELECT md5('requirements' || i), E'numpy==1.' || i || E'\nrequests\n',
        decode(replace(pg_temp.words('layer' || i, 200), ' ', ''), 'hex'), i % 100
    FROM generate_series(1, pg_temp.rows(9000)) AS i;
INSERT INTO combined_cache SELECT md5('script' || i), md5('requirements' || 1 + i % pg_temp.rows(9000)),
        'registry/rgrid:' || md5('image' || i), timestamptz '2026-01-01' + i * interval '1 minute'
    FROM generate_series(1, pg_temp.rows(20000)) AS i;

-- ToolkitRAG -------------------------------------------------------------------------------------
CREATE TABLE users (
    id uuid PRIMARY KEY, email text NOT NULL, password_hash text NOT NULL, is_active boolean NOT NULL,
    profile jsonb, created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX users_email_lower ON users (lower(email));
CREATE TABLE sessions (
    token text PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    expires_at timestamptz NOT NULL, agent text
);
CREATE TABLE toolkit_documents (
    id uuid PRIMARY KEY, title text NOT NULL, source text, version integer NOT NULL DEFAULT 1,
    info jsonb NOT NULL, created_by uuid REFERENCES users
);
CREATE TABLE toolkit_chunks (
    id uuid PRIMARY KEY, document_id uuid NOT NULL REFERENCES toolkit_documents ON DELETE CASCADE,
    position integer NOT NULL, content text NOT NULL, info jsonb NOT NULL, UNIQUE (document_id, position)
);
CREATE TABLE chat_logs (
    id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, user_id uuid REFERENCES users ON DELETE SET NULL,
    question text NOT NULL, answer text NOT NULL, citations jsonb NOT NULL, asked_at timestamptz NOT NULL
);
CREATE TABLE feedbacks (
    id bigserial PRIMARY KEY, chat_log_id bigint NOT NULL REFERENCES chat_logs ON DELETE CASCADE,
    rating smallint NOT NULL CHECK (rating BETWEEN 1 AND 5), comment text
);
CREATE TABLE strategies (
    id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, parent_id uuid REFERENCES strategies,
    plan jsonb NOT NULL, price numeric(12, 4), tags text[], valid daterange
);

INSERT INTO users SELECT pg_temp.id('user', i), 'user' || i || '@example.org', '$2b$12$' || md5('p' || i) || md5('q' || i),
        i % 11 > 0, CASE WHEN i % 5 > 0 THEN jsonb_build_object('name', 'Zoë Ünïcode ' || i, 'langs', '["de","中文"]'::jsonb) END,
        timestamptz '2025-06-01' + i * interval '11 minutes'
    FROM generate_series(1, pg_temp.rows(5000)) AS i;
INSERT INTO sessions SELECT md5('token' || i), pg_temp.id('user', 1 + i % pg_temp.rows(5000)),
        timestamptz '2026-02-01' + i * interval '3 minutes', E'Mozilla/5.0 (X11; "Linux")\\' || i % 40
    FROM generate_series(1, pg_temp.rows(20000)) AS i;
INSERT INTO toolkit_documents SELECT pg_temp.id('document', i), 'Document ' || i, 'https://example.org/' || i, 1 + i % 4,
        jsonb_build_object('pages', i % 300, 'tags', jsonb_build_array('t' || i % 20, 't' || i % 30)),
        pg_temp.id('user', 1 + i % pg_temp.rows(5000))
    FROM generate_series(1, pg_temp.rows(2000)) AS i;
INSERT INTO toolkit_chunks SELECT pg_temp.id('chunk', i), pg_temp.id('document', 1 + i % pg_temp.rows(2000)), i,
        pg_temp.words('chunk' || i, 30 + i % 30), jsonb_build_object('page', i % 300, 'section', 's' || i % 50)
    FROM generate_series(1, pg_temp.rows(50000)) AS i;
INSERT INTO chat_logs (user_id, question, answer, citations, asked_at)
    SELECT CASE WHEN i % 13 > 0 THEN pg_temp.id('user', 1 + i % pg_temp.rows(5000)) END, 'Why ' || md5('q' || i) || E'?\n',
        pg_temp.words('answer' || i, 10 + i % 12),
        jsonb_build_array(jsonb_build_object('chunk', pg_temp.id('chunk', 1 + i % pg_temp.rows(50000)), 'score', (i % 100) / 100.0)),
        timestamptz '2026-01-01' + i * interval '5 minutes'
    FROM generate_series(1, pg_temp.rows(50000)) AS i;
INSERT INTO feedbacks (chat_log_id, rating, comment) SELECT i, 1 + i % 5, CASE WHEN i % 4 = 0 THEN '' WHEN i % 4 = 1 THEN E'so-so\r\n' END
    FROM generate_series(1, pg_temp.rows(30000)) AS i;
INSERT INTO strategies SELECT pg_temp.id('strategy', i), pg_temp.id('user', 1 + i % pg_temp.rows(5000)),
        CASE WHEN i > 10 THEN pg_temp.id('strategy', i / 2) END,
        jsonb_build_object('steps', jsonb_build_array('a', i, NULL, i % 2 = 0), 'goal', md5('goal' || i)),
        i * 1.0007, ARRAY['x' || i % 9, NULL, 'com,ma', '{brace}'], daterange('2026-01-01', date '2026-01-02' + i % 365)
    FROM generate_series(1, pg_temp.rows(10000)) AS i;

-- A vector per chunk where the server has pgvector and this role may create it.
SELECT count(*) > 0 AS has_vector FROM pg_available_extension_versions
    WHERE name = 'vector' AND (trusted OR NOT superuser OR current_setting('is_superuser')::boolean) \gset
\if :has_vector
    CREATE EXTENSION IF NOT EXISTS vector;
    ALTER TABLE toolkit_chunks ADD COLUMN embedding vector(16);
    UPDATE toolkit_chunks SET embedding = (SELECT array_agg((('x' || substr(md5(content), 2 * i - 1, 2))::bit(8)::int / 255.0)::real
        ORDER BY i) FROM generate_series(1, 16) AS i)::vector;
\endif

-- A name that must be quoted, a table without rows, one without columns.
CREATE SCHEMA "Reports";
CREATE TABLE "Reports"."Monthly ""totals""" ("Month" date PRIMARY KEY, "Σ amount" numeric);
INSERT INTO "Reports"."Monthly ""totals""" SELECT date '2024-01-01' + i * 31, i * 3.5 FROM generate_series(1, 24) AS i;
CREATE TABLE no_rows (id integer PRIMARY KEY);
CREATE TABLE no_columns ();
CREATE SEQUENCE invoice_number START 1000 INCREMENT 7;
SELECT nextval('invoice_number') AS invoice \gset

-- Indexes after the rows, as a restore does.
CREATE INDEX ON executions (status, created_at DESC);
CREATE INDEX ON executions USING gin (args jsonb_path_ops);
CREATE INDEX ON executions (api_key_id) WHERE status = 'failed';
CREATE INDEX ON artifacts (execution_id);
CREATE INDEX ON toolkit_documents USING gin (info);
CREATE INDEX ON toolkit_chunks (document_id);
CREATE INDEX ON chat_logs (user_id, asked_at);
CREATE INDEX ON sessions (expires_at);

CREATE VIEW active_users AS SELECT u.id, u.email, count(s.token) AS sessions
    FROM users u LEFT JOIN sessions s ON s.user_id = u.id WHERE u.is_active GROUP BY u.id;
CREATE VIEW failed_executions AS SELECT e.id, k.name AS key, e.exit_code FROM executions e
    JOIN api_keys k ON k.id = e.api_key_id WHERE e.status = 'failed';
CREATE MATERIALIZED VIEW executions_per_day AS
    SELECT date_trunc('day', created_at AT TIME ZONE 'UTC')::date AS day, status, count(*) AS n FROM executions GROUP BY 1, 2;
CREATE UNIQUE INDEX ON executions_per_day (day, status);
CREATE FUNCTION touch_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.agent := coalesce(NEW.agent, 'unknown; agent');
    RETURN NEW;
END $$;
CREATE TRIGGER sessions_agent BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION touch_session();
COMMENT ON TABLE executions IS 'one row per run; it''s the big one';
COMMIT;
