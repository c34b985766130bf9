"""What releases promise: no request, no task and no way back is lost, whatever a release is like and whenever its run ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tools.console import say
from tools.fleet import MIX, RATE, SITE, Fleet, Step, failed, recap
from tools.load import Answer, Load, Request, percentile, summary

Eventually = Callable[..., Any]
# So many, each so long that the workers of one release hand them over to those of the next
TASKS, SECONDS = 500, 2.5
# Ten releases under load: those between two times of rest, one of them once more after a way back, more of them one after the other, one
# whose runs were killed, one more, and one by site.yml
MEASURED = ["second", "third", "fourth"]
PLAIN = ["fifth", "sixth", "seventh"]
GOOD = [*MEASURED, "fourth again", *PLAIN, "eighth", "ninth", "site"]
# Where each of them leads: every way back goes one release further
BACK = {"back": "third", "back again": "sixth", "further back": "fifth"}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "syntax": ({"text": "def"}, "SyntaxError"),
    "migration": ({"broken": "migration"}, "this migration is broken on purpose"),
    "health": ({"broken": "health"}, "/healthz answered 503"),
    "crash": ({"broken": "crash"}, "after the switch, /late"),
}
# Each step of a release, by the task that it begins with, and how many seconds into it the run is killed
KILLED = {
    "app : artifact | Build the release": 0.5,
    "app : upload | Install its dependencies": 3,
    "app : migrate | Migrate the database": 0.5,
    "celery : service | Start the release's workers": 0.5,
    "celery : service | Leave the tasks to them": 0,
    "gunicorn : service | Wait until it answers": 0.5,
    "gunicorn : service | Send requests to it": 0,
    "gunicorn : service | Watch it while": 2,
    "finish | Write down": 0,
}
# A way back may take so many seconds from the command to the first answer of the older release
GOAL = 10
# Seconds below which a p99 says more of this machine's scheduler than of the site: a steady one below it counts as this much
FLOOR = 0.05
# What a host has that was set up before there were slots
FORMER = """
printf '[Socket]\\nListenStream=/run/ledger-former.sock\\n[Install]\\nWantedBy=sockets.target\\n' > /etc/systemd/system/ledger-web.socket
printf '[Service]\\nExecStart=/usr/bin/sleep infinity\\n' > /etc/systemd/system/ledger-web.service
systemctl daemon-reload
systemctl --quiet enable --now ledger-web.socket
"""


@pytest.fixture(scope="module")
def history(host: Any, fleet: Fleet, load: Load) -> list[Answer]:
    """All that an operator does in a busy week, under load; the answers of the site meanwhile."""
    novel = ("common", "novel")
    load.start()
    fleet.rest("steady", load, 20)
    for number, name in enumerate(MEASURED):
        fleet.enqueue(number * TASKS // 3 + 1, (number + 1) * TASKS // 3, SECONDS)
        fleet.variant(name)
        fleet.run(name)
    fleet.run("back", "playbooks/rollback.yml")
    fleet.rest("steady again", load, 10)
    fleet.run("fourth again")
    fleet.run("unchanged")
    for kind, (how, _) in BROKEN.items():
        fleet.variant(kind, **how)
        fleet.run(kind)
    for name in PLAIN:
        fleet.variant(name, tasks=novel if name == "seventh" else ("common",))
        fleet.run(name)
    fleet.run("back again", "playbooks/rollback.yml")
    fleet.enqueue(-5, -1, 0, "novel")
    fleet.run("further back", "playbooks/rollback.yml")
    fleet.variant("eighth", tasks=novel)
    for task, seconds in KILLED.items():
        fleet.kill(task, seconds)
    fleet.run("eighth")
    fleet.variant("ninth", tasks=novel)
    fleet.run("ninth")
    with host.sudo():
        host.check_output(FORMER)
    fleet.run("without slots")
    fleet.variant("tenth", tasks=novel)
    fleet.run("site", "site.yml", app_environment={"SETTING": "2"})
    fleet.run("site again", "site.yml", app_environment={"SETTING": "2"})
    return load.stop()


def step(fleet: Fleet, name: str) -> Step:
    return next(found for found in fleet.steps if found.name == name)


def test_no_request_is_lost(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a switch, a stop or a way back that a client notices."""
    say(json.dumps(summary(history)))
    for one in fleet.steps:
        say(f"{one.name}: {one.seconds:.1f} s, serves {one.live}")
    crash = step(fleet, "crash")
    lost = [(answer.request.path, answer.status, answer.error, answer.due) for answer in failed(history)]
    # One that reaches a process as it crashes is gone with it: the application waits for a quiet moment, which may end just then
    in_crash = [one for one in lost if crash.begin <= one[3] < crash.end]
    say(f"{len(lost)} lost, {len(in_crash)} of them as an application crashed")
    assert [one for one in lost if one not in in_crash] == []
    assert len(in_crash) <= 1
    assert len(history) > 3000


def test_every_acknowledged_post_is_a_row(fleet: Fleet, history: list[Answer]) -> None:
    rows = fleet.counts("entries")
    taken = [answer.number for answer in history if answer.request.method == "POST" and answer.good]
    assert [number for number in taken if number not in rows] == []


