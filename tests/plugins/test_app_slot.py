"""The slots of a service: which one serves, after each step and after each failure. systemd is stood in for; the scenarios have a real one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest
from ansible.module_utils.app_releases import ReleaseError, alone, audit, last_audited, previous_good, select

from plugins.modules import app_audit, app_release, app_slot

UNITS = ["shop-web@.socket", "shop-web@.service"]


class Systemd:
    """Which units run, and which would after a reboot."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.enabled: set[str] = set()
        self.removed: set[str] = set()
        self.gone: set[str] = set()
        self.restarts = 0
        self.broken = ""
        self.restarted: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self.verbs: list[tuple[str, set[str], tuple[str, ...]]] = []

    def __call__(self, verb: str, units: Sequence[str] | None = None, *options: str) -> str:
        names = list(units or [])
        self.verbs.append((verb, self.slots(set(names)), options))
        if missing := set(names) & {"start": self.gone, "enable": self.removed}.get(verb, set()):
            raise ReleaseError(f"{missing} not found")
        match verb:
            case "daemon-reload":
                self.gone |= self.removed
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
                    f"Id={name}\nLoadState={'not-found' if name in self.gone else 'loaded'}\n"
                    f"ActiveState={'active' if name in self.active else 'inactive'}\nNRestarts={self.restarts}\n"
                    f"UnitFileState={'enabled' if name in self.enabled else 'disabled'}\nResult=success\n"
                    for name in names
                )
        return ""

    def slots(self, which: set[str]) -> set[str]:
        return {name.split("@")[1].split(".")[0] for name in which if "@" in name}


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
    assert (home / "web/live/copies").resolve() == copy.parent
    os.utime(home.parent / "environment", (1, 1))
    move(home)
    assert ask(home, "compared")["reasons"] == []


def test_a_host_with_followers_alone_has_a_live_slot_too(home: Path, systemd: Systemd) -> None:
    """Catches a beat without a release to run, where the workers are on other hosts."""
    assert ask(home, "compared", units=[], followers=[])["reasons"] == []
    assert ask(home, "compared", units=[])["reasons"] == ["no release is live yet"]
    for state in ("started", "live"):
        ask(home, state, units=[], slot="blue")
    assert (home / "web/live/release").resolve() == (home / "releases/one").resolve()
    assert ask(home, "compared", units=[])["reasons"] == []


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


def killed_after_the_switch(home: Path) -> None:
    move(home)
    select(home, "two")
    for state in ("started", "live"):
        ask(home, state, slot="green")


def test_a_slot_that_turns_out_bad_after_a_killed_run_gives_way(home: Path, systemd: Systemd) -> None:
    """Catches a release that serves for good because the run that should have watched it was killed."""
    killed_after_the_switch(home)
    found = ask(home, "compared")
    assert (found["way_back"], found["reasons"]) == (True, [])
    done = ask(home, "returned", slot=found["live"], reason="after the switch, it is broken")
    assert (done["live"], done["from"], done["serving"]) == ("blue", "two", "one")
    assert (home / "releases/two/bad").exists()
    assert os.readlink(home / "current") == "releases/one"


@pytest.mark.parametrize("wanted", ["two", "three"])
def test_a_slot_that_died_after_a_killed_run_costs_no_healthy_one(home: Path, systemd: Systemd, wanted: str) -> None:
    """Catches the only slot that still works being stopped, and pinned to the release that does not."""
    killed_after_the_switch(home)
    systemd.active.discard("shop-web@green.service")
    select(home, wanted)
    done = ask(home, "recovered")
    assert (done["changed"], done["serving"], done["idle"]) == (True, "one", "green")
    assert not (home / "releases/two/bad").exists()
    ask(home, "started", slot=done["idle"])
    assert {"shop-web@blue.socket", "shop-web@blue.service"} <= systemd.active
    ask(home, "returned", slot=done["idle"], reason="it is broken")
    assert (os.readlink(home / "web/live"), os.readlink(home / "current")) == ("blue", "releases/one")
    assert (systemd.slots(systemd.active), systemd.slots(systemd.enabled)) == ({"blue"}, {"blue"})
    assert (home / "releases" / wanted / "bad").exists()


