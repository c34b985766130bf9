"""Three hosts of Redis by themselves: faults while writes and tasks go on, and every one that was acknowledged looked for afterwards."""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tools import engine

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
GENERATED = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CA_FILE = GENERATED / "ca" / "ca.pem"
HOSTS = ("cache1", "cache2", "cache3")
PORTS = {"broker": 6379, "cache": 6380, "sentinel": 26379}
# Seconds without a write that the fleet promises for a primary that is gone
PROMISED = 15


@dataclass
class Done:
    """What was acknowledged, and the longest time from one to the next."""

    numbers: set[int]
    away: float


class Cluster:
    """The scenario's hosts, and clients beside them."""

    def __init__(self, client: DockerClient) -> None:
        self.engine = client
        self.url = self.value("broker_url")

    def container(self, name: str) -> Container:
        return self.engine.containers.get(f"groundcrew-sentinel-{name}")

    def address(self, name: str) -> str:
        (network,) = self.container(name).attrs["NetworkSettings"]["Networks"].values()
        return str(network["IPAMConfig"]["IPv4Address"] if network.get("IPAMConfig") else network["IPAddress"])

    def console(self, name: str, *argv: str) -> str:
        """Run a command on a host as root."""
        code, output = self.container(name).exec_run(list(argv))
        assert code == 0, f"{name}: {' '.join(argv)[:200]}: {output.decode(errors='replace')[-500:]}"
        return str(output.decode(errors="replace")).strip()

    def redis(self, name: str, instance: str, command: str, user: str = "sentinel") -> str:
        """Ask an instance, or Sentinel, on a host."""
        secret = (GENERATED / "secrets" / ("replication" if user == "sentinel" else instance)).read_text().strip()
        login = f"REDISCLI_AUTH={secret} timeout 5 redis-cli --no-auth-warning --user {user} --tls --cacert /etc/ssl/groundcrew/ca.pem"
        return self.console(name, "sh", "-c", f"{login} -h {self.address(name)} -p {PORTS[instance]} {command} 2>&1")

    def role(self, name: str, instance: str) -> str:
        return self.redis(name, instance, "ROLE").split()[0]

    def primary(self, instance: str = "broker") -> str:
        """The host that every Sentinel that answers says is the primary, and that says so itself."""
        said = set()
        for name in HOSTS:
            if self.container(name).status == "running":
                said.add(self.redis(name, "sentinel", f"SENTINEL GET-MASTER-ADDR-BY-NAME {instance}").split()[0])
        (address,) = said
        (found,) = (name for name in HOSTS if self.address(name) == address)
        assert self.role(found, instance) == "master"
        return found

    def well(self) -> bool:
        """Whether of each instance one host is the primary and the two others follow it."""
        for instance in ("broker", "cache"):
            primary = self.primary(instance)
            roles = [self.redis(name, instance, "ROLE").split() for name in HOSTS]
            if sorted(role[0] for role in roles) != ["master", "slave", "slave"]:
                return False
            following = [role for role in roles if role[0] == "slave"]
            if any(role[1] != self.address(primary) or role[3] != "connected" for role in following):
                return False
            others = self.redis(primary, "sentinel", f"SENTINEL SENTINELS {instance}").count("runid")
            if others != 2:
                return False
        return True

    def environment(self, file: Path) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": f"{PROJECT / 'app' / 'src'}:{Path(__file__).parent}",
            "TEXTREPORT_DATABASE_URL": "postgresql://nobody@localhost/none",
            "TEXTREPORT_BROKER_URL": self.url,
            "TEXTREPORT_CACHE_URL": self.url,
            "TEXTREPORT_SECRET_KEY": secrets.token_urlsafe(32),
            "TEXTREPORT_REDIS_CA_FILE": str(CA_FILE),
            "DRILL_FILE": str(file),
        }

    def client(self, file: Path, *arguments: str) -> subprocess.Popen[str]:
        python = str(PROJECT / ".venv-app" / "bin" / "python")
        errors = file.with_suffix(".log").open("a", encoding="utf-8")
        return subprocess.Popen(
            [python, *arguments], env=self.environment(file), cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )

    @staticmethod
    def ansible(program: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name(program)), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}", *options]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)

    def value(self, variable: str) -> str:
        done = self.ansible("ansible", HOSTS[0], "--playbook-dir=playbooks", "-m", "debug", "-a", f"msg=VALUE={{{{ {variable} }}}}")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        return done.stdout.split("VALUE=", 1)[1].split('"', 1)[0].split()[0]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return Cluster(engine.connect())


