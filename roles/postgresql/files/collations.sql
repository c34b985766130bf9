-- Indexes of one database that sort by a library's rules, with the version of the rules that the database has written down; for the version before
\pset tuples_only on
\pset format csv
SELECT DISTINCT schema.nspname, relation.relname, collation_schema.nspname, collname, collprovider,
       CASE collprovider WHEN 'd' THEN (SELECT datcollversion FROM pg_database WHERE datname = current_database()) ELSE collversion END
  FROM (SELECT indexrelid, unnest(indcollation) AS used FROM pg_index
        UNION SELECT objid, refobjid FROM pg_depend WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_collation'::regclass) AS sorted
  JOIN pg_class AS relation ON relation.oid = indexrelid AND relkind = 'i'
  JOIN pg_namespace AS schema ON schema.oid = relnamespace
  JOIN pg_collation ON pg_collation.oid = used
  JOIN pg_namespace AS collation_schema ON collation_schema.oid = collnamespace
 WHERE schema.nspname NOT LIKE 'pg\_%'
 ORDER BY 1, 2, 3, 4;
