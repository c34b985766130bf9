"""Who is banned and who is not: one host of the scenario attacks the other, each time from addresses that nobody had before."""

from __future__ import annotations

import base64
import itertools
import json
import re
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

pytestmark = pytest.mark.usefixtures("as_root")
NAME = "www.test.example"
PLAYBOOK = "molecule/fail2ban/converge.yml"
# Asks for many things over one connection, and tells how each was answered; an empty list where nothing came back
ASK = f"""
import json, re, socket, ssl, sys
source, target, requests = json.loads(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
answer = b""
try:
    with socket.create_connection((target, 443), 2, (source, 0)) as plain, context.wrap_socket(plain, server_hostname="{NAME}") as client:
        for number, (path, headers) in enumerate(requests, 1):
            last = ["Connection: close"] if number == len(requests) else []
            client.sendall("\\r\\n".join([f"GET {{path}} HTTP/1.1", "Host: {NAME}", *headers, *last, "", ""]).encode())
        while part := client.recv(65536):
            answer += part
except OSError:
    pass
print(json.dumps([int(status) for status in re.findall(rb"HTTP/1.1 (\\d+)", answer)]))
"""
REACH = "import socket, sys; socket.create_connection((sys.argv[2], int(sys.argv[3])), 1, (sys.argv[1], 0)).close()"
SEND = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 0)); s.sendto(b'?', (sys.argv[2], 443))"
)
RECEIVE = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("", 443))
while True:
    print("datagram from", receiver.recvfrom(99)[1][0])
