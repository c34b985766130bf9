"""Run Molecule scenarios side by side: a line each with its time, the failures in full, and one count at the end."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker.errors import APIError

from tools import engine, image, runs
from tools.console import CACHE, LOGS, ROOT, Problem, duration, run_command, say
from tools.services import terminate

SCENARIO_SECONDS = 60 * 60
# Two hosts with the whole stack and the Ansible run that converges them
SCENARIO_BYTES = 3 * 1024**3
TIMES = CACHE / "scenario-times.json"
# By `make soak`, one after the other: they measure how long answers take, or last long; of patroni, cluster asks what matters most
SOAK = ("releases", "patroni", "pool", "edge", "upgrade", "major")
# Those that take longest elsewhere
LONG = (
    "cluster",
    "debian12",
    "default",
    "servers",
    "hardening",
    "acme",
    "fail2ban",
    "waf",
    "nginx",
    "app",
    "celery",
    "bootstrap",
    "ssh",
    "another",
    "tls",
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# pytest's closing line, such as "=== 1 failed, 12 passed in 3.21s ==="
CLOSING = re.compile(r"^=+ (?P<counts>.*\b(?:passed|failed|errors?|skipped|deselected)\b.*) in [\d.]+s\b.*=+$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """How a scenario ended."""

    name: str
    code: int
    seconds: float
    log: Path

    @property
    def output(self) -> str:
        return COLOUR.sub("", self.log.read_text(encoding="utf-8", errors="replace"))

    def tests(self) -> tuple[int, int]:
        """How many tests passed and failed; a scenario that failed outside of its tests counts as a failure."""
        passed = failed = 0
        for line in CLOSING.finditer(self.output):
            counts = {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) (\w+)", line["counts"])}
            passed += counts.get("passed", 0)
            failed += counts.get("failed", 0) + counts.get("error", 0)
        return passed, failed or int(self.code != 0)


def all_scenarios() -> list[str]:
    return sorted(path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))


def chosen(names: list[str]) -> list[str]:
    """Return what to run: what is named, else all but the long history."""
    if unknown := set(names) - set(all_scenarios()):
        raise Problem(f"no scenario {', '.join(sorted(unknown))}", f"Choose from: {' '.join(all_scenarios())}")
    return names or [name for name in all_scenarios() if name not in SOAK]


def known_times() -> dict[str, float]:
    try:
        return {str(name): float(seconds) for name, seconds in json.loads(TIMES.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError):
        return {}


def longest_first(names: list[str]) -> list[str]:
    """The longest scenario must not be the last to start: by the times of this checkout, else as they were elsewhere."""
    times = known_times()
    return sorted(names, key=lambda name: (-times.get(name, 1e6), LONG.index(name) if name in LONG else len(LONG), name))


def available_bytes() -> int:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else SCENARIO_BYTES


def jobs() -> int:
    """How many scenarios run at a time: GROUNDCREW_JOBS, else what cores and memory allow."""
    if chosen := os.environ.get("GROUNDCREW_JOBS"):
        if not chosen.isdigit() or int(chosen) < 1:
            raise Problem(f"GROUNDCREW_JOBS is {chosen!r}", "A number of scenarios at a time, 1 or more")
        return int(chosen)
    # One more than there are cores, for each waits a good part of its time
    return max(1, min((os.cpu_count() or 1) + 1, available_bytes() // SCENARIO_BYTES))


@contextmanager
def scenario_lock(name: str) -> Iterator[None]:
    """A scenario's hosts have fixed names: a second run of it waits for the first."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / f"scenario-{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_scenario(name: str, running: set[subprocess.Popen[bytes]]) -> Result:
    log = LOGS / f"molecule-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        runs.RUN_VARIABLE: runs.run_id(),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(CACHE / "molecule" / name),
        "ANSIBLE_FORCE_COLOR": "false",
        "PY_COLORS": "0",
    }
    with scenario_lock(name), log.open("wb") as out:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", name],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            # A group of its own, so that all of it can be ended
            start_new_session=True,
        )
        running.add(process)
        try:
            code = process.wait(timeout=SCENARIO_SECONDS)
        except subprocess.TimeoutExpired:
            end(process)
            out.write(f"\nended after {duration(SCENARIO_SECONDS)}, the most that a scenario may take\n".encode())
            code = 124
        running.discard(process)
    return Result(name, code, time.monotonic() - begin, log)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a scenario with everything that it has started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        pass


