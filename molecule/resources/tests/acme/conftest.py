"""Both hosts at a time: most of what the tests do is wait for timers and servers."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


class ByHost(LoadScopeScheduling):
    """The tests of a host run in order, in a process of their own."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.rpartition("[")[2]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByHost:
    """Hand out tests so."""
    return ByHost(config, log)
