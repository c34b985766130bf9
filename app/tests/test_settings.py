"""The environment: complete and right, or no start."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest
from sqlalchemy import create_engine, make_url

from textreport.settings import Settings, SettingsError, database_url

GOOD = {
    "TEXTREPORT_DATABASE_URL": "postgresql://app:hunter2secret@db/app",
    "TEXTREPORT_BROKER_URL": "redis://app:hunter2secret@broker:6379/0",
    "TEXTREPORT_CACHE_URL": "rediss://cache:6380",
    "TEXTREPORT_SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyz",
}


def test_defaults_and_driver() -> None:
    """The four required values suffice, and the driver is psycopg 3 whatever the URL says."""
    settings = Settings.from_environment(GOOD)
    assert settings.database_url == "postgresql+psycopg://app:hunter2secret@db/app"
    assert (settings.release_id, settings.trusted_proxies, settings.allow_delay) == ("unknown", 0, False)
    assert "hunter2secret" not in repr(settings)


def test_database_may_have_several_hosts() -> None:
    """PostgreSQL's library gets all of them, each with its port, and what it is to do with them."""
    options = "host=10.0.0.1,fd00::2&port=5432,5433&target_session_attrs=read-write"
    options += "&sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem"
    settings = Settings.from_environment(
        {**GOOD, "TEXTREPORT_DATABASE_URL": f"postgresql://app:hunter2secret@/app?{options}"}
    )
    _, arguments = create_engine(settings.database_url).dialect.create_connect_args(
        make_url(settings.database_url)
    )
    asked = psycopg.conninfo.conninfo_to_dict(**arguments)
    assert (asked["host"], str(asked["port"]), asked["dbname"]) == ("10.0.0.1,fd00::2", "5432,5433", "app")
    assert (asked["target_session_attrs"], asked["sslmode"], asked["sslrootcert"]) == (
        "read-write",
        "verify-full",
        "/etc/ssl/ca.pem",
    )


def test_every_problem_in_one_message() -> None:
    """An operator mends the whole file at once."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"TEXTREPORT_SECRET_KEY": "short", "TEXTREPORT_TRUSTED_PROXIES": "many"})
    message = str(caught.value)
    for name in ("DATABASE_URL", "BROKER_URL", "CACHE_URL"):
        assert f"TEXTREPORT_{name} is missing" in message
    assert "TEXTREPORT_SECRET_KEY is too short" in message
    assert "TEXTREPORT_TRUSTED_PROXIES must be a whole number from 0 to 10" in message


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("DATABASE_URL", "mysql://u:hunter2secret@h/d", "must begin with postgresql://"),
        ("DATABASE_URL", "postgresql://u:hunter2secret@h", "names no database"),
        ("DATABASE_URL", "hunter2secret", "is not a URL"),
        ("DATABASE_URL", "postgresql://u:p@h:hunter2secret/d", "is not a URL"),
        ("BROKER_URL", "amqp://u:hunter2secret@h", "must be a URL like redis://"),
        ("CACHE_URL", "redis:///hunter2secret", "must be a URL like redis://"),
        ("CACHE_URL", "redis://h:hunter2secret/0", "must be a URL like redis://"),
        ("BROKER_URL", "sentinel://u:hunter2secret@h:1;redis://h", "must be like sentinel://"),
        ("BROKER_URL", "sentinel://u:hunter2secret@h:port/0", "must be like sentinel://"),
        ("REDIS_CA_FILE", "/nowhere/hunter2secret", "must be the path of a file"),
        ("SECRET_KEY", "hunter2secret", "is too short"),
        ("SECRET_KEY", "change_me_" * 4 + "hunter2secret", "looks like a placeholder"),
        ("SECRET_KEY", "a" * 40, "looks like a placeholder"),
        ("SECRET_KEY_FALLBACKS", "0123456789abcdefghijklmnopqrstuvwxyz hunter2secret", "is too short"),
        ("LOG_LEVEL", "hunter2secret", "must be one of DEBUG"),
        ("RETENTION_DAYS", "0", "must be a whole number from 1"),
        ("TASK_TIME_LIMIT", "5", "must be a whole number from 20"),
        ("RESEND_AFTER", "9", "must be a whole number from 10"),
        ("ALLOW_DELAY", "hunter2secret", "must be true or false"),
    ],
)
def test_wrong_values_are_refused_and_not_shown(name: str, value: str, says: str) -> None:
    """The message names the variable and what is allowed, never the value."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({**GOOD, f"TEXTREPORT_{name}": value})
    assert f"TEXTREPORT_{name} {says}" in str(caught.value)
    assert "hunter2secret" not in str(caught.value)


def test_migrations_need_only_the_database() -> None:
    """Alembic starts with the database's URL alone."""
    assert database_url(GOOD).startswith("postgresql+psycopg://")
    with pytest.raises(SettingsError, match="TEXTREPORT_DATABASE_URL is missing"):
        database_url({})


def test_process_refuses_to_start() -> None:
    """The WSGI module ends with the message and no traceback."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TEXTREPORT_")}
    done = subprocess.run(
        [sys.executable, "-c", "import textreport.wsgi"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "has 4 problem(s)" in done.stderr
    assert "Traceback" not in done.stderr
