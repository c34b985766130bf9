"""One release at a time: who gets the lock, who is told, and whose lock is taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from plugins.action.app_lock import has_ended, machine, started, this_run
from plugins.modules.app_lock import free, hold, holder_of

ROOT = Path(__file__).parents[2]
ANN: dict[str, Any] = {"id": "1-1", "who": "ann@desk", "start": 1.0}
BOB: dict[str, Any] = {"id": "2-2", "who": "bob@desk"}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_the_second_is_told_who_holds_it_until_it_is_free(lock: Path) -> None:
    assert hold(lock, ANN, "", 60)["who"] == "ann@desk"
    assert hold(lock, {**ANN, "start": 2.0}, "", 60)["start"] == 1.0
    assert hold(lock, BOB, "", 60)["who"] == "ann@desk"
    assert free(lock, "2-2")["who"] == "ann@desk"
    assert free(lock, "1-1") == {}
    assert hold(lock, BOB, "", 60)["who"] == "bob@desk"
    assert os.listdir(lock.parent) == ["lock"]


def test_of_many_at_once_one_gets_it(lock: Path) -> None:
    """Catches two runs that both hold the lock, also when both take it over from a run that has ended."""
    lock.write_text(json.dumps({"id": "0-0", "who": "gone", "at": 9e9}))
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: hold(lock, {"id": f"{number}-1", "who": str(number)}, "0-0", 60)["id"], range(20)))
    assert "0-0" not in found
    assert holder_of(lock)["id"] in found
    assert hold(lock, BOB, "", 60)["id"] == holder_of(lock)["id"]


def test_a_run_that_asks_again_lets_nobody_in(lock: Path) -> None:
    """Catches a moment in which a run that renews its lock has none."""
    hold(lock, ANN, "", 60)
    with ThreadPoolExecutor(2) as pool:
        others = pool.submit(lambda: {hold(lock, BOB, "", 60)["who"] for _ in range(300)})
        for _ in range(300):
            assert hold(lock, ANN, "", 60)["who"] == "ann@desk"
        assert others.result() == {"ann@desk"}


def test_a_lock_that_was_left_behind_is_taken_over(lock: Path) -> None:
    hold(lock, ANN, "", 60)
    assert hold(lock, BOB, "1-1", 60)["who"] == "bob@desk"
    assert hold(lock, ANN, "", 0)["who"] == "ann@desk"
    lock.write_text("half")
    assert hold(lock, BOB, "", 60)["who"] == "bob@desk"


def test_only_a_run_of_this_machine_is_known_to_have_ended() -> None:
    run = this_run()
    assert not has_ended(run)
    with subprocess.Popen(["true"]) as process:
        gone = f"{process.pid}-{started(process.pid)}"
    assert has_ended({**run, "id": gone})
    assert has_ended({**run, "id": f"{os.getppid()}-1"})
    assert not has_ended({**run, "id": gone, "machine": "another"})
    assert run["machine"] == machine()


def test_a_run_says_who_holds_the_lock(tmp_path: Path) -> None:
    """Catches an action that lets two runs through, or that says nothing of the other one."""
    play = [
        {
            "name": "Lock",
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"name": "Hold it", "app_lock": {"file": str(tmp_path / "lock"), "state": "held"}},
                {"name": "Free it", "app_lock": {"file": str(tmp_path / "lock"), "state": "free"}},
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml")]
    environment = {**os.environ, "ANSIBLE_PYTHON_INTERPRETER": sys.executable}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "lock").exists()
    hold(tmp_path / "lock", {**ANN, "since": "noon", "machine": "elsewhere"}, "", 60)
    done = run()
    assert done.returncode != 0
    assert "ann@desk releases since noon" in done.stdout
    assert run("--check").returncode == 0
    with subprocess.Popen(["true"]) as process:
        gone = f"{process.pid}-{started(process.pid)}"
    hold(tmp_path / "lock", {**ANN, "id": gone, "machine": machine()}, "1-1", 60)
    assert run().returncode == 0
