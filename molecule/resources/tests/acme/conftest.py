"""Both hosts at a time: most of what the tests do is wait for timers and servers."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the tests of a host in order, in a process of their own."""
    by_host = LoadScopeScheduling(config, log)
    by_host._split_scope = lambda nodeid: nodeid.rpartition("[")[2]
    return by_host
