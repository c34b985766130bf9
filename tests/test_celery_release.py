"""What the role's own program does to tasks, with Celery's and kombu's code and a broker in memory. Runs in the application's environment."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("celery", reason="make test-unit runs it in .venv-app")
from celery import Celery
from celery.app.defaults import NAMESPACES
from celery.contrib.testing.worker import start_worker
from celery.worker.consumer import Consumer
from kombu import Exchange, Queue, pools
from kombu.transport.memory import Channel, Transport

from roles.celery.files import celery_release

Release = Callable[..., tuple[Celery, list[str]]]


def eventually(ask: Callable[[], Any], within: float = 5.0) -> Any:
    """Ask again until the answer is true."""
    end = time.monotonic() + within
    while not (found := ask()):
        assert time.monotonic() < end, f"not true within {within:g} s"
        # Between two questions
        time.sleep(0.02)
    return found


@pytest.fixture(autouse=True)
def releases(monkeypatch: pytest.MonkeyPatch) -> dict[str, Celery]:
    """The applications by name, a broker without queues, and Celery as the program leaves it for a worker."""
    found: dict[str, Celery] = {}
    Channel.queues.clear()
    Transport.global_state.clear()
    monkeypatch.setattr(Consumer, "on_unknown_task", celery_release.park)
    monkeypatch.setattr(celery_release, "find_app", found.__getitem__)
    monkeypatch.setattr(celery_release, "ANSWER", 0.3)
    return found


@pytest.fixture
def release(releases: dict[str, Celery]) -> Release:
    """Return a function that makes an application which knows some tasks, and the list of what it does."""

    def make(name: str, *tasks: str, **settings: Any) -> tuple[Celery, list[str]]:
        app = releases[name] = Celery(name, broker="memory://", set_as_current=False)
        app.conf.update(
            task_ignore_result=True, worker_direct=True, broker_transport_options={"polling_interval": 0.01},
            broker_connection_retry_on_startup=True, **settings,
        )  # fmt: skip
        done: list[str] = []

        def register(task: str) -> None:
            @app.task(name=task, shared=False)  # type: ignore[untyped-decorator]
            def work(*given: str) -> None:
                done.append(" ".join([task, *given]))

        for task in tasks:
            register(task)
        return app, done

    return make


def worker(app: Celery, name: str) -> AbstractContextManager[Any]:
    return start_worker(app, pool="solo", perform_ping_check=False, hostname=name, shutdown_timeout=20)  # type: ignore[no-any-return]


def park_all(app: Celery, queue: str = "celery") -> None:
    """What a worker of this application does with the tasks of a queue, none of which it knows."""
    with app.connection_for_read() as connection:
        while (message := connection.default_channel.basic_get(queue)) is not None:
            celery_release.park(SimpleNamespace(app=app), None, message, KeyError())


def waiting(queue: str) -> list[dict[str, Any]]:
    """The messages of a queue as they lie in the broker."""
    return list(Channel.queues[queue].queue) if queue in Channel.queues else []


def essence(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what each delivery has of its own, and without the time after which a broker throws it away wherever it is."""
    properties = {name: value for name, value in message["properties"].items() if name not in {"delivery_tag", "expiration"}}
    return {**message, "properties": properties}


@pytest.mark.parametrize(("compression", "header"), [(None, None), ("gzip", "application/x-gzip"), ("bzip2", "application/x-bz2")])
def test_a_task_is_the_same_after_it_was_parked(release: Release, compression: str | None, header: str | None) -> None:
    """Catches a body that is no longer what its headers say, and a task that is due at another time, answers elsewhere or loses its rank."""
    new, _ = release("new", "added")
    old, _ = release("old")
    new.send_task(
        "added", args=["ü" * 500], queue="celery", compression=compression, priority=7, correlation_id="seven", reply_to="answers",
        eta=datetime.now(UTC) + timedelta(seconds=1), expires=3600,
    )  # fmt: skip
    (sent,) = waiting("celery")
    assert sent["headers"].get("compression") == header
    park_all(old)
    (parked,) = waiting("groundcrew.parked")
    assert parked["body"] == sent["body"]
    celery_release.bring_back(new)
    (back,) = waiting("celery")
    assert essence(back) == essence(sent)
    assert {"priority": 7, "correlation_id": "seven", "reply_to": "answers"}.items() <= back["properties"].items()
    assert back["headers"]["eta"]


