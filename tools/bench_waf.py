"""Measure what the web application firewall costs: requests per second with it and without, in turn, in one run.

Two sites of the host of the scenario waf serve the same application over TLS, one of them inspected. Medians over the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from docker.models.containers import Container

from tools import engine, host, image, runs
from tools.bench import machine
from tools.console import CACHE, LOGS, Problem, run_command, run_logged, say
from tools.scenarios import scenario_lock

SCENARIO = "waf"
HOST = "debian13"
LOG = LOGS / "bench-waf.log"
ON, OFF = "www.test.example", "open.test.example"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@dataclass(frozen=True)
class Kind:
    """A kind of request: its path, and what its body holds."""

    name: str
    path: str
    body: str = ""


KINDS = (
    Kind("a file from disk, which costs nginx next to nothing", "/file"),
    Kind("a search, answered by the small application", "/search?q=a+lamp+for+O%27Brien&page=2"),
    Kind("1 kB of JSON to it", "/api/items", '{"name": "anna", "text": "' + "One fish, two fish. " * 50 + '"}'),
)
WRK = """
wrk.method = "{method}"
wrk.headers["User-Agent"] = "{agent}"
wrk.headers["Accept"] = "text/html,application/json;q=0.9,*/*;q=0.8"
wrk.headers["Accept-Language"] = "de,en-US;q=0.7,en;q=0.3"
wrk.headers["Content-Type"] = {kind}
wrk.body = {body}
"""


def output(container: Container, script: str) -> str:
    code, text = host.run_in(container, script)
    if code:
        raise Problem(f"`{script}` ended with {code} in {container.name}:\n{text}")
    return text


def script(kind: Kind) -> str:
    """What wrk shall send."""
    return WRK.format(
        method="POST" if kind.body else "GET",
        agent=AGENT,
        kind='"application/json"' if kind.body else "nil",
        body=f"[[{kind.body}]]" if kind.body else "nil",
    )


def rate(container: Container, site: str, kind: Kind, seconds: int) -> float:
    """Requests per second that a site answers, all of them well."""
    text = output(container, f"wrk -t 2 -c 16 -d {seconds}s -s /run/bench.lua 'https://{site}{kind.path}'")
    found = re.search(r"^Requests/sec:\s*([0-9.]+)", text, re.MULTILINE)
    if not found or "Non-2xx" in text or "Socket errors" in text:
        raise Problem(f"{site} did not answer all requests well:\n{text}")
    return float(found[1])


def table(rates: dict[Kind, list[tuple[float, float]]]) -> str:
    """The medians and their ratio, as a table in Markdown."""
    lines = ["| request | without, a second | with, a second | ratio |", "|---|---|---|---|"]
    for kind, pairs in rates.items():
        off, on = (statistics.median(column) for column in zip(*pairs, strict=True))
        lines.append(f"| {kind.name} | {off:,.0f} | {on:,.0f} | {on / off:.2f} |")
    return "\n".join(lines)


def molecule(*words: str) -> None:
    os.environ.update({runs.RUN_VARIABLE: runs.run_id(), "MOLECULE_EPHEMERAL_DIRECTORY": str(CACHE / "molecule" / SCENARIO)})
    run_logged([str(Path(sys.executable).parent / "molecule"), *words, "--scenario-name", SCENARIO], LOG)


def measure(container: Container, rounds: int, seconds: int) -> dict[Kind, list[tuple[float, float]]]:
    output(container, "apt-get -qq update && apt-get -qq install --no-install-recommends wrk >/dev/null 2>&1")
    output(container, f"grep -q {ON} /etc/hosts || echo 127.0.0.1 {ON} {OFF} >> /etc/hosts")
    rates: dict[Kind, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    for number in range(1, rounds + 1):
        for kind, pairs in rates.items():
            output(container, f"cat > /run/bench.lua <<'END'\n{script(kind)}\nEND")
            off, on = (rate(container, site, kind, seconds) for site in (OFF, ON))
            pairs.append((off, on))
            say(f"Round {number} of {rounds}, {kind.path.partition('?')[0]}: {off:,.0f} without, {on:,.0f} with")
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement, default: 5")
    chosen = parser.parse_args()
    engine.ensure()
    client = engine.connect()
    for release in image.RELEASES:
        image.ensure(client, release)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with scenario_lock(SCENARIO):
        try:
            molecule("converge")
            rates = measure(client.containers.get(f"groundcrew-{SCENARIO}-{HOST}"), chosen.rounds, chosen.seconds)
        finally:
            molecule("destroy")
    say(f"{chosen.rounds} rounds of {chosen.seconds} s each, 16 connections, on {machine()}, with the client on the same machine:")
    say(table(rates))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
