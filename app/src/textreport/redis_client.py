"""Connections to Redis: to one server, or to the primary that Sentinel names."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

SCHEME = "sentinel://"
# What Sentinel calls the instances
BROKER, CACHE = "broker", "cache"
SENTINEL_PORT = 26379


class Closing(SentinelManagedConnection):
    """A connection that closes when an answer is late, as redis-py's own do without Sentinel.

    Kept open, it would give that answer to whoever asks next.
    """

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Return the next answer."""
        return super().read_response(*arguments, **{**options, "disconnect_on_error": True})


class ClosingTLS(Closing, SentinelManagedSSLConnection):
    """The same over TLS."""


@dataclass(frozen=True)
class Watched:
    """What sentinel://user:password@host:port/0;sentinel://... says: who watches, and the login to all."""

    sentinels: tuple[tuple[str, int], ...]
    username: str | None
    password: str | None = field(repr=False)
    database: int

    @classmethod
    def parse(cls, url: str) -> Watched:
        """Take a URL apart; raise ValueError where it is none."""
        parts = [urlsplit(part) for part in url.split(";")]
        if any(part.scheme != "sentinel" or not part.hostname for part in parts):
            raise ValueError(
                "expected sentinel://user:password@host:port/0, and more of them after semicolons"
            )
        first = parts[0]
        return cls(
            tuple((str(part.hostname), part.port or SENTINEL_PORT) for part in parts),
            unquote(first.username) if first.username else None,
            unquote(first.password) if first.password else None,
            int(first.path.strip("/") or 0),
        )

    def login(self) -> dict[str, Any]:
        """Return the login as options of a connection."""
        return {"username": self.username, "password": self.password}


def tls(ca_file: str) -> dict[str, Any]:
    """Return the options of a connection whose server must be known to this authority; none without one."""
    if not ca_file:
        return {}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": ca_file}


def once() -> Retry:
    """Return how a Sentinel is asked: redis-py tries one that is gone ten times by itself."""
    return Retry(NoBackoff(), 0)


def connect(url: str, name: str, ca_file: str, **options: Any) -> Redis:
    """Return a client; it connects at first use, and asks Sentinel anew for each connection."""
    if not url.startswith(SCHEME):
        return Redis.from_url(url, **options)
    watched = Watched.parse(url)
    secure: dict[str, Any] = {"ssl": True, **tls(ca_file)} if ca_file else {}
    patience: dict[str, Any] = {
        key: options[key] for key in ("socket_timeout", "socket_connect_timeout") if key in options
    }
    asking: dict[str, Any] = {**watched.login(), **secure, **patience, "retry": once()}
    sentinel: Any = Sentinel(watched.sentinels, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    kind = ClosingTLS if secure else Closing
    login = watched.login()
    primary: Redis = sentinel.master_for(
        name, db=watched.database, connection_class=kind, **login, **secure, **options
    )
    return primary
