"""What role firewall promises, seen from outside the host."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

LISTENING = [8080, 8081, 8090, 8091]
OPEN = {22, 8080, 8090}
LOCKED_OUT = [{"name": "ssh", "ports": [22], "sources": ["192.0.2.0/24"]}]
FOREIGN = "table ip foreign { chain input { type filter hook input priority 10; ip saddr 203.0.113.7 drop; }; }"
RECEIVE = """
import select, socket
sockets = {port: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for port in (5353, 5354)}
for port, receiver in sockets.items():
    receiver.bind(("", port))
while ready := select.select(list(sockets.values()), [], [])[0]:
    for receiver in ready:
        receiver.recv(99)
        print("arrived at", receiver.getsockname()[1])
"""
Converge = Callable[..., Any]


def container(host: Any) -> Any:
    name = host.ansible.get_variables()["inventory_hostname"]
    return docker.from_env().containers.get(f"groundcrew-firewall-{name}")


@pytest.fixture(scope="module")
def addresses(host: Any, address: str) -> list[str]:
    """The IPv4 and the IPv6 address of the host as the controller reaches it."""
    networks = container(host).attrs["NetworkSettings"]["Networks"].values()
    found = [network["GlobalIPv6Address"] for network in networks if network["GlobalIPv6Address"]]
    assert found, "the network of the scenario has no IPv6"
    return [address, *found]


def answers(address: str, port: int, wait: float = 1.5) -> bool:
    """Whether a new TCP connection to the port is accepted."""
    try:
        socket.create_connection((address, port), timeout=wait).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module", autouse=True)
def listeners(host: Any, eventually: Any) -> Iterator[None]:
    """Something listens on every port of LISTENING, so that only the firewall decides what answers."""
    for port in LISTENING:
        host.run(f"sudo systemctl stop listen-{port}")
        host.run_expect([0], f"sudo systemd-run --collect --unit=listen-{port} python3 -m http.server --bind :: {port}")
        eventually(lambda port=port: host.socket(f"tcp://:::{port}").is_listening)
    yield
    for port in LISTENING:
        host.run(f"sudo systemctl stop listen-{port}")


def status(host: Any) -> str:
    return str(host.run_expect([0], "sudo groundcrew-firewall status").stdout.strip())


def test_only_declared_ports_answer(addresses: list[str]) -> None:
    """Catches a port that is open without being declared, and a declared one that is not, over IPv4 and IPv6."""
    for address in addresses:
        assert {port for port in [22, *LISTENING] if answers(address, port)} == OPEN, address


def test_undeclared_port_is_dropped_in_silence(addresses: list[str]) -> None:
    """Catches a firewall that is off: nothing listens on 8082, and yet the host does not even refuse."""
    for address in addresses:
        with pytest.raises(TimeoutError):
            socket.create_connection((address, 8082), timeout=1)


def test_only_declared_udp_ports_let_datagrams_in(host: Any, address: str, eventually: Any) -> None:
    """Catches udp openings that are written as tcp, and a firewall that drops TCP alone."""
    host.check_output("sudo systemd-run --unit=datagrams /usr/bin/python3 -u -c %s", RECEIVE)

    def arrived() -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            # What must not arrive goes first
            for port in (5354, 5353):
                sender.sendto(b"?", (address, port))
        return sorted(set(re.findall(r"arrived at \d+", host.run("sudo journalctl --output=cat --unit=datagrams").stdout)))

    try:
        assert eventually(arrived) == ["arrived at 5353"]
    finally:
        host.run("sudo systemctl stop datagrams")


def test_own_table_comes_back_and_tables_of_others_stay(host: Any, converge: Converge, address: str) -> None:
    """Catches a flush of the whole ruleset (Docker's and fail2ban's rules), and a run that compares files but not what runs."""
    host.run_expect([0], f"echo '{FOREIGN}' | sudo nft -f - && sudo nft delete table inet groundcrew")
    try:
        assert answers(address, 8081)
        before = host.run_expect([0], "sudo nft list table ip foreign").stdout
        result = converge()
        assert result.returncode == 0, result.stdout
        assert not answers(address, 8081)
        assert host.run_expect([0], "sudo nft list table ip foreign").stdout == before
    finally:
        host.run("sudo nft delete table ip foreign")


@pytest.mark.one_release
def test_wrong_rules_never_reach_the_kernel(host: Any, converge: Converge, address: str) -> None:
    """Catches rules that are loaded although nft refuses them; an address is mistyped."""
    result = converge(firewall_openings=[{"name": "ssh", "ports": [22], "sources": ["fe80::1::2"]}])
    assert result.returncode != 0
    assert answers(address, 8080)
    assert status(host) == "current"


@pytest.mark.one_release
def test_closing_the_own_ssh_port_is_refused(host: Any, converge: Converge) -> None:
    """Catches a run that sets off to close the port it stands on."""
    result = converge(firewall_openings=[{"name": "http", "ports": [8080]}])
    assert result.returncode != 0
    assert "Ansible's own SSH connection" in result.stdout
    assert status(host) == "current"


def test_lockout_takes_itself_back(host: Any, converge: Converge, address: str) -> None:
    """Catches rules that keep the controller out for good: the run must fail with a reason, and the host must be as before."""
    result = converge(firewall_openings=LOCKED_OUT, firewall_revert_seconds=20)
    assert result.returncode != 0
    assert "The former rules are in force again" in " ".join(result.stdout.split())
    assert answers(address, 22)
    assert answers(address, 8080)
    assert "192.0.2.0/24 } tcp dport { 22 }" not in host.run_expect([0], "cat /etc/groundcrew-firewall/confirmed.nft").stdout


def test_run_that_dies_before_confirming_is_taken_back(host: Any, converge: Converge, address: str, eventually: Any) -> None:
    """Catches a timer that only the controller would start: here no controller ever comes back. The next run heals."""
    directory = "/etc/groundcrew-firewall"
    change = f"sed 's/8080, 8443/8081/' {directory}/confirmed.nft | sudo tee {directory}/wanted.nft"
    host.run_expect([0], f"{change} && sudo groundcrew-firewall try 10")
    assert answers(address, 8081)
    assert not answers(address, 8080)
    eventually(lambda: answers(address, 8080, 0.5) and not answers(address, 8081, 0.5), within=40)
    assert host.run("sudo groundcrew-firewall confirm").rc == 1
    result = converge()
    assert result.returncode == 0, result.stdout
    assert status(host) == "current"


def test_restart_of_debians_unit_keeps_the_rules(host: Any, address: str, eventually: Any) -> None:
    """Catches that Debian's nftables.service, which empties the whole ruleset, takes our table along."""
    for verb in ("start", "restart", "reload", "stop", "start"):
        host.run_expect([0], f"sudo systemctl {verb} nftables")
        if verb in ("restart", "reload"):
            eventually(lambda: status(host) == "current")
    eventually(lambda: status(host) == "current")
    assert not answers(address, 8081)


