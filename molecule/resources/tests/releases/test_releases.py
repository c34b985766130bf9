"""What releases promise: no request, no task and no way back is lost, whatever a release is like and whenever its run ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tools.console import say
from tools.fleet import MIX, SITE, Fleet, Step, failed, recap
from tools.load import Answer, Load, percentile, summary

Eventually = Callable[..., Any]
TASKS = 500
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "syntax": ({"text": "def"}, "SyntaxError"),
    "migration": ({"broken": "migration"}, "this migration is broken on purpose"),
    "health": ({"broken": "health"}, "/healthz answered 503"),
    "late": ({"broken": "late"}, "after the switch, /late answered 500"),
}
# One of each kind of step: before anything, half-way on disk, with the new slot beside the old, and on both sides of the switch
KILLED = [
    "app : upload | Install its dependencies",
    "app : migrate | Migrate the database",
    "celery : service | Leave the tasks to them",
    "gunicorn : service | Wait until it answers",
    "gunicorn : service | Watch it while",
    "finish | Write down",
]


@pytest.fixture(scope="module")
def history(fleet: Fleet, load: Load) -> list[Answer]:
    """All that an operator does in a busy week, under load; the answers of the site meanwhile."""
    load.start()
    steady = time.time()
    # The site as it is when nobody releases anything
    time.sleep(10)
    fleet.steps.append(Step("steady", steady, time.time(), 0, "", fleet.get("/")))
    for number, name in enumerate(["second", "third", "fourth"]):
        fleet.enqueue(number * TASKS // 3 + 1, (number + 1) * TASKS // 3, 0.3)
        fleet.variant(name)
        fleet.run(name)
    fleet.run("unchanged")
    for kind, (how, _) in BROKEN.items():
        fleet.variant(kind, **how)
        fleet.run(kind)
    fleet.variant("fifth", tasks=("common", "novel"))
    fleet.run("fifth")
    fleet.run("back", "playbooks/rollback.yml")
    fleet.enqueue(-5, -1, 0, "novel")
    fleet.run("further back", "playbooks/rollback.yml")
    fleet.run("fifth again")
    fleet.variant("sixth", tasks=("common", "novel"))
    for task in KILLED:
        fleet.kill(task)
    fleet.run("sixth")
    fleet.run("site", "site.yml", app_environment={"SETTING": "2"})
    return load.stop()


def step(fleet: Fleet, name: str) -> Step:
    return next(found for found in fleet.steps if found.name == name)


def test_no_request_is_lost(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a switch, a stop or a way back that a client notices."""
    say(json.dumps(summary(history)))
    for one in fleet.steps:
        say(f"{one.name}: {one.seconds:.1f} s, serves {one.live}")
    lost = [(answer.request.path, answer.status, answer.error, answer.due) for answer in failed(history)]
    assert lost == []
    assert len(history) > 3000


def test_every_acknowledged_post_is_a_row(fleet: Fleet, history: list[Answer]) -> None:
    rows = fleet.counts("entries")
    taken = [answer.number for answer in history if answer.request.method == "POST" and answer.good]
    assert [number for number in taken if number not in rows] == []


def test_answers_stay_fast(fleet: Fleet, history: list[Answer]) -> None:
    """Catches requests that wait for a release."""
    seconds: dict[str, list[float]] = {}
    for one in fleet.steps:
        during = [answer.seconds for answer in history if one.begin <= answer.due < one.end and answer.request.path != "/nap"]
        seconds[one.name] = during
        say(f"{one.name}: p50 {percentile(during, 0.5):.3f} s, p99 {percentile(during, 0.99):.3f} s of {len(during)}")
    steady = percentile(seconds["steady"], 0.99)
    assert percentile([one for name in ("second", "third", "fourth") for one in seconds[name]], 0.99) < max(2 * steady, 1.0)


@pytest.mark.parametrize("name", ["second", "third", "fourth", "fifth", "fifth again", "sixth", "site"])
def test_a_good_release_serves(fleet: Fleet, history: list[Answer], name: str) -> None:
    found = step(fleet, name)
    assert found.code == 0, found.output[-4000:]
    assert found.live == {"fifth again": "fifth", "site": "sixth"}.get(name, name)


def test_an_unchanged_release_changes_nothing(fleet: Fleet, history: list[Answer]) -> None:
    assert set(recap(step(fleet, "unchanged").output).values()) == {0}


