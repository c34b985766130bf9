"""Run a command beside real PostgreSQL and Redis: one container, ports that are free, removed whatever happens."""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import docker
from docker.models.containers import Container

from tools import engine, host, image, runs
from tools.console import Problem, duration, run_command, say

USER = "textreport"
READY = "redis-cli -p 6380 ping >/dev/null 2>&1 && pg_isready -q -h 127.0.0.1"
READY_SECONDS = 60


def addresses(container: Container, password: str) -> dict[str, str]:
    """The environment variables that say where the services are."""
    container.reload()
    ports = {inside: bindings[0]["HostPort"] for inside, bindings in container.ports.items() if bindings}
    login = f"{USER}:{password}@127.0.0.1"
    return {
        "TEST_DATABASE_URL": f"postgresql+psycopg://{login}:{ports['5432/tcp']}/{USER}",
        "TEST_BROKER_URL": f"redis://{login}:{ports['6379/tcp']}/0",
        "TEST_CACHE_URL": f"redis://{login}:{ports['6380/tcp']}/0",
    }


def wait_until_ready(container: Container) -> None:
    until = time.monotonic() + READY_SECONDS
    while host.run_in(container, READY)[0] != 0:
        container.reload()
        if container.status != "running" or time.monotonic() > until:
            log = container.logs(tail=15).decode(errors="replace")
            raise Problem(f"the services' container {container.name} does not become ready:\n{log}")
        time.sleep(0.2)


@contextmanager
def running(client: docker.DockerClient) -> Iterator[dict[str, str]]:
    """The services, for as long as the block runs."""
    password = secrets.token_urlsafe(16)
    container = client.containers.create(
        image.ensure_helper(client, "services"),
        name=f"groundcrew-services-{os.getpid()}",
        labels=runs.labels(),
        environment={"SERVICES_USER": USER, "SERVICES_PASSWORD": password},
        # Port 0 lets the kernel choose
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in (5432, 6379, 6380)},
        init=True,
    )
    try:
        container.start()
        wait_until_ready(container)
        yield addresses(container, password)
    finally:
        runs.remove(container)


def terminate(signum: int, frame: FrameType | None) -> None:
    """A terminated run unwinds, and so removes its container."""
    sys.exit(128 + signum)


def run(command: Sequence[str]) -> int:
    """Run a command beside the services; returns its exit code."""
    engine.ensure()
    client = engine.connect()
    runs.remove_stale(client)
    begin = time.monotonic()
    with running(client) as environment:
        say(f"PostgreSQL and Redis are ready ({duration(time.monotonic() - begin)})")
        process = subprocess.Popen(command, env={**os.environ, **environment})
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run", help="run a command; TEST_{DATABASE,BROKER,CACHE}_URL say where they are")
    runner.add_argument("arguments", nargs="+", metavar="-- COMMAND ARGUMENTS")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    return run(chosen.arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
