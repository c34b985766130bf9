"""stale_units: what it reads from systemctl and from the file system. The roles' scenarios run it on real hosts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from plugins.modules.stale_units import newest, parse_show, parse_timestamp, reason

SHOW = """Id=nginx.service
ActiveState=active
StateChangeTimestamp=Sat 2026-11-21 11:07:14.331238 UTC
ActiveEnterTimestamp=Sat 2026-11-21 11:07:14.286699 UTC
NeedDaemonReload=no

Id=nope.service
ActiveState=inactive
StateChangeTimestamp=
ActiveEnterTimestamp=
NeedDaemonReload=no
"""


def stamp(seconds: float) -> str:
    return time.strftime("%a %Y-%m-%d %H:%M:%S.000000 UTC", time.gmtime(seconds))


def unit(**properties: str) -> dict[str, str]:
    return {
        "ActiveState": "active",
        "NeedDaemonReload": "no",
        "ActiveEnterTimestamp": stamp(2000),
        "StateChangeTimestamp": stamp(3000),
    } | properties


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A folder in which all is older than the unit of `unit()`."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites/one.conf").touch()
    for path in (tmp_path / "sites/one.conf", tmp_path / "sites", tmp_path):
        os.utime(path, (1000, 1000))
    return tmp_path


def test_show_is_read_in_blocks() -> None:
    blocks = parse_show(SHOW)
    assert [block["Id"] for block in blocks] == ["nginx.service", "nope.service"]
    assert blocks[0]["NeedDaemonReload"] == "no"


def test_timestamps_keep_their_microseconds() -> None:
    assert parse_timestamp("Thu 1970-01-01 00:01:00.250000 UTC") == 60.25
    assert parse_timestamp("") == 0


def test_a_unit_newer_than_its_files_is_fresh(configuration: Path) -> None:
    assert reason(unit(), [str(configuration), "/nonexistent"], "start") == ""


@pytest.mark.parametrize(("modified", "since", "stale"), [(2500, "start", True), (2500, "change", False), (3500, "change", True)])
def test_since_tells_a_reload_from_a_start(configuration: Path, modified: int, since: str, stale: bool) -> None:
    os.utime(configuration / "sites/one.conf", (modified, modified))
    assert bool(reason(unit(), [str(configuration)], since)) is stale


def test_the_newest_file_is_named(configuration: Path) -> None:
    os.utime(configuration / "sites/one.conf", (2500, 2500))
    assert "sites/one.conf is newer" in reason(unit(), [str(configuration)], "start")


def test_a_removed_file_makes_its_folder_newer(configuration: Path) -> None:
    (configuration / "sites/one.conf").unlink()
    assert reason(unit(), [str(configuration)], "start")


def test_a_link_counts_by_itself(configuration: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "new"
    other.touch()
    link = configuration / "current"
    link.symlink_to(other.parent)
    os.utime(link, (1500, 1500), follow_symlinks=False)
    assert newest([str(link)]) == (1500, str(link))


def test_a_time_in_the_future_is_passed_over(configuration: Path) -> None:
    os.utime(configuration / "sites/one.conf", (time.time() + 9000,) * 2)
    assert newest([str(configuration)])[0] == 1000


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating"])
def test_a_unit_that_does_not_run_is_never_stale(state: str, configuration: Path) -> None:
    assert reason(unit(ActiveState=state, NeedDaemonReload="yes", ActiveEnterTimestamp=""), [str(configuration)], "start") == ""


def test_a_changed_unit_file_makes_it_stale() -> None:
    assert "unit file" in reason(unit(NeedDaemonReload="yes"), [], "start")