def test_rules_are_back_after_a_restart(host: Any, addresses: list[str], eventually: Any) -> None:
    """Catches rules that live in memory only; nothing is done by hand after the restart."""
    container(host).restart()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=60)
    host.run_expect([0], "sudo systemd-run --collect --unit=listen-8081 python3 -m http.server --bind :: 8081")
    eventually(lambda: host.socket("tcp://:::8081").is_listening)
    for address in addresses:
        assert answers(address, 22)
        assert not answers(address, 8081)
    assert status(host) == "current"
    emptied, begun, active, reachable = (
        int(host.run_expect([0], f"systemctl show --value -p {event}TimestampMonotonic {unit}").stdout)
        for unit, event in (
            ("systemd-tmpfiles-setup.service", "ActiveEnter"),
            ("groundcrew-firewall.service", "InactiveExit"),
            ("groundcrew-firewall.service", "ActiveEnter"),
            ("ssh.service", "InactiveExit"),
        )
    )
    assert 0 < active <= reachable, "the rules must be there before anybody can connect"
    assert 0 < emptied <= begun, "a unit whose /dev is made in /tmp while that is emptied fails, and leaves the host open"


def test_unit_is_confined(exposure: Any) -> None:
    """Catches a unit that is allowed more than it needs."""
    assert exposure("groundcrew-firewall.service") <= 2.0
