"""The whole stack, seen from outside the host and through its failures. The restart of the host comes last, in test_zz_reboot.py."""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import select
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

OWN_UNITS = [
    "textreport-web@{web}.service",
    "textreport-worker-default@{worker}.service",
    "textreport-worker-maintenance@{worker}.service",
    "textreport-beat.service",
]


def in_live_slot(host: Any, unit: str) -> str:
    """Return a unit's name with the slots that are live."""
    return unit.format(**{name: host.check_output(f"readlink /srv/textreport/{name}/live") for name in ("web", "worker")})


def postgresql_unit(host: Any) -> str:
    """Return the unit of the host's PostgreSQL cluster."""
    return {"12": "postgresql@15-main.service", "13": "postgresql@17-main.service"}[str(host.system_info.release).split(".")[0]]


def test_report_end_to_end(site: Any, eventually: Any) -> None:
    """Catches a break anywhere between nginx, Gunicorn, PostgreSQL, the broker, a worker and back."""
    answer = site.request("POST", "/api/reports", {"text": "One fish. Two fish."})
    assert answer.status == 202, answer
    location = answer.headers["Location"]
    assert eventually(lambda: site.finished(location))
    assert site.get(location).json()["result"]["words"] == 4


def test_ready_names_every_component(site: Any) -> None:
    """Catches a readiness that is green because it looks at nothing."""
    components = site.get("/readyz").json()["components"]
    assert set(components) >= {"database", "broker", "cache", "worker"}
    assert all(component["ok"] for component in components.values()), components


def test_release_id(site: Any, host: Any) -> None:
    """Catches a server that runs another release than the one that is current."""
    current = host.run("basename $(readlink /srv/textreport/current)").stdout.strip()
    assert re.fullmatch(r"[0-9a-f]{12,}", current)
    assert site.get("/version").json()["release"] == current


def test_request_id_follows_into_the_task(site: Any, host: Any, eventually: Any) -> None:
    """Catches a request id that is lost between nginx, the application's log and the task's log."""
    answer = site.request("POST", "/api/reports", {"text": "follow me"})
    request_id = answer.headers["X-Request-ID"]
    assert request_id

    def logged(unit: str) -> bool:
        with host.sudo():
            return request_id in host.run(f"journalctl -u '{unit}' --since -2min -o cat").stdout

    eventually(lambda: logged("textreport-web@*"))
    eventually(lambda: logged("textreport-worker-default@*"))


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_open_ports_are_the_declared_ones(host: Any, address: str, family: str) -> None:
    """Catches a service that listens to the world, and a firewall that lets it."""
    if family == "IPv6":
        address = host.check_output("ip -6 -o addr show scope global | sed -n 's/.*inet6 \\([0-9a-f:]*\\).*/\\1/p'")
    assert open_ports(address) == [22, 80, 443]


