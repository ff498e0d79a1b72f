//! The statements that empty a database before its restore: everything the role owns, except
//! extensions and what belongs to them.

/// To be run one after the other before the dump; the last one gives the transaction's number.
pub(super) fn statements(lock_limit_ms: u32, word: &str) -> Vec<String> {
    vec![
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE".to_owned(),
        // The dump's own first lines set the limits anew.
        format!("SET LOCAL lock_timeout = {lock_limit_ms}"),
        "SET LOCAL statement_timeout = 0".to_owned(),
        "SET LOCAL idle_in_transaction_session_timeout = 0".to_owned(),
        "SET LOCAL client_min_messages = warning".to_owned(),
        "SET LOCAL search_path = ''".to_owned(),
        DROP.to_owned(),
        // A dump that commits half-way would leave half a database: at COMMIT the server itself
        // asks for the word, which is said only when everything has been compared.
        format!(
            "CREATE FUNCTION pg_temp.rg_guard() RETURNS trigger LANGUAGE plpgsql AS $rg$ BEGIN
             IF current_setting('{SETTING}', true) IS DISTINCT FROM '{word}' THEN
             RAISE EXCEPTION 'the dump tries to end the transaction by itself'; END IF;
             RETURN NULL; END $rg$"
        ),
        "CREATE TEMPORARY TABLE rg_guard (x int) ON COMMIT DROP".to_owned(),
        "CREATE CONSTRAINT TRIGGER rg_guard AFTER INSERT ON pg_temp.rg_guard
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.rg_guard()"
            .to_owned(),
        "INSERT INTO pg_temp.rg_guard VALUES (1)".to_owned(),
        "COPY (SELECT txid_current()) TO STDOUT".to_owned(),
    ]
}

/// Ends the transaction well.
pub(super) fn commit(word: &str) -> String {
    format!("SET LOCAL {SETTING} = '{word}'; COMMIT")
}

/// Any role may set a name with a dot.
const SETTING: &str = "rg.compared";

/// Schemas go whole, if no extension has anything in them. Of the others, and of `public`, whose
/// grants stay as they are, the objects go one by one; a cascade may take some before their turn.
/// What is a part of something else (an identity's sequence, a range's multirange) goes with it; a
/// partitioned table is a part of itself. The list of them is made before the first one goes: names of what is gone cannot be looked up.
const DROP: &str = r#"DO $rg$
DECLARE
    statement text;
    statements text[];
BEGIN
    SELECT array_agg(format('DROP SCHEMA IF EXISTS %I CASCADE', n.nspname)) INTO statements
    FROM pg_namespace n
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public')
      AND pg_has_role(n.nspowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_extension x WHERE x.extnamespace = n.oid)
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
                      AND d.classid = 'pg_namespace'::regclass AND d.objid = n.oid)
      AND NOT EXISTS (SELECT FROM pg_depend i JOIN pg_depend e
                      ON e.classid = i.classid AND e.objid = i.objid AND e.deptype = 'e'
                      WHERE i.refclassid = 'pg_namespace'::regclass AND i.refobjid = n.oid);
    FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP EXECUTE statement; END LOOP;

    SELECT array_agg(format('DROP %s IF EXISTS %s CASCADE',
               CASE i.type WHEN 'statistics object' THEN 'statistics' ELSE i.type END, i.identity)
               ORDER BY o.turn, o.objid) INTO statements
    FROM (
        SELECT 1 AS turn, 'pg_class'::regclass AS classid, oid AS objid, relnamespace AS home, relowner AS owner
            FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT relispartition
        UNION ALL SELECT 2, 'pg_proc'::regclass, oid, pronamespace, proowner FROM pg_proc
        UNION ALL SELECT 3, 'pg_type'::regclass, oid, typnamespace, typowner FROM pg_type t
            WHERE (typtype IN ('b', 'd', 'e', 'r')
                   OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
              AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        UNION ALL SELECT 4, 'pg_operator'::regclass, oid, oprnamespace, oprowner FROM pg_operator
        UNION ALL SELECT 4, 'pg_opfamily'::regclass, oid, opfnamespace, opfowner FROM pg_opfamily
        UNION ALL SELECT 5, 'pg_collation'::regclass, oid, collnamespace, collowner FROM pg_collation
        UNION ALL SELECT 5, 'pg_conversion'::regclass, oid, connamespace, conowner FROM pg_conversion
        UNION ALL SELECT 5, 'pg_ts_config'::regclass, oid, cfgnamespace, cfgowner FROM pg_ts_config
        UNION ALL SELECT 6, 'pg_ts_dict'::regclass, oid, dictnamespace, dictowner FROM pg_ts_dict
        UNION ALL SELECT 7, 'pg_statistic_ext'::regclass, oid, stxnamespace, stxowner FROM pg_statistic_ext
        UNION ALL SELECT 8, 'pg_publication'::regclass, oid, NULL, pubowner FROM pg_publication
        UNION ALL SELECT 8, 'pg_foreign_server'::regclass, oid, NULL, srvowner FROM pg_foreign_server
    ) o
    LEFT JOIN pg_namespace n ON n.oid = o.home
    CROSS JOIN LATERAL pg_identify_object(o.classid, o.objid, 0) i
    WHERE (n.oid IS NULL OR n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
      AND pg_has_role(o.owner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid
                      AND (d.deptype = 'e' OR d.deptype = 'i' AND d.refobjid <> d.objid));
    FOREACH statement IN ARRAY coalesce(statements, '{}') LOOP EXECUTE statement; END LOOP;

    PERFORM lo_unlink(oid) FROM pg_largeobject_metadata WHERE pg_has_role(lomowner, 'USAGE');
    IF to_regnamespace('public') IS NULL THEN CREATE SCHEMA public; END IF;
END
$rg$"#;
