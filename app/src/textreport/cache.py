"""The cache: the recent reports, and when a worker last answered. All of it may be lost at any time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry

from textreport.redis_client import CACHE, connect

KEY = "textreport.cache"
VERSION = "textreport:recent:version"
RECENT_TTL = 60
ANSWER_TTL = 45

log = logging.getLogger(__name__)


class Cache:
    """A thin layer over Redis that turns an unreachable cache into a miss."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        self.redis = connect(
            url,
            CACHE,
            ca_file,
            decode_responses=True,
            socket_timeout=1,
            socket_connect_timeout=1,
            # once more where a kept connection was closed meanwhile; never wait again for a cache that hangs
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )

    def recent(self, load: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the cached list, or load and keep it."""
        try:
            # The version is read before the database: a list loaded before a change is not kept as current.
            key = f"textreport:recent:{self.redis.get(VERSION) or 0!s}"
            kept = self.redis.get(key)
        except RedisError as error:
            log.warning("cache unavailable: %s", type(error).__name__)
            return load()
        if kept is not None:
            found: list[dict[str, Any]] = json.loads(str(kept))
            return found
        reports = load()
        try:
            self.redis.set(key, json.dumps(reports), ex=RECENT_TTL)
        except RedisError as error:
            log.warning("cache unavailable: %s", type(error).__name__)
        return reports

    def forget_recent(self) -> None:
        """Make the cached list outdated; without a cache it ends with its time to live."""
        try:
            self.redis.incr(VERSION)
        except RedisError as error:
            log.warning("cache unavailable: %s", type(error).__name__)

    def worker_answered(self, queue: str) -> None:
        """Note that a worker of this queue lives."""
        try:
            self.redis.set(f"textreport:worker:{queue}", int(time.time()), ex=ANSWER_TTL)
        except RedisError as error:
            log.warning("cache unavailable: %s", type(error).__name__)

    def last_answer(self, queue: str) -> int | None:
        """Return how many seconds ago a worker of this queue answered, None when too long ago."""
        value = self.redis.get(f"textreport:worker:{queue}")
        return None if value is None else max(0, int(time.time()) - int(str(value)))


def init_app(app: Flask, url: str, ca_file: str = "") -> None:
    """Make the cache's client (it connects at first use)."""
    app.extensions[KEY] = Cache(url, ca_file)


def cache() -> Cache:
    """Return the current application's cache."""
    made: Cache = current_app.extensions[KEY]
    return made
