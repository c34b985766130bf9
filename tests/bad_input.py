"""Variables that a role refuses, and what its message then says; tests/test_bad_input.py runs them."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tools.servers import chosen, combinations

ROOT = Path(__file__).resolve().parent.parent
SECRET = "W4vGq8sZ0pLr2xNd"


def key_pair(*names: str, days: int = 30) -> tuple[str, str]:
    """A self-signed certificate and its key as PEM texts; negative days make an expired one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=90))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def public_key(*parts: bytes) -> str:
    """The middle of a line in authorized_keys."""
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


def provided(certificate: str, key: str) -> dict[str, Any]:
    return {
        "tls_mode": "provided",
        "tls_certificates": [{"name": "default", "names": ["www.example.org"], "certificate": certificate, "private_key": key}],
    }


def acme(*names: str, challenge: str = "http-01", **more: Any) -> dict[str, Any]:
    certificates = [{"name": "default", "names": list(names or ["www.example.org"]), "challenge": challenge}]
    return {"tls_mode": "acme", "tls_acme_agree_terms": True, "tls_certificates": certificates, **more}


GOOD_PAIR, OTHER_PAIR = key_pair("www.example.org"), key_pair("www.example.org")
SITE = {
    "name": "shop",
    "server_names": ["www.example.org"],
    "certificate_file": "/etc/ssl/shop/fullchain.pem",
    "certificate_key_file": "/etc/ssl/shop/privkey.pem",
    "upstreams": ["unix:/run/shop/web.sock"],
}
USER = {"name": "shop", "instance": "broker", "password": SECRET}
CACHE_USER = {"name": "shop", "instance": "cache", "password": SECRET}
OPENING = {"name": "ssh", "ports": [22]}
PERSON = {"name": "anna", "keys": [f"ssh-ed25519 {public_key(b'ssh-ed25519', bytes(32))} anna@laptop"]}
SHORT_KEY = "ssh-rsa " + public_key(b"ssh-rsa", b"\3", b"\0" + b"\xff" * 256)
# As the host sees a connection of root and of anna
BY_ROOT = {"ansible_env": {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22", "USER": "root"}}
BY_ANNA = {"ansible_env": {"SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22", "USER": "anna"}}

# What each role takes: a case overrides it
GOOD: dict[str, dict[str, Any]] = {
    "base": {},
    "administrators": {"administrators_people": [PERSON]},
    "ssh": {},
    "bootstrap": {"ansible_user": "anna", "bootstrap_user": "root"},
    "firewall": {"firewall_openings": [OPENING]},
    "hardening": {},
    "upgrades": {},
    "fail2ban": {},
    "tls": {"tls_ca_directory": "/nonexistent/ca", "tls_certificates": [{"name": "default", "names": ["www.example.org"]}]},
    "waf": {},
    "nginx": {"nginx_sites": [SITE]},
    "postgresql": {
        "postgresql_roles": [{"name": "shop", "password": SECRET}],
        "postgresql_databases": [{"name": "shop", "owner": "shop"}],
    },
    "redis": {"redis_users": [USER, CACHE_USER]},
    "app": {"app_name": "shop", "app_source": str(ROOT / "app"), "app_secret_environment": {"SHOP_KEY": SECRET}},
    "gunicorn": {"gunicorn_name": "shop", "gunicorn_application": "shop.wsgi:app"},
    "celery": {"celery_name": "shop", "celery_application": "shop.celery_app:celery"},
    "smoke": {"smoke_url": "https://www.example.org:8443"},
}


@dataclass(frozen=True)
class Case:
    role: str
    about: str
    variables: dict[str, Any]
    expected: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"{self.role}-{self.about}".replace(" ", "-")


NIGHT = {"days": ["sat", "sun"], "start": "23:00", "minutes": 120}

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
    # Who would be locked out
    Case(
        "ssh",
        "run by root",
        {"ansible_connection": "ssh"},
        ("ansible_user", '"root"', "playbooks/bootstrap.yml"),
        BY_ROOT,
    ),
    Case(
        "ssh",
        "run by password",
        {"ansible_connection": "ssh", "ansible_password": SECRET},
        ("ansible_password", "********", "as bootstrap_password"),
        BY_ANNA,
    ),
    Case("ssh", "no group", {"ssh_allow_groups": []}, ("ssh_allow_groups", "[]", "at least one group")),
    Case(
        "ssh", "setting of the role", {"ssh_extra_settings": {"permitRootLogin": True}}, ("ssh_extra_settings", "permitrootlogin", "itself")
    ),
    Case("ssh", "match in a setting", {"ssh_extra_settings": {"Match": "all"}}, ("ssh_extra_settings", '["Match"]', "neither Match nor")),
    Case("ssh", "two lines in a setting", {"ssh_extra_settings": {"AcceptEnv": "A\nMatch all"}}, ("ssh_extra_settings", "in one line")),
    Case("ssh", "port", {"ssh_port": 70000}, ("ssh_port", "70000", "1 to 65535")),
    Case(
        "administrators",
        "the own user gone",
        {"ansible_connection": "ssh", "administrators_people": [{"name": "anna", "state": "absent"}]},
        ("administrators_people", "anna", "the user of this connection"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "the own user without sudo",
        {"ansible_connection": "ssh", "administrators_people": [{**PERSON, "sudo": False}]},
        ("administrators_people", "anna", "sudo for the user of this connection"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "sudo by a password that the run does not know",
        {"ansible_connection": "ssh", "administrators_people": [{**PERSON, "password_hash": "$6$salt$" + 86 * "x", "sudo_password": True}]},
        ("administrators_people", "anna", "ansible_become_password"),
        BY_ANNA,
    ),
    Case(
        "administrators",
        "no key",
        {"administrators_people": [{"name": "anna"}]},
        ("administrators_people[0].keys", "[]", "at least one public key"),
    ),
    Case(
        "administrators",
        "key cut off",
        {"administrators_people": [{"name": "anna", "keys": [PERSON["keys"][0][:40]]}]},
        ("administrators_people[0].keys", "ssh-ed25519", "cut off or mistyped"),
    ),
    Case(
        "administrators",
        "short RSA key",
        {"administrators_people": [{"name": "anna", "keys": [SHORT_KEY]}]},
        ("administrators_people[0].keys", "ssh-rsa", "at least 3072 bits, not 2048"),
    ),
    Case(
        "administrators",
        "private key",
        {"administrators_people": [{"name": "anna", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----\n" + SECRET]}]},
        ("administrators_people[0].keys", "(a private key)", "the public key"),
    ),
    Case(
        "administrators",
        "password in the clear",
        {"administrators_people": [{**PERSON, "password_hash": SECRET}]},
        ("administrators_people[0].password_hash", "********", "openssl passwd -6"),
    ),
    Case(
        "administrators",
        "password without a hash",
        {"administrators_people": [{**PERSON, "sudo_password": True}]},
        ("administrators_people[0].sudo_password", "true", "beside a password_hash"),
    ),
    Case("bootstrap", "root for good", {"ansible_user": "root"}, ("ansible_user", "root", "one of administrators_people")),
    Case("bootstrap", "password for good", {"ansible_password": SECRET}, ("ansible_password", "********", "is bootstrap_password")),
    Case(
        "bootstrap",
        "no fingerprint",
        {"bootstrap_host_key_fingerprints": ["aa:bb"]},
        ("bootstrap_host_key_fingerprints", '["aa:bb"]', "SHA256 and 43 characters"),
    ),
    Case("fail2ban", "wrong type", {"fail2ban_extra_jails": ["sshd"]}, ("fail2ban_extra_jails", '["sshd"]', "a dictionary")),
    Case("fail2ban", "unknown jail", {"fail2ban_jails": ["ssh"]}, ("fail2ban_jails", '"ssh"', '"sshd"')),
    Case("fail2ban", "no settings", {"fail2ban_extra_jails": {"shop": None}}, ("fail2ban_extra_jails", "settings for each jail")),
    Case("fail2ban", "everybody ignored", {"fail2ban_ignore": ["0.0.0.0/0"]}, ("fail2ban_ignore", "0.0.0.0/0", "smaller than")),
    Case(
        "fail2ban",
        "no address",
        {"fail2ban_ignore": ["10.0.0.1 10.0.0.2"]},
        ("fail2ban_ignore", "10.0.0.1 10.0.0.2", "addresses, networks"),
    ),
    Case("fail2ban", "forgetful", {"fail2ban_remember_seconds": 3600}, ("fail2ban_remember_seconds", "3600", "fail2ban_ban_max_seconds")),
    Case("fail2ban", "no ports", {"fail2ban_web_ports": []}, ("fail2ban_web_ports", "one or more ports")),
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
    Case("gunicorn", "port out of range", {"gunicorn_address": "127.0.0.1:80000"}, ("gunicorn_address", "80000", "a port from 1 to 65535")),
    Case(
        "gunicorn",
        "proxy by name",
        {"gunicorn_clients": ["web1"]},
        ("gunicorn_clients", '["web1"]', "addresses or networks"),
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
    # Certificates
    Case(
        "tls",
        "expired certificate",
        provided(*key_pair("www.example.org", days=-1)),
        ("tls_certificates[0].certificate", "expired on", "a certificate that has not expired"),
    ),
    Case(
        "tls",
        "mismatched key",
        provided(GOOD_PAIR[0], OTHER_PAIR[1]),
        ("tls_certificates[0].private_key", "CN=www.example.org", "belongs to another"),
    ),
    Case(
        "tls",
        "name not covered",
        provided(*key_pair("example.org")),
        ("tls_certificates[0].certificate", "CN=example.org", "does not cover www.example.org"),
    ),
    Case("tls", "no certificate", provided("", ""), ("tls_certificates[0].",)),
    Case("tls", "terms", acme(tls_acme_agree_terms=False), ("tls_acme_agree_terms", "false", "read the terms")),
    Case("tls", "address of ACME", acme("192.0.2.1"), ("tls_certificates[0].names", "192.0.2.1", "sign for no address")),
    Case("tls", "wildcard by HTTP", acme("*.example.org"), ("tls_certificates[0].names", "*.example.org", "challenge: dns-01")),
    Case("tls", "private name", acme("intranet"), ("tls_certificates[0].names", "intranet", "names that are public")),
    Case("tls", "no hook", acme("*.example.org", challenge="dns-01"), ("tls_certificates[0].challenge", "dns-01", "tls_acme_dns_hook")),
    Case(
        "tls",
        "plain directory",
        acme(tls_acme_directory_url="http://acme.example.org/dir"),
        ("tls_acme_directory_url", "http://", "https://"),
    ),
    Case("tls", "half a binding", acme(tls_acme_eab={"kid": "AbC123"}), ("tls_acme_eab", "kid", "both kid and hmac_key")),
    Case("tls", "broken binding", acme(tls_acme_eab={"kid": "AbC123", "hmac_key": f"{SECRET}\nserver = x"}), ("tls_acme_eab", "base64url")),
    Case(
        "tls",
        "no CA file",
        acme(tls_acme_ca_file="/nonexistent.pem"),
        ("tls_acme_ca_file", "/nonexistent.pem", "a PEM file on the controller"),
    ),
    Case("tls", "no service", acme(tls_reload_units=["nginx"]), ("tls_reload_units", "nginx", "such as nginx.service")),
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
    # What a site's rules would not do
    Case(
        "nginx",
        "HTTP3 on Debian 12",
        {"nginx_http3": True},
        ("nginx_http3", "true", "that of Debian 12 is 1.22"),
        {"ansible_distribution_major_version": "12", "ansible_distribution_version": "12.5"},
    ),
    Case("nginx", "proxy by name", {"nginx_proxies": ["lb1"]}, ("nginx_proxies", "lb1", "addresses or networks")),
    Case(
        "nginx",
        "a network with a host part",
        {"nginx_sites": [{**SITE, "allow": ["10.0.0.1/8"]}]},
        ("nginx_sites[0].allow", "10.0.0.1/8", "addresses or networks"),
    ),
    *(
        Case(
            "nginx",
            f"route number {number}",
            {"nginx_sites": [{**SITE, "routes": [{"path": path}]}]},
            ("nginx_sites[0].routes[0].path", path, "a path such"),
        )
        for number, path in enumerate(("api", "/api/", "/a/../b", "/a%2fb", "/a b", "/"))
    ),
    Case(
        "nginx",
        "a static folder in a route",
        {"nginx_sites": [{**SITE, "routes": [{"path": "/a"}], "static": [{"url": "/a/static/", "path": "/srv/shop/static"}]}]},
        ("nginx_sites[0].routes[0].path", "/a", "its rules would not hold for /a/static/"),
    ),
    Case(
        "nginx",
        "no requests at all",
        {"nginx_sites": [{**SITE, "limits": {"requests": 0}}]},
        ("nginx_sites[0].limits.requests", "0", "1 to 65535"),
    ),
    Case(
        "nginx",
        "a password in the clear",
        {"nginx_sites": [{**SITE, "basic_auth": [{"name": "ada", "password_hash": SECRET}]}]},
        ("nginx_sites[0].basic_auth[0].password_hash", "********", "openssl passwd -6"),
    ),
    Case(
        "nginx",
        "a security.txt of the past",
        {"nginx_sites": [{**SITE, "security_txt": {"contact": ["mailto:security@example.org"], "expires": "2020-01-31T00:00:00Z"}}]},
        ("nginx_sites[0].security_txt.expires", "2020-01-31T00:00:00Z", "a time to come"),
    ),
    Case(
        "nginx",
        "a security.txt without contact",
        {"nginx_sites": [{**SITE, "security_txt": {"expires": "2020-01-31T00:00:00Z"}}]},
        ("nginx_sites[0].security_txt.contact", "(not set)", "mailto:"),
    ),
    Case(
        "nginx",
        "a fallback without a root",
        {"nginx_sites": [{**SITE, "static": [{"url": "/static/", "path": "/srv/shop/static", "fallbacks": ["shop/static"]}]}]},
        ("nginx_sites", "absolute paths"),
    ),
    Case(
        "firewall",
        "two openings with one name",
        {"firewall_openings": [OPENING, OPENING]},
        ("firewall_openings", "names of openings that differ"),
    ),
    Case(
        "redis",
        "two users with one name",
        {"redis_users": [USER, USER, CACHE_USER]},
        ("redis_users", "broker/shop", "user names that differ within an instance"),
    ),
    Case(
        "celery",
        "two workers with one name",
        {"celery_workers": [{"name": "a", "queues": ["a"]}, {"name": "a", "queues": ["b"]}]},
        ("celery_workers", "worker names that differ"),
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
