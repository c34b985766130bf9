"""The three hosts, as whoever stands beside them sees them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tools import engine

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])
HOSTS = ("db1", "db2", "db3")
# Writes a row every 50 ms, over a new connection each; says which number was acknowledged when, until its input ends
WRITER = """
import psycopg2, select, sys, time
number = 0
while not select.select([sys.stdin], [], [], 0.05)[0]:
    number += 1
    try:
        connection = psycopg2.connect(sys.argv[1], application_name="writer")
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO acknowledged VALUES (%s, %s)", (sys.argv[2], number))
        finally:
            connection.close()
        print(number, time.time(), flush=True)
    except psycopg2.Error:
        pass
"""


@dataclass(frozen=True)
class Writes:
    """What was acknowledged, and the longest time from one to the next."""

    numbers: set[int]
    away: float


class Writer:
    """Writes from one of the hosts, to whichever leads."""

    def __init__(self, cluster: Cluster, host: str, label: str) -> None:
        self.label, self.lines = label, list[str]()
        name = cluster.container(host).name
        command = ["docker", "exec", "-i", str(name), "python3", "-u", "-c", WRITER, cluster.url(), label]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def acknowledged(self) -> int:
        """How many writes so far."""
        return len(self.lines)

    def stop(self) -> Writes:
        """End it, and read what it has said."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:  # its host is gone, and so is it
            pass
        self.process.wait(90)
        self.reader.join(10)
        lines = [line.split() for line in self.lines if line.endswith("\n")]
        moments = [float(moment) for _, moment in lines]
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        return Writes({int(number) for number, _ in lines}, max(gaps, default=0.0))


class Cluster:
    """The scenario's hosts."""

    def __init__(self, client: DockerClient) -> None:
        self.client = client
        self._url = ""

    def container(self, name: str) -> Container:
        return self.client.containers.get(f"groundcrew-patroni-{name}")

    def run(self, name: str, *argv: str) -> tuple[int, str]:
        """Run a command on a host as root: its status, and what it said."""
        code, output = self.container(name).exec_run(list(argv))
        return code, output.decode(errors="replace")

    def console(self, name: str, *argv: str) -> str:
        code, output = self.run(name, *argv)
        assert code == 0, f"{name}: {' '.join(argv)[:200]}: {output[-500:]}"
        return output

    def ask(self, name: str, statement: str, database: str = "postgres") -> str:
        return self.console(name, "timeout", "10", "runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", statement).strip()

    def members(self) -> dict[str, dict[str, str]]:
        for name in HOSTS:
            code, output = self.run(name, "timeout", "10", "patronictl", "-c", "/etc/patroni/config.yml", "list", "-f", "json")
            if code == 0 and output.startswith("["):
                return {one["Member"]: one for one in json.loads(output)}
        raise AssertionError("nobody says who the members are")

    def written(self, label: str) -> int:
        return int(self.ask(self.leader(), f"SELECT count(*) FROM acknowledged WHERE label = '{label}'", "textreport"))

    def leader(self) -> str:
        (found,) = (name for name, one in self.members().items() if one["Role"] == "Leader")
        return found

    def well(self) -> bool:
        """Whether one leads, two follow, and one of them has each commit."""
        members = self.members()
        roles = sorted(one["Role"] for one in members.values())
        states = {one["State"] for one in members.values()}
        return roles == ["Leader", "Replica", "Sync Standby"] and states <= {"running", "streaming"} and len({one["TL"] for one in members.values()}) == 1

    def url(self) -> str:
        """What the fleet gives an application, as PostgreSQL's own tools take it."""
        if not self._url:
            text = self.said("ansible", "db1", "--playbook-dir=playbooks", "-m", "debug", "-a", "msg=URL={{ database_url }}")
            self._url = text.split("URL=", 1)[1].split('"', 1)[0].split()[0].replace("postgresql+psycopg://", "postgresql://")
        return self._url

    def address(self, name: str) -> str:
        (network,) = self.container(name).attrs["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def said(self, program: str, *options: str) -> str:
        done = self.ansible(program, *options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        return done.stdout

    def ansible(self, program: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name(program)), f"--inventory={os.environ['MOLECULE_INVENTORY_FILE']}", *options]
        return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=600)

    def playbook(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.ansible("ansible-playbook", *options)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    made = Cluster(engine.connect())
    made.ask(made.leader(), "CREATE TABLE IF NOT EXISTS acknowledged (label text, number integer); ALTER TABLE acknowledged OWNER TO textreport", "textreport")
    return made


@pytest.fixture
def lost(cluster: Cluster) -> Callable[[Writer, Writes], set[int]]:
    """Return a function that tells which of the acknowledged writes are not there."""

    def find(writer: Writer, writes: Writes) -> set[int]:
        assert len(writes.numbers) > 20, "the writer has hardly written"
        said = cluster.ask(cluster.leader(), f"SELECT number FROM acknowledged WHERE label = '{writer.label}'", "textreport")
        return writes.numbers - {int(line) for line in said.split()}

    return find
