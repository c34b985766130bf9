"""Files of tasks that an operator names run before and after the steps of a release, and one that fails is a step that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
STEPS = ROOT / "tests/fixtures/steps"
NAMES = {
    "gunicorn": ["before_start", "after_start", "before_switch", "after_switch", "before_stop", "after_stop", "after_failure"],
    "celery": ["before_workers", "after_workers", "after_failure"],
}
ORDER = {
    "gunicorn": ["recovered", "compared", "before_start", "started", "answering", "after_start", "before_switch", "live", "after_switch", "before_stop",
                 "drained", "stopped", "after_stop"],
    "celery": ["recovered", "compared", "before_workers", "started", "live", "stopped", "after_workers"],
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What was done one after the other, by role and host: one moves, one stays, and one has a hook that fails after the switch."""
    folder = tmp_path_factory.mktemp("hooks")
    (folder / "cases.json").write_text(json.dumps({case: {"reasons": ["release new is wanted"]} for case in ("moves", "ill")}))
    (folder / "ill.yml").write_text(yaml.safe_dump([{"name": "Fail", "ansible.builtin.fail": {"msg": "on purpose"}}]))
    note = 'echo \'{"case": "{{ inventory_hostname }}", "state": "%s"}\' >> {{ lookup("ansible.builtin.env", "STEPS_CALLS") }}'
    found: dict[str, list[str]] = {}
    for role, names in NAMES.items():
        hooks = {name: [str(folder / f"{name}.yml")] for name in names}
        for name in names:
            (folder / f"{name}.yml").write_text(yaml.safe_dump([{"name": f"Note {name}", "ansible.builtin.shell": note % name}]))
        variables = {
            "ansible_python_interpreter": sys.executable, f"{role}_name": "{{ inventory_hostname }}", f"{role}_application": "shop:app",
            f"{role}_root": "/srv/{{ inventory_hostname }}/current", f"{role}_hooks": hooks,
        }  # fmt: skip
        ill = {f"{role}_hooks": {**hooks, "after_switch": [str(folder / "ill.yml")]}} if role == "gunicorn" else {}
        hosts = {"all": {"hosts": {"moves": {}, "stays": {}, "ill": ill}, "vars": variables}}
        tasks = [{"name": "Run", "ansible.builtin.import_role": {"name": role, "tasks_from": "service"}}]
        (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
        (folder / "play.yml").write_text(yaml.safe_dump([{"name": "Run", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
        environment = {
            **os.environ, "STEPS_CASES": str(folder / "cases.json"), "STEPS_CALLS": str(folder / role), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_ACTION_PLUGINS": f"{STEPS / 'action'}:{ROOT / 'plugins/action'}", "PATH": f"{STEPS / 'bin'}:{os.environ['PATH']}",
        }  # fmt: skip
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "hosts.yml", "-c", "local", "play.yml"]
        environment["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (folder / role).exists(), done.stdout + done.stderr
        for line in (folder / role).read_text().splitlines():
            call = json.loads(line)
            found.setdefault(f"{role} {call['case']}", []).append(call["state"])
    return found


@pytest.mark.parametrize("role", NAMES)
def test_hooks_run_where_they_belong(calls: dict[str, list[str]], role: str) -> None:
    assert calls[f"{role} moves"] == ORDER[role]


@pytest.mark.parametrize("role", NAMES)
def test_nothing_to_do_runs_no_hook(calls: dict[str, list[str]], role: str) -> None:
    assert not {*calls[f"{role} stays"]} & {*NAMES[role]}


def test_a_hook_that_fails_brings_the_old_slot_back(calls: dict[str, list[str]]) -> None:
    """Catches a release that goes on serving after its own check after the switch has failed."""
    assert [name for name in calls["gunicorn ill"] if name not in NAMES["gunicorn"][:-1]] == [
        *("recovered", "compared", "started", "answering", "live", "returned", "after_failure")
    ]


def known(role: str) -> list[str]:
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    return list(specs["argument_specs"]["main"]["options"][f"{role}_hooks"]["options"])


def test_each_role_knows_the_hooks_of_its_steps() -> None:
    """Catches a hook that the operator may name and no role runs."""
    assert {role: known(role) for role in NAMES} == NAMES
    steps = "".join(path.read_text() for path in (ROOT / "roles/app/tasks").glob("*.yml"))
    assert {name for name in known("app") if f"app_hooks.{name} " not in steps} == {*NAMES["celery"], *NAMES["gunicorn"]}