def test_a_slot_that_never_served_is_no_way_back(home: Path, systemd: Systemd) -> None:
    """Catches requests that go to what a killed run has started and nobody has tried."""
    move(home)
    select(home, "two")
    ask(home, "started", slot="green")
    systemd.active.discard("shop-web@blue.service")
    assert not ask(home, "recovered")["changed"]
    found = ask(home, "compared")
    assert (found["live"], found["leftover"], found["way_back"]) == ("blue", True, False)


def test_a_slot_that_was_told_to_stop_is_no_way_back(home: Path, systemd: Systemd) -> None:
    killed_after_the_switch(home)
    ask(home, "stopped")
    assert not ask(home, "compared")["way_back"]


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
    # It may follow the link that was swapped in between
    verbs = [verb for verb, _, _ in systemd.verbs]
    assert "disable" not in verbs[verbs.index("try-restart") :]
    assert [(line["who"], line["from"], line["to"], line["result"]) for line in systemd.lines] == [("ann", "one", "two", "failed")]
    assert ask(home, "compared")["reasons"] == []


def test_the_failed_slot_works_until_the_other_one_does(home: Path, systemd: Systemd) -> None:
    """Catches tasks that nobody takes while old workers, told to stop before, end a long one; and a way back into what does not answer."""
    slot = ask(home, "compared")["idle"]
    for state in ("started", "live"):
        ask(home, state, slot=slot, timeout=0)
    move(home, "two")
    systemd.broken = "@blue"
    with pytest.raises(ReleaseError, match="@blue does not start"):
        ask(home, "returned", slot="green", reason="it is broken", wait=False)
    assert (systemd.slots(systemd.active), os.readlink(home / "web/live")) == ({"green"}, "green")
    assert (home / "releases/two/bad").exists()
    assert ask(home, "compared")["reasons"] == ["release one is wanted, and two is live"]
    systemd.broken = ""
    systemd.active -= {"shop-web@blue.socket", "shop-web@blue.service"}
    with pytest.raises(ReleaseError, match=r"it is broken\. There is no way back: not within 0 s: /healthz FileNotFoundError"):
        ask(home, "returned", slot="green", reason="it is broken", wait=False)
    assert (systemd.slots(systemd.active), os.readlink(home / "web/live")) == ({"green", "blue"}, "green")
    systemd.active -= {"shop-web@blue.socket", "shop-web@blue.service"}
    systemd.verbs.clear()
    with server(home.parent / "run-blue/s", healthz=200):
        ask(home, "returned", slot="green", reason="it is broken", wait=False)
    assert [verb for verb in systemd.verbs if verb[0] in {"start", "stop"}] == [
        ("start", {"blue"}, ()),
        ("stop", {"green"}, ("--no-block",)),
    ]


def test_a_release_that_never_served_stops_also_where_the_live_one_does_not_answer(home: Path, systemd: Systemd) -> None:
    """Catches a failed slot that stays beside the live one, because a way back is waited for where there is none to take."""
    for state in ("started", "live"):
        ask(home, state, slot="blue", timeout=0)
    select(home, "two")
    ask(home, "started", slot="green")
    systemd.active -= {"shop-web@blue.service"}
    ask(home, "returned", slot="green", reason="it is broken")
    assert (systemd.slots(systemd.active), os.readlink(home / "web/live")) == ({"blue"}, "blue")


def test_a_unit_that_is_gone_keeps_nobody_from_going_back(home: Path, systemd: Systemd) -> None:
    """Catches a way back that fails for a worker which the newer release has no longer, and whose unit was removed."""
    move(home)
    select(home, "two")
    fewer = ["shop-web@.service"]
    ask(home, "started", slot="green", units=fewer)
    ask(home, "live", slot="green", units=fewer)
    ask(home, "stopped", units=fewer)
    systemd.removed.add("shop-web@blue.socket")
    with server(home.parent / "run-blue/s", healthz=200):
        assert ask(home, "returned", slot="green", reason="it is broken", units=fewer)["live"] == "blue"
    assert systemd.active == {"shop-web@blue.service"}
    assert "shop-web@blue.service" in systemd.enabled


