"""Variables that a role refuses, and what its message then says; tests/test_bad_input.py runs them."""

from __future__ import annotations

from tests.bad_input_access import ACCESS
from tests.bad_input_edge import EDGE
from tests.bad_input_examples import (
    CACHE_USER,
    GOOD,
    GOOD_PAIR,
    MEMBERS,
    NIGHT,
    OPENING,
    REDIS_SET,
    ROOT,
    SECRET,
    SITE,
    USER,
    Case,
    acme,
    provided,
)
from tools.servers import chosen, combinations

CASES = [
    Case("waf", "unknown mode", {"waf_mode": "block"}, ("waf_mode", '"block"', '"detection", "blocking"')),
    Case("waf", "no level", {"waf_paranoia_level": 5}, ("waf_paranoia_level", "5", "one of 1, 2, 3, 4")),
    Case(
        "waf",
        "relative path",
        {"waf_exclusions": [{"path": "notes", "tags": ["attack-sqli"]}]},
        ("waf_exclusions", "notes", "begin with a slash"),
    ),
    Case("waf", "excludes nothing", {"waf_exclusions": [{"path": "/notes"}]}, ("waf_exclusions", "rules or tags")),
    Case(
        "waf",
        "two targets in one",
        {"waf_exclusions": [{"rules": [942100], "targets": ["ARGS:a,ctl:ruleEngine=Off"]}]},
        ("waf_exclusions", "ARGS:a,ctl:ruleEngine=Off", "targets such as ARGS:text"),
    ),
    Case("waf", "no score", {"waf_inbound_threshold": 0}, ("waf_inbound_threshold", "0", "1 to 1000")),
    # A wrong type
    Case("base", "wrong type", {"base_packages": "curl,vim"}, ("base_packages", '"curl,vim"', "a list of strings")),
    Case("firewall", "wrong type", {"firewall_openings": ["ssh"]}, ("firewall_openings[0]", '"ssh"', "a dictionary")),
    Case("nginx", "wrong type", {"nginx_http_port": "http"}, ("nginx_http_port", '"http"', "an integer")),
    Case("celery", "no boolean", {"celery_beat": "maybe"}, ("celery_beat", '"maybe"', "true or false")),
    Case("app", "wrong type", {"app_environment": ["A=1"]}, ("app_environment", '["A=1"]', "a dictionary")),
    Case("hardening", "wrong type", {"hardening_umask": "027"}, ("hardening_umask", '"027"', "true or false")),
    Case(
        "upgrades",
        "unknown day",
        {"upgrades_window": NIGHT | {"days": ["sunday"]}},
        ("upgrades_window.days[0]", '"sunday"', '"sat", "sun"'),
    ),
    *ACCESS,
    # An unknown mode
    Case("tls", "unknown mode", {"tls_mode": "acme2"}, ("tls_mode", '"acme2"', 'one of "internal_ca", "provided", "acme"')),
    Case("app", "unknown mode", {"app_package": "docker"}, ("app_package", '"docker"', 'one of "auto", "wheel", "path"')),
    Case(
        "firewall",
        "unknown protocol",
        {"firewall_openings": [{**OPENING, "protocol": "icmp"}]},
        ("firewall_openings[0].protocol", '"icmp"', 'one of "tcp", "udp"'),
    ),
    Case(
        "postgresql",
        "unsafe method",
        {"postgresql_hba": [{"address": "10.0.0.0/8", "method": "md5"}]},
        ("postgresql_hba[0].method", '"md5"', "scram-sha-256"),
    ),
    Case("gunicorn", "unknown class", {"gunicorn_worker_class": "fast"}, ("gunicorn_worker_class", '"fast"', "gthread")),
    Case("gunicorn", "unknown server", {"gunicorn_server": "apache"}, ("gunicorn_server", '"apache"', '"uwsgi", "waitress"')),
    # What no application of its kind runs under
    *(
        Case(
            "gunicorn",
            f"{interface} on {choice.title}",
            {"gunicorn_interface": interface, **choice.variables},
            (
                "gunicorn_worker_class" if choice.worker_class else "gunicorn_server",
                f"{choice.worker_class or choice.server}, and gunicorn_interface: {interface}",
                "docs/servers.md",
            ),
        )
        for interface in ("wsgi", "asgi")
        for choice in chosen()
        if interface not in choice.interfaces
    ),
    Case(
        "gunicorn",
        "class of another server",
        {"gunicorn_server": "uwsgi", "gunicorn_worker_class": "gevent"},
        ("gunicorn_worker_class", '"gevent"', "only gunicorn has worker classes"),
    ),
    Case(
        "gunicorn",
        "threads of ASGI",
        {"gunicorn_server": "uvicorn", "gunicorn_interface": "asgi", "gunicorn_threads": 4},
        ("gunicorn_threads", "4", "for WSGI applications"),
    ),
    Case(
        "gunicorn",
        "processes of Waitress",
        {"gunicorn_server": "waitress", "gunicorn_workers": 3},
        ("gunicorn_workers", "3", "set gunicorn_threads"),
    ),
    Case(
        "gunicorn",
        "log of Waitress",
        {"gunicorn_server": "waitress", "gunicorn_access_log": True},
        ("gunicorn_access_log", "true", "the web server does"),
    ),
    Case(
        "gunicorn",
        "preload of Granian",
        {"gunicorn_server": "granian", "gunicorn_preload": True},
        ("gunicorn_preload", "true", "only gunicorn and uwsgi"),
    ),
    Case(
        "gunicorn",
        "factory with arguments",
        {"gunicorn_server": "uwsgi", "gunicorn_application": "shop:create_app('live')"},
        ("gunicorn_application", "create_app('live')", "only gunicorn takes arguments"),
    ),
    Case(
        "gunicorn",
        "option twice",
        {"gunicorn_server": "uwsgi", "gunicorn_extra_settings": {"threads": 9}},
        ("gunicorn_extra_settings", "threads", "settings that no other variable"),
    ),
    Case("gunicorn", "no command", {"gunicorn_server": "command"}, ("gunicorn_command", "[]", "a program and its arguments")),
    Case(
        "gunicorn",
        "command of another server",
        {"gunicorn_command": ["serve", "{fd}"]},
        ("gunicorn_command", "serve", "where gunicorn_server is command"),
    ),
    Case(
        "gunicorn",
        "command without socket",
        {"gunicorn_server": "command", "gunicorn_command": ["serve", "--port", "8000"]},
        ("gunicorn_command", "8000", "one of {fd}"),
    ),
    Case(
        "gunicorn",
        "unknown placeholder",
        {"gunicorn_server": "command", "gunicorn_command": ["serve", "{fd}", "{port}"]},
        ("gunicorn_command", "{port}", "no words in braces but"),
    ),
    # A port out of range
    Case("nginx", "port out of range", {"nginx_https_port": 70000}, ("nginx_https_port", "70000", "a port from 1 to 65535")),
    Case(
        "hardening",
        "the way in removed",
        {"hardening_unneeded_packages": ["telnet", "openssh-server"]},
        ("hardening_unneeded_packages", "openssh-server", "needs to be reached"),
    ),
    Case(
        "hardening",
        "mode as a number",
        {"hardening_permissions_paths": [{"path": "/etc/crontab", "mode": 600}]},
        ("hardening_permissions_paths", "600", '"0600"'),
    ),
    Case("hardening", "banner of agetty", {"hardening_banner_text": "\\n \\l"}, ("hardening_banner_text", "without backslashes")),
    Case(
        "upgrades", "start of one digit", {"upgrades_window": NIGHT | {"start": "3:00"}}, ("upgrades_window.start", "3:00", "such as 03:00")
    ),
    Case(
        "upgrades",
        "too few slots",
        {"upgrades_window": NIGHT, "upgrades_slot_minutes": 30, "upgrades_hosts": 9},
        ("upgrades_window", "8 slots of 30 minutes (sat, sun from 23:00, 120 minutes)", "a slot for each of the 9 hosts"),
    ),
    Case(
        "upgrades",
        "tiers at once",
        # Sunday's window ends on Monday
        {"upgrades_window": NIGHT, "upgrades_other_windows": [{"days": ["mon"], "start": "00:30", "minutes": 10}]},
        ("upgrades_window", "sat, sun from 23:00", "a window apart from", "mon from 00:30"),
    ),
    Case(
        "upgrades", "window over itself", {"upgrades_window": NIGHT | {"minutes": 1441}}, ("upgrades_window.minutes", "1441", "10 to 1440")
    ),
    Case(
        "firewall",
        "port out of range",
        {"firewall_openings": [{"name": "ssh", "ports": [22, 0]}]},
        ("firewall_openings", "0", "ports from 1 to 65535"),
    ),
    Case("postgresql", "port out of range", {"postgresql_port": 65536}, ("postgresql_port", "65536", "a port from 1 to 65535")),
    Case(
        "redis",
        "port out of range",
        {
            "redis_users": [USER],
            "redis_instances": [
                {"name": "broker", "port": 99999, "maxmemory_mb": 64, "maxmemory_policy": "noeviction", "persistence": "aof"}
            ],
        },
        ("redis_instances", "99999", "ports from 1 to 65535"),
    ),
    Case("gunicorn", "drain shorter than a connection", {"gunicorn_drain_time": 10}, ("gunicorn_drain_time", "10", "from 11")),
    Case("etcd", "two members", {"etcd_members": MEMBERS[:2]}, ("etcd_members", "db1", "one, three, five or seven members")),
    Case("etcd", "not a member", {"etcd_name": "db9"}, ("etcd_name", "db9", "one of etcd_members (db1, db2, db3)")),
    Case("patroni", "two members", {"patroni_members": MEMBERS[:2]}, ("patroni_members", "db1", "three, five or seven members")),
    Case("patroni", "no time to copy", {"patroni_copy_minutes": 1}, ("patroni_copy_minutes", "1", "3 minutes to 10080")),
    Case(
        "pgbouncer",
        "on Debian 12",
        {},
        ("pgbouncer_servers", "Debian 13", "prepared statements"),
        {"ansible_distribution_major_version": "12", "ansible_distribution_version": "12.5"},
    ),
    Case("pgbouncer", "in the clear", {"pgbouncer_tls_ca_file": ""}, ("pgbouncer_tls_ca_file", "another host")),
    Case("pgbouncer", "server by name", {"pgbouncer_servers": ["db1"]}, ("pgbouncer_servers", "db1", "no names")),
    Case("pgbouncer", "its own console", {"pgbouncer_databases": ["pgbouncer"]}, ("pgbouncer_databases", "its own console")),
    Case(
        "pgbouncer",
        "a digest",
        {"pgbouncer_users": [{"name": "shop", "password": "md5" + "0" * 32}]},
        ("pgbouncer_users", "shop", "no digests"),
    ),
    Case(
        "pgbouncer",
        "one login twice",
        {"pgbouncer_users": [{"name": "shop", "password": SECRET}, {"name": "shop", "password": SECRET * 2}]},
        ("pgbouncer_users", "shop", "names differ"),
    ),
    Case("pgbouncer", "a port of root", {"pgbouncer_port": 432}, ("pgbouncer_port", "432", "1024 to 65535")),
    Case("pgbouncer", "no pool", {"pgbouncer_pool_size": 0}, ("pgbouncer_pool_size", "0", "1 to 1000")),
    Case(
        "pgbouncer",
        "fewer clients than connections",
        {"pgbouncer_clients": 10},
        ("pgbouncer_clients", "10", "from pgbouncer_pool_size (20)"),
    ),
    Case("pgbouncer", "for ever", {"pgbouncer_wait_seconds": 0}, ("pgbouncer_wait_seconds", "0", "1 to 600 seconds")),
    Case("patroni", "too fast", {"patroni_ttl": 10}, ("patroni_ttl", "10", "20 to 300 seconds")),
    Case(
        "postgresql",
        "half a certificate",
        {"postgresql_tls": {"certificate_file": "/etc/ssl/peer/fullchain.pem"}},
        ("postgresql_tls", "certificate_file, key_file, ca_file and key_group"),
    ),
    # A missing or placeholder secret
    Case(
        "postgresql",
        "missing secret",
        {"postgresql_roles": [{"name": "shop", "password": "{{ vault_postgresql_app_password }}"}]},
        (
            "postgresql_roles[0].password",
            "'vault_postgresql_app_password' is undefined",
            "set vault_postgresql_app_password in",
            "vault.yml",
        ),
    ),
    Case(
        "postgresql",
        "placeholder secret",
        {"postgresql_roles": [{"name": "shop", "password": "change_me"}]},
        ("postgresql_roles[0].password", "********", "placeholder"),
    ),
    Case(
        "postgresql",
        "no secret",
        {"postgresql_roles": [{"name": "shop", "password": SECRET}, {"name": "blog"}, {"name": "former", "login": False}]},
        ("postgresql_roles", '["blog"]', "a password in each role that may log in"),
    ),
    Case(
        "postgresql",
        "acts as nobody",
        {"postgresql_roles": [{"name": "shop", "password": SECRET}, {"name": "shop_b", "password": SECRET, "acts_as": "shopp"}]},
        ("postgresql_roles", '["shopp"]', "roles that postgresql_roles declares (shop, shop_b)"),
    ),
    Case(
        "redis",
        "name of the role's own user",
        {"redis_users": [{**USER, "name": "groundcrew"}, CACHE_USER]},
        ("redis_users", "groundcrew", "groundcrew, who sets the others"),
    ),
    Case(
        "redis",
        "short secret",
        {"redis_users": [{**USER, "password": "k3Jd9s"}, CACHE_USER]},
        ("redis_users[0].password", "********", "at least 12 characters"),
    ),
    Case("redis", "no secret", {"redis_users": [{"name": "shop", "instance": "broker"}]}, ("redis_users[0].password", "(not set)")),
    Case(
        "app",
        "placeholder secret",
        {"app_secret_environment": {"SHOP_KEY": "<your secret key>"}},
        ("app_secret_environment.SHOP_KEY", "********", "placeholder"),
    ),
    *EDGE,
    # A source folder that is no Python project
    Case("app", "no such folder", {"app_source": "/nonexistent"}, ("app_source", '"/nonexistent"', "the absolute path of a folder")),
    Case("app", "no python project", {"app_source": str(ROOT / "roles")}, ("app_source", "/roles", "the folder of a Python project")),
    Case("app", "unknown hook", {"app_hooks": {"after_swich": []}}, ("app_hooks.after_swich", "did you mean after_switch")),
    Case("app", "no such hook", {"app_hooks": {"after_switch": ["/nonexistent.yml"]}}, ("app_hooks", "/nonexistent.yml", "absolute paths")),
    Case("app", "no wsgi target", {"app_wsgi_target": "shop"}, ("app_wsgi_target", '"shop"', "module:attribute")),
    Case("app", "no static folder", {"app_static_command": "make static"}, ("app_static_command", "make static", "app_static_folder")),
    Case("smoke", "no address", {"smoke_url": "www.example.org"}, ("smoke_url", '"www.example.org"', "https://www.example.com")),
    # Two with one name
    Case("nginx", "two sites with one name", {"nginx_sites": [SITE, SITE]}, ("nginx_sites", '["shop", "shop"]', "site names that differ")),
    Case(
        "nginx",
        "one host in two sites",
        {"nginx_sites": [SITE, {**SITE, "name": "other"}]},
        ("nginx_sites", "www.example.org", "each host in one site's server_names only"),
    ),
    # Rules across variables
    Case(
        "celery",
        "stops before the longest task",
        {"celery_stop_timeout": 60},
        ("celery_stop_timeout", "60", "more seconds than celery_task_time_limit"),
    ),
    Case(
        "celery",
        "gives up before the longest task",
        {"celery_ready_timeout": 300, "celery_task_time_limit": 300},
        ("celery_ready_timeout", "300", "more seconds than celery_task_time_limit"),
    ),
    Case(
        "postgresql",
        "owner nobody declares",
        {"postgresql_databases": [{"name": "shop", "owner": "nobody"}]},
        ("postgresql_databases", "nobody", "owners that postgresql_roles declares (shop)"),
    ),
    Case(
        "firewall",
        "no network",
        {"firewall_openings": [{**OPENING, "sources": ["10.0.0.300"]}]},
        ("firewall_openings", "10.0.0.300", "addresses or networks"),
    ),
    Case("redis", "two members", REDIS_SET | {"redis_members": ["10.0.0.1", "10.0.0.2"]}, ("redis_members", "an odd number of members")),
    Case("redis", "member of none", REDIS_SET | {"redis_addresses": ["10.0.0.9"]}, ("redis_members", "10.0.0.9")),
    Case("redis", "set without TLS", REDIS_SET | {"redis_tls": {}}, ("redis_tls", "certificate_file, key_file, ca_file and key_group")),
    Case(
        "redis",
        "set without a password",
        REDIS_SET | {"redis_replication_password": ""},
        ("redis_replication_password", "(hidden)", "16 characters", "make secrets"),
    ),
    Case("redis", "any address", {"redis_addresses": ["0.0.0.0"]}, ("redis_addresses", "0.0.0.0", "no wildcard")),
    # A release other than Debian 12 or 13
    Case(
        "base",
        "unsupported release",
        {},
        ("base_accept_unsupported_release", "Ubuntu 24.04", "Debian 12 or 13"),
        {"ansible_distribution": "Ubuntu", "ansible_distribution_major_version": "24", "ansible_distribution_version": "24.04"},
    ),
    # A typo
    *(
        Case(role, "typo", {f"{role}_{typo}": "x"}, (f"{role}_{typo}", f"a variable that role {role} knows; did you mean {role}_{meant}"))
        for role, typo, meant in [
            ("base", "timezon", "timezone"),
            ("firewall", "opening", "openings"),
            ("tls", "certificate", "certificates"),
            ("nginx", "https_prt", "https_port"),
            ("postgresql", "database", "databases"),
            ("redis", "instance", "instances"),
            ("app", "environ", "environment"),
            ("gunicorn", "worker", "workers"),
            ("celery", "queue_workers", "workers"),
            ("smoke", "uri", "url"),
        ]
    ),
    # A required one
    *(
        Case(role, f"no {name}", {f"{role}_{name}": None}, (f"{role}_{name}",))
        for role, name in [("tls", "certificates"), ("nginx", "sites"), ("redis", "users"), ("app", "name"), ("gunicorn", "application")]
    ),
]
ACCEPTED = [
    Case(
        "upgrades",
        "as many hosts as slots",
        {"upgrades_window": NIGHT, "upgrades_slot_minutes": 30, "upgrades_hosts": 8, "upgrades_position": 7},
        (),
    ),
    *(Case(role, "as it should be", {}, ()) for role in GOOD),
    Case("tls", "provided", provided(*GOOD_PAIR), ()),
    Case("tls", "acme", acme(tls_acme_eab={"kid": "AbC123", "hmac_key": SECRET}, tls_acme_email="me@example.org"), ()),
    Case(
        "tls", "wildcard by DNS", acme("*.example.org", challenge="dns-01", tls_acme_dns_hook=str(ROOT / "molecule/acme/dns-hook.py")), ()
    ),
    *(
        Case(
            "gunicorn",
            f"{choice.title} for {interface}",
            {"gunicorn_interface": interface, **choice.variables},
            (),
        )
        for interface in ("wsgi", "asgi")
        for choice in combinations(interface)
    ),
    Case(
        "gunicorn",
        "a command",
        {"gunicorn_server": "command", "gunicorn_application": "", "gunicorn_command": ["serve", "--socket={socket}"]},
        (),
    ),
    Case(
        "base",
        "risk taken",
        {"base_accept_unsupported_release": True},
        (),
        {"ansible_distribution": "Ubuntu", "ansible_distribution_major_version": "24", "ansible_distribution_version": "24.04"},
    ),
]
# Accepted by base, and yet nothing that postgresql could install
UNKNOWN_RELEASE = Case(
    "postgresql", "unknown release", {}, (), {"ansible_distribution": "Ubuntu", "ansible_distribution_major_version": "24"}
)
ALL = [*CASES, *ACCEPTED, UNKNOWN_RELEASE]
