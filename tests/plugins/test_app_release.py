"""The releases of a host: which one is current, which one a way back leads to, and what is written down of each."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.app_releases import ReleaseError, alone, audit, last_audited, previous_good, select

from plugins.modules import app_audit, app_release
from tests.plugins.slots import Systemd, ask, move


def test_a_way_back_goes_further_back_each_time_and_over_bad_ones(home: Path, systemd: Systemd) -> None:
    given = {"root": str(home), "release": "", "state": "back", "hosts": {}, "migrations": ["versions/*.py"]}
    (home / "releases/two/src/versions").mkdir(parents=True)
    (home / "releases/two/src/versions/0002.py").touch()
    os.utime(home / "releases/two", (1, 1))
    select(home, "three")
    (home / "releases/three/bad").touch()
    os.utime(home / "releases/three", (2, 2))
    assert app_release.apply(given, check=True)["release"] == "two"
    done = app_release.apply(given, check=False)
    assert (done["current"], done["previous"]) == ("two", "one")
    done = app_release.apply(given, check=False)
    assert (done["current"], done["migrations"]) == ("one", ["versions/0002.py"])
    with pytest.raises(ReleaseError, match=r"no good release before one; on this host are: three \(bad\), two, one"):
        app_release.apply(given, check=False)
    for wrong in ("../../etc", ".one.part"):
        with pytest.raises(ReleaseError, match="no id of a release"):
            app_release.apply({**given, "release": wrong}, check=False)
    with pytest.raises(ReleaseError, match="it is marked bad"):
        app_release.apply({**given, "release": "three"}, check=False)
    assert previous_good(home, "three") == "two"


def listed(*releases: str, bad: tuple[str, ...] = (), serving: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"releases": list(releases), "bad": dict.fromkeys(bad, "why"), "serving": list(serving)}


@pytest.mark.parametrize(
    ("hosts", "wanted"),
    [
        ([listed("three", "two", "one", serving=("three",))] * 2, "two"),
        # Failed on the first host, which alone knows: the others have it as the current one, and serve it no more than it does
        ([listed("three", "two", "one", bad=("three",), serving=("two",)), listed("three", "two", "one", serving=("two",))], "one"),
        ([listed("three", "two", "one", serving=("three",)), listed("three", "two", "one", bad=("two",), serving=("three",))], "one"),
        # Stopped half-way: back to what the others still serve
        ([listed("three", "two", "one", serving=("three",)), listed("three", "two", "one", bad=("three",), serving=("two",))], "two"),
        # A way back that was killed half-way goes on, on one host as on several
        ([listed("three", "two", "one", serving=("two",)), listed("three", "two", "one", serving=("three",))], "two"),
        ([listed("three", "two", "one", serving=("three", "two"))], "two"),
        # A host that was set up later
        ([listed("three", "two", "one", serving=("three",)), listed("three", "one", serving=("three",))], "one"),
    ],
)
def test_hosts_go_back_together(hosts: list[dict[str, Any]], wanted: str) -> None:
    """Catches hosts that part, and a way back to what is bad on one of them."""
    named = {f"app{number}": host for number, host in enumerate(hosts)}
    assert app_release.way_back(named) == wanted
    assert app_release.way_back(dict(reversed(named.items()))) == wanted


def test_a_release_that_failed_elsewhere_gives_way_where_it_does_not_serve(home: Path, systemd: Systemd) -> None:
    """Catches a host that takes up a release which never came to it, and one that is told off what it serves well."""
    given = {"root": str(home), "release": "two", "state": "bad", "reason": "it failed on app1", "migrations": []}
    move(home)
    select(home, "two")
    for _ in range(2):
        assert app_release.apply(given, check=False)["current"] == "one"
    assert (home / "releases/two/bad").read_text().count("it failed on app1\n") == 1
    app_release.apply({**given, "state": "current"}, check=False)
    move(home)
    assert app_release.apply(given, check=False)["current"] == "two"
    assert not (home / "releases/two/bad").exists()


def test_the_one_before_is_what_served_and_not_what_was_left(home: Path, systemd: Systemd) -> None:
    """Catches a way back to the release that was just gone back from, and to one that a killed run never brought to serve."""
    (home / "releases/four").mkdir()
    given = {"root": str(home), "state": "current", "hosts": {}, "migrations": []}
    for release in ("one", "two", "three"):
        app_release.apply({**given, "release": release}, check=False)
        move(home)
    assert app_release.apply({**given, "release": "", "state": "back"}, check=False)["current"] == "two"
    move(home)
    assert app_release.apply({**given, "release": "four"}, check=False)["previous"] == "two"
    # Killed before it moved: two serves
    (home / "releases/five").mkdir()
    assert app_release.apply({**given, "release": "five"}, check=False)["previous"] == "two"
    move(home)
    assert app_release.apply({**given, "release": "", "state": "back"}, check=False)["current"] == "two"


@pytest.mark.parametrize("what", ["slot", "release"])
def test_a_step_waits_for_the_one_that_a_killed_run_has_left(
    home: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Catches two steps on one folder at a time: a release that is renamed half-built, or a slot that is pinned twice."""
    asked = threading.Event()
    flock = fcntl.flock

    def ask_for_it(folder: int, how: int) -> None:
        asked.set()
        flock(folder, how)

    def second() -> None:
        if what == "slot":
            ask(home, "started", slot="blue")
        else:
            app_release.apply({"root": str(home), "release": "two", "state": "current", "migrations": []}, check=False)

    with alone(home):
        monkeypatch.setattr("ansible.module_utils.app_releases.fcntl.flock", ask_for_it)
        thread = threading.Thread(target=second)
        thread.start()
        assert asked.wait(10)
        assert not (home / "web").exists()
        assert os.readlink(home / "current") == "releases/one"
    thread.join(10)
    assert (home / "web/blue/release").exists() if what == "slot" else os.readlink(home / "current") == "releases/two"


def test_each_release_is_a_line_that_stays(tmp_path: Path) -> None:
    file = tmp_path / "log/releases.log"
    audit(file, "shop", {"who": "ann@desk", "result": "failed"})
    audit(file, "shop", {"who": "bob@desk", "result": "failed"})
    assert last_audited(file) == ""
    (tmp_path / "current").symlink_to("releases/two")
    for _ in range(2):
        app_audit.write(file, "shop", {"who": "cat@desk", "result": "ok"}, str(tmp_path))
    assert last_audited(file) == "two"
    assert [line.split('"who": "')[1][:3] for line in file.read_text().splitlines()] == ["ann", "bob", "cat"]
