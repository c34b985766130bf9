#!/bin/sh
# waf_test.sh FILE: have nginx read rules as it will when it serves. Before nginx and its module are there, its own test comes with them.
set -eu
[ -e /usr/lib/nginx/modules/ngx_http_modsecurity_module.so ] || exit 0
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/nginx.conf" <<CONF
user www-data;
pid $folder/pid;
error_log stderr error;
include /etc/nginx/modules-enabled/*.conf;
events { }
http {
    access_log off;
    modsecurity on;
    modsecurity_rules_file $1;
}
CONF
nginx -t -q -c "$folder/nginx.conf"