def open_ports(address: str) -> list[int]:
    """Return every TCP port of an address that takes a connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    batch = min(hard, 16000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (batch, hard))
    found: list[int] = []
    for first in range(1, 65536, batch - 500):
        with contextlib.ExitStack() as stack:
            poll = stack.enter_context(select.epoll())
            waiting: dict[int, tuple[socket.socket, int]] = {}
            for port in range(first, min(first + batch - 500, 65536)):
                one = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setblocking(False)
                one.connect_ex((address, port))
                waiting[one.fileno()] = one, port
                poll.register(one.fileno(), select.EPOLLOUT)
            # Counted from when all have been asked; what the firewall drops never answers. A lost packet is sent again after 1 s.
            end = time.monotonic() + 2
            while waiting and (left := end - time.monotonic()) > 0:
                for number, _ in poll.poll(left):
                    poll.unregister(number)
                    one, port = waiting.pop(number)
                    if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                        found.append(port)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return sorted(found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_versions(site: Any) -> None:
    """Catches an old version of TLS that is let in, and a current one that went missing."""

    def handshake(version: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=str(site.ca_file))
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection((site.address, 443), timeout=10) as plain:
            try:
                return context.wrap_socket(plain, server_hostname="localhost").version()
            except (ssl.SSLError, ConnectionResetError):
                return None

    versions = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
    assert [handshake(version) for version in versions] == [None, None, "TLSv1.2", "TLSv1.3"]


def test_http_redirects(site: Any) -> None:
    """Catches pages that are served without TLS."""
    connection = http.client.HTTPConnection(site.address, 80, timeout=10)
    connection.request("GET", "/reports?page=2", headers={"Host": "localhost"})
    answer = connection.getresponse()
    assert answer.status == 301
    assert re.fullmatch(r"https://localhost(:\d+)?/reports\?page=2", str(answer.headers["Location"]))


def test_services_refuse_wrong_and_missing_passwords(host: Any) -> None:
    """Catches a database or a broker that trusts whoever is on the host."""
    database = "psql -w -XAtq -h 127.0.0.1 -U textreport -d textreport -c 'SELECT 1' 2>&1"
    assert "no password supplied" in host.run(database).stdout
    assert "password authentication failed" in host.run(f"PGPASSWORD=wrong-password {database}").stdout
    for port in (6379, 6380):
        assert "NOAUTH" in host.run(f"redis-cli -p {port} ping").stdout
        assert "WRONGPASS" in host.run(f"redis-cli -p {port} auth textreport wrong-password").stdout


@pytest.mark.parametrize("unit", OWN_UNITS)
def test_sandbox_of_own_units(host: Any, exposure: Any, unit: str) -> None:
    """Catches a unit that lost its sandbox."""
    assert exposure(in_live_slot(host, unit)) <= 2.0


def test_sandbox_of_services(host: Any, exposure: Any) -> None:
    """Catches a drop-in that systemd does not read."""
    assert exposure("nginx.service") <= 2.0
    assert exposure(postgresql_unit(host)) <= 2.0


def test_task_survives_its_worker(site: Any, host: Any, eventually: Any) -> None:
    """Catches a task that is lost when `kill -9` hits its worker in the middle of it."""
    answer = site.request("POST", "/api/reports", {"text": "still here", "delay_seconds": 4})
    assert answer.status == 202, answer
    location = answer.headers["Location"]
    assert eventually(lambda: site.get(location).json()["state"] == "running")
    worker = in_live_slot(host, "textreport-worker-default@{worker}.service")
    with host.sudo():
        host.check_output(f"systemctl kill --signal=KILL --kill-whom=all {worker}")
    assert eventually(lambda: site.finished(location), within=90)


@pytest.mark.parametrize("unit", [*OWN_UNITS, "nginx.service", "redis-server@broker.service", "redis-server@cache.service", "postgresql"])
def test_unit_comes_back_after_sigkill(host: Any, site: Any, eventually: Any, unit: str) -> None:
    """Catches a unit that stays down after a crash, and a stack that does not recover around it."""
    unit = postgresql_unit(host) if unit == "postgresql" else in_live_slot(host, unit)

    def main_pid() -> int:
        return int(host.check_output(f"systemctl show --value -p MainPID {unit}"))

    before = main_pid()
    assert before > 0
    with host.sudo():
        host.check_output(f"systemctl kill --signal=KILL --kill-whom=main {unit}")
    assert eventually(lambda: main_pid() not in (0, before), within=60)
    assert eventually(site.ready, within=90)


def test_secrets_stay_secret(address: str, generated: Path, secrets: dict[str, str]) -> None:
    """Catches a secret in a journal, a process list, a file that all may read, or in what Ansible printed."""
    assert all(len(secret) >= 32 for secret in secrets.values())
    # As they are, and as they stand in URLs
    forms = sorted({form for secret in secrets.values() for form in (secret, quote(secret, safe=""), quote(secret))})

    def on_host(command: str) -> str:
        # The secrets go in through standard input: sudo would log them as arguments
        login = ["ssh", "-i", str(generated / "id_ed25519"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        return subprocess.run(
            [*login, f"admin@{address}", command],
            input="\n".join(forms),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        ).stdout

    seen = {
        "Ansible's output": (generated / "ansible.log").read_text(),
        "the journal": on_host("sudo journalctl --no-pager --all -o cat"),
        "the process list": on_host("sudo ps -eww -o args"),
        "PostgreSQL's and nginx's logs": on_host("sudo sh -c 'cat /var/log/postgresql/*.log /var/log/nginx/*.log'"),
    }
    assert "PLAY RECAP" in seen["Ansible's output"]
    for place, text in seen.items():
        assert text, f"{place} is empty"
        assert not any(form in text for form in forms), f"a secret stands in {place}"
    readable = on_host("sudo -u nobody grep -raslF -f /dev/stdin /etc /home /opt /root /run /srv /tmp /usr/local /var")
    assert readable.split() == []
    # The search itself works: root finds each of them in the file that systemd reads
    found = unquote(on_host("sudo grep -rohF -f /dev/stdin /etc/textreport"))
    assert [name for name, secret in secrets.items() if secret not in found] == []


def test_check_mode_of_the_converged_host(converge: Any) -> None:
    """Catches a task that cannot tell, without doing it, that nothing is to be done."""
    done = converge("--check", "--diff", playbook="site.yml")
    assert done.returncode == 0, done.stdout[-4000:]
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", done.stdout, re.MULTILINE)
    assert recap, done.stdout[-2000:]
    assert all(changed == "0" for _, changed in recap), [line for line in done.stdout.splitlines() if line.startswith(("TASK", "changed"))]