@pytest.fixture(autouse=True)
def _well(cluster: Cluster, eventually) -> None:  # type: ignore[no-untyped-def]
    eventually(cluster.well, within=90)


@contextmanager
def drill(cluster: Cluster, folder: Path, eventually) -> Iterator[dict[str, Done]]:  # type: ignore[no-untyped-def]
    """Have a writer, a sender of tasks and a worker while the body runs; whatever was acknowledged must be there afterwards."""
    label, file = f"drill-{time.time():.0f}", folder / "tasks"
    file.touch()
    command = ["-m", "celery", "-A", "drill_tasks", "worker", "-Q", "default", "-c", "1", "--without-gossip", "--without-mingle", "-l", "INFO"]
    worker = cluster.client(file, *command)
    script = str(Path(__file__).with_name("drill_tasks.py"))
    clients = {kind: cluster.client(file, script, kind, label) for kind in ("write", "send")}
    found: dict[str, Done] = {}

    def ran() -> dict[int, float]:
        return {int(number): float(moment) for number, moment in map(str.split, file.read_text().splitlines())}

    try:
        eventually(lambda: len(ran()) > 20, within=60)
        yield found
        seen = max(ran().values())
        # Tasks run again, and for a while
        eventually(lambda: max(ran().values()) > seen + 3, within=90)
        for kind, client in clients.items():
            output, _ = client.communicate("\n", timeout=60)
            lines = [line.split() for line in output.splitlines()]
            moments = [float(moment) for _, moment in lines]
            gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
            found[kind] = Done({int(number) for number, _ in lines}, max(gaps, default=0.0))
        eventually(lambda: found["send"].numbers <= ran().keys(), within=120)
        moments = sorted(ran().values())
        found["run"] = Done(set(ran()), max(later - earlier for earlier, later in zip(moments, moments[1:], strict=False)))
        keys = [f"{label}:{number}" for number in found["write"].numbers]
        there = sum(
            int(cluster.redis(cluster.primary(), "broker", "EXISTS " + " ".join(keys[i : i + 500]), "textreport"))
            for i in range(0, len(keys), 500)
        )
        lost = len(keys) - there
        report = {kind: f"{len(one.numbers)} acknowledged, {one.away:.1f} s away" for kind, one in found.items()}
        print(json.dumps({**report, "lost": lost}), file=sys.__stderr__)
        assert lost == 0
    finally:
        for process in (worker, *clients.values()):
            process.terminate()
        for process in (worker, *clients.values()):
            process.wait(60)


def test_the_single_servers_data_is_the_sets(cluster: Cluster) -> None:
    """Catches a first member that follows an empty one, and replicas that follow nobody."""
    assert [cluster.redis(name, "broker", "GET before", "textreport") for name in HOSTS] == ["kept"] * 3


@pytest.mark.parametrize("service", PORTS)
def test_ports_speak_tls_alone(cluster: Cluster, service: str) -> None:
    """Catches a port that talks in plain text, and a certificate that another authority would have signed."""
    place = (cluster.address("cache2"), PORTS[service])
    with socket.create_connection(place, timeout=5) as plain:
        plain.sendall(b"PING\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
        assert b"PONG" not in answer
        assert b"NOAUTH" not in answer
    with socket.create_connection(place, timeout=5) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname=place[0])
    context = ssl.create_default_context(cafile=str(CA_FILE))
    with socket.create_connection(place, timeout=5) as plain, context.wrap_socket(plain, server_hostname=place[0]) as secure:
        secure.sendall(b"PING\r\n")
        assert b"NOAUTH" in secure.recv(100)


def test_units_are_sandboxed(cluster: Cluster) -> None:
    """Catches a lost sandbox."""
    for unit in ("redis-server@broker.service", "redis-server@cache.service", "redis-sentinel.service"):
        said = cluster.console("cache1", "sh", "-c", f"systemd-analyze security --no-pager {unit} | tail -n 1")
        assert float(said.split(":")[1].split()[0]) <= 2.0, said


