"""Celery's own command, with what a release needs that Celery does not do. It runs under the Python of the application's release.

    python -P celery_release.py --app shop.tasks:celery worker ...             Celery's command; unknown tasks are kept
    python -P celery_release.py probe shop.tasks:celery 60 default-blue@host   ends well once each worker has done a task

While two releases run side by side, and after a way back, a worker gets messages of tasks that only another release knows. Celery throws
them away. Here they are parked in a queue of their own, and go back to theirs when a worker starts that knows them.
"""

from __future__ import annotations

import os
import queue
import sys
import time
import uuid
from typing import Any

from celery import maybe_patch_concurrency

if __name__ == "__main__":
    # Pools of greenlets want it before anything else is imported
    maybe_patch_concurrency()

from celery import current_app, shared_task, signals
from celery.__main__ import main as celery
from celery.app.utils import find_app
from celery.utils.log import get_logger
from celery.utils.nodenames import worker_direct
from celery.worker.consumer import Consumer
from kombu import Queue

PARKED = "groundcrew.parked"
log = get_logger("groundcrew")


def publish(app: Any, message: Any, headers: dict[str, Any], exchange: str, routing_key: str, declare: list[Queue]) -> None:
    """Send a message on as it is, without reading it: its task is not known here."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            message.body, content_type=message.content_type, content_encoding=message.content_encoding, headers=headers,
            exchange=exchange, routing_key=routing_key, declare=declare, retry=True,
            **{name: message.properties[name] for name in ("correlation_id", "reply_to", "priority") if name in message.properties},
        )  # fmt: skip


def park(consumer: Any, body: Any, message: Any, exc: Exception) -> None:
    """Instead of throwing it away. It is acknowledged once it is kept elsewhere: a crash in between keeps it twice, never not at all."""
    came = message.delivery_info
    headers = {**(message.headers or {}), "groundcrew_from": [came.get("exchange") or "", came.get("routing_key") or ""]}
    publish(consumer.app, message, headers, "", PARKED, [Queue(PARKED, routing_key=PARKED)])
    log.warning("task %s is unknown to this release: parked in the queue %s", headers.get("task", "of an old protocol"), PARKED)
    message.ack()


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def bring_back(sender: Any, **_: Any) -> None:
    """Give the parked tasks that this release knows back to their queues."""
    app = sender.app
    with app.connection_for_write() as connection, connection.channel() as channel:
        parked = Queue(PARKED, routing_key=PARKED)(channel)
        parked.declare()
        unknown = []
        while message := parked.get():
            headers = dict(message.headers)
            exchange, routing_key = headers.pop("groundcrew_from", ["", app.conf.task_default_queue])
            if headers.get("task") in app.tasks:
                publish(app, message, headers, exchange, routing_key, [])
                message.ack()
                log.info("task %s is known to this release: back from the queue %s", headers["task"], PARKED)
            else:
                unknown.append(message)
        for message in unknown:
            message.requeue()


@shared_task(name="groundcrew.probe", ignore_result=True)  # type: ignore[untyped-decorator]
def answer(reply: str, node: str) -> None:
    """Say that a process of this worker runs tasks, and of which release."""
    with current_app.connection_for_write() as connection, connection.SimpleQueue(reply) as answers:
        answers.put({"node": node, "release": os.environ.get("RELEASE_ID", "")})


def probe(application: str, seconds: float, nodes: list[str]) -> int:
    """Have each worker do a task, by a queue that is its alone: however long the others are, it takes this one next."""
    app = find_app(application)
    # Whatever does not load is shown here, and at once
    app.loader.import_default_modules()
    app.finalize()
    reply, end, waiting = f"groundcrew.probe.{uuid.uuid4()}", time.monotonic() + seconds, set(nodes)
    with app.connection_for_write() as connection, connection.SimpleQueue(reply) as answers:
        for node in nodes:
            app.send_task("groundcrew.probe", args=[reply, node], queue=worker_direct(node), expires=seconds, ignore_result=True)
        while waiting and (left := end - time.monotonic()) > 0:
            try:
                message = answers.get(timeout=left)
            except queue.Empty:
                break
            message.ack()
            waiting.discard(message.payload["node"])
            print(f"{message.payload['node']} runs tasks of release {message.payload['release']}", flush=True)
    if waiting:
        print(f"no task done within {seconds:g} s by {', '.join(sorted(waiting))}", flush=True)
    return int(bool(waiting))


if __name__ == "__main__":
    if sys.argv[1:2] == ["probe"]:
        sys.exit(probe(sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
    Consumer.on_unknown_task = park
    sys.argv[0] = "celery"
    sys.exit(celery())
