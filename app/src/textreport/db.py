"""The database: one engine a process, one session a request or task."""

from __future__ import annotations

from flask import Flask, current_app, g
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

KEY = "textreport.engine"


def init_app(app: Flask, url: str) -> None:
    """Make the engine (it connects at first use) and close each context's session."""
    app.extensions[KEY] = create_engine(
        url,
        pool_pre_ping=True,
        pool_recycle=1800,
        pool_timeout=10,
        # a visitor's text must not reach a log through an error message
        hide_parameters=True,
        connect_args={"connect_timeout": 3, "application_name": "textreport"},
    )

    @app.teardown_appcontext
    def close(_error: BaseException | None) -> None:
        session: Session | None = g.pop("session", None)
        if session is not None:
            session.close()


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
