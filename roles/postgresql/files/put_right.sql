-- In a database of the new version: indexes whose order has changed since (the file :recorded is collations.sql's, of the version before), and extensions
\set ON_ERROR_STOP on
\pset tuples_only on
\pset format unaligned
CREATE TEMP TABLE recorded (index_schema text, index_name text, rules_schema text, rules text, provider text, version text);
COPY recorded FROM :'recorded' (FORMAT csv);
CREATE TEMP TABLE moved AS
SELECT recorded.*, actual
  FROM recorded JOIN LATERAL (
       SELECT CASE provider WHEN 'd' THEN (SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database())
                            ELSE pg_collation_actual_version(pg_collation.oid) END AS actual
         FROM pg_collation JOIN pg_namespace ON pg_namespace.oid = collnamespace
        WHERE nspname = rules_schema AND collname = rules AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))) AS now ON true
 WHERE version IS DISTINCT FROM actual;
SELECT format('index %s: %I.%I (%s %s, now %s)', current_database(), index_schema, index_name, rules, version, actual) FROM moved ORDER BY 1;
SELECT format('REINDEX INDEX %I.%I', index_schema, index_name) FROM (SELECT DISTINCT index_schema, index_name FROM moved) AS names \gexec
SELECT format('ALTER COLLATION %I.%I REFRESH VERSION', nspname, collname)
  FROM pg_collation JOIN pg_namespace ON pg_namespace.oid = collnamespace
 WHERE collversion <> pg_collation_actual_version(pg_collation.oid) \gexec
SELECT format('ALTER DATABASE %I REFRESH COLLATION VERSION', datname)
  FROM pg_database WHERE datname = current_database() AND datcollversion <> pg_database_collation_actual_version(oid) \gexec
SELECT format('extension %s: %s (%s, now %s)', current_database(), name, installed_version, default_version)
  FROM pg_available_extensions WHERE installed_version <> default_version ORDER BY 1;
SELECT format('ALTER EXTENSION %I UPDATE', name) FROM pg_available_extensions WHERE installed_version <> default_version \gexec
