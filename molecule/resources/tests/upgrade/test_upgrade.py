"""What playbooks/upgrade.yml promises, of hosts that really restart. In order: each test leaves the hosts as the next one needs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
WORKER, WEB = "shop-worker-default@blue.service", "shop-web@blue.service"
# The one with the worker first
ORDER = ["host2", "host1"]


def container(name: str) -> Any:
    return docker.from_env().containers.get(f"groundcrew-upgrade-{name}")


def started(name: str) -> str:
    return str(container(name).attrs["State"]["StartedAt"])


def edges(fleet: dict[str, Any], host: str) -> set[str]:
    """What the proxies of both hosts think of one as an application host."""
    ask = "echo show stat | sudo socat - UNIX-CONNECT:/run/haproxy/admin.sock"
    said = [fleet[edge].run_expect([0], ask).stdout for edge in ORDER]
    return {line.split(",")[17].split()[0] for text in said for line in text.splitlines() if line.startswith(f"shop,{host},")}


def upgrade(**variables: object) -> tuple[int, str]:
    program = [str(Path(sys.executable).with_name("ansible-playbook")), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}"]
    command = [*program, f"--extra-vars={json.dumps(variables)}", "playbooks/upgrade.yml"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=400)
    print(done.stdout[-6000:], done.stderr[-2000:])
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@dataclass
class Seen:
    """What whoever stands beside the hosts saw: in which order they went down, and whether nobody answered."""

    restarted: list[str] = field(default_factory=list)
    asked: int = 0
    unanswered: int = 0


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}:8080/", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def machine_room(addresses: dict[str, str]) -> Iterator[Seen]:
    """Start again what goes down, as firmware does, and ask both hosts all the time."""
    seen, end = Seen(), threading.Event()

    def power() -> None:
        while not end.wait(0.3):
            for name in addresses:
                if container(name).status == "exited":
                    seen.restarted.append(name)
                    container(name).start()

    def visit() -> None:
        while not end.wait(0.2):
            seen.asked += 1
            seen.unanswered += not any(answers(address) for address in addresses.values())

    threads = [threading.Thread(target=work) for work in (power, visit)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_hosts_restart_one_after_the_other(fleet: dict[str, Any], addresses: dict[str, str]) -> None:
    """Catches two hosts that are down together, a worker whose task is cut off, and a host that nobody waits for."""
    with machine_room(addresses) as seen:
        code, _ = upgrade(reboot="always")
    assert code == 0
    assert seen.restarted == ORDER
    print(f"asked {seen.asked} times while hosts restarted, {seen.unanswered} times without an answer")
    assert (seen.asked > 20, seen.unanswered) == (True, 0)
    # It takes 3 seconds to end what it does, and says then that it has
    assert fleet["host2"].run("sudo cat /var/lib/ended").stdout.split()
    assert fleet["host2"].service(WORKER).is_running


def test_nothing_restarts_without_need(fleet: dict[str, Any], addresses: dict[str, str]) -> None:
    """Catches restarts that no update asks for, a worker that stays stopped after them, and a need that is passed over."""
    before = {name: started(name) for name in fleet}
    code, _ = upgrade()
    assert code == 0
    assert {name: started(name) for name in fleet} == before
    assert fleet["host2"].service(WORKER).is_running
    fleet["host1"].run_expect([0], "sudo touch /run/reboot-required")
    with machine_room(addresses) as seen:
        code, _ = upgrade()
    assert (code, seen.restarted) == (0, ["host1"])


def test_what_is_down_stops_it_before_it_begins(fleet: dict[str, Any]) -> None:
    """Catches an upgrade that takes the second host down while the first one is."""
    before = {name: started(name) for name in fleet}
    fleet["host2"].run_expect([0], f"sudo systemctl stop {WEB}")
    code, said = upgrade(reboot="always")
    fleet["host2"].run_expect([0], f"sudo systemctl start {WEB}")
    assert code != 0
    assert f"On host2 these have failed or do not run: {WEB}" in said
    assert {name: started(name) for name in fleet} == before


def test_a_host_that_cannot_be_upgraded_does_its_part_again(fleet: dict[str, Any]) -> None:
    """Catches a host that nobody asks any more, and whose workers are stopped, because its updates could not be had."""
    broken = "/etc/apt/sources.list.d/broken.list"
    fleet["host2"].run_expect([0], f"echo nonsense | sudo tee {broken}")
    code, said = upgrade()
    fleet["host2"].run_expect([0], f"sudo rm {broken}")
    assert code != 0
    assert "host2 is not upgraded, or not wholly" in said
    assert edges(fleet, "host2") == {"UP"}
    assert fleet["host2"].service(WORKER).is_running


def test_the_first_failure_is_the_last(fleet: dict[str, Any], addresses: dict[str, str]) -> None:
    """Catches an upgrade that goes on to the next host while one has not come back whole."""
    before = started("host1")
    fleet["host2"].run_expect([0], f"sudo systemctl disable {WEB}")
    with machine_room(addresses) as seen:
        code, said = upgrade(reboot="always", drain_seconds=5)
    # It is not well, so nobody asks it; site.yml would have it asked again
    assert edges(fleet, "host2") & {"UP"} == set()
    assert fleet["host2"].service(WORKER).is_running
    fleet["host2"].run_expect([0], f"sudo systemctl enable --now {WEB}")
    for name in ORDER:
        fleet[name].run_expect([0], "echo set server shop/host2 state ready | sudo socat - UNIX-CONNECT:/run/haproxy/admin.sock")
    assert code != 0
    assert f"On host2 these have failed or do not run: {WEB}" in said
    assert seen.restarted == ["host2"]
    assert started("host1") == before
    # The next run goes on
    with machine_room(addresses) as seen:
        code, _ = upgrade(reboot="always")
    assert (code, seen.restarted) == (0, ORDER)
