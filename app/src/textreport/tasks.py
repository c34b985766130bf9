"""Celery tasks. Each may run twice, or be killed half-way, without harm."""

from __future__ import annotations

import logging
import time
import uuid
from datetime import UTC, datetime, timedelta

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Row, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from textreport.analysis import analyse
from textreport.cache import cache
from textreport.db import again, session
from textreport.models import HourlyTotal, Report, State
from textreport.queueing import DEFAULT
from textreport.reports import settings

MAX_ATTEMPTS = 5
RESEND_LIMIT = 500

log = logging.getLogger(__name__)


@shared_task(name="textreport.compute")
def compute(report_id: str) -> None:
    """Compute one report; a report that is finished already stays as it is."""
    key = uuid.UUID(report_id)
    extra = {"report_id": report_id}

    def start() -> Row[tuple[str, int, int]] | None:
        found = (
            session()
            .execute(
                update(Report)
                .where(Report.id == key, Report.state.in_([State.QUEUED, State.RUNNING]))
                .values(state=State.RUNNING, attempts=Report.attempts + 1)
                .returning(Report.text, Report.delay_seconds, Report.attempts)
            )
            .one_or_none()
        )
        session().commit()
        return found

    started = again(start)
    if started is None:
        log.info("report is finished or removed: nothing to do", extra=extra)
        return
    cache().forget_recent()
    if started.attempts > MAX_ATTEMPTS:
        log.error("gave up on report after %d attempts", MAX_ATTEMPTS, extra=extra)
        _finish(key, error=f"Gave up after {MAX_ATTEMPTS} attempts.")
        return
    log.info("report started, attempt %d", started.attempts, extra=extra)
    try:
        _drill(started.delay_seconds)
        result = analyse(started.text)
    except SoftTimeLimitExceeded:
        log.error("report took too long", extra=extra)
        _finish(key, error="The report took too long.")
        return
    _finish(key, result=result)
    log.info("report done", extra=extra)


def _finish(key: uuid.UUID, result: dict[str, object] | None = None, error: str | None = None) -> None:
    """Store the outcome, unless another run of the task stored one."""

    def store() -> None:
        session().execute(
            update(Report)
            .where(Report.id == key, Report.state.in_([State.QUEUED, State.RUNNING]))
            .values(
                state=State.FAILED if error else State.DONE,
                result=result,
                error=error,
                finished_at=func.now(),
            )
        )
        session().commit()

    again(store)
    cache().forget_recent()


def _drill(seconds: int) -> None:
    """Be slow, for drills that kill workers; the worker keeps telling that it lives."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        # The slowness itself, in steps short enough for the sign of life
        time.sleep(min(left, 5))
        cache().worker_answered(DEFAULT)


@shared_task(name="textreport.heartbeat")
def heartbeat() -> None:
    """Do nothing: that the task ran tells /readyz that a worker of its queue lives."""


@shared_task(name="textreport.resend_unfinished")
def resend_unfinished() -> None:
    """Queue again what was queued long ago and is not finished: its message may be lost."""
    overdue = (
        select(Report.id)
        .where(
            Report.state.in_([State.QUEUED, State.RUNNING]),
            Report.queued_at < func.now() - timedelta(seconds=settings().resend_after),
        )
        .order_by(Report.queued_at)
        .limit(RESEND_LIMIT)
        .with_for_update(skip_locked=True)
    )
    resent = (
        session()
        .execute(
            update(Report)
            .where(Report.id.in_(overdue))
            .values(state=State.QUEUED, queued_at=func.now())
            .returning(Report.id, Report.request_id)
        )
        .all()
    )
    session().commit()
    for report_id, request_id in resent:
        compute.apply_async((str(report_id),), headers={"request_id": request_id} if request_id else {})
        log.warning("report queued again", extra={"report_id": str(report_id)})


@shared_task(name="textreport.keep_hourly_totals")
def keep_hourly_totals() -> None:
    """Write the totals of the last day's hours anew: running twice gives the same rows."""
    hour = func.date_trunc("hour", Report.created_at, "UTC")
    since = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=23)
    totals = (
        select(
            hour.label("hour"),
            func.count(),
            func.count(case((Report.state == State.FAILED, 1))),
            func.sum(func.length(Report.text)),
        )
        .where(Report.created_at >= since)
        .group_by("hour")
    )
    columns = ["hour", "reports", "failed", "characters"]
    statement = insert(HourlyTotal).from_select(columns, totals)
    session().execute(
        statement.on_conflict_do_update(
            index_elements=["hour"], set_={name: statement.excluded[name] for name in columns[1:]}
        )
    )
    session().commit()


@shared_task(name="textreport.remove_old_reports")
def remove_old_reports() -> None:
    """Remove reports past their retention; their hourly totals stay."""
    limit = func.now() - timedelta(days=settings().retention_days)
    removed = session().execute(delete(Report).where(Report.created_at < limit).returning(Report.id)).all()
    session().commit()
    if removed:
        cache().forget_recent()
        log.info("old reports removed", extra={"count": len(removed)})