def test_answers_stay_fast(fleet: Fleet, history: list[Answer]) -> None:
    """Catches requests that wait for a release: of a hundred of them the slowest may take twice what it takes when nobody releases."""
    seconds: dict[str, list[float]] = {}
    for one in fleet.steps:
        during = [answer.seconds for answer in history if one.begin <= answer.due < one.end and answer.request.path != "/nap"]
        seconds[one.name] = during
        say(f"{one.name}: p50 {percentile(during, 0.5):.3f} s, p99 {percentile(during, 0.99):.3f} s of {len(during)}")
    steady = percentile(seconds["steady"] + seconds["steady again"], 0.99)
    released = percentile([taken for name in MEASURED for taken in seconds[name]], 0.99)
    say(f"p99 in a release {released:.3f} s, {released / steady:.1f} times the steady {steady:.3f} s (which counts as {FLOOR} s at least)")
    assert released <= 2 * max(steady, FLOOR)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_release_serves(fleet: Fleet, history: list[Answer], name: str) -> None:
    found = step(fleet, name)
    assert found.code == 0, found.output[-4000:]
    assert found.live == {"fourth again": "fourth", "site": "tenth"}.get(name, name)


@pytest.mark.parametrize("name", ["unchanged", "site again"])
def test_an_unchanged_release_changes_nothing(fleet: Fleet, history: list[Answer], name: str) -> None:
    found = step(fleet, name)
    assert (found.code, set(recap(found.output).values())) == (0, {0}), found.output[-4000:]


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


@pytest.mark.parametrize("name", BACK)
def test_a_way_back_skips_what_is_bad(fleet: Fleet, history: list[Answer], name: str) -> None:
    """Catches a way back to a release that failed, or that was left by a way back before."""
    back = step(fleet, name)
    assert (back.code, back.live) == (0, BACK[name]), back.output[-4000:]
    assert "No migration lies between them" in " ".join(back.output.split())


def test_a_way_back_is_quick(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a way back that builds, gathers or waits as a release does."""
    release = percentile([step(fleet, name).traffic for name in MEASURED], 0.5)
    back = step(fleet, "back").traffic
    say(f"{back:.1f} s from the command to the older release (goal: {GOAL} s), {back / release:.2f} of the {release:.1f} s of a release")
    assert 0 < back < min(GOAL, release)


def test_no_task_is_lost(fleet: Fleet, history: list[Answer], eventually: Eventually) -> None:
    """Catches a task that goes with the worker that held it, and one that no worker knew for a while."""
    wanted = {*range(1, TASKS + 1), *range(-5, 0)}
    eventually(lambda: wanted <= set(fleet.counts("results")), within=60)
    counts = fleet.counts("results")
    say(
        f"{len(counts)} tasks done, {sum(count > 1 for count in counts.values())} of them more than once; by release: {fleet.get('/shares')}"
    )
    assert {"second", "third", "fourth"} <= set(json.loads(fleet.get("/shares")))


@pytest.mark.parametrize("task", KILLED)
def test_a_killed_run_leaves_the_site_as_it_was_or_as_it_shall_be(fleet: Fleet, history: list[Answer], task: str) -> None:
    found = step(fleet, f"killed at {task}")
    assert found.code == -9, found.output[-3000:]
    assert found.live in {"fifth", "eighth"}


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
    good = [line["what"] for line in lines if line["result"] == "ok"]
    assert (good.count("deploy") > len(GOOD), good.count("rollback") >= len(BACK)) == (True, True)
    assert len([line for line in lines if line["result"] == "failed"]) >= len(BROKEN)
    assert all(line["who"] and line["to"] and line["seconds"] > 0 for line in lines)
    assert lines[-1]["to"] in journal


def test_a_host_without_slots_is_refused_and_mended(host: Any, fleet: Fleet, history: list[Answer]) -> None:
    """Catches a release that a web server of the time before the slots never sees, and units of that time that stay."""
    found = step(fleet, "without slots")
    assert found.code != 0
    assert "run site.yml once" in found.output, found.output[-3000:]
    assert (found.live, host.run("systemctl is-active ledger-web.socket").stdout.strip()) == ("ninth", "inactive")
    assert not host.file("/etc/systemd/system/ledger-web.socket").exists


def test_a_page_from_before_the_switch_finds_its_static_files(fleet: Fleet, history: list[Answer]) -> None:
    """Catches files that go with the switch, while browsers still show pages that name them."""
    status = {name: fleet.ask(Request("GET", f"/static/{name}.css"))[0] for name in ("tenth", "ninth", "second")}
    assert status == {"tenth": 200, "ninth": 200, "second": 404}


def test_a_closed_site_says_so_and_the_status_is_a_table(fleet: Fleet, history: list[Answer]) -> None:
    """Catches a status that lacks what one looks for first, and a maintenance page that closes nothing, or its health too."""
    closed = fleet.run("closed", "playbooks/maintenance.yml", maintenance=True)
    found = fleet.run("status", "playbooks/status.yml")
    answers = [fleet.ask(Request("GET", path))[0] for path in ("/", "/healthz")]
    opened = fleet.run("open", "playbooks/maintenance.yml", maintenance=False)
    say(found.output)
    assert (closed.code, found.code, opened.code) == (0, 0, 0), closed.output + found.output + opened.output
    assert answers == [503, 200]
    assert opened.live == "tenth"
    for text in ("live", "/healthz 200", "bad: ", "nginx.service", "days", "none pending", "ledger is closed"):
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
    load = Load(SITE, MIX, RATE, fleet.ca_file, fleet.address)
    load.start()
    with host.sudo():
        for _ in range(3):
            host.check_output("slot=$(readlink /srv/ledger/web/live); systemctl restart ledger-web@$slot.socket ledger-web@$slot.service")
    told = summary(load.stop())
    say(json.dumps(told))
    assert int(str(told["failed"])) > 0
