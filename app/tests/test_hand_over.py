"""What a Redis that hands over, or answers late, does to those who ask it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Timer
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from redis import Redis
from redis.exceptions import TimeoutError
from redis.sentinel import Sentinel

from textreport.cache import Cache


@pytest.fixture(name="broker")
def fixture_broker(environ: dict[str, str]) -> Iterator[Redis]:
    """Give the broker as whoever looks after it sees it."""
    with Redis.from_url(environ["TEXTREPORT_BROKER_URL"]) as broker:
        yield broker
        broker.config_set("min-replicas-to-write", 0)


def test_a_primary_without_replicas_is_asked_again(client: FlaskClient, broker: Redis) -> None:
    """Catches a visitor who pays for a primary that hands over, and refuses writes meanwhile."""
    broker.config_set("min-replicas-to-write", 1)
    timer = Timer(1.0, broker.config_set, ("min-replicas-to-write", 0))
    timer.start()
    begin = time.monotonic()
    answer = client.post("/api/reports", json={"text": "a"})
    timer.join()
    assert answer.status_code == 202
    assert time.monotonic() - begin > 0.9


def test_a_late_answer_is_nobody_elses(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, clean: None
) -> None:
    """Catches a kept connection whose late answer goes to whoever asks next, who gets another one's."""
    real = urlsplit(environ["TEXTREPORT_CACHE_URL"])
    monkeypatch.setattr(Sentinel, "discover_master", lambda *_: (real.hostname, real.port or 6379))
    login = f"{real.username or ''}:{real.password}@" if real.password else ""
    cache = Cache(f"sentinel://{login}127.0.0.1:1/{real.path.strip('/') or 0}")
    cache.redis.mset({"textreport:one": "1", "textreport:two": "2"})
    with Redis.from_url(environ["TEXTREPORT_CACHE_URL"]) as other:
        other.execute_command("CLIENT PAUSE", 1500, "ALL")
    with pytest.raises(TimeoutError):
        cache.redis.get("textreport:one")
    end = time.monotonic() + 10
    said = None
    while said is None and time.monotonic() < end:
        try:
            said = cache.redis.get("textreport:two")
        except TimeoutError:
            continue
    assert said == "2"
    cache.redis.close()
