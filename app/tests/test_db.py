"""Work that is done again while the database hands over; the faults are the server's own."""

from __future__ import annotations

import pytest
from flask import Flask
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, InternalError

from textreport import db, reports


def test_a_lost_connection_is_made_again(app: Flask) -> None:
    """Catches a visitor who pays for a server that restarts."""
    attempts: list[int] = []

    def work() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            db.session().execute(text("select pg_terminate_backend(pg_backend_pid())"))
        return int(db.session().scalar(text("select 7")) or 0)

    with app.app_context():
        assert db.again(work) == 7
    assert len(attempts) == 2


def test_a_server_that_leads_no_more_is_left(app: Flask) -> None:
    """Catches a pool that goes on with its connections to a server that takes no writes."""
    attempts: list[int] = []

    def work() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            db.session().execute(text("set default_transaction_read_only = on"))
            db.session().commit()
        db.session().execute(text("delete from hourly_totals"))
        db.session().commit()
        return "done"

    with app.app_context():
        assert db.again(work) == "done"
    assert len(attempts) == 2


def test_what_stays_wrong_is_given_up(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches mistakes that are tried over and over, and an end that never comes."""
    monkeypatch.setattr(db, "PATIENCE", 0.5)
    attempts: list[str] = []

    def mistake() -> None:
        attempts.append("mistake")
        db.session().execute(text("insert into reports (id) values (null)"))

    def read_only() -> None:
        attempts.append("read only")
        db.session().execute(text("set transaction read only"))
        db.session().execute(text("delete from hourly_totals"))

    with app.app_context():
        with pytest.raises(IntegrityError):
            db.again(mistake)
        with pytest.raises(InternalError):
            db.again(read_only)
    assert attempts.count("mistake") == 1
    assert 1 < attempts.count("read only") < 5


@pytest.mark.usefixtures("clean")
def test_a_commit_whose_answer_is_lost_is_done_once(app: Flask) -> None:
    """Catches a report that is stored twice, and one that a second attempt refuses."""
    commits: list[int] = []

    with app.test_request_context():

        @event.listens_for(db.engine(), "commit")
        def lose_the_answer(connection: Connection) -> None:
            commits.append(1)
            if len(commits) == 1:
                raw = connection.connection.dbapi_connection
                assert raw is not None
                raw.commit()
                connection.execute(text("select pg_terminate_backend(pg_backend_pid())"))

        report = reports.create("Once.")
        event.remove(db.engine(), "commit", lose_the_answer)
        assert len(commits) > 1
        stored = db.session().execute(text("select id::text, text from reports")).all()
        assert [tuple(row) for row in stored] == [(str(report.id), "Once.")]


def test_a_connection_that_is_lost_after_the_answer_costs_nothing(app: Flask) -> None:
    """Catches an answer that becomes an error because the server leaves before the session ends."""
    with app.app_context():
        backend = db.session().scalar(text("select pg_backend_pid()"))
        with db.engine().connect() as other:
            other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": backend})
    with app.app_context():
        assert db.session().scalar(text("select 7")) == 7