def test_a_primarys_host_that_is_gone_is_replaced(cluster: Cluster, tmp_path: Path, eventually) -> None:  # type: ignore[no-untyped-def]
    """Catches a failover that is slow or loses writes, a worker that waits at the former primary, and one that comes back as primary."""
    former = cluster.primary()
    with drill(cluster, tmp_path, eventually) as found:
        cluster.container(former).kill()
        eventually(lambda: cluster.primary() != former, within=30)
    cluster.container(former).start()
    eventually(cluster.well, within=60)
    assert cluster.role(former, "broker") == "slave"
    assert found["write"].away < PROMISED, found["write"].away
    assert found["run"].away < 2 * PROMISED, found["run"].away


def test_a_primary_that_is_paused_is_replaced(cluster: Cluster, tmp_path: Path, eventually) -> None:  # type: ignore[no-untyped-def]
    """Catches clients and workers that hold on to a primary whose host still answers, and a former one that takes writes when it wakes."""
    former = cluster.primary()
    try:
        with drill(cluster, tmp_path, eventually) as found:
            cluster.console(former, "systemctl", "kill", "--signal=SIGSTOP", "redis-server@broker.service")
    finally:
        cluster.console(former, "systemctl", "kill", "--signal=SIGCONT", "redis-server@broker.service")
    eventually(cluster.well, within=60)
    assert cluster.role(former, "broker") == "slave"
    assert found["write"].away < PROMISED, found["write"].away
    assert found["run"].away < 2 * PROMISED, found["run"].away


def test_all_hosts_restarted_at_once_come_back(cluster: Cluster, tmp_path: Path, eventually) -> None:  # type: ignore[no-untyped-def]
    """Catches a set that needs one of its members up first, two primaries, and data that a start forgets."""
    with drill(cluster, tmp_path, eventually):
        for name in HOSTS:
            cluster.container(name).kill()
        for name in HOSTS:
            cluster.container(name).start()
        eventually(cluster.well, within=90)
    assert cluster.redis(cluster.primary(), "broker", "GET before", "textreport") == "kept"


def test_a_run_after_failovers_changes_nothing(cluster: Cluster) -> None:
    """Catches a run that puts the first primary back, or its own file over what Sentinel wrote."""
    before = {instance: cluster.primary(instance) for instance in ("broker", "cache")}
    done = cluster.ansible("ansible-playbook", "playbooks/cache.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "changed=0" in done.stdout
    assert not any(f"changed={number}" in done.stdout for number in range(1, 20)), done.stdout[-1000:]
    assert {instance: cluster.primary(instance) for instance in before} == before


def test_a_changed_setting_is_taken_up_with_no_write_lost(cluster: Cluster, tmp_path: Path, eventually) -> None:  # type: ignore[no-untyped-def]
    """Catches two members that restart at once, and a primary that restarts before another one serves."""
    with drill(cluster, tmp_path, eventually) as found:
        done = cluster.ansible("ansible-playbook", "--extra-vars", '{"redis_sentinel_down_after": 3100, "redis_addresses": ["{{ host_address }}", "127.0.0.1"]}', "playbooks/cache.yml")
        assert done.returncode == 0, done.stdout[-3000:]
    assert found["write"].away < PROMISED, found["write"].away


def test_a_member_rebuilt_from_nothing_has_all_data(cluster: Cluster, eventually) -> None:  # type: ignore[no-untyped-def]
    """Catches a new member that takes itself for the first primary: its emptiness would be everybody's data."""
    # The one that the inventory names first, and that is no primary then
    name = HOSTS[0]
    if cluster.primary() == name:
        cluster.redis(name, "sentinel", "SENTINEL FAILOVER broker")
        eventually(lambda: cluster.primary() != name)
    eventually(cluster.well, within=60)
    gone = "systemctl stop redis-sentinel 'redis-server@*'; apt-get -qq purge -y 'redis*' >/dev/null 2>&1; rm -rf /etc/redis /var/lib/redis /etc/groundcrew-redis.key"
    cluster.console(name, "sh", "-c", gone)
    done = cluster.ansible("ansible-playbook", f"--limit={name}", "playbooks/cache.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    eventually(cluster.well, within=60)
    assert cluster.role(name, "broker") == "slave"
    assert cluster.redis(name, "broker", "GET before", "textreport") == "kept"
