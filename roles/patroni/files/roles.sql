-- On the leader: what members copy each other by, and nobody has a password of. Each statement that is made says so.
SELECT format('CREATE ROLE %I LOGIN REPLICATION', :'replication'), 'SELECT ''made'''
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'replication')
UNION ALL
SELECT format('CREATE ROLE %I LOGIN', :'rewind'), 'SELECT ''made'''
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'rewind')
\gexec
-- Of its own: what everybody has is taken away where databases are closed
SELECT format('GRANT CONNECT ON DATABASE postgres TO %I', :'rewind'), 'SELECT ''made'''
 WHERE NOT EXISTS (SELECT FROM pg_database, aclexplode(datacl)
                    WHERE datname = 'postgres' AND grantee = :'rewind'::regrole AND privilege_type = 'CONNECT')
\gexec
-- What pg_rewind reads the other's files with
SELECT format('GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %I', name, :'rewind'), 'SELECT ''made'''
  FROM unnest(ARRAY['pg_ls_dir(text, boolean, boolean)', 'pg_stat_file(text, boolean)', 'pg_read_binary_file(text)',
                    'pg_read_binary_file(text, bigint, bigint, boolean)']) AS name
 WHERE NOT has_function_privilege(:'rewind', 'pg_catalog.' || name, 'EXECUTE')
\gexec
