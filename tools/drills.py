"""Faults under load, and what became of everything that was acknowledged."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from docker import DockerClient
from docker.models.containers import Container

from tools import engine
from tools.console import say
from tools.host import text
from tools.load import Answer, Load, Request

SCENARIO = "cluster"
EDGES, DATA = ("edge1", "edge2"), ("data1", "data2", "data3")
HOSTS = (*EDGES, "app1", "app2", *DATA)
BROKER = "redis-server@broker.service"
SENTINEL_STATE = "/var/lib/redis/sentinel/server.conf"
# A write makes a row and a task; half the requests are writes
MIX = [Request("POST", "/api/reports", '{"text": "Number {number}."}'), Request("GET", "/api/reports")]
RATE = 8.0
# Seconds of load before a fault, and of answers without a failure after which all is taken to be well again
QUIET, STEADY = 3.0, 5.0
LONGEST = 90.0
# Seconds until every task is done: those that went with a broker are sent again (molecule/cluster: after 30, by a look each 30)
TASKS_DONE = 150.0


class NotYet(Exception):
    """What was waited for did not come in time."""


def wait(what: str, ask: Callable[[], object], within: float) -> None:
    """Ask until it is true; bounded."""
    end, last = time.monotonic() + within, ""
    while time.monotonic() < end:
        try:
            if ask():
                return
        except Exception as error:  # a host that is on its way up answers nothing
            last = f": {error}"
        # Between two questions; the bound is above
        time.sleep(0.5)
    raise NotYet(f"{what} within {within:g} s{last}")


@dataclass(frozen=True)
class Outcome:
    """What a drill measured: seconds without a successful write and without a successful read, and counts."""

    name: str
    writes_away: float
    reads_away: float
    sent: int
    failed: int
    acknowledged: int
    lost: int
    unfinished: int

    def row(self) -> str:
        return (
            f"| {self.name} | {self.writes_away:.1f} | {self.reads_away:.1f} | {self.sent} | {self.failed} "
            f"| {self.acknowledged} | {self.lost} | {self.unfinished} |"
        )


HEAD = """| drill | writes away, s | reads away, s | requests | failed | acknowledged writes | lost | tasks lost |
|---|---|---|---|---|---|---|---|"""


def away(answers: list[Answer], method: str, begin: float, end: float) -> float:
    """The longest time from one successful answer to the next, of those that came over new connections."""
    came = [one.due + one.seconds for one in answers if one.good and one.request.method == method and not one.kept_alive]
    moments = [begin, *sorted(moment for moment in came if begin < moment < end), end]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


@dataclass
class Cluster:
    """The scenario's hosts, as whoever stands beside them sees them: power, cables, and a console."""

    engine: DockerClient
    ca_file: Path
    address: str
    outcomes: list[Outcome] = field(default_factory=list)

    def container(self, name: str) -> Container:
        label = f"groundcrew.scenario={SCENARIO}"
        (found,) = (one for one in self.engine.containers.list(all=True, filters={"label": label}) if str(one.name).endswith(f"-{name}"))
        return found

    def console(self, name: str, *argv: str) -> str:
        """Run a command on a host as root."""
        code, output = self.container(name).exec_run(list(argv))
        said = text(output)
        if code:
            raise NotYet(f"{name}: {' '.join(argv)[:200]}: {said[-500:]}")
        return said

    # The database

    def ask(self, name: str, statement: str, database: str = "postgres") -> str:
        return self.console(
            name, "timeout", "10", "runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", database, "-c", statement
        ).strip()

    def leader(self) -> str:
        found = []
        for name in DATA:
            try:
                if self.ask(name, "SELECT pg_is_in_recovery()") == "f":
                    found.append(name)
            except (NotYet, OSError):
                continue
        if len(found) != 1:
            raise NotYet(f"one leader, but {found}")
        return found[0]

    def followed(self) -> bool:
        """Whether the leader has two that follow it, one of them synchronously."""
        said = self.ask(self.leader(), "SELECT state || ' ' || sync_state FROM pg_stat_replication WHERE application_name ~ '^data'").split(
            "\n"
        )
        states = sorted(line for line in said if line.startswith("streaming"))
        return states == ["streaming async", "streaming sync"]

    def synchronous(self, *, commits: bool) -> None:
        """Have commits wait for a second host, or not."""
        setting = f"synchronous_mode={commits}".lower()
        self.console(self.leader(), "patronictl", "-c", "/etc/patroni/config.yml", "edit-config", "--force", "--quiet", "--set", setting)
        wait("the leader's word for it", lambda: bool(self.ask(self.leader(), "SHOW synchronous_standby_names")) is commits, 30)

    # The broker

    def primary(self) -> str:
        """The host of the broker's primary, as most of the sentinels have it."""
        said = [
            self.console(name, "sh", "-c", f"grep -h '^sentinel monitor broker ' {SENTINEL_STATE}").split()[3] for name in self.up(DATA)
        ]
        (address, _), *_ = Counter(said).most_common()
        return next(name for name in DATA if self.host_address(name) == address)

    def redis(self, name: str, signal: str) -> None:
        self.console(name, "systemctl", "kill", f"--signal={signal}", BROKER)

    def keep_down(self, primary: str) -> None:
        """Kill the broker's primary, and keep its unit from starting it again before others have noticed."""
        self.console(primary, "systemctl", "mask", "--runtime", BROKER)
        self.redis(primary, "KILL")

    def give_back(self, primary: str) -> None:
        """Undo `keep_down`, and have the sentinels watch."""
        self.console(primary, "systemctl", "unmask", "--runtime", BROKER)
        self.console(primary, "systemctl", "start", BROKER)
        self.watched(on=True)

    def watched(self, *, on: bool) -> None:
        """Have the sentinels watch, or not."""
        for name in DATA:
            self.console(name, "systemctl", "start" if on else "stop", "redis-sentinel.service")

    def up(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if self.container(name).status == "running"]

    # The edge

    def holders(self) -> list[str]:
        """The edges that have the virtual address."""
        return [name for name in self.up(EDGES) if f" {self.address}/" in self.console(name, "ip", "-o", "-4", "address")]

    # Faults

    def kill(self, name: str) -> None:
        """Take the power from a host."""
        self.container(name).kill()

    @contextmanager
    def held_writes(self, name: str) -> Iterator[None]:
        """Have writes wait in the database, until one has come there from this host."""
        leader, address = self.leader(), self.host_address(name)
        hold = "SET application_name = 'drill'; BEGIN; LOCK TABLE reports IN SHARE MODE; SELECT pg_sleep(60)"
        waiting = "SELECT host(client_addr) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ '^INSERT'"
        release = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'drill'"
        self.container(leader).exec_run(["runuser", "-u", "postgres", "--", "psql", "-q", "-d", "textreport", "-c", hold], detach=True)
        try:
            wait(f"a write from {name} in the database", lambda: address in self.ask(leader, waiting).split(), 30)
            yield
        finally:
            self.ask(leader, release)

    def start(self, name: str) -> None:
        self.container(name).start()

    def cut(self, name: str, others: tuple[str, ...]) -> None:
        """Cut a host from these others, in both directions, connections that there are included."""
        addresses = ", ".join(self.host_address(other) for other in others if other != name)
        rules = f"""table inet drill {{
          chain input {{ type filter hook input priority -200; ip saddr {{ {addresses} }} drop; }}
          chain output {{ type filter hook output priority -200; ip daddr {{ {addresses} }} drop; }}
        }}"""
        self.console(name, "sh", "-c", f"echo '{rules}' | nft -f -")

    def mend(self, name: str) -> None:
        self.console(name, "nft", "delete table inet drill")

    def host_address(self, name: str) -> str:
        networks = self.container(name).attrs["NetworkSettings"]["Networks"]
        return str(networks[f"groundcrew-{SCENARIO}"]["IPAMConfig"]["IPv4Address"])

    # The drill

    def load(self) -> Load:
        # A client that gives up before others do, and comes again
        return Load("https://localhost:443", MIX, RATE, self.ca_file, self.address, threads=48, timeout=10)

    def ready(self) -> bool:
        client = self.load().client()
        try:
            client.request("GET", "/readyz")
            answer = client.getresponse()
            answer.read()
            return answer.status == 200
        finally:
            client.close()

    def well(self) -> None:
        """Wait until everything is as before a drill."""
        wait("every component ready", self.ready, 120)
        wait("two that follow the leader", self.followed, 120)

    @contextmanager
    def drill(self, name: str) -> Iterator[list[Outcome]]:
        """Run the fault that is the body under load, wait until writes succeed again, and look for all that was acknowledged."""
        self.well()
        load = self.load()
        found: list[Outcome] = []
        load.start()
        try:
            wait("the load running", lambda: len(load.answers) > QUIET * RATE, 60)
            begin = time.time()
            yield found
            fault = time.time()
            self.steady(load, fault)
        finally:
            answers = load.stop()
        end = max(one.due for one in answers)
        during = [one for one in answers if one.due >= begin]
        acknowledged = {one.location.rsplit("/", 1)[1] for one in answers if one.good and one.location}
        lost, unfinished = self.missing(acknowledged)
        failed = [one for one in during if not one.good]
        outcome = Outcome(
            name,
            away(answers, "POST", begin, end),
            away(answers, "GET", begin, end),
            len(during),
            len(failed),
            len(acknowledged),
            len(lost),
            len(unfinished),
        )
        self.outcomes.append(outcome)
        for one in failed[:10]:
            kind = "kept" if one.kept_alive else "new"
            say(
                f"{name}: after {one.due - begin:.1f} s {one.request.method} by a {kind} connection, {one.seconds:.1f} s: {one.error or one.status}"
            )
        found.append(outcome)

    def steady(self, load: Load, since: float) -> None:
        """Wait until nothing has failed for a while that was sent over a new connection."""

        def calm() -> bool:
            late = [one for one in list(load.answers) if one.due > max(since, time.time() - STEADY) and not one.kept_alive]
            return time.time() > since + STEADY and len(late) > STEADY * RATE / 4 and all(one.good for one in late)

        # Where it never is, what was measured says so
        with suppress(NotYet):
            wait("answers without a failure", calm, LONGEST)

    def missing(self, acknowledged: set[str]) -> tuple[set[str], set[str]]:
        """Which of the acknowledged writes are not there, and which of their tasks do not end."""
        states: dict[str, str] = {}

        def finished() -> bool:
            said = self.ask(self.leader(), "SELECT id || ' ' || state FROM reports", "textreport")
            states.clear()
            states.update(re.findall(r"^(\S+) (\S+)$", said, re.MULTILINE))
            return all(states.get(key, "done") == "done" for key in acknowledged)

        with suppress(NotYet):
            wait("every task done", finished, TASKS_DONE)
        there = acknowledged & states.keys()
        return acknowledged - there, {key for key in there if states[key] != "done"}


def table(outcomes: list[Outcome]) -> str:
    return "\n".join([HEAD, *(one.row() for one in outcomes)])


def generated() -> Path:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


def measured() -> Iterator[Cluster]:
    """The scenario's hosts; says in the end what was measured on them."""
    made = Cluster(engine.connect(), generated() / "ca/ca.pem", "")
    made.address = made.host_address("edge1").rsplit(".", 1)[0] + ".200"
    yield made
    say(table(made.outcomes))
