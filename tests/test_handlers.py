"""Handlers of roles run where their tasks have asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.console import ROOT

PLAYBOOKS = sorted(ROOT.glob("playbooks/*.yml"))


def conditional(tasks: list[dict[str, Any]], inherited: bool = False) -> Iterator[str]:
    """The roles that tasks import under a condition, their own or a block's."""
    for task in tasks:
        here = inherited or "when" in task
        for section in ("block", "rescue", "always"):
            yield from conditional(task.get(section, []), here)
        if "ansible.builtin.import_role" in task and here:
            yield task["ansible.builtin.import_role"]["name"]


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_no_condition_reaches_the_handlers_of_a_role(playbook: Path) -> None:
    """Catches a restart that never comes: an import gives its condition to the role's handlers, and the last copy of a handler in a play is
    the one that runs, also for what the role's other tasks have notified. include_role gives it to nothing."""
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        entries = [entry["role"] for entry in play.get("roles", [])]
        tasks = [task for section in ("pre_tasks", "tasks", "post_tasks") for task in play.get(section, [])]
        found = [name for name in conditional(tasks) if name in entries and (ROOT / "roles" / name / "handlers").exists()]
        assert found == [], f"{playbook.name}: {play.get('name')}"
