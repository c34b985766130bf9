"""Which step follows which, and what is done where one fails: the roles' own tasks, with the slots stood in for. A host is a case."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STEPS = ROOT / "tests/fixtures/steps"
MOVES = {"reasons": ["release new is wanted"]}
# What the slots of each host say: nothing is to be done where a case says nothing
CASES: dict[str, dict[str, Any]] = {
    "settled": {},
    "moves": MOVES,
    "first": {**MOVES, "live": "", "idle": "blue", "from": ""},
    "killed": {"leftover": True, "unsettled": True},
    "silent": {**MOVES, "fails": "answering"},
    "crashing": {**MOVES, "fails": "drained"},
    "settings": {**MOVES, "fails": "answering", "from": "new"},
    "unreadable": {"fails": "compared"},
    "untested": MOVES,
}
Run = dict[str, Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The calls and the output of both roles, for all cases at once."""
    folder = tmp_path_factory.mktemp("steps")
    (folder / "cases.json").write_text(json.dumps(CASES))
    found = {}
    cases = {"gunicorn": [case for case in CASES if case != "untested"], "celery": ["settled", "moves", "first", "untested"]}
    for role, names in cases.items():
        variables = {
            "ansible_python_interpreter": sys.executable, f"{role}_name": "{{ inventory_hostname }}", f"{role}_application": "shop:app",
            f"{role}_root": "/srv/{{ inventory_hostname }}/current", "gunicorn_companions": [{"host": "worker1", "slots": "/srv/companion/worker"}],
        }  # fmt: skip
        hosts = {"all": {"hosts": dict.fromkeys([*names, "worker1"]), "vars": variables}}
        tasks = [{"name": "Run", "ansible.builtin.import_role": {"name": role, "tasks_from": "service"}}]
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        (folder / "play.yml").write_text(yaml.safe_dump([{"name": "Run", "hosts": "all:!worker1", "gather_facts": False, "tasks": tasks}]))
        calls = folder / f"{role}.calls"
        environment = {
            **os.environ, "STEPS_CASES": str(folder / "cases.json"), "STEPS_CALLS": str(calls), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LIBRARY": f"{STEPS / 'library'}:{ROOT / 'plugins/modules'}", "PATH": f"{STEPS / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            str(folder / "hosts.yml"),
            "-c",
            "local",
            str(folder / "play.yml"),
        ]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        found[role] = {"output": done.stdout, "calls": [json.loads(line) for line in calls.read_text().splitlines()]}
    return found


def states(run: Run, case: str) -> list[str]:
    return [call["state"] for call in run["calls"] if call["case"] == case]


def call(run: Run, case: str, state: str) -> dict[str, Any]:
    (found,) = [call for call in run["calls"] if (call["case"], call["state"]) == (case, state)]
    return dict(found)


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("settled", ["compared", "answering"]),
        ("moves", ["compared", "started", "answering", "live", "drained", "stopped"]),
        ("first", ["compared", "started", "answering", "live", "drained"]),
        ("killed", ["compared", "answering", "live", "drained", "stopped"]),
        ("silent", ["compared", "started", "answering", "returned"]),
        ("crashing", ["compared", "started", "answering", "live", "drained", "returned"]),
        ("unreadable", ["compared"]),
    ],
)
def test_requests_move_step_by_step(runs: dict[str, Run], case: str, wanted: list[str]) -> None:
    """Catches a switch before the gate, a stop before the end of the requests, and a failure that leaves the new slot."""
    assert states(runs["gunicorn"], case) == wanted


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ("settled", ["compared"]),
        ("moves", ["compared", "started", "live", "stopped"]),
        ("first", ["compared", "started", "live"]),
        ("untested", ["compared", "started", "returned"]),
    ],
)
def test_tasks_move_step_by_step(runs: dict[str, Run], case: str, wanted: list[str]) -> None:
    """Catches old workers that stop before the new ones have shown that they do tasks."""
    assert states(runs["celery"], case) == wanted


def test_the_new_slot_is_the_one_that_moves(runs: dict[str, Run]) -> None:
    assert {call(runs["gunicorn"], "moves", state)["slot"] for state in ("started", "answering", "live")} == {"green"}
    assert call(runs["gunicorn"], "killed", "live")["slot"] == "blue"
    assert call(runs["gunicorn"], "crashing", "returned")["slot"] == "green"


def test_a_failure_says_why_and_what_serves(runs: dict[str, Run]) -> None:
    output = runs["gunicorn"]["output"]
    assert "drained went wrong" in output
    assert "Release old serves, as before." in output
    assert "Release new is marked bad, and stays in /srv/crashing/releases/new." in output
    assert "is marked bad, and stays in /srv/settings" not in output
    assert "--unit=silent-web@green.service" in output
    assert "/srv/unreadable/releases/new" not in output
    assert "has not done a task within 330 s" in runs["celery"]["output"]
    assert "--unit=untested-worker-default@green.service" in runs["celery"]["output"]
    assert re.search(r"tasks that the failed release did not know\] \**\n[^\[]*changed: \[untested\]", runs["celery"]["output"])


def test_companions_go_back_with_their_own_units(runs: dict[str, Run]) -> None:
    """Catches the web server's units being stopped in the workers' slots, and workers that go back for a setting of the web server."""
    found = [call for call in runs["gunicorn"]["calls"] if call["root"] == "/srv/companion/worker"]
    assert [(call["state"], call["bad"], call["units"]) for call in found] == [("returned", "new", [])] * 2
