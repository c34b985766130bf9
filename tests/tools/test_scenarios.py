"""Molecule scenarios: their counts, their order, and what is shown of a failure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tools import scenarios
from tools.console import Problem

PASSED = "============================= 12 passed in 6.31s =============================\n"
FAILED = """\
INFO     [nginx > verify] Executing
=================================== FAILURES ===================================
__________________________ test_redirect[debian13] _____________________________
E       assert 200 == 301
=========================== short test summary info ============================
FAILED test_nginx.py::test_redirect[debian13]
==================== 1 failed, 11 passed, 2 skipped in 5.01s ===================
INFO     [nginx > destroy] Executing
"""
TASK = """\
TASK [install | Install nginx] *************************************************
ok: [debian12]
TASK [configure | Write the sites] *********************************************
fatal: [debian13]: FAILED! =>
    msg: no such variable

PLAY RECAP *********************************************************************
debian13 : ok=1 changed=0 unreachable=0 failed=1
CRITICAL Ansible return code was 2, command was: ansible-playbook --check
PLAY [Destroy the hosts]
"""


def result(tmp_path: Path, text: str, code: int) -> scenarios.Result:
    log = tmp_path / "molecule.log"
    log.write_text(text)
    return scenarios.Result("nginx", code, 12.0, log)


@pytest.mark.parametrize(
    ("text", "code", "counts"),
    [
        (PASSED, 0, (12, 0)),
        (FAILED, 1, (11, 1)),
        ("\x1b[32m" + PASSED, 0, (12, 0)),
        # A failure outside of the tests counts, even where the tests have passed
        (PASSED, 1, (12, 1)),
        (TASK, 2, (0, 1)),
        ("= 3 passed, 2 errors in 1.00s =\n", 1, (3, 2)),
    ],
)
def test_counts(tmp_path: Path, text: str, code: int, counts: tuple[int, int]) -> None:
    assert result(tmp_path, text, code).tests() == counts


def test_failed_tests_are_shown_whole_and_nothing_else(tmp_path: Path) -> None:
    shown = scenarios.failure_report(result(tmp_path, FAILED, 1))
    assert shown.splitlines()[0].strip("= ") == "FAILURES"
    assert shown.splitlines()[-1].endswith("2 skipped in 5.01s ===================")


def test_a_failed_task_is_shown_with_its_name_and_the_step(tmp_path: Path) -> None:
    shown = scenarios.failure_report(result(tmp_path, TASK, 2))
    assert shown.splitlines()[0].startswith("TASK [configure | Write the sites]")
    assert "Install nginx" not in shown
    assert shown.splitlines()[-1].startswith("CRITICAL Ansible return code was 2")


def test_anything_else_shows_the_end_of_the_log(tmp_path: Path) -> None:
    text = "\n".join(f"line {number}" for number in range(100))
    assert scenarios.failure_report(result(tmp_path, text, 1)).splitlines() == [f"line {number}" for number in range(40, 100)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FAILED, "FAILED test_nginx.py::test_redirect[debian13]"),
        (TASK, "TASK [configure | Write the sites] fatal: [debian13]: FAILED! =>"),
        ("no such scenario\n", "no such scenario"),
    ],
)
def test_the_last_lines_name_what_failed(tmp_path: Path, text: str, line: str) -> None:
    assert scenarios.culprits(result(tmp_path, text, 1)) == [line]


def test_the_longest_scenario_starts_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "TIMES", tmp_path / "times.json")
    assert scenarios.longest_first(["base", "default", "tls"]) == ["default", "tls", "base"]
    scenarios.TIMES.write_text(json.dumps({"base": 40, "default": 300, "tls": 90}))
    assert scenarios.longest_first(["base", "new", "default", "tls"]) == ["new", "default", "tls", "base"]


@pytest.mark.parametrize(("cores", "gigabytes", "at_a_time"), [(2, 24, 3), (2, 4, 1), (8, 12, 4), (1, 1, 1)])
def test_cores_and_memory_decide_how_many_run(monkeypatch: pytest.MonkeyPatch, cores: int, gigabytes: int, at_a_time: int) -> None:
    monkeypatch.delenv("GROUNDCREW_JOBS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(scenarios, "available_bytes", lambda: gigabytes * 1024**3)
    assert scenarios.jobs() == at_a_time


def test_the_operator_decides_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDCREW_JOBS", "5")
    assert scenarios.jobs() == 5
    monkeypatch.setenv("GROUNDCREW_JOBS", "many")
    with pytest.raises(Problem, match="GROUNDCREW_JOBS is 'many'"):
        scenarios.jobs()


def test_the_long_history_runs_only_where_it_is_named() -> None:
    """Catches a suite that takes half an hour longer, and a history of releases that nobody can run."""
    assert scenarios.chosen([*scenarios.SOAK]) == [*scenarios.SOAK]
    assert sorted([*scenarios.chosen([]), *scenarios.SOAK]) == scenarios.all_scenarios()
    with pytest.raises(Problem, match=r"no scenario release$"):
        scenarios.chosen(["release"])
