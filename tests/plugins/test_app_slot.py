"""The slots of a service: which one serves, after each step and after each failure. systemd is stood in for; the scenarios have a real one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.app_releases import ReleaseError, select

from plugins.modules import app_release
from tests.plugins.slots import Systemd, ask, move, server


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
