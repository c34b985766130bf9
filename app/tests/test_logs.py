"""Logs: JSON, with the request id, without texts and secrets.

Each test makes its own application: the log handler writes to the stdout that pytest captures then.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from tests.conftest import SECRET, MakeApp, https
from textreport.db import session
from textreport.models import Report


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what went to stdout, each line an object."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("given", ["5f3a9c01d2e84b67", "a.b_c-12345", "x" * 64])
def test_request_id_is_taken(make_app: MakeApp, capsys: pytest.CaptureFixture[str], given: str) -> None:
    """The id of nginx is in the answer and in every line of the request."""
    answer = https(make_app()).post(
        "/api/reports", json={"text": "zanzibar"}, headers={"X-Request-ID": given}
    )
    assert answer.headers["X-Request-ID"] == given
    logged = lines(capsys)
    assert {line["message"] for line in logged} == {"report queued", "request"}
    assert all(line["request_id"] == given for line in logged)
    assert {"time", "level", "logger", "message"} <= set(logged[0])
    assert "zanzibar" not in json.dumps(logged)


@pytest.mark.parametrize("given", ["short", "x" * 65, "with space in it", 'quote"injection', "ünïcödé-id"])
def test_bad_request_id_is_replaced(make_app: MakeApp, given: str) -> None:
    """What is no plain id does not reach logs or answers."""
    answer = https(make_app()).get("/version", headers={"X-Request-ID": given})
    assert len(answer.headers["X-Request-ID"]) == 32


def test_probes_are_quiet(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """A probe every few seconds does not fill the journal."""
    https(make_app()).get("/healthz")
    assert lines(capsys) == []


def test_unexpected_error(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """The visitor gets the request id and no detail; the log a traceback, but neither text nor secret."""
    app = make_app()

    @app.get("/api/boom")
    def boom() -> str:
        session().add(Report(text="zanzibar", state="wrong"))
        session().commit()
        return ""

    answer = https(app).get("/api/boom")
    assert answer.status_code == 500
    assert "wrong" not in str((answer.json or {})["error"])
    logged = lines(capsys)
    error = next(line for line in logged if line["level"] == "ERROR")
    assert IntegrityError.__name__ in error["exception"]
    assert error["request_id"] == answer.headers["X-Request-ID"]
    assert "zanzibar" not in json.dumps(logged)
    assert SECRET not in json.dumps(logged)


def test_warnings_are_logged(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> None:
    """A line is one line, whatever is in the message."""
    make_app()
    logging.getLogger("some.library").warning("two\nlines and ünïcödé")
    assert lines(capsys)[0]["message"] == "two\nlines and ünïcödé"
