"""What runs beside the hosts, in the sample's environment: a worker's application, and clients that count what was acknowledged."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from textreport.queueing import DEFAULT, _configuration
from textreport.redis_client import connect
from textreport.settings import Settings

settings = Settings.from_environment()
celery = Celery("drill")
# The sample's own settings, with no task of it
celery.config_from_object({**_configuration(settings), "imports": [], "beat_schedule": {}})


@celery.task(name="drill.note")
def note(number: int) -> None:
    """Leave a line."""
    with Path(os.environ["DRILL_FILE"]).open("a", encoding="ascii") as file:
        file.write(f"{number} {time.time()}\n")


def send(number: int) -> None:
    note.apply_async((number,), queue=DEFAULT)


def writer() -> Callable[[int], None]:
    redis = connect(settings.broker_url, "broker", settings.redis_ca_file, socket_timeout=2, socket_connect_timeout=1)

    def write(number: int) -> None:
        redis.set(f"{sys.argv[2]}:{number}", number)

    return write


def main() -> None:
    """Do it again and again until a line comes in: one line for each that was acknowledged."""
    act = send if sys.argv[1] == "send" else writer()
    number = 0
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        number += 1
        try:
            act(number)
            print(number, time.time(), flush=True)
        except (RedisError, OSError, OperationalError):
            pass


if __name__ == "__main__":
    main()
