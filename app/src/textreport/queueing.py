"""Celery, joined to Flask as Flask's documentation does it, plus the request id that travels with a task."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery, Task
from celery.signals import before_task_publish, setup_logging, task_postrun, task_prerun, worker_process_init
from flask import Flask
from kombu import Queue
from kombu.exceptions import OperationalError

from textreport import logs
from textreport.cache import cache
from textreport.db import engine
from textreport.redis_client import BROKER, SCHEME, Watched, once, tls
from textreport.settings import Settings

DEFAULT = "default"
MAINTENANCE = "maintenance"
QUEUES = (DEFAULT, MAINTENANCE)
EXTENSION = "celery"
# Seconds until the broker's answer is given up, which a hand-over may take; and for which a task is sent
SOCKET_TIMEOUT = 5
PATIENCE = 8.0


def celery_init_app(app: Flask, settings: Settings) -> Celery[Any]:
    """Make the Celery application whose tasks run in the Flask application's context."""

    class FlaskTask(Task):  # type: ignore[type-arg]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                delivery = self.request.delivery_info or {}
                cache().worker_answered(delivery.get("routing_key") or DEFAULT)
                return self.run(*args, **kwargs)

    celery_app: Celery[Any] = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(_configuration(settings))
    celery_app.set_default()
    app.extensions[EXTENSION] = celery_app

    @worker_process_init.connect(weak=False)
    def after_fork(**_: Any) -> None:
        # a connection opened before the fork must not be used by two processes
        with app.app_context():
            engine().dispose(close=False)

    @setup_logging.connect(weak=False)
    def configure_logging(**_: Any) -> None:
        # being connected keeps Celery from configuring logs its own way
        logs.configure(settings.log_level)

    return celery_app


def publish(task: Task[Any, Any], *arguments: str) -> None:
    """Send a task; again, for a few seconds, while the broker's primary hands over to a replica."""
    end = time.monotonic() + PATIENCE
    pause = 0.1
    while True:
        try:
            task.delay(*arguments)
        except AttributeError as error:
            # kombu's channel has no connection while it gives a broken one up; the next one has
            failure = OperationalError(str(error))
        except OperationalError as error:
            # a primary whose replicas follow another one by now refuses what none of them would get
            if "NOREPLICAS" not in str(error):
                raise
            failure = error
        else:
            return
        if time.monotonic() + pause > end:
            raise failure
        # the pause between two attempts
        time.sleep(pause)
        pause = min(pause * 2, 1.0)


def _sentinel(settings: Settings) -> dict[str, Any]:
    """What the transport needs to ask Sentinel who the primary is; its own login is in the URL."""
    if not settings.broker_url.startswith(SCHEME):
        return {}
    secure = {"ssl": True, **tls(settings.redis_ca_file)} if settings.redis_ca_file else {}
    login = Watched.parse(settings.broker_url).login()
    # Each Sentinel is given up on soon, and asked once: another one knows it too
    patience = {"socket_timeout": 2, "socket_connect_timeout": 1, "retry": once()}
    return {"master_name": BROKER, "sentinel_kwargs": {**login, **secure, **patience}}


def _secure(settings: Settings) -> dict[str, Any]:
    """A URL of sentinel:// cannot say that what it leads to speaks TLS."""
    watched = settings.broker_url.startswith(SCHEME) and settings.redis_ca_file
    return {"broker_use_ssl": tls(settings.redis_ca_file)} if watched else {}


def _configuration(settings: Settings) -> dict[str, Any]:
    def beat(task: str, seconds: float, queue: str = MAINTENANCE) -> dict[str, Any]:
        # a run that could not start until the next one is due is dropped: no heap of them after an outage
        options = {"queue": queue, "expires": seconds}
        return {"task": f"textreport.{task}", "schedule": seconds, "options": options}

    return {
        "broker_url": settings.broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_connection_timeout": 3,
        **_secure(settings),
        "broker_transport_options": {
            # What a killed worker held is delivered again after this time: longer than the longest task.
            "visibility_timeout": settings.task_time_limit + 15,
            # Look for such tasks every 10 seconds; kombu's default looks every 100.
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_connect_timeout": 3,
            "socket_timeout": SOCKET_TIMEOUT,
            "socket_keepalive": True,
            # A server that is silent is noticed after this and the timeout above
            "health_check_interval": 10,
            **_sentinel(settings),
        },
        "imports": ["textreport.tasks"],
        # Results are rows in PostgreSQL; Celery keeps none.
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_prefetch_multiplier": 1,
        "worker_redirect_stdouts": False,
        "task_soft_time_limit": settings.task_time_limit - 5,
        "task_time_limit": settings.task_time_limit,
        "task_default_queue": DEFAULT,
        "task_queues": [Queue(name, routing_key=name) for name in QUEUES],
        # Two seconds and a half, in which a primary that is asked to hands over to a replica
        "task_publish_retry_policy": {
            "max_retries": 4,
            "interval_start": 0.2,
            "interval_step": 0.3,
            "interval_max": 1.0,
        },
        "beat_schedule": {
            "answer-default": beat("heartbeat", 10.0, DEFAULT),
            "answer-maintenance": beat("heartbeat", 10.0),
            "resend": beat("resend_unfinished", min(60.0, settings.resend_after)),
            "totals": beat("keep_hourly_totals", 300.0),
            "remove": beat("remove_old_reports", 3600.0),
        },
    }


@before_task_publish.connect
def send_request_id(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Put the request id into the message, next to Celery's own headers."""
    if headers is not None:
        headers.setdefault("request_id", logs.request_id.get() or logs.new_request_id())


@task_prerun.connect
def begin_task(task_id: str, task: Task[Any, Any], **_: Any) -> None:
    """Take the request id out of the message, for every log line of the task."""
    logs.request_id.set(task.request.get("request_id"))
    logs.task_id.set(task_id)
    logs.task_name.set(task.name)


@task_postrun.connect
def end_task(**_: Any) -> None:
    """Forget the ids of the finished task."""
    for variable in (logs.request_id, logs.task_id, logs.task_name):
        variable.set(None)