def test_a_failed_environment_marks_no_release(home: Path, systemd: Systemd) -> None:
    move(home)
    ask(home, "started", slot="green")
    ask(home, "returned", slot="green", reason="the environment is broken")
    assert not (home / "releases/one/bad").exists()
    assert systemd.slots(systemd.active) == {"blue"}


def test_a_first_release_that_failed_is_good_once_it_works(home: Path, systemd: Systemd) -> None:
    """Catches a release that serves and is passed over on every way back, for it has failed before."""
    ask(home, "started", slot="blue")
    ask(home, "returned", slot="blue", reason="the database is not there yet")
    assert (home / "releases/one/bad").exists()
    given = {"root": str(home), "release": "one", "state": "current", "migrations": []}
    assert app_release.apply(given, check=False)["changed"]
    move(home)
    assert not app_release.apply(given, check=False)["changed"]
    assert app_release.apply({**given, "release": "two"}, check=False)["previous"] == "one"


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
    with server(home.parent / "run-blue/s", healthz=200):
        assert ask(home, "returned", bad="two", units=[], reason="it failed elsewhere")["live"] == "blue"
    assert systemd.restarted == ["shop-beat.service"]
    assert systemd.lines == []
    assert systemd.slots(systemd.active) == {"blue"}


def test_companions_that_are_out_of_step_keep_their_hands_off_the_web_slots(home: Path, systemd: Systemd) -> None:
    """Catches units of one service that are stopped for the slot of another, of the same colour: the play gives its own ones along."""
    workers: dict[str, Any] = {"root": str(home / "worker"), "units": ["shop-worker@.service"]}
    ask(home, "started", slot="blue", **workers)
    ask(home, "live", slot="blue", **workers)
    select(home, "two")
    ask(home, "started", slot="green", **workers)
    ask(home, "live", slot="green", **workers)
    move(home)
    move(home)
    assert (os.readlink(home / "worker/live"), os.readlink(home / "web/live")) == ("green", "green")
    ask(home, "returned", bad="two", root=str(home / "worker"))
    assert {"shop-web@green.socket", "shop-web@green.service"} <= systemd.active & systemd.enabled
    assert {name for name in systemd.active if "worker" in name} == {"shop-worker@blue.service"}


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
    with server(path, healthz=200, wrong=404, elsewhere=308, ill=503):
        ask(home, "answering", slot="blue")
        for url, status in [("/wrong", 404), ("/elsewhere", 308)]:
            with pytest.raises(ReleaseError, match=f"^{url} answered {status}"):
                ask(home, "answering", slot="blue", paths=[url])
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


def test_a_failed_slot_ends_its_requests_too(home: Path, systemd: Systemd) -> None:
    """Catches requests that are cut off by a way back, and one that waits for the slot that it goes to, though that runs."""
    move(home)
    select(home, "two")
    for state in ("started", "live"):
        ask(home, state, slot="green")
    with server(home.parent / "run-green/s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home.parent / "run-green/s"))
        thread = threading.Thread(target=ask, args=(home, "returned"), kwargs={"slot": "green", "timeout": 10})
        thread.start()
        assert app_slot.until(5, lambda: os.readlink(home / "web/live") == "blue")
        assert systemd.slots(systemd.active) == {"blue", "green"}
        client.close()
        thread.join(5)
    assert systemd.slots(systemd.active) == {"blue"}


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


def test_who_watches_a_slot_keeps_nobody_waiting(home: Path, systemd: Systemd) -> None:
    with alone(home), server(home.parent / "run-blue/s", healthz=200):
        thread = threading.Thread(target=ask, args=(home, "answering"), kwargs={"slot": "blue"}, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


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