def test_a_release_touches_nothing_else(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a task of a database, a cache or a firewall in a release of the application."""
    roles = {
        line.split("[")[1].split(" : ")[0]
        for line in step(fleet, "second").output.splitlines()
        if line.startswith("TASK [") and " : " in line
    }
    assert roles <= {"app", "celery", "gunicorn"}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_release_is_refused_with_its_reason(fleet: Fleet, history: list[Answer], kind: str) -> None:
    """Catches a broken release that serves, and one of which nobody learns why."""
    found = step(fleet, kind)
    assert found.code != 0
    assert BROKEN[kind][1] in found.output, found.output[-4000:]
    assert found.live == "fourth"


def test_a_way_back_skips_what_is_bad_and_is_quick(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a way back to a release that failed, and one that takes as long as a release."""
    back, further = step(fleet, "back"), step(fleet, "further back")
    assert (back.code, back.live) == (0, "fourth"), back.output[-4000:]
    assert (further.code, further.live) == (0, "third"), further.output[-4000:]
    release = step(fleet, "fourth")
    say(f"traffic is back in {back.traffic:.1f} s and {further.traffic:.1f} s; a release takes {release.traffic:.1f} s to it")
    assert 0 < max(back.traffic, further.traffic) < 10
    assert "No migration lies between them" in back.output


def test_no_task_is_lost(fleet: Fleet, history: list[Answer], eventually: Eventually) -> None:
    """Catches a task that goes with the worker that held it, and one that no worker knew for a while."""
    wanted = {*range(1, TASKS + 1), *range(-5, 0)}
    eventually(lambda: wanted <= set(fleet.counts("results")), within=60)
    counts = fleet.counts("results")
    say(f"{len(counts)} tasks done, {sum(count > 1 for count in counts.values())} of them more than once")


@pytest.mark.parametrize("task", KILLED)
def test_a_killed_run_leaves_the_site_as_it_was_or_as_it_shall_be(fleet: Fleet, history: list[Answer], task: str) -> None:
    found = step(fleet, f"killed at {task}")
    assert found.code == -9, found.output[-3000:]
    assert found.live in {"fifth", "sixth"}


def test_one_slot_is_left(host: Any, fleet: Fleet, history: list[Answer], eventually: Eventually) -> None:
    """Catches slots that stay behind after killed and broken runs."""
    with host.sudo():
        for service in ("web@*.service", "worker-default@*.service"):
            units = f"systemctl list-units --plain --no-legend 'ledger-{service}'"
            assert eventually(lambda units=units: len(host.check_output(units).splitlines()) == 1)
        # Four good ones and two bad ones, and what a slot is pinned to
        assert len(host.check_output("ls /srv/ledger/releases").split()) <= 8


def test_every_release_is_written_down(host: Any, fleet: Fleet, history: list[Answer]) -> None:
    with host.sudo():
        lines = [json.loads(line) for line in host.check_output("cat /var/log/ledger/releases.log").splitlines()]
        journal = host.check_output("journalctl --no-pager -o cat -t ledger-release")
    assert {"ok", "failed"} <= {line["result"] for line in lines}
    assert all(line["who"] and line["to"] and line["seconds"] > 0 for line in lines)
    assert lines[-1]["to"] in journal


def test_the_status_is_a_table(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a status that lacks what one looks for first."""
    found = fleet.run("status", "playbooks/status.yml")
    say(found.output)
    assert found.code == 0, found.output
    for text in ("live", "/healthz 200", "bad: ", "nginx.service", "days", "none pending"):
        assert text in found.output


def test_a_second_release_at_the_same_time_is_told_who_releases(host: Any, fleet: Fleet, history: list[Answer]) -> None:
    with host.sudo():
        host.check_output(
            """echo '{"id": "1-1", "who": "ann@desk", "since": "noon", "machine": "x", "at": 9e9}' > /run/groundcrew/ledger-release"""
        )
    try:
        found = fleet.run("locked")
    finally:
        with host.sudo():
            host.check_output("rm /run/groundcrew/ledger-release")
    assert found.code != 0
    assert "ann@desk releases since noon" in found.output


def test_the_load_would_have_noticed(host: Any, fleet: Fleet, history: list[Answer]) -> None:
    """Catches a load that no failure shows in: a restart in place of the slots does."""
    load = Load(SITE, MIX, 30, fleet.ca_file, fleet.address)
    load.start()
    with host.sudo():
        for _ in range(3):
            host.check_output("slot=$(readlink /srv/ledger/web/live); systemctl restart ledger-web@$slot.socket ledger-web@$slot.service")
    told = summary(load.stop())
    say(json.dumps(told))
    assert int(str(told["failed"])) > 0
