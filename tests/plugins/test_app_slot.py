"""The slots of a service: which one serves, after each step and after each failure. systemd is stood in for; the scenarios have a real one."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from ansible.module_utils.app_releases import ReleaseError, audit, last_audited, previous_good, select

from plugins.modules import app_audit, app_release, app_slot

UNITS = ["shop-web@.socket", "shop-web@.service"]


class Systemd:
    """Which units run, and which would after a reboot."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.restarts = 0
        self.broken = ""
        self.restarted: list[str] = []
        self.lines: list[dict[str, Any]] = []

    def __call__(self, verb: str, units: Sequence[str] | None = None, *options: str) -> str:
        names = list(units or [])
        match verb:
            case "start":
                if self.broken and any(self.broken in name for name in names):
                    raise ReleaseError(f"{self.broken} does not start")
                self.active |= set(names)
            case "stop":
                self.active -= set(names)
            case "enable":
                self.enabled |= set(names)
            case "disable":
                self.enabled -= set(names)
            case "try-restart":
                self.restarted += names
            case "show":
                return "\n\n".join(
                    f"Id={name}\nLoadState=loaded\nActiveState={'active' if name in self.active else 'inactive'}\nNRestarts={self.restarts}\n"
                    f"UnitFileState={'enabled' if name in self.enabled else 'disabled'}\nResult=success\n"
                    for name in names
                )
        return ""

    def slots(self, which: set[str]) -> set[str]:
        return {name.split("@")[1].split(".")[0] for name in which}


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Systemd:
    made = Systemd()
    monkeypatch.setattr(app_slot, "systemctl", made)
    monkeypatch.setattr(app_slot, "audit", lambda _file, _name, entry: made.lines.append(entry))
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, name in enumerate(["one", "two", "three"]):
        (tmp_path / "home/releases" / name).mkdir(parents=True)
        os.utime(tmp_path / "home/releases" / name, (number, number))
    (tmp_path / "environment").write_text("SECRET=1\n")
    (tmp_path / "environment").chmod(0o600)
    select(tmp_path / "home", "one")
    return tmp_path / "home"


def ask(home: Path, state: str, check: bool = False, **given: Any) -> dict[str, Any]:
    root = home.parent
    arguments = {
        "root": str(home / "web"), "state": state, "slot": "", "units": UNITS, "release": str(home / "current"), "watched": [],
        "files": [str(root / "environment")], "copies": str(root / "copies"), "run": f"{root}/run-{{slot}}", "followers": ["shop-beat.service"],
        "socket": "s", "paths": ["/healthz"], "host": "localhost", "timeout": 2, "least": 0, "wait": True, "reason": "", "bad": "", "who": "ann", **given,
    }  # fmt: skip
    return app_slot.apply(arguments, check)


def move(home: Path, release: str = "") -> str:
    """What the roles do, where all goes well."""
    if release:
        select(home, release)
    slot = ask(home, "compared")["idle"]
    for state in ("started", "live", "stopped"):
        ask(home, state, slot=slot)
    return str(slot)


def test_a_release_moves_to_the_other_slot_and_back(home: Path, systemd: Systemd) -> None:
    """Catches a slot that stays behind, also for the next reboot, and a second run that moves again."""
    for release, slot in [("one", "blue"), ("two", "green"), ("one", "blue")]:
        assert move(home, release) == slot
        assert os.readlink(home / "web/live") == slot
        assert (systemd.slots(systemd.active), systemd.slots(systemd.enabled)) == ({slot}, {slot})
        found = ask(home, "compared")
        assert (found["from"], found["reasons"], found["leftover"], found["unsettled"]) == (release, [], False, False)


def test_a_changed_environment_moves_and_the_old_one_stays_pinned(home: Path, systemd: Systemd) -> None:
    """Catches a setting that waits for a crash or a reboot to be tried, and a copy that others may read."""
    move(home)
    (home.parent / "environment").write_text("SECRET=2\n")
    assert ask(home, "compared")["reasons"] == ["its settings have changed"]
    copy = home.parent / "copies/blue/environment"
    assert copy.read_text() == "SECRET=1\n"
    assert copy.stat().st_mode & 0o777 == 0o600
    os.utime(home.parent / "environment", (1, 1))
    move(home)
    assert ask(home, "compared")["reasons"] == []


def test_a_check_run_says_that_it_would_move_and_does_not(home: Path, systemd: Systemd) -> None:
    assert ask(home, "compared", check=True)["changed"]
    assert not ask(home, "started", check=True, slot="blue")["changed"]
    assert not (home / "web").exists()
    assert not ask(home, "compared")["changed"]


def test_a_slot_that_is_down_is_a_reason(home: Path, systemd: Systemd) -> None:
    move(home)
    systemd.active.clear()
    assert ask(home, "compared")["reasons"] == ["shop-web@blue.socket is inactive", "shop-web@blue.service is inactive"]


@pytest.mark.parametrize("killed_after", ["started", "live"])
def test_a_killed_run_is_healed(home: Path, systemd: Systemd, killed_after: str) -> None:
    """Catches a slot that runs on for good beside the live one."""
    move(home)
    select(home, "two")
    for state in ("started", "live")[: ["started", "live"].index(killed_after) + 1]:
        ask(home, state, slot="green")
    found = ask(home, "compared")
    assert found["leftover"]
    if killed_after == "live":
        assert found["reasons"] == []
        ask(home, "stopped")
    else:
        move(home)
    assert (systemd.slots(systemd.active), systemd.slots(systemd.enabled), os.readlink(home / "web/live")) == (
        {"green"},
        {"green"},
        "green",
    )


