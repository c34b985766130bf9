"""What can be done with reports; the pages, the API and the tasks share it."""

from __future__ import annotations

import logging
import uuid
from typing import Any

from celery.exceptions import CeleryError
from flask import current_app, url_for
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy import func, select

from textreport import logs
from textreport.cache import cache
from textreport.db import again, session
from textreport.models import Report, State
from textreport.queueing import publish
from textreport.settings import Settings

RECENT = 20
MAX_DELAY = 60

log = logging.getLogger(__name__)


class InvalidTextError(ValueError):
    """The text cannot be taken; `status` is the HTTP status that says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class QueueUnavailableError(Exception):
    """The broker does not take the task: nothing will compute the report."""


def settings() -> Settings:
    """Return the current application's settings."""
    current: Settings = current_app.config["SETTINGS"]
    return current


def check_text(text: object) -> str:
    """Return the text when it can be stored, else raise InvalidTextError."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidTextError("The text is missing: send at least one word.")
    limit = settings().max_text_length
    if len(text) > limit:
        raise InvalidTextError(f"The text is too long: {len(text):,} characters, at most {limit:,}.", 413)
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidTextError("The text holds characters that are no text (NUL or half a surrogate pair).")
    return text


def check_delay(delay: object) -> int:
    """Return the drill delay in seconds; only an installation that allows it takes any but 0."""
    if delay in (None, 0):
        return 0
    if not settings().allow_delay:
        raise InvalidTextError("delay_seconds is for drills: this installation does not allow it.")
    longest = min(MAX_DELAY, settings().task_time_limit - 10)
    if isinstance(delay, bool) or not isinstance(delay, int) or not 0 <= delay <= longest:
        raise InvalidTextError(f"delay_seconds must be a whole number from 0 to {longest}.")
    return delay


def create(text: str, delay_seconds: int = 0) -> Report:
    """Store the report, then queue its task; where the broker fails, mark it failed and raise.

    The row is committed first, so that a worker never looks for a row that is not there yet. A process that
    dies between the two leaves a row that the beat task resend_unfinished queues again.
    """
    from textreport import tasks  # tasks use this module too

    key = uuid.uuid4()

    def store() -> Report:
        # merged, so that it may be done twice
        made = session().merge(
            Report(id=key, text=text, delay_seconds=delay_seconds, request_id=logs.request_id.get())
        )
        session().commit()
        return made

    report = again(store)
    try:
        publish(tasks.compute, str(report.id))
    except (KombuError, CeleryError, RedisError, OSError) as error:
        reason = type(error.__cause__ or error).__name__
        log.error("broker unavailable: %s", reason, extra={"report_id": str(report.id)})
        report.state = State.FAILED
        report.error = "The queue was unavailable."
        report.finished_at = func.now()
        session().commit()
        raise QueueUnavailableError from error
    finally:
        cache().forget_recent()
    log.info("report queued", extra={"report_id": str(report.id)})
    return report


def find(report_id: uuid.UUID) -> Report | None:
    """Return one report."""
    return again(lambda: session().get(Report, report_id))


def recent() -> list[dict[str, Any]]:
    """Return the newest reports, from the cache where it has them."""

    def read() -> list[dict[str, Any]]:
        newest = session().scalars(select(Report).order_by(Report.created_at.desc()).limit(RECENT))
        return [summary(report) for report in newest]

    return cache().recent(lambda: again(read))


def summary(report: Report) -> dict[str, Any]:
    """Return what a list shows of a report; never the text."""
    return {
        "id": str(report.id),
        "state": str(report.state),
        "created_at": report.created_at.isoformat(timespec="seconds"),
        "words": (report.result or {}).get("words"),
    }


def view(report: Report) -> dict[str, Any]:
    """Return all that the API tells of a report."""
    return {
        "id": str(report.id),
        "state": str(report.state),
        "created_at": report.created_at.isoformat(),
        "finished_at": report.finished_at.isoformat() if report.finished_at else None,
        "request_id": report.request_id,
        "error": report.error,
        "result": report.result,
        "links": {
            "self": url_for("api.show", report_id=report.id),
            "page": url_for("pages.show", report_id=report.id),
        },
    }
