"""How a host runs on both cgroup versions, and what is said when it does not come up."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from tools import host
from tools.console import Problem


def test_cgroup_v1_shares_the_machines_hierarchy() -> None:
    options = host.options("trixie", "1")
    assert options["cgroupns_mode"] == "host"
    assert "/sys/fs/cgroup:/sys/fs/cgroup:rw" in options["volumes"]


def test_cgroup_v2_has_a_namespace_of_its_own_made_writable() -> None:
    options = host.options("trixie", "2")
    assert options["cgroupns_mode"] == "private"
    assert not any("cgroup:" in volume for volume in options["volumes"])
    assert "remount,rw /sys/fs/cgroup" in options["command"][-1]


def test_releases_do_not_share_packages() -> None:
    assert host.options("trixie", "2")["volumes"] != host.options("bookworm", "2")["volumes"]


def container(state: str, status: str = "running") -> MagicMock:
    made = MagicMock(status=status)
    made.name = "box"
    made.exec_run.return_value = (0, state.encode())
    made.logs.return_value = b"Failed to mount cgroup"
    return made


def test_a_running_host_is_up() -> None:
    host.wait_until_up(container("running\n"))


def test_a_failed_unit_is_named() -> None:
    with pytest.raises(Problem, match="units failed while the host box started"):
        host.wait_until_up(container("degraded"))


def test_a_host_that_ended_shows_its_log() -> None:
    with pytest.raises(Problem, match="Failed to mount cgroup"):
        host.wait_until_up(container("", status="exited"))


def test_a_host_that_is_never_up_is_not_waited_for_for_ever() -> None:
    with pytest.raises(Problem, match="not up after 0 s"):
        host.wait_until_up(container("starting"), seconds=0.3)