def test_kept_tasks_go_back_once_no_worker_is_left_that_lacks_them(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches tasks that go back while an older worker still takes tasks: it parks them again, for the next release."""
    new, done = release("new", "added", "common")
    old, _ = release("old", "common")
    giving = threading.Thread(target=celery_release.give_back, args=["new", 0], daemon=True)
    with worker(old, "old@host"):
        new.send_task("added", args=["one"])
        eventually(lambda: waiting("groundcrew.parked"))
        giving.start()
        eventually(lambda: "waiting for the end of old@host:" in capsys.readouterr().out)
        assert giving.is_alive()
        assert waiting("groundcrew.parked")
    giving.join(timeout=5)
    assert (giving.is_alive(), waiting("groundcrew.parked"), len(waiting("celery"))) == (False, [], 1)
    with worker(new, "new@host"):
        assert eventually(lambda: done) == ["added one"]


def test_a_worker_that_is_too_busy_to_answer_keeps_no_task_for_good(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a task that such a worker parks after the kept ones were given back: nobody would look for it until workers start again."""
    new, done = release("new", "added", "busy")
    old, _ = release("old")
    begun, go = threading.Event(), threading.Event()

    @old.task(name="busy", shared=False)  # type: ignore[untyped-decorator]
    def busy() -> None:
        begun.set()
        go.wait(20)

    new.send_task("added", args=["one"])
    park_all(old)
    giving = threading.Thread(target=celery_release.give_back, args=["new", 2], daemon=True)
    with worker(old, "old@host"):
        new.send_task("busy")
        assert begun.wait(5)
        giving.start()
        eventually(lambda: "is known to this release: back" in capsys.readouterr().out)
        go.set()
        eventually(lambda: "waiting for the end of old@host:" in capsys.readouterr().out)
        assert waiting("groundcrew.parked")
    giving.join(timeout=10)
    assert (giving.is_alive(), waiting("groundcrew.parked")) == (False, [])
    with worker(new, "new@host"):
        assert eventually(lambda: done) == ["added one"]


def test_tasks_that_stay_parked_are_not_taken_over_and_over(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a broker that is kept busy by thousands of tasks that only another release knows."""
    new, _ = release("new", "added")
    old, _ = release("old")
    new.send_task("added")
    park_all(old)
    celery_release.give_back("old", 1)
    assert capsys.readouterr().out.count("unknown to this release too") == 1


def test_a_task_that_is_still_unknown_stays_as_it_is(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a start of older workers that changes or loses what a newer release has left."""
    new, _ = release("new", "added")
    old, _ = release("old")
    for number in ("one", "two"):
        new.send_task("added", args=[number])
    park_all(old)
    before = [message["body"] for message in waiting("groundcrew.parked")]
    celery_release.give_back("old", 0)
    celery_release.count("old")
    assert [message["body"] for message in waiting("groundcrew.parked")] == before
    assert capsys.readouterr().out == "2 parked tasks are unknown to this release too\n2\n"
    celery_release.give_back("new", 0)
    assert len(waiting("celery")) == 2


def test_a_task_goes_back_through_its_exchange(release: Release) -> None:
    """Catches a task that nobody gets, as the process that sends it on has not declared the exchange."""
    queues = [Queue("mail", Exchange("post", "topic"), routing_key="post.#")]
    new, _ = release("new", "added", task_queues=queues)
    old, _ = release("old", task_queues=queues)
    new.send_task("added", queue="mail", routing_key="post.today")
    park_all(old, "mail")
    # As in a process that has just begun
    pools.reset()
    Transport.global_state.clear()
    celery_release.bring_back(release("elsewhere", "added")[0])
    assert len(waiting("groundcrew.parked")) == 1
    celery_release.bring_back(release("begun", "added", task_queues=queues)[0])
    assert len(waiting("mail")) == 1


def test_the_probe_is_answered_and_leaves_nothing(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a queue or an exchange of each probe that stays in the broker for good."""
    new, _ = release("new", "added")
    with worker(new, "default-blue@host"):
        assert celery_release.probe("new", 5, ["default-blue@host"]) == 0
    assert "default-blue@host runs tasks of release" in capsys.readouterr().out
    assert celery_release.probe("new", 0.2, ["gone@host"]) == 1
    assert "no task done within 0.2 s by gone@host" in capsys.readouterr().out
    assert not any(waiting(name) for name in Channel.queues if "groundcrew.probe" in name)
    assert not any("groundcrew.probe" in str(name) for name in (*Transport.global_state.exchanges, *Transport.global_state.bindings))


@pytest.mark.parametrize("known", [True, False])
def test_an_older_celery_is_not_told_of_the_soft_shutdown(monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
    """Catches workers of Celery before 5.5 that do not start, for a setting that they do not know."""
    settings = {**NAMESPACES["worker"]}
    if not known:
        del settings["soft_shutdown_timeout"]
    given = ["--app", "shop:app", "worker", "task_acks_late=true", "worker_soft_shutdown_timeout=10"]
    monkeypatch.setitem(NAMESPACES, "worker", settings)
    monkeypatch.setattr(celery_release, "celery", lambda: None)
    monkeypatch.setattr(sys, "argv", ["celery_release.py", *given])
    celery_release.main()
    assert sys.argv[1:] == (given if known else given[:-1])