@pytest.mark.parametrize("switched", [False, True])
def test_a_failed_release_gives_way_to_the_one_before(home: Path, systemd: Systemd, switched: bool) -> None:
    """Catches a failure that leaves requests with the new release, or the next run or reboot with it."""
    move(home)
    select(home, "two")
    ask(home, "started", slot="green")
    if switched:
        ask(home, "live", slot="green")
    done = ask(home, "returned", slot="green", reason="it is broken")
    assert (done["live"], done["from"]) == ("blue", "two" if switched else "one")
    assert (systemd.slots(systemd.active), systemd.slots(systemd.enabled)) == ({"blue"}, {"blue"})
    assert (home / "releases/two/bad").read_text().endswith("it is broken\n")
    assert os.readlink(home / "current") == "releases/one"
    assert systemd.restarted == ["shop-beat.service"]
    assert [(line["who"], line["from"], line["to"], line["result"]) for line in systemd.lines] == [("ann", "one", "two", "failed")]
    assert ask(home, "compared")["reasons"] == []


def test_a_failed_environment_marks_no_release(home: Path, systemd: Systemd) -> None:
    move(home)
    ask(home, "started", slot="green")
    ask(home, "returned", slot="green", reason="the environment is broken")
    assert not (home / "releases/one/bad").exists()
    assert systemd.slots(systemd.active) == {"blue"}


def test_a_slot_that_was_never_pinned_is_not_to_blame(home: Path, systemd: Systemd) -> None:
    """Catches an old release in the idle slot that is marked bad, when the new one did not get there."""
    move(home)
    move(home, "two")
    select(home, "three")
    systemd.broken = "@blue"
    with pytest.raises(ReleaseError):
        ask(home, "started", slot="blue")
    systemd.broken = ""
    ask(home, "returned", slot="blue", reason="it does not start")
    assert [name for name in ("one", "two", "three") if (home / "releases" / name / "bad").exists()] == ["three"]
    assert os.readlink(home / "web/live") == "green"


def test_companions_go_back_where_they_run_the_bad_release(home: Path, systemd: Systemd) -> None:
    move(home)
    move(home, "two")
    assert not ask(home, "returned", bad="three", units=[])["changed"]
    # The web server's slot on the same host was first
    select(home, "one")
    assert ask(home, "returned", bad="two", units=[], reason="it failed elsewhere")["live"] == "blue"
    assert systemd.restarted == ["shop-beat.service"]
    assert systemd.lines == []
    assert systemd.slots(systemd.active) == {"blue"}


class Handler(BaseHTTPRequestHandler):
    statuses: dict[str, int]

    def do_GET(self) -> None:
        self.send_response(self.statuses.get(self.path, 404))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def server(path: Path, **statuses: int) -> Iterator[None]:
    """Answers on a socket, with a status for each path."""
    path.parent.mkdir(exist_ok=True)
    handler = type(
        "Answers", (Handler,), {"statuses": {f"/{name}": status for name, status in statuses.items()}, "client_address": ("", 0)}
    )
    with ThreadingUnixStreamServer(str(path), handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            made.shutdown()
            thread.join()


def test_the_gate_opens_for_200_alone_and_says_what_it_got(home: Path, systemd: Systemd) -> None:
    path = home.parent / "run-blue/s"
    with server(path, healthz=200, wrong=404, ill=503):
        ask(home, "answering", slot="blue")
        with pytest.raises(ReleaseError, match="/wrong answered 404"):
            ask(home, "answering", slot="blue", paths=["/wrong"])
        with pytest.raises(ReleaseError, match="not within 0 s: /ill answered 503"):
            ask(home, "answering", slot="blue", paths=["/ill"], timeout=0)
    systemd.restarts = 5
    path.unlink()
    with pytest.raises(ReleaseError, match=r"shop-web@blue\.socket ended 5 times; /healthz FileNotFoundError"):
        ask(home, "answering", slot="blue")


def test_the_old_slot_is_left_once_nobody_is_connected(home: Path, systemd: Systemd) -> None:
    """Catches a stop while somebody is served, and a release that is not watched meanwhile."""
    move(home)
    move(home, "two")
    systemd.active |= {"shop-web@blue.service"}
    with server(home.parent / "run-green/s", healthz=200), server(home.parent / "run-blue/s", healthz=200):
        assert ask(home, "drained")["seconds"] < 1
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(home.parent / "run-blue/s"))
            assert ask(home, "drained", timeout=1)["seconds"] >= 1
        with pytest.raises(ReleaseError, match="after the switch, /page answered 404"):
            ask(home, "drained", paths=["/healthz", "/page"])


def test_the_old_slot_is_asked_where_it_is_pinned(home: Path, systemd: Systemd) -> None:
    """Catches a stop while somebody is served by an application server that had its socket elsewhere than the new one."""
    move(home)
    select(home, "two")
    other = f"{home.parent}/own-{{slot}}"
    ask(home, "started", slot="green", run=other)
    ask(home, "live", slot="green")
    with server(home.parent / "own-green/s", healthz=200), server(home.parent / "run-blue/s", healthz=200):
        ask(home, "answering", slot="green", run=other)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(home.parent / "run-blue/s"))
            assert ask(home, "drained", timeout=1, run=other)["seconds"] >= 1
        assert ask(home, "drained", run=other)["seconds"] < 1


def test_a_way_back_goes_further_back_each_time_and_over_bad_ones(home: Path, systemd: Systemd) -> None:
    given = {"root": str(home), "release": "", "state": "back", "keep": 5, "migrations": ["versions/*.py"]}
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
