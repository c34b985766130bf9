"""Liveness, readiness and version."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tests.conftest import SECRET, MakeApp, https
from textreport.cache import KEY as CACHE


def answered(app: Flask) -> FlaskClient:
    """Return a client of an application whose workers answered just now."""
    for queue in ("default", "maintenance"):
        app.extensions[CACHE].worker_answered(queue)
    return app.test_client()


def components(client: FlaskClient, status: int = 503) -> dict[str, dict[str, object]]:
    """Ask /readyz, within its time, and return its components."""
    started = time.monotonic()
    answer = client.get("/readyz")
    assert time.monotonic() - started < 3
    assert answer.status_code == status, answer.text
    assert answer.json is not None
    assert answer.json["ready"] is (status == 200)
    for secret in (SECRET, "password", "redis://", "postgresql"):
        assert secret not in answer.text
    found: dict[str, dict[str, object]] = answer.json["components"]
    assert set(found) == {"database", "broker", "cache", "worker"}
    # A component a line, for people who read it by curl
    assert sum('"ok":' in line for line in answer.text.splitlines()) == len(found)
    return found


def failed(client: FlaskClient) -> list[str]:
    """Return the names of the components that fail."""
    return [name for name, component in sorted(components(client).items()) if not component["ok"]]


def test_ready(app: Flask) -> None:
    """All is well: 200."""
    assert all(component["ok"] for component in components(answered(app), 200).values())


def test_worker_must_answer(app: Flask) -> None:
    """Both queues need a worker; the detail names the one that is silent."""
    app.extensions[CACHE].worker_answered("default")
    worker = components(app.test_client())["worker"]
    assert worker == {"ok": False, "detail": "no worker of maintenance answered within 45 seconds"}


@pytest.mark.parametrize(
    ("setting", "url", "expected"),
    [
        ("database_url", "postgresql://u:password@127.0.0.1:1/test", ["database"]),
        ("broker_url", "redis://u:password@127.0.0.1:1/0", ["broker"]),
        ("cache_url", "redis://u:password@127.0.0.1:1/0", ["cache", "worker"]),
    ],
)
def test_component_refuses(make_app: MakeApp, setting: str, url: str, expected: list[str]) -> None:
    """A component that is down is named, and nothing secret with it; the process itself lives."""
    client = answered(make_app(**{setting: url}))
    assert failed(client) == expected
    assert client.get("/healthz").json == {"status": "ok"}


@pytest.fixture(name="silent")
def fixture_silent() -> Iterator[str]:
    """Give a port that accepts and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_components_hang(make_app: MakeApp, silent: str) -> None:
    """Components that accept and never answer cost less than three seconds together, again and again."""
    redis = f"redis://u:password@{silent}/0"
    app = make_app(database_url=f"postgresql://u:password@{silent}/test", broker_url=redis, cache_url=redis)
    for _ in range(2):
        assert failed(app.test_client()) == ["broker", "cache", "database", "worker"]


@pytest.mark.parametrize(
    ("statement", "ready", "says"),
    [
        ("update alembic_version set version_num = '0000'", False, "at migration 0000, 0001 is needed"),
        ("delete from alembic_version", False, "at migration None, 0001 is needed"),
        ("alter table alembic_version rename to elsewhere", False, "no migration has run"),
        ("update alembic_version set version_num = '0009'", True, "newer than this release's 0001"),
    ],
)
def test_schema_revision(app: Flask, engine: Engine, statement: str, ready: bool, says: str) -> None:
    """An older schema is not ready; a newer one is, or a release would take the running one down."""
    client = answered(app)
    with engine.begin() as connection:
        connection.execute(text(statement))
    try:
        database = components(client, 200 if ready else 503)["database"]
    finally:
        with engine.begin() as connection:
            connection.execute(text("alter table if exists elsewhere rename to alembic_version"))
            connection.execute(text("delete from alembic_version"))
            connection.execute(text("insert into alembic_version values ('0001')"))
    assert database["ok"] is ready
    assert says in str(database["detail"])


def test_version(app: Flask) -> None:
    """The release id comes from the environment."""
    assert https(app).get("/version").json == {"release": "r-1"}
