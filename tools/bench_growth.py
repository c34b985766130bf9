"""Measure a run of site.yml that changes nothing, over 1, 4 and 8 hosts in one go: its wall time, and whose processor it took; each of
them as Ansible runs by itself, and with Mitogen, which has to report the same of every task.

The hosts are containers on this machine, so their processors count too: where it is busy all the time, that is the bound. Each size is an
inventory that people have: all on one host; a tier a host; an application tier of four, two edges, database and cache.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tools import access, engine, galaxy, host, prepared, runs, up
from tools.bench import machine, site
from tools.console import CACHE, LOCAL, LOGS, ROOT, Problem, duration, run_command, say

GOAL = 3.0
LOG = LOGS / "bench-growth.log"
FOLDER = CACHE / "bench-growth"
RELEASE = "trixie"
SIZES: dict[int, dict[str, list[str]]] = {
    1: {"web": ["h1"], "app": ["h1"], "worker": ["h1"], "db": ["h1"], "cache": ["h1"]},
    4: {"web": ["h1"], "app": ["h2"], "worker": ["h2"], "db": ["h3"], "cache": ["h4"]},
    8: {"web": ["h1", "h2"], "app": ["h3", "h4", "h5", "h6"], "worker": ["h5", "h6"], "db": ["h7"], "cache": ["h8"]},
}
TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.+?)\] \**$")
RESULT = re.compile(r"^(?P<state>ok|changed|failed|fatal): \[(?P<host>[^]]+)\]")


@dataclass
class Size:
    """Seconds of each round: by the clock, of this side's processes, of the hosts'."""

    hosts: int
    wall: list[float] = field(default_factory=list)
    controller: list[float] = field(default_factory=list)
    managed: list[float] = field(default_factory=list)


def accelerated() -> dict[str, str]:
    """What has Ansible run by Mitogen: one process a host stays from task to task, in place of one a task."""
    found = find_spec("ansible_mitogen")
    if found is None or found.origin is None:
        raise Problem("Mitogen is not in the toolchain", "make toolchain")
    return {"ANSIBLE_STRATEGY_PLUGINS": str(Path(found.origin).parent / "plugins/strategy"), "ANSIBLE_STRATEGY": "mitogen_linear"}


def start(client: docker.DockerClient, count: int) -> list[Container]:
    """Hosts that the key of this machine may log in to."""
    access.make_secrets()
    access.make_key()
    lines, hosts = "", []
    for number in range(1, count + 1):
        ports = {443: up.ports()[443]} if number == 1 else None
        labels = runs.labels()
        container = host.start(
            client, f"groundcrew-growth-{number}", RELEASE, labels=labels, ports=ports, from_image=prepared.ensure(client, RELEASE)
        )
        hosts.append(container)
        host.wait_until_up(container)
        container.reload()
        lines += access.admit(container, address(container), 22)
    access.know(lines)
    return hosts


def address(container: Container) -> str:
    return str(container.attrs["NetworkSettings"]["IPAddress"])


def inventory(hosts: list[Container]) -> Path:
    """The local environment's settings, for these hosts in their groups."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "group_vars").symlink_to(ROOT / "inventories/local/group_vars")
    names = {f"h{number}": {"ansible_host": address(container)} for number, container in enumerate(hosts, 1)}
    groups = {group: {"hosts": dict.fromkeys(members)} for group, members in SIZES[len(hosts)].items()}
    (FOLDER / "hosts.yml").write_text(json.dumps({"all": {"hosts": names, "children": groups}}), encoding="utf-8")
    return FOLDER


def processor_seconds(hosts: list[Container]) -> float:
    found = 0.0
    for one in hosts:
        told: Any = one.stats(stream=False)
        found += told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    return found


def own_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reported(output: str) -> Counter[tuple[str, str, str]]:
    """How often a run says what of which task on which host."""
    found: Counter[tuple[str, str, str]] = Counter()
    task = ""
    for line in output.splitlines():
        if named := TASK.match(line):
            task = named["name"]
        elif said := RESULT.match(line):
            found[task, said["host"], said["state"]] += 1
    return found


def run(folder: Path, *, changes: bool, settings: dict[str, str]) -> tuple[float, Counter[tuple[str, str, str]]]:
    begin = LOG.stat().st_size if LOG.exists() else 0
    seconds = site(changes=changes, inventory=str(folder), log=LOG, settings=settings)
    return seconds, reported(LOG.read_bytes()[begin:].decode(errors="replace"))


