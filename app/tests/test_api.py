"""The JSON API, without a worker."""

from __future__ import annotations

import json
import socket
import time
import uuid

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from tests.conftest import MakeApp, https


def test_create_and_show(client: FlaskClient) -> None:
    """A text is taken and can be found where Location says; the text itself is not told."""
    made = client.post("/api/reports", json={"text": "Some words."})
    assert made.status_code == 202
    assert made.json is not None
    shown = client.get(made.headers["Location"])
    assert shown.json is not None
    assert shown.json["state"] == "queued"
    assert shown.headers["Cache-Control"] == "no-store"
    assert "Some words" not in made.text + shown.text
    listed = client.get("/api/reports").json
    assert listed is not None
    assert [report["id"] for report in listed["reports"]] == [made.json["id"]]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, ""),
        (b"[]", 400, "Send an object"),
        (b"{}", 400, "text is missing"),
        (b'{"text": "  "}', 400, "text is missing"),
        (b'{"text": 5}', 400, "text is missing"),
        (b'{"text": "a\\u0000b"}', 400, "NUL"),
        (b'{"text": "a\\ud800b"}', 400, "surrogate"),
        (json.dumps({"text": "x" * 100_001}).encode(), 413, "100,001 characters"),
        (b'{"text": "' + b"x" * 1_100_000 + b'"}', 413, "larger than"),
        (b'{"text": "a", "delay_seconds": 61}', 400, "from 0 to 60"),
        (b'{"text": "a", "delay_seconds": true}', 400, "from 0 to 60"),
    ],
)
def test_bad_input(client: FlaskClient, engine: Engine, body: bytes, status: int, says: str) -> None:
    """Each is refused as JSON with the request id, and nothing is stored."""
    answer = client.post("/api/reports", data=body, content_type="application/json")
    assert answer.status_code == status
    assert answer.json is not None
    assert says in answer.json["error"]
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from reports")) == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_other_types_are_refused(client: FlaskClient, kind: str) -> None:
    """What another site's form could send never reaches the API that asks for no CSRF token."""
    assert client.post("/api/reports", data='{"text": "a"}', content_type=kind).status_code == 415


def test_delay_needs_the_switch(make_app: MakeApp) -> None:
    """Nobody can keep the workers of a normal installation busy."""
    answer = https(make_app(allow_delay="false")).post("/api/reports", json={"text": "a", "delay_seconds": 1})
    assert answer.status_code == 400


def test_errors_are_json(client: FlaskClient) -> None:
    """Unknown report, unknown path, wrong method."""
    for path in (f"/api/reports/{uuid.uuid4()}", "/api/nothing"):
        answer = client.get(path)
        assert (answer.status_code, answer.mimetype) == (404, "application/json")
    answer = client.delete("/api/reports")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_broker_refuses(make_app: MakeApp, engine: Engine) -> None:
    """The visitor gets a clear 503 at once, and no row waits for a worker that was never told."""
    started = time.monotonic()
    answer = https(make_app(broker_url="redis://127.0.0.1:1/0")).post("/api/reports", json={"text": "a"})
    assert answer.status_code == 503
    assert answer.json is not None
    assert "not queued" in answer.json["error"]
    assert time.monotonic() - started < 5
    with engine.connect() as connection:
        row = connection.execute(text("select state, error, finished_at is null from reports")).one()
    assert tuple(row) == ("failed", "The queue was unavailable.", False)


def test_broker_hangs(make_app: MakeApp) -> None:
    """A broker that accepts and never answers does not hold the visitor for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        started = time.monotonic()
        answer = https(make_app(broker_url=f"redis://127.0.0.1:{port}/0")).post(
            "/api/reports", json={"text": "a"}
        )
        assert answer.status_code == 503
        assert time.monotonic() - started < 15


def test_without_a_cache(make_app: MakeApp) -> None:
    """Everything but speed is the same when the cache is down."""
    client = https(make_app(cache_url="redis://127.0.0.1:1/0"))
    assert client.post("/api/reports", json={"text": "a"}).status_code == 202
    listed = client.get("/api/reports").json
    assert listed is not None
    assert len(listed["reports"]) == 1


def test_list_is_cached_and_forgotten_on_change(client: FlaskClient, engine: Engine) -> None:
    """The list comes from the cache until a report changes."""
    client.post("/api/reports", json={"text": "a"})
    client.get("/api/reports")
    with engine.begin() as connection:
        connection.execute(text("delete from reports"))
    kept = client.get("/api/reports").json
    client.post("/api/reports", json={"text": "b"})
    fresh = client.get("/api/reports").json
    assert kept is not None
    assert fresh is not None
    assert len(kept["reports"]) == len(fresh["reports"]) == 1
    assert kept != fresh
