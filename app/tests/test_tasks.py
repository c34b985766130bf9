"""Tasks, called in this process: what they leave in the database."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, Row, text

from textreport import tasks


@pytest.fixture(name="context", autouse=True)
def fixture_context(app: Flask) -> Iterator[None]:
    """Run the tasks in the application's context, as FlaskTask does."""
    with app.app_context():
        yield


def add(engine: Engine, **columns: object) -> str:
    """Insert a report; values are SQL expressions."""
    key = str(uuid.uuid4())
    values = {"id": f"'{key}'", "text": "'one two'", **columns}
    with engine.begin() as connection:
        # Expressions cannot be bound parameters; both come from the tests themselves
        names, expressions = ", ".join(values), ", ".join(str(value) for value in values.values())
        connection.execute(text(f"insert into reports ({names}) values ({expressions})"))  # noqa: S608
    return key


def row(engine: Engine, query: str = "select state, error, attempts, finished_at from reports") -> Row[Any]:
    """Return the only row."""
    with engine.connect() as connection:
        return connection.execute(text(query)).one()


def test_compute_twice_is_harmless(engine: Engine) -> None:
    """A message that is delivered again changes nothing."""
    key = add(engine)
    tasks.compute(key)
    first = row(engine)
    assert first.state == "done"
    tasks.compute(key)
    assert row(engine) == first


def test_compute_after_a_kill(engine: Engine) -> None:
    """A report left running by a killed worker is computed again."""
    tasks.compute(add(engine, state="'running'", attempts=1))
    assert (row(engine).state, row(engine).attempts) == ("done", 2)


def test_compute_gives_up(engine: Engine) -> None:
    """A text that kills its workers does not do so for ever."""
    tasks.compute(add(engine, state="'running'", attempts=5))
    assert (row(engine).state, row(engine).error) == ("failed", "Gave up after 5 attempts.")


def test_compute_takes_too_long(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft time limit ends as a failed report."""

    def slow(_text: str) -> None:
        raise SoftTimeLimitExceeded

    monkeypatch.setattr(tasks, "analyse", slow)
    tasks.compute(add(engine))
    assert (row(engine).state, row(engine).error) == ("failed", "The report took too long.")


def test_compute_of_a_removed_report(engine: Engine) -> None:
    """A task whose report is gone does nothing."""
    tasks.compute(str(uuid.uuid4()))


def test_resend(engine: Engine, client: FlaskClient, environ: dict[str, str]) -> None:
    """A row whose message was lost is queued again, once; recent and finished rows are left alone."""
    from redis import Redis

    long_ago = "now() - interval '6 minutes'"
    overdue = [add(engine, queued_at=long_ago), add(engine, queued_at=long_ago, state="'running'")]
    add(engine)
    add(engine, queued_at=long_ago, state="'done'")
    tasks.resend_unfinished()
    tasks.resend_unfinished()
    with Redis.from_url(environ["TEXTREPORT_BROKER_URL"], decode_responses=True) as redis:
        messages = redis.lrange("default", 0, -1)
    assert len(messages) == 2
    assert all(any(key in message for message in messages) for key in overdue)


def test_hourly_totals(engine: Engine) -> None:
    """Totals are the same however often they are computed, and outlive the reports."""
    hour = "date_trunc('hour', now())"
    add(engine, created_at=hour, state="'done'")
    add(engine, created_at=hour, state="'failed'", text="'four'")
    tasks.keep_hourly_totals()
    tasks.keep_hourly_totals()
    with engine.begin() as connection:
        connection.execute(text("delete from reports"))
    tasks.keep_hourly_totals()
    assert tuple(row(engine, "select reports, failed, characters from hourly_totals")) == (2, 1, 11)


def test_old_reports_are_removed(engine: Engine) -> None:
    """Only those past their retention."""
    add(engine, created_at="now() - interval '31 days'")
    kept = add(engine, created_at="now() - interval '29 days'")
    tasks.remove_old_reports()
    assert str(row(engine, "select id from reports").id) == kept


def test_every_beat_task_exists(app: Flask) -> None:
    """A typing error in the schedule would only show in production."""
    celery = app.extensions["celery"]
    celery.loader.import_default_modules()
    assert {entry["task"] for entry in celery.conf.beat_schedule.values()} <= set(celery.tasks)
