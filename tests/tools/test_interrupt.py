"""Runs that are killed half-way."""

from __future__ import annotations

from tools import interrupt

SCRIPT = "for n in 1 2 3; do echo 'TASK [write | Write '$n'] ***'; echo 'changed: [host]'; done; exec sleep $0"


def test_a_run_is_killed_at_the_change_asked_for() -> None:
    code, lines = interrupt.run(["sh", "-c", SCRIPT, "600"], 2)
    assert code is None
    assert interrupt.last_task(lines) == "TASK [write | Write 2]"
    assert sum(line.startswith("changed") for line in lines) == 2


def test_a_run_with_fewer_changes_ends_by_itself() -> None:
    code, lines = interrupt.run(["sh", "-c", SCRIPT, "0"], 9)
    assert code == 0
    assert len(lines) == 6
