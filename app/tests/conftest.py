"""Fixtures: a migrated PostgreSQL, two Redis databases and a real worker; nothing is mocked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import Engine, create_engine, inspect, text

from textreport import create_app, db
from textreport.cache import KEY as CACHE
from textreport.settings import Settings

ROOT = Path(__file__).parents[1]
SECRET = "k3yF0rTests-9f8e7d6c5b4a39281706f5e4"
MARK = "made_by_tests"  # a schema that tells a test database from a real one
SERVICES = {"DATABASE_URL": "PostgreSQL", "BROKER_URL": "Redis", "CACHE_URL": "Redis (another database)"}

MakeApp = Callable[..., Flask]


def environment() -> dict[str, str]:
    """Return the environment that the application is tested in."""
    missing = [
        f"TEST_{name} ({kind})" for name, kind in SERVICES.items() if not os.environ.get(f"TEST_{name}")
    ]
    if missing:
        pytest.exit(f"The tests need real services: set {', '.join(missing)}. See app/README.md.", 2)
    urls = {f"TEXTREPORT_{name}": os.environ[f"TEST_{name}"] for name in SERVICES}
    return {**urls, "TEXTREPORT_SECRET_KEY": SECRET, "TEXTREPORT_ALLOW_DELAY": "true", "RELEASE_ID": "r-1"}


@pytest.fixture(scope="session", name="environ")
def fixture_environ() -> dict[str, str]:
    """Give the environment as a fixture."""
    return environment()


@pytest.fixture(scope="session", name="alembic_config")
def fixture_alembic_config(environ: dict[str, str]) -> Iterator[Config]:
    """Configure Alembic as an operator does: by alembic.ini and the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTREPORT_DATABASE_URL", environ["TEXTREPORT_DATABASE_URL"])
        yield Config(str(ROOT / "alembic.ini"))


@pytest.fixture(scope="session", name="engine")
def fixture_engine(environ: dict[str, str], alembic_config: Config) -> Iterator[Engine]:
    """Give a database that the migrations have built from nothing."""
    engine = create_engine(Settings.from_environment(environ).database_url)
    with engine.begin() as connection:
        found = inspect(connection)
        if found.get_table_names() and MARK not in found.get_schema_names():
            pytest.exit("TEST_DATABASE_URL names a database with tables that no test made: not touched.", 2)
        connection.execute(text(f"create schema if not exists {MARK}"))
        connection.execute(text("drop table if exists alembic_version, reports, hourly_totals"))
    command.upgrade(alembic_config, "head")
    yield engine
    engine.dispose()


@pytest.fixture(name="clean")
def fixture_clean(environ: dict[str, str], engine: Engine) -> None:
    """Empty the tables, the queues and the cache."""
    with engine.begin() as connection:
        connection.execute(text("truncate reports, hourly_totals"))
    for name, patterns in {
        "BROKER": ("default", "maintenance", "unacked*", "_kombu*"),
        "CACHE": ("textreport:*",),
    }.items():
        with Redis.from_url(environ[f"TEXTREPORT_{name}_URL"]) as redis:
            for pattern in patterns:
                for key in redis.scan_iter(pattern):
                    redis.delete(key)


@pytest.fixture(name="make_app")
def fixture_make_app(environ: dict[str, str], clean: None) -> Iterator[MakeApp]:
    """Give a factory of applications whose settings differ; the last one made sends the tasks."""
    made: list[Flask] = []

    def make(**different: str) -> Flask:
        changed = {f"TEXTREPORT_{name.upper()}": value for name, value in different.items()}
        made.append(create_app(Settings.from_environment({**environ, **changed})))
        return made[-1]

    yield make
    for app in made:
        app.extensions[db.KEY].dispose()
        app.extensions[CACHE].redis.close()
        app.extensions["celery"].close()


@pytest.fixture(name="app")
def fixture_app(make_app: MakeApp) -> Flask:
    """Give the application."""
    return make_app()


@pytest.fixture(name="client")
def fixture_client(app: Flask) -> FlaskClient:
    """Give a browser without JavaScript, over HTTPS (the session cookie is Secure)."""
    return https(app)


def https(app: Flask) -> FlaskClient:
    """Return a client of this application that speaks HTTPS."""
    client = app.test_client()
    client.environ_base["wsgi.url_scheme"] = "https"
    client.environ_base["HTTP_HOST"] = "localhost"
    return client


class Worker:
    """A Celery worker as systemd would start it, with a process group of its own and its log in a file."""

    def __init__(self, environ: dict[str, str], log: Path) -> None:
        self.log = log
        options = ["-Q", "default,maintenance", "-c", "1", "--without-mingle", "--without-gossip"]
        with log.open("w") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "textreport.celery_app:celery", "worker", *options],
                env={**os.environ, **environ},
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def children(self) -> list[int]:
        """Return the process ids of its pool."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in tasks.read_text().split()]

    def stop(self) -> None:
        """Stop it warmly, at last by force."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module", name="worker")
def fixture_worker(
    environ: dict[str, str], engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Worker]:
    """Start a real worker, once for the module: starting it is what takes time."""
    worker = Worker(environ, tmp_path_factory.mktemp("worker") / "worker.log")
    yield worker
    worker.stop()


def wait_for(found: Callable[[], Any], seconds: float = 30) -> Any:
    """Return what `found` returns as soon as it is true; fail after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        # Between two questions; the bound is in the condition
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {found.__name__}")
