"""Tasks that leave marks on the disk: begun when they begin, done when they end, beat when the schedule says."""

import os
import time
from pathlib import Path

from celery import Celery

if os.environ.get("BREAK"):
    raise RuntimeError("broken on purpose")

MARKS = Path("/srv/probe/shared")

celery = Celery("probe", broker=os.environ["BROKER_URL"])
celery.conf.update(
    task_ignore_result=True,
    task_default_queue="default",
    task_routes={"tasks.maintain": {"queue": "maintenance"}},
    # short, so that a killed worker's task is soon delivered again; kombu's defaults look for such tasks every 100 s
    broker_transport_options={"visibility_timeout": 15, "unacked_restore_interval": 2, "unacked_restore_throttle": 1},
    beat_schedule={"beat": {"task": "tasks.mark", "schedule": 2.0, "args": ("beat",)}},
)


@celery.task
def mark(name: str) -> None:
    with (MARKS / name).open("a") as marks:
        marks.write(f"{os.getpid()}\n")


@celery.task
def nap(name: str, seconds: float) -> None:
    mark(f"{name}.begun")
    # A task in progress, for the tests to stop or kill
    time.sleep(seconds)
    mark(f"{name}.done")


if os.environ.get("NEWER"):
    # As a newer release would have

    @celery.task
    def newer(name: str) -> None:
        mark(name)


@celery.task
def maintain(name: str) -> None:
    mark(name)
