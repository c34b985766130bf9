"""Whose containers are removed: those of runs that are certainly dead, and no others."""

from __future__ import annotations

import os
import subprocess
from unittest.mock import MagicMock

import pytest

from tools import runs


@pytest.fixture(autouse=True)
def no_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(runs.RUN_VARIABLE, raising=False)


def dead_run() -> str:
    process = subprocess.Popen(["true"])
    run = f"{runs.namespace()}-{process.pid}-{runs.process_started(process.pid)}"
    process.wait()
    return run


def test_this_run_lives() -> None:
    assert not runs.is_dead(runs.run_id())


def test_an_ended_run_is_dead() -> None:
    assert runs.is_dead(dead_run())


def test_a_process_that_has_got_an_old_id_is_another_run() -> None:
    assert runs.is_dead(f"{runs.namespace()}-{os.getpid()}-1")


@pytest.mark.parametrize("run", ["by-hand", "", pytest.param(f"1-{os.getpid()}-1", id="own"), "a-b-c"])
def test_what_cannot_be_judged_is_left_alone(run: str) -> None:
    """Containers started by hand, or by a run whose processes cannot be seen from here."""
    assert not runs.is_dead(run)


def test_only_dead_runs_lose_their_containers_and_networks() -> None:
    client = MagicMock()
    dead, alive = MagicMock(labels={runs.RUN_LABEL: dead_run()}), MagicMock(labels={runs.RUN_LABEL: runs.run_id()})
    dead.name = "dead"
    network = MagicMock(attrs={"Labels": {runs.RUN_LABEL: "by-hand"}})
    client.containers.list.return_value = [dead, alive]
    client.networks.list.return_value = [network]
    assert runs.remove_stale(client) == ["dead"]
    alive.remove.assert_not_called()
    network.remove.assert_not_called()


def test_children_share_the_run_of_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runs.RUN_VARIABLE, "1-2-3")
    assert runs.labels()[runs.RUN_LABEL] == "1-2-3"
