"""The cluster and the application's host, as whoever stands beside them sees them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import threading
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker.models.containers import Container

from tools import engine

PORT = 6432
# Writes a row every 50 ms over one connection, as a process of the application does; makes another one when it fails. Says which number was
# acknowledged when, until its input ends.
WRITER = """
import psycopg, select, sys, time
url, label, number, connection = sys.argv[1], sys.argv[2], 0, None
while not select.select([sys.stdin], [], [], 0.05)[0]:
    number += 1
    try:
        connection = connection or psycopg.connect(url, connect_timeout=2, autocommit=True)
        connection.execute("INSERT INTO acknowledged VALUES (%s, %s)", (label, number))
        print(number, time.time(), flush=True)
    except psycopg.Error as error:
        print("failed:", str(error).replace(chr(10), " "), flush=True, file=sys.stderr)
        connection = connection and connection.close()
"""


@dataclass(frozen=True)
class Writes:
    """What was acknowledged, the longest time from one to the next, and how many failed."""

    numbers: set[int]
    away: float
    failed: int


class Writer:
    """Writes through the pool."""

    def __init__(self, pool: Pool, label: str) -> None:
        self.label, self.lines, self.errors = label, list[str](), list[str]()
        command = ["docker", "exec", "-i", str(pool.container("db3").name), "python3", "-u", "-c", WRITER, pool.url(), label]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        streams = ((self.process.stdout, self.lines), (self.process.stderr, self.errors))
        self.readers = [threading.Thread(target=self.read, args=pair, daemon=True) for pair in streams]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(stream: Iterable[str], lines: list[str]) -> None:
        for line in stream:
            lines.append(line)  # noqa: PERF402, they are seen to grow

    def acknowledged(self) -> int:
        """How many writes so far."""
        return len(self.lines)

    def stop(self) -> Writes:
        """End it, and read what it has said."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(90)
        for reader in self.readers:
            reader.join(10)
        lines = [line.split() for line in self.lines if line.endswith("\n")]
        moments = [float(moment) for _, moment in lines]
        gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        return Writes({int(number) for number, _ in lines}, max(gaps, default=0.0), len(self.errors))


class Pool:
    """The scenario's hosts."""

    def __init__(self) -> None:
        self.client = engine.connect()

    def container(self, name: str) -> Container:
        return self.client.containers.get(f"groundcrew-pool-{name}")

    def run(self, name: str, *argv: str, user: str = "root", stdin: str = "") -> tuple[int, str]:
        """Run a command on a host: its status, and what it said."""
        command = ["docker", "exec", "-i", "-u", user, str(self.container(name).name), *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def said(self, name: str, *argv: str, user: str = "root", stdin: str = "") -> str:
        code, output = self.run(name, *argv, user=user, stdin=stdin)
        assert code == 0, f"{name}: {' '.join(argv)[:200]}: {output[-800:]}"
        return output.strip()

    def ask(self, statement: str) -> str:
        """Ask the leader, past the pool."""
        return self.said(self.leader(), "timeout", "10", "psql", "-XAtq", "-d", "textreport", "-c", statement, user="postgres")

    def console(self, statement: str) -> str:
        """Ask PgBouncer itself."""
        return self.said("db3", "psql", "-XAtq", "-h", "/run/pgbouncer", "-p", str(PORT), "pgbouncer", "-c", statement, user="pgbouncer")

    def members(self) -> dict[str, dict[str, str]]:
        for name in ("db1", "db2", "db3"):
            with contextlib.suppress(Exception):
                code, output = self.run(name, "timeout", "10", "patronictl", "-c", "/etc/patroni/config.yml", "list", "-f", "json")
                if code == 0 and output.startswith("["):
                    return {one["Member"]: one for one in json.loads(output)}
        raise AssertionError("nobody says who the members are")

    def leader(self) -> str:
        (found,) = (name for name, one in self.members().items() if one["Role"] == "Leader")
        return found

    def well(self) -> bool:
        """Whether one leads, two follow, and one of them has each commit."""
        members = self.members()
        return (
            sorted(one["Role"] for one in members.values()) == ["Leader", "Replica", "Sync Standby"]
            and {one["State"] for one in members.values()} <= {"running", "streaming"}
            and len({one["TL"] for one in members.values()}) == 1
        )

    @property
    def password(self) -> str:
        return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "app").read_text().split()[0] + '"%;'

    def url(self, user: str = "textreport", password: str = "", database: str = "textreport") -> str:
        return f"postgresql://{user}:{urllib.parse.quote(password or self.password)}@127.0.0.1:{PORT}/{database}"

    def writer(self, label: str) -> Writer:
        """Begin to write through the pool."""
        return Writer(self, label)

    def lost(self, writer: Writer, writes: Writes) -> set[int]:
        """Which of the acknowledged writes are not there."""
        assert len(writes.numbers) > 20, f"the writer has hardly written: {writer.errors[-3:]}"
        rows = [row.split() for row in self.ask("SELECT label || ' ' || number FROM acknowledged").splitlines()]
        return writes.numbers - {int(number) for label, number in rows if label == writer.label}


@pytest.fixture(scope="session")
def pool() -> Pool:
    made = Pool()
    made.ask("CREATE TABLE IF NOT EXISTS acknowledged (label text, number integer); ALTER TABLE acknowledged OWNER TO textreport")
    return made