def the_same(one: Counter[tuple[str, str, str]], other: Counter[tuple[str, str, str]], what: str) -> None:
    if not one or one != other:
        differ = [(f"+{count}", key) for key, count in (one - other).items()] + [(f"-{count}", key) for key, count in (other - one).items()]
        lines = [f"{count} {' / '.join(key)}" for count, key in differ[:20]]
        raise Problem(f"{what} reports {len(differ)} things otherwise with Mitogen:\n" + "\n".join(lines), f"Read {LOG}")


def measure(client: docker.DockerClient, count: int, rounds: int) -> tuple[Size, Size]:
    """The size as Ansible runs by itself, and with Mitogen, round by round."""
    plain, fast = Size(count), Size(count)
    try:
        hosts = start(client, count)
        folder = inventory(hosts)
        run(folder, changes=True, settings={})
        for _ in range(rounds):
            said = []
            for size, settings in ((plain, {}), (fast, accelerated())):
                managed, own = processor_seconds(hosts), own_seconds()
                seconds, found = run(folder, changes=False, settings=settings)
                size.wall.append(seconds)
                size.controller.append(own_seconds() - own)
                size.managed.append(processor_seconds(hosts) - managed)
                said.append(found)
            plainly, quickly = said
            the_same(plainly, quickly, f"a run that changes nothing on {count} hosts")
    finally:
        remove(client)
    return plain, fast


def parity(client: docker.DockerClient) -> tuple[float, float]:
    """Take a fresh host to the end in both ways: the same of every task, and nothing to change afterwards. Returns the seconds of each."""
    found = []
    for settings, others in (({}, accelerated()), (accelerated(), {})):
        try:
            folder = inventory(start(client, 1))
            found.append(run(folder, changes=True, settings=settings))
            # What one of them has made, the other one leaves as it is
            run(folder, changes=False, settings=others)
        finally:
            remove(client)
    (plain, said), (fast, other) = found
    # What the first of them has made on this side is there for the second
    said, other = (Counter({key: count for key, count in one.items() if not key[1].endswith("-> localhost")}) for one in (said, other))
    the_same(said, other, "the first run on a host")
    return plain, fast


def remove(client: docker.DockerClient) -> None:
    for container in client.containers.list(all=True, filters={"name": "groundcrew-growth-", "label": f"{runs.RUN_LABEL}={runs.run_id()}"}):
        runs.remove(container)


def table(sizes: list[tuple[Size, Size]]) -> str:
    """The medians, as a table in Markdown."""
    one = statistics.median(sizes[0][0].wall)
    lines = [
        "| hosts | wall time | ratio to 1 host | controller's processors | hosts' processors | of this machine's | with Mitogen | ratio to without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for plain, fast in sizes:
        wall, controller, managed = (statistics.median(item) for item in (plain.wall, plain.controller, plain.managed))
        busy = (controller + managed) / wall / (os.cpu_count() or 1)
        ratio = f"{wall / one:.2f}" + (f" (goal: {GOAL:g} at most)" if plain.hosts == 8 else "")
        quick = statistics.median(fast.wall)
        lines.append(
            f"| {plain.hosts} | {wall:.1f} s | {ratio} | {controller:.1f} s | {managed:.1f} s | {busy:.0%} | {quick:.1f} s | {quick / wall:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=3, help="3 by default")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        raise Problem(f"{rounds} rounds", "1 or more: make bench-growth ROUNDS=3")
    begin = time.monotonic()
    galaxy.ensure()
    engine.ensure()
    client = engine.connect()
    if client.containers.list(all=True, filters={"name": f"^{up.NAME}$"}):
        raise Problem("the local host is up, and it would be measured with", "make down")
    up.refuse_taken_ports({443: up.ports()[443]})
    LOG.unlink(missing_ok=True)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    try:
        plain, fast = parity(client)
        say(f"A fresh host: {plain:.1f} s, with Mitogen {fast:.1f} s, and it reports the same of every task")
        sizes = []
        for count in SIZES:
            sizes.append(measure(client, count, rounds))
            say(
                f"{count} hosts: "
                + ", ".join(
                    f"{one:.1f} s ({other:.1f} s with Mitogen)" for one, other in zip(*(size.wall for size in sizes[-1]), strict=True)
                )
            )
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.rmtree(LOCAL, ignore_errors=True)
    say(f"\n{table(sizes)}\n\n{rounds} rounds in {duration(time.monotonic() - begin)} on {machine()}.")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
