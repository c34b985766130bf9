-- What the running server has to say about its configuration files, one line each
SELECT 'error data checksums are off. Stop the server, run as postgres '
    || '/usr/lib/postgresql/' || split_part(current_setting('server_version'), '.', 1) || '/bin/pg_checksums --enable '
    || '-D ' || current_setting('data_directory') || ' (it reads and rewrites every page), and start the server again'
 WHERE current_setting('data_checksums') = 'off'
UNION ALL
SELECT 'error ' || current_setting('hba_file') || ', line ' || line_number || ': ' || error
  FROM pg_hba_file_rules WHERE error IS NOT NULL
UNION ALL
SELECT 'error ' || sourcefile || ', line ' || sourceline || ', ' || coalesce(name, '') || ': ' || error
  FROM pg_file_settings WHERE error IS NOT NULL AND error <> 'setting could not be applied'
UNION ALL
SELECT 'reload ' || file
  FROM unnest(ARRAY[current_setting('hba_file'), current_setting('ident_file'), current_setting('ssl_cert_file'), current_setting('ssl_ca_file'),
                    regexp_replace(current_setting('hba_file'), '[^/]*$', 'conf.d/10-groundcrew.conf')]) AS file
 WHERE file <> '' AND (pg_stat_file(file, true)).modification > pg_conf_load_time()
UNION ALL
SELECT 'restart ' || name FROM pg_settings WHERE pending_restart;