def shortened(lines: list[str], log: Path) -> str:
    if len(lines) > 200:
        lines = [*lines[:120], f"... {len(lines) - 180} lines left out: {log}", *lines[-60:]]
    return "\n".join(line if len(line) <= 300 else f"{line[:300]} ..." for line in lines)


def culprits(result: Result) -> list[str]:
    """A line for each failed test, else for each failed task: what to read when nothing else is kept of a run."""
    lines = result.output.splitlines()
    if failed := [line for line in lines if re.match(r"(FAILED|ERROR) \S+::", line)]:
        return [line[:300] for line in failed]
    found, task = [], ""
    for line in lines:
        if line.startswith("TASK ["):
            task = line.rstrip("* ")
        elif line.startswith(("fatal: [", "failed: [")):
            found.append(f"{task} {line}"[:300])
    return found or lines[-1:]


def failure_report(result: Result) -> str:
    """The tests' failures where tests have failed, else the tasks that failed, else the end of the log."""
    output = result.output
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"=+ (FAILURES|ERRORS) =+", line):
            last = next((later for later in range(number, len(lines)) if CLOSING.match(lines[later])), len(lines))
            return shortened(lines[number : last + 1], result.log)
    for number, line in enumerate(lines):
        if line.startswith(("fatal: [", "failed: [")):
            first = next((earlier for earlier in range(number, 0, -1) if lines[earlier].startswith("TASK [")), 0)
            last = next((later for later in range(number, len(lines)) if lines[later].startswith("PLAY RECAP")), len(lines))
            # Molecule's own words say in which step it was
            said = [later for later in lines[last:] if later.startswith(("CRITICAL", "ERROR"))]
            return shortened([*lines[first:last], *said], result.log)
    return shortened(lines[-60:], result.log)


def report(result: Result) -> None:
    passed, failed = result.tests()
    counts = f"{passed} passed" + (f", {failed} failed" if result.code else "")
    word = "failed" if result.code else "ok"
    say(f"{word:<7} {result.name:<20} {duration(result.seconds):>12}   {counts}")
    if result.code:
        say(f"----- {result.name}: {result.log.relative_to(ROOT)}\n{failure_report(result)}\n-----")


def clean_up() -> None:
    """Remove what this run's scenarios have left; a scenario that ended by itself has left nothing."""
    client = engine.connect()
    mine: dict[str, str | list[str] | bool] = {"label": f"{runs.RUN_LABEL}={runs.run_id()}"}
    for container in client.containers.list(all=True, filters=mine, ignore_removed=True):
        runs.remove(container)
    for network in client.networks.list(filters=mine):
        try:
            network.remove()
        except APIError as error:
            say(f"the network {network.name} was not removed: {error.explanation}")


def run_all(names: list[str]) -> list[Result]:
    running: set[subprocess.Popen[bytes]] = set()
    results = []
    pool = ThreadPoolExecutor(max_workers=jobs())
    try:
        futures = [pool.submit(run_scenario, name, running) for name in longest_first(names)]
        for future in as_completed(futures):
            results.append(future.result())
            report(results[-1])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            end(process)
        clean_up()
    TIMES.write_text(json.dumps(known_times() | {item.name: item.seconds for item in results if not item.code}))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"default: all but {', '.join(SOAK)}")
    names = chosen(parser.parse_args().names)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    begin = time.monotonic()
    engine.ensure()
    client = engine.connect()
    if stale := runs.remove_stale(client):
        say(f"Removed what ended runs have left: {', '.join(stale)}")
    for release in image.RELEASES:
        image.ensure(client, release)
    say(f"Molecule: {len(names)} scenarios on Debian 12 and 13, {min(jobs(), len(names))} at a time, logs in {LOGS.relative_to(ROOT)}/")
    results = run_all(names)
    counts = [result.tests() for result in results]
    failed = [result.name for result in results if result.code]
    for result in results:
        for line in culprits(result) if result.code else []:
            say(f"{result.name}: {line}")
    say(f"Molecule: {len(results)} scenarios in {duration(time.monotonic() - begin)}; failed: {', '.join(failed) or 'none'}")
    say(f"{sum(count[0] for count in counts)} passed, {sum(count[1] for count in counts)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
