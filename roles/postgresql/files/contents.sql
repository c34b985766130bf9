-- What one database has, a line each, so that two versions of a server can be compared
\pset tuples_only on
\pset format unaligned
SELECT format('%s %I.%I', CASE relkind WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index' WHEN 'v' THEN 'view' WHEN 'm' THEN 'matview' ELSE 'table' END,
              nspname, relname)
  FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
 WHERE relkind IN ('r', 'p', 'S', 'i', 'v', 'm') AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
   -- What belongs to an extension may differ from version to version
   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
 ORDER BY 1;
SELECT format('sequence %I.%I at %s', schemaname, sequencename, coalesce(last_value::text, 'its start')) FROM pg_sequences ORDER BY 1;
SELECT format('extension %s', extname) FROM pg_extension ORDER BY 1;
SELECT format('owner %s', datdba::regrole) FROM pg_database WHERE datname = current_database();
-- With a digest of the password; roles of the server's own come with its version
SELECT format('role %s %s %s %s %s', rolname, rolcanlogin, rolconnlimit, rolconfig,
              (SELECT md5(coalesce(rolpassword, '-')) FROM pg_authid AS secret WHERE secret.oid = pg_roles.oid))
  FROM pg_roles WHERE rolname NOT LIKE 'pg\_%' ORDER BY 1;
\if :rows
SELECT format('SELECT ''rows %I.%I '' || count(*) FROM ONLY %I.%I', nspname, relname, nspname, relname)
  FROM pg_class JOIN pg_namespace AS schema ON schema.oid = relnamespace
 WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT LIKE 'pg\_%' AND nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
 ORDER BY 1 \gexec
\endif
