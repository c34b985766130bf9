"""The database: one engine a process, one session a request or task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from flask import Flask, current_app, g
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

T = TypeVar("T")

KEY = "textreport.engine"
# A planned switchover takes two seconds
PATIENCE = 4.0
# cannot execute ... in a read-only transaction: by a server that led until a moment ago
READ_ONLY = "25006"


def init_app(app: Flask, url: str) -> None:
    """Make the engine (it connects at first use) and close each context's session."""
    app.extensions[KEY] = create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=1800,
        pool_timeout=10,
        # a visitor's text must not reach a log through an error message
        hide_parameters=True,
        connect_args={"connect_timeout": 2, "application_name": "textreport"},
    )

    @app.teardown_appcontext
    def close(_error: BaseException | None) -> None:
        session: Session | None = g.pop("session", None)
        if session is not None:
            try:
                session.close()
            except DBAPIError:
                # its connection is gone by now, after all that was asked of it
                session.invalidate()


def engine() -> Engine:
    """Return the current application's engine."""
    made: Engine = current_app.extensions[KEY]
    return made


def session() -> Session:
    """Return the session of this request or task."""
    if "session" not in g:
        g.session = Session(engine(), expire_on_commit=False)
    current: Session = g.session
    return current


def again(work: Callable[[], T]) -> T:
    """Return what `work` returns; do it again, for a few seconds, while the server hands over to another one.

    A commit whose answer was lost may have been done: `work` must come to the same end when it is done twice.
    """
    end = time.monotonic() + PATIENCE
    pause = 0.1
    while True:
        try:
            return work()
        except DBAPIError as error:
            session().rollback()
            read_only = getattr(error.orig, "sqlstate", None) == READ_ONLY
            if not (isinstance(error, OperationalError) or read_only) or time.monotonic() + pause > end:
                raise
            if read_only:
                # its connections are good, and lead to the wrong server
                engine().dispose()
        # the pause between two attempts
        time.sleep(pause)
        pause = min(pause * 2, 1.0)
