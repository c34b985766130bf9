"""The cluster under test, and the table of what its drills measured."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import engine
from tools.console import say

sys.path.insert(0, str(Path(__file__).parent))

import drills


@pytest.fixture(scope="session")
def cluster() -> Iterator[drills.Cluster]:
    made = drills.Cluster(engine.connect(), drills.generated() / "ca/ca.pem", "")
    made.address = made.host_address("edge1").rsplit(".", 1)[0] + ".200"
    yield made
    say(drills.table(made.outcomes))
    drills.keep(made.outcomes)
