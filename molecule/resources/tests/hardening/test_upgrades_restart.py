"""What role upgrades promises of the restart itself. After all other tests of the scenario, as it takes the hosts down."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest
import testinfra

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


class Before(NamedTuple):
    """A host before its restart."""

    container: Any
    started: str
    restarts: int


def name_of(host: Any) -> str:
    return str(host.ansible.get_variables()["inventory_hostname"])


def restarts(host: Any) -> int:
    said = str(host.run_expect([0], "sudo journalctl --output=cat --unit=groundcrew-reboot.service").stdout)
    return said.count("Restart: its updates ask for it")


@pytest.fixture(scope="session")
def slot() -> str:
    """When the slot opens: after one run of Ansible, at a full minute."""
    return f"{datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2):%a %H:%M}"


@pytest.fixture(scope="session")
def armed(request: pytest.FixtureRequest, slot: str) -> dict[str, Before]:
    """Give all hosts one slot, in one run, so that they restart at the same time: one after the other, they would take twice as long."""
    day, start = slot.lower().split()
    before = {}
    for host in testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=request.config.option.ansible_inventory):
        container = docker.from_env().containers.get(f"groundcrew-hardening-{name_of(host)}")
        before[name_of(host)] = Before(container, container.attrs["State"]["StartedAt"], restarts(host))
        host.run_expect([0], "sudo touch /run/reboot-required")
    variables = {
        "upgrades_window": {"days": [day], "start": start, "minutes": 10},
        "upgrades_slot_minutes": 10,
        "upgrades_before_reboot": [f"echo {start} >> /var/lib/before-reboot"],
    }
    program = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}"]
    command = [*program, f"--extra-vars={json.dumps(variables)}", "molecule/hardening/upgrades.yml"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    print(f"slot at {start}, now {datetime.datetime.now(datetime.UTC):%H:%M:%S}")
    return before


def test_the_host_restarts_by_itself_in_its_slot(host: Any, armed: dict[str, Before], slot: str, eventually: Any) -> None:
    """Catches a timer that nothing starts, commands before the restart that do not run, and hardening that a restart undoes."""
    container, started, earlier = armed[name_of(host)]

    def gone() -> bool:
        container.reload()
        return bool(container.status != "running" or container.attrs["State"]["StartedAt"] != started)

    eventually(gone, within=240)
    # The engine of a machine that is restarted; a server's own firmware does that
    container.start()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=90)
    assert host.run_expect([0], "sudo cat /var/lib/before-reboot").stdout.splitlines()[-1] == slot.split()[1]
    assert restarts(host) == earlier + 1
    assert not host.file("/run/reboot-required").exists
    # What must have come back by itself
    assert "systemd-journald" not in host.run_expect([0], "ps -e -o args").stdout
    assert "noexec" in host.run_expect([0], "findmnt --noheadings --output OPTIONS /dev/shm").stdout
    assert host.run_expect([0], "rm -f made; touch made && stat --format=%a made").stdout.strip() == "640"
