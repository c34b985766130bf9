"""Logs: one JSON object a line on stdout, with the request id that nginx gave and that tasks carry on."""

from __future__ import annotations

import json
import logging
import logging.config
import re
import time
import uuid
from contextvars import ContextVar
from datetime import UTC, datetime

from flask import Flask, Response, g, request

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
task_id: ContextVar[str | None] = ContextVar("task_id", default=None)
task_name: ContextVar[str | None] = ContextVar("task_name", default=None)

_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# PostgreSQL may quote a whole row in an error's DETAIL, so a visitor's text too
_DATABASE_DETAIL = re.compile(r"^(DETAIL|CONTEXT): .*$", re.MULTILINE)
# fields that a caller may add with extra=
_EXTRA = ("method", "path", "status", "duration_ms", "report_id", "component", "count")
_CHATTY = ("celery.worker.strategy", "celery.app.trace")

access = logging.getLogger("textreport.access")


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
        }
        if task_id.get():
            line |= {"task_id": task_id.get(), "task_name": task_name.get()}
        line |= {name: record.__dict__[name] for name in _EXTRA if name in record.__dict__}
        if record.exc_info:
            line["exception"] = _DATABASE_DETAIL.sub(r"\1 removed", self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(level: str) -> None:
    """Send every log of this process to stdout as JSON; gunicorn's own loggers stay as they are."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"json": {"()": JSONFormatter}},
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "json",
                }
            },
            # two lines a task, heartbeats too; the tasks that matter log for themselves
            "loggers": {name: {"level": "WARNING"} for name in _CHATTY},
            "root": {"level": level, "handlers": ["stdout"]},
        }
    )
    logging.captureWarnings(True)


def new_request_id() -> str:
    """Return an id for work that no request began."""
    return uuid.uuid4().hex


def init_app(app: Flask) -> None:
    """Give each request an id, answer with it, and log one line a request."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.request_id = given if _VALID_REQUEST_ID.fullmatch(given) else new_request_id()
        g.started = time.monotonic()
        request_id.set(g.request_id)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        probe = request.endpoint in ("health.healthz", "health.readyz", "static")
        access.log(
            logging.DEBUG if probe and response.status_code < 400 else logging.INFO,
            "request",
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "duration_ms": round((time.monotonic() - g.started) * 1000, 1),
            },
        )
        return response

    @app.teardown_request
    def forget(_error: BaseException | None) -> None:
        request_id.set(None)
