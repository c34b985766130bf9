"""What the cases of bad input are made of: what each role takes, certificates, keys and people."""

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
MEMBERS = [{"name": f"db{number}", "address": f"10.0.0.{number}"} for number in (1, 2, 3)]
PEER_TLS = {
    "certificate_file": "/etc/ssl/peer/fullchain.pem",
    "key_file": "/etc/ssl/peer/privkey.pem",
    "ca_file": "/etc/ssl/ca.pem",
    "key_group": "peer",
}
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
    "antivirus": {},
    "tls": {"tls_ca_directory": "/nonexistent/ca", "tls_certificates": [{"name": "default", "names": ["www.example.org"]}]},
    "waf": {},
    "nginx": {"nginx_sites": [SITE]},
    "postgresql": {
        "postgresql_roles": [{"name": "shop", "password": SECRET}],
        "postgresql_databases": [{"name": "shop", "owner": "shop"}],
    },
    "etcd": {"etcd_name": "db1", "etcd_members": MEMBERS, "etcd_tls": PEER_TLS},
    "patroni": {
        "patroni_name": "db1",
        "patroni_members": MEMBERS,
        "patroni_tls": PEER_TLS,
        "patroni_etcd_hosts": ["10.0.0.1:2379"],
        "patroni_postgresql_version": "17",
        "patroni_listen_addresses": ["127.0.0.1", "10.0.0.1"],
    },
    "pgbouncer": {
        "pgbouncer_servers": ["10.0.0.24"],
        "pgbouncer_tls_ca_file": "/etc/ssl/ca.pem",
        "pgbouncer_databases": ["shop"],
        "pgbouncer_users": [{"name": "shop", "password": SECRET}],
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


REDIS_SET: dict[str, Any] = {
    "redis_addresses": ["10.0.0.1"],
    "redis_members": ["10.0.0.1", "10.0.0.2", "10.0.0.3"],
    "redis_replication_password": SECRET,
    "redis_tls": {"certificate_file": "/c.pem", "key_file": "/k.pem", "ca_file": "/ca.pem", "key_group": "peers"},
}
NIGHT = {"days": ["sat", "sun"], "start": "23:00", "minutes": 120}
