"""What the tests of every scenario share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import testinfra

T = TypeVar("T")
PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


class Eventually(Protocol):
    """Ask again until the answer is true."""

    def __call__(self, ask: Callable[[], T], within: float = 30.0) -> T: ...


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """Return a function that calls `ask` until it returns something true, at most `within` seconds."""

    def wait(ask: Callable[[], T], within: float = 30.0) -> T:
        end = time.monotonic() + within
        pause = 0.05
        while True:
            try:
                answer, trouble = ask(), None
            except Exception as error:  # a connection refused now may be accepted in a moment
                answer, trouble = None, error
            if answer:
                return answer
            if time.monotonic() > end:
                pytest.fail(f"not true within {within:g} s: {trouble or answer!r}")
            # Between two questions, so that asking does not keep the host busy; the bound is above
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    return wait


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return every host of the scenario by its name."""
    backends = testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=request.config.option.ansible_inventory)
    return {str(one.ansible.get_variables()["inventory_hostname"]): one for one in backends}


@pytest.fixture(scope="module")
def addresses(fleet: dict[str, Any]) -> dict[str, str]:
    """Return each host's address in the environment's network."""
    return {name: str(one.ansible.get_variables()["ansible_host"]) for name, one in fleet.items()}


class Run(subprocess.CompletedProcess[str]):
    """A run of a playbook."""

    @property
    def settled(self) -> bool:
        """Whether it came through and had nothing to change."""
        return self.returncode == 0 and set(re.findall(r"changed=(\d+)", self.stdout)) == {"0"}


class Converge(Protocol):
    """Run a playbook, the scenario's role where none is named; variables go over those of the inventory."""

    def __call__(self, *options: str, playbook: str = ..., **variables: Any) -> Run: ...


@pytest.fixture(scope="module")
def converge(host: Any) -> Converge:
    """Return a function that runs a playbook once more from the controller, on the host under test alone."""
    name = host.ansible.get_variables()["inventory_hostname"]

    def run(*options: str, playbook: str = "molecule/resources/converge.yml", **variables: Any) -> Run:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        where = [f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}", f"--limit={name}"]
        command = [program, *where, f"--extra-vars={json.dumps(variables)}", *options, playbook]
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)
        return Run(done.args, done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def exposure(host: Any) -> Callable[[str], float]:
    """Return a function that tells how exposed systemd sees a unit that it knows: 0 to 10, less is better."""

    def ask(unit: str) -> float:
        return float(re.search(r"exposure level for \S+: ([\d.]+)", host.check_output("systemd-analyze security --no-pager %s", unit))[1])  # type: ignore[index]

    return ask


@pytest.fixture(scope="module")
def address(host: Any) -> str:
    """Return the address of the host under test as the controller reaches it."""
    return str(host.ansible.get_variables()["ansible_host"])


@pytest.fixture
def as_root(host: Any) -> Generator[None]:
    """Let the test's commands run as root; the login user is an ordinary one."""
    with host.sudo():
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests marked one_release to Debian 13: what they ask is the same on both releases, and a run of Ansible takes its time;
    and those marked soak to `make soak`."""
    left = [
        item
        for item in items
        if (item.get_closest_marker("one_release") and "ansible://debian12" in item.name)
        or (item.get_closest_marker("soak") and "GROUNDCREW_SOAK" not in os.environ)
    ]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the host's journal said last to the report of a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.when == "call" and report.failed and host is not None:
        with host.sudo():
            journal = host.run("journalctl --no-pager -p warning -n 40; systemctl --failed --no-pager").stdout
        report.sections.append(("journal of the host", journal))
    return report
