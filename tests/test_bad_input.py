"""Each role refuses bad input before anything on a host changes, in one message: variable, value, what is allowed, file to change.

A row of tests/bad_input*.py is a host of an inventory. One ansible-playbook run takes each role's own tasks/validate.yml over the role's
rows, with faked facts and no connection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bad_input import ACCEPTED, ALL, CASES, UNKNOWN_RELEASE
from tests.bad_input_examples import GOOD, OTHER_PAIR, ROOT, SECRET, Case
from tests.rendering import PREFIXED_FACTS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One run, a play a role, over all cases: each in a host of its own, its variables in inventory/host_vars."""
    folder = tmp_path_factory.mktemp("bad_input")
    (folder / "inventory/host_vars").mkdir(parents=True)
    groups: dict[str, Any] = {role: {"hosts": {}} for role in GOOD}
    for case in ALL:
        groups[case.role]["hosts"][case.host] = {"faked": case.facts}
        (folder / "inventory/host_vars" / f"{case.host}.yml").write_text(yaml.safe_dump({**GOOD[case.role], **case.variables}))
    (folder / "inventory/hosts.yml").write_text(yaml.safe_dump(groups))
    facts = {name: f"{{{{ faked.{name} | default({value!r}) }}}}" for name, value in PREFIXED_FACTS.items()}
    plays = [
        {
            "name": f"Validate {role}",
            "hosts": role,
            "gather_facts": False,
            "tasks": [
                {
                    "name": "Pretend to have gathered facts",
                    "ansible.builtin.set_fact": {**facts, "cacheable": True},
                    "run_once": not any(case.facts for case in ALL if case.role == role),
                },
                {"name": f"Validate {role}", "ansible.builtin.import_role": {"name": role, "tasks_from": "validate"}},
            ],
        }
        for role in GOOD
    ]
    (folder / "play.yml").write_text(yaml.safe_dump(plays))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_NOCOLOR": "1",
    }
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory", "-c", "local", "-f", "4", "--check", "play.yml"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def message(run: subprocess.CompletedProcess[str], host: str) -> str:
    """What the task said when it failed on a host."""
    marker = f"fatal: [{host}]: FAILED! => "
    assert marker in run.stdout, f"{host} was not refused:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    text: str = json.JSONDecoder().raw_decode(run.stdout[run.stdout.index(marker) + len(marker) :])[0]["msg"]
    return text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.host)
def test_bad_input_is_refused(run: subprocess.CompletedProcess[str], case: Case) -> None:
    text = message(run, case.host)
    assert text.startswith(f"Role {case.role} refuses ")
    variable = case.expected[0]
    problem = next((part for part in text.split("\n")[1:] if part.startswith(variable)), None)
    assert problem is not None, text
    for fragment in case.expected:
        assert fragment in text
    assert f"inventory/host_vars/{case.host}.yml" in text or "set it in inventory/group_vars/all/" in text
    assert "check failed" not in text


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.host)
def test_good_input_is_accepted(run: subprocess.CompletedProcess[str], case: Case) -> None:
    assert f"fatal: [{case.host}]" not in run.stdout, message(run, case.host)
    assert f"ok: [{case.host}]" in run.stdout, run.stderr


def test_a_release_without_a_known_version_is_refused(run: subprocess.CompletedProcess[str]) -> None:
    """Catches a run that changes base and firewall before it finds that it cannot install the database."""
    assert "roles/postgresql/vars/Ubuntu-24.yml" in message(run, UNKNOWN_RELEASE.host)


def test_nothing_is_changed_and_no_secret_is_shown(run: subprocess.CompletedProcess[str]) -> None:
    output = run.stdout + run.stderr
    assert "refuses" in output
    assert "changed: [" not in output
    for secret in (SECRET, "k3Jd9s", "your secret key", *OTHER_PAIR[1].splitlines()[1:2]):
        assert secret not in output
