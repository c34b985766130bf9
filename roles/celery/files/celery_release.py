"""Celery's own command, with what a release needs that Celery does not do. It runs under the Python of the application's release.

    python -P celery_release.py --app shop.tasks:celery worker ...             Celery's command; unknown tasks are kept
    python -P celery_release.py probe shop.tasks:celery 60 default-blue@host   ends well once each worker has done a task
    python -P celery_release.py give-back shop.tasks:celery 330                gives the tasks kept for this release back; ends when no worker
                                                                               has lacked one of its tasks for so many seconds
    python -P celery_release.py count shop.tasks:celery                        prints how many tasks are kept

While two releases run side by side, and after a way back, a worker gets messages of tasks that only another release knows. Celery throws
them away. Here they are parked in a queue of their own, until no worker is left that does not know them.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
import uuid
from typing import Any

from celery import maybe_patch_concurrency

if __name__ == "__main__":
    # Pools of greenlets want it before anything else is imported
    maybe_patch_concurrency()

from celery import current_app, shared_task
from celery.__main__ import main as celery
from celery.app.defaults import NAMESPACES
from celery.app.utils import find_app
from celery.utils.log import get_logger
from celery.utils.nodenames import worker_direct
from celery.worker.consumer import Consumer
from kombu import Queue

PARKED = Queue("groundcrew.parked", routing_key="groundcrew.parked")
KEPT_PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode")
# Seconds within which a worker that takes tasks says which it knows
ANSWER = 2.0
log = get_logger("groundcrew")


def load(application: str) -> Any:
    """The application with all its tasks: whatever does not load is shown here, and at once."""
    app = find_app(application)
    app.loader.import_default_modules()
    app.finalize()
    return app


def publish(app: Any, message: Any, headers: dict[str, Any], exchange: str, routing_key: str, declare: list[Queue]) -> None:
    """Send a message on as it is, without reading it: its task is not known here. When it is due and when it expires stand in its headers."""
    with app.producer_or_acquire() as producer:
        producer.publish(
            # kombu unpacks a body as it comes in and leaves the header that says so, so it is packed again here
            message.body, compression=headers.pop("compression", None), content_type=message.content_type,
            content_encoding=message.content_encoding, headers=headers, exchange=exchange, routing_key=routing_key, declare=declare, retry=True,
            **{name: message.properties[name] for name in KEPT_PROPERTIES if name in message.properties},
        )  # fmt: skip


def park(consumer: Any, body: Any, message: Any, exc: Exception) -> None:
    """Instead of throwing it away. It is acknowledged once it is kept elsewhere: a crash in between keeps it twice, never not at all."""
    came = message.delivery_info
    headers = {**(message.headers or {}), "groundcrew_from": [came.get("exchange") or "", came.get("routing_key") or ""]}
    publish(consumer.app, message, headers, "", PARKED.name, [PARKED])
    log.warning("task %s is unknown to this release: parked in the queue %s", headers.get("task", "of an old protocol"), PARKED.name)
    message.ack()


def parked(app: Any) -> int:
    with app.connection_for_read() as connection, connection.channel() as channel:
        return int(PARKED(channel).queue_declare().message_count)


def bring_back(app: Any) -> int:
    """Give the parked tasks that this release knows back to their queues, leave the others, and say how many these are."""
    with app.connection_for_write() as connection, connection.channel() as channel:
        left = []
        # No more than there were: a worker that has not answered may park them again
        for _ in range(PARKED(channel).queue_declare().message_count):
            if (got := channel.basic_get(PARKED.name)) is None:
                break
            message = channel.message_to_python(got)
            headers = dict(message.headers)
            exchange, routing_key = headers.pop("groundcrew_from", ["", app.conf.task_default_queue])
            declare = [known for known in app.amqp.queues.values() if exchange and known.exchange.name == exchange]
            # Nothing goes to an exchange that this release has not, nor what it cannot unpack: both would be the end of it
            if headers.get("task") in app.tasks and bool(declare) == bool(exchange) and not message.errors:
                publish(app, message, headers, exchange, routing_key, declare)
                message.ack()
                print(f"task {headers['task']} is known to this release: back from the queue {PARKED.name}", flush=True)
            else:
                left.append(message)
        for message in left:
            message.requeue()
    if left:
        print(f"{len(left)} parked tasks are unknown to this release too", flush=True)
    return len(left)


def give_back(application: str, seconds: float) -> None:
    """Wait for the workers to go that do not know all tasks of this release: they would park them again. A worker that was told to stop
    takes tasks for a moment still, and others may run on hosts that know nothing of this one's slots, so the workers themselves are asked.
    One that does not answer, as a solo one that runs a task, may still park some: so it looks again until such a worker is gone, too."""
    app = load(application)
    known = {name for name in app.tasks if not name.startswith("celery.")}
    waiting: list[str] = []
    left, end = 0, time.monotonic() + seconds
    while True:
        # Comes back when the time for answers is over, hence no pause here. A name may be followed by settings of the task.
        answers = app.control.inspect(timeout=ANSWER).registered() or {}
        older = sorted(node for node, names in answers.items() if known - {name.split(" ")[0] for name in names})
        if older:
            end = time.monotonic() + seconds
            if older != waiting:
                print(f"waiting for the end of {', '.join(older)}: not all tasks of this release are known there", flush=True)
        else:
            if parked(app) != left:
                left = bring_back(app)
            if time.monotonic() >= end:
                break
        waiting = older


def count(application: str) -> None:
    """Say how many tasks are parked. A broker that is away is an error at once."""
    print(parked(find_app(application)))


@shared_task(name="groundcrew.probe", ignore_result=True)  # type: ignore[untyped-decorator]
def answer(reply: str, node: str) -> None:
    """Say that a process of this worker runs tasks, and of which release."""
    with current_app.producer_or_acquire() as producer:
        # To the queue itself: whoever binds it to an exchange, or makes it anew for a late answer, leaves a key in Redis
        done = {"node": node, "release": os.environ.get("RELEASE_ID", "")}
        producer.publish(done, serializer="json", exchange="", routing_key=reply, retry=True)


def probe(application: str, seconds: float, nodes: list[str]) -> int:
    """Have each worker do a task, by a queue that is its alone: it waits for what the worker has begun, and not for all that is queued."""
    app = load(application)
    end, waiting = time.monotonic() + seconds, set(nodes)
    reply = f"groundcrew.probe.{uuid.uuid4()}"
    queue_of_replies = Queue(reply, routing_key=reply, auto_delete=True)
    with app.connection_for_write() as connection, connection.SimpleQueue(queue_of_replies) as answers:
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
        # A second answer, as of a task that was delivered twice, would stay
        answers.clear()
        answers.queue.delete()
    if waiting:
        print(f"no task done within {seconds:g} s by {', '.join(sorted(waiting))}", flush=True)
    return int(bool(waiting))


def main() -> None:
    match sys.argv[1:]:
        case ["probe", application, seconds, *nodes]:
            sys.exit(probe(application, float(seconds), nodes))
        case ["give-back", application, seconds]:
            # Unwinds, so that the tasks in its hands are in the queue again at once
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            give_back(application, float(seconds))
        case ["count", application]:
            count(application)
        case arguments:
            if "soft_shutdown_timeout" not in NAMESPACES["worker"]:
                # Celery before 5.5 does not start with a setting that it does not know
                arguments = [one for one in arguments if not one.startswith("worker_soft_shutdown_timeout=")]
            sys.argv = ["celery", *arguments]
            Consumer.on_unknown_task = park
            celery()


if __name__ == "__main__":
    main()
