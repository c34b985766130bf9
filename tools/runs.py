"""Which containers belong to whom: labels of a checkout and of a run, and removing what dead runs have left."""

from __future__ import annotations

import os
from pathlib import Path

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from tools.console import ROOT

CHECKOUT_LABEL = "groundcrew.checkout"
RUN_LABEL = "groundcrew.run"
RUN_VARIABLE = "GROUNDCREW_RUN"


def process_started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        return None


def namespace() -> str:
    """The process ids of a run mean something only in its own namespace."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def run_id() -> str:
    """The id of this run: of this process, or of the one that started it (GROUNDCREW_RUN)."""
    pid = os.getpid()
    return os.environ.get(RUN_VARIABLE) or f"{namespace()}-{pid}-{process_started(pid)}"


def is_dead(run: str) -> bool:
    """Is it certain that the process of this run has ended?"""
    parts = run.split("-")
    if len(parts) != 3 or parts[0] != namespace() or not parts[1].isdigit():
        return False
    return process_started(int(parts[1])) != parts[2]


def labels() -> dict[str, str]:
    """The labels of what this run makes and removes again."""
    return {CHECKOUT_LABEL: str(ROOT), RUN_LABEL: run_id()}


def remove(container: Container) -> None:
    """Remove a container with its anonymous volumes; one that is gone already is fine."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        # Somebody else is removing it right now
        if error.status_code != 409:
            raise


def remove_stale(client: docker.DockerClient) -> list[str]:
    """Remove the containers and networks of runs that have ended without removing them; returns their names."""
    removed = []
    for container in client.containers.list(all=True, filters={"label": RUN_LABEL}, ignore_removed=True):
        if is_dead(container.labels[RUN_LABEL]):
            remove(container)
            removed.append(str(container.name))
    for network in client.networks.list(filters={"label": RUN_LABEL}):
        if is_dead(network.attrs["Labels"][RUN_LABEL]):
            try:
                network.remove()
            except APIError:
                # Somebody else removes it right now, or uses it by hand
                continue
            removed.append(f"network {network.name}")
    return removed