"""
SSH = "ssh -i /root/wrong -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=1"
numbers = itertools.count()
Request = tuple[str, list[str]]


@dataclass(frozen=True)
class Attacker:
    """Addresses of their own on the other host, and how the host under test is reached from them."""

    container: Any
    own: dict[int, str]
    target: dict[int, str]

    def run(self, *command: str) -> tuple[int, str]:
        code, output = self.container.exec_run(list(command))
        return code, output.decode()

    def reaches(self, port: int, family: int = 4) -> bool:
        return self.run("python3", "-c", REACH, self.own[family], self.target[family], str(port))[0] == 0

    def ask(self, requests: list[Request], family: int = 4) -> list[int]:
        _, output = self.run("python3", "-c", ASK, json.dumps([self.own[family], self.target[family], requests]))
        return list(json.loads(output))


def addresses(container: Any) -> dict[int, str]:
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return {4: network["IPAddress"], 6: network["GlobalIPv6Address"]}


@pytest.fixture(scope="module")
def containers(host: Any) -> tuple[Any, Any]:
    """The host under test and the other one."""
    name = host.ansible.get_variables()["inventory_hostname"]
    other = {"debian12": "debian13", "debian13": "debian12"}[name]
    host.run("sudo fail2ban-client unban --all")  # what a run before this one left
    target, attacker = (docker.from_env().containers.get(f"groundcrew-fail2ban-{one}") for one in (name, other))
    attacker.exec_run(["sh", "-c", "test -e /root/wrong || ssh-keygen -q -t ed25519 -N '' -f /root/wrong"])
    return target, attacker


@pytest.fixture
def attackers(containers: tuple[Any, Any]) -> Callable[[], Attacker]:
    """Return a function that makes an attacker with new addresses."""
    target, other = containers
    reached = addresses(target)

    def make() -> Attacker:
        # Never the same on both hosts, in runs of single tests neither
        number = next(numbers) + (100 if other.name.endswith("debian12") else 180)
        own = {4: reached[4].rsplit(".", 1)[0] + f".{number}", 6: reached[6].split("::")[0] + f"::1:{number}"}
        for command in (f"ip addr replace {own[4]}/24 dev eth0", f"ip addr replace {own[6]}/64 dev eth0 nodad"):
            code, output = other.exec_run(command)
            assert code == 0, output
        return Attacker(other, own, reached)

    return make


def banned(host: Any, jail: str) -> list[str]:
    return str(host.check_output("fail2ban-client get %s banip", jail)).split()


WRONG_PASSWORD = "-o PubkeyAuthentication=no -o NumberOfPasswordPrompts=1"


@pytest.mark.parametrize(
    ("user", "options", "family"),
    [
        ("admin", "-o BatchMode=yes", 4),
        ("nobody-here", "-o BatchMode=yes", 6),
        ("admin", f"{WRONG_PASSWORD} -o PreferredAuthentications=password", 6),
    ],
    ids=["wrong key", "unknown user", "wrong password"],
)
def test_ten_wrong_logins_are_banned(
    host: Any, attackers: Any, eventually: Any, address: str, user: str, options: str, family: int
) -> None:
    """Catches a filter that misses how a release logs it, tries counted for another address, and a ban in the wrong set."""
    attacker, neighbour = attackers(), attackers()
    before = set(banned(host, "sshd"))
    askpass = "" if "BatchMode" in options else "env DISPLAY=none SSH_ASKPASS=/bin/echo SSH_ASKPASS_REQUIRE=force "
    once = f"timeout 8 {askpass}{SSH} {options} -b {attacker.own[family]} {user}@{attacker.target[family]} true < /dev/null"
    attacker.run("sh", "-c", f"for _ in 1 2 3 4 5 6 7 8 9 10; do {once}; done")
    eventually(lambda: attacker.own[family] in banned(host, "sshd"))
    assert set(banned(host, "sshd")) - before == {attacker.own[family]}
    eventually(lambda: not attacker.reaches(22, family))
    assert attacker.reaches(443, family), "a ban closes the ports of its service only"
    assert neighbour.reaches(22, family)
    socket.create_connection((address, 22), timeout=5).close()


def test_the_controller_is_never_banned(host: Any, address: str, eventually: Any, tmp_path: Path) -> None:
    """Catches a controller that bans itself from the host by a wrong key or a mistyped user."""
    key = tmp_path / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    command = [*SSH.replace("/root/wrong", str(key)).split(), "-F", "none", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    for _ in range(10):
        assert subprocess.run([*command, f"nobody-here@{address}", "true"], check=False, timeout=30, capture_output=True).returncode == 255
    seen = "journalctl --output=cat --unit=fail2ban --no-pager | grep -cE 'sshd\\] Ignore [0-9.]+ by ip'"
    eventually(lambda: int(host.run(seen).stdout) >= 6)
    socket.create_connection((address, 22), timeout=5).close()
    assert host.run("true").rc == 0


def credentials(text: str) -> list[str]:
    return [f"Authorization: Basic {base64.b64encode(text.encode()).decode()}"]


def test_guessed_passwords_of_a_site_are_banned(host: Any, attackers: Any, eventually: Any) -> None:
    """Catches a jail that bans who mistypes, or a browser that is asked for the password, and one that lets them guess on."""
    visitor, attacker = attackers(), attackers()
    right = credentials("visitor:a-good-password")
    private = "/private/page"
    answers = visitor.ask([(private, [])] * 20 + [(private, credentials("visitor:wrong"))] * 2 + [(private, right)])
    assert answers == [401] * 22 + [404]
    for family in (4, 6):
        attacker.ask(
            [(private, credentials(f"visitor:guess{number}")) for number in range(5)] + [(private, credentials("who:else"))], family
        )
    eventually(lambda: {*attacker.own.values()} <= {*banned(host, "nginx-auth")})
    eventually(lambda: not attacker.reaches(443) and not attacker.reaches(80, 6))
    assert attacker.reaches(22)
    assert visitor.ask([("/hello", [])]) == [200]


def test_scanners_are_banned_and_visitors_are_not(host: Any, attackers: Any, eventually: Any) -> None:
    """Catches a scanner that goes on, over UDP too, a visitor who is banned for a few dead links, and an address that a client forges."""
    visitor, victim, scanner, tool, flood = (attackers() for _ in range(5))
    forged = [f'User-Agent: x","client":"{victim.own[4]}","path":"/.env","status":"404","agent":"sqlmap']
    ordinary = ["/favicon.ico", "/robots.txt", "/apple-touch-icon.png", "/.well-known/security.txt", "/blog/wp-and-php", "/environment",
                "/old/page.html", "/search?q=/.env", "/über-uns", "/docs/administration", "/api/v1/keys", "/a.php-tutorial/"]  # fmt: skip
    assert (
        visitor.ask([(path.replace("ü", "%C3%BC"), ["User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"]) for path in ordinary])
        == [404] * 12
    )
    attackers().ask([("/none", forged), (f'/none","client":"{victim.own[4]}","status":"404","x":".php', forged)] * 3)
    host.check_output("systemd-run --collect --unit=datagrams /usr/bin/python3 -u -c %s", RECEIVE)

    def datagrams_of(sender: Attacker) -> bool:
        sender.run("python3", "-c", SEND, sender.own[4], sender.target[4])
        return f"datagram from {sender.own[4]}\n" in host.run("journalctl --output=cat --unit=datagrams").stdout

    try:
        eventually(lambda: datagrams_of(visitor))
        scanner.ask([(path, []) for path in ("/.env", "/shop/.git/config", "/wp-login.php", "/shop/css/..%2f..%2fsecret", "/phpmyadmin/")])
        scanner.ask([(path, []) for path in ("/.env", "/blog/xmlrpc.php", "/backup.sql.gz", "/actuator/env")], 6)
        tool.ask([("/hello", ["User-Agent: sqlmap/1.8 (https://sqlmap.org)"])] * 4)
        flood.ask([(f"/guess-{number}", []) for number in range(120)])
        eventually(lambda: {*scanner.own.values(), tool.own[4]} <= {*banned(host, "nginx-scanners")})
        eventually(lambda: flood.own[4] in banned(host, "nginx-missing"))
        eventually(lambda: not any([scanner.reaches(443), scanner.reaches(443, 6), tool.reaches(443), flood.reaches(80)]))
        assert not datagrams_of(scanner)
        assert datagrams_of(visitor)
    finally:
        host.run("systemctl stop datagrams")
    assert visitor.ask([("/hello", [])]) == [200]
    assert victim.ask([("/hello", [])]) == [200]


def test_bans_grow(host: Any, attackers: Any, eventually: Any) -> None:
    """Catches attackers who come back after each ban at the same price."""
    attacker = attackers().own[6]

    def said(expression: str) -> bool:
        return re.search(expression, host.check_output("journalctl --output=cat --unit=fail2ban --since=-5min --no-pager")) is not None

    for expected in (f"Unban {attacker}", rf"Increase Ban {attacker} \(2 # (4s|0:00:04) "):
        host.check_output(f"echo $(date '+%F %T') refused {attacker} >> /var/log/growing.log")
        eventually(lambda expected=expected: said(expected))


def test_bans_outlive_restarts_reloads_and_a_reboot(host: Any, containers: Any, attackers: Any, eventually: Any) -> None:
    """Catches bans that are gone with a process, with the firewall's or Debian's rules, or with the host, and ones that cannot be lifted."""
    attacker = attackers()
    # Debian's unit, which empties the whole ruleset, is not active by itself
    host.check_output("systemctl start nftables && systemctl restart groundcrew-firewall")
    host.check_output("fail2ban-client set sshd banip %s %s", attacker.own[4], attacker.own[6])

    def shut() -> bool:
        return not attacker.reaches(22, 4) and not attacker.reaches(22, 6)

    eventually(shut)
    for command in ("restart fail2ban", "reload fail2ban", "restart groundcrew-firewall", "reload nftables", "restart nftables"):
        host.check_output(f"systemctl {command}")
        eventually(shut)
        assert {*attacker.own.values()} <= {*banned(host, "sshd")}, command
        eventually(lambda: host.check_output("groundcrew-firewall status") == "current")
    containers[0].restart()
    eventually(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", within=90)
    eventually(shut)
    host.check_output("fail2ban-client set sshd unbanip %s %s", attacker.own[4], attacker.own[6])
    assert attacker.reaches(22, 4)
    assert attacker.reaches(22, 6)


def test_the_unit_is_confined(host: Any, exposure: Callable[[str], float]) -> None:
    """Catches a parser of what attackers write that runs as root."""
    assert exposure("fail2ban.service") <= 2.0
    assert host.check_output("systemctl show --value -p User fail2ban.service") == "fail2ban"


@pytest.mark.one_release
def test_a_broken_filter_never_lands(host: Any, converge: Callable[..., Any]) -> None:
    """Catches an expression that fail2ban would refuse when it reloads: its jail, or all of them, would be gone."""
    before = host.check_output("fail2ban-client status; cat /etc/fail2ban/filter.d/growing.local")
    result = converge(
        "--tags=fail2ban", playbook=PLAYBOOK, fail2ban_extra_filters={"growing": "[Definition]\nfailregex = ^ (refused <ADDR>$"}
    )
    assert result.returncode == 2
    assert "growing" in result.stdout
    assert host.check_output("fail2ban-client status; cat /etc/fail2ban/filter.d/growing.local") == before


@pytest.mark.one_release
def test_logs_that_are_not_there_yet(host: Any, converge: Callable[..., Any], attackers: Any, eventually: Any) -> None:
    """Catches a fail2ban that does not start before nginx has: this role comes first."""
    log = "/var/log/nginx/later/access.log"
    result = converge(
        "--tags=fail2ban", playbook=PLAYBOOK, fail2ban_nginx_access_log=log, fail2ban_ignore=["192.0.2.0/24", "2001:db8::/32"]
    )
    assert result.returncode == 0, result.stdout
    assert log in host.check_output("fail2ban-client get nginx-scanners logpath")
    address = attackers().own[4]
    line = json.dumps({"time": "@", "client": address, "path": "/.env", "status": "404", "agent": ""}, separators=(",", ":"))
    host.check_output(f"for _ in 1 2 3 4; do echo '{line}' | sed \"s/@/$(date -Iseconds)/\" >> {log}; done")
    eventually(lambda: address in banned(host, "nginx-scanners"))
