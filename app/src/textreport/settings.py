"""Settings, read once from the environment and checked as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from textreport.redis_client import SCHEME, Watched

T = TypeVar("T")

PREFIX = "TEXTREPORT_"
SECRET_KEY_LENGTH = 32
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
PLACEHOLDERS = ("change", "example", "placeholder", "secret", "xxx", "todo", "insert")


class SettingsError(SystemExit):
    """The environment is incomplete or wrong: the message lists every problem, and no value of a secret."""

    def __init__(self, problems: list[str]) -> None:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"textreport cannot start, its environment has {len(problems)} problem(s):\n{lines}")


@dataclass(frozen=True)
class Settings:
    """Everything that differs between installations. Secrets are kept out of repr()."""

    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)
    cache_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    # other keys whose signatures count too, while a new one takes over
    secret_key_fallbacks: tuple[str, ...] = field(default=(), repr=False)
    release_id: str = "unknown"
    log_level: str = "INFO"
    trusted_proxies: int = 0
    retention_days: int = 30
    max_text_length: int = 100_000
    task_time_limit: int = 75
    resend_after: int = 300
    allow_delay: bool = False
    # what signed the certificates of Sentinel and of what it watches; a URL of rediss:// names its own
    redis_ca_file: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check TEXTREPORT_* and RELEASE_ID; raise SettingsError with all problems at once."""
        reader = _Reader(os.environ if environ is None else environ)
        settings = cls(
            database_url=reader.required("DATABASE_URL", _database_url),
            broker_url=reader.required("BROKER_URL", _redis_url),
            cache_url=reader.required("CACHE_URL", _redis_url),
            secret_key=reader.required("SECRET_KEY", _secret_key),
            secret_key_fallbacks=reader.optional("SECRET_KEY_FALLBACKS", _secret_keys, ()),
            release_id=reader.environ.get("RELEASE_ID") or "unknown",
            log_level=reader.optional("LOG_LEVEL", _log_level, "INFO"),
            trusted_proxies=reader.optional("TRUSTED_PROXIES", _integer(0, 10), 0),
            retention_days=reader.optional("RETENTION_DAYS", _integer(1, 3650), 30),
            max_text_length=reader.optional("MAX_TEXT_LENGTH", _integer(100, 1_000_000), 100_000),
            task_time_limit=reader.optional("TASK_TIME_LIMIT", _integer(20, 3600), 75),
            resend_after=reader.optional("RESEND_AFTER", _integer(10, 86_400), 300),
            allow_delay=reader.optional("ALLOW_DELAY", _boolean, False),
            redis_ca_file=reader.optional("REDIS_CA_FILE", _file, ""),
        )
        if reader.problems:
            raise SettingsError(reader.problems)
        return settings


def database_url(environ: Mapping[str, str] | None = None) -> str:
    """Return the database URL alone: all that a migration needs."""
    reader = _Reader(os.environ if environ is None else environ)
    url = reader.required("DATABASE_URL", _database_url)
    if reader.problems:
        raise SettingsError(reader.problems)
    return url


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.problems: list[str] = []

    def required(self, name: str, parse: Callable[[str], str]) -> str:
        if not self.environ.get(PREFIX + name):
            self.problems.append(f"{PREFIX}{name} is missing")
            return ""
        return self.optional(name, parse, "")

    def optional(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self.environ.get(PREFIX + name)
        if not value:
            return default
        try:
            return parse(value)
        except ValueError as error:
            # the parsers' messages never hold the value
            self.problems.append(f"{PREFIX}{name} {error}")
            return default


def _database_url(value: str) -> str:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError("is not a URL: expected postgresql://user:password@host:port/database") from None
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ValueError("must begin with postgresql:// (the driver is psycopg 3)")
    if not url.database:
        raise ValueError("names no database: expected postgresql://user:password@host:port/database")
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _redis_url(value: str) -> str:
    if value.startswith(SCHEME):
        try:
            Watched.parse(value)
        except ValueError:
            raise ValueError(
                "must be like sentinel://user:password@host:port/0;sentinel://host:port/0"
            ) from None
        return value
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("redis", "rediss") or not url.host:
        raise ValueError(
            "must be a URL like redis://user:password@host:port/0 (or rediss://, or sentinel://)"
        )
    return value


def _file(value: str) -> str:
    if not Path(value).is_file():
        raise ValueError("must be the path of a file that is there")
    return value


def _secret_key(value: str) -> str:
    if len(value) < SECRET_KEY_LENGTH:
        raise ValueError(f"is too short: at least {SECRET_KEY_LENGTH} random characters")
    if len(set(value)) < 10 or value.lower().startswith(PLACEHOLDERS):
        raise ValueError(f"looks like a placeholder: at least {SECRET_KEY_LENGTH} random characters")
    return value


def _secret_keys(value: str) -> tuple[str, ...]:
    """Keys with spaces between them."""
    return tuple(_secret_key(key) for key in value.split())


def _log_level(value: str) -> str:
    if value.upper() not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return value.upper()


def _boolean(value: str) -> bool:
    if value.lower() in ("true", "1", "yes", "on"):
        return True
    if value.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")


def _integer(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        message = f"must be a whole number from {lowest} to {highest}"
        try:
            number = int(value)
        except ValueError:
            raise ValueError(message) from None
        if not lowest <= number <= highest:
            raise ValueError(message)
        return number

    return parse
