"""All ports of all hosts, from outside and from within: exactly the declared ones."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
import testinfra

from tools import audit, engine

SCENARIO = f"groundcrew-{os.environ.get('MOLECULE_SCENARIO_NAME', '')}"
# What strangers reach, and beside it what an application host does
DATA = ("data1", "data2", "data3")
PUBLIC = {name: [22] for name in ("app1", "app2", *DATA)} | {name: [22, 80, 443] for name in ("edge1", "edge2")}
FROM_APP1 = {name: [5432, 6379, 6380, 26379] for name in DATA}
# The firewall drops, so most questions get no answer: one repetition of each, and no pause
NMAP = ("nmap", "-n", "-Pn", "-p-", "--min-rate", "15000", "--max-retries", "1", "-oG", "-")
SILENT = {"filtered", "open|filtered"}
SECONDS = 400


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> list[Any]:
    """Return all hosts of the scenario."""
    found: list[Any] = testinfra.get_hosts(["all"], connection="ansible", ansible_inventory=request.config.option.ansible_inventory)
    return found


@pytest.fixture(scope="module")
def addresses(hosts: list[Any]) -> dict[str, str]:
    """Return each host's address in the environment's network."""
    variables = [one.ansible.get_variables() for one in hosts]
    return {str(one["inventory_hostname"]): str(one["ansible_host"]) for one in variables}


def reached(network: str, addresses: dict[str, str], scan: str) -> dict[str, list[int]]:
    """Return, of each host, the ports from which anything came back; a refusal counts too, for the firewall has let it through."""
    code, output = audit.start(engine.connect(), network, [*NMAP, scan, *addresses.values()]).result(SECONDS)
    assert code == 0, output[-2000:]
    found: dict[str, list[int]] = {}
    for name, address in addresses.items():
        (line,) = re.findall(rf"^Host: {re.escape(address)} .*Ignored State: .*$", output, re.MULTILINE)
        listed = re.findall(r"(\d+)/([a-z|]+)/", line)
        (others,) = re.findall(r"Ignored State: (\S+) \((\d+)\)", line)
        assert (others[0] in SILENT, int(others[1]) + len(listed)) == (True, 65535), (name, line)
        found[name] = [int(port) for port, state in listed if state not in SILENT]
    return found


def test_strangers_reach_the_declared_tcp_ports_alone(addresses: dict[str, str]) -> None:
    """Catches a port that no list of ports to try has thought of."""
    assert reached(SCENARIO, addresses, "-sS") == {name: PUBLIC[name] for name in addresses}


def test_strangers_reach_no_udp_port(addresses: dict[str, str]) -> None:
    """Catches a datagram that the firewall lets in: one to a port where nobody listens would be refused, which is an answer."""
    assert reached(SCENARIO, addresses, "-sU") == {name: [] for name in addresses}


def test_nothing_listens_for_datagrams(hosts: list[Any]) -> None:
    """Catches a listener that the scan cannot see, for it keeps silent."""
    for one in hosts:
        bound = [line.split()[3] for line in one.check_output("ss -H -lun").splitlines()]
        assert [place for place in bound if not place.startswith(("127.", "[::1]"))] == []


def test_an_application_host_reaches_its_services_besides(addresses: dict[str, str]) -> None:
    """Catches a service that is open to a tier beyond the ports that it needs."""
    others = {name: address for name, address in addresses.items() if name in FROM_APP1}
    wanted = {name: [*PUBLIC[name], *FROM_APP1[name]] for name in others}
    assert reached(f"container:{SCENARIO}-app1", others, "-sS") == wanted
