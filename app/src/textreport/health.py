"""What machines ask: does the process live, can it serve, which release is it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from flask import Blueprint, Flask, Response, current_app, jsonify
from flask.typing import ResponseReturnValue
from sqlalchemy import text

from textreport.cache import ANSWER_TTL, cache
from textreport.db import engine
from textreport.models import SCHEMA_REVISION
from textreport.queueing import QUEUES
from textreport.redis_client import BROKER, connect
from textreport.reports import settings

KEY = "textreport.health"
TIME_LIMIT = 2.5

blueprint = Blueprint("health", __name__)


class NotReadyError(Exception):
    """A component does not do its work; the message may be shown to anybody."""


def init_app(app: Flask) -> None:
    """Keep a few threads for the checks: one that hangs uses one up, and never more than these."""
    app.extensions[KEY] = ThreadPoolExecutor(max_workers=12, thread_name_prefix="readyz")
    app.register_blueprint(blueprint)


@blueprint.get("/healthz")
def healthz() -> ResponseReturnValue:
    """Say that the process answers; nothing else is asked, so a restart is the cure when this fails."""
    return jsonify(status="ok")


@blueprint.get("/version")
def version() -> ResponseReturnValue:
    """Tell the release."""
    return jsonify(release=settings().release_id)


@blueprint.get("/readyz")
def readyz() -> ResponseReturnValue:
    """Check every component at once, and answer within three seconds even where one hangs."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    pool: ThreadPoolExecutor = app.extensions[KEY]

    def run(check: Callable[[], str]) -> str:
        with app.app_context():
            return check()

    futures = {name: pool.submit(run, check) for name, check in CHECKS.items()}
    wait(futures.values(), timeout=TIME_LIMIT)
    components: dict[str, dict[str, object]] = {}
    for name, future in futures.items():
        if not future.done():
            future.cancel()
            components[name] = {"ok": False, "detail": f"no answer within {TIME_LIMIT} seconds"}
        elif error := future.exception():
            # only our own messages: a driver's may name hosts and users
            detail = str(error) if isinstance(error, NotReadyError) else f"failed: {type(error).__name__}"
            components[name] = {"ok": False, "detail": detail}
            app.logger.warning("not ready: %s", detail, extra={"component": name})
        else:
            components[name] = {"ok": True, "detail": future.result()}
    ready = all(component["ok"] for component in components.values())
    # A component a line, so that curl shows people what machines read
    lines = ",\n".join(
        f"  {json.dumps(name)}: {json.dumps(component)}" for name, component in components.items()
    )
    release = json.dumps(settings().release_id)
    body = f'{{"ready": {json.dumps(ready)}, "release": {release}, "components": {{\n{lines}\n}}}}\n'
    return Response(body, 200 if ready else 503, mimetype="application/json")


def _database() -> str:
    with engine().begin() as connection:
        connection.execute(text("set local statement_timeout = 2000"))
        if connection.scalar(text("select to_regclass('alembic_version')")) is None:
            raise NotReadyError(f"no migration has run, {SCHEMA_REVISION} is needed")
        found = connection.scalar(text("select max(version_num) from alembic_version"))
    # During a release or after a rollback the schema may be newer than this code: migrations only expand.
    if found is None or found < SCHEMA_REVISION:
        raise NotReadyError(f"at migration {found}, {SCHEMA_REVISION} is needed")
    newer = f", newer than this release's {SCHEMA_REVISION}" if found > SCHEMA_REVISION else ""
    return f"at migration {found}{newer}"


def _broker() -> str:
    current = settings()
    with connect(
        current.broker_url, BROKER, current.redis_ca_file, socket_timeout=2, socket_connect_timeout=2
    ) as redis:
        redis.ping()
    return "answers"


def _cache() -> str:
    cache().redis.ping()
    return "answers"


def _worker() -> str:
    answers = {queue: cache().last_answer(queue) for queue in QUEUES}
    silent = [queue for queue, seconds in answers.items() if seconds is None]
    if silent:
        raise NotReadyError(f"no worker of {', '.join(silent)} answered within {ANSWER_TTL} seconds")
    return ", ".join(f"{queue} answered {seconds} s ago" for queue, seconds in answers.items())


CHECKS: dict[str, Callable[[], str]] = {
    "database": _database,
    "broker": _broker,
    "cache": _cache,
    "worker": _worker,
}
